package proxy

import (
	"errors"
	"fmt"
	"io"
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
	*config.Resolved
	cfg        *config.Config
	domain     string
	ticketKey  ticket.Key
	rejectDrop bool
	agents     map[netip.Addr]*callAgent // by real address
	statics    []mapping.StaticNAT
	trunks     map[netip.Addr]trunk  // by the call agent's real address
	ids        map[config.Pos]string // of the entries of access lists, see entryIDs
	told       map[string]toldEntry  // by the ID, of entries that log their flows
	classes    []*class
	insideNets []netip.Prefix // of every interface more secure than the outside
	own        []netip.Addr   // the appliance's own addresses
	mediaAddr  [2]netip.Addr  // media termination address by side
}

// trunk is how the Internet reaches a call agent: the mapped address and port that lead to its real port.
type trunk struct {
	mapped netip.AddrPort
	real   uint16
}

// class is an inspection class: the traffic that its access list names, and the tls-proxy that takes it.
type class struct {
	name       string
	outbound   bool
	proxy      *config.TLSProxy
	intercepts []mapping.Intercept
	marking    map[string]mediaterm.Marking // by medium; others as usual
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

// newPlan resolves a configuration. old gives what is dear to make again: the ticket key, and the call agents' health.
func newPlan(cfg *config.Config, old *plan) (*plan, error) {
	r, found := cfg.Resolve()
	if found.HasErrors() {
		return nil, found
	}
	p := &plan{Resolved: r, cfg: cfg, domain: cfg.DomainName, agents: make(map[netip.Addr]*callAgent), trunks: make(map[netip.Addr]trunk)}
	if old != nil && sameEntries(cfg, old.cfg) {
		p.ids = old.ids // ten thousand take longer than all the rest
	} else {
		p.ids = entryIDs(cfg)
	}
	p.told = toldEntries(cfg, p.ids)
	p.findAddresses()
	p.addClasses(r.Inbound, false)
	p.addClasses(r.Outbound, true)
	for _, u := range r.UCMs {
		a := &callAgent{real: u.Addr, hide: u.Source, source: u.Source, secure: u.Secure, health: &agentHealth{}}
		if t, ok := p.trunks[u.Addr]; ok {
			a.hide = t.mapped.Addr() // what hides an inside address must lead back to this call agent
		}
		if old != nil {
			if o := old.agents[u.Addr]; o != nil && o.secure == a.secure && o.hide == a.hide && o.source == a.source {
				a = o
			}
		}
		p.agents[u.Addr] = a
	}
	if r.UCIME == nil {
		return p, nil
	}
	p.rejectDrop = r.UCIME.TicketRejectDrop
	p.mediaAddr = [2]netip.Addr{dialog.Inside: r.MediaInside, dialog.Outside: r.MediaOutside}
	if o := old; o != nil && o.UCIME != nil && o.UCIME.TicketPassword == r.UCIME.TicketPassword && o.UCIME.TicketEpoch == r.UCIME.TicketEpoch {
		p.ticketKey = o.ticketKey
		return p, nil
	}
	if r.UCIME.TicketPassword.Masked() {
		return nil, errors.New("the ticket password is masked: type the real one")
	}
	if err := ticket.CheckPassword(r.UCIME.TicketPassword.Reveal()); err != nil {
		return nil, fmt.Errorf("ticket password: %w", err)
	}
	p.ticketKey = ticket.DeriveKey(r.UCIME.TicketPassword.Reveal(), uint8(r.UCIME.TicketEpoch))
	return p, nil
}

// interfaces are those that are up and have an address.
func (p *plan) interfaces() []*config.Interface {
	var out []*config.Interface
	for _, i := range p.cfg.Interfaces {
		if inUse(i) {
			out = append(out, i)
		}
	}
	return out
}

// findAddresses collects what is inside, what is our own, and the static translations.
func (p *plan) findAddresses() {
	for _, i := range p.interfaces() {
		p.own = append(p.own, i.Address.Addr())
		if p.Outside == nil || i.SecurityLevel <= p.Outside.SecurityLevel {
			continue
		}
		p.insideNets = append(p.insideNets, i.Address.Masked())
		for _, r := range p.Routes {
			if r.On == i && r.Dst.Bits() > 0 {
				p.insideNets = append(p.insideNets, r.Dst.Masked())
			}
		}
	}
	for _, m := range p.MediaAddresses {
		p.own = append(p.own, m.Addr)
	}
	for _, s := range p.Statics {
		p.statics = append(p.statics, mapping.StaticNAT{
			RealLink: s.Real.Name, MappedLink: s.Mapped.Name, Real: s.RealAddr, Mapped: s.MappedAddr, RealPort: s.RealPort, MappedPort: s.MappedPort, Proto: s.Proto,
		})
	}
}

// translations are the static ones between the call agents and the Internet that SIP connections can meet. Those of a port come first, as
// in the kernel: a whole address would hide them.
func (p *plan) translations() []mapping.StaticNAT {
	out := slices.DeleteFunc(slices.Clone(p.statics), func(s mapping.StaticNAT) bool {
		return p.Outside == nil || s.MappedLink != p.Outside.Name || s.Proto == "udp"
	})
	slices.SortStableFunc(out, func(x, y mapping.StaticNAT) int { return boolInt(x.RealPort == 0) - boolInt(y.RealPort == 0) })
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// addClasses turns inspections into classes with their interceptions.
func (p *plan) addClasses(list []config.Inspection, outbound bool) {
	for _, in := range list {
		c := &class{name: in.Class, outbound: outbound, proxy: in.TLSProxy, marking: map[string]mediaterm.Marking{}}
		for _, d := range in.DSCP {
			value, keep := d.CodePoint()
			c.marking[d.Media] = mediaterm.Marking{Set: true, DSCP: value, Keep: keep}
		}
		for _, f := range in.Flows {
			i := mapping.Intercept{Outbound: outbound, ID: p.ids[f.Pos]}
			if outbound {
				i.InLinks, i.Src, i.Dst, i.PortLo, i.PortHi = []string{p.Inside.Name}, netip.PrefixFrom(f.UCM, 32), f.Peer, f.Ports.Lo, f.Ports.Hi
			} else {
				i.InLinks, i.Src, i.Dst, i.PortLo, i.PortHi = []string{p.Outside.Name}, f.Peer, netip.PrefixFrom(f.Mapped, 32), f.MappedPorts.Lo, f.MappedPorts.Hi
				if _, have := p.trunks[f.UCM]; !have {
					p.trunks[f.UCM] = trunk{netip.AddrPortFrom(f.Mapped, f.MappedPorts.Lo), f.Ports.Lo}
				}
			}
			c.intercepts = append(c.intercepts, i)
		}
		if len(c.intercepts) > 0 {
			p.classes = append(p.classes, c)
		}
	}
}

// proxying tells whether the configuration has a uc-ime with a media termination.
func (p *plan) proxying() bool { return p.UCIME != nil && p.Media != nil }

// mediaConfig is what the media room is built from.
func (p *plan) mediaConfig(log *slog.Logger, now func() time.Time) mediaterm.Config {
	c := mediaterm.Config{MinPort: p.Media.MinPort, MaxPort: p.Media.MaxPort, NoRTCP: p.UCIME.NoRTCP, Log: log, Now: now}
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
	if p.PeerServer != nil {
		for _, v := range p.PeerServer.VAPServers {
			if v.Encrypted {
				out = append(out, v.Trustpoint)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// realOf translates an address and port that the Internet sees.
func (p *plan) realOf(ap netip.AddrPort) (netip.Addr, uint16, bool) {
	for _, s := range p.translations() {
		if s.Mapped != ap.Addr() {
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

// trunkPort is the port at which the Internet reaches a call agent; 5061 (RFC 3261 section 19.1.2) for one that makes calls and takes none.
func (p *plan) trunkPort(a *callAgent) uint16 {
	if t, ok := p.trunks[a.real]; ok {
		return t.mapped.Port()
	}
	return 5061
}

// agentPort is the port at which a call agent listens for the trunk.
func (p *plan) agentPort(a *callAgent) uint16 {
	if t, ok := p.trunks[a.real]; ok {
		return t.real
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

// tlsPolicy is what the configuration says of handshakes in one role. `client cipher-suite` is for those in which we are the client; the
// rest, and a tls-proxy without it, follow `ssl encryption`.
func (a *Appliance) tlsPolicy(cl *class, client bool) tlsproxy.Policy {
	cfg := a.plan.Load().cfg
	ciphers := cfg.SSLEncryption
	if client && len(cl.proxy.ClientCipherSuites) > 0 {
		ciphers = cl.proxy.ClientCipherSuites
	}
	return tlsproxy.Policy{ClientMin: tlsVersion(cfg.SSLClientVersion), ServerMin: tlsVersion(cfg.SSLServerVersion), Ciphers: ciphers, KeyLog: a.keyLog()}
}

// keyLog is where the keys of a handshake that begins now go; nil: nowhere.
func (a *Appliance) keyLog() io.Writer {
	k := a.capture.KeyLog()
	switch {
	case k == nil:
		return a.opt.KeyLog
	case a.opt.KeyLog == nil:
		return k
	}
	return io.MultiWriter(a.opt.KeyLog, k)
}
