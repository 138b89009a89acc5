// Package capture writes what is on the wire into files that Wireshark and tshark read: the commands `capture` and `show capture`.
//
// Data in: SIP messages after TLS from package trace, packets of an interface from a packet socket (AF_PACKET), and by a command of its own, for
// minutes and told to the log, the keys of TLS sessions. Data out: pcapng files (draft-ietf-opsawg-pcapng) in the state directory, NAME.pcapng, mode 0600. SIP
// is written as Wireshark's exported PDUs (link type 252, with the addresses it went between), packets as Ethernet, TLS keys as decryption secrets
// blocks in the format of NSS key logs.
//
// SIP messages come with their SRTP keys blotted out (package trace). Keys of TLS sessions are written for sessions that begin while they are asked
// for; whoever has such a file reads those sessions.
//
// Limits: MaxCaptures at once, MaxSize megabytes a file: a capture that has filled its file ends. What is slower to write than it comes is lost and
// counted.
package capture
