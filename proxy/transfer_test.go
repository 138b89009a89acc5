package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// transferSession is targetSession with a connection of b.example, whose call is answered: the tags are f of the caller and t of the inside.
func transferSession(t *testing.T) (*session, *call) {
	t.Helper()
	s, c := targetSession(t)
	s.a.calls, s.a.log = newCalls(), slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	if s.a.counters, err = newCounters(); err != nil {
		t.Fatal(err)
	}
	k, _ := pair(t)
	k.domains = []string{"b.example"}
	s.conns[dialog.Outside] = k
	c.domain, c.agent, c.logger = "b.example", s.agent, s.a.log
	c.name(sipMessage(t, "SIP/2.0 200 OK", "Contact: <sip:desk@192.168.10.30:5060>"))
	return s, c
}

// standingCall is another call, of an inside caller with the tag "near" to the number +14085550199 of an enterprise, answered with the tag "far".
func standingCall(t *testing.T, s *session, id, domain string) *call {
	t.Helper()
	from, to := "From: <sip:+14085550101@a.example>;tag=near", "To: <sip:+14085550199@b.example>"
	m := sipMessage(t, "INVITE sip:+14085550199@b.example SIP/2.0", "Via: SIP/2.0/TCP h;branch=z9hG4bK1", "Call-ID: "+id, "CSeq: 1 INVITE", from, to, "Contact: <sip:+14085550101@192.168.10.30>")
	c := &call{d: dialog.Open(m, dialog.Inside, time.Now()), agent: s.agent, domain: domain, logger: s.a.log}
	s.nameFirst(c, m, dialog.Inside)
	c.rec.To = "+14085550199"
	c.d.Request(m, dialog.Inside, time.Now())
	c.d.Response(sipMessage(t, "SIP/2.0 200 OK", "Via: SIP/2.0/TCP h;branch=z9hG4bK1", "Call-ID: "+id, "CSeq: 1 INVITE", from, to+";tag=far"), dialog.Outside, time.Now())
	if !s.a.calls.add(c) {
		t.Fatal("no room for a call")
	}
	return c
}

// refer asks whether a REFER from the Internet within a call may go on.
func refer(t *testing.T, s *session, c *call, to string) bool {
	t.Helper()
	return s.transferred(c, s.referral(sipMessage(t, "REFER sip:desk@192.168.10.30 SIP/2.0", "Refer-To: "+to))) == ""
}

// A ticket lets call one number: its holder is not to have the call agent dial any other.
func TestStrangersTransferToNobodyElse(t *testing.T) {
	s, c := transferSession(t)
	c.granted = []string{"+14085550100", "+14085550111"}
	standingCall(t, s, "other@h", "b.example")
	standingCall(t, s, "third@h", "c.example")
	const tags = "%3Bto-tag%3Dnear%3Bfrom-tag%3Dfar"
	for to, ok := range map[string]bool{
		"<sip:+14085550100@a.example>":               true, // whom the ticket lets call
		"<sip:+14085550100@a.example;method=INVITE>": true,
		"<sip:+14085550111@a.example>":               true, // of the same ticket
		"<sip:+14085550111@b.example>":               true,
		"<tel:+1-408-555-0111>":                      true,

		"\"x\" <sip:+1-408-555-0100@209.165.200.227:5070;transport=tls;user=phone>": true,

		"<sip:+14085550101@a.example?Replaces=inside%40h" + tags + "&Replaces=other%40h" + tags + ">": false,

		"<sip:+14085550100@edge.a.example>":                                                true,
		"<sip:+14085550100@b.example;maddr=209.165.200.227>":                               true,
		"<sip:+14085550100@a.example;maddr=pbx.b.example>":                                 true,
		"<sip:+14085550100@a.example;maddr=a.example;%4daddr=198.51.100.77>":               false,
		"<sip:+14085550100@nota.example>":                                                  false,
		"<sip:+14085550100@notb.example>":                                                  false,
		"<sip:desk@a.example>":                                                             true, // whom it talks with
		"<sip:+14085550101@a.example?Replaces=other%40h" + tags + ">":                      true, // attended: whom it talks with in another call
		"<sip:+14085550101@a.example?Replaces=other%40h" + tags + "&Require=replaces>":     true,
		"<sip:+14085550111@b.example?Replaces=theirs%40h" + tags + "&Referred-By=%3Cx%3E>": true, // a call of its own enterprise
		"<sip:+19005550100@a.example>":                                                     false,
		"<sip:+19005550100@b.example>":                                                     false, // call agents look at the number alone
		"<sip:19005550100@b.example>":                                                      false,
		"<sip:%2B19005550100@a.example>":                                                   false,
		"sip:+19005550100@a.example":                                                       false,
		"<tel:+19005550100>":                                                               false,
		"<sip:a.example>":                                                                  false,
		"<sip:+14085550100@c.example>":                                                     false,
		"<sip:+14085550100@a.example;maddr=198.51.100.77>":                                 false,
		"<sip:+14085550100@a.example;method=REGISTER>":                                     false,
		"<sip:+14085550100@a.example;%6dethod=BYE>":                                        false,
		"<sip:+14085550100@a.example;tgrp=premium>":                                        false,
		"<sip:+14085550100;rn=+19005550100@a.example>":                                     false,
		"<sip:+14085550100;postd=pp19005550100@a.example>":                                 false,
		"<tel:+14085550100;postd=pp19005550100>":                                           false,
		"<sip:+14085550100@a.example?Route=%3Csip:c.example%3Blr%3E>":                      false,
		"<sip:+14085550100@a.example?%52oute=%3Csip:c.example%3Blr%3E>":                    false,
		"<sip:+14085550100@a.example?P-Asserted-Identity=%3Csip:boss@a.example%3E>":        false,
		"<sip:+14085550100@a.example?body=x>":                                              false,
		"<sip:+14085550100@a.example?Require=x>":                                           false,
		"<sip:+14085559999@a.example>":                                                     true, // of the block of the one that is called
		"<sip:+14085560101@a.example>":                                                     false,
		"<sip:+14085559999;postd=pp19005550100@a.example>":                                 false,
		"<sip:+19005550100@a.example?Replaces=other%40h" + tags + ">":                      false,
		"<sip:+14085550101@a.example?Replaces=third%40h" + tags + ">":                      false, // of another enterprise
		"<sip:+14085550101@a.example?Replaces=other%40h%3Bto-tag%3Dx%3Bfrom-tag%3Dfar>":    false,
		"<sip:+14085550101@a.example?Replaces=other%40h%3Bto-tag%3Dnear>":                  false,
		"<sip:+14085550100@a.example?Replaces=inside%40h" + tags + ">":                     false, // a call of the inside
		"<sip:+14085550100@a.example?Replaces=inside%40h" + tags + "&r=x>":                 false,
		"<urn:service:sos>":                                                                false,
		"<http://a.example/>":                                                              false,
		"<cid:list@b.example>":                                                             false,
	} {
		if got := refer(t, s, c, to); got != ok {
			t.Errorf("REFER to %s may go on: %v, want %v", to, got, ok)
		}
	}
	if !s.transferredNowhere(t, c) {
		t.Error("another request is taken for a transfer")
	}
}

// transferredNowhere tells whether requests that have no Refer-To, or are no REFER, pass.
func (s *session) transferredNowhere(t *testing.T, c *call) bool {
	t.Helper()
	for _, m := range []*sipalg.Message{sipMessage(t, "REFER sip:desk@192.168.10.30 SIP/2.0"), sipMessage(t, "INFO sip:desk@192.168.10.30 SIP/2.0", "Refer-To: <sip:+19005550100@b.example>")} {
		if s.transferred(c, s.referral(m)) != "" {
			return false
		}
	}
	return true
}

// What the inside end has named may be referred to with all that it has, as it is shown outside.
func TestTransferToANamedPlace(t *testing.T) {
	s, c := transferSession(t)
	m := sipMessage(t, "INVITE sip:x@b.example SIP/2.0", "Contact: <sip:odd@192.168.10.30:5060;line=7>")
	c.name(m)
	if err := s.rw.Outbound(m); err != nil {
		t.Fatal(err)
	}
	if to := m.Get("Contact"); !refer(t, s, c, to) || refer(t, s, c, strings.Replace(to, "line=7", "line=8", 1)) {
		t.Errorf("REFER to %s: may go on %v, with line=8 %v", to, refer(t, s, c, to), refer(t, s, c, strings.Replace(to, "line=7", "line=8", 1)))
	}
	c.name(sipMessage(t, "INVITE sip:x@b.example SIP/2.0", "Contact: <sip:moved@pbx.local>"))
	c.name(sipMessage(t, "INVITE sip:x@b.example SIP/2.0", "Contact: <sip:192.168.10.30>"))
	if !refer(t, s, c, "<sip:moved@pbx.local:5080>") {
		t.Error("a REFER to a named user at a named host is refused")
	}
	c.name(sipMessage(t, "INVITE sip:x@b.example SIP/2.0", "Contact: <sip:+14085550177;tgrp=a@192.168.10.30>"))
	if !refer(t, s, c, "<sip:+14085550177;tgrp=a@a.example>") || refer(t, s, c, "<sip:+14085550177;tgrp=b@a.example>") {
		t.Error("a named user with parameters is not taken to the letter")
	}
	if refer(t, s, c, "<sip:a.example>") {
		t.Error("a REFER that names nobody passes where the inside has named a place without user")
	}
}

// A token brings back what it stands for: it is that which the call agent would dial.
func TestTokenDoesNotChangeTheTransfer(t *testing.T) {
	s, c := transferSession(t)
	shown := sipMessage(t, "INVITE sip:+15550001@b.example SIP/2.0", "Contact: <sip:90019005550100@192.168.10.77>")
	if err := s.rw.Outbound(shown); err != nil {
		t.Fatal(err)
	}
	if refer(t, s, c, shown.Get("Contact")) {
		t.Errorf("REFER to %s may go on", shown.Get("Contact"))
	}
}

// Whom the inside has called, its far end may have it call again; what `transfer permit` names, any.
func TestPermittedTransfers(t *testing.T) {
	s, _ := transferSession(t)
	c := standingCall(t, s, "other@h", "b.example")
	for _, permit := range [][]string{nil, {"+1415555", "+44"}, {"+"}} {
		s.a.plan.Load().UCIME.Transfers = permit
		for to, ok := range map[string]bool{
			"<sip:+14085550199@b.example>":                true, // the called number
			"<sip:+14085550199@pbx.b.example>":            true,
			"<sip:+14085550199@198.51.100.9:33333>":       true,
			"<sip:+14155550123@b.example;transport=tls>":  len(permit) > 0,
			"<tel:+1-415-555-0123>":                       len(permit) > 0,
			"<sip:+14155550123@c.example>":                false,
			"<sip:+14155550123;ext=9@b.example>":          false,
			"<sip:+14155550123@b.example;maddr=10.0.0.9>": false,
			"<sip:+19005550100@b.example>":                len(permit) == 1,
			"<sip:19005550100@b.example>":                 false,
			"<sip:+1@b.example>":                          false,
			"<sip:+1415555012345678@b.example>":           false,
			"<sip:+1415555#9@b.example>":                  false,
		} {
			if got := refer(t, s, c, to); got != ok {
				t.Errorf("transfer permit %v: REFER to %s may go on: %v, want %v", permit, to, got, ok)
			}
		}
	}
}

// A redirection has the call agent dial, as does an Error-Info with a SIP URI.
func TestStrangersRedirectToNobodyElse(t *testing.T) {
	s, _ := transferSession(t)
	c := standingCall(t, s, "other@h", "b.example")
	for _, x := range []struct {
		start, name string
		was, want   []string
	}{
		{"SIP/2.0 302 Moved", "Contact", []string{"<sip:+19005550100@b.example>"}, nil},
		{"SIP/2.0 302 Moved", "m", []string{"<sip:+19005550100@a.example>, <sip:+14085550199@pbx.b.example>;q=0.5"}, []string{"<sip:+14085550199@pbx.b.example>;q=0.5"}},
		{"SIP/2.0 300 Choose", "Contact", []string{"<sip:+14085550199@b.example?Route=%3Csip:x%3E>", "<tel:+19005550100>", "<mailto:a@b.example>", "<sip:+14085550199@b.example>"}, []string{"<sip:+14085550199@b.example>"}},
		{"SIP/2.0 485 Ambiguous", "Contact", []string{"<sip:+19005550100@b.example>"}, nil},
		{"SIP/2.0 305 Use Proxy", "Contact", []string{"<sip:c.example>"}, nil},
		{"SIP/2.0 200 OK", "Contact", []string{"<sip:+19005550100@b.example>"}, []string{"<sip:+19005550100@b.example>"}}, // its own place, which nobody dials
		{"SIP/2.0 486 Busy", "Error-Info", []string{"<sip:+19005550100@b.example>, <https://b.example/busy>"}, []string{"<https://b.example/busy>"}},
		{"SIP/2.0 486 Busy", "Error-Info", []string{"<tel:+19005550100>"}, nil},
	} {
		lines := []string{x.start, "Call-ID: other@h", "CSeq: 1 INVITE"}
		for _, v := range x.was {
			lines = append(lines, x.name+": "+v)
		}
		m := sipMessage(t, lines...)
		s.redirected(c, m)
		if got := m.Values(x.name); !slices.Equal(got, x.want) {
			t.Errorf("%s with %s: %q becomes %q, want %q", x.start, x.name, x.was, got, x.want)
		}
	}
}

// An INVITE takes over a call of its own enterprise, or one that the inside has told it of, and no other.
func TestStrangersTakeNoCallOver(t *testing.T) {
	s, _ := transferSession(t)
	now := time.Now()
	s.a.now = func() time.Time { return now }
	standingCall(t, s, "other@h", "b.example")
	standingCall(t, s, "third@h", "c.example")
	standingCall(t, s, "agent@h", "b.example").agent = &callAgent{real: netip.MustParseAddr("192.168.10.31")}
	tell := func(domain, id string) {
		s.a.lent.note(sipMessage(t, "REFER sip:x@b.example SIP/2.0", "Refer-To: <sip:+14085550102@a.example?Subject=x&Replaces="+id+"%3Bto-tag%3D1%3Bfrom-tag%3D2>"), domain, now)
	}
	standingCall(t, s, "lent@h", "c.example")
	standingCall(t, s, "notyou@h", "c.example")
	tell("b.example", "lent%40h")
	tell("c.example", "notyou%40h")
	takes := func(line string) bool {
		return s.takesOver(sipMessage(t, "INVITE sip:+14085550100@a.example SIP/2.0", line))
	}
	for line, want := range map[string]bool{
		"Subject: x": false,
		"Replaces: other@h;to-tag=near;from-tag=far":            false,
		"Replaces: other@h ;from-tag=near ;to-tag=far":          false,
		"Join: other@h;to-tag=near;from-tag=far":                false,
		"Replaces: unknown@h;to-tag=1;from-tag=2":               false, // the call agent knows, or answers 481
		"Join: unknown@h;to-tag=1;from-tag=2":                   false,
		"Replaces: third@h;to-tag=near;from-tag=far":            true,  // another enterprise's
		"Replaces: agent@h;to-tag=near;from-tag=far":            true,  // another call agent's
		"Replaces: lent@h;to-tag=1;from-tag=2":                  false, // another enterprise's, that the inside has told of
		"Replaces: notyou@h;to-tag=1;from-tag=2":                true,
		"Replaces: other@h;to-tag=near;from-tag=near":           true,
		"Replaces: other@h;to-tag=near;from-tag=x":              true,
		"Replaces: other@h":                                     true,
		"Replaces: other@h;to-tag=near;from-tag=far;to-tag=far": true,
	} {
		if got := takes(line); got != want {
			t.Errorf("%s takes a stranger's call over: %v, want %v", line, got, want)
		}
	}
	if s.takesOver(sipMessage(t, "INFO sip:+14085550100@a.example SIP/2.0", "Replaces: third@h;to-tag=1;from-tag=2")) {
		t.Error("an INFO is taken for an INVITE")
	}
	now = now.Add(lentTime)
	if !takes("Replaces: lent@h;to-tag=1;from-tag=2") {
		t.Error("what was told is remembered for ever")
	}
	standingCall(t, s, "n0", "c.example")
	standingCall(t, s, fmt.Sprint("n", maxLent), "c.example")
	for n := range maxLent + 1 {
		tell("b.example", fmt.Sprint("n", n))
	}
	if n := len(s.a.lent.list); n != maxLent {
		t.Errorf("%d calls are remembered, want %d", n, maxLent)
	}
	if takes(fmt.Sprintf("Replaces: n%d;to-tag=1;from-tag=2", maxLent)) || !takes("Replaces: n0;to-tag=1;from-tag=2") {
		t.Error("it is not the oldest one that is forgotten")
	}
}

// Numbers of one block differ in their last digits alone, and are long enough to be those of subscribers.
func TestNumbersOfOneBlock(t *testing.T) {
	for _, x := range []struct {
		a, b string
		want bool
	}{
		{"+14085550100", "+14085559999", true},
		{"+14085550100", "+14085550100", true},
		{"+14085550100", "+14085560100", false},
		{"+14085550100", "+19005550100", false},
		{"+14085550100", "+140855501000", false},
		{"+499005550", "+499001234", true}, // nine digits
		{"+49900555", "+49901234", false},  // eight
		{"14085550100", "14085550101", false},
		{"+1408555010x", "+1408555010x", false},
		{"", "", false},
	} {
		if got := sameBlock(x.a, x.b); got != x.want {
			t.Errorf("%s and %s: %v", x.a, x.b, got)
		}
	}
}

// Nobody on the Internet says that a user of this enterprise calls, or who is to pay.
func TestStrangersClaimNobodyOfTheInside(t *testing.T) {
	s, c := transferSession(t)
	for _, x := range []struct {
		name      string
		was, want []string
	}{
		{"P-Asserted-Identity", []string{`"Boss" <sip:boss@a.example>, <tel:+14085550177>`}, []string{"<tel:+14085550177>"}},
		{"P-Asserted-Identity", []string{"<sip:boss@209.165.200.227>"}, nil},
		{"P-Asserted-Identity", []string{"<sip:+14155550123@b.example>"}, []string{"<sip:+14155550123@b.example>"}},
		{"P-Preferred-Identity", []string{"<sip:boss@edge.A.example>"}, nil},
		{"Remote-Party-ID", []string{"<sip:boss@192.168.10.30>;party=calling", "<sip:f@b.example>;party=calling"}, []string{"<sip:f@b.example>;party=calling"}},
		{"Diversion", []string{"<sip:boss@a.example>;reason=no-answer, <sip:g@b.example>;reason=unconditional"}, []string{"<sip:g@b.example>;reason=unconditional"}},
		{"History-Info", []string{"<sip:+14085550100@a.example>;index=1, <sip:boss@a.example>;index=1.1"}, []string{"<sip:+14085550100@a.example>;index=1"}},
		{"P-Called-Party-ID", []string{"<sip:+19005550100@a.example>"}, nil},
		{"P-Called-Party-ID", []string{"<sip:+1-408-555-0100@a.example>"}, []string{"<sip:+1-408-555-0100@a.example>"}},
		{"P-Charge-Info", []string{"<sip:+14155550123@b.example>"}, nil},
		{"P-Served-User", []string{"<sip:boss@a.example>"}, nil},
		{"P-Asserted-Service", []string{"urn:urn-7:3gpp-service.ims.icsi.mmtel"}, nil},
		{"X-Other", []string{"<sip:boss@a.example>"}, []string{"<sip:boss@a.example>"}},
	} {
		lines := []string{"INVITE sip:+14085550100@a.example SIP/2.0", "Call-ID: c", "CSeq: 1 INVITE"}
		for _, v := range x.was {
			lines = append(lines, x.name+": "+v)
		}
		m := sipMessage(t, lines...)
		s.disown(c, m)
		if got := m.Values(x.name); !slices.Equal(got, x.want) {
			t.Errorf("%s: %q becomes %q, want %q", x.name, x.was, got, x.want)
		}
	}
}
