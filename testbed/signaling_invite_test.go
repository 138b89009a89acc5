package testbed

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Calls are set up in every way that RFC 3261, 3262 and 3311 know.
func TestSignalingSetup(t *testing.T) {
	s := StartStubs(t)
	eachWay(t, s, "offer, early media, bye by caller", setupWithEarlyMedia)
	eachWay(t, s, "bye by callee", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		callee.Transact(t, caller, "BYE", 200)
		gone(t, caller)
	})
	eachWay(t, s, "crossing byes", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		one, two := caller.Request(t, "BYE"), callee.Request(t, "BYE")
		callee.Respond(t, callee.Expect(t, "BYE"), 200, "OK")
		caller.Respond(t, caller.Expect(t, "BYE"), 200, "OK")
		caller.AwaitStatus(t, one, 200)
		callee.AwaitStatus(t, two, 200)
	})
	eachWay(t, s, "late offer", setupLateOffer)
	eachWay(t, s, "late offer in a reliable 183", setupLateOfferReliable)
	eachWay(t, s, "prack without and with offer", setupPrack)
	eachWay(t, s, "update", setupUpdate)
	eachWay(t, s, "200 without description after an answer in 183", func(t *testing.T, w way) {
		caller, callee, inv, seen := w.ring(t)
		callee.Respond(t, seen, 183, "Session Progress", w.answer(20000), reliable(7))
		caller.Learn(caller.AwaitStatus(t, inv, 183))
		caller.Transact(t, callee, "PRACK", 200, rack(7, inv))
		callee.Respond(t, seen, 200, "OK")
		if ok := caller.AwaitStatus(t, inv, 200); ok.Body != "" {
			t.Errorf("a description came from nowhere:\n%s", ok.Body)
		}
		caller.Ack(t)
		callee.Expect(t, "ACK")
		caller.Transact(t, callee, "BYE", 200)
	})
	eachWay(t, s, "session timer", setupSessionTimer)
	eachWay(t, s, "repeated invite with credentials", setupCredentials)
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

func setupWithEarlyMedia(t *testing.T, w way) {
	caller, callee, inv, seen := w.ring(t)
	callee.Respond(t, seen, 100, "Trying")
	caller.AwaitStatus(t, inv, 100)
	callee.Respond(t, seen, 180, "Ringing")
	if m := caller.AwaitStatus(t, inv, 180); m.Body != "" || tagOf(m.Get("To")) != callee.LocalTag {
		t.Errorf("180 changed:\n%s", m.Raw)
	}
	callee.Respond(t, seen, 183, "Session Progress", w.answer(20000))
	early := w.checkSDP(t, caller.AwaitStatus(t, inv, 183), true)
	callee.Respond(t, seen, 200, "OK", w.answer(20000))
	ok := caller.AwaitStatus(t, inv, 200)
	if final := w.checkSDP(t, ok, true); !slices.Equal(early, final) {
		t.Errorf("ports changed from %v in 183 to %v in 200", early, final)
	}
	caller.Learn(ok)
	caller.Ack(t)
	if ack := callee.Expect(t, "ACK"); ack.Body != "" {
		t.Errorf("ACK has a body:\n%s", ack.Raw)
	}
	// The 2xx once more, as when the ACK was lost: it passes, and so does its ACK.
	callee.Respond(t, seen, 200, "OK", w.answer(20000))
	w.checkSDP(t, caller.AwaitStatus(t, inv, 200), true)
	caller.Ack(t)
	callee.Expect(t, "ACK")
	caller.Transact(t, callee, "BYE", 200)
	gone(t, callee)
}

func setupLateOffer(t *testing.T, w way) {
	caller := w.caller(t)
	inv := caller.Request(t, "INVITE", w.open)
	seen := w.callee().Expect(t, InCall(caller.CallID, ReqIs("INVITE")), wait)
	if seen.Body != "" {
		t.Errorf("a body came from nowhere:\n%s", seen.Raw)
	}
	callee := w.callee().AnswerLeg(seen)
	callee.Respond(t, seen, 180, "Ringing")
	caller.AwaitStatus(t, inv, 180)
	callee.Respond(t, seen, 200, "OK", w.answer(20000))
	ok := caller.AwaitStatus(t, inv, 200)
	w.checkSDP(t, ok, true)
	caller.Learn(ok)
	caller.Ack(t, w.offer(4000))
	w.checkSDP(t, callee.Expect(t, "ACK"), false)
	callee.Transact(t, caller, "BYE", 200)
}

func setupLateOfferReliable(t *testing.T, w way) {
	caller := w.caller(t)
	inv := caller.Request(t, "INVITE", w.open, with("Supported", "100rel"))
	seen := w.callee().Expect(t, InCall(caller.CallID, ReqIs("INVITE")), wait)
	callee := w.callee().AnswerLeg(seen)
	callee.Respond(t, seen, 183, "Session Progress", w.answer(20000), reliable(1))
	prog := caller.AwaitStatus(t, inv, 183)
	w.checkSDP(t, prog, true)
	caller.Learn(prog)
	got, _ := caller.Transact(t, callee, "PRACK", 200, rack(1, inv), w.offer(4000))
	w.checkSDP(t, got, false)
	callee.Respond(t, seen, 200, "OK")
	caller.AwaitStatus(t, inv, 200)
	caller.Ack(t)
	if ack := callee.Expect(t, "ACK"); ack.Body != "" {
		t.Errorf("a body came from nowhere:\n%s", ack.Raw)
	}
	caller.Transact(t, callee, "BYE", 200)
}

func setupPrack(t *testing.T, w way) {
	caller, callee, inv, seen := w.ring(t, with("Supported", "100rel"))
	callee.Respond(t, seen, 180, "Ringing", reliable(1))
	prog := caller.AwaitStatus(t, inv, 180)
	if prog.Get("RSeq") != "1" || prog.Get("Require") != "100rel" {
		t.Errorf("RSeq or Require lost:\n%s", prog.Raw)
	}
	caller.Learn(prog)
	got, _ := caller.Transact(t, callee, "PRACK", 200, rack(1, inv))
	if want := rackOf(inv, 1); got.Get("RAck") != want {
		t.Errorf("RAck %q, want %q", got.Get("RAck"), want)
	}
	callee.Respond(t, seen, 183, "Session Progress", reliable(2), w.answer(20000))
	w.checkSDP(t, caller.AwaitStatus(t, inv, 183), true)
	// The PRACK may carry a new offer (RFC 3262 section 5).
	prack := caller.Request(t, "PRACK", rack(2, inv), w.offer(4002))
	got = callee.Expect(t, "PRACK")
	w.checkSDP(t, got, false)
	callee.Respond(t, got, 200, "OK", w.answer(20002))
	w.checkSDP(t, caller.AwaitStatus(t, prack, 200), true)
	// One that acknowledges nothing is refused.
	caller.AwaitStatus(t, caller.Request(t, "PRACK", rack(9, inv)), 481)
	callee.Respond(t, seen, 200, "OK")
	caller.AwaitStatus(t, inv, 200)
	caller.Ack(t)
	callee.Expect(t, "ACK")
	caller.Transact(t, callee, "BYE", 200)
}

func rackOf(inv *StubMessage, rseq int) string {
	m := &StubMessage{}
	rack(rseq, inv)(m)
	return m.Get("RAck")
}

func setupUpdate(t *testing.T, w way) {
	caller, callee, inv, seen := w.ring(t)
	callee.Respond(t, seen, 183, "Session Progress", w.answer(20000), reliable(1))
	caller.Learn(caller.AwaitStatus(t, inv, 183))
	caller.Transact(t, callee, "PRACK", 200, rack(1, inv))
	// From each end while it rings, with an offer.
	update := func(from, to *Leg, offer, answer string, atCaller bool) {
		up := from.Request(t, "UPDATE", sdp(offer))
		got := to.Expect(t, "UPDATE")
		w.checkSDP(t, got, atCaller)
		to.Respond(t, got, 200, "OK", sdp(answer))
		w.checkSDP(t, from.AwaitStatus(t, up, 200), !atCaller)
	}
	update(caller, callee, w.desc(true, 4004), w.desc(false, 20004), false)
	update(callee, caller, w.desc(false, 20006), w.desc(true, 4006), true)
	w.pick(t, caller, callee, inv, seen)
	// Without a description, as a session refresh.
	got, _ := callee.Transact(t, caller, "UPDATE", 200, with("Session-Expires", "1800;refresher=uac"))
	if got.Body != "" || got.Get("Session-Expires") != "1800;refresher=uac" {
		t.Errorf("UPDATE changed:\n%s", got.Raw)
	}
	caller.Transact(t, callee, "UPDATE", 491)
	update(caller, callee, w.desc(true, 4008, "a=sendonly"), w.desc(false, 20008, "a=recvonly"), false)
	caller.Transact(t, callee, "BYE", 200)
	caller.AwaitStatus(t, caller.Request(t, "UPDATE"), 481)
}

func setupSessionTimer(t *testing.T, w way) {
	caller, callee, inv, seen := w.ring(t, with("Session-Expires", "1800;refresher=uac"), with("Min-SE", "90"), with("Supported", "timer"))
	for name, want := range map[string]string{"Session-Expires": "1800;refresher=uac", "Min-SE": "90", "Supported": "timer"} {
		if seen.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, seen.Get(name), want)
		}
	}
	callee.Respond(t, seen, 422, "Session Interval Too Small", with("Min-SE", "3600"))
	if m := caller.AwaitStatus(t, inv, 422); m.Get("Min-SE") != "3600" {
		t.Errorf("Min-SE lost:\n%s", m.Raw)
	}
	caller.AckFailure(t, inv, caller.Stub.lastResponse(inv))
	callee.Expect(t, "ACK")
	inv = caller.Request(t, "INVITE", w.open, w.offer(4000), with("Session-Expires", "3600;refresher=uas"))
	seen = callee.Expect(t, "INVITE")
	callee = w.callee().AnswerLeg(seen)
	callee.Respond(t, seen, 200, "OK", w.answer(20000), with("Session-Expires", "3600;refresher=uas"), with("Require", "timer"))
	ok := caller.AwaitStatus(t, inv, 200)
	if ok.Get("Session-Expires") != "3600;refresher=uas" || ok.Get("Require") != "timer" {
		t.Errorf("session timer lost:\n%s", ok.Raw)
	}
	caller.Learn(ok)
	caller.Ack(t)
	callee.Expect(t, "ACK")
	callee.Transact(t, caller, "BYE", 200)
}

// lastResponse is the last final one that a request got.
func (s *Stub) lastResponse(req *StubMessage) *StubMessage {
	all := s.All()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Status() >= 200 && all[i].Branch() == req.Branch() {
			return all[i]
		}
	}
	return nil
}

func setupCredentials(t *testing.T, w way) {
	for _, status := range []int{401, 407} {
		caller, callee, inv, seen := w.ring(t)
		header, answer := "WWW-Authenticate", "Authorization"
		if status == 407 {
			header, answer = "Proxy-Authenticate", "Proxy-Authorization"
		}
		const challenge = `Digest realm="example", nonce="84a4cc6f3082121f32b42a2187831a9e", algorithm=MD5, qop="auth"`
		callee.Respond(t, seen, status, "Unauthorized", with(header, challenge))
		resp := caller.AwaitStatus(t, inv, status)
		if resp.Get(header) != challenge {
			t.Errorf("challenge changed: %q", resp.Get(header))
		}
		caller.AckFailure(t, inv, resp)
		if ack := callee.Expect(t, "ACK"); ack.Branch() != seen.Branch() {
			t.Errorf("the ACK's branch is %q, the INVITE's was %q", ack.Branch(), seen.Branch())
		}
		// New number, same Call-ID and From tag (RFC 3261 22.2).
		creds := fmt.Sprintf(`Digest username="alice", realm="example", nonce="84a4cc6f3082121f32b42a2187831a9e", uri="%s", response="6629fae49393a05397450978507c4ef1"`, caller.Target)
		inv = caller.Request(t, "INVITE", w.open, w.offer(4000), with(answer, creds))
		seen = callee.Expect(t, "INVITE")
		if got := seen.Get(answer); !strings.Contains(got, `response="6629fae49393a05397450978507c4ef1"`) {
			t.Errorf("credentials lost: %q", got)
		}
		callee = w.callee().AnswerLeg(seen)
		w.pick(t, caller, callee, inv, seen)
		caller.Transact(t, callee, "BYE", 200)
	}
}

// Calls that come to nothing end at both ends.
func TestSignalingFailure(t *testing.T) {
	s := StartStubs(t)
	for _, status := range []int{300, 302, 400, 403, 404, 408, 415, 480, 481, 486, 487, 488, 500, 503, 600, 603, 606} {
		eachWay(t, s, fmt.Sprint(status), func(t *testing.T, w way) {
			caller, callee, inv, seen := w.ring(t)
			callee.Respond(t, seen, 180, "Ringing")
			caller.AwaitStatus(t, inv, 180)
			callee.Respond(t, seen, status, "No Luck", with("Retry-After", "17"))
			resp := caller.AwaitStatus(t, inv, status)
			if resp.Start != fmt.Sprintf("SIP/2.0 %d No Luck", status) || resp.Get("Retry-After") != "17" {
				t.Errorf("response changed:\n%s", resp.Raw)
			}
			caller.AckFailure(t, inv, resp)
			if ack := callee.Expect(t, "ACK"); ack.Branch() != seen.Branch() || ack.URI() != seen.URI() {
				t.Errorf("ACK %s does not fit its INVITE %s", ack.Raw, seen.Raw)
			}
			caller.Learn(resp)
			gone(t, caller)
		})
	}
	eachWay(t, s, "cancel", func(t *testing.T, w way) {
		caller, callee, inv, seen := w.ring(t)
		callee.Respond(t, seen, 180, "Ringing")
		caller.AwaitStatus(t, inv, 180)
		cancel := caller.Cancel(t, inv)
		got := callee.Expect(t, "CANCEL")
		if got.URI() != seen.URI() || got.Get("Via") != seen.Get("Via") || got.Get("From") != seen.Get("From") || got.Get("To") != seen.Get("To") {
			t.Errorf("the CANCEL does not fit its INVITE:\n%s\n%s", got.Raw, seen.Raw)
		}
		callee.Respond(t, got, 200, "OK")
		caller.AwaitStatus(t, cancel, 200)
		callee.Respond(t, seen, 487, "Request Terminated")
		resp := caller.AwaitStatus(t, inv, 487)
		caller.AckFailure(t, inv, resp)
		callee.Expect(t, "ACK")
	})
	eachWay(t, s, "cancel races 200", func(t *testing.T, w way) {
		caller, callee, inv, seen := w.ring(t)
		callee.Respond(t, seen, 180, "Ringing")
		caller.AwaitStatus(t, inv, 180)
		callee.Respond(t, seen, 200, "OK", w.answer(20000))
		cancel := caller.Cancel(t, inv)
		ok := caller.AwaitStatus(t, inv, 200)
		caller.Learn(ok)
		// Whoever is first, the CANCEL gets an answer: from the callee or, when it came too late, from the proxy.
		if got := callee.Stub.maybe(InCall(callee.CallID, ReqIs("CANCEL")), 300*time.Millisecond); got != nil {
			callee.Respond(t, got, 481, "Call/Transaction Does Not Exist")
		}
		caller.Final(t, cancel)
		caller.Ack(t)
		callee.Expect(t, "ACK")
		caller.Transact(t, callee, "BYE", 200)
	})
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

// maybe is Expect for what may also not come.
func (s *Stub) maybe(match Match, limit time.Duration) *StubMessage {
	var m *StubMessage
	eventually(limit, func() bool { m = s.take1(match); return m != nil })
	return m
}

// A call that forks has several early dialogs, each with its own answer.
func TestSignalingForking(t *testing.T) {
	s := StartStubs(t)
	eachWay(t, s, "two early, one 200", func(t *testing.T, w way) {
		caller, first, inv, seen := w.ring(t)
		second := w.callee().AnswerLeg(seen)
		first.Respond(t, seen, 183, "Session Progress", w.answer(20000))
		one := caller.Fork(caller.AwaitStatus(t, inv, 183))
		second.Respond(t, seen, 183, "Session Progress", w.answer(20010))
		two := caller.Fork(caller.AwaitStatus(t, inv, 183))
		if one.RemoteTag != first.LocalTag || two.RemoteTag != second.LocalTag {
			t.Fatalf("tags %s, %s instead of %s, %s", one.RemoteTag, two.RemoteTag, first.LocalTag, second.LocalTag)
		}
		second.Respond(t, seen, 200, "OK", w.answer(20010))
		two.Learn(two.AwaitStatus(t, inv, 200))
		two.Ack(t)
		second.Expect(t, "ACK")
		two.Transact(t, second, "BYE", 200)
	})
	eachWay(t, s, "two 200", func(t *testing.T, w way) {
		caller, first, inv, seen := w.ring(t)
		second := w.callee().AnswerLeg(seen)
		first.Respond(t, seen, 200, "OK", w.answer(20000))
		one := caller.Fork(caller.AwaitStatus(t, inv, 200))
		second.Respond(t, seen, 200, "OK", w.answer(20010))
		two := caller.Fork(caller.AwaitStatus(t, inv, 200))
		if one.RemoteTag == two.RemoteTag {
			t.Fatal("the second 200 did not come")
		}
		one.Ack(t)
		two.Ack(t)
		first.Expect(t, "ACK")
		second.Expect(t, "ACK")
		// The caller ends the one it does not want; the other goes on.
		bye := two.Request(t, "BYE")
		got := second.Expect(t, "BYE")
		if tagOf(got.Get("To")) != second.LocalTag {
			t.Errorf("BYE for %s", got.Get("To"))
		}
		second.Respond(t, got, 200, "OK")
		two.AwaitStatus(t, bye, 200)
		if s.Streams(t) == 0 {
			t.Error("the media of the other dialog is gone")
		}
		first.Transact(t, one, "BYE", 200)
	})
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}
