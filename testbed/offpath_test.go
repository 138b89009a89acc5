package testbed

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// mappingPort is where the mapping service listens.
const mappingPort = 8060

// mapping is what `show uc-ime mapping-service-sessions statistics` tells.
type mappingStats struct {
	Active   int `json:"total_active_sessions"`
	Mappings int `json:"mappings"`
	Legs     int `json:"signaling_connections"`
	Requests int `json:"total_requests"`
	Refused  int `json:"refused_sources"`
	Sessions []struct {
		Client  string `json:"session_client"`
		Total   int    `json:"total_requests"`
		Sent    int    `json:"responses_sent"`
		Failed  int    `json:"failed_requests"`
		Pending int    `json:"pending_responses"`
	} `json:"sessions"`
}

func (s *StubLab) mappingStats(t T) (m mappingStats) {
	t.Helper()
	s.Proxy.Show(t, "uc-ime mapping-service-sessions statistics", &m)
	return m
}

// withMappings is the default configuration as guide lines 5604-5693 make it off-path.
func (s *StubLab) withMappings(t T, more string) string {
	t.Helper()
	text := replaceOnce(s.Proxy.DefaultConfig(t), "uc-ime ", "object network outside-any\n subnet 0.0.0.0 0.0.0.0\n nat (outside,inside) dynamic interface\nuc-ime ")
	return replaceOnce(text, " ticket epoch", " mapping-service listening-interface inside listening-port 8060 uc-ime-interface outside\n"+more+" ticket epoch")
}

// mappingClient is a call agent's connection to the mapping service.
type mappingClient struct{ net.Conn }

func (s *StubLab) mappingDial(t T) mappingClient {
	t.Helper()
	c, err := s.A.UCMHost.Dial("tcp", s.A.UCMIP.String(), netip.AddrPortFrom(s.A.InsideIP, mappingPort).String(), wait)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { c.Close() })
	return mappingClient{c}
}

// ask asks for a target; the code is 0 with a mapped address.
func (c mappingClient) ask(t T, target netip.AddrPort) (mapped netip.AddrPort, code int) {
	t.Helper()
	m, err := stun.Build(stun.TransactionID, stun.NewType(0x00f, stun.ClassRequest), peerAddress(target), stun.Fingerprint)
	if err != nil {
		t.Fatalf("%v", err)
	}
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write(m.Raw); err != nil {
		t.Fatalf("%v", err)
	}
	mapped, id, code := c.answer(t)
	if id != m.TransactionID {
		t.Fatalf("the answer is to another request")
	}
	return mapped, code
}

// answer reads the next answer.
func (c mappingClient) answer(t T) (mapped netip.AddrPort, id [stun.TransactionIDSize]byte, code int) {
	t.Helper()
	b := make([]byte, 20)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("no answer: %v", err)
	}
	b = append(b, make([]byte, binary.BigEndian.Uint16(b[2:]))...)
	if _, err := io.ReadFull(c, b[20:]); err != nil {
		t.Fatalf("half an answer: %v", err)
	}
	a := &stun.Message{Raw: b}
	if err := a.Decode(); err != nil || stun.Fingerprint.Check(a) != nil {
		t.Fatalf("answer %x: %v", b, err)
	}
	var e stun.ErrorCodeAttribute
	if e.GetFrom(a) == nil {
		return mapped, a.TransactionID, int(e.Code)
	}
	var x stun.XORMappedAddress
	if err := x.GetFrom(a); err != nil {
		t.Fatalf("answer %x: %v", b, err)
	}
	ip, _ := netip.AddrFromSlice(x.IP)
	return netip.AddrPortFrom(ip.Unmap(), uint16(x.Port)), a.TransactionID, 0
}

type peerAddress netip.AddrPort

func (p peerAddress) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	return stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

// The enterprise's hosts have no way to the Internet: the call agent reaches far ends by mapped addresses alone, and is reached from the
// inside interface's.
func TestOffPath(t *testing.T) {
	s := StartStubs(t)
	for _, h := range []*Host{s.A.UCMHost, s.A.PhoneHost} {
		h.MustRun(t, "ip", "route", "del", "default")
	}
	s.mustReload(t, s.withMappings(t, ""))
	c := s.mappingDial(t)
	t.Run("outbound", func(t *testing.T) { offPathOutbound(t, s, c) })
	t.Run("inbound", func(t *testing.T) {
		far, agent := s.CallIn(t)
		if from := agent.Conn.RemoteAddr(); !strings.HasPrefix(from.String(), s.A.InsideIP.String()+":") {
			t.Errorf("the far end's call comes from %s", from)
		}
		agent.Transact(t, far, "BYE", 200)
	})
	t.Run("targets", func(t *testing.T) {
		for target, want := range map[string]int{
			"192.168.10.30:5060": 403, s.A.InsideIP.String() + ":22": 403, s.A.OutsideIP.String() + ":443": 403, s.A.Mapped.String() + ":5070": 403,
			s.A.MediaOut.String() + ":5061": 403, "127.0.0.1:5061": 403, "10.1.2.3:5061": 403, "224.0.0.5:5061": 403, "255.255.255.255:5061": 403,
			"209.165.200.255:5061": 403, "198.51.100.10:5061": 0,
		} {
			if _, code := c.ask(t, netip.MustParseAddrPort(target)); code != want {
				t.Errorf("%s: code %d, want %d", target, code, want)
			}
		}
	})
	t.Run("far end down", func(t *testing.T) { offPathDown(t, s, c) })
	t.Run("strangers", func(t *testing.T) { offPathStrangers(t, s) })
	t.Run("restart", func(t *testing.T) { offPathRestart(t, s) })
}

// mappedFar asks for the far end's mapped address.
func (s *StubLab) mappedFar(t T, c mappingClient) netip.AddrPort {
	t.Helper()
	mapped, code := c.ask(t, s.Far.Addr)
	if code != 0 || mapped.Addr() != s.A.InsideIP || mapped.Port() < 20000 || mapped.Port() > 39999 {
		t.Fatalf("mapped to %v, code %d", mapped, code)
	}
	return mapped
}

func offPathOutbound(t *testing.T, s *StubLab, c mappingClient) {
	mapped := s.mappedFar(t, c)
	if again := s.mappedFar(t, s.mappingDial(t)); again != mapped {
		t.Errorf("mapped to %s and to %s", mapped, again)
	}
	conn := s.Agent.Dial(t, mapped, nil)
	agent := s.Outbound(conn)
	inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)), func(m *StubMessage) {
		m.Add("Route", "<sip:"+mapped.String()+";lr>") // a call agent may name where it sends to
	})
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	if route := seen.Get("Route"); strings.Contains(route, mapped.Addr().String()) {
		t.Errorf("the mapped address leaves in %q", route)
	}
	far := s.Far.AnswerLeg(seen)
	far.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	ok := agent.AwaitStatus(t, inv, 200)
	if contact := ok.Get("Contact"); !strings.Contains(contact, mapped.String()) {
		t.Errorf("the call agent gets %q as contact, which it cannot reach; it knows the far end as %s", contact, mapped)
	}
	agent.Learn(ok)
	agent.Ack(t)
	far.Expect(t, "ACK")
	if m := s.mappingStats(t); m.Legs != 1 || m.Mappings != 1 || len(m.Sessions) != 2 || m.Sessions[0].Total+m.Sessions[1].Total != 2 {
		t.Errorf("statistics: %+v", m)
	}
	agent.Transact(t, far, "INFO", 200)
	far.Transact(t, agent, "BYE", 200)
	conn.Close()
	Until(t, wait, "the signaling connection has ended", func() bool { return s.mappingStats(t).Legs == 0 })
}

// offPathDown: the inside is accepted before the outside is opened, so that the first request tells that it cannot be.
func offPathDown(t *testing.T, s *StubLab, c mappingClient) {
	mapped, code := c.ask(t, netip.AddrPortFrom(s.Far.Addr.Addr(), 5999)) // where nobody listens
	if code != 0 {
		t.Fatalf("code %d", code)
	}
	conn := s.Agent.Dial(t, mapped, nil)
	agent := s.Outbound(conn)
	inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	agent.AwaitStatus(t, inv, 503)
	Until(t, wait, "the connection is closed", func() bool { return conn.Ended() != nil })
}

func offPathStrangers(t *testing.T, s *StubLab) {
	before := s.mappingStats(t).Refused
	d, err := s.A.PhoneHost.Dial("tcp", "", netip.AddrPortFrom(s.A.InsideIP, mappingPort).String(), wait)
	if err == nil {
		d.SetDeadline(time.Now().Add(wait))
		_, err = d.Read(make([]byte, 1))
		d.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a phone gets %v", err)
	}
	if now := s.mappingStats(t).Refused; now != before+1 {
		t.Errorf("%d connections were counted as refused", now-before)
	}
	for _, port := range []uint16{mappingPort, s.mappedFar(t, s.mappingDial(t)).Port()} {
		for _, at := range []netip.Addr{s.A.OutsideIP, s.A.Mapped, s.A.InsideIP} {
			if d, err := s.Outsider.Dial("tcp", "", netip.AddrPortFrom(at, port).String(), 500*time.Millisecond); err == nil {
				d.Close()
				t.Errorf("the Internet reaches %s port %d", at, port)
			}
		}
	}
}

// offPathRestart: addresses that the call agent remembers lead to where they led, after a kill too.
func offPathRestart(t *testing.T, s *StubLab) {
	mapped := s.mappedFar(t, s.mappingDial(t))
	Until(t, wait, "the mapping is saved", func() bool { // what the last second brought may be lost by a kill
		return strings.Contains(readAll(filepath.Join(s.Proxy.StateDir, "mappings.json")), s.Far.Addr.String())
	})
	s.Proxy.Kill()
	s.restart(t, s.withMappings(t, ""))
	conn := s.Agent.Dial(t, mapped, nil)
	agent := s.Outbound(conn)
	inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	far := s.Far.AnswerLeg(seen)
	far.Respond(t, seen, 486, "Busy Here")
	agent.AwaitStatus(t, inv, 486)
	if again := s.mappedFar(t, s.mappingDial(t)); again != mapped {
		t.Errorf("after the restart mapped to %s, before to %s", again, mapped)
	}
	// Without the service its ports are closed, with the call agent's connection the calls stay.
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	if d, err := s.A.UCMHost.Dial("tcp", "", netip.AddrPortFrom(s.A.InsideIP, mappingPort).String(), wait); err == nil {
		d.Close()
		t.Error("the service listens although it is not configured")
	}
}
