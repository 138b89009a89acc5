package source

import (
	"net"
	"net/netip"
)

// Of is an IPv4 address, also one written as IPv6, or the /64 of an IPv6 address, which one host may have to itself. The
// zero address is its own source.
func Of(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if p, err := a.Prefix(64); err == nil && a.Is6() {
		return p.Addr()
	}
	return a
}

// OfConn is the source of a connection, the zero address where it has none.
func OfConn(c net.Conn) netip.Addr {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return Of(a.AddrPort().Addr())
}

// Network is the /24 or /48 of an address: what a site may have to itself, so that those of one network share what is scarce. The
// zero prefix where there is no address.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits) // of no address there is none
	return p
}

// NetworkOfConn is the network of a connection's other end, the zero prefix where it has no address.
func NetworkOfConn(c net.Conn) netip.Prefix {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return Network(a.AddrPort().Addr())
}
