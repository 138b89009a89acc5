package mapping

import (
	"errors"
	"fmt"
	"net/netip"
)

// Validate finds what cannot be meant: unknown links, overlapping networks, translations that collide, port ranges turned
// round. It touches nothing. All mistakes are joined in the error.
func Validate(spec Spec) error {
	v := &validator{spec: spec}
	v.interfaces()
	v.routes()
	v.intercepts()
	v.translations()
	v.groups()
	v.media()
	v.steering()
	v.open()
	return errors.Join(v.errs...)
}

type validator struct {
	spec Spec
	errs []error
}

func (v *validator) errorf(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf(format, args...))
}

// v4 reports an address that is not a usable IPv4 unicast address.
func (v *validator) v4(where string, a netip.Addr) bool {
	if !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		v.errorf("%s: %v is not an IPv4 unicast address", where, a)
		return false
	}
	return true
}

func (v *validator) prefix4(where string, p netip.Prefix) {
	if p.IsValid() && !p.Addr().Is4() {
		v.errorf("%s: %v is not IPv4", where, p)
	}
}

func (v *validator) knownLink(where, link string) {
	if _, ok := v.spec.link(link); !ok {
		v.errorf("%s: %q is no interface of the configuration", where, link)
	}
}

// portRange accepts 0,0 as any.
func (v *validator) portRange(where string, lo, hi uint16) {
	if hi < lo {
		v.errorf("%s: port range %d-%d is turned round", where, lo, hi)
	}
}

func (v *validator) interfaces() {
	for n, i := range v.spec.Interfaces {
		where := "interface " + i.Link
		if i.Link == "" || len(i.Link) > 15 {
			v.errorf("interface %q: a link name has 1 to 15 characters", i.Link)
		}
		if i.Level < 0 || i.Level > 100 {
			v.errorf("%s: security level %d is not within 0-100", where, i.Level)
		}
		if i.Address.IsValid() {
			v.v4(where, i.Address.Addr())
		}
		for _, o := range v.spec.Interfaces[:n] {
			if o.Link == i.Link {
				v.errorf("%s: given twice", where)
			} else if o.Address.IsValid() && i.Address.IsValid() && o.Address.Overlaps(i.Address) {
				v.errorf("%s: network %v overlaps with %v of %s", where, i.Address.Masked(), o.Address.Masked(), o.Link)
			}
		}
	}
	for _, a := range v.spec.Addresses {
		where := fmt.Sprintf("address %v", a.Addr)
		v.v4(where, a.Addr)
		v.knownLink(where, a.Link)
	}
}

func (v *validator) routes() {
	type key struct {
		dst      netip.Prefix
		priority int
	}
	seen := map[key]bool{}
	for _, r := range v.spec.Routes {
		where := fmt.Sprintf("route %v", r.Dst)
		v.knownLink(where, r.Link)
		if !r.Dst.IsValid() || !r.Dst.Addr().Is4() || r.Dst != r.Dst.Masked() {
			v.errorf("%s: not an IPv4 network", where)
		}
		if r.Gateway.IsValid() {
			v.v4(where+": gateway", r.Gateway)
		}
		if r.Priority < 0 {
			v.errorf("%s: priority %d", where, r.Priority)
		}
		if seen[key{r.Dst, r.Priority}] {
			v.errorf("%s: given twice", where)
		}
		seen[key{r.Dst, r.Priority}] = true
	}
}

func (v *validator) intercepts() {
	for n, c := range v.spec.Intercepts {
		where := fmt.Sprintf("intercept %d", n+1)
		if len(c.InLinks) == 0 {
			v.errorf("%s: no interface", where)
		}
		for _, l := range c.InLinks {
			v.knownLink(where, l)
		}
		v.prefix4(where, c.Src)
		v.prefix4(where, c.Dst)
		v.portRange(where, c.PortLo, c.PortHi)
		if c.ListenPort == 0 {
			v.errorf("%s: no listening port", where)
		}
		if !c.Outbound && (!c.Dst.IsValid() || !c.Dst.IsSingleIP()) {
			v.errorf("%s: inbound interception needs one mapped address, not %v", where, c.Dst)
		}
	}
}

func (v *validator) translations() {
	type key struct {
		link string
		addr netip.Addr
		port uint16
		prot string
	}
	mapped, reals := map[key]bool{}, map[key]bool{}
	for _, n := range v.spec.Statics {
		where := fmt.Sprintf("static translation of %v to %v", n.Real, n.Mapped)
		v.pair(where, n.RealLink, n.MappedLink)
		v.v4(where, n.Real)
		v.v4(where, n.Mapped)
		if (n.RealPort == 0) != (n.MappedPort == 0) {
			v.errorf("%s: either both ports or none", where)
		}
		if n.Proto != "" && n.Proto != "tcp" && n.Proto != "udp" || n.Proto != "" && n.whole() {
			v.errorf("%s: protocol %q does not fit", where, n.Proto)
		}
		for _, p := range n.protos() {
			m, r := key{n.MappedLink, n.Mapped, n.MappedPort, p}, key{n.MappedLink, n.Real, n.RealPort, p}
			if mapped[m] {
				v.errorf("%s: the mapped address is taken by another translation", where)
			}
			if reals[r] {
				v.errorf("%s: the real address is translated twice towards %s", where, n.MappedLink)
			}
			mapped[m], reals[r] = true, true
		}
		for _, i := range v.spec.Interfaces {
			if n.whole() && !n.identity() && i.Address.IsValid() && i.Address.Addr() == n.Mapped {
				v.errorf("%s: the mapped address is that of interface %s; translate single ports", where, i.Link)
			}
		}
	}
	for _, n := range v.spec.Dynamics {
		where := fmt.Sprintf("dynamic translation of %v", n.Real)
		v.pair(where, n.RealLink, n.MappedLink)
		if !n.Real.IsValid() || !n.Real.Addr().Is4() {
			v.errorf("%s: not an IPv4 network", where)
		}
		if n.Mapped.IsValid() {
			v.v4(where, n.Mapped)
		}
	}
}

func (v *validator) pair(where, realLink, mappedLink string) {
	v.knownLink(where, realLink)
	v.knownLink(where, mappedLink)
	if realLink == mappedLink {
		v.errorf("%s: real and mapped interface are both %s", where, realLink)
	}
}

func (v *validator) groups() {
	if v.spec.DenyFlows < 0 || v.spec.DenyFlows > MaxFlows {
		v.errorf("%d denied flows are not within 0-%d", v.spec.DenyFlows, MaxFlows)
	}
	seen := map[string]bool{}
	for _, g := range v.spec.Groups {
		where := fmt.Sprintf("access group %s %s", g.Link, g.Direction)
		v.knownLink(where, g.Link)
		if g.Direction != "in" && g.Direction != "out" {
			v.errorf("%s: the direction is in or out", where)
		}
		if seen[where] {
			v.errorf("%s: given twice", where)
		}
		seen[where] = true
		for n, r := range g.Rules {
			rule := fmt.Sprintf("%s rule %d", where, n+1)
			if len(r.ID) > MaxID {
				v.errorf("%s: ID longer than %d bytes", rule, MaxID)
			}
			v.prefix4(rule, r.Src)
			v.prefix4(rule, r.Dst)
			v.portRange(rule, r.SrcLo, r.SrcHi)
			v.portRange(rule, r.DstLo, r.DstHi)
			switch r.Proto {
			case "tcp", "udp":
			case "ip", "icmp":
				if r.SrcHi != 0 || r.DstHi != 0 {
					v.errorf("%s: %s has no ports", rule, r.Proto)
				}
			default:
				v.errorf("%s: protocol %q is none of ip, tcp, udp, icmp", rule, r.Proto)
			}
		}
	}
}

func (v *validator) media() {
	for n, m := range v.spec.Media {
		where := fmt.Sprintf("media range of %v", m.Addr)
		v.v4(where, m.Addr)
		v.portRange(where, m.Lo, m.Hi)
		if m.Lo == 0 {
			v.errorf("%s: no ports", where)
		}
		for _, o := range v.spec.Media[:n] {
			if o.Addr == m.Addr && o.Lo <= m.Hi && m.Lo <= o.Hi {
				v.errorf("%s: ranges %d-%d and %d-%d overlap", where, o.Lo, o.Hi, m.Lo, m.Hi)
			}
		}
		// Media packets are not tracked, and what is not tracked is not translated.
		for _, s := range v.spec.Statics {
			if s.Mapped == m.Addr || s.Real == m.Addr {
				v.errorf("%s: the address is part of a static translation", where)
			}
		}
		for _, d := range v.spec.Dynamics {
			i, _ := v.spec.link(d.MappedLink)
			if d.Mapped == m.Addr || !d.Mapped.IsValid() && i.Address.IsValid() && i.Address.Addr() == m.Addr {
				v.errorf("%s: the address is that of a dynamic translation", where)
			}
		}
	}
}

func (v *validator) steering() {
	n := len(v.spec.Steering.Workers)
	if n&(n-1) != 0 {
		v.errorf("%d media workers are no power of two", n)
	}
	for _, port := range v.spec.Steering.Workers {
		if port == 0 {
			v.errorf("a media worker has no port")
		}
	}
	for _, link := range v.spec.Steering.Tapped {
		v.knownLink("tapped for media", link)
		if n == 0 {
			v.errorf("interface %s is tapped for media, but there is no worker", link)
		}
	}
}

func (v *validator) open() {
	for _, o := range v.spec.Open {
		where := fmt.Sprintf("open port %s %d", o.Proto, o.Port)
		if o.Link != "" {
			v.knownLink(where, o.Link)
		}
		if o.Proto != "tcp" && o.Proto != "udp" {
			v.errorf("%s: protocol is none of tcp, udp", where)
		}
		if o.Port == 0 {
			v.errorf("%s: no port", where)
		}
		if o.PortHi != 0 && o.PortHi < o.Port {
			v.errorf("%s: the range ends at %d, before it begins", where, o.PortHi)
		}
		if o.Addr.IsValid() {
			v.v4(where, o.Addr)
		}
		v.prefix4(where, o.Src)
	}
}
