package testbed

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// StubLab is a lab with one proxy, that of enterprise A, whose call agent
// and whose far side (in the place of enterprise B's proxy) a test plays.
type StubLab struct {
	*Lab
	Proxy *Proxy
	Agent *Stub // 192.168.10.30:5070
	Far   *Stub // 209.165.201.3:5070, certificate b.example
	FarID *Identity
	// Ticket lets B call A's number.
	Ticket string
	// AgentTLS is how the call agent of a secure trunk dials; nil: TCP.
	AgentTLS *tls.Config

	inNets []netip.Prefix
}

// StartStubs builds it; change may alter the options of the lab before.
func StartStubs(t T, change ...func(*Options)) *StubLab {
	t.Helper()
	o := Options{NoCallAgents: true, B: Side{Edge: EdgeRouter}}
	for _, f := range change {
		f(&o)
	}
	l := Start(t, o)
	s := &StubLab{Lab: l, Proxy: l.A.Proxy, inNets: []netip.Prefix{
		l.A.Inside.Masked(), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	}}
	s.FarID = s.Issue(t, "far", EdgeCert(l.B.Domain))
	s.Agent = newStub("call agent", l.A.UCMHost, netip.AddrPortFrom(l.A.UCMIP, TrunkPort), "TCP")
	s.Far = newStub("far end", l.B.EdgeHost, netip.AddrPortFrom(l.B.Mapped, TrunkPort), "TLS")
	s.Agent.Listen(t, nil)
	s.Far.Listen(t, s.FarServer())
	t.Cleanup(func() { s.Agent.Close(); s.Far.Close() })
	t.Cleanup(func() { s.CheckWire(t) })
	s.Ticket = s.TicketFor(t, l.B.Domain)
	return s
}

// Issue makes an identity of the lab's authority.
func (s *StubLab) Issue(t T, name string, spec CertSpec) *Identity {
	t.Helper()
	id, err := s.CA.Issue(name, spec)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return id
}

// TicketFor issues a ticket for A's number to a domain.
func (s *StubLab) TicketFor(t T, domain string) string {
	t.Helper()
	return IssueTicket(t, TicketSpec{
		Password: s.A.TicketPassword, Epoch: s.A.TicketEpoch, Dir: s.Dir, OwnDomain: s.A.Domain, GrantedTo: domain, Numbers: []string{s.A.Number},
	})
}

// FarServer is the far end's configuration as a mutual-TLS server.
func (s *StubLab) FarServer() *tls.Config { return s.server(s.FarID) }

func (s *StubLab) server(id *Identity) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.CA.Cert)
	return &tls.Config{
		Certificates: []tls.Certificate{id.TLS}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
}

// AgentDial opens a connection of the call agent towards the far end; the proxy intercepts it.
func (s *StubLab) AgentDial(t T) *StubConn {
	t.Helper()
	return s.Agent.Dial(t, s.Far.Addr, s.AgentTLS)
}

// Trunk is where the Internet reaches A's call agent.
func (s *StubLab) Trunk() netip.AddrPort { return netip.AddrPortFrom(s.A.Mapped, TrunkPort) }

// FarDial opens a connection of the far end to A's mapped address.
func (s *StubLab) FarDial(t T) *StubConn {
	t.Helper()
	return s.Far.Dial(t, s.Trunk(), s.CA.TLSConfig(s.FarID, s.A.Domain))
}

// Outbound starts a call of the call agent to the far end.
func (s *StubLab) Outbound(c *StubConn) *Leg {
	return s.Agent.NewLeg(c, fmt.Sprintf("\"Alice\" <sip:%s@%s>", s.A.Number, s.A.UCMIP), fmt.Sprintf("<sip:%s@%s>", s.B.Number, s.B.Domain),
		fmt.Sprintf("sip:%s@%s", s.B.Number, s.B.Domain))
}

// Inbound starts a call of the far end to the call agent. WithTicket is for its opening request.
func (s *StubLab) Inbound(c *StubConn) *Leg {
	return s.Far.NewLeg(c, fmt.Sprintf("<sip:%s@%s>", s.B.Number, s.B.Domain), fmt.Sprintf("<sip:%s@%s>", s.A.Number, s.A.Domain),
		fmt.Sprintf("sip:%s@%s", s.A.Number, s.A.Domain))
}

// WithTicket puts the good ticket on a request.
func (s *StubLab) WithTicket(m *StubMessage) { m.Add("X-Cisco-UC-IME-Ticket", s.Ticket) }

// CheckWire walks over everything that the stubs saw: no inside address may
// have left but in a Call-ID, and responses must fit what was asked.
func (s *StubLab) CheckWire(t T) {
	t.Helper()
	for _, m := range s.Far.All() {
		var text strings.Builder
		for line := range strings.Lines(m.Raw) {
			name, _, _ := strings.Cut(line, ":")
			if n := canonicalName(name); n != "call-id" && n != "x-cisco-uc-ime-ticket" {
				text.WriteString(line)
			}
		}
		if found := HiddenIn(text.String(), s.inNets...); len(found) > 0 {
			t.Errorf("inside addresses %v on the outside wire in\n%s", found, m.Raw)
		}
	}
	for _, st := range []*Stub{s.Agent, s.Far} {
		for _, f := range st.Faults() {
			t.Errorf("%s: %s", st.Name, f)
		}
	}
}

// Counter reads one number of a show command's JSON by its path of keys.
func (s *StubLab) Counter(t T, command string, path ...string) float64 {
	t.Helper()
	var v any
	s.Proxy.Show(t, command, &v)
	for _, k := range path {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%s: no key %q in %v", command, k, v)
		}
		v = m[k]
	}
	n, ok := v.(float64)
	if !ok {
		t.Fatalf("%s: %v is no number: %v", command, path, v)
	}
	return n
}

// SessionsInUse reads how many signaling sessions stand.
func (s *StubLab) SessionsInUse(t T) int {
	t.Helper()
	return int(s.Counter(t, "uc-ime signaling-sessions", "in_use"))
}

// plainOffer is a session description of an inside phone.
func plainOffer(addr string, port int, extra ...string) string {
	return "v=0\r\no=alice 1 1 IN IP4 " + addr + "\r\ns=-\r\nc=IN IP4 " + addr + "\r\nt=0 0\r\n" +
		fmt.Sprintf("m=audio %d RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n", port) + strings.Join(append(extra, ""), "\r\n")
}

// goodCrypto is a line with a valid AES_CM_128_HMAC_SHA1_80 key.
const goodCrypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"

// secureOffer is a session description of the far proxy.
func secureOffer(addr string, port int, extra ...string) string {
	if len(extra) == 0 {
		extra = []string{goodCrypto}
	}
	return "v=0\r\no=bob 1 1 IN IP4 " + addr + "\r\ns=-\r\nc=IN IP4 " + addr + "\r\nt=0 0\r\n" +
		fmt.Sprintf("m=audio %d RTP/SAVP 0\r\na=rtpmap:0 PCMU/8000\r\n", port) + strings.Join(append(extra, ""), "\r\n")
}

// sdp puts a session description on a message.
func sdp(body string) func(*StubMessage) { return func(m *StubMessage) { m.WithSDP(body) } }

// The stubs prove themselves with a whole call in each direction.
func TestStubCalls(t *testing.T) {
	s := StartStubs(t)
	t.Run("outbound", func(t *testing.T) {
		a, f := s.CallOut(t)
		f.Transact(t, a, "BYE", 200)
	})
	t.Run("inbound", func(t *testing.T) {
		f, a := s.CallIn(t)
		f.Transact(t, a, "BYE", 200)
	})
	Until(t, 3*time.Second, "no session with media is left", func() bool { return s.Streams(t) == 0 })
}

// CallOut sets a call of the call agent up, over a new connection.
func (s *StubLab) CallOut(t T) (agent, far *Leg) {
	t.Helper()
	agent = s.Outbound(s.AgentDial(t))
	inv := agent.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	seen := s.Far.Expect(t, InCall(agent.CallID, ReqIs("INVITE")), wait)
	far = s.Far.AnswerLeg(seen)
	far.Respond(t, seen, 180, "Ringing")
	agent.AwaitStatus(t, inv, 180)
	far.Respond(t, seen, 200, "OK", sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	agent.Learn(agent.AwaitStatus(t, inv, 200))
	agent.Ack(t)
	far.Expect(t, "ACK")
	return agent, far
}

// CallIn sets a call of the far end up, over a new connection.
func (s *StubLab) CallIn(t T) (far, agent *Leg) {
	t.Helper()
	far = s.Inbound(s.FarDial(t))
	inv := far.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
	seen := s.Agent.Expect(t, InCall(far.CallID, ReqIs("INVITE")), wait)
	agent = s.Agent.AnswerLeg(seen)
	agent.Respond(t, seen, 180, "Ringing")
	far.AwaitStatus(t, inv, 180)
	agent.Respond(t, seen, 200, "OK", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
	far.Learn(far.AwaitStatus(t, inv, 200))
	far.Ack(t)
	agent.Expect(t, "ACK")
	return far, agent
}

// Streams counts the media streams that stand.
func (s *StubLab) Streams(t T) int {
	t.Helper()
	return int(s.Counter(t, "uc-ime media-sessions", "in_use"))
}
