package testbed

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLimits(t *testing.T) {
	s := StartStubs(t)
	for _, x := range []struct {
		name string
		test func(*testing.T, *StubLab)
	}{
		{"maximum-sessions", maximumSessions},
		{"half-open handshakes at a low maximum", halfOpenAtTheLimit},
		{"half-open handshakes", halfOpenFlood},
		{"no media port", noMediaPort},
		{"either end closes both", eitherEndCloses},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, s) })
		s.hangUpAll(t)
	}
}

// halfOpen opens a TCP connection from an address of a host to A's trunk and says nothing on it.
func (s *StubLab) halfOpen(t T, h *Host, from string) net.Conn {
	t.Helper()
	c, err := h.Dial("tcp", from, s.Trunk().String(), wait)
	if err != nil {
		t.Fatalf("open a connection from %s: %v", from, err)
	}
	return c
}

// refusedBeforeHandshake demands that a new connection is reset although nothing was sent on it.
func (s *StubLab) refusedBeforeHandshake(t T) {
	t.Helper()
	c, err := s.Far.Host.Dial("tcp", s.Far.Addr.Addr().String(), s.Trunk().String(), wait)
	if err == nil {
		defer c.Close()
		begin := time.Now()
		c.SetReadDeadline(begin.Add(2 * time.Second))
		_, err = c.Read(make([]byte, 1))
		if took := time.Since(begin); took > time.Second {
			t.Errorf("refused only after %v", took)
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("over the limit, a connection meets %v, want a reset", err)
	}
}

// refusedCall demands 503 at once for a call of the call agent; text is in its Reason.
func (s *StubLab) refusedCall(t T, c *StubConn, text string) *StubMessage {
	t.Helper()
	l := s.Outbound(c)
	begin := time.Now()
	inv := l.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	resp := l.AwaitStatus(t, inv, 503)
	if took := time.Since(begin); took > time.Second {
		t.Errorf("refused only after %v", took)
	}
	if r := resp.Get("Reason"); !strings.HasPrefix(r, "SIP;cause=503;text=\"") || !strings.Contains(r, text) {
		t.Errorf("Reason: %q, want %q in it", r, text)
	}
	l.AckFailure(t, inv, resp)
	return resp
}

// withMaximum is the lab's configuration with a limit of sessions.
func (s *StubLab) withMaximum(t T, n int) string {
	t.Helper()
	return s.edit(t, "ssl encryption", fmt.Sprintf("tls-proxy maximum-sessions %d\nssl encryption", n))
}

// At the limit calls and connections are refused at once, in both directions; what stands goes on, and a session that ends
// makes room.
func maximumSessions(t *testing.T, s *StubLab) {
	s.mustReload(t, s.withMaximum(t, 3))
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	f1, a1 := s.CallIn(t)
	a2, f2 := s.CallOut(t)
	third := s.FarDial(t)
	s.syncInside(t, third)
	before := s.counters(t)
	for range 10 {
		s.refusedBeforeHandshake(t)
	}
	s.grew10(t, before, "sessions_refused")
	before = s.counters(t)
	waiting := s.AgentDial(t)
	s.refusedCall(t, waiting, "maximum-sessions")
	waiting.Ping(t)
	s.grew(t, before, "session_limit", "sessions_refused", "acks_without_dialog", "keepalives")
	nothingCame(t, s.Far)
	if n := s.Counter(t, "tls-proxy", "in_use"); n != 3 {
		t.Errorf("show tls-proxy tells %v sessions in use", n)
	}
	// A call more on a connection that stands is no session more.
	s.syncOutside(t, a2.Conn)
	s.syncInside(t, f1.Conn)

	third.Close()
	freed := time.Now()
	s.syncOutsideBy(t, waiting, freed.Add(time.Second))
	s.refusedBeforeHandshake(t)
	waiting.Close()
	freed = time.Now()
	var again *StubConn
	Until(t, time.Second, "a new connection is let in", func() bool {
		var err error
		again, err = s.Far.TryDial(s.Trunk(), s.CA.TLSConfig(s.FarID, s.A.Domain))
		return err == nil
	})
	s.syncInside(t, again)
	if took := time.Since(freed); took > time.Second {
		t.Errorf("a freed session made room after %v", took)
	}

	// A lower limit ends nothing.
	s.mustReload(t, s.withMaximum(t, 1))
	callStands(t, f1, a1)
	callStands(t, a2, f2)
	s.refusedBeforeHandshake(t)
	f1.Transact(t, a1, "BYE", 200)
	f2.Transact(t, a2, "BYE", 200)
}

// grew10 demands that one counter alone has grown, by ten.
func (s *StubLab) grew10(t T, before counters, key string) {
	t.Helper()
	if d := s.counters(t).since(before); len(d) != 1 || d[key] != 10 {
		t.Errorf("counters grew by %v, want %s by 10", d, key)
	}
}

// syncOutsideBy tries a request of the call agent until it passes, which must be before the given time.
func (s *StubLab) syncOutsideBy(t T, c *StubConn, limit time.Time) {
	t.Helper()
	for {
		l := s.Outbound(c)
		m := l.Request(t, "MESSAGE", func(m *StubMessage) { m.WithBody("text/plain", "again") })
		var seen, refused *StubMessage
		Until(t, wait, "the request arrives or is answered", func() bool {
			seen, refused = s.Far.take1(InCall(l.CallID, ReqIs("MESSAGE"))), s.Agent.take1(InCall(l.CallID, RespIs(503, "MESSAGE")))
			return seen != nil || refused != nil
		})
		if time.Now().After(limit) {
			t.Errorf("no room in time")
		}
		if seen != nil {
			s.Far.AnswerLeg(seen).Respond(t, seen, 200, "OK")
			l.AwaitStatus(t, m, 200)
			return
		}
		if time.Now().After(limit) {
			return
		}
	}
}

// Connections that never begin their handshake take no session: with a maximum of three, fifty of them keep neither peers
// nor the call agent out.
func halfOpenAtTheLimit(t *testing.T, s *StubLab) {
	s.mustReload(t, s.withMaximum(t, 3))
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	for range 50 {
		defer s.halfOpen(t, s.Outsider, "").Close()
	}
	s.syncInside(t, s.FarDial(t))
	s.syncOutside(t, s.AgentDial(t))
}

// Several hundred half-open connections, from one source and from many, keep nobody out: neither a known peer, though
// its own address is among the sources, nor a stranger with a good certificate.
func halfOpenFlood(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	var flood []net.Conn
	defer func() {
		for _, c := range flood {
			c.Close()
		}
	}()
	open := func(h *Host, from string, n int) []net.Conn {
		var own []net.Conn
		for range n {
			own = append(own, s.halfOpen(t, h, from))
		}
		flood = append(flood, own...)
		return own
	}
	one := open(s.Outsider, s.OutsiderIP.String(), 300)
	for _, c := range one {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err == nil || !isTimeout(err) {
			t.Fatalf("one of 300 connections of one source was closed: %v", err)
		}
	}
	knownCalls := func() {
		t.Helper()
		begin := time.Now()
		s.syncInside(t, s.FarDial(t))
		s.syncOutside(t, s.AgentDial(t))
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("it took %v to get through", took)
		}
		callStands(t, f, a)
	}
	knownCalls()
	var many []string
	for i := range 20 {
		ip := fmt.Sprintf("198.51.100.%d", 100+i)
		many = append(many, "addr add "+ip+"/24 dev eth0")
		defer s.Outsider.ip("addr del " + ip + "/24 dev eth0")
	}
	if err := s.Outsider.ip(many...); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		open(s.Outsider, fmt.Sprintf("198.51.100.%d", 100+i), 50)
	}
	knownCalls()
	open(s.Far.Host, s.Far.Addr.Addr().String(), 300)
	knownCalls()
	t.Run("stranger", func(t *testing.T) {
		c, err := s.Outsider.Dial("tcp", "198.51.100.10", s.Trunk().String(), wait)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(wait))
		k := tls.Client(c, s.CA.TLSConfig(s.Issue(t, "stranger", EdgeCert("c.example")), s.A.Domain))
		if _, err := k.Write([]byte("\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Read(make([]byte, 2)); err != nil {
			t.Error(err)
		}
	})
	f.Transact(t, a, "BYE", 200)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// With every media port in use a call gets a clear answer in either direction, and nothing of it is left; calls that
// stand keep their ports, later ones get those of a wider range.
func noMediaPort(t *testing.T, s *StubLab) {
	const pairs = 10
	s.mustReload(t, s.edit(t, "rtp-min-port 16384 rtp-maxport 32767", fmt.Sprintf("rtp-min-port 20000 rtp-max-port %d", 20000+2*pairs-1)))
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	type call struct{ a, b *Leg }
	var calls []call
	agentConn, farConn := s.AgentDial(t), s.FarDial(t)
	s.syncOutside(t, agentConn)
	s.syncInside(t, farConn)
	for i := range pairs {
		if i%2 == 0 {
			a, f := s.CallOut(t)
			calls = append(calls, call{a, f})
		} else {
			f, a := s.CallIn(t)
			calls = append(calls, call{f, a})
		}
	}
	files := openFiles(t, s.Proxy)
	before := s.counters(t)
	resp := s.refusedCall(t, agentConn, "media port")
	if resp.Get("Retry-After") == "" {
		t.Errorf("no Retry-After in\n%s", resp.Raw)
	}
	l := s.Inbound(farConn)
	inv := l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	resp = l.AwaitStatus(t, inv, 503)
	if resp.Get("Reason") != "" {
		t.Errorf("the Internet is told the reason: %q", resp.Get("Reason"))
	}
	l.AckFailure(t, inv, resp)
	farConn.Ping(t)
	if d := s.counters(t).since(before); d["no_media_port"] != 2 {
		t.Errorf("counters grew by %v, want no_media_port by 2", d)
	}
	nothingCame(t, s.Far)
	nothingCame(t, s.Agent)
	if n := s.Streams(t); n != pairs {
		t.Errorf("%d streams, want %d", n, pairs)
	}
	if n := openFiles(t, s.Proxy); n > files {
		t.Errorf("%d files open, %d before the refused calls", n, files)
	}
	t.Run("offer in the answer", func(t *testing.T) {
		// The port is needed only when the callee has answered: it is hung up, and the caller told.
		l := s.Outbound(agentConn)
		inv := l.Request(t, "INVITE")
		seen := s.Far.Expect(t, InCall(l.CallID, ReqIs("INVITE")), wait)
		f := s.Far.AnswerLeg(seen)
		f.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20000)))
		resp := l.AwaitStatus(t, inv, 503)
		l.AckFailure(t, inv, resp)
		f.Expect(t, "ACK")
		bye := f.Expect(t, "BYE")
		f.Respond(t, bye, 200, "OK")
	})
	for _, c := range calls {
		callStands(t, c.a, c.b)
	}
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	a, f := s.CallOut(t)
	a.Transact(t, f, "BYE", 200)
	for _, c := range calls {
		c.a.Transact(t, c.b, "BYE", 200)
	}
	Until(t, 3*time.Second, "no stream is left", func() bool { return s.Streams(t) == 0 })
}

// When one connection ends, the other one of its session ends within a second and the session is gone. The call and its
// media stay, and its next request goes over a new connection, whichever end opens it.
func eitherEndCloses(t *testing.T, s *StubLab) {
	for _, how := range []struct {
		name string
		end  func(*StubConn)
	}{{"closed", func(c *StubConn) { c.Close() }}, {"reset", (*StubConn).Reset}} {
		for _, outside := range []bool{true, false} {
			for _, agentNext := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, outside %v, call agent goes on %v", how.name, outside, agentNext), func(t *testing.T) {
					f, a := s.CallIn(t)
					cut, other := a.Conn, f.Conn
					if outside {
						cut, other = other, cut
					}
					how.end(cut)
					begin := time.Now()
					other.WaitEnd(t, wait)
					Until(t, wait, "the signaling session is freed", func() bool { return s.SessionsInUse(t) == 0 })
					if took := time.Since(begin); took > time.Second {
						t.Errorf("freed after %v", took)
					}
					if n := s.Streams(t); n != 1 {
						t.Errorf("%d streams after the cut", n)
					}
					if agentNext {
						a.Conn = s.AgentDial(t)
						seen, _ := a.Transact(t, f, "INFO", 200)
						f.Conn = seen.Conn
					} else {
						f.Conn = s.FarDial(t)
						seen, _ := f.Transact(t, a, "INFO", 200)
						a.Conn = seen.Conn
					}
					callStands(t, f, a)
					if n := s.SessionsInUse(t); n != 1 {
						t.Errorf("%d signaling sessions carry the call", n)
					}
					f.Transact(t, a, "BYE", 200)
					Until(t, wait, "no stream is left", func() bool { return s.Streams(t) == 0 })
					s.hangUpAll(t)
				})
			}
		}
	}
}
