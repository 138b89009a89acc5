// Package callagent is the call agent of an enterprise whose PBX has no IME client: a SIP back-to-back user agent between the PBX,
// its PSTN trunks and the IME trunk, which leads to the proxy, in line or through the off-path mapping service.
//
// A called number that has a route goes to the proxy with its ticket; a failure of the IP path puts the call on the PSTN while the
// caller hears ringing. A number without a route goes to the PSTN, and the finished call becomes a voice call record. When the
// proxy tells that a call's Internet path is bad (protocol/fallback.md), the call's audio moves to the PSTN.
//
// Media goes straight between the ends; this package sends and receives RTP for correlation digits alone (RFC 4733).
//
// Sources: guide lines 2022-4411 (configuration), 8880-9000 (counters), 9530-10041 (alerts); protocol/fallback.md, ticket.md and
// mapping.md; RFC 3261, 3264, 4538. Limits: maximum-calls of the configuration, 1,024 queued fallbacks, 1,024 connections a
// listener.
package callagent
