package testbed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counted is what a rule has counted since it stands: traffic changes it, not the daemon.
var counted = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// kernelState is what a proxy may change in the kernel of its host, as the operator's tools print it.
func kernelState(t T, h *Host) string {
	t.Helper()
	var b strings.Builder
	for _, c := range [][]string{
		{"nft", "-t", "list", "ruleset"}, // without the elements of sets, which have times
		{"ip", "-4", "rule"},
		{"ip", "-4", "route", "show", "table", "all"},
		{"ip", "-4", "-o", "addr"},
		{
			"sysctl", "net.ipv4.ip_forward", "net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv4.conf.all.rp_filter",
			"net.ipv4.conf.ein.rp_filter", "net.ipv4.conf.eout.rp_filter", "net.ipv4.conf.ein.forwarding", "net.ipv4.conf.eout.forwarding",
		},
	} {
		b.WriteString("# " + strings.Join(c, " ") + "\n" + h.MustRun(t, c[0], c[1:]...))
	}
	return counted.ReplaceAllString(b.String(), "counter")
}

// sameState compares two and shows the lines that differ.
func sameState(t T, when, before, after string) {
	t.Helper()
	if before == after {
		return
	}
	diff := func(sign, x, y string) (out string) {
		for l := range strings.Lines(x) {
			if !strings.Contains(y, l) {
				out += sign + " " + l
			}
		}
		return out
	}
	t.Errorf("%s the kernel's state differs from that before the start:\n%s%s", when, diff("-", before, after), diff("+", after, before))
}

func TestStop(t *testing.T) {
	s := StartStubs(t, func(o *Options) { o.NoStart = true })
	// What an operator has set before must stay, an address that the configuration names too included.
	host := s.A.EdgeHost
	if err := host.ip(
		fmt.Sprintf("addr add %s/%d dev eout", s.A.OutsideIP, s.A.Outside.Bits()), fmt.Sprintf("addr add %s/32 dev ein", s.A.MediaIn),
		fmt.Sprintf("route add 203.0.113.0/24 via %s", s.A.Gateway), "rule add fwmark 0x77 lookup 77", "route add blackhole 192.0.2.0/24 table 77",
	); err != nil {
		t.Fatal(err)
	}
	host.MustRun(t, "nft", "add table ip operator; add chain ip operator c { type filter hook forward priority 10; }; add rule ip operator c ip saddr 203.0.113.9 drop")
	before := kernelState(t, host)
	for _, x := range []struct {
		name string
		args []string
		test func(*testing.T, *StubLab)
	}{
		{"in order", nil, stopInOrder},
		{"peers that do not answer", nil, stopWithoutAnswers},
		{"connections gone", nil, stopWithoutConnections},
		{"drain", []string{"--drain", "1m"}, stopAfterDrain},
		{"second signal", []string{"--drain", "1m"}, stopBySecondSignal},
		{"kill -9", nil, killed},
		{"started twice", nil, startedTwice},
	} {
		t.Run(x.name, func(t *testing.T) {
			s.Proxy.Args = x.args
			s.Proxy.Start(t)
			defer s.Proxy.Stop(t)
			if !strings.Contains(kernelState(t, host), "imeproxy_intercept") {
				t.Fatal("the running proxy has no table of its own")
			}
			x.test(t, s)
		})
		sameState(t, "after "+x.name, before, kernelState(t, host))
		for _, st := range []*Stub{s.Agent, s.Far} {
			for _, c := range st.Open() {
				c.Close()
			}
			st.Drain()
		}
	}
}

// ends demands that the daemon ends by itself with exit status 0 within the limit.
func ends(t T, p *Proxy, limit time.Duration) {
	t.Helper()
	if err := p.Process().Wait(limit); err != nil {
		t.Errorf("the daemon's end: %v", err)
	}
}

// refusesCalls demands that new calls get 503 with Retry-After: over a standing connection and over a new one.
func (s *StubLab) refusesCalls(t T, agent, far *StubConn) {
	t.Helper()
	for _, l := range []*Leg{s.Outbound(agent), s.Outbound(s.AgentDial(t)), s.Inbound(far), s.Inbound(s.FarDial(t))} {
		body := plainOffer(s.A.PhoneIP.String(), 4000)
		if l.Stub == s.Far {
			body = secureOffer(s.B.MediaOut.String(), 20000)
		}
		inv := l.Request(t, "INVITE", s.WithTicket, sdp(body))
		resp := l.AwaitStatus(t, inv, 503)
		if resp.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After in\n%s", l.Stub.Name, resp.Raw)
		}
		l.AckFailure(t, inv, resp)
	}
}

// takesBye waits for the BYE of the proxy at a leg and answers it.
func takesBye(t T, legs ...*Leg) {
	t.Helper()
	for _, l := range legs {
		l.Respond(t, l.Expect(t, "BYE"), 200, "OK")
	}
}

// A stopping proxy refuses new calls, hangs up those that stand at both ends, ends what rings, and is gone when the answers
// have come. Records say why.
func stopInOrder(t *testing.T, s *StubLab) {
	a1, f1 := s.CallOut(t)
	f2, a2 := s.CallIn(t)
	ringingOut := s.Outbound(a1.Conn)
	invOut := ringingOut.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4002)))
	seenOut := s.Far.Expect(t, InCall(ringingOut.CallID, ReqIs("INVITE")), wait)
	calledOut := s.Far.AnswerLeg(seenOut)
	calledOut.Respond(t, seenOut, 180, "Ringing")
	ringingOut.AwaitStatus(t, invOut, 180)
	ringingIn := s.Inbound(f2.Conn)
	invIn := ringingIn.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20002)))
	seenIn := s.Agent.Expect(t, InCall(ringingIn.CallID, ReqIs("INVITE")), wait)
	calledIn := s.Agent.AnswerLeg(seenIn)
	calledIn.Respond(t, seenIn, 180, "Ringing")
	ringingIn.AwaitStatus(t, invIn, 180)

	s.Proxy.Signal(syscall.SIGTERM)
	begin := time.Now()
	for _, x := range []struct {
		caller, callee *Leg
		inv, seen      *StubMessage
	}{{ringingOut, calledOut, invOut, seenOut}, {ringingIn, calledIn, invIn, seenIn}} {
		x.caller.AckFailure(t, x.inv, x.caller.AwaitStatus(t, x.inv, 503))
		x.callee.Respond(t, x.callee.Expect(t, "CANCEL"), 200, "OK")
		x.callee.Respond(t, x.seen, 487, "Request Terminated")
		x.callee.Expect(t, "ACK")
	}
	s.refusesCalls(t, a1.Conn, f2.Conn)
	nothingElse := func(t *testing.T, st *Stub) {
		for _, m := range st.Drain() {
			if m.Method() != "" && m.Method() != "BYE" {
				t.Errorf("%s got\n%s", st.Name, m.Raw)
			}
		}
	}
	takesBye(t, a1, f1, a2, f2)
	nothingElse(t, s.Agent)
	nothingElse(t, s.Far)
	ends(t, s.Proxy, 5*time.Second)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopped after %v although all has been answered", took)
	}
	for _, c := range []*StubConn{a1.Conn, f1.Conn, a2.Conn, f2.Conn} {
		c.WaitEnd(t, time.Second)
	}
	reasons := make(map[string]string)
	for line := range bytes.Lines([]byte(s.Proxy.records())) {
		var r struct {
			CallID string `json:"call_id"`
			Reason string `json:"end_reason"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("call record %s: %v", line, err)
		}
		reasons[r.CallID] = r.Reason
	}
	for _, l := range []*Leg{a1, f2, ringingOut, ringingIn} {
		if reasons[l.CallID] != "shutdown" {
			t.Errorf("the record of %s says %q", l.CallID, reasons[l.CallID])
		}
	}
}

// Ends that answer no BYE hold it up for less than 10 s.
func stopWithoutAnswers(t *testing.T, s *StubLab) {
	a, f := s.CallOut(t)
	s.Proxy.Signal(syscall.SIGTERM)
	a.Expect(t, "BYE")
	f.Expect(t, "BYE")
	ends(t, s.Proxy, 9*time.Second)
}

// Calls live on without connections: each end gets its BYE over a new one, all calls of an end over the same.
func stopWithoutConnections(t *testing.T, s *StubLab) {
	a1, f1 := s.CallOut(t)
	f2, a2 := s.CallIn(t)
	f3, a3 := s.CallIn(t)
	for _, l := range []*Leg{a1, f2, f3} {
		l.Conn.Close()
	}
	for _, l := range []*Leg{f1, a2, a3} {
		l.Conn.WaitEnd(t, wait)
	}
	s.Proxy.Signal(syscall.SIGTERM)
	used := make(map[*StubConn]bool)
	for _, l := range []*Leg{a1, f1, a2, f2, a3, f3} {
		bye := l.Expect(t, "BYE")
		used[bye.Conn] = true
		l.Conn = bye.Conn
		l.Respond(t, bye, 200, "OK")
	}
	if n := len(used); n > 4 {
		t.Errorf("%d connections for the BYEs of three calls", n)
	}
	ends(t, s.Proxy, 5*time.Second)
}

// With --drain calls that stand may end by themselves, over new connections too; the daemon ends with the last one.
func stopAfterDrain(t *testing.T, s *StubLab) {
	a1, f1 := s.CallOut(t)
	f2, a2 := s.CallIn(t)
	s.Proxy.Signal(syscall.SIGTERM)
	Until(t, wait, "the daemon says that it stops", func() bool { return strings.Contains(s.Proxy.Log(), "drain=1m0s") })
	s.refusesCalls(t, a1.Conn, f2.Conn)
	if out, err := s.Proxy.Shell("show health"); err != nil || !strings.Contains(out, "critical: draining") || !strings.Contains(out, "new calls get 503; 2 left, which get BYE at ") {
		t.Errorf("show health during the drain: %v\n%s", err, out)
	}
	s.Proxy.Signal(sigHUP)
	s.Proxy.Says(t, "the configuration is not read again: the daemon is stopping")
	callStands(t, a1, f1)
	callStands(t, f2, a2)
	f2.Conn.Close()
	a2.Conn.WaitEnd(t, wait)
	f2.Conn = s.FarDial(t)
	seen, _ := f2.Transact(t, a2, "INFO", 200)
	a2.Conn = seen.Conn
	f2.Transact(t, a2, "BYE", 200)
	callStands(t, a1, f1)
	a1.Transact(t, f1, "BYE", 200)
	ends(t, s.Proxy, 3*time.Second)
	s.Proxy.Says(t, `msg="the drain is over" calls=0 why="no call is left"`)
	nothingCame(t, s.Agent)
	nothingCame(t, s.Far)
}

// A second signal ends the drain: both ends get BYE and nobody waits.
func stopBySecondSignal(t *testing.T, s *StubLab) {
	seen := strings.Count(s.Proxy.Log(), "drain=1m0s")
	a, f := s.CallOut(t)
	s.Proxy.Signal(syscall.SIGTERM)
	Until(t, wait, "the daemon says that it stops", func() bool { return strings.Count(s.Proxy.Log(), "drain=1m0s") > seen })
	callStands(t, a, f)
	s.Proxy.Signal(syscall.SIGTERM)
	a.Expect(t, "BYE")
	f.Expect(t, "BYE")
	ends(t, s.Proxy, 2*time.Second)
	s.Proxy.Says(t, `msg="the drain is over" calls=1 why="it was ended early`)
}

// echo lets a host answer what it gets on a port of its own address.
func echo(t T, h *Host, addr string) (stop func()) {
	t.Helper()
	ln, err := h.Listen(addr)
	if err != nil {
		t.Fatalf("%v", err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return func() { ln.Close() }
}

// echoes proves that a connection carries data both ways.
func echoes(t T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("echo")); err != nil {
		t.Fatalf("forwarded connection: %v", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatalf("forwarded connection: %v", err)
	}
}

// A daemon that is killed leaves what it forwards and what it closes as they are: permitted traffic passes, the
// intercepted classes are dead, and the Internet does not get to the call agent. The next one clears up and works.
func killed(t *testing.T, s *StubLab) {
	const web = "209.165.201.3:8080"
	defer echo(t, s.Far.Host, web)()
	for _, port := range []string{"22", "5080"} {
		defer echo(t, s.Agent.Host, s.A.UCMIP.String()+":"+port)()
	}
	forwarded := func() net.Conn {
		t.Helper()
		c, err := s.Agent.Host.Dial("tcp", "", web, wait)
		if err != nil {
			t.Fatalf("permitted traffic: %v", err)
		}
		echoes(t, c)
		return c
	}
	closed := func(h *Host, from, to string) {
		t.Helper()
		if c, err := h.Dial("tcp", from, to, 300*time.Millisecond); err == nil {
			c.Close()
			t.Errorf("%s reaches %s", h.Name, to)
		}
	}
	// A stranger who routes the real addresses to the proxy.
	if err := s.Internet.ip(fmt.Sprintf("route add %s via %s", s.A.Inside.Masked(), s.A.OutsideIP)); err != nil {
		t.Fatal(err)
	}
	defer s.Internet.ip(fmt.Sprintf("route del %s via %s", s.A.Inside.Masked(), s.A.OutsideIP))
	standing := forwarded()
	defer standing.Close()
	s.CallOut(t)
	s.CallIn(t)
	wire := s.Capture(t, s.Agent.Host, "eth0")
	internet := s.Capture(t, s.Internet.Host, "ea")
	s.Proxy.Kill()
	killedAt := time.Now()
	echoes(t, standing)
	forwarded().Close()
	attack := func() {
		t.Helper()
		for _, port := range []string{"22", "5070", "5080", "80"} {
			closed(s.Outsider, "", s.A.Mapped.String()+":"+port)
			closed(s.Outsider, "", s.A.UCMIP.String()+":"+port)
			closed(s.Outsider, "", s.A.OutsideIP.String()+":"+port)
		}
		closed(s.Far.Host, s.Far.Addr.Addr().String(), s.Trunk().String())
	}
	attack()
	closed(s.Agent.Host, "", s.Far.Addr.String())
	for _, c := range s.Agent.Open() {
		c.Write([]byte("late\r\n")) // it may be closed already
	}
	wire.Stop(t)
	internet.Stop(t)
	seen := 0
	for _, p := range internet.Packets(t) {
		if s.A.Inside.Contains(p.Src.Addr()) {
			t.Errorf("a packet with an inside source on the Internet: %s > %s", p.Src, p.Dst)
		}
		seen++
	}
	if seen == 0 {
		t.Error("the capture shows not even the attack")
	}
	for _, p := range wire.Packets(t) {
		if p.Proto == protoTCP && p.Time.After(killedAt) && p.Src.Port() != 8080 && p.Dst.Addr() == s.A.UCMIP && !s.A.Inside.Contains(p.Src.Addr()) && p.Src.Addr() != s.Far.Addr.Addr() {
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
	s.Proxy.Says(t, "an earlier daemon left")
	echoes(t, standing)
	a, f := s.CallOut(t)
	a.Transact(t, f, "BYE", 200)
	f, a = s.CallIn(t)
	f.Transact(t, a, "BYE", 200)
}

// A second daemon says that one runs already, and harms it not: with the same state directory, with the same control
// socket, and with neither.
func startedTwice(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	other := filepath.Join(s.Dir, "other-state")
	MustImeproxy(t, "crypto", "import", "--state-dir", other, "--trustpoint", "local_ent", "--pkcs12", s.A.P12File, "--passphrase", P12Pass)
	MustImeproxy(t, "crypto", "authenticate", "--state-dir", other, "--trustpoint", "lab_ca", "--pem", s.CA.File)
	for _, x := range []struct{ name, state, control string }{
		{"all the same", s.Proxy.StateDir, s.Proxy.Control},
		{"another control socket", s.Proxy.StateDir, s.Proxy.Control + "-2"},
		{"another state directory", other, s.Proxy.Control},
		{"both others", other, s.Proxy.Control + "-2"},
	} {
		t.Run(x.name, func(t *testing.T) {
			state := kernelState(t, s.A.EdgeHost)
			out, err := s.A.EdgeHost.Run("timeout", "-k", "1", "5", Binary(), "run", "--config", s.Proxy.ConfigFile, "--state-dir", x.state, "--control", x.control)
			if err == nil || !strings.Contains(out, "already run") && !strings.Contains(out, "runs already") {
				t.Errorf("the second daemon says %v: %s", err, tail(out, 500))
			}
			sameState(t, "after the second start", state, kernelState(t, s.A.EdgeHost))
			callStands(t, f, a)
			s.syncInside(t, s.FarDial(t))
			s.syncOutside(t, s.AgentDial(t))
		})
	}
	f.Transact(t, a, "BYE", 200)
}
