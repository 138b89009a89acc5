// Package sdp understands and edits session descriptions in the signaling path.
//
// A description is kept as the lines in which it came. Only what must change
// changes: order, line ends, odd blanks and everything that the package does
// not know stay to the byte. A library that parses and prints again was tried
// and put aside, because it reorders lines and refuses descriptions that real
// phones send (LF line ends, b= before c=, blanks in the user of o=, lines that
// are missing).
//
// Standards: RFC 4566 and RFC 8866 (session description), RFC 3264 (offer and
// answer, hold, refused lines), RFC 3605 (a=rtcp), RFC 5761 (a=rtcp-mux),
// RFC 4568 and RFC 7714 (a=crypto), RFC 6188 (AES-192 and AES-256 suites),
// RFC 2046 (multipart bodies).
//
// Data in: the body of a SIP message and, for a rewrite, an [Edit] with the
// addresses, ports and keys that belong on the other side. Data out: typed
// values ([Session], [Media], [Crypto]) and the edited bytes. The package opens
// no sockets, starts no goroutines and reads no clock. Whether an address or a
// suite is wanted is the caller's decision.
//
// Limits, each an error and never a truncation: 64 KiB a description, 8 KiB a
// line, 32 m= lines, 32 usable a=crypto lines a medium and 8 keys a line; in
// multipart bodies 16 parts, two levels and 8 KiB of headers a part.
package sdp
