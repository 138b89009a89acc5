// Package probe asks hosts on the network whether they answer: ping and traceroute, as an ASA shows them, and whether packets of a size reach a host whole.
//
// Data in: what the operator typed, and ICMP messages from the network. Data out: an ASA's lines, written as the answers come, or yes and no.
// Sources: RFC 792 (echo, time exceeded, destination unreachable); the layouts are those of an ASA's commands.
//
// Limits: IPv4; MaxRepeat probes, MaxSize bytes, MaxTimeout for one answer, MaxHops. A raw socket is needed (CAP_NET_RAW). It gets every ICMP message
// of the host, so only answers to our own identifier and sequence number are taken, from the host that was asked or, for errors, with our echo in them.
package probe
