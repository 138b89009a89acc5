package testbed

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// agentEnd is one of several call agents: its stub, and how the Internet reaches it.
type agentEnd struct {
	*Stub
	trunk netip.AddrPort
}

// Two call agents behind one proxy: each is reached at its own mapped address (guide line 4634), or at its own port of one
// mapped address (guide line 4691), and what it sends shows that.
func TestTwoCallAgents(t *testing.T) {
	s := StartStubs(t)
	second := netip.MustParseAddr("192.168.10.31")
	if err := s.A.UCMHost.ip("addr add 192.168.10.31/24 dev eth0"); err != nil {
		t.Fatal(err)
	}
	other := newStub("second call agent", s.A.UCMHost, netip.AddrPortFrom(second, TrunkPort), "TCP")
	other.Listen(t, nil)
	t.Cleanup(other.Close)
	// The entries that name the first call agent are repeated for the second.
	var both strings.Builder
	for line := range strings.Lines(s.Proxy.DefaultConfig(t)) {
		both.WriteString(line)
		if strings.HasPrefix(line, "access-list ") || strings.HasPrefix(line, " ucm address ") {
			both.WriteString(strings.ReplaceAll(line, s.A.UCMIP.String(), second.String()))
		}
	}
	static := " nat (inside,outside) static ucm_map_1\n"
	for _, x := range []struct {
		name, nat  string
		one, other string
	}{
		{
			"addresses", static + "object network ucm_real_2\n host 192.168.10.31\n nat (inside,outside) static 209.165.200.229\n",
			"209.165.200.227:5070", "209.165.200.229:5070",
		},
		{
			"ports", " nat (inside,outside) static 209.165.200.227 service tcp 5070 5571\n" +
				"object network ucm_real_2\n host 192.168.10.31\n nat (inside,outside) static 209.165.200.227 service tcp 5070 5572\n" +
				"object network inside_net\n subnet 192.168.10.0 255.255.255.0\n nat (inside,outside) dynamic 209.165.200.227\n",
			"209.165.200.227:5571", "209.165.200.227:5572",
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			text := both.String()
			if !strings.Contains(text, static) {
				t.Fatalf("the configuration has no %q", static)
			}
			s.mustReload(t, strings.Replace(text, static, x.nat, 1))
			one := agentEnd{s.Agent, netip.MustParseAddrPort(x.one)}
			two := agentEnd{other, netip.MustParseAddrPort(x.other)}
			t.Run("inbound", func(t *testing.T) { inboundToEach(t, s, one, two) })
			t.Run("outbound", func(t *testing.T) { outboundOfEach(t, s, one, two) })
			t.Run("dialogs stay with their call agent", func(t *testing.T) { dialogsOfEach(t, s, one, two) })
			t.Run("one is down", func(t *testing.T) { oneAgentDown(t, s, one, two) })
		})
		for _, c := range other.Open() {
			c.Close()
		}
		s.hangUpAll(t)
		other.Drain()
	}
}

// call sets a call of the far end to a call agent up.
func (e agentEnd) call(t T, s *StubLab, c *StubConn) (far, agent *Leg) {
	t.Helper()
	far = s.Inbound(c)
	inv := far.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	seen := e.Expect(t, InCall(far.CallID, ReqIs("INVITE")), wait)
	agent = e.AnswerLeg(seen)
	agent.Respond(t, seen, 200, "OK", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	far.Learn(far.AwaitStatus(t, inv, 200))
	far.Ack(t)
	agent.Expect(t, "ACK")
	return far, agent
}

// dial opens a connection of the far end to the call agent's trunk.
func (e agentEnd) dial(t T, s *StubLab) *StubConn {
	t.Helper()
	return s.Far.Dial(t, e.trunk, s.CA.TLSConfig(s.FarID, s.A.Domain))
}

// namesTrunk demands that a Contact that the Internet sees leads to the call agent's own trunk.
func (e agentEnd) namesTrunk(t T, m *StubMessage) {
	t.Helper()
	if c := m.Get("Contact"); !strings.Contains(c, "@"+e.trunk.String()) && !strings.Contains(c, "sip:"+e.trunk.String()) {
		t.Errorf("%s: Contact %q leads elsewhere than to %s", m.Start, c, e.trunk)
	}
}

func inboundToEach(t *testing.T, s *StubLab, one, two agentEnd) {
	for _, x := range []struct{ to, not agentEnd }{{one, two}, {two, one}} {
		far, agent := x.to.call(t, s, x.to.dial(t, s))
		callStands(t, far, agent)
		if far.Target == "" || !strings.Contains(far.Target, x.to.trunk.String()) {
			t.Errorf("the Contact of the answer is %q, want one at %s", far.Target, x.to.trunk)
		}
		far.Transact(t, agent, "BYE", 200)
		nothingCame(t, x.not.Stub)
	}
}

func outboundOfEach(t *testing.T, s *StubLab, one, two agentEnd) {
	for _, x := range []struct{ of, not agentEnd }{{one, two}, {two, one}} {
		c := x.of.Dial(t, s.Far.Addr, nil)
		agent := x.of.NewLeg(c, fmt.Sprintf("<sip:%s@%s>", s.A.Number, x.of.Addr.Addr()), fmt.Sprintf("<sip:%s@%s>", s.B.Number, s.B.Domain),
			fmt.Sprintf("sip:%s@%s", s.B.Number, s.B.Domain))
		inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
		seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
		x.of.namesTrunk(t, seen)
		if from, ok := seen.Conn.RemoteAddr().(interface{ String() string }); !ok || !strings.HasPrefix(from.String(), x.of.trunk.Addr().String()+":") {
			t.Errorf("the connection comes from %v, want %s", seen.Conn.RemoteAddr(), x.of.trunk.Addr())
		}
		far := s.Far.AnswerLeg(seen)
		far.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20000)))
		agent.Learn(agent.AwaitStatus(t, inv, 200))
		agent.Ack(t)
		far.Expect(t, "ACK")
		callStands(t, agent, far)
		// A request over a new connection to where the Contact points.
		far.Conn.Close()
		c.WaitEnd(t, wait)
		far.Conn = x.of.dial(t, s)
		info, _ := far.Transact(t, agent, "INFO", 200)
		agent.Conn = info.Conn
		agent.Transact(t, far, "BYE", 200)
		nothingCame(t, x.not.Stub)
	}
}

// A request of one call agent's dialog that comes over the other's trunk, or from the other, is of no dialog.
func dialogsOfEach(t *testing.T, s *StubLab, one, two agentEnd) {
	far, agent := one.call(t, s, one.dial(t, s))
	astray := *far
	astray.Conn = two.dial(t, s)
	for _, method := range []string{"INFO", "BYE", "INVITE"} {
		astray.CSeq += 10
		astray.AwaitStatus(t, astray.Request(t, method), 481)
	}
	nothingCame(t, two.Stub)
	foreign := *agent
	foreign.Stub, foreign.Conn = two.Stub, two.Dial(t, s.Far.Addr, nil)
	foreign.AwaitStatus(t, foreign.Request(t, "BYE"), 481)
	nothingCame(t, s.Far)
	callStands(t, far, agent)
	far.Transact(t, agent, "BYE", 200)
}

// A call agent that is down answers for itself alone.
func oneAgentDown(t *testing.T, s *StubLab, one, two agentEnd) {
	for _, c := range two.Open() {
		c.Close()
	}
	s.hangUpAll(t)
	two.StopListening()
	defer two.Listen(t, nil)
	l := s.Inbound(two.dial(t, s))
	inv := l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	l.AckFailure(t, inv, l.AwaitStatus(t, inv, 503))
	l = s.Inbound(two.dial(t, s))
	l.AwaitStatus(t, l.Request(t, "OPTIONS"), 503)
	l = s.Inbound(one.dial(t, s))
	l.AwaitStatus(t, l.Request(t, "OPTIONS"), 200)
	far, agent := one.call(t, s, l.Conn)
	far.Transact(t, agent, "BYE", 200)
	var health struct {
		Problems []struct {
			Code   string `json:"code"`
			Object string `json:"object"`
		} `json:"problems"`
	}
	s.Proxy.Show(t, "health", &health)
	var down []string
	for _, p := range health.Problems {
		if p.Code == "call_agent_unreachable" {
			down = append(down, p.Object)
		}
	}
	if len(down) != 1 || down[0] != two.Addr.Addr().String() {
		t.Errorf("show health tells of unreachable call agents %v, want %s alone", down, two.Addr.Addr())
	}
}
