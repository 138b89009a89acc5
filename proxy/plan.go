package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"imeproxy/mapping"
	"imeproxy/mediaterm"
	"imeproxy/proxy/config"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
	"imeproxy/ucime/ticket"
)

// plan is a configuration with its names followed: what the signaling path asks, in the form in which it asks. It is
// never changed; a new configuration makes a new one.
type plan struct {
	cfg                     *config.Config
	domain                  string
	ticketKey               ticket.Key
	rejectDrop              bool
	inside, outside         *config.Interface
	insideName, outsideName string
	agents                  map[netip.Addr]*callAgent
	statics                 []mapping.StaticNAT
	dynamics                []mapping.DynamicNAT
	classes                 []*class
	insideNets              []netip.Prefix
	own                     []netip.Addr
	mediaAddr               [2]netip.Addr
	media                   *config.MediaTermination
}

// class is an inspection class: the traffic that its access list names, and the tls-proxy that takes it.
type class struct {
	name       string
	outbound   bool
	proxy      *config.TLSProxy
	intercepts []mapping.Intercept
}

// outsideTrustpoint is our identity towards the Internet: outbound we are the TLS client, inbound the server.
func (c *class) outsideTrustpoint() string {
	if c.outbound {
		return c.proxy.ClientTrustpoint
	}
	return c.proxy.ServerTrustpoint
}

// insideTrustpoint is our identity towards the call agent of a secure trunk (guide lines 5490-5540).
func (c *class) insideTrustpoint() string {
	if c.outbound {
		return c.proxy.ServerTrustpoint
	}
	return c.proxy.ClientTrustpoint
}

// newPlan follows the names of a checked configuration. old gives what is dear to make again: the ticket key, and the call
// agents' health.
func newPlan(cfg *config.Config, old *plan) (*plan, error) {
	if cfg.UCIME == nil {
		return nil, errors.New("the configuration has no uc-ime: nothing to do")
	}
	p := &plan{cfg: cfg, domain: cfg.DomainName, rejectDrop: cfg.UCIME.TicketRejectDrop}
	steps := []func() error{p.findSides, p.findNAT, p.findAgents, p.findMedia, p.findClasses}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	u := cfg.UCIME
	if old != nil && old.cfg.UCIME.TicketPassword == u.TicketPassword && old.cfg.UCIME.TicketEpoch == u.TicketEpoch {
		p.ticketKey = old.ticketKey
	} else {
		if err := ticket.CheckPassword(u.TicketPassword.Reveal()); err != nil {
			return nil, fmt.Errorf("ticket password: %w", err)
		}
		p.ticketKey = ticket.DeriveKey(u.TicketPassword.Reveal(), uint8(u.TicketEpoch))
	}
	if old != nil {
		for addr, a := range p.agents {
			if o := old.agents[addr]; o != nil && o.secure == a.secure && o.hide == a.hide {
				p.agents[addr] = o
			}
		}
	}
	return p, nil
}

// interfaces are those that are up and have an address.
func (p *plan) interfaces() []*config.Interface {
	var out []*config.Interface
	for _, i := range p.cfg.Interfaces {
		if i.Nameif != "" && i.Address.IsValid() && !i.Shutdown {
			out = append(out, i)
		}
	}
	return out
}

func (p *plan) byName(nameif string) *config.Interface {
	for _, i := range p.interfaces() {
		if i.Nameif == nameif {
			return i
		}
	}
	return nil
}

// findSides: inside is the interface that leads to the call agents, outside the one of lowest security.
func (p *plan) findSides() error {
	all := p.interfaces()
	if len(all) < 2 {
		return errors.New("two interfaces with nameif and address are needed: inside and outside")
	}
	p.outside = slices.MinFunc(all, func(x, y *config.Interface) int { return cmp.Compare(x.SecurityLevel, y.SecurityLevel) })
	for _, u := range p.cfg.UCIME.UCMs {
		i := p.towards(u.Addr)
		switch {
		case i == nil || i == p.outside:
			return fmt.Errorf("line %d: no inside interface leads to ucm address %s", u.Line, u.Addr)
		case p.inside != nil && i != p.inside:
			return fmt.Errorf("line %d: the call agents are on two interfaces, %s and %s", u.Line, p.inside.Nameif, i.Nameif)
		}
		p.inside = i
	}
	if p.inside == nil {
		return errors.New("uc-ime has no ucm address")
	}
	p.insideName, p.outsideName = p.inside.Nameif, p.outside.Nameif
	for _, i := range all {
		p.own = append(p.own, i.Address.Addr())
		if i.SecurityLevel <= p.outside.SecurityLevel {
			continue
		}
		p.insideNets = append(p.insideNets, i.Address.Masked())
		for _, r := range p.cfg.Routes {
			if r.Interface == i.Nameif && r.Dst.Bits() > 0 {
				p.insideNets = append(p.insideNets, r.Dst.Masked())
			}
		}
	}
	return nil
}

// towards is the interface that a packet to the address leaves by: connected network, else the longest route.
func (p *plan) towards(addr netip.Addr) *config.Interface {
	var best *config.Interface
	bits := -1
	for _, i := range p.interfaces() {
		if i.Address.Masked().Contains(addr) && i.Address.Bits() > bits {
			best, bits = i, i.Address.Bits()
		}
	}
	for _, r := range p.cfg.Routes {
		if r.Dst.Contains(addr) && r.Dst.Bits() > bits {
			best, bits = p.byName(r.Interface), r.Dst.Bits()
		}
	}
	return best
}

func (p *plan) object(name string) *config.NetworkObject {
	for _, o := range p.cfg.Objects {
		if o.Name == name {
			return o
		}
	}
	return nil
}

// findNAT follows the nat lines of the network objects.
func (p *plan) findNAT() error {
	for _, o := range p.cfg.Objects {
		n := o.NAT
		if n == nil {
			continue
		}
		real, mapped := p.byName(n.Real), p.byName(n.Mapped)
		if real == nil || mapped == nil {
			return fmt.Errorf("line %d: nat (%s,%s): no such interface with an address", n.Line, n.Real, n.Mapped)
		}
		addr := n.MappedAddr
		if n.MappedObject != "" {
			m := p.object(n.MappedObject)
			if m == nil || !m.IsHost {
				return fmt.Errorf("line %d: nat: object %s is no host", n.Line, n.MappedObject)
			}
			addr = m.Prefix.Addr()
		}
		if n.Dynamic {
			p.dynamics = append(p.dynamics, mapping.DynamicNAT{RealLink: real.Name, MappedLink: mapped.Name, Real: o.Prefix.Masked(), Mapped: addr})
			continue
		}
		if !o.IsHost {
			return fmt.Errorf("line %d: static nat of object %s: only a host can be translated one to one", n.Line, o.Name)
		}
		s := mapping.StaticNAT{RealLink: real.Name, MappedLink: mapped.Name, Real: o.Prefix.Addr(), Mapped: addr}
		if n.Service != nil {
			s.Proto, s.RealPort, s.MappedPort = n.Service.Proto, n.Service.RealPort, n.Service.MappedPort
		}
		p.statics = append(p.statics, s)
	}
	return nil
}

// findAgents gives each call agent the address that stands for it on the Internet.
func (p *plan) findAgents() error {
	p.agents = make(map[netip.Addr]*callAgent)
	for _, u := range p.cfg.UCIME.UCMs {
		a := &callAgent{real: u.Addr, secure: u.Secure, health: &agentHealth{}}
		for _, s := range p.statics {
			if s.Real == u.Addr && s.MappedLink == p.outside.Name && (!a.hide.IsValid() || s.RealPort == 0) {
				a.hide = s.Mapped
			}
		}
		for _, d := range p.dynamics {
			if !a.hide.IsValid() && d.Real.Contains(u.Addr) && d.MappedLink == p.outside.Name {
				a.hide = d.Mapped
				if !d.Mapped.IsValid() {
					a.hide = p.outside.Address.Addr()
				}
			}
		}
		if !a.hide.IsValid() {
			return fmt.Errorf("line %d: ucm address %s has no translation towards interface %s: add a nat line to its network object", u.Line, u.Addr, p.outside.Nameif)
		}
		p.agents[u.Addr] = a
	}
	return nil
}

// findMedia picks the media termination addresses of the two sides.
func (p *plan) findMedia() error {
	for _, m := range p.cfg.MediaTerminations {
		if m.Name == p.cfg.UCIME.MediaTermination {
			p.media = m
		}
	}
	if p.media == nil {
		return fmt.Errorf("uc-ime: no media-termination %q", p.cfg.UCIME.MediaTermination)
	}
	for _, a := range p.media.Addresses {
		switch a.Interface {
		case "":
			p.mediaAddr = [2]netip.Addr{a.Addr, a.Addr}
		case p.inside.Nameif:
			p.mediaAddr[dialog.Inside] = a.Addr
		case p.outside.Nameif:
			p.mediaAddr[dialog.Outside] = a.Addr
		}
		p.own = append(p.own, a.Addr)
	}
	if !p.mediaAddr[0].IsValid() || !p.mediaAddr[1].IsValid() {
		return fmt.Errorf("line %d: media-termination %s needs an address on interface %s and one on %s, or one global address", p.media.Line, p.media.Name, p.inside.Nameif, p.outside.Nameif)
	}
	return nil
}

// mediaConfig is what the media room is built from.
func (p *plan) mediaConfig(log *slog.Logger, now func() time.Time) mediaterm.Config {
	c := mediaterm.Config{MinPort: p.media.MinPort, MaxPort: p.media.MaxPort, NoRTCP: p.cfg.UCIME.NoRTCP, Log: log, Now: now}
	for _, a := range p.mediaAddr {
		if !slices.Contains(c.Addresses, a) {
			c.Addresses = append(c.Addresses, a)
		}
	}
	return c
}

func (p *plan) hostname() string {
	if p.cfg.Hostname == "" {
		return "imeproxy"
	}
	return p.cfg.Hostname
}

func (p *plan) maxSessions() int {
	if p.cfg.TLSProxyMaxSessions > 0 {
		return p.cfg.TLSProxyMaxSessions
	}
	return DefaultMaxSessions
}

// trustpoints are the identities that must exist before the appliance serves.
func (p *plan) trustpoints() []string {
	var out []string
	secure := false
	for _, a := range p.agents {
		secure = secure || a.secure
	}
	for _, c := range p.classes {
		out = append(out, c.outsideTrustpoint())
		if secure {
			out = append(out, c.insideTrustpoint())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// realOf translates an address and port that the Internet sees.
func (p *plan) realOf(ap netip.AddrPort) (netip.Addr, uint16, bool) {
	for _, s := range p.statics {
		if s.Mapped != ap.Addr() || s.MappedLink != p.outside.Name {
			continue
		}
		if s.RealPort == 0 {
			return s.Real, ap.Port(), true
		}
		if s.MappedPort == ap.Port() {
			return s.Real, s.RealPort, true
		}
	}
	return netip.Addr{}, 0, false
}

// trunkPort is the port at which the Internet reaches a call agent.
func (p *plan) trunkPort(a *callAgent) uint16 {
	for _, c := range p.classes {
		for _, i := range c.intercepts {
			if !c.outbound && i.Dst.Contains(a.hide) && i.PortLo != 0 {
				return i.PortLo
			}
		}
	}
	return 5061
}

// agentPort is the port at which a call agent listens for the trunk.
func (p *plan) agentPort(a *callAgent) uint16 {
	if real, port, ok := p.realOf(netip.AddrPortFrom(a.hide, p.trunkPort(a))); ok && real == a.real {
		return port
	}
	return 5060
}

// ownDomains are the domains that may have granted a ticket shown to us: those of the inbound server trust-point.
func (a *Appliance) ownDomains(cl *class) []string {
	tp := cl.outsideTrustpoint()
	for _, c := range a.plan.Load().classes {
		if !c.outbound {
			tp = c.outsideTrustpoint()
		}
	}
	id, err := a.store.Identity(tp)
	if err != nil {
		return nil
	}
	return id.Names
}

// tlsPolicy is what the configuration says of a class's handshakes.
func (a *Appliance) tlsPolicy(cl *class) tlsproxy.Policy {
	cfg := a.plan.Load().cfg
	ciphers := cl.proxy.ClientCipherSuites
	if len(ciphers) == 0 {
		ciphers = cfg.SSLEncryption
	}
	return tlsproxy.Policy{ClientMin: tlsVersion(cfg.SSLClientVersion), ServerMin: tlsVersion(cfg.SSLServerVersion), Ciphers: ciphers, KeyLog: a.opt.KeyLog}
}
