// Package mapclient asks the off-path mapping service of a proxy for the inside stand-in of a far enterprise's address
// (protocol/mapping.md: STUN framing of RFC 8489 over TCP).
//
// Data in: a global address and port. Data out: the mapped address, or why there is none. One connection a client, opened on
// demand and closed when no request was sent for the idle time; requests are pipelined, at most 256 unanswered. For concurrent use.
package mapclient
