// Package proxy is the appliance: it reads a typed configuration, builds the rooms
// from it (certificates, kernel rules, media termination), owns the tables of signaling
// sessions and calls, and moves SIP messages from one side to the other.
//
// Purpose: the Intercompany Media Engine proxy of guide lines 372-400, in-line. Outbound, the
// call agent's TCP connections to the Internet are intercepted and continued over TLS;
// inbound, TLS connections to the call agent's mapped address end here and go on to its real address
// when the ticket of the dialog-opening request has been verified. Off-path (guide lines 5604-5693) the call agent's connections come to
// mapped ports instead of being intercepted (offpath.go). The audio of all calls from the Internet is judged, and call agents are told of
// calls that should move to the PSTN (quality.go).
//
// Sources: RFC 3261 (SIP), 3264 (offer/answer), 4568 (SDES), 5626 section 3.5.1 and 4.4.1
// (keep-alive), 5922 (domain certificates); the project's ticket and fallback
// formats; guide lines 4472-5600.
//
// Data in: SIP messages of both sides. Data out: the same messages, checked, judged by
// the dialog's state, translated, their session descriptions pointing at the media
// termination addresses; call records, counters and snapshots for the show commands.
//
// The way of a message: connection -> sipalg.Framer -> sipalg.Parse and Check -> call (lock) -> dialog
// -> offer/answer -> sipalg.Rewriter -> the other connection's write queue.
//
// Concurrency: one goroutine reads each connection and one writes it; a call has one lock, held
// without any blocking operation; connections are opened before it is taken.
//
// Limits: see limits.go. Every table has a cap, and a counter tells what was refused.
package proxy
