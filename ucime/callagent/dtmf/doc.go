// Package dtmf sends and collects correlation digits as RTP events (RFC 4733) on a socket of the call agent, for the moments of a
// fallback call in which no phone is at its end.
//
// Data in: a port range, the description (SDP) of the far end, digits 0-9. Data out: a description of the socket, the digits that
// came, and whether audio came. Audio is sent as 200 ms of silence alone, so that a far end that learns addresses from packets
// learns this one. Packets of another host than the description's are not looked at. Limits: 32 digits, 1,500 bytes a packet,
// one goroutine a session, which ends with Close.
package dtmf
