package proxy

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
)

// strangersSession is a session from the Internet, without connections.
func strangersSession(t *testing.T) *session {
	t.Helper()
	a := &Appliance{now: time.Now, sealer: sipalg.NewSealer([32]byte{1})}
	p := testPlan(t, edgeConfig)
	a.plan.Store(p)
	s := &session{
		a: a, opener: dialog.Outside, agent: p.agents[netip.MustParseAddr("192.168.10.30")], remote: netip.MustParseAddrPort("198.51.100.9:33333"),
		mapped: netip.MustParseAddrPort("209.165.200.227:5070"), agentPort: 5070,
	}
	s.rw = a.rewriter(s)
	return s
}

func sipMessage(t *testing.T, lines ...string) *sipalg.Message {
	t.Helper()
	m, v := sipalg.Parse([]byte(strings.Join(append(lines, "Content-Length: 0", "", ""), "\r\n")))
	if v != nil {
		t.Fatal(v)
	}
	return m
}

// The number that the ticket must hold is that of the Request-URI as the call agent gets it.
func TestTokenDoesNotChangeTheCalledNumber(t *testing.T) {
	s := strangersSession(t)
	bait := sipMessage(t, "INVITE sip:+14085550100@a.example SIP/2.0", "From: <sip:+19005550100:209.165.200.227@209.165.200.227;transport=udp>;tag=x")
	if err := s.rw.Inbound(bait); err != nil {
		t.Fatal(err)
	}
	if err := s.rw.Outbound(bait); err != nil { // as the answer repeats it
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(bait.Get("From"), "x-ime=")
	token, _, ok := strings.Cut(token, ">")
	if !ok {
		t.Fatalf("no token is shown: %s", bait.Get("From"))
	}
	m := sipMessage(t, "INVITE sip:+14085550100@209.165.200.227;transport=tls;x-ime="+token+" SIP/2.0")
	called := s.calledUser(m)
	if err := s.rw.Inbound(m); err != nil {
		t.Fatal(err)
	}
	if got := requestUser(m); got != called {
		t.Errorf("the ticket is looked up for %q, the call agent is asked for %q", called, got)
	}
}

// Neither may it be asked for another one by a Route, which a strict router would put into the Request-URI.
func TestRouteDoesNotChangeTheCalledNumber(t *testing.T) {
	s := strangersSession(t)
	for route, elsewhere := range map[string]bool{
		"<sip:209.165.200.227:5070;transport=tls;lr>": false, "<sip:a.example;lr>, <sip:edge.b.example;lr>": false, "<sip:+1-408-555-0100@a.example>": false,
		"<sip:+19005550100@209.165.200.227>": true, "<sip:a.example;lr>, \"x\" <sip:%2B19005550100:x@a.example;lr>": true,
	} {
		m := sipMessage(t, "INVITE sip:+14085550100@a.example SIP/2.0", "Route: "+route)
		if got := s.routedElsewhere(m, s.calledUser(m)); got != elsewhere {
			t.Errorf("Route: %s leads elsewhere: %v, want %v", route, got, elsewhere)
		}
	}
}

func TestStrangersNameNoInsideHost(t *testing.T) {
	s := strangersSession(t)
	for uri, inside := range map[string]bool{
		"sip:+14085550100@a.example":                                    false,
		"sip:+14085550100@209.165.200.227:5070;transport=tls":           false,
		"sip:+14085550100@192.168.10.30":                                false,
		"sip:+14085550100@a.example;maddr=198.51.100.7":                 false,
		"sip:+14085550100@192.168.10.77":                                true,
		"sip:+14085550100@[::ffff:192.168.10.77]":                       true,
		"sip:+14085550100@127.0.0.1":                                    true,
		"sip:+14085550100@0.0.0.0":                                      true,
		"sip:+14085550100@a.example;maddr=192.168.10.77":                true,
		"sip:+14085550100@a.example;lr;MADDR=127.0.0.1":                 true,
		"sip:+14085550100@a.example;maddr=[::1]":                        true,
		"sip:+14085550100@a.example;%6daddr=192%2e168.10.77;transport=": true,
	} {
		if got := s.namesInside(sipMessage(t, "INVITE "+uri+" SIP/2.0")); got != inside {
			t.Errorf("%s names an inside host: %v, want %v", uri, got, inside)
		}
	}
}

// What makes a call agent dial comes from its own proxy alone.
func TestStrangersOrderNoFallback(t *testing.T) {
	for value, want := range map[string]bool{
		"<urn:uc-ime:pstn-fallback>": true, "urn:UC-IME:pstn-fallback;x=y": true, `"x" <URN:uc-ime:other>`: true,
		"<sip:+14085550100@b.example>": false, "<urn:service:sos>": false,
	} {
		if got := ordersFallback(sipMessage(t, "REFER sip:a@b SIP/2.0", "Refer-To: "+value)); got != want {
			t.Errorf("Refer-To: %s orders a fallback: %v, want %v", value, got, want)
		}
		if got := ordersFallback(sipMessage(t, "REFER sip:a@b SIP/2.0", "r : "+value)); got != want {
			t.Errorf("r: %s orders a fallback: %v, want %v", value, got, want)
		}
	}
}

// A connection that is closed ends its session; another one in its place would be counted and never uncounted.
func TestClosedConnectionIsNotReplaced(t *testing.T) {
	s := strangersSession(t)
	k, _ := pair(t)
	s.conns[dialog.Inside] = k
	k.shut()
	if _, err := s.ensure(dialog.Inside, "b.example"); !errors.Is(err, errEnded) {
		t.Errorf("a session whose connection has ended opens another one: %v", err)
	}
}

// deadlined notes the last deadline of a connection.
type deadlined struct {
	*net.TCPConn
	last time.Time
}

func (d *deadlined) SetWriteDeadline(t time.Time) error {
	d.last = t
	return d.TCPConn.SetWriteDeadline(t)
}

// The deadline of what had to wait holds for that alone: left standing, it would fail the first message after it has passed.
func TestOutboxLeavesNoDeadline(t *testing.T) {
	k, peer := pair(t)
	d := &deadlined{TCPConn: k.out.Conn.(*net.TCPConn)}
	o := newOutbox(d)
	o.begin()
	for range 1000 {
		if _, err := o.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
		if len(o.buf) > 0 {
			break
		}
	}
	if len(o.buf) == 0 {
		t.Fatal("the socket takes everything")
	}
	go func() {
		b := make([]byte, 64<<10)
		for {
			if _, err := peer.Read(b); err != nil {
				return
			}
		}
	}()
	if err := o.drain(writeTimeout); err != nil {
		t.Fatal(err)
	}
	if !d.last.IsZero() {
		t.Errorf("a deadline is left standing: in %v", time.Until(d.last))
	}
}

// A call of which nothing is left makes room for the next one with its Call-ID at the next look, not when its transaction would have been given up.
func TestFinishedRequestLeavesTheTable(t *testing.T) {
	now := time.Now()
	a := &Appliance{now: func() time.Time { return now }, agenda: newAgenda(now)}
	m := sipMessage(t, "OPTIONS sip:a@b SIP/2.0", "Via: SIP/2.0/TCP h;branch=z9hG4bK1", "From: <sip:a@b>;tag=1", "To: <sip:c@d>", "Call-ID: i", "CSeq: 1 OPTIONS")
	c := &call{d: dialog.Open(m, dialog.Inside, now)}
	c.d.Request(m, dialog.Inside, now)
	a.planSweep(c)
	c.d.Response(sipMessage(t, "SIP/2.0 200 OK", "Via: SIP/2.0/TCP h;branch=z9hG4bK1", "From: <sip:a@b>;tag=1", "To: <sip:c@d>;tag=2", "Call-ID: i", "CSeq: 1 OPTIONS"), dialog.Outside, now)
	a.planSweep(c)
	if got := a.agenda.take(now.Add(2 * time.Second)); len(got) != 1 {
		t.Error("a request that has its answer is not looked at within 2 s")
	}
}

// A defect that one sender finds ends that sender's session, not the daemon with the calls of all others.
func TestDefectEndsItsSessionAlone(t *testing.T) {
	var log bytes.Buffer
	a := &Appliance{now: time.Now, log: slog.New(slog.NewTextHandler(&log, nil)), sessions: newSessions()}
	s := &session{a: a, agent: &callAgent{}, remote: netip.MustParseAddrPort("198.51.100.9:33333")}
	k, peer := pair(t)
	s.conns[dialog.Inside] = k
	go peer.Write([]byte("\r\n\r\n")) // to be counted, which this appliance is not made for
	s.read(k, dialog.Inside)
	if !s.ended || !strings.Contains(log.String(), "nil pointer") {
		t.Errorf("the session has ended: %v; the log says %s", s.ended, log.String())
	}
}

// Two enterprises behind one address: what a call's far end is to get goes over no connection of the other one.
func TestCarrierIsOfTheCallsEnterprise(t *testing.T) {
	a := &Appliance{now: time.Now, sessions: newSessions()}
	agent := &callAgent{real: netip.MustParseAddr("192.168.10.30")}
	remote := netip.MustParseAddr("198.51.100.9")
	k, _ := pair(t)
	k.domains = []string{"c.example"}
	other := &session{a: a, agent: agent, remote: netip.AddrPortFrom(remote, 1), opener: dialog.Outside}
	other.conns[dialog.Outside] = k
	a.sessions.add(other)
	last := &session{a: a, agent: agent, remote: netip.AddrPortFrom(remote, 2), ended: true}
	c := &call{agent: agent, domain: "b.example", last: last}
	if s, _ := a.carrier(c, dialog.Outside); s != nil {
		t.Error("a request for b.example goes over a connection of c.example")
	}
	k.domains = append(k.domains, "b.example")
	if s, _ := a.carrier(c, dialog.Outside); s != other {
		t.Error("a connection whose certificate holds the call's domain is not used")
	}
}

// At the limit, whoever holds more than a share of sessions without any ticket gives one up for others; sessions that serve somebody stay.
func TestStrangersGiveWay(t *testing.T) {
	now := time.Now()
	a := &Appliance{now: func() time.Time { now = now.Add(time.Second); return now }, log: slog.New(slog.DiscardHandler), sessions: newSessions()}
	a.limiter = tlsproxy.NewLimiter(2)
	add := func(source string, n int, change func(*session)) (list []*session) {
		for i := range n {
			s := &session{a: a, opener: dialog.Outside, agent: &callAgent{}, remote: netip.AddrPortFrom(netip.MustParseAddr(source), uint16(1000+i))}
			change(s)
			a.sessions.add(s)
			list = append(list, s)
		}
		return list
	}
	plain := func(*session) {}
	good := add("198.51.100.1", 300, (*session).welcomed)
	calling := add("198.51.100.2", 300, func(s *session) { s.calls = 1 })
	outbound := add("198.51.100.3", 300, func(s *session) { s.opener = dialog.Inside })
	few := add("198.51.100.4", strangersShare, plain)
	a.limiter.Acquire()
	a.acquire()
	a.makeRoom()
	for name, list := range map[string][]*session{"with tickets": good, "with calls": calling, "of call agents": outbound, "within the share": few} {
		for _, s := range list {
			if s.ended {
				t.Fatalf("a session %s was ended", name)
			}
		}
	}
	many := add("198.51.100.5", strangersShare+2, plain)
	for range 5 {
		if a.acquire() {
			t.Error("a session is given that there is none of") // those of this test were never counted
		}
	}
	for i, s := range many {
		if s.ended != (i < 2) {
			t.Errorf("session %d of the source with %d has ended: %v", i, len(many), s.ended)
		}
	}
}

// A ticket lets call a number. What it does not name here is refused, whatever methods come to be known.
func TestTicketsAreForCalls(t *testing.T) {
	want := map[string]string{
		"INVITE": "", "OPTIONS": "", "MESSAGE": "", "SUBSCRIBE": "", "BYE": "", "PRACK": "", "UPDATE": "", // the last three have no dialog, which is told
		"REGISTER": "registration", "PUBLISH": "method_outside_dialog", "REFER": "method_outside_dialog", "NOTIFY": "method_outside_dialog",
		"INFO": "method_outside_dialog", "ANOTHER": "method_outside_dialog",
	}
	for method, cause := range want {
		if got := beyondTicket(method); got != cause {
			t.Errorf("%s is refused for %q, want %q", method, got, cause)
		}
	}
	for method := range strings.SplitSeq(dialog.Methods, ", ") {
		if _, ok := want[method]; !ok && method != "ACK" && method != "CANCEL" {
			t.Errorf("nothing is said of %s", method)
		}
	}
}
