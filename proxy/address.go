package proxy

import (
	"net/netip"
	"sync"
	"time"

	"imeproxy/mapping"
	"imeproxy/proxy/observe"
	"imeproxy/sipalg/dialog"
)

// addressMap translates the addresses in the messages of one session (sipalg.AddressMap).
type addressMap struct {
	plan    *plan
	statics []mapping.StaticNAT // between the call agents and the Internet
	hide    netip.Addr          // stands for inside addresses without a translation
	remote  netip.Addr
	// alias stands for far on the inside, both or neither.
	alias, far netip.AddrPort
}

// ToOutside translates a real address; port 0 means that none was written, which for SIP is 5060.
func (m *addressMap) ToOutside(addr netip.Addr, port uint16) (netip.Addr, uint16, bool) {
	if m.alias.IsValid() && addr == m.alias.Addr() && port == m.alias.Port() {
		return m.far.Addr(), m.far.Port(), true
	}
	for _, s := range m.statics {
		if s.Real != addr {
			continue
		}
		if s.RealPort == 0 {
			return s.Mapped, port, true
		}
		if s.RealPort == port || port == 0 && s.RealPort == 5060 {
			return s.Mapped, s.MappedPort, true
		}
	}
	return netip.Addr{}, 0, false
}

// ToInside translates a mapped address back.
func (m *addressMap) ToInside(addr netip.Addr, port uint16) (netip.Addr, uint16, bool) {
	if m.alias.IsValid() && addr == m.far.Addr() && port == m.far.Port() {
		return m.alias.Addr(), m.alias.Port(), true
	}
	for _, s := range m.statics {
		if s.Mapped != addr {
			continue
		}
		if s.RealPort == 0 {
			return s.Real, port, true
		}
		if s.MappedPort == port || port == 0 && s.MappedPort == 5060 {
			return s.Real, s.RealPort, true
		}
	}
	return netip.Addr{}, 0, false
}

// IsInside tells whether an address must not be seen on the Internet: one of the networks behind the inside interfaces, or one that
// nobody outside can use. Private addresses that are not ours count unless the far end lives among private addresses itself.
func (m *addressMap) IsInside(addr netip.Addr) bool {
	addr = addr.Unmap()
	if m.plan.insideNet(addr) || addr.IsLoopback() || addr.IsLinkLocalUnicast() {
		return true
	}
	return private(addr) && !private(m.remote) && !m.plan.Outside.Address.Masked().Contains(addr)
}

// Hide is the address that stands for inside addresses of this session.
func (m *addressMap) Hide() netip.Addr { return m.hide }

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

func private(a netip.Addr) bool { return a.IsPrivate() || sharedSpace.Contains(a) }

// insideNet tells whether an address belongs to a network of higher security than the outside.
func (p *plan) insideNet(addr netip.Addr) bool {
	for _, n := range p.insideNets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// forbiddenMedia tells why no media may be sent to an address from the Internet, "" when it may.
func (p *plan) forbiddenMedia(addr netip.Addr) string {
	if p.insideNet(addr) {
		return "inside"
	}
	for _, a := range p.own {
		if a == addr {
			return "the appliance's own"
		}
	}
	for _, s := range p.statics {
		if s.Mapped == addr {
			return "the appliance's own"
		}
	}
	for _, i := range p.cfg.Interfaces {
		if !inUse(i) {
			continue
		}
		if n := i.Address.Masked(); n.Bits() < 31 && (addr == broadcast(n) || addr == n.Addr()) {
			return "that of all hosts of a network" // one packet would become many
		}
	}
	return ""
}

// mediaPolicy is what the media of a new call on this session is made from.
func (s *session) mediaPolicy(callID, domain string) mediaPolicy {
	p := s.a.plan.Load()
	return mediaPolicy{
		term: s.a.term.Load(), addr: p.mediaAddr, secureIn: s.agent.secure, callID: callID, marking: s.class.marking, forbidden: p.forbiddenMedia, trace: &s.a.trace,
		silent: s.a.silent, domain: domain, described: &s.a.described,
		sweep: func(from dialog.Side, line string) string {
			if from == dialog.Outside {
				return line
			}
			return s.rw.Sweep(line)
		},
	}
}

// agentHealth is what is known of a call agent's reachability.
type agentHealth struct {
	mu     sync.Mutex
	up     bool
	looked time.Time
}

func (a *Appliance) agentUp(g *callAgent)              { a.noteHealth(g, nil) }
func (a *Appliance) agentDown(g *callAgent, err error) { a.noteHealth(g, err) }

func (a *Appliance) noteHealth(g *callAgent, err error) {
	g.health.mu.Lock()
	defer g.health.mu.Unlock()
	g.health.looked = a.now()
	a.setHealth(g, err)
}

// setHealth is called with the health locked.
func (a *Appliance) setHealth(g *callAgent, err error) {
	g.health.up = err == nil
	if err == nil {
		a.health.Clear("call_agent_unreachable", g.real.String())
		return
	}
	a.health.Raise(observe.Problem{
		Code: "call_agent_unreachable", Object: g.real.String(), Severity: observe.Critical, Since: a.now(),
		Impact:   "inbound calls to this call agent get 503",
		WhatToDo: "check that the call agent runs, that it listens on the trunk's port, and the route to it: " + err.Error(),
	})
}
