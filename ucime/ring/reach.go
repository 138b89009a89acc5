package ring

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	errNowhere = errors.New("no address at which a member of this ring can be")
	shared     = netip.MustParsePrefix("100.64.0.0/10") // between customers of one carrier, RFC 6598
	reserved   = netip.MustParsePrefix("240.0.0.0/4")
	thisNet    = netip.MustParsePrefix("0.0.0.0/8")
)

// inside says whether an address counts within one site alone.
func inside(a netip.Addr) bool { return a.IsPrivate() || shared.Contains(a) }

// reachable says why another member cannot be at an address, nil where it can. It is the other's word, and whoever acts on it connects to it: so it must not be a host of
// ours, nor one of our site, unless the whole ring is there: we ourselves are known by such an address then.
func reachable(a, own netip.Addr) error {
	a, own = a.Unmap(), own.Unmap()
	bad := !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsInterfaceLocalMulticast() ||
		thisNet.Contains(a) || reserved.Contains(a) ||
		a.IsLoopback() && !own.IsLoopback() || inside(a) && !inside(own) && !own.IsLoopback() || a == own && !own.IsLoopback()
	if bad {
		return fmt.Errorf("%s: %w", a, errNowhere)
	}
	return nil
}

// placed says why a description of another member names no address at which it can be.
func (n *node) placed(d *description) error {
	if d.addr.Port() == 0 {
		return fmt.Errorf("%s: %w", d.addr, errNowhere)
	}
	return reachable(d.addr.Addr(), n.addr.Addr())
}

// minValidatorPort keeps claims from leading to the services that a host has besides.
const minValidatorPort = 1024

// validatorOf checks the address of a validator that a claim of p names, and returns it: p's own address, as the ring knows it and reaches it, and a port. "" where p is no member now, so that
// nobody knows.
func (n *node) validatorOf(p *party, address string) (string, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", fmt.Errorf("validator of %s: %w", p.name, err)
	}
	m := n.member(p.name)
	switch {
	case m == nil:
		return "", nil
	case at.Addr().Zone() != "" || at.Addr().Unmap() != m.Addr.Addr() || at.Port() < minValidatorPort:
		return "", fmt.Errorf("validator of %s at %s: %w", p.name, at, CodePlace)
	}
	return netip.AddrPortFrom(m.Addr.Addr(), at.Port()).String(), nil
}
