package mapping

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flowFilter is a predicate over conntrack entries.
type flowFilter func(*netlink.ConntrackFlow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

// forgetFlows deletes the conntrack entries of the filters.
func forgetFlows(filters ...netlink.CustomConntrackFilter) (uint, error) {
	n, err := retry(func() (uint, error) {
		return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, filters...)
	})
	if err != nil {
		return n, fmt.Errorf("delete conntrack entries: %w", err)
	}
	return n, nil
}

func inPrefix(p netip.Prefix, ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	return !p.IsValid() || ok && p.Contains(a.Unmap())
}

func is(a netip.Addr, ip net.IP) bool {
	b, ok := netip.AddrFromSlice(ip)
	return ok && a == b.Unmap()
}

// routeTo looks up how a packet to ip would leave.
func routeTo(ip net.IP) (link string, local bool) {
	routes, err := netlink.RouteGet(ip)
	if err != nil || len(routes) == 0 {
		return "", false
	}
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", false
	}
	return l.Attrs().Name, routes[0].Type == unix.RTN_LOCAL
}

// intercepted matches entries of connections that an interception would have taken, had it been there when they opened. Such
// an entry would keep its translation for packets that now belong to the proxy. Live connections of the proxy are marked.
func intercepted(c Intercept) flowFilter {
	return func(f *netlink.ConntrackFlow) bool {
		port := f.Forward.DstPort
		if f.Mark == Mark || f.Forward.Protocol != unix.IPPROTO_TCP ||
			!inPrefix(c.Src, f.Forward.SrcIP) || !inPrefix(c.Dst, f.Forward.DstIP) ||
			(c.PortLo != 0 || c.PortHi != 0) && (port < c.PortLo || port > c.PortHi) {
			return false
		}
		if from, _ := routeTo(f.Forward.SrcIP); !slices.Contains(c.InLinks, from) {
			return false
		}
		_, local := routeTo(f.Forward.DstIP)
		return !c.Outbound || !local
	}
}

// proxied matches entries of the proxy's own connections.
func proxied(f *netlink.ConntrackFlow) bool { return f.Mark == Mark }

// untranslated matches entries of real hosts that leave through the mapped interface with their real address: they began
// before the translation was there, and would keep the inside address for as long as packets come.
func untranslated(spec Spec) flowFilter {
	leaves := func(f *netlink.ConntrackFlow, link string) bool {
		out, local := routeTo(f.Forward.DstIP)
		return out == link && !local
	}
	return func(f *netlink.ConntrackFlow) bool {
		if f.Mark == Mark || !f.Forward.SrcIP.Equal(f.Reverse.DstIP) {
			return false
		}
		for _, n := range spec.Statics {
			if !n.identity() && is(n.Real, f.Forward.SrcIP) && (n.whole() || f.Forward.SrcPort == n.RealPort) && leaves(f, n.MappedLink) {
				return true
			}
		}
		for _, n := range spec.Dynamics {
			if n.Real.Bits() > 0 && inPrefix(n.Real, f.Forward.SrcIP) && leaves(f, n.MappedLink) {
				return true
			}
		}
		return false
	}
}

// translated matches entries that a static translation has changed, in either direction.
func translated(n StaticNAT) flowFilter {
	return func(f *netlink.ConntrackFlow) bool {
		if n.identity() {
			return false
		}
		out := is(n.Real, f.Forward.SrcIP) && is(n.Mapped, f.Reverse.DstIP) &&
			(n.whole() || f.Forward.SrcPort == n.RealPort && f.Reverse.DstPort == n.MappedPort)
		in := is(n.Mapped, f.Forward.DstIP) && is(n.Real, f.Reverse.SrcIP) &&
			(n.whole() || f.Forward.DstPort == n.MappedPort && f.Reverse.SrcPort == n.RealPort)
		return out || in
	}
}

// hidden matches entries whose source a dynamic translation of the former spec has changed.
func hidden(n DynamicNAT, old Spec) flowFilter {
	to := n.Mapped
	if i, ok := old.link(n.MappedLink); !to.IsValid() && ok {
		to = i.Address.Addr()
	}
	return func(f *netlink.ConntrackFlow) bool {
		return f.Mark != Mark && inPrefix(n.Real, f.Forward.SrcIP) && !f.Forward.SrcIP.Equal(f.Reverse.DstIP) && to.IsValid() && is(to, f.Reverse.DstIP)
	}
}

// sameFilter says whether two specs let the same connections begin; what is only counted or logged does not matter.
func sameFilter(a, b Spec) bool {
	return a.SameLevel == b.SameLevel && slices.Equal(a.Interfaces, b.Interfaces) && slices.Equal(a.Statics, b.Statics) && slices.Equal(a.Dynamics, b.Dynamics) &&
		slices.EqualFunc(a.Groups, b.Groups, func(x, y AccessGroup) bool {
			return x.Link == y.Link && x.Direction == y.Direction && slices.EqualFunc(x.Rules, y.Rules, func(r, s Rule) bool {
				r.ID, r.Log, r.Quiet, s.ID, s.Log, s.Quiet = "", false, false, "", false, false
				return r == s
			})
		})
}

// refused matches forwarded connections that the filter of a spec would not let begin now. It keeps what it has looked up.
func refused(spec Spec) flowFilter {
	type way struct {
		link  string
		local bool
	}
	known := map[netip.Addr]way{}
	route := func(to netip.Addr) (string, bool) {
		w, ok := known[to]
		if !ok {
			w.link, w.local = routeTo(to.AsSlice())
			known[to] = w
		}
		return w.link, w.local
	}
	protos := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp"}
	return func(f *netlink.ConntrackFlow) bool {
		name, ok := protos[f.Forward.Protocol]
		if f.Mark == Mark || !ok {
			return false
		}
		src, real := endpoint(f.Forward.SrcIP, f.Forward.SrcPort), endpoint(f.Reverse.SrcIP, f.Reverse.SrcPort)
		from, own := route(src.Addr())
		to, local := route(real.Addr())
		in, ok := spec.link(from)
		out, ours := spec.link(to)
		if own || local || !ok || !ours {
			return false
		}
		mapped := endpoint(f.Forward.DstIP, f.Forward.DstPort)
		w := Way{Dst: real}
		return !spec.traceForward(&w, Packet{Link: from, Proto: name, Src: src.Addr(), SrcPort: src.Port(), Dst: mapped.Addr(), DstPort: mapped.Port()}, in, out)
	}
}
