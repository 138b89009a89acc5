package source

import (
	"net"
	"net/netip"
	"testing"
)

func TestSources(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8::1": "2001:db8::", "2001:db8:0:0:9::1": "2001:db8::", "fe80::1%eth0": "fe80::",
	} {
		if got := Of(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("source of %s is %s, want %s", in, got, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.0/24", "::ffff:192.0.2.7": "192.0.2.0/24", "2001:db8:1:2::1": "2001:db8:1::/48", "fe80::1%eth0": "fe80::/48",
	} {
		if got := Network(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("network of %s is %s, want %s", in, got, want)
		}
	}
	if Network(netip.Addr{}).IsValid() {
		t.Error("no address has a network")
	}
}

func TestConnections(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if NetworkOfConn(a).IsValid() {
		t.Error("a connection without addresses has a network")
	}
	if got := OfConn(a); got.IsValid() {
		t.Errorf("the source of a connection without addresses is %s", got)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := NetworkOfConn(c); got.String() != "127.0.0.0/24" {
		t.Errorf("network %s", got)
	}
	if got := OfConn(c); got.String() != "127.0.0.1" {
		t.Errorf("source %s", got)
	}
}
