package testbed

import (
	"testing"
	"time"
)

// The daemon is killed at each moment of a call. From then on nothing of the Internet reaches the call agent, nor the call agent the Internet, and the next
// daemon takes calls.
func TestKilledInACall(t *testing.T) {
	s := StartStubs(t)
	inbound := func(t T, until string) {
		far := s.Inbound(s.FarDial(t))
		inv := far.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
		seen := s.Agent.Expect(t, InCall(far.CallID, ReqIs("INVITE")), wait)
		agent := s.Agent.AnswerLeg(seen)
		if until == "invited" {
			return
		}
		agent.Respond(t, seen, 180, "Ringing")
		far.AwaitStatus(t, inv, 180)
		if until == "ringing" {
			return
		}
		agent.Respond(t, seen, 200, "OK", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
		far.Learn(far.AwaitStatus(t, inv, 200))
		if until == "answered" {
			return
		}
		far.Ack(t)
		agent.Expect(t, "ACK")
		if until == "talking" {
			return
		}
		far.Request(t, "INVITE", sdp(secureOffer(s.B.MediaOut.String(), 20000)))
		agent.Expect(t, "INVITE")
		if until == "re-INVITE" {
			return
		}
		far.Request(t, "BYE")
		agent.Expect(t, "BYE")
	}
	for _, x := range []struct {
		moment string
		act    func(T)
	}{
		{"no call", func(T) {}},
		{"connected inside", func(t T) { s.AgentDial(t) }},
		{"connected outside", func(t T) { s.FarDial(t) }},
		{"invited", func(t T) { inbound(t, "invited") }},
		{"ringing", func(t T) { inbound(t, "ringing") }},
		{"answered", func(t T) { inbound(t, "answered") }},
		{"talking", func(t T) { inbound(t, "talking") }},
		{"re-INVITE", func(t T) { inbound(t, "re-INVITE") }},
		{"BYE", func(t T) { inbound(t, "BYE") }},
		{"outbound call", func(t T) { s.CallOut(t) }},
	} {
		t.Run(x.moment, func(t *testing.T) {
			x.act(t)
			s.Proxy.Kill()
			wire := s.Capture(t, s.Agent.Host, "eth0")
			for from, to := range map[*Host][]string{
				s.Outsider: {s.Trunk().String(), s.A.UCMIP.String() + ":5070"}, s.Far.Host: {s.Trunk().String()}, s.Agent.Host: {s.Far.Addr.String()},
			} {
				for _, at := range to {
					if c, err := from.Dial("tcp", "", at, 200*time.Millisecond); err == nil {
						c.Close()
						t.Errorf("%s reaches %s past a dead daemon", from.Name, at)
					}
				}
			}
			for _, st := range []*Stub{s.Agent, s.Far} {
				for _, c := range st.Open() {
					_, _ = c.Write([]byte("late\r\n")) // it may be closed already
				}
			}
			wire.Stop(t)
			for _, p := range wire.Packets(t) {
				if p.Proto == protoTCP && p.Dst.Addr() == s.A.UCMIP && !s.A.Inside.Contains(p.Src.Addr()) && p.Src.Addr() != s.Far.Addr.Addr() {
					t.Errorf("a packet from the Internet to the call agent: %s > %s", p.Src, p.Dst)
				}
			}
			for _, st := range []*Stub{s.Agent, s.Far} {
				for _, c := range st.Open() {
					c.Close()
				}
				st.Drain()
			}
			s.Proxy.Start(t)
			f, a := s.CallIn(t)
			f.Transact(t, a, "BYE", 200)
		})
	}
}
