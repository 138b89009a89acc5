package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"imeproxy/fallback"
	"imeproxy/mediaterm"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// turn takes the calls that have waited longest out of the queue, as many as the rate lets pass. One that has become good keeps its place
// while it is suspect; what is due no more leaves. The caller holds mu.
func (q *quality) turn(at time.Duration, rate int) (tell []due) {
	rest := q.turns[:0]
	for i, c := range q.turns {
		r, waiting := c.next()
		if !r.Bad && !waiting {
			c.queued, c.again = false, false
			continue
		}
		if !r.Bad {
			rest = append(rest, c)
			continue
		}
		if !q.pace.Take(at, rate) {
			rest = append(rest, q.turns[i:]...)
			break
		}
		ok := c.again
		if !ok {
			r, ok = c.monitor.Notify() // not when its level has just become 0
		}
		c.queued, c.again, c.seen.decided = false, false, c.seen.decided || ok
		if ok {
			tell = append(tell, due{c, r})
		}
	}
	clear(q.turns[len(rest):])
	q.turns = rest
	return tell
}

// next is the latest sample of a call in the queue, bad when the call may be told now. The caller holds quality.mu.
func (c *callQuality) next() (r fallback.Result, waiting bool) {
	r = c.monitor.Last()
	if c.again {
		return r, false
	}
	due := c.monitor.Due()
	r.Bad = r.Bad && due
	return r, due
}

// settle counts what came of a REFER. The caller holds mu.
func (q *quality) settle(c *callQuality, o fallback.Outcome) {
	delete(q.asked, c.callID)
	switch o {
	case fallback.Done:
		q.stats.Accepted++
	case fallback.Again:
		q.stats.Deferred++
	default:
		q.stats.Failed++
	}
}

// notify sends the REFER of a call that is bad, over the connection of its call agent, or a new one.
func (q *quality) notify(c *callQuality, r fallback.Result) {
	var b [16]byte
	_, _ = rand.Read(b[:])
	id := hex.EncodeToString(b[:])
	q.mu.Lock()
	if c.place < 0 {
		q.mu.Unlock()
		return
	}
	c.callID, c.told = referCallID(id), true
	c.notifier.Sent(mediaterm.Instant(time.Now()))
	q.asked[c.callID] = c
	q.stats.Sent++
	n := c.notifier.Referrals()
	q.mu.Unlock()
	q.a.trace.Event(trace.Fallback, c.call.d.ID, c.call.domain, "to fall back to the PSTN: level %s, quality %s, notification %d", r.Level, r.Figures.Quality(r.Level), n)
	c.call.log().Warn("call is to fall back to the PSTN", "level", r.Level.String(), "quality", r.Figures.Quality(r.Level), "notification", n)
	q.send(c.call, id, r)
}

func referCallID(id string) string { return id + "@ime" }

// send queues the REFER on a connection to the call agent, a new one where none stands. One that cannot be sent has no answer in the end,
// and counts so.
func (q *quality) send(c *call, id string, r fallback.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.someDialog()
	if d == nil {
		return
	}
	refer := func(s *session) {
		m, err := q.refer(c, s, d, id, r)
		if err != nil {
			q.a.trace.Event(trace.Fallback, c.d.ID, c.domain, "the call agent cannot be told: %v", err)
			c.log().Warn("the call agent cannot be told to fall back", "err", err)
			return
		}
		if k := s.conn(dialog.Inside); k != nil {
			k.sendMessage(m)
			q.mu.Lock()
			q.told[s.agent.real]++
			q.mu.Unlock()
		}
	}
	if s, k := q.a.carrier(c, dialog.Inside); k != nil {
		refer(s)
		return
	}
	q.a.anew(c, d, dialog.Inside, "REFER", refer)
}

// someDialog is the dialog that a call's media belongs to: the confirmed one, else one that rings. The call is locked.
func (c *call) someDialog() *dialog.Dialog {
	if d := c.d.Confirmed(); d != nil {
		return d
	}
	for _, d := range c.d.Dialogs() {
		return d
	}
	return nil
}

// refer builds the notification. The call is locked.
func (q *quality) refer(c *call, s *session, d *dialog.Dialog, id string, r fallback.Result) (*sipalg.Message, error) {
	end := d.Ends[dialog.Inside]
	local, remote := sipalg.TagOf(end.Party), sipalg.TagOf(end.Peer)
	if local == "" || remote == "" {
		return nil, errors.New("the call's dialog has no tags yet")
	}
	p := q.a.plan.Load()
	agent := fmt.Sprintf("sip:%s:%d", s.agent.real, s.agentPort)
	self := "sip:uc-ime@" + p.hostname()
	if p.Inside != nil {
		self = "sip:uc-ime@" + p.Inside.Address.Addr().String()
	}
	return sipalg.BuildRequest("REFER", agent, s.ownVia(dialog.Inside), fmt.Sprintf("<%s>;tag=%s", self, id[:16]), "<"+agent+">", referCallID(id), 1, nil,
		sipalg.Header{Name: "Contact", Value: "<" + self + ">"},
		sipalg.Header{Name: "Target-Dialog", Value: fmt.Sprintf("%s;local-tag=%s;remote-tag=%s", c.d.ID, local, remote)},
		sipalg.Header{Name: "Refer-To", Value: fallback.ReferTo},
		sipalg.Header{Name: "Refer-Sub", Value: "false"},
		sipalg.Header{Name: "Supported", Value: "tdialog, norefersub"},
		sipalg.Header{Name: sipalg.HeaderQuality, Value: r.Figures.Quality(r.Level)},
	), nil
}

// response takes a call agent's response to a REFER of ours; false: it is none.
func (q *quality) response(m *sipalg.Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.asked[m.CallID()]
	if c == nil {
		return false
	}
	if m.Status < 200 {
		return true
	}
	after := time.Duration(-1)
	if v := m.Get("Retry-After"); v != "" {
		if n, err := strconv.Atoi(strings.TrimSpace(strings.FieldsFunc(v+" ", func(r rune) bool { return r == ';' || r == '(' })[0])); err == nil && n >= 0 && n <= 1<<20 {
			after = time.Duration(n) * time.Second
		}
	}
	o := c.notifier.Answer(mediaterm.Instant(time.Now()), m.Status, after)
	q.settle(c, o)
	q.a.trace.Event(trace.Fallback, c.call.d.ID, c.call.domain, "the call agent answered the notification with %d", m.Status)
	c.call.log().Info("the call agent answered the fallback notification", "status", m.Status, "again", o == fallback.Again)
	return true
}
