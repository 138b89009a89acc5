package sipalg

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// insideLiteral finds what must not leave. It is wider than the sweep's own idea
// of a literal but for longer dotted numbers.
var insideLiteral = regexp.MustCompile(`192\.168\.10\.\d+|(?i)fd00::`)

// pick returns one of the choices.
func pick(r *rand.Rand, choices ...string) string { return choices[r.IntN(len(choices))] }

// insideText makes free text with inside addresses in it.
func insideText(r *rand.Rand) string {
	addr := fmt.Sprintf("192.168.10.%d", 1+r.IntN(254))
	return pick(r, "", "x", "at ", "%40", "%", "/", "(", "-", "a.", "1 ", "port:", "=", "::ffff:", "d:", "9.x") + pick(r, addr, addr, "fd00::50", "[fd00::7]") +
		pick(r, "", ".", ":5060", "%3B", ")", " z", "-1", "/24", ", more", ":", "]")
}

// insideHost makes a host of either side.
func insideHost(r *rand.Rand) string {
	return pick(r, "192.168.10.30", "192.168.10.50", fmt.Sprintf("192.168.10.%d", 1+r.IntN(254)), "[fd00::50]", "198.51.100.9", "b.example",
		"192.168.10.30.example.com", "[::ffff:192.168.10.50]")
}

func randomURI(r *rand.Rand) string {
	uri := pick(r, "sip:", "sip:", "sips:", "SIP:") + pick(r, "", "100@", "%40192.168.10.30@", "192.168.10.50;x@", "a:192.168.10.9@") + insideHost(r) +
		pick(r, "", ":5060", ":05061", ":43211") + pick(r, "", ";transport=tcp", ";transport=udp", ";Transport=TCP", ";transport=tls") +
		pick(r, "", ";lr", ";maddr=192.168.10.77", ";alias=192.168.10.50~5060~1", ";x=%3C192.168.10.3%3E")
	if r.IntN(5) == 0 {
		uri += "?Route=" + escape("<"+randomURI(r)+">") + "&X-Y=" + escape(insideText(r))
	}
	return uri
}

func randomVia(r *rand.Rand) string {
	return "SIP/2.0/" + pick(r, "TCP", "UDP", "TLS") + " " + insideHost(r) + pick(r, "", ":5060") + ";branch=z9hG4bK1" +
		pick(r, "", ";rport", ";rport=99;received=192.168.10.8", ";maddr=192.168.10.30", ";received=fd00::8")
}

// randomMessage makes a message with inside addresses in every place.
func randomMessage(r *rand.Rand) *Message {
	m := &Message{Method: "INVITE", URI: randomURI(r)}
	if r.IntN(2) == 0 {
		m = &Message{Status: 302, Phrase: "try " + insideText(r)}
	}
	for range 1 + r.IntN(3) {
		m.Add(pick(r, "Via", "v"), randomVia(r)+pick(r, "", ", "+randomVia(r)))
	}
	m.Add("Call-ID", "a@192.168.10.30")
	for range 12 {
		name := pick(r, "From", "t", "Contact", "m", "Route", "Record-Route", "Path", "Service-Route", "Reply-To", "P-Asserted-Identity",
			"P-Preferred-Identity", "Remote-Party-ID", "r", "b", "Diversion", "History-Info", "Call-Info", "Alert-Info", "P-Called-Party-ID", "P-Associated-URI")
		m.Add(name, pick(r, "", `"`+insideText(r)+`" `)+"<"+randomURI(r)+">"+pick(r, "", ";tag=1", `;x="`+insideText(r)+`"`))
		m.Add(pick(r, "User-Agent", "Server", "Subject", "X-Cisco-Foo", "Warning", "Reason", "WWW-Authenticate", "Error-Info", "Contact", "Via", "Date"), insideText(r)+" "+insideText(r))
		m.Add("Authorization", `Digest realm="192.168.10.30", uri="`+randomURI(r)+`", nonce="x"`)
	}
	m.Add("Replaces", "a@h;to-tag=1;x="+insideHost(r))
	m.Add("Content-Type", "message/sipfrag")
	m.Body = []byte("SIP/2.0 200 OK\r\nVia: " + randomVia(r) + "\r\nX: " + insideText(r) + "\r\n")
	return m
}

func TestNoInsideAddressSurvivesOutbound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		for _, transport := range []string{"TCP", "TLS"} {
			rw := testRewriter()
			rw.InsideTransport = transport
			m := randomMessage(r)
			before := m.String()
			if err := rw.Outbound(m); err != nil {
				t.Fatal(err)
			}
			m.Del("Call-ID")
			if found := insideLiteral.FindString(m.String()); found != "" {
				t.Fatalf("%s leaves in\n%s\nfrom\n%s", found, m, before)
			}
		}
	}
}

// For every URI and Via there is: what goes out and comes back is what it was.
func TestRandomEchoRestores(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	tokenless := 0
	for range 1500 {
		rw := testRewriter()
		uri := randomURI(r)
		u, err := ParseURI(uri)
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		if addr, ok := u.Addr(); !ok || !rw.Map.IsInside(addr) || u.HasHeaders {
			continue // the far side's URIs have no place for a token
		}
		resp := response(Header{"Contact", "<" + uri + ">"}, Header{"From", "<" + uri + ">;tag=1"})
		if err := rw.Outbound(resp); err != nil {
			t.Fatal(err)
		}
		outside, _, _ := AddressURI(resp.Get("Contact"))
		if !strings.Contains(outside, tokenParam) {
			tokenless++
		}
		next := request(outside, Header{"To", resp.Get("From")})
		if err := rw.Inbound(next); err != nil {
			t.Fatal(err)
		}
		if next.URI != uri || next.Get("To") != "<"+uri+">;tag=1" {
			t.Fatalf("%s went out as %s and came back as %s, To %s", uri, outside, next.URI, next.Get("To"))
		}
		via := randomVia(r)
		v, _ := ParseVia(via)
		if addr, ok := v.Addr(); ok && rw.Map.IsInside(addr) {
			req := request(outsideURI, Header{"Via", via})
			if err := rw.Outbound(req); err != nil {
				t.Fatal(err)
			}
			echo := response(req.Headers[0])
			if err := rw.Inbound(echo); err != nil || echo.Get("Via") != via {
				t.Fatalf("%s went out as %s and came back as %s", via, req.Get("Via"), echo.Get("Via"))
			}
		}
	}
	if tokenless == 0 {
		t.Error("every URI got a token, also those that the map alone brings back")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sampleText))
	f.Add([]byte(options("Content-Length: 0\r\n", "")))
	f.Add([]byte("SIP/2.0 200 \r\n :\r\n\r\n"))
	f.Add([]byte("A\r\r\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, v := Parse(in)
		if v != nil {
			if v.Message == nil || v.Cause == "" {
				t.Fatal("a violation without message or cause")
			}
			answer := NewResponse(v.Message, 400, "Bad").String()
			if head, _, _ := strings.Cut(answer, "\r\n\r\n"); strings.ContainsAny(strings.ReplaceAll(head, "\r\n", ""), "\r\n\x00") {
				t.Fatalf("the answer is not clean: %q", answer)
			}
			return
		}
		text := m.String()
		again, v := Parse([]byte(text))
		if v != nil {
			t.Fatalf("our own form is refused: %v\n%q", v, text)
		}
		if again.String() != text {
			t.Fatalf("not a fixed point:\n%q\n%q", text, again.String())
		}
		v1, v2 := Check(m), Check(again)
		if (v1 == nil) != (v2 == nil) {
			t.Fatalf("verdicts differ: %v, %v", v1, v2)
		}
	})
}

func FuzzURI(f *testing.F) {
	for _, s := range []string{"sip:a@b:5060;x=y?z=w", "sips:[::1]", "tel:+1", "sip:1.2.3.4", "sip:%41@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		if u.String() != s {
			t.Fatalf("%q written as %q", s, u.String())
		}
	})
}

func FuzzVia(f *testing.F) {
	for _, s := range []string{"SIP/2.0/TCP h:5060;branch=1", "SIP / 2.0 / UDP [::1] : 5 ; a = b ; c", "SIP/2.0/TCP h;received=[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVia(s)
		if err != nil {
			return
		}
		text := v.String()
		again, err := ParseVia(text)
		if err != nil || again.String() != text {
			t.Fatalf("%q written as %q and then as %q, %v", s, text, again.String(), err)
		}
	})
}

func FuzzRewriter(f *testing.F) {
	f.Add([]byte(sampleText), "x")
	r := rand.New(rand.NewPCG(5, 6))
	for range 5 {
		f.Add(randomMessage(r).Bytes(), insideText(r))
	}
	f.Fuzz(func(t *testing.T, in []byte, text string) {
		m, v := Parse(in)
		if v != nil || Check(m) != nil {
			m = request(outsideURI, Header{"Via", text}, Header{"Contact", text}, Header{"Refer-To", "<sip:a@h?X=" + text + ">"}, Header{"Authorization", text}, Header{"Replaces", text})
			m.Add("Content-Type", "multipart/mixed;boundary=b")
			m.Body = in
		}
		rw := testRewriter()
		callID := m.CallID()
		if rw.Outbound(m) != nil {
			return
		}
		if m.CallID() != callID {
			t.Fatal("the Call-ID changed")
		}
		out := m.String()
		if err := rw.Outbound(m); err == nil && m.IsRequest() && !strings.Contains(out, "ransport") && !strings.Contains(out, "SIP") && m.String() != out {
			t.Fatalf("a second translation finds more:\n%s\n%s", out, m)
		}
		_ = rw.Inbound(m) // must not panic
	})
}

// What Check has read once is what the headers say, through translation and change.
func TestKeysFollowHeaders(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	rw := testRewriter()
	same := func(m *Message, when string) {
		t.Helper()
		plain := *m
		plain.keys = messageKeys{}
		n, method := m.CSeq()
		if pn, pm := plain.CSeq(); n != pn || method != pm || m.FromTag() != plain.FromTag() || m.ToTag() != plain.ToTag() || m.Branch() != plain.Branch() {
			t.Fatalf("%s: keys %+v are not those of\n%s", when, m.keys, m)
		}
	}
	for range 3000 {
		m, v := Parse(randomMessage(r).Bytes())
		if v != nil {
			continue
		}
		m.Add("CSeq", "1 INVITE")
		m.keys = messageKeys{known: true, fromTag: m.FromTag(), toTag: m.ToTag(), branch: m.Branch()}
		m.keys.cseq, m.keys.method = (&Message{Headers: m.Headers}).CSeq()
		out := m.Clone()
		if rw.Outbound(out) == nil {
			same(out, "translated")
		}
		same(m, "checked")
		switch r.IntN(4) {
		case 0:
			m.Set("From", "<sip:x@y>;tag=other")
		case 1:
			m.Del("To")
		case 2:
			m.Prepend("Via", "SIP/2.0/TCP h;branch=z9hG4bKnew")
		case 3:
			m.Set("CSeq", "77 ACK")
		}
		same(m, "changed")
	}
	m, v := Parse([]byte("OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n" +
		"CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"))
	if v != nil || Check(m) != nil || !m.keys.known || m.Branch() == "" || m.FromTag() == "" {
		t.Errorf("a message that is checked: %v, keys %+v", v, m.keys)
	}
	for _, params := range []string{";tag=1", "", ";x=\";tag=9\";tag=2", ";TAG = a ;tagged", " ; tag=3;x"} {
		for _, via := range []string{"SIP/2.0/TCP h;branch=z9hG4bK1, SIP/2.0/UDP g;branch=z9hG4bK2", "SIP / 2.0 / TLS h : 5061 ;rport; Branch = b1", "SIP/2.0/UDP h"} {
			m, v := Parse([]byte("OPTIONS sip:b@example.com SIP/2.0\r\nv: " + via + "\r\nf: \"n\" <sip:a@h>;tag=f" + "\r\nTo: <sip:b@h>" + params + "\r\nCall-ID: c\r\n" +
				"CSeq: 00017  OPTIONS\r\nContent-Length: 0\r\n\r\n"))
			if v == nil {
				v = Check(m)
			}
			if v != nil || !m.keys.known {
				t.Fatalf("%s, %s: %v", params, via, v)
			}
			same(m, "checked")
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	text := crlf(`INVITE sip:+14085550100@209.165.201.3:5070;transport=tcp SIP/2.0
Via: SIP/2.0/TCP 192.168.10.30:5060;branch=z9hG4bK1;rport
Via: SIP/2.0/UDP 192.168.10.50:5060;branch=z9hG4bK2;rport=5060;received=192.168.10.50
Record-Route: <sip:192.168.10.30;transport=tcp;r2=on;lr>
Record-Route: <sip:192.168.10.30;r2=on;lr>
Max-Forwards: 69
From: "A" <sip:+14085550111@a.example>;tag=1
To: <sip:+14085550100@b.example>
Call-ID: 4f1d0c@192.168.10.50
CSeq: 1 INVITE
Contact: <sip:200@192.168.10.50:5060>
Supported: replaces, timer, 100rel
Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, REFER, NOTIFY, UPDATE
User-Agent: phone/1.2.3.4
X-Cisco-UC-IME-Ticket: ` + strings.Repeat("QUFB", 100) + `
Content-Type: application/sdp
Content-Length: 5

v=0
`)
	rw := testRewriter()
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m, v := Parse([]byte(text))
		if v == nil {
			v = Check(m)
		}
		if v != nil {
			b.Fatal(v)
		}
		if err := rw.Outbound(m); err != nil {
			b.Fatal(err)
		}
		m.Bytes()
	}
}
