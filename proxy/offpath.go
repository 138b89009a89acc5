package proxy

import (
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"imeproxy/mapping"
	"imeproxy/mapping/service"
	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg/dialog"
)

// mappingStateFile keeps the mappings over restarts, in the state directory.
const mappingStateFile = "mappings.json"

// mappings tells whether the configuration has a mapping service.
func (p *plan) mappings() bool { return p.proxying() && p.MappingListen != nil }

// hidesOutside is the inside address from which the far end's connections come where `nat (outside,inside) dynamic` hides its own, which
// has no way back off-path; invalid: none does.
func (p *plan) hidesOutside(remote netip.Addr) netip.Addr {
	for _, d := range p.Dynamics {
		if d.Real != p.Outside || d.Mapped != p.Inside || !d.RealPrefix.Contains(remote) {
			continue
		}
		if d.MappedAddr.IsValid() {
			return d.MappedAddr
		}
		return d.Mapped.Address.Addr()
	}
	return netip.Addr{}
}

// mappingSettings are those of the service.
func (p *plan) mappingSettings() service.Settings {
	u := p.UCIME
	set := service.Settings{
		Listen: netip.AddrPortFrom(p.MappingListen.Address.Addr(), u.Mapping.ListenPort), Quota: u.MappingQuota, Low: u.MappingLow, High: u.MappingHigh,
		Lifetime: u.MappingLifetime, Idle: p.cfg.MappingIdle, Allowed: p.mayCall,
	}
	if set.Idle == 0 {
		set.Idle = config.DefaultMappingIdle
	}
	for a := range p.agents {
		set.Clients = append(set.Clients, a)
	}
	return set
}

// Networks in which nobody is called (mapping.md, "Targets not allowed").
var (
	neverTargets = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	}
	privateTargets = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), sharedSpace,
	}
)

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(n netip.Prefix) bool { return n.Contains(a) })
}

// mayCall tells whether a call agent may be given a mapping to a target: a service that leads anywhere would be a way around the firewall.
func (p *plan) mayCall(target netip.AddrPort) bool {
	a := target.Addr()
	if !a.Is4() || within(neverTargets, a) || slices.Contains(p.own, a) || !p.UCIME.MappingAllowPrivate && within(privateTargets, a) {
		return false
	}
	for _, s := range p.Statics {
		if s.MappedAddr == a {
			return false
		}
	}
	for _, d := range p.Dynamics {
		if d.MappedAddr == a {
			return false
		}
	}
	for _, i := range p.interfaces() {
		n := i.Address.Masked()
		if n.Bits() < 31 && a == broadcast(n) || i.SecurityLevel > p.MappingOutside.SecurityLevel && n.Contains(a) {
			return false
		}
	}
	for _, r := range p.Routes {
		if r.On.SecurityLevel > p.MappingOutside.SecurityLevel && r.Dst.Bits() > 0 && r.Dst.Contains(a) {
			return false
		}
	}
	return true
}

// broadcast is the last address of an IPv4 network.
func broadcast(n netip.Prefix) netip.Addr {
	b := n.Addr().As4()
	for i := range b {
		if keep := n.Bits() - 8*i; keep <= 0 {
			b[i] = 0xff
		} else if keep < 8 {
			b[i] |= 0xff >> keep
		}
	}
	return netip.AddrFrom4(b)
}

// mappingSpec adds to a specification what call agents need to reach the service and the mapped ports.
func (p *plan) mappingSpec(s *mapping.Spec) {
	if !p.mappings() {
		return
	}
	set := p.mappingSettings()
	s.Reserved = mapping.PortSpan{Lo: set.Low, Hi: set.High}
	for _, c := range set.Clients {
		open := mapping.OpenPort{Link: p.MappingListen.Name, Proto: "tcp", Addr: set.Listen.Addr(), Src: netip.PrefixFrom(c, 32)}
		open.Port = set.Listen.Port()
		s.Open = append(s.Open, open)
		open.Port, open.PortHi = set.Low, set.High
		s.Open = append(s.Open, open)
	}
	slices.SortFunc(s.Open, func(a, b mapping.OpenPort) int { return a.Src.Addr().Compare(b.Src.Addr()) })
}

// applyMappings makes the service that of a plan whose addresses and rules are in the kernel. With an error it is as it was.
func (a *Appliance) applyMappings(p *plan) error {
	switch {
	case !p.mappings():
		if a.mappings == nil {
			return nil
		}
		err := a.mappings.Close()
		a.setMappings(nil)
		return err
	case a.mappings != nil:
		return a.mappings.Apply(p.mappingSettings())
	}
	s, err := service.Start(service.Options{
		Leg: a.serveMapped, StateFile: filepath.Join(a.opt.StateDir, mappingStateFile), Log: a.log, Now: a.now,
		Trace: func(client netip.Addr, text func() string) {
			if a.trace.Wants(trace.Mapping) {
				a.trace.Event(trace.Mapping, "", client.String(), "%s", text())
			}
		},
	}, p.mappingSettings())
	if err != nil {
		return err
	}
	a.setMappings(s)
	return nil
}

// setMappings is called with a.applying held, or before anybody else knows the appliance.
func (a *Appliance) setMappings(s *service.Service) {
	a.mappings = s
	a.shownMappings.Store(s)
}

// serveMapped makes an outbound signaling session of a connection to a mapped port. It blocks until the call agent's end is closed.
func (a *Appliance) serveMapped(c net.Conn, client netip.Addr, target netip.AddrPort) {
	p := a.plan.Load()
	agent := p.agents[client]
	at := slices.IndexFunc(p.classes, func(c *class) bool { return c.outbound })
	alias, ok := addrPort(c.LocalAddr())
	if agent == nil || at < 0 || !ok {
		a.count("tls", "connections_refused", "not_a_call_agent")
		a.log.Warn("connection to a mapped port refused: the configuration does not serve it any more", "event", "mapped_port_refused", "source", client.String())
		reset(c)
		return
	}
	s := &session{
		a: a, opener: dialog.Inside, class: p.classes[at], agent: agent, remote: target, alias: alias, agentPort: p.agentPort(agent), since: a.now(),
	}
	s.mapped = netip.AddrPortFrom(agent.hide, p.trunkPort(agent))
	a.begin(s, c, dialog.Inside, agent.secure)
}

// MappingSessions gives the state behind `show uc-ime mapping-service-sessions`.
func (a *Appliance) MappingSessions() observe.MappingSessions {
	s := a.shownMappings.Load()
	if s == nil {
		return observe.MappingSessions{}
	}
	c := s.Counters()
	out := observe.MappingSessions{
		Configured: true, Listen: s.Addr(), Mappings: c.Mappings, Legs: c.Legs, MappingsMade: c.MappingsMade, MappingsEnded: c.MappingsEnded, PortsFree: c.PortsFree,
		PortsResting: c.PortsRest, Requests: c.Requests, Successes: c.Successes, RefusedSources: c.RefusedSources, RefusedConns: c.RefusedConns, RefusedLegs: c.RefusedLegs,
		Dropped: c.DroppedMessages, FramingErrors: c.FramingErrors, ClosedUnwhole: c.IncompleteClosed, ClosedIdle: c.IdleClosed,
	}
	for _, code := range service.Codes() {
		out.FailuresByCause = append(out.FailuresByCause, observe.Cause{Name: code.Phrase(), Count: c.Failures[code]})
	}
	for _, x := range s.Sessions() {
		out.Sessions = append(out.Sessions, observe.MappingSession{
			Client: x.Client, Requests: x.Requests, Responses: x.Responses, Failed: x.Failed, Pending: x.Pending, Idle: x.Idle,
		})
	}
	return out
}
