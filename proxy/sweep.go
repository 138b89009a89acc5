package proxy

import (
	"time"

	"imeproxy/mediaterm"
	"imeproxy/sipalg/dialog"
)

// sweep runs once a second: it ends what nobody ends, and keeps connections alive.
func (a *Appliance) sweep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	collector := newGarbage()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
			a.sweepCalls(a.now())
			a.sweepSessions(a.now())
			a.sweepFormer()
			a.sweepCertificates(a.now())
			a.quality.loadTable(a.plan.Load())
			a.silent.sweep(a.now())
			a.sweepMedia(a.now())
			collector.adjust(a.now())
		}
	}
}

// sweepCalls forgets finished calls and ends those that were abandoned, of those whose time has come.
func (a *Appliance) sweepCalls(now time.Time) {
	for _, c := range a.agenda.take(now) {
		if a.sweepCall(c, now) {
			a.calls.remove(c)
			c.opener.give()
		}
	}
}

// planSweep has a call looked at when its state next changes by itself. The call is locked.
func (a *Appliance) planSweep(c *call) {
	if c.gone {
		return
	}
	at := c.d.Due()
	if c.d.Idle() {
		at = a.now() // a Call-ID has few places in the table, and some senders use one for all their OPTIONS or MESSAGEs
	}
	a.agenda.plan(c, at)
}

// sweepCall tells whether nothing is left of the call.
func (a *Appliance) sweepCall(c *call, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer a.planSweep(c)
	if stale := c.d.Expire(now); stale != nil && stale == c.d.Invite() || stale != nil && c.d.Confirmed() == nil {
		a.hangUp(c, "timeout")
	}
	if c.d.Settled() {
		c.media.forget()
	}
	if end := c.d.SessionExpires(); !end.IsZero() && now.After(end) && c.d.HasInvite() {
		c.log().Warn("session timer ran out without a refresh", "session_expires", end)
		a.hangUp(c, "session_timer")
	}
	if c.d.HasInvite() && now.Sub(c.lastUsed) > mediaGone && a.forgotten(c, now) {
		a.hangUp(c, "abandoned")
	}
	if !c.d.Idle() {
		return false
	}
	if !c.recorded {
		a.finish(c, "refused", dialog.Outside, 0)
	}
	c.media.close() // what a late offer made, to which no answer came
	c.gone = true
	a.agenda.drop(c)
	return true
}

// forgotten tells whether neither a connection between the ends nor a packet has been seen for the whole time. A
// standing connection, as of a call on hold, keeps the call.
func (a *Appliance) forgotten(c *call, now time.Time) bool {
	if s, _ := a.carrier(c, dialog.Inside); s != nil {
		return false
	}
	if s, _ := a.carrier(c, dialog.Outside); s != nil {
		return false
	}
	for _, l := range c.media.lines {
		if l.stream == nil {
			continue
		}
		st := l.stream.Stats()
		for _, side := range []mediaterm.Side{mediaterm.Inside, mediaterm.Outside} {
			if now.Sub(st.Leg(side).LastPacket) < mediaGone {
				return false
			}
		}
	}
	return true
}

// sweepSessions pings outside connections (RFC 5626 4.4.1) and ends sessions that are dead or unused.
func (a *Appliance) sweepSessions(now time.Time) {
	list, _ := a.sessions.snapshot()
	for _, s := range list {
		last := s.since // one that is still being opened has heard nothing
		for side := range 2 {
			k := s.conn(dialog.Side(side))
			if k == nil {
				continue
			}
			seen := time.Unix(0, k.lastRead.Load())
			if seen.After(last) {
				last = seen
			}
			if dialog.Side(side) == dialog.Outside {
				s.keepAlive(k, seen, now)
			}
		}
		s.mu.Lock()
		calls := s.calls
		s.mu.Unlock()
		idle := sessionIdle
		if s.ours {
			idle = reachIdle // nobody else knows that it is there
		}
		if calls <= 0 && now.Sub(last) > idle {
			s.end("idle")
		}
	}
}

// keepAlive sends a double CRLF on a silent connection. A peer that has answered pings before and does not
// answer one within 10 s is gone; one that never did need not know them.
func (s *session) keepAlive(k *conn, seen, now time.Time) {
	sent := k.pinged.Load()
	switch {
	case sent == 0 && now.Sub(seen) >= keepaliveEvery:
		k.pinged.Store(now.UnixNano())
		k.send([]byte("\r\n\r\n"))
	case sent != 0 && seen.UnixNano() > sent:
		k.pinged.Store(0)
	case sent != 0 && k.ponged.Load() && now.Sub(time.Unix(0, sent)) > pongTimeout:
		s.end("no answer to a keep-alive")
	case sent != 0 && now.Sub(time.Unix(0, sent)) >= keepaliveEvery:
		k.pinged.Store(now.UnixNano())
		k.send([]byte("\r\n\r\n"))
	}
}
