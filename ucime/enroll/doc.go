// Package enroll says who may be a member of the ring: licenses, an authority that gives certificates for them, and the member's side,
// which keeps its certificate young and asks who was thrown out. docs/protocol/enroll.md is the protocol, docs/enroll.md the handbook.
//
// Sources: guide lines 943-1005 (license file), 1552-1670 (install, enrolment, renewal), shared/reference/ring.md (fields, sizes), RFC 5280
// (certificates, lists of revoked ones), RFC 2986 (requests), RFC 8032 (Ed25519).
//
// # Data in, data out
//
// An [Authority] lives in a directory: its keys, and a journal of what it issued and revoked. [Authority.Handler] serves it over HTTPS. A
// [Member] lives in a directory too: its key and certificate, its license and the last list of revoked certificates. It answers, for every
// TLS connection of the ring, what our certificate is, whose word counts, which peer IDs a certificate names and whether it is revoked.
//
// # Limits
//
// License files of 8 KiB with 1 to 64 peer IDs. Requests of 16 KiB, 64 at a time, 20 refused ones a source address and minute (1,024
// addresses are remembered, the oldest gives way); 10 certificates a license and day. Lists of revoked certificates of 4 MiB.
package enroll
