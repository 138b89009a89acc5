// Package ring is the distributed cache in which peer servers publish, hashed,
// the numbers that they claim, and find who claims a number.
//
// Sources: guide lines 319-371 (peer and bootstrap servers), 1768-1792 (show
// ime dht summary), 3943-3960 (fetch did), 8660-8766 (counters), 9008-9560
// (alerts); reference/ring.md. The wire forms, limits and errors are the
// project's own: docs/protocol/ring.md, which wins over this code.
//
// Data in: numbers that call agents publish, certificates and revocations from
// the enrolment ([Identity]), connections on TCP 6084, the time. Data out:
// claims ([Claim]: peer ID and validator address) for a number, and the state
// of the ring with its counters ([Status]), from which alerts are made.
//
// Inside: record.go, member.go, settings.go and wire.go are codecs;
// placement.go says who holds what; storage.go is a holder; node.go is a member
// as plain state, without sockets, goroutines or clock, so that a test runs a
// thousand of them; ring.go drives a node over transport.go (TLS), requests.go
// and gossip.go (hashicorp/memberlist: who is there, who is gone).
//
// Limits: 20,000 members, 8 peer IDs each, 1,000,000 records held (settable),
// 32 claims for a number, per-member budgets for connections, stores and failed
// reads. Nobody else's numbers are ever readable here: only their hashes.
package ring
