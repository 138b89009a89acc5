package proxy

import (
	"crypto/tls"
	"fmt"
	"net/netip"

	"imeproxy/mapping"
	"imeproxy/proxy/config"
	"imeproxy/sipalg/dialog"
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

// findClasses turns the inspections of the policy maps in service into interceptions.
func (p *plan) findClasses() error {
	for _, sp := range p.cfg.ServicePolicies {
		for _, pm := range p.cfg.PolicyMaps {
			if pm.Name != sp.Policy {
				continue
			}
			for _, pc := range pm.Classes {
				if pc.Inspect == nil {
					continue
				}
				if err := p.addClass(pc); err != nil {
					return fmt.Errorf("line %d: class %s: %w", pc.Line, pc.Class, err)
				}
			}
		}
	}
	if len(p.classes) == 0 {
		return fmt.Errorf("no service-policy inspects SIP with uc-ime %s: nothing would be intercepted", p.cfg.UCIME.Name)
	}
	return nil
}

func (p *plan) addClass(pc *config.PolicyClass) error {
	c := &class{name: pc.Class}
	for _, t := range p.cfg.TLSProxies {
		if t.Name == pc.Inspect.TLSProxy {
			c.proxy = t
		}
	}
	acl := p.classList(pc.Class)
	if c.proxy == nil || acl == nil {
		return fmt.Errorf("no tls-proxy %q or no access list", pc.Inspect.TLSProxy)
	}
	inbound := 0
	for _, e := range acl.Entries {
		if e.Remark != "" {
			continue
		}
		if !e.Permit || e.Proto != "tcp" {
			return fmt.Errorf("line %d: only `permit tcp` entries can name SIP to inspect", e.Line)
		}
		in, out := p.inboundIntercepts(e), p.outboundIntercept(e)
		switch {
		case len(in) > 0:
			inbound++
			c.intercepts = append(c.intercepts, in...)
		case out != nil:
			c.outbound = true
			c.intercepts = append(c.intercepts, *out)
		default:
			return fmt.Errorf("line %d: the entry names no ucm address, neither as source (outbound) nor as destination with a static translation (inbound)", e.Line)
		}
	}
	if c.outbound && inbound > 0 {
		return fmt.Errorf("access list %s mixes inbound and outbound SIP: a tls-proxy is for one direction (guide line 5225)", acl.Name)
	}
	if len(c.intercepts) > 0 {
		p.classes = append(p.classes, c)
	}
	return nil
}

func (p *plan) classList(name string) *config.AccessList {
	for _, cm := range p.cfg.ClassMaps {
		if cm.Name != name {
			continue
		}
		for _, l := range p.cfg.AccessLists {
			if l.Name == cm.AccessList {
				return l
			}
		}
	}
	return nil
}

// endpoint is the prefix of an access-list end; the zero prefix is any.
func (p *plan) endpoint(e config.Endpoint) netip.Prefix {
	switch {
	case e.Any:
		return netip.Prefix{}
	case e.Object != "":
		if o := p.object(e.Object); o != nil {
			return o.Prefix.Masked()
		}
	}
	return e.Prefix.Masked()
}

// inboundIntercepts: the entry's destination is a call agent's real address; on the wire it is the mapped one.
func (p *plan) inboundIntercepts(e config.ACE) []mapping.Intercept {
	dst := p.endpoint(e.Dst)
	if !dst.IsValid() {
		return nil
	}
	var out []mapping.Intercept
	for _, s := range p.statics {
		if p.agents[s.Real] == nil || !dst.Contains(s.Real) || s.MappedLink != p.outside.Name || s.Proto == "udp" {
			continue
		}
		i := mapping.Intercept{InLinks: []string{p.outside.Name}, Src: p.endpoint(e.Src), Dst: netip.PrefixFrom(s.Mapped, 32), PortLo: e.DstPorts.Lo, PortHi: e.DstPorts.Hi}
		if s.RealPort != 0 {
			if !e.DstPorts.Contains(s.RealPort) {
				continue
			}
			i.PortLo, i.PortHi = s.MappedPort, s.MappedPort
		}
		out = append(out, i)
	}
	return out
}

// outboundIntercept: the entry's source covers a call agent.
func (p *plan) outboundIntercept(e config.ACE) *mapping.Intercept {
	src := p.endpoint(e.Src)
	for addr := range p.agents {
		if src.IsValid() && src.Contains(addr) {
			return &mapping.Intercept{Outbound: true, InLinks: []string{p.inside.Name}, Src: src, Dst: p.endpoint(e.Dst), PortLo: e.DstPorts.Lo, PortHi: e.DstPorts.Hi}
		}
	}
	return nil
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
	for _, s := range p.statics {
		add(s.MappedLink, s.Mapped)
	}
	for _, d := range p.dynamics {
		add(d.MappedLink, d.Mapped)
	}
	for _, m := range p.media.Addresses {
		link := p.outside.Name
		if i := p.byName(m.Interface); i != nil {
			link = i.Name
		}
		add(link, m.Addr)
	}
	return out
}

// spec says what the kernel must do for this plan.
func (p *plan) spec(listen []*listener) mapping.Spec {
	s := mapping.Spec{Addresses: p.addresses(), Statics: p.statics, Dynamics: p.dynamics}
	for _, i := range p.interfaces() {
		s.Interfaces = append(s.Interfaces, mapping.Interface{Link: i.Name, Name: i.Nameif, Level: i.SecurityLevel, Address: i.Address})
	}
	for _, r := range p.cfg.Routes {
		if i := p.byName(r.Interface); i != nil {
			s.Routes = append(s.Routes, mapping.Route{Link: i.Name, Dst: r.Dst, Gateway: r.Gateway})
		}
	}
	for _, l := range listen {
		port, _ := addrPort(l.Addr())
		for _, i := range l.class.intercepts {
			i.ListenPort = port.Port()
			s.Intercepts = append(s.Intercepts, i)
		}
	}
	for _, g := range p.cfg.AccessGroups {
		i := p.byName(g.Interface)
		if i == nil {
			continue
		}
		ag := mapping.AccessGroup{Link: i.Name, Direction: g.Direction}
		for _, l := range p.cfg.AccessLists {
			if l.Name == g.ACL {
				ag.Rules = p.rules(l)
			}
		}
		s.Groups = append(s.Groups, ag)
	}
	for _, a := range []netip.Addr{p.mediaAddr[dialog.Inside], p.mediaAddr[dialog.Outside]} {
		r := mapping.MediaRange{Addr: a, Lo: p.media.MinPort, Hi: p.media.MaxPort}
		if len(s.Media) == 0 || s.Media[0] != r {
			s.Media = append(s.Media, r)
		}
	}
	return s
}

func (p *plan) rules(l *config.AccessList) []mapping.Rule {
	var out []mapping.Rule
	for _, e := range l.Entries {
		if e.Remark != "" {
			continue
		}
		out = append(out, mapping.Rule{
			Permit: e.Permit, Proto: e.Proto, Src: p.endpoint(e.Src), Dst: p.endpoint(e.Dst),
			SrcLo: e.SrcPorts.Lo, SrcHi: e.SrcPorts.Hi, DstLo: e.DstPorts.Lo, DstHi: e.DstPorts.Hi,
		})
	}
	return out
}
