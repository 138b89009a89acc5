// Package vap is the Validation Access Protocol between call agents and their peer server, both ends: docs/protocol/vap.md is the
// protocol, this is its codec, a [Server] and a [Client].
//
// Sources: guide lines 319-371, 1678-1859 and 3854-3960 (settings, status fields), 9800-9850 (over quota), shared/reference/vap.md (the
// framing of XMCP, codes, gaps), RFC 8489 sections 5 and 14 (the form of messages), RFC 2104 (HMAC), RFC 8018 (PBKDF2).
//
// # Data in, data out
//
// The server takes TCP or TLS connections on the ports of its instances and gives a [Handler] what call agents publish and upload; it
// takes learned routes from the handler and brings them to the call agents until they are acknowledged. It keeps publications in memory
// and nothing on disk: what must outlive a restart is the handler's. The client keeps one registration alive, publishes what
// [Client.SetServices] says, uploads records, and gives notifications to a callback.
//
// # Limits
//
// Messages of 64 KiB, 1 KiB before registration; per instance 64 connections that are not registered (the oldest gives way) and
// MaxConnections that are; 1,024 sources (IPv4 address, IPv6 /64) remembered for wrong passwords (the oldest gives way); 16 services a user, 128 pages a
// service, 500 patterns a page; 16 subscriptions and 16 unanswered notifications a connection. Each limit has a counter in [Stats].
package vap
