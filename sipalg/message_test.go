package sipalg

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t *testing.T, text string) *Message {
	t.Helper()
	m, v := Parse([]byte(text))
	if v != nil {
		t.Fatalf("refused: %v", v)
	}
	return m
}

const sampleText = "INVITE sip:b@example.com;x SIP/2.0\r\n" +
	"v : SIP/2.0/TCP 192.0.2.1:5060 ; branch=z9hG4bK1,SIP / 2.0/UDP host\r\n" +
	"Subject:  a,\r\n\t b\r\n" +
	"f: \"A, \\\" <x>\" <sip:a@example.com;p=1>;x=y;TAG=t1\r\n" +
	"to: sip:b@example.com;tag=t2\r\n" +
	"Contact: \"x,y\" <sip:a,b@h>, <sip:c@h>;q=0.5\r\n" +
	"i: c1\r\n" +
	"m: *\r\n" +
	"CSeq: 0007 INVITE\r\n" +
	"MaX-fOrWaRdS: 0068\r\n" +
	"Content-Length:   4\r\n\r\nbody"

func TestParseKeepsWhatWasSent(t *testing.T) {
	m := mustParse(t, sampleText)
	want := "INVITE sip:b@example.com;x SIP/2.0\r\n" +
		"v: SIP/2.0/TCP 192.0.2.1:5060 ; branch=z9hG4bK1,SIP / 2.0/UDP host\r\n" +
		"Subject: a, b\r\n" +
		"f: \"A, \\\" <x>\" <sip:a@example.com;p=1>;x=y;TAG=t1\r\n" +
		"to: sip:b@example.com;tag=t2\r\n" +
		"Contact: \"x,y\" <sip:a,b@h>, <sip:c@h>;q=0.5\r\n" +
		"i: c1\r\nm: *\r\nCSeq: 0007 INVITE\r\nMaX-fOrWaRdS: 0068\r\nContent-Length: 4\r\n\r\nbody"
	if diff := cmp.Diff(want, m.String()); diff != "" {
		t.Errorf("written form (-want +got):\n%s", diff)
	}
	again := mustParse(t, m.String())
	if again.String() != m.String() {
		t.Errorf("the written form reads differently")
	}
}

func TestAccessors(t *testing.T) {
	m := mustParse(t, sampleText)
	seq, method := m.CSeq()
	hops, ok := m.MaxForwards()
	via, viaOK := m.TopVia()
	got := []any{m.IsRequest(), m.CallID(), m.FromTag(), m.ToTag(), seq, method, hops, ok, via.Host, via.Port, via.Branch, viaOK, m.Has("From"), m.Has("X"), m.Get("s"), m.Count("Contact")}
	want := []any{true, "c1", "t1", "t2", uint32(7), "INVITE", 68, true, "192.0.2.1", 5060, "z9hG4bK1", true, true, false, "a, b", 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("accessors (-want +got):\n%s", diff)
	}
	for name, want := range map[string][]string{
		"Contact": {`"x,y" <sip:a,b@h>`, "<sip:c@h>;q=0.5", "*"},
		"Via":     {"SIP/2.0/TCP 192.0.2.1:5060 ; branch=z9hG4bK1", "SIP / 2.0/UDP host"},
		"Subject": {"a, b"},
		"X":       nil,
	} {
		if diff := cmp.Diff(want, m.Values(name)); diff != "" {
			t.Errorf("Values(%s) (-want +got):\n%s", name, diff)
		}
	}
	empty := &Message{Method: "X"}
	if n, method := empty.CSeq(); n != 0 || method != "" || empty.FromTag() != "" || empty.CallID() != "" {
		t.Errorf("an empty message has keys")
	}
}

func TestEdits(t *testing.T) {
	m := &Message{Status: 200, Phrase: "OK", Headers: []Header{{"A", "1"}, {"Via", "v1"}, {"a", "2"}}}
	c := m.Clone()
	m.Set("a", "3")
	m.Prepend("v", "v0")
	m.Prepend("First", "f")
	m.Add("Z", "z")
	m.Set("Y", "y")
	if n := m.Del("Z"); n != 1 {
		t.Errorf("Del removed %d", n)
	}
	want := "SIP/2.0 200 OK\r\nFirst: f\r\nA: 3\r\nv: v0\r\nVia: v1\r\nY: y\r\nContent-Length: 0\r\n\r\n"
	if got := m.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(c.Headers) != 3 || c.Headers[0].Value != "1" {
		t.Errorf("the clone changed: %v", c.Headers)
	}
}

func TestBytesCorrectsContentLength(t *testing.T) {
	m := &Message{Method: "MESSAGE", URI: "sip:a", Headers: []Header{{"l", "99"}, {"X", "y"}, {"Content-Length", "7"}}, Body: []byte("abc")}
	want := "MESSAGE sip:a SIP/2.0\r\nl: 3\r\nX: y\r\n\r\nabc"
	if got := m.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNewResponse(t *testing.T) {
	req := mustParse(t, strings.Replace(strings.Replace(sampleText, ";tag=t2", "", 1), "i: c1", "i: c1\r\nVia: SIP/2.0/UDP deep\r\nTimestamp: 5", 1))
	m := NewResponse(req, 486, "Busy Here", Header{"Reason", "x"})
	tag := m.ToTag()
	want := "SIP/2.0 486 Busy Here\r\n" +
		"v: SIP/2.0/TCP 192.0.2.1:5060 ; branch=z9hG4bK1,SIP / 2.0/UDP host\r\nVia: SIP/2.0/UDP deep\r\n" +
		"f: \"A, \\\" <x>\" <sip:a@example.com;p=1>;x=y;TAG=t1\r\n" +
		"to: sip:b@example.com;tag=" + tag + "\r\ni: c1\r\nCSeq: 0007 INVITE\r\nReason: x\r\nContent-Length: 0\r\n\r\n"
	if diff := cmp.Diff(want, m.String()); diff != "" || tag == "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if again := NewResponse(req, 487, "x").ToTag(); again != tag {
		t.Errorf("two answers to one request have tags %s and %s", tag, again)
	}
	req.Set("Call-ID", "c2")
	if other := NewResponse(req, 486, "x").ToTag(); other == tag {
		t.Errorf("two requests get one tag")
	}
	trying := NewResponse(req, 100, "Trying")
	if trying.ToTag() != "" || trying.Get("Timestamp") != "5" {
		t.Errorf("100 with a tag or without Timestamp:\n%s", trying)
	}
	req.Set("To", "<sip:b@example.com>;tag=theirs")
	if got := NewResponse(req, 200, "OK").ToTag(); got != "theirs" {
		t.Errorf("tag %q, want the request's", got)
	}
	if got := NewResponse(&Message{Method: "X"}, 400, "Bad").String(); got != "SIP/2.0 400 Bad\r\nContent-Length: 0\r\n\r\n" {
		t.Errorf("answer to a request without headers: %q", got)
	}
}

func TestBuildRequest(t *testing.T) {
	via := Via{Transport: "TLS", Host: "192.0.2.1", Port: 5061, Branch: "z9hG4bKx"}
	m := BuildRequest("BYE", "sip:b@h", via, "<sip:a@h>;tag=1", "<sip:b@h>;tag=2", "c1", 3, []string{"<sip:r1;lr>", "<sip:r2;lr>"}, Header{"Reason", "x"})
	want := "BYE sip:b@h SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1:5061;branch=z9hG4bKx\r\nRoute: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\n" +
		"Max-Forwards: 70\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: c1\r\nCSeq: 3 BYE\r\nReason: x\r\nContent-Length: 0\r\n\r\n"
	if got := m.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if v := Check(mustParse(t, m.String())); v != nil {
		t.Errorf("our own request is refused: %v", v)
	}
}

func TestURI(t *testing.T) {
	tests := []struct {
		in         string
		user, host string
		port       int
		ok         bool
	}{
		{"sip:a@b", "a", "b", 0, true},
		{"SIPS:a:pw@b.example:05061;transport=tcp;lr?x=y&z=%20", "a:pw", "b.example", 5061, true},
		{"sip:user;par=u%40example.net@example.com", "user;par=u%40example.net", "example.com", 0, true},
		{"sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1@example.com", "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1", "example.com", 0, true},
		{"sip:[2001:db8::1]:5060;x=", "", "[2001:db8::1]", 5060, true},
		{"sip:192.0.2.1", "", "192.0.2.1", 0, true},
		{"sip:a_b.example.", "", "a_b.example.", 0, true},
		{"tel:+1408;phone-context=x", "", "", 0, true},
		{"urn:uc-ime:pstn-fallback", "", "", 0, true},
		{"", "", "", 0, false},
		{"sip:", "", "", 0, false},
		{"sip", "", "", 0, false},
		{":a", "", "", 0, false},
		{"1sip:a", "", "", 0, false},
		{"sip:@h", "", "", 0, false},
		{"sip::p@h", "", "", 0, false},
		{"sip:a@b@c", "", "", 0, false},
		{"sip:a b", "", "", 0, false},
		{"sip:<a>", "", "", 0, false},
		{"sip:a@h;", "", "", 0, false},
		{"sip:a@h;;x", "", "", 0, false},
		{"sip:h:", "", "", 0, false},
		{"sip:h:0", "", "", 0, false},
		{"sip:h:65536", "", "", 0, false},
		{"sip:h:5x", "", "", 0, false},
		{"sip:192.0.2.256", "", "", 0, false},
		{"sip:010.0.0.1", "", "", 0, false},
		{"sip:3232238110", "", "", 0, false},
		{"sip:h.123", "", "", 0, false},
		{"sip:.h", "", "", 0, false},
		{"sip:a..b", "", "", 0, false},
		{"sip:-h", "", "", 0, false},
		{"sip:[::1", "", "", 0, false},
		{"sip:[1.2.3.4]", "", "", 0, false},
		{"sip:[fe80::1%eth0]", "", "", 0, false},
		{"sip:h?", "", "", 0, false},
		{"sip:h?x", "", "", 0, false},
		{"sip:h?=y", "", "", 0, false},
		{"sip:%4@h", "", "", 0, false},
		{"sip:%zz@h", "", "", 0, false},
		{"sip:a\xc3\xa4@h", "", "", 0, false},
	}
	for _, tt := range tests {
		u, err := ParseURI(tt.in)
		if (err == nil) != tt.ok {
			t.Errorf("%q: error %v, want ok %v", tt.in, err, tt.ok)
			continue
		}
		if tt.ok && (u.User != tt.user || u.Host != tt.host || u.Port != tt.port || u.String() != tt.in) {
			t.Errorf("%q: %+v written %q", tt.in, u, u.String())
		}
	}
}

func TestURIEdits(t *testing.T) {
	u, err := ParseURI("sip:a@h:05060;Transport=tcp;lr?x=y")
	if err != nil {
		t.Fatal(err)
	}
	u.SetParam("transport", "tls")
	u.SetParam("ob", "1")
	u.DelParam("LR")
	u.Port = 5070
	if got := u.String(); got != "sip:a@h:5070;Transport=tls;ob=1?x=y" {
		t.Errorf("got %s", got)
	}
	if v, ok := u.Param("OB"); v != "1" || !ok {
		t.Errorf("Param = %q, %v", v, ok)
	}
}

func TestSealer(t *testing.T) {
	s := NewSealer([32]byte{7})
	for _, plain := range []string{"", "x", strings.Repeat("192.168.10.50", 40)} {
		token := s.Seal(plain)
		if !isToken(token) || strings.ToLower(token) != token || s.Seal(plain) != token {
			t.Errorf("token %q", token)
		}
		if got, ok := s.Open(token); !ok || got != plain {
			t.Errorf("opened %q, %v", got, ok)
		}
		if _, ok := NewSealer([32]byte{8}).Open(token); ok {
			t.Errorf("another key opens it")
		}
		for i := range token {
			forged := []byte(token)
			if forged[i]++; i+1 < len(token) { // the last character has spare bits
				if _, ok := s.Open(string(forged)); ok {
					t.Errorf("forged at %d of %d and opened", i, len(token))
				}
			}
		}
	}
	if _, ok := s.Open(strings.Repeat("0", maxToken+1)); ok {
		t.Error("an endless token opens")
	}
	if len(s.Seal("192.168.10.50")) == 0 || strings.Contains(s.Seal("192.168.10.50"), "192") && strings.Contains(s.Seal("192.168.10.50"), ".") {
		t.Error("the token shows the address")
	}
}
