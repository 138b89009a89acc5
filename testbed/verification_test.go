package testbed

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// badMessage is a way to get a message wrong, as a change of the text of a
// good INVITE.
type badMessage struct {
	name    string
	change  func(text string) string
	status  int    // of the answer; 0: none
	counter string // that grows by one
	closes  bool   // the stream cannot be read on, so the connection ends
}

// swap replaces the first occurrence of old, which must be there.
func swap(old, text string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, old) {
			panic(fmt.Sprintf("no %q in the message", old))
		}
		return strings.Replace(s, old, text, 1)
	}
}

// headerLine replaces a whole header line; text "" removes it.
func headerLine(name, text string) func(string) string {
	return func(s string) string {
		at := strings.Index(s, "\r\n"+name+": ") + 2
		end := at + strings.Index(s[at:], "\r\n") + 2
		if at < 2 {
			panic(fmt.Sprintf("no header %q in the message", name))
		}
		return s[:at] + text + s[end:]
	}
}

// before puts text before a header line.
func before(name, text string) func(string) string {
	return swap("\r\n"+name+": ", "\r\n"+text+name+": ")
}

// startLine changes the start line.
func startLine(f func(method, uri, version string) string) func(string) string {
	return func(s string) string {
		line, rest, _ := strings.Cut(s, "\r\n")
		p := strings.Split(line, " ")
		return f(p[0], p[1], p[2]) + "\r\n" + rest
	}
}

// body replaces the body, and Content-Type when one is given.
func body(kind, text string) func(string) string {
	return func(s string) string {
		head, _, _ := strings.Cut(s, "\r\n\r\n")
		s = headerLine("Content-Length", fmt.Sprintf("Content-Length: %d\r\n", len(text)))(head + "\r\n\r\n")
		line := ""
		if kind != "" {
			line = "Content-Type: " + kind + "\r\n"
		}
		return headerLine("Content-Type", line)(s) + text
	}
}

var badMessages = []badMessage{
	{"two blanks in the start line", startLine(func(m, u, v string) string { return m + "  " + u + " " + v }), 400, "bad_start_line", false},
	{"no version", startLine(func(m, u, _ string) string { return m + " " + u }), 400, "bad_start_line", false},
	{"SIP/3.0", startLine(func(m, u, _ string) string { return m + " " + u + " SIP/3.0" }), 505, "unsupported_version", false},
	{"brackets round the Request-URI", startLine(func(m, u, v string) string { return m + " <" + u + "> " + v }), 400, "bad_request_uri", false},
	{"headers in the Request-URI", startLine(func(m, u, v string) string { return m + " " + u + "?Subject=x " + v }), 400, "bad_request_uri", false},
	{"control character in the Request-URI", swap("INVITE sip:+", "INVITE sip:\x01+"), 400, "control_character_in_uri", false},
	{"escaped CRLF in the Request-URI", swap("INVITE sip:+", "INVITE sip:%0d%0a+"), 400, "control_character_in_uri", false},
	{"escaped NUL in Contact", swap("Contact: <sip:", "Contact: <sip:%00@"), 400, "control_character_in_uri", false},
	{"no Via", headerLine("Via", ""), 400, "missing_header", false},
	{"no From", headerLine("From", ""), 400, "missing_header", false},
	{"no To", headerLine("To", ""), 400, "missing_header", false},
	{"no Call-ID", headerLine("Call-ID", ""), 400, "missing_header", false},
	{"no CSeq", headerLine("CSeq", ""), 400, "missing_header", false},
	{"bad Via", headerLine("Via", "Via: SIP/2.0/TLS\r\n"), 400, "bad_via", false},
	{"bad From", swap("From: ", "From: <"), 400, "bad_from", false},
	{"two tags in From", swap(";tag=", ";tag=x;tag="), 400, "bad_from", false},
	{"no tag in From", swap(";tag=", ";t="), 400, "no_from_tag", false},
	{"bad To", headerLine("To", "To: sip:\r\n"), 400, "bad_to", false},
	{"Call-ID of two words", swap("Call-ID: ", "Call-ID: two "), 400, "bad_call_id", false},
	{"CSeq of no number", headerLine("CSeq", "CSeq: x INVITE\r\n"), 400, "bad_cseq", false},
	{"CSeq too large", headerLine("CSeq", "CSeq: 4294967297 INVITE\r\n"), 400, "bad_cseq", false},
	{"CSeq of another method", headerLine("CSeq", "CSeq: 101 BYE\r\n"), 400, "cseq_method_mismatch", false},
	{"two From", before("From", "f: <sip:x@example.com>;tag=1\r\n"), 400, "duplicate_header", false},
	{"two To", before("To", "t: <sip:x@example.com>\r\n"), 400, "duplicate_header", false},
	{"two Call-ID", before("Call-ID", "i: other\r\n"), 400, "duplicate_header", false},
	{"two CSeq", before("CSeq", "CSeq: 1 INVITE\r\n"), 400, "duplicate_header", false},
	{"two Max-Forwards", before("CSeq", "Max-Forwards: 5\r\n"), 400, "duplicate_header", false},
	{"no Contact", headerLine("Contact", ""), 400, "no_contact", false},
	{"two Contacts", before("Contact", "Contact: <sip:x@203.0.113.1>\r\n"), 400, "bad_contact", false},
	{"Max-Forwards 0", headerLine("Max-Forwards", "Max-Forwards: 0\r\n"), 483, "too_many_hops", false},
	{"Max-Forwards 256", headerLine("Max-Forwards", "Max-Forwards: 256\r\n"), 400, "bad_max_forwards", false},
	{"bad Route", before("From", "Route: sip:no-brackets@example.com\r\n"), 400, "bad_route", false},
	{"bad P-Asserted-Identity", before("From", "P-Asserted-Identity: <<>>\r\n"), 400, "bad_identity", false},
	{"no Content-Length", headerLine("Content-Length", ""), 400, "no_content_length", true},
	{"Content-Length of no number", headerLine("Content-Length", "Content-Length: ten\r\n"), 400, "bad_content_length", true},
	{"negative Content-Length", headerLine("Content-Length", "Content-Length: -1\r\n"), 400, "bad_content_length", true},
	{"two lengths", before("Content-Length", "l: 1\r\n"), 400, "bad_content_length", true},
	{"Content-Length of a megabyte", headerLine("Content-Length", "Content-Length: 1048576\r\n"), 513, "frame_too_large", true},
	{"bare LF", swap("\r\nMax-Forwards", "\nMax-Forwards"), 400, "bare_line_end", false},
	{"bare CR", swap("\r\nMax-Forwards", "\rMax-Forwards"), 400, "bare_line_end", false},
	{"bare LF at the end of the head", swap("\r\n\r\n", "\n\n"), 400, "bare_line_end", true},
	{"NUL", swap("\r\nMax-Forwards", "\r\nX: a\x00b\r\nMax-Forwards"), 400, "nul_in_head", false},
	{"no colon", before("From", "no colon here\r\n"), 400, "header_without_colon", false},
	{"illegal header name", before("From", "X(y): z\r\n"), 400, "bad_header_name", false},
	{"blank within a header name", before("From", "X y: z\r\n"), 400, "bad_header_name", false},
	{"empty header name", before("From", ": z\r\n"), 400, "bad_header_name", false},
	{"continuation of nothing", before("Via", " folded\r\n"), 400, "stray_continuation", false},
	{"line of 8 KiB", before("From", "X-Long: "+strings.Repeat("x", 8<<10)+"\r\n"), 400, "header_too_long", false},
	{"Call-ID over 1 KiB", swap("Call-ID: ", "Call-ID: "+strings.Repeat("x", 1<<10)), 400, "identifier_too_long", false},
	{"tag over 1 KiB", swap(";tag=", ";tag="+strings.Repeat("x", 1<<10)), 400, "identifier_too_long", false},
	{"folded line of 8 KiB", before("From", "X-Long: x\r\n"+strings.Repeat(" "+strings.Repeat("x", 100)+"\r\n", 85)), 400, "header_too_long", false},
	{"300 headers", before("From", strings.Repeat("X: y\r\n", 300)), 400, "too_many_headers", false},
	{"head of 64 KiB", before("From", strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 66)), 513, "frame_too_large", true},
	{"body without type", body("", "hello"), 400, "no_content_type", false},
	{"bad Content-Type", body("sdp", "v=0\r\n"), 400, "bad_content_type", false},
	{"body that is no SDP", body("application/sdp", "hello"), 400, "body_mismatch", false},
	{"multipart without boundary", body("multipart/mixed", "--x\r\n\r\nhello\r\n--x--\r\n"), 400, "bad_content_type", false},
	{"boundary that is not in the body", body("multipart/mixed;boundary=y", "--x\r\n\r\nhello\r\n--x--\r\n"), 400, "body_mismatch", false},
	{"encoded body", before("From", "Content-Encoding: gzip\r\n"), 415, "content_encoding", false},
	{"SDP without RTP", body("application/sdp", "v=0\r\nc=IN IP4 209.165.201.4\r\nm=image 4000 udptl t38\r\n"), 488, "unusable_offer", false},
	{"33 m= lines", func(s string) string {
		head, sdp, _ := strings.Cut(s, "\r\n\r\n")
		return body("application/sdp", strings.TrimRight(sdp, "\r\n")+"\r\n"+strings.Repeat("m=audio 30000 RTP/AVP 0\r\n", 32))(head + "\r\n\r\n")
	}, 488, "unusable_offer", false},
}

// Each malformed message gets its answer and its counter, and goes no further
// in either direction.
func TestVerification(t *testing.T) {
	s := StartStubs(t)
	inbound := func() *StubMessage {
		m := s.Inbound(nil).NewRequest("INVITE").WithSDP(secureOffer(s.B.MediaOut.String(), 20000))
		s.WithTicket(m)
		return m
	}
	outbound := func() *StubMessage {
		return s.Outbound(nil).NewRequest("INVITE").WithSDP(plainOffer(s.A.PhoneIP.String(), 4000))
	}
	t.Run("from the Internet", func(t *testing.T) {
		s.refused(t, s.Far, s.Agent, s.FarDial, inbound, s.syncInside)
	})
	s.hangUpAll(t)
	t.Run("from the call agent", func(t *testing.T) {
		s.refused(t, s.Agent, s.Far, s.AgentDial, outbound, s.syncOutside)
	})
	s.hangUpAll(t)
	t.Run("what RFC 3261 allows", func(t *testing.T) { allowedOddities(t, s) })
	s.hangUpAll(t)
	t.Run("what the state does not allow", func(t *testing.T) { outOfState(t, s) })
	s.hangUpAll(t)
	t.Run("dialogs of others", func(t *testing.T) { foreignDialog(t, s) })
}

// refused sends every bad message from one stub and looks at both.
func (s *StubLab) refused(t *testing.T, from, to *Stub, dial func(T) *StubConn, good func() *StubMessage, barrier func(T, *StubConn)) {
	c := dial(t)
	for _, bad := range badMessages {
		t.Run(bad.name, func(t *testing.T) {
			if c.Ended() != nil {
				c = dial(t)
			}
			// Opens the other side, which must not be closed when the message is refused.
			barrier(t, c)
			m := good()
			m.Add("Content-Length", fmt.Sprint(len(m.Body)))
			counted := s.counters(t)
			c.SendRaw(t, []byte(bad.change(string(m.Bytes()))))
			if bad.status > 0 {
				resp := from.Expect(t, func(m *StubMessage) bool { return m.Conn == c && m.Status() > 0 }, wait)
				if resp.Status() != bad.status {
					t.Errorf("answered %q, want %d", resp.Start, bad.status)
				}
				if id := resp.Get("Call-ID"); id != "" && !strings.HasSuffix(id, m.Get("Call-ID")) && id != "other" {
					t.Errorf("the answer is to Call-ID %q", id)
				}
			}
			from.Faults() // the stub cannot know what was sent raw
			if bad.closes {
				c.WaitEnd(t, wait)
				c = dial(t)
			}
			want := []string{bad.counter}
			if bad.status == 488 && from == s.Far {
				want = append(want, "tickets_verified") // looked at before the description
			}
			s.grew(t, counted, want...)
			barrier(t, c)
			nothingCame(t, to)
			from.Drain()
		})
	}
}

// allowedOddities are well-formed, though unusual: they pass.
func allowedOddities(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	for _, odd := range []struct {
		name   string
		change func(string) string
	}{
		{"blank before the colon", swap("Max-Forwards:", "Max-Forwards \t:")},
		{"folded header", swap("From: ", "From:\r\n ")},
		{"compact names", func(s string) string {
			s = swap("\r\nFrom:", "\r\nf:")(s)
			return swap("\r\nCall-ID:", "\r\ni:")(s)
		}},
		{"no Max-Forwards", headerLine("Max-Forwards", "")},
		{"header of 8000 bytes", before("From", "X-Long: "+strings.Repeat("x", 8000)+"\r\n")},
		{"empty header", before("From", "X-Empty:\r\n")},
		{"UTF-8 display name", swap("From: <", "From: \"J\u00fcrgen\" <")},
		{"CRLF before the start line", func(s string) string { return "\r\n" + s }},
	} {
		t.Run(odd.name, func(t *testing.T) {
			m := s.Inbound(nil).NewRequest("MESSAGE").WithBody("text/plain", "hello")
			s.WithTicket(m)
			c.SendRaw(t, []byte(odd.change(string(m.Bytes()))))
			seen := s.Agent.Expect(t, InCall(m.Get("Call-ID"), ReqIs("MESSAGE")), wait)
			if seen.Body != "hello" {
				t.Errorf("body %q", seen.Body)
			}
			s.Agent.AnswerLeg(seen).Respond(t, seen, 200, "OK")
			s.Far.Expect(t, InCall(m.Get("Call-ID"), RespIs(200, "MESSAGE")), wait)
		})
	}
	s.Far.Faults() // what was sent raw
}

// outOfState sends what the dialog's state does not allow: nothing of it
// reaches the other end, and the call stands.
func outOfState(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	refused := func(name string, from, to *Leg, counter string, status int, send func() *StubMessage) {
		t.Run(name, func(t *testing.T) {
			counted := s.counters(t)
			req := send()
			if status > 0 {
				from.AwaitStatus(t, req, status)
			} else {
				from.Conn.Ping(t)
			}
			if d := s.counters(t).since(counted); d[counter] != 1 {
				t.Errorf("counters grew by %v, want one %s", d, counter)
			}
			callStands(t, f, a)
			nothingCame(t, to.Stub)
		})
	}
	for _, d := range []struct {
		name     string
		from, to *Leg
	}{{"outside ", f, a}, {"inside ", a, f}} {
		from, to := d.from, d.to
		other := func(method string, change ...func(*StubMessage)) func() *StubMessage {
			return func() *StubMessage {
				x := *from
				x.RemoteTag = "no-such-tag"
				return x.Request(t, method, change...)
			}
		}
		old := func() *StubMessage {
			x := *from
			x.CSeq = 1
			return x.Request(t, "INFO")
		}
		refused(d.name+"BYE of another dialog", from, to, "no_dialog", 481, other("BYE"))
		refused(d.name+"INVITE of another dialog", from, to, "no_dialog", 481, other("INVITE"))
		refused(d.name+"old CSeq", from, to, "cseq_order", 500, old)
		refused(d.name+"PRACK of nothing", from, to, "no_dialog", 481, func() *StubMessage {
			return from.Request(t, "PRACK", func(m *StubMessage) { m.Add("RAck", "1 1 INVITE") })
		})
		refused(d.name+"NOTIFY without subscription", from, to, "no_dialog", 481, func() *StubMessage {
			return from.Request(t, "NOTIFY", func(m *StubMessage) { m.Add("Event", "refer").Add("Subscription-State", "active") })
		})
		refused(d.name+"REGISTER", from, to, "dialog_state", 403, func() *StubMessage { return from.Request(t, "REGISTER") })
		refused(d.name+"PUBLISH", from, to, "dialog_state", 403, func() *StubMessage { return from.Request(t, "PUBLISH") })
		refused(d.name+"method that nobody knows", from, to, "unknown_method", 501, func() *StubMessage { return from.Request(t, "FROBNICATE") })
		refused(d.name+"CANCEL of nothing", from, to, "no_dialog", 481, func() *StubMessage {
			x := *from
			return x.Request(t, "CANCEL")
		})
		refused(d.name+"stray response", from, to, "response_without_request", 0, func() *StubMessage {
			m := from.NewResponse(to.NewRequest("INFO"), 200, "OK")
			from.Conn.SendRaw(t, m.Bytes())
			return m
		})
	}
	t.Run("after the end", func(t *testing.T) {
		f.Transact(t, a, "BYE", 200)
		f.AwaitStatus(t, f.Request(t, "INFO"), 481)
		a.AwaitStatus(t, a.Request(t, "UPDATE"), 481)
		s.syncInside(t, f.Conn)
		nothingCame(t, s.Agent)
		nothingCame(t, s.Far)
	})
	t.Run("callee ends what rings", func(t *testing.T) {
		f := s.Inbound(s.FarDial(t))
		inv := f.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
		seen := s.Agent.Expect(t, InCall(f.CallID, ReqIs("INVITE")), wait)
		a := s.Agent.AnswerLeg(seen)
		a.Respond(t, seen, 180, "Ringing")
		f.AwaitStatus(t, inv, 180)
		a.AwaitStatus(t, a.Request(t, "BYE"), 481)
		a.Respond(t, seen, 486, "Busy Here")
		f.AckFailure(t, inv, f.AwaitStatus(t, inv, 486))
		a.Expect(t, "ACK")
		nothingCame(t, s.Far)
	})
}

// foreignDialog: another enterprise with a good certificate and all the
// identifiers of a dialog gets 481, as if there were none.
func foreignDialog(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	evil := s.Issue(t, "evil", EdgeCert("evil.example"))
	x := *f
	x.Conn = s.Far.Dial(t, s.Trunk(), s.CA.TLSConfig(evil, s.A.Domain))
	each(t, []string{"BYE", "INVITE", "INFO", "REFER", "UPDATE"}, func(t *testing.T, method string) {
		y := x
		y.CSeq = 1000
		y.AwaitStatus(t, y.Request(t, method, func(m *StubMessage) {
			if method == "REFER" {
				m.Add("Refer-To", "<sip:x@evil.example>")
			}
		}), 481)
	})
	callStands(t, f, a)
	nothingCame(t, s.Agent)
	// Nor may it answer what is not asked of it.
	info := a.Request(t, "INFO")
	seen := f.Expect(t, "INFO")
	resp := f.NewResponse(seen, 200, "OK")
	x.Conn.SendRaw(t, resp.Bytes())
	x.Conn.Ping(t)
	f.Respond(t, seen, 202, "Accepted")
	a.AwaitStatus(t, info, 202)
	f.Transact(t, a, "BYE", 200)
}

// clientHello is the beginning of a real handshake.
func clientHello(t T, cfg *tls.Config) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go tls.Client(theirs, cfg).Handshake()
	defer ours.Close()
	buf := make([]byte, 4096)
	ours.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := ours.Read(buf)
	if err != nil {
		t.Fatalf("client hello: %v", err)
	}
	return buf[:n]
}

// Garbage ends its connection at once, silence and slowness within 10 s; the
// calls of others do not notice, not even one that is silent itself.
func TestBadPeers(t *testing.T) {
	s := StartStubs(t)
	quietF, quietA := s.CallIn(t)
	f, a := s.CallOut(t)
	trunk := s.Trunk()
	raw := func() *StubConn { return s.Far.Dial(t, trunk, nil) }
	begin := time.Now()
	type end struct {
		name     string
		conn     *StubConn
		min, max time.Duration
	}
	var ends []end
	at := func(name string, c *StubConn, min, max time.Duration) { ends = append(ends, end{name, c, min, max}) }
	soon := func(name string, c *StubConn, b []byte) {
		c.SendRaw(t, b)
		at(name, c, 0, 2*time.Second)
	}
	late := func(name string, c *StubConn, b string) {
		if b != "" {
			c.SendRaw(t, []byte(b))
		}
		at(name, c, 8*time.Second, 12*time.Second)
	}
	garbage := make([]byte, 300)
	for i := range garbage {
		garbage[i] = byte(i*7 + 128)
	}
	good := s.Inbound(nil).NewRequest("MESSAGE")
	s.WithTicket(good)
	half := string(good.Bytes())[:100]
	soon("garbage instead of TLS", raw(), garbage)
	soon("HTTP instead of TLS", raw(), []byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"))
	soon("TLS alert instead of a handshake", raw(), []byte{21, 3, 3, 0, 2, 2, 40})
	soon("garbage inside TLS", s.FarDial(t), garbage)
	soon("garbage from the call agent", s.AgentDial(t), garbage)
	alert := s.FarDial(t)
	if err := alert.Conn.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	at("TLS alert close_notify", alert, 0, 2*time.Second)
	late("silence before the handshake", raw(), "")
	late("half a handshake", raw(), string(clientHello(t, s.CA.TLSConfig(s.FarID, s.A.Domain))[:50]))
	late("silence after the handshake", s.FarDial(t), "")
	late("half a message", s.FarDial(t), half)
	late("half a body", s.FarDial(t), strings.Replace(string(good.Bytes()), "Content-Length: 0", "Content-Type: text/plain\r\nContent-Length: 9", 1)+"1234")
	late("silence of the call agent", s.AgentDial(t), "")
	late("half a message of the call agent", s.AgentDial(t), half)
	second := s.FarDial(t)
	s.syncInside(t, second)
	late("half a second message", second, half)
	slow := raw()
	at("slow handshake", slow, 8*time.Second, 12*time.Second)
	hello := clientHello(t, s.CA.TLSConfig(s.FarID, s.A.Domain))
	drip := s.FarDial(t)
	at("dripping message", drip, 8*time.Second, 12*time.Second)

	sent, took := 0, make(map[int]time.Duration)
	ok := eventually(15*time.Second, func() bool {
		if now := int(time.Since(begin) / (400 * time.Millisecond)); now > sent {
			// Errors are those of ends that the loop is about to see.
			slow.Write(hello[sent : sent+1])
			drip.Write([]byte(half[sent : sent+1]))
			sent = now
			callStands(t, f, a)
		}
		for i, e := range ends {
			if _, seen := took[i]; !seen && e.conn.Ended() != nil {
				took[i] = time.Since(begin)
			}
		}
		return len(took) == len(ends)
	})
	for i, e := range ends {
		switch d, seen := took[i]; {
		case !seen:
			t.Errorf("%s: the connection stands after %v", e.name, time.Since(begin))
		case d < e.min || d > e.max:
			t.Errorf("%s: the connection ended after %v, want %v to %v", e.name, d, e.min, e.max)
		}
	}
	if !ok {
		return
	}
	callStands(t, quietF, quietA)
	callStands(t, f, a)
	Until(t, wait, "only the sessions of the two calls are left", func() bool { return s.SessionsInUse(t) == 2 })
	nothingCame(t, s.Far)
}
