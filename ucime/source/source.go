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
