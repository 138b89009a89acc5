package proxy

import (
	"crypto/tls"
	"net/netip"

	"imeproxy/mapping"
)

func tlsVersion(keyword string) uint16 {
	switch keyword {
	case "tlsv1.2":
		return tls.VersionTLS12
	case "tlsv1.3":
		return tls.VersionTLS13
	}
	return 0
}

// addresses are those that the appliance adds to interfaces: mapped addresses, so that it answers ARP for them, and media
// termination addresses.
func (p *plan) addresses() []mapping.Address {
	var out []mapping.Address
	seen := make(map[netip.Addr]bool)
	for _, i := range p.interfaces() {
		seen[i.Address.Addr()] = true
	}
	add := func(link string, a netip.Addr) {
		if a.IsValid() && !seen[a] {
			seen[a] = true
			out = append(out, mapping.Address{Link: link, Addr: a})
		}
	}
	for _, s := range p.Statics {
		add(s.Mapped.Name, s.MappedAddr)
	}
	for _, d := range p.Dynamics {
		add(d.Mapped.Name, d.MappedAddr)
	}
	for _, m := range p.MediaAddresses {
		add(m.Interface.Name, m.Addr)
	}
	return out
}

// spec says what the kernel must do for this plan.
func (p *plan) spec(listen []*listener) mapping.Spec {
	s := mapping.Spec{Addresses: p.addresses(), Statics: p.statics, SameLevel: p.cfg.SameSecurity, DenyFlows: p.cfg.DenyFlows()}
	for _, i := range p.interfaces() {
		s.Interfaces = append(s.Interfaces, mapping.Interface{Link: i.Name, Name: i.Nameif, Level: i.SecurityLevel, Address: i.Address})
	}
	for _, r := range p.Routes {
		s.Routes = append(s.Routes, mapping.Route{Link: r.On.Name, Dst: r.Dst, Gateway: r.Gateway, Priority: max(0, r.Metric-1)})
	}
	for _, d := range p.Dynamics {
		s.Dynamics = append(s.Dynamics, mapping.DynamicNAT{RealLink: d.Real.Name, MappedLink: d.Mapped.Name, Real: d.RealPrefix, Mapped: d.MappedAddr})
	}
	for _, l := range listen {
		port, _ := addrPort(l.Addr())
		for _, i := range l.class.intercepts {
			i.ListenPort = port.Port()
			s.Intercepts = append(s.Intercepts, i)
		}
	}
	for _, g := range p.Groups {
		ag := mapping.AccessGroup{Link: g.Interface.Name, Direction: g.Direction, Name: g.ACL}
		for _, r := range g.Rules {
			ag.Rules = append(ag.Rules, mapping.Rule{
				Permit: r.Permit, Proto: r.Proto, Src: r.Src, Dst: r.Dst, SrcLo: r.SrcPorts.Lo, SrcHi: r.SrcPorts.Hi, DstLo: r.DstPorts.Lo, DstHi: r.DstPorts.Hi,
				ID: p.ids[r.Pos], Log: r.Log.Flows, Quiet: r.Log.Off,
			})
		}
		s.Groups = append(s.Groups, ag)
	}
	for _, x := range p.SSH {
		s.Open = append(s.Open, mapping.OpenPort{Link: x.On.Name, Proto: "tcp", Src: x.From, Addr: x.On.Address.Addr(), Port: p.cfg.SSH.ListenPort()})
	}
	s.Open = append(s.Open, p.peerPorts()...)
	s.Media = p.mediaRanges()
	p.mappingSpec(&s)
	return s
}

// mediaRanges are the ports of the media termination.
func (p *plan) mediaRanges() []mapping.MediaRange {
	var out []mapping.MediaRange
	if p.proxying() {
		for _, m := range p.MediaAddresses {
			out = append(out, mapping.MediaRange{Addr: m.Addr, Lo: p.Media.MinPort, Hi: p.Media.MaxPort})
		}
	}
	return out
}
