// Package service is the off-path mapping service: a call agent that cannot route to the Internet asks it for an inside address and
// port that stands for a remote enterprise's global address, and calls that.
//
// # Data in, data out
//
// In: TCP connections of the configured call agents to the listening address (mapping requests) and to mapped ports (SIP legs). Out:
// answers, and for each leg one call of [Options.Leg] with the connection, the client and the target. What a leg then carries is the
// caller's matter. The file of [Options.StateFile] holds the mappings, so that a restart keeps them.
//
// # Messages
//
// STUN framing over TCP (RFC 8489 sections 5, 6.2.2, 14 and 14.7; codes 440, 486 and 508 are those of RFC 8656 section 19) with the
// private method 0x00F: request 0x000F with XOR-PEER-ADDRESS (0x0012), success 0x010F with XOR-MAPPED-ADDRESS (0x0020) and LIFETIME
// (0x000D), error 0x011F with ERROR-CODE. A message whose frame cannot be trusted closes the connection; any other mistake has an answer.
//
// # Mappings
//
// One for each pair of client and target, behind a listening socket of its own on the inside address: a port whose mapping has ended is
// closed, and so answers RST by itself; a port on which anyone else listens cannot be taken. A mapping lives for its lifetime after its
// last request or the end of its last leg; then its port rests and goes to no other pair for a minute, or for the lifetime where that is
// less.
//
// # Limits
//
// IPv4 targets. Frames of 1,024 bytes and a header; 1,024 unanswered requests a connection; [MaxConns] connections a client; [MaxLegs]
// legs in all; a quota of mappings a client, and as many mappings in all as the range has ports. Each mapping costs one descriptor.
// The state file is written at once and then at most once a second: a killed daemon forgets what a second brought.
package service
