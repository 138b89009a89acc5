// Package pvp validates PSTN calls: two peer servers prove to each other that a call took place between their enterprises,
// and the called side then hands out numbers, routes and a ticket.
//
// Sources: docs/protocol/pvp.md (normative: frames, sizes, limits, security argument), draft-irtf-cfrg-cpace-21 with RFC 9496
// (the PAKE), RFC 8446 and RFC 9266 (TLS 1.3 and its exporter), guide lines 200-318 and 8620-8830 (rules and counters).
//
// Data in: connections of other peer servers (Server), VCRs to validate with the address and peer ID that the ring found
// for their called number (Client), VCRs of calls that came in (Records, implemented by Index), certificates and their peer
// IDs (Identity), trust groups (Trust), tickets (Issuer, implemented by TicketIssuer). Data out: a Result for each VCR, the
// marks of proven VCRs, counters. The package keeps nothing on disk.
//
// Data flow: facts.go turns a VCR into selector and passwords, cpace.go into points and keys, wire.go into frames; session.go
// (called side) and client.go (calling side) exchange them; limits.go and budget.go bound who may try how often.
//
// Limits: stand in the document and in Limits; every table has a cap. Server and Client may be used by several goroutines.
package pvp
