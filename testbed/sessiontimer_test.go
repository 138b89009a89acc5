package testbed

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const (
	// shortSession is the interval that the ends of the test's calls agree on. RFC 4028 allows no end to ask for so little; what stands between
	// them takes it.
	shortSession = 2 * time.Second
	// sessionGrace is how long after the interval a proxy leaves it to the ends to hang up.
	sessionGrace = 32 * time.Second
)

// timedPBXs are two PBXs whose phones the test plays, in two enterprises with call agents and proxies.
type timedPBXs struct {
	lab  *Lab
	at   map[*Enterprise]*Stub
	conn map[*Enterprise]*StubConn
}

func startTimedPBXs(t *testing.T) *timedPBXs {
	t.Helper()
	l := Start(t, Options{PSTN: true, NoCallAgents: true, A: Side{AgentConfig: func(text string) string { return text + "feature\n session-timer 90\n" }}})
	l.PSTN.Start(t)
	p := &timedPBXs{l, make(map[*Enterprise]*Stub), make(map[*Enterprise]*StubConn)}
	for _, e := range l.Enterprises() {
		e.Agent.Start(t)
		p.at[e] = newStub("PBX "+e.Letter, e.PBXHost, netip.AddrPortFrom(e.PBXIP, 5060), "TCP")
		p.at[e].OnMessage = p.alive(e)
		p.at[e].Listen(t, nil)
		t.Cleanup(p.at[e].Close)
	}
	for _, e := range l.Enterprises() {
		e.Agent.AddRoute(t)
		p.conn[e] = p.at[e].Dial(t, netip.AddrPortFrom(e.UCMIP, 5060), nil)
	}
	return p
}

// alive answers a call agent that asks whether the PBX is there.
func (p *timedPBXs) alive(e *Enterprise) func(*StubMessage) bool {
	return func(m *StubMessage) bool {
		if m.Method() != "OPTIONS" {
			return false
		}
		ok := (&Leg{Stub: p.at[e], LocalTag: "pbx"}).NewResponse(m, 200, "OK")
		_, _ = m.Conn.Write(ok.Bytes()) // a connection that has ended asks no more
		return true
	}
}

// timer is what ends say that agree on a session timer; "" and they have none.
func timer(m *StubMessage, refresher string) {
	if refresher != "" {
		m.Set("Session-Expires", fmt.Sprintf("%d;refresher=%s", shortSession/time.Second, refresher))
		m.Set("Supported", "timer")
		if m.Status() > 0 {
			m.Set("Require", "timer")
		}
	}
	m.Set("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE")
}

// crossed demands that a message says of the session timer what the other end said.
func crossed(t *testing.T, m *StubMessage, refresher string) {
	t.Helper()
	want := ""
	if refresher != "" {
		want = fmt.Sprintf("%d;refresher=%s", shortSession/time.Second, refresher)
	}
	if got := m.Get("Session-Expires"); got != want {
		t.Errorf("Session-Expires came as %q, was sent as %q:\n%s", got, want, m.Raw)
	}
}

// call sets a call up from one enterprise to the other.
func (p *timedPBXs) call(t *testing.T, from *Enterprise, refresher string) (caller, callee *Leg) {
	t.Helper()
	to := from.far
	agree := func(m *StubMessage) { timer(m, refresher) }
	caller = p.at[from].NewLeg(p.conn[from], fmt.Sprintf("<sip:%s@%s>", from.Number, from.Domain), fmt.Sprintf("<sip:%s@%s>", to.Number, from.Domain),
		fmt.Sprintf("sip:%s@%s", to.Number, from.Domain))
	inv := caller.Request(t, "INVITE", sdp(plainOffer(from.PBXIP.String(), 10000)), agree)
	seen := p.at[to].Expect(t, ReqIs("INVITE"), wait)
	crossed(t, seen, refresher)
	callee = p.at[to].AnswerLeg(seen)
	callee.Respond(t, seen, 200, "OK", sdp(plainOffer(to.PBXIP.String(), 10000)), agree)
	ok := caller.AwaitStatus(t, inv, 200)
	crossed(t, ok, refresher)
	caller.Learn(ok)
	caller.Ack(t)
	callee.Expect(t, "ACK")
	return caller, callee
}

// refresh runs a refresh from one end to the other.
func refresh(t *testing.T, method string, from, to *Leg, change ...func(*StubMessage)) {
	t.Helper()
	agree := func(m *StubMessage) { timer(m, "uac") } // who refreshes is the client of that transaction
	req := from.Request(t, method, append(change, agree)...)
	seen := to.Expect(t, method)
	crossed(t, seen, "uac")
	to.Respond(t, seen, 200, "OK", append(change, agree)...)
	crossed(t, from.AwaitStatus(t, req, 200), "uac")
	if method == "INVITE" {
		from.Ack(t)
		to.Expect(t, "ACK")
	}
}

// ends demands that both ends of a call get a BYE when its session timer has run out since the last refresh, and answers them.
func (p *timedPBXs) ends(t *testing.T, since time.Time, legs ...*Leg) {
	t.Helper()
	due := since.Add(shortSession + sessionGrace)
	for _, l := range legs {
		bye := l.Stub.Expect(t, InCall(l.CallID, ReqIs("BYE")), time.Until(due)+5*time.Second)
		if early := time.Until(due); early > 0 {
			t.Errorf("%s got the BYE %v before the session timer ran out", l.Stub.Name, early)
		}
		l.Respond(t, bye, 200, "OK")
	}
}

// stand demands that so many calls stand, in the call agents and with media in the proxies.
func (p *timedPBXs) stand(t *testing.T, calls int) {
	t.Helper()
	for _, e := range p.lab.Enterprises() {
		Until(t, wait, fmt.Sprintf("%d calls stand in enterprise %s", calls, e.Letter), func() bool {
			return e.Agent.Counters(t)["ActiveCalls"] == calls && mediaInUse(t, e.Proxy) == calls
		})
	}
}

// What the ends of a call agree on as a session timer, and their refreshes, cross both call agents and both proxies, from either end and by UPDATE
// or re-INVITE. When the one that refreshes falls silent, and the other does not hang up either, the proxies do. A call whose ends have
// no timer is refreshed by its call agent, which ends it when one end does not have it any more.
func TestSessionTimers(t *testing.T) {
	p := startTimedPBXs(t)
	a, b := p.lab.A, p.lab.B
	keptA, keptB := p.call(t, a, "")
	kept := time.Now()
	silentA, silentB := p.call(t, a, "uac")
	silent := time.Now()
	byCallerA, byCallerB := p.call(t, a, "uac")
	byCalleeB, byCalleeA := p.call(t, b, "uas")
	p.stand(t, 4)

	// Refreshed at half the interval, for more than one of it.
	tick := time.NewTicker(shortSession / 2)
	defer tick.Stop()
	var refreshed time.Time
	for range 4 {
		<-tick.C
		refresh(t, "UPDATE", byCallerA, byCallerB)
		refreshed = time.Now()
		refresh(t, "INVITE", byCalleeA, byCalleeB, func(m *StubMessage) { m.WithSDP(plainOffer(a.PBXIP.String(), 10000)) })
	}
	p.ends(t, silent, silentA, silentB)
	p.stand(t, 3)
	p.ends(t, refreshed, byCallerA, byCallerB, byCalleeA, byCalleeB)
	p.stand(t, 1)
	// Of each call, by the proxy whose second it is first: the other one may get its BYE before.
	Until(t, loggedWithin, "the records tell why the calls ended", func() bool {
		return strings.Count(a.Proxy.records()+b.Proxy.records(), `"end_reason":"session_timer"`) >= 3
	})

	// The call agent asks at half of its own interval.
	half := 45 * time.Second
	askB := p.at[b].Expect(t, InCall(keptB.CallID, ReqIs("UPDATE")), half+10*time.Second-time.Since(kept))
	askA := keptA.Expect(t, "UPDATE")
	for _, m := range []*StubMessage{askA, askB} {
		if m.Get("Session-Expires") != "90;refresher=uac" || m.Body != "" {
			t.Errorf("the call agent refreshes with\n%s", m.Raw)
		}
	}
	if early := half - time.Since(kept); early > 0 {
		t.Errorf("the call agent asked %v before half of the interval", early)
	}
	keptB.Respond(t, askB, 200, "OK", with("Session-Expires", "90;refresher=uac"), with("Require", "timer"))
	keptA.Respond(t, askA, 481, "Call/Transaction Does Not Exist")
	keptB.Respond(t, keptB.Expect(t, "BYE"), 200, "OK")
	p.stand(t, 0)
	if n := a.Agent.Counters(t)["SessionsExpired"]; n != 1 {
		t.Errorf("call agent a ended %d calls that one end had no more, want 1", n)
	}
}
