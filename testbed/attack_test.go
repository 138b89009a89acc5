package testbed

import (
	"fmt"
	"strings"
	"testing"
)

// What somebody with a good certificate, and perhaps a ticket for one number, tries, and what goes wrong with call agents that are not like
// most. One lab for all of it.
func TestAttacks(t *testing.T) {
	s := StartStubs(t)
	for _, x := range []struct {
		name string
		test func(*testing.T, *StubLab)
	}{
		{"token in the Request-URI", attackToken},
		{"another number in a Route", attackRoute},
		{"other readers' session descriptions", attackDescriptions},
		{"host elsewhere", attackMaddr},
		{"target elsewhere", attackTarget},
		{"forged notification", attackNotification},
		{"transfer elsewhere", attackTransfer},
		{"redirection elsewhere", attackRedirection},
		{"another's call taken over", attackReplaces},
		{"identities of the inside", attackIdentity},
		{"NOTIFY that nobody asked for", attackNotify},
		{"BYE asked for credentials", byeWithCredentials},
		{"second fork unusable", unusableFork},
		{"late offer after a preview", offerAfterPreview},
		{"offers that cross", offersThatCross},
		{"large messages in small pieces", largeInPieces},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, s) })
		s.hangUpAll(t)
	}
}

// The ticket is for the number that the call agent is asked for: a token that was shown in an earlier call must not bring another one back
// behind the check.
func attackToken(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	defer c.Close()
	bait := s.Inbound(c)
	bait.Local = fmt.Sprintf("<sip:+19005550100:%s@%s;transport=udp>", s.A.Mapped, s.A.Mapped)
	inv := bait.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	seen := s.Agent.Expect(t, InCall(bait.CallID, ReqIs("INVITE")), wait)
	s.Agent.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
	busy := bait.AwaitStatus(t, inv, 486)
	s.Far.Faults() // such a From does not come back as it was
	_, token, ok := strings.Cut(busy.Get("From"), "x-ime=")
	if !ok {
		return
	}
	token, _, _ = strings.Cut(token, ">")
	before := s.counters(t)
	l := s.Inbound(c)
	l.Target = fmt.Sprintf("sip:%s@%s:%d;transport=tls;x-ime=%s", s.A.Number, s.A.Mapped, TrunkPort, token)
	l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000))), 403)
	s.grew(t, before, "ticket_did_mismatch")
	s.syncInside(t, c)
	nothingCame(t, s.Agent)
}

func attackRoute(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	defer c.Close()
	before := s.counters(t)
	l := s.Inbound(c)
	l.Routes = []string{fmt.Sprintf("<sip:%s:%d;lr>", s.A.Mapped, TrunkPort), "<sip:+19005550100@" + s.A.Domain + ">"}
	l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000))), 403)
	s.grew(t, before, "ticket_did_mismatch")
	s.syncInside(t, c)
	nothingCame(t, s.Agent)
	before = s.counters(t)
	l = s.Inbound(c)
	l.Routes = []string{fmt.Sprintf("<sip:%s:%d;lr>", s.A.Mapped, TrunkPort), "<sip:" + s.B.Domain + ";lr>"}
	l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000))), 404)
	s.grew(t, before, "tickets_verified", "target_elsewhere")
	s.syncInside(t, c)
	nothingCame(t, s.Agent)
	l = s.Inbound(c)
	l.Routes = []string{fmt.Sprintf("<sip:%s:%d;lr>", s.A.Mapped, TrunkPort)}
	l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	seen := s.Agent.Expect(t, InCall(l.CallID, ReqIs("INVITE")), wait)
	s.Agent.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
}

// Descriptions that a lenient reader finds or understands where a strict one would not.
func attackDescriptions(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	defer c.Close()
	offer := secureOffer(s.B.MediaOut.String(), 20000)
	for _, kind := range []string{"application / sdp", "Application/\r\n SDP"} {
		l := s.Inbound(c)
		l.Request(t, "INVITE", s.WithTicket, func(m *StubMessage) { m.WithBody(kind, offer) })
		seen := s.Agent.Expect(t, InCall(l.CallID, ReqIs("INVITE")), wait)
		if strings.Contains(seen.Body, s.B.MediaOut.String()) || strings.Contains(seen.Body, "a=crypto") || !strings.Contains(seen.Body, s.A.MediaIn.String()) {
			t.Errorf("a description of type %q passes as it is:\n%s", kind, seen.Body)
		}
		s.Agent.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
	}
	double := strings.ReplaceAll(offer, "c=IN IP4 ", "c=IN IP4 "+s.A.PhoneIP.String()+" IN IP4 ")
	parts := "--b\r\nContent-Type: application/sdp, x\r\n\r\n" + offer + "\r\n--b--\r\n"
	for _, x := range []struct{ kind, body string }{{"application/sdp", double}, {"multipart/mixed;boundary=b", parts}} {
		l := s.Inbound(c)
		l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, func(m *StubMessage) { m.WithBody(x.kind, x.body) }), 488)
	}
	s.syncInside(t, c)
	for _, m := range s.Agent.Drain() {
		if m.Method() == "INVITE" {
			t.Errorf("the call agent got\n%s", m.Raw)
		}
	}
}

func attackMaddr(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	defer c.Close()
	for _, place := range []string{s.A.Domain + ";maddr=" + s.A.PhoneIP.String(), s.A.Domain + ";MADDR=127.0.0.1", s.A.Domain + ";maddr=" + s.B.MediaOut.String(), s.B.Domain, s.B.Mapped.String()} {
		l := s.Inbound(c)
		l.Target = fmt.Sprintf("sip:%s@%s", s.A.Number, place)
		l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000))), 404)
	}
	l := s.Inbound(c) // it would be kept as long as the call stands
	l.Target = fmt.Sprintf("sip:%s@%s;x=%s", s.A.Number, s.A.Domain, strings.Repeat("x", 2<<10))
	l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000))), 414)
	s.syncInside(t, c)
	nothingCame(t, s.Agent)
}

// Within a call the other side reaches whom it talks to, wherever that moves, and nobody else.
func attackTarget(t *testing.T, s *StubLab) {
	far, agent := s.CallIn(t)
	before := s.counters(t)
	right := far.Target
	for _, target := range []string{"sip:+19005550100@" + s.A.Domain, "sip:operator@" + s.A.Mapped.String(), "sip:" + s.A.Number + "@" + s.B.Domain} {
		far.Target = target
		for _, method := range []string{"INFO", "INVITE", "REFER", "BYE"} {
			far.AwaitStatus(t, far.Request(t, method, func(m *StubMessage) { m.Add("Refer-To", "<sip:x@y>") }), 404)
		}
	}
	if grown := s.counters(t).since(before); len(grown) != 1 || grown["target_elsewhere"] != 12 {
		t.Errorf("counters grew by %v, want target_elsewhere by 12", grown)
	}
	far.Target = right
	far.Transact(t, agent, "INFO", 200)
	agent.Contact = fmt.Sprintf("<sip:moved@%s;transport=tcp>", s.A.PhoneIP)
	seen, _ := agent.Transact(t, far, "UPDATE", 200)
	far.Target, _, _ = strings.Cut(strings.TrimPrefix(seen.Get("Contact"), "<"), ">")
	if far.Target == right {
		t.Fatal("the target is not refreshed")
	}
	got, _ := far.Transact(t, agent, "INFO", 200)
	if want := fmt.Sprintf("INFO sip:moved@%s;transport=tcp SIP/2.0", s.A.PhoneIP); !strings.HasPrefix(got.Raw, want) {
		t.Errorf("the call agent got\n%s\nwant %s", got.Raw, want)
	}
	far.Target = right // one that was on its way
	far.Transact(t, agent, "BYE", 200)
}

// Only the proxy tells its call agent to dial over the PSTN.
func attackNotification(t *testing.T, s *StubLab) {
	far, agent := s.CallIn(t)
	before := s.counters(t)
	order := func(m *StubMessage) { m.Add("Refer-To", "<URN:uc-ime:pstn-fallback>") }
	far.AwaitStatus(t, far.Request(t, "REFER", order), 403)
	s.grew(t, before, "fallback_ordered")
	outside := s.Inbound(far.Conn)
	outside.AwaitStatus(t, outside.Request(t, "REFER", s.WithTicket, order), 403)
	// What goes with it is removed from other messages.
	seen, _ := far.Transact(t, agent, "INFO", 200, func(m *StubMessage) { m.Add("X-Cisco-UC-IME-Quality", "level=5;loss=100.00") })
	if v := seen.Get("X-Cisco-UC-IME-Quality"); v != "" {
		t.Errorf("the call agent got a stranger's X-Cisco-UC-IME-Quality: %s", v)
	}
	far.Transact(t, agent, "BYE", 200)

	// The side that the call agent called may wish for it, within this call.
	agent, far = s.CallOut(t)
	far.Transact(t, agent, "REFER", 202, order)
	far.AwaitStatus(t, far.Request(t, "REFER", order, func(m *StubMessage) { m.Add("Target-Dialog", "other;local-tag=1;remote-tag=2") }), 403)
	far.AwaitStatus(t, far.Request(t, "INFO", order), 403)
	agent.Transact(t, far, "BYE", 200)
}

// A ticket for one number, or a call that is answered, has the call agent dial no other; the operator may open what he wants to pay for.
func attackTransfer(t *testing.T, s *StubLab) {
	const premium = "+19005550100"
	to := func(uri string) func(*StubMessage) { return func(m *StubMessage) { m.Add("Refer-To", uri) } }
	far, agent := s.CallIn(t)
	before := s.counters(t)
	for _, uri := range []string{
		"<sip:" + premium + "@" + s.B.Domain + ">", "<sip:" + premium + "@" + s.A.Domain + ">", "tel:" + premium,
		"<sip:" + s.A.Number + "@" + s.A.Domain + "?Route=%3Csip:" + s.B.Domain + "%3Blr%3E>", "<sip:" + s.A.Number + "@" + s.A.Domain + "?Replaces=x%3Bto-tag%3D1%3Bfrom-tag%3D2>",
	} {
		far.AwaitStatus(t, far.Request(t, "REFER", to(uri)), 403)
	}
	if grown := s.counters(t).since(before); len(grown) != 1 || grown["transfer_elsewhere"] != 5 {
		t.Errorf("counters grew by %v, want transfer_elsewhere by 5", grown)
	}
	s.syncInside(t, far.Conn)
	nothingCame(t, s.Agent)
	far.Transact(t, agent, "REFER", 202, to("<sip:"+s.A.Number+"@"+s.A.Domain+">"), with("Refer-Sub", "false"))

	// Attended: the far end talks with somebody else of the inside too.
	agent2, far2 := s.CallOut(t)
	attended := fmt.Sprintf("<sip:%s@%s?Replaces=%s%%3Bto-tag%%3D%s%%3Bfrom-tag%%3D%s>", s.A.Number, s.A.Domain, strings.ReplaceAll(agent2.CallID, "@", "%40"), agent2.LocalTag, far2.LocalTag)
	far.Transact(t, agent, "REFER", 202, to(attended), with("Refer-Sub", "false"))
	agent2.Transact(t, far2, "BYE", 200)
	far.AwaitStatus(t, far.Request(t, "REFER", to("<sip:+14155550123@"+s.B.Domain+">")), 403)

	s.mustReload(t, s.edit(t, trunkLine, trunkLine+"\n transfer permit +1415555"))
	far.Transact(t, agent, "REFER", 202, to("<sip:+14155550123@"+s.B.Domain+">"), with("Refer-Sub", "false"))
	far.AwaitStatus(t, far.Request(t, "REFER", to("<sip:"+premium+"@"+s.B.Domain+">")), 403)
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	far.Transact(t, agent, "BYE", 200)
}

// The one that was called sends the caller to a premium number: the answer passes without it.
func attackRedirection(t *testing.T, s *StubLab) {
	agent := s.Outbound(s.AgentDial(t))
	inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	s.Far.AnswerLeg(seen).Respond(t, seen, 302, "Moved Temporarily", func(m *StubMessage) {
		m.Set("Contact", fmt.Sprintf("<sip:+19005550100@%s>, <sip:%s@other.%s>;q=0.5", s.B.Domain, s.B.Number, s.B.Domain)).Add("Error-Info", "<sip:+19005550100@"+s.B.Domain+">")
	})
	got := agent.AwaitStatus(t, inv, 302)
	if v := got.Get("Contact"); v != fmt.Sprintf("<sip:%s@other.%s>;q=0.5", s.B.Number, s.B.Domain) || strings.Contains(got.Raw, "+1900") {
		t.Errorf("the call agent got\n%s", got.Raw)
	}
}

// An INVITE takes over a call of its own enterprise, by its tags; what the appliance does not know the call agent judges.
func attackReplaces(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	defer c.Close()
	call := func(replaces string) (*Leg, *StubMessage) {
		l := s.Inbound(c)
		return l, l.Request(t, "INVITE", s.WithTicket, with("Replaces", replaces), sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	}
	agent, far := s.CallOut(t)
	before := s.counters(t)
	l, inv := call(agent.CallID + ";to-tag=guessed;from-tag=guessed")
	l.AwaitStatus(t, inv, 481)
	s.grew(t, before, "tickets_verified", "replaces_unknown", "unknown_dialog")
	s.syncInside(t, c)
	nothingCame(t, s.Agent)

	standing := fmt.Sprintf("%s;to-tag=%s;from-tag=%s", agent.CallID, agent.LocalTag, far.LocalTag)
	for _, replaces := range []string{"of-the-inside;to-tag=1;from-tag=2", standing} {
		l, inv = call(replaces)
		seen := s.Agent.Expect(t, InCall(l.CallID, ReqIs("INVITE")), wait)
		if got := seen.Get("Replaces"); got != replaces {
			t.Errorf("Replaces became %q, want %q", got, replaces)
		}
		s.Agent.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
		l.AwaitStatus(t, inv, 486)
	}
	agent.Transact(t, far, "BYE", 200)
}

func attackIdentity(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	defer c.Close()
	l := s.Inbound(c)
	inv := l.Request(t, "INVITE", s.WithTicket, with("P-Asserted-Identity", "<sip:boss@"+s.A.Domain+">, <sip:"+s.B.Number+"@"+s.B.Domain+">"), with("Diversion", "<sip:boss@"+s.A.Mapped.String()+">"),
		with("P-Charge-Info", "<sip:boss@"+s.A.Domain+">"), with("X-Cisco-UC-IME-Unknown", "dial +19005550100"), sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	seen := s.Agent.Expect(t, InCall(l.CallID, ReqIs("INVITE")), wait)
	if got := seen.Get("P-Asserted-Identity"); got != "<sip:"+s.B.Number+"@"+s.B.Domain+">" || strings.Contains(seen.Raw, "boss") || strings.Contains(seen.Raw, "+1900") {
		t.Errorf("the call agent got\n%s", seen.Raw)
	}
	s.Agent.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
	l.AwaitStatus(t, inv, 486)
}

// A phone may restart for a NOTIFY: one passes within what its receiver has subscribed to.
func attackNotify(t *testing.T, s *StubLab) {
	far, agent := s.CallIn(t)
	far.Transact(t, agent, "SUBSCRIBE", 200, with("Event", "check-sync"), with("Expires", "60"))
	agent.Transact(t, far, "SUBSCRIBE", 200, with("Event", "dialog"), with("Expires", "60"))
	state := with("Subscription-State", "active")
	far.AwaitStatus(t, far.Request(t, "NOTIFY", with("Event", "check-sync;reboot=true"), state), 481)
	far.Transact(t, agent, "NOTIFY", 200, with("Event", "dialog"), state)
	far.Transact(t, agent, "BYE", 200)
}

// A BYE that is answered 407 comes again with credentials, and must arrive.
func byeWithCredentials(t *testing.T, s *StubLab) {
	agent, far := s.CallOut(t)
	agent.Transact(t, far, "BYE", 407)
	agent.Transact(t, far, "BYE", 200, func(m *StubMessage) { m.Add("Proxy-Authorization", `Digest username="a", realm="b"`) })
	gone(t, agent)
}

// Two phones answer one call, the second with a description that cannot be used: it alone is ended.
func unusableFork(t *testing.T, s *StubLab) {
	agent := s.Outbound(s.AgentDial(t))
	inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	one, two := s.Far.AnswerLeg(seen), s.Far.AnswerLeg(seen)
	one.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	agent.Learn(agent.AwaitStatus(t, inv, 200))
	two.Respond(t, seen, 200, "OK", sdp(plainOffer(s.B.MediaOut.String(), 20002)))
	ofTwo := func(method string) Match {
		return InCall(agent.CallID, func(m *StubMessage) bool { return m.Method() == method && tagOf(m.Get("To")) == two.LocalTag })
	}
	s.Far.Expect(t, ofTwo("ACK"), wait)
	bye := s.Far.Expect(t, ofTwo("BYE"), wait)
	two.Respond(t, bye, 200, "OK")
	agent.Ack(t)
	s.Far.Expect(t, InCall(agent.CallID, func(m *StubMessage) bool { return m.Method() == "ACK" && tagOf(m.Get("To")) == one.LocalTag }), wait)
	one.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20000))) // as if the ACK had been late
	agent.Await(t, inv, func(m *StubMessage) bool { return m.Status() == 200 })
	agent.Transact(t, one, "BYE", 200)
}

// An INVITE without offer: what a 183 shows is a preview, the offer is that of the 200.
func offerAfterPreview(t *testing.T, s *StubLab) {
	agent := s.Outbound(s.AgentDial(t))
	inv := agent.Request(t, "INVITE")
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	preview, far := s.Far.AnswerLeg(seen), s.Far.AnswerLeg(seen)
	preview.Respond(t, seen, 183, "Session Progress", sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	agent.AwaitStatus(t, inv, 183)
	far.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20002, goodCrypto, "a=ptime:30")))
	ok := agent.AwaitStatus(t, inv, 200)
	if !strings.Contains(ok.Body, "a=ptime:30") {
		t.Errorf("the offer of the 200 is not that of its sender:\n%s", ok.Body)
	}
	agent.Learn(ok)
	agent.Ack(t, sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	far.Expect(t, "ACK")
	text, err := s.Proxy.Shell("show uc-ime media-sessions detail")
	if want := s.B.MediaOut.String() + "/20002"; err != nil || !strings.Contains(text, want) {
		t.Errorf("media does not go to %s, where the answered fork wants it (%v):\n%s", want, err, text)
	}
	agent.Transact(t, far, "BYE", 200)
}

// A large INVITE that comes byte by byte and in odd pieces arrives as it was.
func largeInPieces(t *testing.T, s *StubLab) {
	agent := s.Outbound(s.AgentDial(t))
	m := agent.NewRequest("INVITE")
	for i := range 60 {
		m.Add("X-Large", fmt.Sprintf("%d %s", i, strings.Repeat("x", 600)))
	}
	m.WithSDP(plainOffer(s.A.PhoneIP.String(), 4000))
	s.Agent.remember(m)
	b := m.Bytes()
	for n := 1; len(b) > 0; n = n%1700 + 1 {
		n := min(n, len(b))
		agent.Conn.SendRaw(t, b[:n])
		b = b[n:]
	}
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	if got := len(seen.All("X-Large")); got != 60 {
		t.Errorf("%d of 60 headers arrive", got)
	}
	s.Far.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
	agent.AwaitStatus(t, m, 486)
}

// A re-INVITE and an UPDATE from the other end are under way, and both come to nothing: the call goes on, and so does the daemon.
func offersThatCross(t *testing.T, s *StubLab) {
	far, agent := s.CallIn(t)
	video := func(profile string, port int) string {
		return fmt.Sprintf("m=video %d %s 96\r\na=rtpmap:96 H264/90000\r\n%s\r\n", port, profile, map[bool]string{true: goodCrypto, false: "a=x"}[profile == "RTP/SAVP"])
	}
	re := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)+video("RTP/AVP", 4002)))
	seenRe := far.Expect(t, "INVITE")
	up := far.Request(t, "UPDATE", sdp(secureOffer(s.B.MediaOut.String(), 20000)+video("RTP/SAVP", 20002)+video("RTP/SAVP", 20004)))
	seenUp := agent.Expect(t, "UPDATE")
	far.Respond(t, seenRe, 491, "Request Pending")
	agent.AckFailure(t, re, agent.AwaitStatus(t, re, 491))
	agent.Respond(t, seenUp, 491, "Request Pending")
	far.AwaitStatus(t, up, 491)
	reoffer(t, agent, far, plainOffer(s.A.PhoneIP.String(), 4000), secureOffer(s.B.MediaOut.String(), 20000))
	far.Transact(t, agent, "BYE", 200)
	Until(t, wait, "no stream is left", func() bool { return s.Streams(t) == 0 })
}
