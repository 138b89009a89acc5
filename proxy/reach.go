package proxy

import (
	"net/netip"
	"sync"

	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// reached are the sessions that the appliance is opening by itself, to send a request to an end whose connection is gone: that its
// call is over, or should fall back to the PSTN. Calls of the same two ends share one, so that a stop with many such calls dials each end once.
type reached struct {
	mu   sync.Mutex
	open map[reachKey]*session
	n    int // requests that wait for a connection
}

type reachKey struct {
	agent  netip.Addr
	remote netip.AddrPort
	side   dialog.Side
}

// byeAnew ends a dialog at an end that has no connection, over a new one. The call is locked.
func (a *Appliance) byeAnew(c *call, d *dialog.Dialog, side dialog.Side, extra []sipalg.Header) {
	a.anew(c, d, side, "BYE", func(*session) {
		a.queueBye(c, d, side, extra) // not sendBye: an end that closes at once is not called again
	})
}

// anew opens a connection to an end of a dialog that has none, and then calls use with the call locked. The dialing is done elsewhere: the
// call is locked now too. what names the request in the log.
func (a *Appliance) anew(c *call, d *dialog.Dialog, side dialog.Side, what string, use func(*session)) {
	remote, ok := c.reachable(d, side)
	if a.ctx.Err() != nil {
		return
	}
	if !ok {
		c.log().Warn("a request is not sent: the connection of its end is gone, and it named no address that may be called", "method", what, "side", side.String())
		return
	}
	s := a.reachSession(c, remote, side)
	if s == nil {
		c.log().Warn("a request is not sent: too many wait for a connection", "method", what, "side", side.String(), "maximum", maxReaches)
		return
	}
	a.wg.Go(func() {
		defer a.reached.done()
		_, err := s.ensure(side, c.domain)
		a.reached.settle(s, side)
		if err != nil {
			s.end("no connection for a " + what + ": " + err.Error())
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.last = s
		use(s)
	})
}

// reachSession gives the session in which an end is being called, a new one if none is. At most maxReaches requests wait.
func (a *Appliance) reachSession(c *call, remote netip.AddrPort, side dialog.Side) *session {
	r, key := &a.reached, reachKey{c.agent.real, remote, side}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n >= maxReaches {
		return nil
	}
	r.n++
	if s := r.open[key]; s != nil {
		return s
	}
	s := &session{
		a: a, opener: side.Other(), class: c.last.class, agent: c.agent, remote: remote, agentPort: c.last.agentPort, mapped: c.last.mapped,
		since: a.now(), ours: true,
	}
	s.rw = a.rewriter(s)
	a.sessions.add(s)
	if r.open == nil {
		r.open = make(map[reachKey]*session)
	}
	r.open[key] = s
	return s
}

// settle lets later calls find the session in the table of sessions, or open another.
func (r *reached) settle(s *session, side dialog.Side) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key := (reachKey{s.agent.real, s.remote, side}); r.open[key] == s {
		delete(r.open, key)
	}
}

func (r *reached) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n--
}

// waiting counts the requests that have no connection yet.
func (r *reached) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// reachable tells the far end of a new session towards a side. The call agent is where the configuration says; an end on the
// Internet is where the call agent called it, or where its own route set or Contact says, if that is an address of the same
// host: a name is not looked up, and nobody is called on the word of a stranger.
func (c *call) reachable(d *dialog.Dialog, side dialog.Side) (netip.AddrPort, bool) {
	if side == dialog.Inside {
		return c.last.remote, true
	}
	if c.last.opener == dialog.Inside {
		return c.last.remote, true
	}
	e := d.Ends[side]
	next := e.Target
	if len(e.Routes) > 0 {
		next = dialog.AddressURI(e.Routes[0])
	}
	u, err := sipalg.ParseURI(next)
	if err != nil {
		return netip.AddrPort{}, false
	}
	ip, err := netip.ParseAddr(u.Host)
	if err != nil || ip != c.last.remote.Addr() {
		return netip.AddrPort{}, false
	}
	port := uint16(5061)
	if u.Port > 0 {
		port = uint16(u.Port)
	}
	return netip.AddrPortFrom(ip, port), true
}
