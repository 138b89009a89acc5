// Package ticket issues and verifies UC-IME tickets, version 1.
//
// A ticket says: the granting domain lets callers of the granted-to domain call
// these numbers until not-after. The enterprise that answers a validation
// issues it; the other one's call agent puts it on every request that opens a
// dialog, in X-Cisco-UC-IME-Ticket; the proxy in front of the granting
// enterprise verifies it.
//
// Layout, integrity and the order of the checks are in docs/tickets.md. In
// short: TLVs in ascending order of type, closed by an HMAC-SHA256 (RFC 2104)
// under a key that PBKDF2 (RFC 8018) makes from the configured password and
// epoch. The carriage is base64 (RFC 4648 section 4).
//
// Data in: header values, the called number, the domains of the peer's
// certificate and the time of day, all from the caller. Data out: a [Result]
// whose text is the counter that grows, and the [Ticket]. The package does no
// I/O and keeps no state but the derived key, so all of it may be used by
// several goroutines at once.
//
// Limits: 4,096 characters of base64, 1 to 64 numbers, domains of 1 to 253
// bytes. A forged ticket costs two HMACs; the 100,000 rounds of the key are
// spent once, in DeriveKey.
package ticket
