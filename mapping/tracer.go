package mapping

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Packet is the first packet of a would-be connection.
type Packet struct {
	Link             string // on which it arrives
	Proto            string // tcp, udp or icmp
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16 // tcp and udp
}

// Phase is a step on the packet's way.
type Phase struct {
	Type   string // UN-NAT, INSPECT, ROUTE-LOOKUP, ACCESS-LIST, NAT, LOCAL
	Text   string // what was found
	ID     string // of the rule that decided, if it has one
	Passed bool
}

// Way is what the rules do with a packet.
type Way struct {
	Phases []Phase
	// Allowed says that it goes on: forwarded, taken by the proxy, or to the appliance itself.
	Allowed bool
	Out     string // link on which a forwarded packet leaves
	Src     netip.AddrPort
	Dst     netip.AddrPort // as it leaves
	Proxied bool           // a listener of the proxy has it
	Local   bool           // it is for the appliance
}

// lookup finds the link on which a packet to an address leaves; local: the address is the appliance's own.
type lookup func(to netip.Addr) (link string, local bool)

// Trace follows a packet through the rules in force, as the kernel would let a first packet of a connection go; nothing is sent. It asks the
// kernel for its routes.
func (k *Kernel) Trace(p Packet) (Way, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		return Way{}, ErrRemoved
	}
	return k.spec.trace(p, func(to netip.Addr) (string, bool) {
		return routeTo(net.IP(to.AsSlice()))
	}), nil
}

func (s Spec) trace(p Packet, route lookup) Way {
	w := Way{Src: netip.AddrPortFrom(p.Src, p.SrcPort), Dst: netip.AddrPortFrom(p.Dst, p.DstPort)}
	in, ok := s.link(p.Link)
	if !ok {
		w.step("INPUT", false, "", "interface %s is not configured", p.Link)
		return w
	}
	if s.traceIntercept(&w, p, route) {
		return w
	}
	s.traceUnNAT(&w, p)
	out, local := route(w.Dst.Addr())
	if local {
		s.traceLocal(&w, p, in)
		return w
	}
	w.Local = false
	if out == "" {
		w.step("ROUTE-LOOKUP", false, "", "no route to %s", w.Dst.Addr())
		return w
	}
	egress, ok := s.link(out)
	w.Out = out
	if !ok {
		w.step("ROUTE-LOOKUP", !s.outside(in), "", "%s leaves through %s, which is not configured", w.Dst.Addr(), out)
		w.Allowed = !s.outside(in)
		return w
	}
	w.step("ROUTE-LOOKUP", true, "", "%s leaves through %s (%s)", w.Dst.Addr(), egress.Name, out)
	if !s.traceForward(&w, p, in, egress) {
		return w
	}
	s.traceNAT(&w, p, egress)
	w.Allowed = true
	return w
}

func (w *Way) step(kind string, passed bool, id, format string, args ...any) {
	w.Phases = append(w.Phases, Phase{Type: kind, Passed: passed, ID: id, Text: fmt.Sprintf(format, args...)})
}

// traceIntercept finds the class that takes the connection (addIntercept).
func (s Spec) traceIntercept(w *Way, p Packet, route lookup) bool {
	if p.Proto != "tcp" {
		return false
	}
	for _, c := range s.Intercepts {
		if !slices.Contains(c.InLinks, p.Link) || !holds(c.Src, p.Src) || !holds(c.Dst, p.Dst) || !within(p.DstPort, c.PortLo, c.PortHi) {
			continue
		}
		if _, local := route(p.Dst); c.Outbound && local {
			continue
		}
		w.step("INSPECT", true, c.ID, "the proxy takes the connection")
		w.Allowed, w.Proxied = true, true
		return true
	}
	return false
}

// traceUnNAT finds the real destination (addNAT).
func (s Spec) traceUnNAT(w *Way, p Packet) {
	for _, n := range sortedStatics(s.Statics) {
		if n.identity() || n.MappedLink != p.Link || n.Mapped != p.Dst {
			continue
		}
		if n.whole() {
			w.Dst = netip.AddrPortFrom(n.Real, p.DstPort)
		} else if slices.Contains(n.protos(), p.Proto) && n.MappedPort == p.DstPort {
			w.Dst = netip.AddrPortFrom(n.Real, n.RealPort)
		} else {
			continue
		}
		w.step("UN-NAT", true, "", "static %s to %s", p.Dst, w.Dst)
		return
	}
}

// traceLocal follows a packet to the appliance itself (addSelf).
func (s Spec) traceLocal(w *Way, p Packet, in Interface) {
	w.Local = true
	to := w.Dst
	switch {
	case !s.outside(in):
		w.Allowed = true
		w.step("LOCAL", true, "", "%s is the appliance's own, and %s is trusted: whoever listens gets it", to.Addr(), in.Name)
		return
	case p.Proto == "icmp":
		w.Allowed = true
		w.step("LOCAL", true, "", "%s is the appliance's own: echo requests are answered, %d a second", to.Addr(), echoRate)
		return
	}
	for _, m := range s.mediaOn(in) {
		if p.Proto == "udp" && m.Addr == to.Addr() && within(to.Port(), m.Lo, m.Hi) {
			for _, n := range s.above(in) {
				if n.Contains(p.Src) {
					w.step("MEDIA", false, "", "%s is behind a more trusted interface: a forged source", p.Src)
					return
				}
			}
			w.Allowed = true
			w.step("MEDIA", true, "", "%s is a port of the media termination: the stream that it belongs to decides", to)
			return
		}
	}
	for _, o := range s.Open {
		if (o.Link == "" || o.Link == in.Link) && o.Proto == p.Proto && holds(o.Src, p.Src) && (!o.Addr.IsValid() || o.Addr == to.Addr()) && within(to.Port(), o.Port, max(o.Port, o.PortHi)) {
			w.Allowed = true
			w.step("LOCAL", true, "", "port %d of the appliance is open to %s", to.Port(), p.Src)
			return
		}
	}
	w.step("LOCAL", false, "", "%s is the appliance's own, and nothing there is open to %s", to.Addr(), in.Name)
}

// traceForward follows a packet through the filter (addForward).
func (s Spec) traceForward(w *Way, p Packet, in, out Interface) bool {
	if in.Level == out.Level && (!s.SameLevel || in.Link == out.Link) {
		w.step("ACCESS-LIST", false, "", "%s and %s have the same security level, %d", in.Name, out.Name, in.Level)
		return false
	}
	if w.Dst.Addr() == p.Dst && s.guarded(in, out, p.Dst) {
		w.step("NAT", false, "", "%s is translated towards %s: it is reached by its mapped address alone", p.Dst, in.Name)
		return false
	}
	after := p
	after.Dst, after.DstPort = w.Dst.Addr(), w.Dst.Port()
	if g, ok := s.group(out.Link, "out"); ok && !g.trace(w, after, out.Name) {
		return false
	}
	if g, ok := s.group(in.Link, "in"); ok {
		return g.trace(w, after, in.Name)
	}
	if out.Level < in.Level || s.SameLevel && out.Level == in.Level {
		w.step("ACCESS-LIST", true, "", "from security level %d to %d, no access list on %s", in.Level, out.Level, in.Name)
		return true
	}
	w.step("ACCESS-LIST", false, "", "from security level %d to %d, which an access list on %s would have to permit", in.Level, out.Level, in.Name)
	return false
}

// guarded says whether a real address must not be reached as such (addRealGuards).
func (s Spec) guarded(in, out Interface, dst netip.Addr) bool {
	lower := func(mapped, realLink string) bool {
		r, ok := s.link(realLink)
		return ok && in.Link == mapped && in.Level < r.Level && out.Link == realLink
	}
	return slices.ContainsFunc(s.Statics, func(n StaticNAT) bool {
		return lower(n.MappedLink, n.RealLink) && !n.identity() && n.Real == dst
	}) || slices.ContainsFunc(s.Dynamics, func(n DynamicNAT) bool {
		return lower(n.MappedLink, n.RealLink) && holds(n.Real, dst)
	})
}

// trace finds the entry that decides.
func (g AccessGroup) trace(w *Way, p Packet, name string) bool {
	if n := g.decides(p); n >= 0 {
		r, word := g.Rules[n], "denied"
		if r.Permit {
			word = "permitted"
		}
		w.step("ACCESS-LIST", r.Permit, r.ID, "%s by entry %d of the access list %s on %s", word, n+1, g.Direction, name)
		return r.Permit
	}
	w.step("ACCESS-LIST", false, "", "no entry of the access list %s on %s permits it", g.Direction, name)
	return false
}

// traceNAT finds the source as it leaves (addNAT).
func (s Spec) traceNAT(w *Way, p Packet, out Interface) {
	for _, n := range sortedStatics(s.Statics) {
		if n.RealLink != p.Link || n.MappedLink != out.Link || n.Real != p.Src {
			continue
		}
		switch {
		case n.identity():
			w.step("NAT", true, "", "%s keeps its address", p.Src)
			return
		case n.whole():
			w.Src = netip.AddrPortFrom(n.Mapped, p.SrcPort)
		case slices.Contains(n.protos(), p.Proto) && n.RealPort == p.SrcPort:
			w.Src = netip.AddrPortFrom(n.Mapped, n.MappedPort)
		default:
			continue
		}
		w.step("NAT", true, "", "static %s to %s", p.Src, w.Src)
		return
	}
	for _, n := range sortedDynamics(s.Dynamics) {
		if n.RealLink != p.Link || n.MappedLink != out.Link || !holds(n.Real, p.Src) {
			continue
		}
		to := n.Mapped
		if !to.IsValid() {
			to = out.Address.Addr()
		}
		w.Src = netip.AddrPortFrom(to, p.SrcPort)
		w.step("NAT", true, "", "dynamic %s to %s", p.Src, to)
		return
	}
}

func holds(p netip.Prefix, a netip.Addr) bool { return !p.IsValid() || p.Contains(a) }

func within(port, lo, hi uint16) bool { return lo == 0 && hi == 0 || port >= lo && port <= hi }

// Translation is a connection whose addresses the kernel translates.
type Translation struct {
	Proto              string
	RealSrc, MappedSrc netip.AddrPort // equal: the source is not translated
	RealDst, MappedDst netip.AddrPort // of the destination as its own network has it, and as the source has it
	SourceNAT, DestNAT bool
}

// MaxTranslations bounds what Translations gives.
const MaxTranslations = 10000

// Translations lists the connections that the kernel translates now, at most MaxTranslations of them.
func (k *Kernel) Translations() ([]Translation, error) {
	flows, err := retry(func() ([]*netlink.ConntrackFlow, error) {
		return netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	})
	if err != nil {
		return nil, fmt.Errorf("list conntrack entries: %w", err)
	}
	var out []Translation
	for _, f := range flows {
		t := Translation{
			RealSrc: endpoint(f.Forward.SrcIP, f.Forward.SrcPort), MappedSrc: endpoint(f.Reverse.DstIP, f.Reverse.DstPort),
			MappedDst: endpoint(f.Forward.DstIP, f.Forward.DstPort), RealDst: endpoint(f.Reverse.SrcIP, f.Reverse.SrcPort),
		}
		t.SourceNAT, t.DestNAT = t.RealSrc != t.MappedSrc, t.RealDst != t.MappedDst
		if f.Mark == Mark || !t.SourceNAT && !t.DestNAT {
			continue
		}
		switch f.Forward.Protocol {
		case unix.IPPROTO_TCP:
			t.Proto = "TCP"
		case unix.IPPROTO_UDP:
			t.Proto = "UDP"
		case unix.IPPROTO_ICMP:
			t.Proto = "ICMP"
		default:
			t.Proto = fmt.Sprint("IP ", f.Forward.Protocol)
		}
		if out = append(out, t); len(out) == MaxTranslations {
			break
		}
	}
	return out, nil
}

func endpoint(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
