// Package mapping makes the kernel do what the appliance's configuration says about packets: it intercepts the SIP
// connections of the inspected classes, translates addresses (static NAT, static and dynamic PAT), filters by security
// level and access list, and sets addresses, routes and forwarding.
//
// # Data in, data out
//
// In: a [Spec] of plain values. Out: three nftables tables of family ip (imeproxy_intercept, imeproxy_nat,
// imeproxy_filter) and one of family ip6 (imeproxy_filter), an `ip rule` for packets with [Mark], one local route in table
// [RouteTable], addresses, routes and sysctls, and the file kernel.json in the state directory, which lists what was
// added and what the sysctls were before. What was there already is left in place and is never removed.
//
// # How a connection goes
//
// A TCP connection of an [Intercept] is given to the listener on 127.0.0.1:ListenPort by tproxy; getsockname(2) of the
// accepted socket is the destination that the client dialled. With no listener the packet drops: nothing slips past a dead
// daemon. The proxy's own connections, bound to a foreign or a mapped address with IP_TRANSPARENT, need no mark: their
// answers are found by `socket transparent` and get [Mark], which leads them to the local socket and past the translation
// rules. Nothing of ours is translated in postrouting, because each translation rule names the interface on which the packet
// came in, and a packet of our own has none. A socket must not carry [Mark] itself (SO_MARK): it would be routed to
// the loopback interface.
//
// Connections of the proxy carry [Mark] as their conntrack mark as well. A packet with that mark is never forwarded:
// what a call agent sends late, to a connection that the proxy has closed, does not reach the Internet with its inside address.
//
// # References
//
// Rules of an ASA 8.3 and later (security levels, access rules with real addresses, implicit deny), RFC 5227 (ARP probe and
// announcement), Linux Documentation/networking/tproxy.rst. Operators read docs/kernel.md.
//
// # Limits
//
// IPv4 only; on lower-security interfaces IPv6 is filtered (ICMPv6 and answers pass). Interception is of TCP. Interfaces
// that are not in the [Spec] are left alone. Entries with
// very many different masks that overlap each other are walked. Of one access group, protocol and action [MaxFlows] flows are followed for entries that say log; a
// packet that comes within the moment in which its flow is forgotten, after an interval without any, is counted as the entry's hit alone. One appliance for each network namespace.
package mapping
