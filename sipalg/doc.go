// Package sipalg treats SIP as data: it frames a byte stream into messages,
// parses them without loss, refuses what would harm a call agent and translates
// the addresses in headers when a message crosses the border between inside and
// outside.
//
// Sources: RFC 3261 (messages, section 7; framing, 18.3; grammar, 25), RFC 3581
// (rport), RFC 4475 (what a parser must survive), RFC 5626 section 4.4.1 (CRLF
// keep-alive), RFC 3325, 3515, 3891, 3892, 4538, 5806 and 7044 (headers that carry
// addresses), RFC 3420 (message/sipfrag).
//
// Data in: an io.Reader (Framer), frames (Parse), messages (Check, Rewriter).
// Data out: frames, messages, verdicts (Violation) with the SIP answer that is
// due, and translated messages. The package opens no socket, starts no goroutine
// and reads no clock; deadlines belong to the caller's reader. Session
// descriptions are the business of the package sdp below, the state of dialogs
// that of the package dialog.
//
// Limits: a frame of 64 KiB (MaxFrame), a header of 8 KiB when unfolded
// (MaxLine), 256 headers (MaxHeaders), nested multipart bodies to a depth of 4.
// What exceeds them is refused, never cut.
//
// A value of any type here belongs to one goroutine at a time, except Sealer,
// which is safe for concurrent use.
package sipalg
