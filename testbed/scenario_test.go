package testbed

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// counters is what `show uc-ime signaling-sessions statistics` counts, by its JSON keys.
type counters map[string]float64

func (s *StubLab) counters(t T) counters {
	t.Helper()
	var c counters
	s.Proxy.Show(t, "uc-ime signaling-sessions statistics", &c)
	return c
}

// since gives what has grown, and by how much.
func (c counters) since(before counters) counters {
	d := counters{}
	for k, v := range c {
		if v != before[k] {
			d[k] = v - before[k]
		}
	}
	return d
}

// grew demands that exactly these counters have grown by one each, once
// something that was sent afterwards has been answered.
func (s *StubLab) grew(t T, before counters, keys ...string) {
	t.Helper()
	want := counters{}
	for _, k := range keys {
		want[k]++
	}
	if got := s.counters(t).since(before); !maps.Equal(got, want) {
		t.Errorf("counters grew by %v, want %v", got, want)
	}
}

// Ping sends a keep-alive and waits for its answer: everything that was sent
// on the connection before has been dealt with then.
func (k *StubConn) Ping(t T) {
	t.Helper()
	k.SendRaw(t, []byte("\r\n\r\n"))
	k.stub.Expect(t, func(m *StubMessage) bool { return m.Conn == k && m.Start == "PONG" }, wait)
}

// syncInside proves that a call agent has seen everything that was let
// through on this connection: a good request that was sent last arrives.
func (s *StubLab) syncInside(t T, c *StubConn) {
	t.Helper()
	l := s.Inbound(c)
	l.Request(t, "MESSAGE", s.WithTicket, func(m *StubMessage) { m.WithBody("text/plain", "barrier") })
	seen := s.Agent.Expect(t, InCall(l.CallID, ReqIs("MESSAGE")), wait)
	s.Agent.AnswerLeg(seen).Respond(t, seen, 200, "OK")
	s.Far.Expect(t, InCall(l.CallID, RespIs(200, "MESSAGE")), wait)
}

// syncOutside is the same for requests of the call agent.
func (s *StubLab) syncOutside(t T, c *StubConn) {
	t.Helper()
	l := s.Outbound(c)
	l.Request(t, "MESSAGE", func(m *StubMessage) { m.WithBody("text/plain", "barrier") })
	seen := s.Far.Expect(t, InCall(l.CallID, ReqIs("MESSAGE")), wait)
	s.Far.AnswerLeg(seen).Respond(t, seen, 200, "OK")
	s.Agent.Expect(t, InCall(l.CallID, RespIs(200, "MESSAGE")), wait)
}

// nothingCame demands that a stub's inbox holds no request.
func nothingCame(t T, s *Stub) {
	t.Helper()
	for _, m := range s.Drain() {
		if m.Method() != "" && m.Start != "PING" && m.Start != "PONG" {
			t.Errorf("%s got a request that should have gone no further:\n%s", s.Name, m.Raw)
		}
	}
}

// bare demands a response that tells its receiver nothing beyond the status.
func bare(t T, m *StubMessage) {
	t.Helper()
	for _, h := range m.Headers {
		if !slices.Contains([]string{"via", "from", "to", "call-id", "cseq", "content-length"}, canonicalName(h.Name)) {
			t.Errorf("%s carries %s: %s", m.Start, h.Name, h.Value)
		}
	}
	if m.Body != "" {
		t.Errorf("%s carries a body %q", m.Start, m.Body)
	}
}

// reload writes a configuration and lets the daemon read it; it returns what
// the daemon says of it.
func (s *StubLab) reload(t T, text string) string {
	t.Helper()
	before := len(s.Proxy.Log())
	s.Proxy.WriteConfig(t, text)
	s.Proxy.Signal(sigHUP)
	var said string
	Until(t, 10*time.Second, "the daemon has read its configuration again", func() bool {
		said = s.Proxy.Log()[before:]
		return strings.Contains(said, "configuration reloaded") || strings.Contains(said, "reload failed")
	})
	return said
}

// edit changes the default configuration of the proxy.
func (s *StubLab) edit(t T, old, text string) string {
	t.Helper()
	config := s.Proxy.DefaultConfig(t)
	if !strings.Contains(config, old) {
		t.Fatalf("the configuration has no %q", old)
	}
	return strings.Replace(config, old, text, 1)
}

// mustReload reloads and demands success.
func (s *StubLab) mustReload(t T, text string) {
	t.Helper()
	if said := s.reload(t, text); !strings.Contains(said, "configuration reloaded") {
		t.Fatalf("the configuration was refused:\n%s", said)
	}
}

// callStands proves that a call is whole: each end still reaches the other.
func callStands(t T, a, b *Leg) {
	t.Helper()
	a.Transact(t, b, "INFO", 200)
	b.Transact(t, a, "INFO", 200)
}

// each runs a subtest a name.
func each(t *testing.T, names []string, f func(t *testing.T, name string)) {
	t.Helper()
	for _, n := range names {
		t.Run(n, func(t *testing.T) { f(t, n) })
	}
}

// hangUpAll closes every connection of the stubs and waits until the proxy
// has freed their signaling sessions.
func (s *StubLab) hangUpAll(t T) {
	t.Helper()
	for _, st := range []*Stub{s.Agent, s.Far} {
		for _, c := range st.Open() {
			c.Close()
		}
		st.Drain()
	}
	Until(t, wait, "every signaling session is freed", func() bool { return s.SessionsInUse(t) == 0 })
}
