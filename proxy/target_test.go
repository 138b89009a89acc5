package proxy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
)

// targetSession is a session from the Internet to the enterprise a.example, and a call on it for +14085550100.
func targetSession(t *testing.T) (*session, *call) {
	t.Helper()
	s := strangersSession(t)
	var err error
	if s.a.store, err = tlsproxy.OpenStore(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	s.class = s.a.plan.Load().classes[0]
	m := sipMessage(t, "INVITE sip:+14085550100@a.example SIP/2.0", "Call-ID: c", "CSeq: 1 INVITE", "From: <sip:f@b.example>;tag=f", "To: <sip:t@a.example>")
	c := &call{d: dialog.Open(m, dialog.Outside, time.Now())}
	s.nameFirst(c, m, dialog.Outside)
	return s, c
}

// A ticket lets call one number at this enterprise: its call agent is not to send the request to somebody else.
func TestStrangersCallThisEnterpriseAlone(t *testing.T) {
	s, _ := targetSession(t)
	for uri, foreign := range map[string]bool{
		"sip:+14085550100@a.example":                                    false,
		"sip:+14085550100@A.EXAMPLE.:5070;transport=tls":                false,
		"sips:+14085550100@edge.a.example":                              false,
		"sip:+14085550100@209.165.200.227:5070":                         false,
		"sip:+14085550100@209.165.200.229:5571":                         false, // of another call agent
		"sip:+14085550100@209.165.200.225":                              false,
		"sip:+14085550100@192.168.10.30":                                false,
		"sip:+14085550100@[::ffff:209.165.200.227]":                     false,
		"sip:+14085550100@a.example:5082;maddr=209.165.200.227":         false, // as peer servers tell routes
		"sip:+14085550100@b.example":                                    true,
		"sip:+14085550100@nota.example":                                 true,
		"sip:+14085550100@a.example.b.example":                          true,
		"sip:+14085550100@198.51.100.7":                                 true,
		"sip:+14085550100@[2001:db8::1]":                                true,
		"sip:+14085550100@a.example;maddr=198.51.100.7":                 true,
		"sip:+14085550100@a.example;%6daddr=b.example":                  true,
		"sip:+14085550100@a.example;maddr=a.example;%4daddr=198.51.1.7": true,
		"sip:+14085550100@a.example;%4daddr=198.51.1.7;maddr=a.example": true,
		"tel:+14085550100":                                              true,
	} {
		if got := s.foreign(sipMessage(t, "INVITE "+uri+" SIP/2.0")); got != foreign {
			t.Errorf("%s leads to another enterprise: %v, want %v", uri, got, foreign)
		}
	}
}

// Neither is it to take a Route off that names it, and send the request to the next one.
func TestStrangersRoutesStayInThisEnterprise(t *testing.T) {
	s, _ := targetSession(t)
	shown := sipMessage(t, "INVITE sip:+15550001@b.example SIP/2.0", "Record-Route: <sip:192.168.10.77;lr>")
	if err := s.rw.Outbound(shown); err != nil {
		t.Fatal(err)
	}
	for route, foreign := range map[string]bool{
		"<sip:209.165.200.227:5070;transport=tls;lr>":                          false,
		"\"x\" <sip:a.example;lr>, <sips:edge.A.example.:5061;lr>":             false,
		"<sip:209.165.200.229:5571;lr>":                                        false, // of another call agent
		"<sip:192.168.10.30;lr>":                                               false,
		"<sip:+14085550100@a.example>":                                         false,
		"<sip:a.example;lr>, <sip:edge.b.example;lr>":                          true,
		"<sip:198.51.100.7;lr>":                                                true,
		"<sip:192.168.10.77;lr>":                                               true,
		"<sip:127.0.0.1;lr>":                                                   true,
		"<sip:a.example;lr;maddr=198.51.100.7>":                                true,
		"<sip:a.example;lr>,<sip:209.165.200.227;lr>, <sip:x@198.51.100.7;lr>": true,
		"<tel:+14085550100>":                                                   true,
		shown.Get("Record-Route"):                                              true, // a host of the inside that was shown once
	} {
		m := sipMessage(t, "INVITE sip:+14085550100@a.example SIP/2.0", "Route: "+route)
		if got := s.foreign(m); got != foreign {
			t.Errorf("Route: %s leads to another enterprise: %v, want %v", route, got, foreign)
		}
	}
}

// Within a call the other side reaches whom it talks to, where the call agent says: now, or a moment ago.
func TestStrangersReachTheirDialogAlone(t *testing.T) {
	s, c := targetSession(t)
	said := func(start, contact string) {
		c.name(sipMessage(t, start, "Contact: "+contact))
	}
	said("SIP/2.0 180 Ringing", "<sip:desk@192.168.10.30:5060>")
	said("SIP/2.0 200 OK", "\"x\" <sip:%61nswer@192.168.10.30:5060;transport=tcp>;expires=60")
	said("UPDATE sip:x@y SIP/2.0", "<sip:moved@pbx.local>")
	said("INVITE sip:x@y SIP/2.0", "<sip:192.168.10.77;maddr=192.168.10.78>")
	said("INVITE sip:x@y SIP/2.0", "<sip:+14085550177;tgrp=a@192.168.10.30>")
	said("SIP/2.0 100 Trying", "<sip:trying@192.168.10.30>")
	said("SIP/2.0 302 Moved Temporarily", "<sip:+19005550100@a.example>")
	for uri, ok := range map[string]bool{
		"sip:answer@192.168.10.30:5060;transport=tcp":             true,
		"sip:answer@209.165.200.227:5070":                         true,
		"sip:desk@a.example":                                      true,
		"sip:moved@pbx.local":                                     true,
		"sip:192.168.10.77;maddr=192.168.10.78":                   true,
		"sip:209.165.200.227:5070":                                true, // names nobody
		"sip:moved@pbx.local:5080":                                true,
		"sip:desk@[::ffff:192.168.10.77]":                         true,
		"sip:desk@a.example;maddr=192.168.10.78":                  true,
		"sip:desk@a.example;maddr=192.168.10.79":                  false,
		"sip:desk@a.example;maddr=a.example;%4daddr=198.51.100.7": false,
		"sip:+19005550100;tgrp=b@a.example":                       false,
		"sip:trying@192.168.10.30":                                false,
		"sip:+1-408-555-0100@a.example":                           true, // whom the ticket lets call
		"sip:+19005550100@209.165.200.227":                        false,
		"sip:+19005550100@a.example":                              false,
		"sip:operator@192.168.10.30":                              false,
		"sip:answer@198.51.100.7":                                 false,
		"sip:answer@b.example":                                    false,
		"sip:answer@a.example;maddr=198.51.100.7":                 false,
		"sip:answer@a.example;maddr=192.168.10.30;a=b":            true,
		"tel:+19005550100":                                        false,
	} {
		m := sipMessage(t, "REFER "+uri+" SIP/2.0")
		if got := s.misled(c, m) == ""; got != ok {
			t.Errorf("REFER %s may go on: %v, want %v", uri, got, ok)
		}
	}
	for route, ok := range map[string]bool{
		"<sip:209.165.200.227:5070;lr>": true, "<sip:edge.b.example;lr>, <sip:desk@192.168.10.30>": true,
		"<sip:209.165.200.227;lr>, <sip:+19005550100@a.example>": false, "<sip:desk@198.51.100.7>": false,
	} {
		m := sipMessage(t, "REFER sip:209.165.200.227:5070 SIP/2.0", "Route: "+route)
		if got := s.misled(c, m) == ""; got != ok {
			t.Errorf("REFER with Route: %s may go on: %v, want %v", route, got, ok)
		}
	}
}

// unlike is a URI at the mapped address with that user part, whose token brings back another one.
func unlike(t *testing.T, s *session, user string) string {
	t.Helper()
	bait := sipMessage(t, "INVITE sip:+14085550100@a.example SIP/2.0", "From: <sip:+19005550100:209.165.200.227@209.165.200.227;transport=udp>;tag=x")
	if err := errors.Join(s.rw.Inbound(bait), s.rw.Outbound(bait)); err != nil {
		t.Fatal(err)
	}
	_, token, ok := strings.Cut(bait.Get("From"), "x-ime=")
	if token, _, _ = strings.Cut(token, ">"); !ok || token == "" {
		t.Fatalf("no token is shown: %s", bait.Get("From"))
	}
	return "sip:" + user + "@209.165.200.227;transport=tls;x-ime=" + token
}

// A token brings back whom the call agent would reach: it is he who must be in the dialog.
func TestTokenDoesNotChangeTheTarget(t *testing.T) {
	s, c := targetSession(t)
	uri := unlike(t, s, "+14085550100")
	if s.misled(c, sipMessage(t, "INFO "+uri+" SIP/2.0")) == "" {
		t.Error("a request reaches another one than it names")
	}
	if s.misled(c, sipMessage(t, "INFO sip:209.165.200.227:5070 SIP/2.0", "Route: <"+uri+">")) == "" {
		t.Error("a Route reaches another one than it names")
	}
	m := sipMessage(t, "INVITE "+uri+" SIP/2.0", "Call-ID: c", "CSeq: 1 INVITE", "From: <sip:f@b.example>;tag=f", "To: <sip:t@a.example>")
	c = &call{d: dialog.Open(m, dialog.Outside, time.Now())}
	s.nameFirst(c, m, dialog.Outside)
	if s.misled(c, sipMessage(t, "INFO sip:+14085550100@a.example SIP/2.0")) == "" {
		t.Error("whom the call was not opened to is in it")
	}
}

// A strict router of the inside is a target of its own (RFC 3261 12.2.1.1), one of the far end is none here.
func TestStrictRoutersAreTargets(t *testing.T) {
	s, _ := transferSession(t)
	c := standingCall(t, s, "other@h", "b.example")
	d := c.d.Dialogs()[0]
	d.Ends[dialog.Inside].Routes, d.Ends[dialog.Outside].Routes = []string{"<sip:router@192.168.10.88>"}, []string{"<sip:theirs@198.51.100.7>"}
	for uri, ok := range map[string]bool{"sip:router@192.168.10.88": true, "sip:theirs@198.51.100.7": false, "sip:theirs@a.example": false} {
		if got := s.misled(c, sipMessage(t, "INFO "+uri+" SIP/2.0")) == ""; got != ok {
			t.Errorf("INFO to %s may go on: %v, want %v", uri, got, ok)
		}
	}
}

// What is remembered of a call is bounded, and it is the latest.
func TestNamedTargetsAreBounded(t *testing.T) {
	s, c := targetSession(t)
	for n := range 3 * maxNamed {
		for range 2 {
			c.name(sipMessage(t, "INVITE sip:x@y SIP/2.0", fmt.Sprintf("Contact: <sip:n%d@192.168.10.30>", n)))
		}
		if len(c.named) > maxNamed {
			t.Fatalf("%d targets are remembered", len(c.named))
		}
	}
	long := "<sip:" + strings.Repeat("x", maxTarget) + "@192.168.10.30>"
	c.name(sipMessage(t, "INVITE sip:x@y SIP/2.0", "Contact: "+long))
	caller := &call{}
	s.nameFirst(caller, sipMessage(t, "INVITE sip:x@y SIP/2.0", "From: "+long), dialog.Inside)
	for _, uri := range append(caller.named, c.named...) {
		if len(uri) > maxTarget {
			t.Errorf("%d bytes of a target are remembered", len(uri))
		}
	}
	for user, ok := range map[string]bool{"+14085550100": true, fmt.Sprintf("n%d", 3*maxNamed-1): true, fmt.Sprintf("n%d", 2*maxNamed+1): true, "n0": false} {
		if got := s.misled(c, sipMessage(t, "INFO sip:"+user+"@209.165.200.227 SIP/2.0")) == ""; got != ok {
			t.Errorf("INFO to %s may go on: %v, want %v", user, got, ok)
		}
	}
}

// A call of the inside is named by the Contact of its request, and by its From, which may be all that there is.
func TestCallersTarget(t *testing.T) {
	s, _ := targetSession(t)
	for contact, user := range map[string]string{"Contact: <sip:caller@192.168.10.30>": "caller", "X-No: contact": "f"} {
		m := sipMessage(t, "SUBSCRIBE sip:t@b.example SIP/2.0", "Call-ID: c", "CSeq: 1 SUBSCRIBE", "From: <sip:f@a.example>;tag=f", "To: <sip:t@b.example>", contact)
		c := &call{d: dialog.Open(m, dialog.Inside, time.Now())}
		s.nameFirst(c, m, dialog.Inside)
		for uri, ok := range map[string]bool{"sip:" + user + "@209.165.200.227:5070": true, "sip:f@a.example": true, "sip:209.165.200.227:5070": true, "sip:x@209.165.200.227:5070": false} {
			if got := s.misled(c, sipMessage(t, "NOTIFY "+uri+" SIP/2.0")) == ""; got != ok {
				t.Errorf("NOTIFY %s to who says %q may go on: %v, want %v", uri, contact, got, ok)
			}
		}
	}
}
