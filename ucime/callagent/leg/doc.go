// Package leg is the call agent's SIP: endpoints (a trunk's sockets with their transactions, by sipgo) and legs, the dialogs that
// a back-to-back user agent has on them (RFC 3261 sections 12 to 15, 17; RFC 3264 section 8 for the o= line).
//
// Data in and out: requests and responses. A leg keeps its route set, its remote target, its sequence numbers and the last
// descriptions of both sides; a 2xx is repeated over UDP until its ACK, and an ACK is repeated when its 2xx is. Loose routing
// alone; reliable provisional responses (RFC 3262) and session timers (RFC 4028) are the callers' of this package, who pass them on. Limits: 1,024 connections a listener,
// 1,024 UDP senders besides the peer, messages of 64 KiB. Endpoint and Leg are for concurrent use.
package leg
