package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// What the far end of a call says is judged on its way, not only when somebody asks.
func TestWhatStrangersSayWithinACall(t *testing.T) {
	w := newWalk(t, nil)
	k, peer := pair(t)
	w.s.conns[dialog.Inside] = k
	cseq := 0
	say := func(side dialog.Side, start string, lines ...string) (cause string) {
		t.Helper()
		method, _, _ := strings.Cut(start, " ")
		tags := [2]string{";tag=near", ";tag=far"}
		if method == "SIP/2.0" {
			method = strings.TrimPrefix(lines[0], "of ")
			lines = lines[1:]
		} else {
			cseq++
			if side == dialog.Outside {
				tags[0], tags[1] = tags[1], tags[0]
			}
		}
		if method == "SUBSCRIBE" && side == dialog.Inside {
			tags[1] = ""
		}
		text := fmt.Sprintf("%s\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK%d\r\nFrom: <sip:+14085550101@a.example>%s\r\nTo: <sip:+14085550199@b.example>%s\r\nCall-ID: c\r\nCSeq: %d %s\r\n%s\r\nContent-Length: 0\r\n\r\n",
			start, cseq, tags[0], tags[1], cseq, method, strings.Join(lines, "\r\n"))
		m, v := sipalg.Parse([]byte(text))
		if v == nil {
			v = sipalg.Check(m)
		}
		if v != nil {
			t.Fatal(v)
		}
		before := w.a.counters.Reasons("sip", "messages_refused")
		w.s.handle(m, side)
		for name, n := range w.a.counters.Reasons("sip", "messages_refused") {
			if n != before[name] {
				cause += name
			}
		}
		return cause
	}
	// came is the next message that the call agent gets.
	came := func() string {
		t.Helper()
		var b strings.Builder
		for one := make([]byte, 1); !strings.HasSuffix(b.String(), "\r\n\r\n"); b.Write(one) {
			if _, err := peer.Read(one); err != nil {
				t.Fatalf("%v after %q", err, b.String())
			}
		}
		return b.String()
	}
	const place, premium = "sip:+14085550101@192.168.10.30:5060", "<sip:+19005550100@b.example>"
	say(dialog.Inside, "SUBSCRIBE sip:+14085550199@b.example SIP/2.0", "Event: presence", "Contact: <"+place+">")
	say(dialog.Outside, "SIP/2.0 200 OK", "of SUBSCRIBE", "Expires: 60", "Contact: <sip:x@b.example>", "X-Cisco-UC-IME-Dial: +19005550100")
	if got := came(); !strings.Contains(got, "200 OK") || strings.Contains(got, "X-Cisco") {
		t.Errorf("the call agent got\n%s", got)
	}
	for _, x := range []struct{ start, header, cause string }{
		{"INFO sip:+19005550100@a.example SIP/2.0", "Subject: x", causeTarget},
		{"REFER " + place + " SIP/2.0", "Contact: <sip:x@b.example>\r\nRefer-To: " + premium, causeTransfer},
		{"INVITE " + place + " SIP/2.0", "Contact: <sip:x@b.example>\r\nReplaces: c;to-tag=1;from-tag=2", causeReplaces},
		{"REFER " + place + " SIP/2.0", "Contact: <sip:x@b.example>\r\nRefer-To: <sip:+14085550199@b.example>", ""},
	} {
		if got := say(dialog.Outside, x.start, x.header); got != x.cause {
			t.Errorf("%s with %s is refused for %q, want %q", x.start, x.header, got, x.cause)
		}
	}
	if got := came(); !strings.HasPrefix(got, "REFER ") {
		t.Errorf("the call agent got\n%s", got)
	}
	say(dialog.Inside, "REFER sip:x@b.example SIP/2.0", "Contact: <"+place+">", "Refer-To: <sip:+14085550102@a.example?Replaces=told%3Bto-tag%3D1%3Bfrom-tag%3D2>")
	if !w.a.lent.has("told", w.now, func(domain string) bool { return domain == "b.example" }) {
		t.Error("what the call agent tells of is not remembered")
	}
	say(dialog.Inside, "OPTIONS sip:x@b.example SIP/2.0", "Subject: x")
	say(dialog.Outside, "SIP/2.0 302 Moved", "of OPTIONS", "Contact: "+premium)
	if got := came(); !strings.Contains(got, "302 Moved") || strings.Contains(got, "+1900") {
		t.Errorf("the call agent got\n%s", got)
	}
}

// A CANCEL has no tag, and an ACK need not have one: both must name the one who was called all the same.
func TestCancelAndAckReachWhomTheInviteDid(t *testing.T) {
	s, c := transferSession(t)
	s.a.agenda = newAgenda(time.Now())
	for _, method := range []string{"CANCEL", "ACK"} {
		for uri, cause := range map[string]string{"sip:operator@a.example": causeTarget, "sip:+14085550100@a.example": "no_dialog"} {
			before := s.a.counters.Reasons("sip", "messages_refused")
			s.judge(c, sipMessage(t, method+" "+uri+" SIP/2.0", "Via: SIP/2.0/TLS h;branch=z9hG4bK1", "Call-ID: c", "CSeq: 1 "+method, "From: <sip:f@b.example>;tag=f", "To: <sip:t@a.example>"), dialog.Outside)
			if now := s.a.counters.Reasons("sip", "messages_refused"); now[cause] != before[cause]+1 {
				t.Errorf("%s %s is refused for %v, want %s", method, uri, now, cause)
			}
		}
	}
}
