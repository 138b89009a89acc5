package vap

import (
	"net/netip"
	"testing"
	"time"
)

// One host has a whole /64 of IPv6: its addresses are one source, for the places of connections.
func TestManyAddressesOfOneHost(t *testing.T) {
	inst := &Instance{}
	s := &Server{conns: map[*conn]struct{}{}}
	at := time.Unix(1000, 0)
	add := func(addr string, opened time.Time) *conn {
		c := &conn{inst: inst, remote: netip.AddrPortFrom(netip.MustParseAddr(addr), 1), opened: opened}
		s.conns[c] = struct{}{}
		return c
	}
	slow := add("2001:db8:1::1", at) // another host, the oldest of all
	add("192.0.2.1", at.Add(time.Second))
	a := netip.MustParseAddr("2001:db8:2::1")
	oldest := add(a.String(), at.Add(2*time.Second))
	for i := range maxUnregistered - 3 {
		a = a.Next()
		add(a.String(), at.Add(time.Duration(3+i)*time.Second))
	}
	if got := s.surplus(inst); got != oldest {
		t.Errorf("%v gives way (the host with one connection is %v), want the oldest of the host with many", got.remote, slow.remote)
	}
}
