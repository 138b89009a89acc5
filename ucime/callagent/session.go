package callagent

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/leg"
)

// The call agent asks both ends of a call whether it still stands, so that an end that died without a BYE does not hold the call forever. It
// refreshes the session with UPDATE (RFC 4028 section 7.4), so that an end whose call agent died ends the call as well. Where the two ends
// have a session timer of their own (what they say of it passes, see extension.go), or an end takes no UPDATE, it asks with OPTIONS
// within the dialog, which changes nothing.
const (
	sessionTick = 5 * time.Second  // calls are looked at this often
	askLimit    = 32 * time.Second // for an answer
)

// session is what the call agent knows of one end of a call. The call's mutex guards it.
type session struct {
	heard    time.Time     // the latest sign that the end has the call
	renewed  time.Time     // the latest refresh that made the end expect another; zero: none
	interval time.Duration // of it
	silent   bool          // the last question was not answered
	asking   bool
	plain    bool // it refused a refresh for its interval
}

// every is the session's interval: what was agreed, else the configuration's; 0: none.
func (s *session) every(configured time.Duration) time.Duration {
	return cmp.Or(s.interval, configured)
}

// watchSessions looks at all calls until the agent ends.
func (a *Agent) watchSessions() {
	tick := time.NewTicker(sessionTick)
	defer tick.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
			a.sweepSessions()
		}
	}
}

func (a *Agent) sweepSessions() {
	every := a.settings().cfg.Feature.SessionTimer
	a.mu.Lock()
	calls := make([]*call, 0, len(a.calls))
	for c := range a.calls {
		calls = append(calls, c)
	}
	a.mu.Unlock()
	for _, c := range calls {
		c.sweepSessions(a.now(), every)
	}
}

// heardFrom notes that an end has the call.
func (c *call) heardFrom(l *leg.Leg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(l)
	s.heard, s.silent = c.a.now(), false
}

// session of an end; mu is held.
func (c *call) session(l *leg.Leg) *session {
	s := c.sessions[l]
	if s == nil {
		s = &session{heard: c.a.now()}
		c.sessions[l] = s
	}
	return s
}

// sweepSessions asks the ends that have said nothing for half of the interval, or expect a refresh, and ends the call when one has been silent for
// all of it. An end that nobody asked is not silent: the machine may have been asleep.
func (c *call) sweepSessions(now time.Time, configured time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered.IsZero() || c.over {
		return
	}
	for _, l := range []*leg.Leg{c.pbx, c.far} {
		if l == nil {
			continue
		}
		s := c.session(l)
		every := s.every(configured)
		due := now.Sub(s.heard) >= every/2 || !s.renewed.IsZero() && now.Sub(s.renewed) >= every/2
		switch {
		case every == 0 || s.asking:
		case s.silent && now.Sub(s.heard) >= every:
			c.a.wg.Go(func() { c.expire(l, "silent for the session interval") })
			return
		case due:
			s.asking = true
			c.a.wg.Go(func() { c.ask(l, every) })
		}
	}
}

// expire ends a call that one end does not have any more. There is no record of it: nobody knows when the call was over.
func (c *call) expire(l *leg.Leg, why string) {
	c.mu.Lock()
	over := c.over
	c.expired = true
	c.mu.Unlock()
	if over {
		return
	}
	c.a.counters.SessionsExpired.Add(1)
	c.a.log.Warn("call ended: an end has it no more", "trunk", l.E.Name, "call_id", l.CallID, "why", why)
	c.hangUp(nil, 5*time.Second)
}

// ask asks one end, and takes what it says.
func (c *call) ask(l *leg.Leg, every time.Duration) {
	c.mu.Lock()
	s := c.session(l)
	method, x := sip.OPTIONS, leg.Extra(nil)
	if l.TakesUpdate() && !c.timed && !s.plain {
		method = sip.UPDATE
		x = leg.Extra{{"Supported", "timer"}, {"Session-Expires", strconv.Itoa(int(every/time.Second)) + ";refresher=uac"}}
	}
	c.mu.Unlock()
	if method == sip.UPDATE && l.E == c.a.ime {
		x = append(x, c.sensitivity()...)
	}
	ctx, done := context.WithTimeout(c.a.ctx, c.a.askLimit)
	defer done()
	res, err := l.Do(ctx, method, nil, "", x)
	c.mu.Lock()
	s.asking = false
	gone := err == nil && res.StatusCode == 481
	switch {
	case gone:
	case err != nil || res.StatusCode == 408:
		s.silent = true
	default:
		now := c.a.now()
		s.heard, s.silent = now, false
		if method != sip.UPDATE {
			break
		}
		s.plain = res.StatusCode == 422
		if n := sessionExpires(res); res.IsSuccess() && n > 0 {
			s.renewed, s.interval = now, n
		}
	}
	c.mu.Unlock()
	if gone {
		c.expire(l, "no such call there")
	}
}

// sessionExpires is the interval that an answer agrees to, 0 where there is none. Less than the least of RFC 4028 counts as that.
func sessionExpires(m message) time.Duration {
	for _, name := range []string{"Session-Expires", "x"} {
		if h := m.GetHeader(name); h != nil {
			text, _, _ := strings.Cut(h.Value(), ";")
			if n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31); err == nil && n > 0 {
				return max(time.Duration(n)*time.Second, 90*time.Second)
			}
		}
	}
	return 0
}

// ends notes what an answer of one end to the other says: that it has the call, and whether they have a session timer.
func (c *call) ends(from *leg.Leg, res *sip.Response) {
	if res.StatusCode == 408 || res.StatusCode == 481 {
		return
	}
	c.heardFrom(from)
	if res.IsSuccess() && sessionExpires(res) > 0 {
		c.mu.Lock()
		c.timed = true
		c.mu.Unlock()
	}
}
