package testbed

import (
	"strings"
	"testing"
	"time"
)

// Every other method, inside a dialog and outside of one.
func TestSignalingMethods(t *testing.T) {
	s := StartStubs(t)
	eachWay(t, s, "info, message, options in a dialog", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		for _, method := range []string{"INFO", "MESSAGE", "OPTIONS"} {
			for _, byCaller := range []bool{true, false} {
				from, to := caller, callee
				if !byCaller {
					from, to = callee, caller
				}
				got, _ := from.Transact(t, to, method, 200, func(m *StubMessage) { m.WithBody("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n") })
				if got.Body != "Signal=5\r\nDuration=160\r\n" || got.Get("Content-Type") != "application/dtmf-relay" {
					t.Errorf("body changed:\n%s", got.Raw)
				}
			}
		}
		from, _ := caller, callee
		from.Transact(t, callee, "INFO", 415)
		caller.Transact(t, callee, "BYE", 200)
	})
	eachWay(t, s, "refer and notify", methodRefer)
	eachWay(t, s, "message outside a dialog", func(t *testing.T, w way) {
		caller := w.caller(t)
		req := caller.Request(t, "MESSAGE", w.open, func(m *StubMessage) { m.WithBody("text/plain", "hello") })
		got := w.callee().Expect(t, InCall(caller.CallID, ReqIs("MESSAGE")), wait)
		if got.Body != "hello" {
			t.Errorf("body changed:\n%s", got.Raw)
		}
		w.callee().AnswerLeg(got).Respond(t, got, 202, "Accepted")
		caller.AwaitStatus(t, req, 202)
	})
	eachWay(t, s, "subscribe and notify", methodSubscribe)
	eachWay(t, s, "notify before the 200", func(t *testing.T, w way) {
		caller := w.caller(t)
		sub := caller.Request(t, "SUBSCRIBE", w.open, with("Event", "dialog"), with("Expires", "60"))
		seen := w.callee().Expect(t, InCall(caller.CallID, ReqIs("SUBSCRIBE")), wait)
		callee := w.callee().AnswerLeg(seen)
		callee.Transact(t, caller, "NOTIFY", 200, with("Event", "dialog"), with("Subscription-State", "active;expires=60"))
		callee.Respond(t, seen, 200, "OK", with("Expires", "60"))
		caller.Learn(caller.AwaitStatus(t, sub, 200))
		callee.Transact(t, caller, "NOTIFY", 200, with("Event", "dialog"), with("Subscription-State", "terminated;reason=timeout"))
	})
	t.Run("options from the call agent", func(t *testing.T) {
		l := s.Outbound(s.AgentDial(t))
		req := l.Request(t, "OPTIONS")
		got := s.Far.Expect(t, InCall(l.CallID, ReqIs("OPTIONS")), wait)
		s.Far.AnswerLeg(got).Respond(t, got, 200, "OK", with("Allow", "INVITE, ACK"))
		if m := l.AwaitStatus(t, req, 200); m.Get("Allow") != "INVITE, ACK" {
			t.Errorf("Allow changed:\n%s", m.Raw)
		}
	})
	t.Run("options from the Internet", func(t *testing.T) {
		l := s.Inbound(s.FarDial(t))
		if m := l.AwaitStatus(t, l.Request(t, "OPTIONS"), 200); !strings.Contains(m.Get("Allow"), "INVITE") {
			t.Errorf("no Allow in\n%s", m.Raw)
		}
		s.Agent.NoneOf(t, InCall(l.CallID, ReqIs("OPTIONS")))
	})
	t.Run("unknown method", func(t *testing.T) {
		l := s.Inbound(s.FarDial(t))
		l.AwaitStatus(t, l.Request(t, "FROBNICATE", s.WithTicket), 501)
	})
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

func methodRefer(t *testing.T, w way) {
	caller, callee := w.up(t)
	target := "<sip:+14085553333@" + w.s.A.PhoneIP.String() + ":5060>"
	if !w.out { // a colleague of the one who is called
		target = "<sip:+14085553333@" + w.s.B.Domain + ">"
	}
	refer, _ := caller.Transact(t, callee, "REFER", 202, with("Refer-To", target), with("Referred-By", "<sip:alice@a.example>"))
	if !strings.Contains(refer.Get("Refer-To"), "+14085553333@") {
		t.Errorf("Refer-To is %q", refer.Get("Refer-To"))
	}
	notify := func(line, state string) {
		t.Helper()
		got, _ := callee.Transact(t, caller, "NOTIFY", 200, with("Event", "refer"), with("Subscription-State", state), func(m *StubMessage) {
			m.WithBody("message/sipfrag;version=2.0", line+"\r\n")
		})
		if !strings.HasPrefix(got.Body, line) || got.Get("Event") != "refer" || got.Get("Subscription-State") != state {
			t.Errorf("NOTIFY changed:\n%s", got.Raw)
		}
	}
	notify("SIP/2.0 100 Trying", "active;expires=60")
	caller.Transact(t, callee, "BYE", 200)
	// The subscription outlives the call (RFC 5057).
	notify("SIP/2.0 200 OK", "terminated;reason=noresource")
	callee.AwaitStatus(t, callee.Request(t, "NOTIFY", with("Event", "refer"), with("Subscription-State", "active")), 481)
}

func methodSubscribe(t *testing.T, w way) {
	caller := w.caller(t)
	sub := caller.Request(t, "SUBSCRIBE", w.open, with("Event", "message-summary"), with("Expires", "60"))
	seen := w.callee().Expect(t, InCall(caller.CallID, ReqIs("SUBSCRIBE")), wait)
	if seen.Get("Event") != "message-summary" || seen.Get("Expires") != "60" {
		t.Errorf("SUBSCRIBE changed:\n%s", seen.Raw)
	}
	callee := w.callee().AnswerLeg(seen)
	callee.Respond(t, seen, 200, "OK", with("Expires", "60"))
	caller.Learn(caller.AwaitStatus(t, sub, 200))
	got, _ := callee.Transact(t, caller, "NOTIFY", 200, with("Event", "message-summary"), with("Subscription-State", "active;expires=60"), func(m *StubMessage) {
		m.WithBody("application/simple-message-summary", "Messages-Waiting: yes\r\n")
	})
	if got.Body != "Messages-Waiting: yes\r\n" {
		t.Errorf("body changed:\n%s", got.Raw)
	}
	caller.Transact(t, callee, "SUBSCRIBE", 200, with("Event", "message-summary"), with("Expires", "0"))
	callee.Transact(t, caller, "NOTIFY", 200, with("Event", "message-summary"), with("Subscription-State", "terminated;reason=timeout"))
	callee.AwaitStatus(t, callee.Request(t, "NOTIFY", with("Event", "message-summary"), with("Subscription-State", "active")), 481)
}
