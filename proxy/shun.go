package proxy

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"imeproxy/mapping"
	"imeproxy/proxy/observe"
)

// A source that fails this often within offenceWindow is turned away, where `threat-detection scanning-threat shun` says so.
const (
	offenceLimit  = 20
	offenceWindow = time.Minute
	maxOffenders  = 4096 // sources that are watched; the one that was quiet longest is forgotten for a new one
	maxPeers      = 10000
	tellKernel    = 10 * time.Minute // how often the kernel is told that a source is known
)

// guard watches the sources that fail, and knows those that make calls.
type guard struct {
	mu        sync.Mutex
	offenders map[netip.Addr]*offender
	peers     map[netip.Addr]time.Time // when the kernel was told last
}

type offender struct {
	since, last time.Time
	count       int
}

// offends counts a failure of a source and says whether it is one too many.
func (g *guard) offends(a netip.Addr, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t, known := g.peers[a]; known && now.Sub(t) < mapping.KnownFor {
		return false
	}
	o := g.offenders[a]
	if o == nil || now.Sub(o.since) >= offenceWindow {
		if o == nil && len(g.offenders) >= maxOffenders {
			g.forget()
		}
		o = &offender{since: now}
		if g.offenders == nil {
			g.offenders = map[netip.Addr]*offender{}
		}
		g.offenders[a] = o
	}
	o.count, o.last = o.count+1, now
	if o.count < offenceLimit {
		return false
	}
	delete(g.offenders, a)
	return true
}

// forget makes room for an offender. The caller holds mu.
func (g *guard) forget() {
	var oldest netip.Addr
	var at time.Time
	for a, o := range g.offenders {
		if !oldest.IsValid() || o.last.Before(at) {
			oldest, at = a, o.last
		}
	}
	delete(g.offenders, oldest)
}

// knows notes a source that makes calls, and says whether the kernel is to be told.
func (g *guard) knows(a netip.Addr, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.offenders, a)
	if t, known := g.peers[a]; known && now.Sub(t) < tellKernel {
		return false
	}
	if len(g.peers) >= maxPeers {
		for p, t := range g.peers {
			if now.Sub(t) >= mapping.KnownFor {
				delete(g.peers, p)
			}
		}
		if len(g.peers) >= maxPeers {
			return false
		}
	}
	if g.peers == nil {
		g.peers = map[netip.Addr]time.Time{}
	}
	g.peers[a] = now
	return true
}

// LoginFailed counts somebody who could not log in over SSH.
func (a *Appliance) LoginFailed(src netip.Addr) { a.offence(src, "SSH login") }

// offence is something that a source should not have done. Call agents are spared: without them there is no call.
func (a *Appliance) offence(src netip.Addr, why string) {
	p := a.plan.Load()
	d := p.cfg.ShunDuration
	if d == 0 || p.agents[src] != nil || !a.guard.offends(src, a.now()) {
		return
	}
	if err := a.kernel.Shun(src, d); err != nil {
		a.log.Error("source cannot be shunned", "source", src.String(), "err", err)
		return
	}
	a.log.Warn("source shunned: it failed too often", "source", src.String(), "last", why, "failures", offenceLimit, "duration", d)
}

// peer is a source that makes calls: it is let in however often it connects.
func (a *Appliance) peer(src netip.Addr) {
	if !a.guard.knows(src, a.now()) {
		return
	}
	a.wg.Go(func() { // the caller may hold a call's lock, and a change of the configuration the kernel's
		if err := a.kernel.Know(src); err != nil {
			a.log.Warn("the kernel was not told of a peer: its new connections are limited", "peer", src.String(), "err", err)
		}
	})
}

// Shun turns a source away; 0 is for good.
func (a *Appliance) Shun(src netip.Addr, d time.Duration) error {
	for _, i := range a.plan.Load().interfaces() {
		if i.Address.Addr() == src {
			return errors.New("this is an address of the appliance itself")
		}
	}
	return a.kernel.Shun(src, d)
}

// Unshun lets a source in again.
func (a *Appliance) Unshun(src netip.Addr) error {
	if err := a.kernel.Unshun(src); errors.Is(err, mapping.ErrNotShunned) {
		return errors.New("it is not shunned: show shun lists those that are")
	} else if err != nil {
		return err
	}
	return nil
}

// Shunned lists the sources that are turned away.
func (a *Appliance) Shunned() (observe.Shuns, error) {
	all, err := a.kernel.Shunned()
	out := observe.Shuns{}
	for _, s := range all {
		x := observe.Shun{Source: s.Addr.String(), Left: -observe.Seconds(time.Second)}
		if s.Left > 0 {
			x.Left = observe.Seconds(s.Left)
		}
		out.Shuns = append(out.Shuns, x)
	}
	return out, err
}
