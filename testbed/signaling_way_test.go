package testbed

import (
	"fmt"
	"strings"
	"testing"
)

// way is a direction of calls through the proxy. Most scenarios must work in
// both, so they are written for a caller and a callee.
type way struct {
	s   *StubLab
	out bool // the call agent calls
}

// eachWay runs a scenario in both directions as subtests.
func eachWay(t *testing.T, s *StubLab, name string, f func(t *testing.T, w way)) {
	t.Helper()
	for _, out := range []bool{true, false} {
		dir := "inbound"
		if out {
			dir = "outbound"
		}
		t.Run(name+"/"+dir, func(t *testing.T) {
			defer checkReturned(t, s)
			f(t, way{s, out})
		})
	}
}

// checkReturned reports at once, in the scenario concerned, responses that did not fit.
func checkReturned(t T, s *StubLab) {
	t.Helper()
	for _, st := range []*Stub{s.Agent, s.Far} {
		for _, f := range st.Faults() {
			t.Errorf("%s: %s", st.Name, f)
		}
	}
}

func (w way) caller(t T) *Leg {
	t.Helper()
	if w.out {
		return w.s.Outbound(w.s.AgentDial(t))
	}
	return w.s.Inbound(w.s.FarDial(t))
}

func (w way) callee() *Stub {
	if w.out {
		return w.s.Far
	}
	return w.s.Agent
}

// open makes a request one that may open a dialog.
func (w way) open(m *StubMessage) {
	if !w.out {
		w.s.WithTicket(m)
	}
}

// desc is a session description of the caller's or the callee's side, with
// audio lines on the given ports; more is appended to each.
func (w way) desc(ofCaller bool, port int, more ...string) string {
	if w.plain(ofCaller) {
		return plainOffer(w.s.A.PhoneIP.String(), port, more...)
	}
	return secureOffer(w.s.B.MediaOut.String(), port, append([]string{goodCrypto}, more...)...)
}

// plain tells whether that end is the inside one.
func (w way) plain(ofCaller bool) bool { return ofCaller == w.out }

func (w way) offer(port int, more ...string) func(*StubMessage) {
	return sdp(w.desc(true, port, more...))
}

func (w way) answer(port int, more ...string) func(*StubMessage) {
	return sdp(w.desc(false, port, more...))
}

// mediaAddress is what a description must name that the given end receives.
func (w way) mediaAddress(atCaller bool) string {
	if w.plain(atCaller) {
		return w.s.A.MediaIn.String()
	}
	return w.s.A.MediaOut.String()
}

// checkSDP looks at a description that an end got: our address, our profile,
// keys outside and none inside. It gives the ports of its m= lines.
func (w way) checkSDP(t T, m *StubMessage, atCaller bool) []int {
	t.Helper()
	if m.Body == "" {
		t.Fatalf("no session description in\n%s", m.Raw)
	}
	plain := w.plain(atCaller)
	var ports []int
	for _, at := range MediaLines(t, m.Body) {
		if at.Port() != 0 && at.Addr().String() != w.mediaAddress(atCaller) && at.Addr().String() != "0.0.0.0" {
			t.Errorf("media at %v, want %s", at, w.mediaAddress(atCaller))
		}
		ports = append(ports, int(at.Port()))
	}
	if keys := CryptosOf(t, m.Body); plain == (len(keys) > 0) {
		t.Errorf("%d keys in a description for the %s side:\n%s", len(keys), map[bool]string{true: "inside", false: "outside"}[plain], m.Body)
	}
	for line := range strings.Lines(m.Body) {
		if f := strings.Fields(line); strings.HasPrefix(line, "m=") && f[1] != "0" && strings.HasPrefix(f[2], "RTP/") && strings.Contains(f[2], "SAVP") == plain {
			t.Errorf("profile of %q on the wrong side", line)
		}
	}
	return ports
}

// ring lets a call with an offer arrive at the callee.
func (w way) ring(t T, change ...func(*StubMessage)) (caller, callee *Leg, inv, seen *StubMessage) {
	t.Helper()
	caller = w.caller(t)
	inv = caller.Request(t, "INVITE", append([]func(*StubMessage){w.open, w.offer(4000)}, change...)...)
	seen = w.callee().Expect(t, InCall(caller.CallID, ReqIs("INVITE")), wait)
	w.checkSDP(t, seen, false)
	return caller, w.callee().AnswerLeg(seen), inv, seen
}

// pick answers a ringing call and acknowledges it.
func (w way) pick(t T, caller, callee *Leg, inv, seen *StubMessage) {
	t.Helper()
	callee.Respond(t, seen, 200, "OK", w.answer(20000))
	ok := caller.AwaitStatus(t, inv, 200)
	w.checkSDP(t, ok, true)
	caller.Learn(ok)
	caller.Ack(t)
	callee.Expect(t, "ACK")
}

// up sets a call up.
func (w way) up(t T) (caller, callee *Leg) {
	t.Helper()
	caller, callee, inv, seen := w.ring(t)
	w.pick(t, caller, callee, inv, seen)
	return caller, callee
}

// reoffer runs a re-INVITE from one leg with descriptions of both, and gives
// what the other leg saw and what came back.
func reoffer(t T, from, to *Leg, offer, answer string) (seen, back *StubMessage) {
	t.Helper()
	inv := from.Request(t, "INVITE", sdp(offer))
	seen = to.Expect(t, "INVITE")
	to.Respond(t, seen, 200, "OK", sdp(answer))
	back = from.AwaitStatus(t, inv, 200)
	from.Ack(t)
	to.Expect(t, "ACK")
	return seen, back
}

// gone checks that the call is over: a BYE in it gets 481.
func gone(t T, l *Leg) {
	t.Helper()
	l.AwaitStatus(t, l.Request(t, "BYE"), 481)
}

// reliable makes a provisional response one that asks for a PRACK.
func reliable(rseq int) func(*StubMessage) {
	return func(m *StubMessage) { m.Add("Require", "100rel").Add("RSeq", fmt.Sprint(rseq)) }
}

// rack answers it.
func rack(rseq int, inv *StubMessage) func(*StubMessage) {
	n, method := inv.CSeq()
	return func(m *StubMessage) { m.Add("RAck", fmt.Sprintf("%d %d %s", rseq, n, method)) }
}

// with sets a header.
func with(name, value string) func(*StubMessage) {
	return func(m *StubMessage) { m.Set(name, value) }
}
