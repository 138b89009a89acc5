package testbed

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// An operator sees what happens: while it happens, in files afterwards, and counted.
func TestSeeingWhatHappens(t *testing.T) {
	s := StartStubs(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *StubLab)
	}{
		{"debug sip", debugSIP},
		{"debug uc-ime", debugUCIME},
		{"capture", captures},
		{"counts and tables", countsAndTables},
		{"ping and traceroute", pingAndTraceroute},
		{"packet-tracer", packetTracer},
		{"what is denied", whatIsDenied},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
}

// watching is a shell command that goes on.
type watching struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

func (w *watching) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(b)
}

func (w *watching) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.String()
}

// watch begins a command; end ends it as Ctrl-C does.
func (p *Proxy) watch(t *testing.T, command string) *watching {
	t.Helper()
	w := new(watching)
	w.cmd = exec.Command(Binary(), "shell", "--control", p.Control, "-c", command)
	w.cmd.Stdout, w.cmd.Stderr = w, w
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	return w
}

func (w *watching) end(t *testing.T) {
	t.Helper()
	_ = w.cmd.Process.Signal(os.Interrupt)
	ended := make(chan error, 1)
	go func() { ended <- w.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("Ctrl-C does not end it")
	}
}

func debugSIP(t *testing.T, s *StubLab) {
	all, one := s.Proxy.watch(t, "debug sip"), s.Proxy.watch(t, "debug sip number "+strings.TrimPrefix(s.B.Number, "+"))
	other := s.Proxy.watch(t, "debug sip call-id nobody@nowhere")
	Until(t, wait, "a call is seen by both", func() bool {
		agent, far := s.CallOut(t)
		far.Transact(t, agent, "BYE", 200)
		whole := func(w *watching) bool {
			_, after, found := strings.Cut(w.text(), "INVITE sip:")
			return found && strings.Contains(after, "SIP/2.0 200 Answer")
		}
		return whole(all) && whole(one)
	})
	for name, w := range map[string]*watching{"all": all, "one": one, "other": other} {
		w.end(t)
		if got := w.text(); name == "other" && got != "" {
			t.Errorf("another call is shown:\n%s", got)
		} else if name != "other" {
			for _, want := range []string{
				fmt.Sprintf("sip: %s:", s.A.UCMIP), " TCP, ", fmt.Sprintf("-> %s TLS, ", s.Far.Addr), "INVITE sip:", "SIP/2.0 200 OK", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xxx",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("%s: no %q in\n%s", name, want, tail(got, 3000))
				}
			}
		}
	}
}

func debugUCIME(t *testing.T, s *StubLab) {
	all := s.Proxy.watch(t, "debug uc-ime")
	tickets := s.Proxy.watch(t, "debug uc-ime ticket")
	Until(t, wait, "calls and tickets are seen", func() bool {
		far, agent := s.CallIn(t)
		agent.Transact(t, far, "BYE", 200)
		leg := s.Inbound(s.FarDial(t))
		leg.AwaitStatus(t, leg.Request(t, "INVITE", sdp(secureOffer(s.B.MediaOut.String(), 20000))), 403)
		return strings.Contains(tickets.text(), "verified") && strings.Contains(tickets.text(), "Ticket not found")
	})
	Until(t, wait, "the end of the call is seen", func() bool { return strings.Contains(all.text(), "call ended") })
	all.end(t)
	tickets.end(t)
	for _, want := range []string{" signaling: session ", "begun by outside", "TLS 1.3", "granted to " + s.B.Domain, "inbound from", " media [", "offer of outside: audio " + s.B.MediaOut.String() + ":20000 RTP/SAVP; here ", "answer of inside", "call ended: bye"} {
		if !strings.Contains(all.text(), want) {
			t.Errorf("no %q in\n%s", want, tail(all.text(), 4000))
		}
	}
	if strings.Contains(tickets.text(), "media [") || strings.Contains(all.text(), s.Ticket) {
		t.Error("the tickets' debug shows other things, or one shows the ticket itself")
	}
}

func captures(t *testing.T, s *StubLab) {
	p := s.Proxy
	for _, line := range []string{"capture calls sip", "capture wire interface outside port 5070", "capture wire tls-keys 5"} {
		if out, err := p.Shell(line); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	s.hangUpAll(t) // keys are those of new sessions
	agent, far := s.CallOut(t)
	far.Transact(t, agent, "BYE", 200)
	var list struct {
		Captures []struct {
			Name, State string
			Packets     int
			KeysUntil   string `json:"keys_until"`
		}
	}
	Until(t, wait, "the call is in both files", func() bool {
		p.Show(t, "capture", &list)
		return len(list.Captures) == 2 && list.Captures[0].Packets >= 8 && list.Captures[1].Packets >= 12
	})
	if list.Captures[1].Name != "wire" || list.Captures[1].KeysUntil == "" {
		t.Errorf("listed are %+v", list)
	}
	for _, name := range []string{"calls", "wire"} {
		if out, err := p.Shell("capture " + name + " stop"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	p.Says(t, "keys of new TLS sessions are written into a capture")
	calls := &Capture{File: filepath.Join(p.StateDir, "calls.pcapng"), lab: s.Lab}
	got := calls.Tshark(t, "-Y", "sip.Method == INVITE", "-T", "fields", "-e", "ip.src", "-e", "ip.dst", "-e", "sip.Call-ID")
	want := fmt.Sprintf("%s\t%s\t%s", s.A.UCMIP, s.Far.Addr.Addr(), agent.CallID)
	if !strings.Contains(got, want) || strings.Count(got, agent.CallID) != 2 {
		t.Errorf("tshark reads of the calls\n%swant %s, once on each side", got, want)
	}
	if bytes.Contains([]byte(readAll(calls.File)), []byte("inline:"+strings.Repeat("A", 4))) || !strings.Contains(readAll(calls.File), "inline:xxxx") {
		t.Error("the keys of SRTP are in the file")
	}
	wire := &Capture{File: filepath.Join(p.StateDir, "wire.pcapng"), lab: s.Lab}
	got = wire.Tshark(t, "-d", "tcp.port==5070,tls", "-d", "tls.port==5070,sip", "-Y", "sip.Method == INVITE", "-T", "fields", "-e", "ip.dst", "-e", "sip.Call-ID")
	if !strings.Contains(got, s.Far.Addr.Addr().String()+"\t"+agent.CallID) {
		t.Errorf("tshark reads of the wire %q of\n%s", got, wire.Tshark(t, "-d", "tcp.port==5070,tls"))
	}
	for _, name := range []string{"calls", "wire"} {
		if out, err := p.Shell("no capture " + name); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if _, err := os.Stat(filepath.Join(p.StateDir, name+".pcapng")); err == nil {
			t.Errorf("the file of capture %s is still there", name)
		}
	}
}

func countsAndTables(t *testing.T, s *StubLab) {
	taken := func() (n int) {
		var policies struct {
			Policies []struct {
				Classes []struct{ Connections, Sessions int }
			}
		}
		s.Proxy.Show(t, "service-policy", &policies)
		for _, p := range policies.Policies {
			for _, c := range p.Classes {
				n += c.Connections
			}
		}
		return n
	}
	hits := func() (n int) {
		var lists struct {
			AccessLists []struct{ Entries []struct{ Hits int } } `json:"access_lists"`
		}
		s.Proxy.Show(t, "access-list", &lists)
		for _, l := range lists.AccessLists {
			for _, e := range l.Entries {
				n += e.Hits
			}
		}
		return n
	}
	beforeTaken, beforeHits := taken(), hits()
	agent, far := s.CallOut(t)
	var calls struct {
		Calls []struct {
			CallID string `json:"call_id"`
			State  string
		}
	}
	var sessions struct {
		Sessions []struct {
			Outside string
			Domains []string `json:"peer_domains"`
			Bytes   int
		}
	}
	s.Proxy.Show(t, "sip", &calls)
	s.Proxy.Show(t, "tls-proxy session", &sessions)
	found := false
	for _, c := range calls.Calls {
		found = found || c.CallID == agent.CallID && c.State == "confirmed"
	}
	if !found {
		t.Errorf("the call is not among %+v", calls)
	}
	found = false
	for _, x := range sessions.Sessions {
		found = found || x.Outside == s.Far.Addr.String() && len(x.Domains) == 1 && x.Domains[0] == s.B.Domain && x.Bytes > 1000
	}
	if !found {
		t.Errorf("the session is not among %+v", sessions)
	}
	far.Transact(t, agent, "BYE", 200)
	if nt, nh := taken(), hits(); nt != beforeTaken+1 || nh != beforeHits+1 {
		t.Errorf("one connection more is counted as %d and %d more", nt-beforeTaken, nh-beforeHits)
	}
	if out, err := s.Proxy.Shell("show xlate"); err != nil || !strings.Contains(out, fmt.Sprintf("from inside:%s to outside:%s\n    flags s", s.A.UCMIP, s.A.Mapped)) {
		t.Errorf("%v: %s", err, out)
	}
}

func pingAndTraceroute(t *testing.T, s *StubLab) {
	out, err := s.Proxy.Shell("ping " + s.B.OutsideIP.String() + " repeat 3")
	if err != nil || !strings.Contains(out, "\n!!!\nSuccess rate is 100 percent (3/3)") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = s.Proxy.Shell("ping outside " + s.B.OutsideIP.String() + " repeat 2 size 1400")
	if err != nil || !strings.Contains(out, "Sending 2, 1400-byte") || !strings.Contains(out, "(2/2)") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = s.Proxy.Shell("traceroute " + s.B.OutsideIP.String())
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 5 || !strings.HasPrefix(lines[3], " 1  ") || strings.Contains(lines[3], s.B.OutsideIP.String()) || !strings.HasPrefix(lines[4], " 2  "+s.B.OutsideIP.String()+" ") {
		t.Errorf("%v: %s", err, out)
	}
}

// packetTracer says of a call of the far end, and of what is none, what becomes of it.
func packetTracer(t *testing.T, s *StubLab) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{fmt.Sprintf("packet-tracer input outside tcp %s 40000 %s %d", s.Far.Addr.Addr(), s.A.Mapped, TrunkPort), []string{"Type: INSPECT", "Config:\naccess-list ", "Action: allow", "asks for certificate and ticket"}},
		{fmt.Sprintf("packet-tracer input outside tcp %s 40000 %s 22", s.Far.Addr.Addr(), s.A.Mapped), []string{"Type: UN-NAT", "Action: drop"}},
		{fmt.Sprintf("packet-tracer input outside udp %s 40000 %s 20000", s.Far.Addr.Addr(), s.A.MediaOut), []string{"Type: MEDIA", "Action: allow"}},
		{fmt.Sprintf("packet-tracer input inside tcp %s 40000 %s %d", s.A.UCMIP, s.Far.Addr.Addr(), TrunkPort), []string{"Type: INSPECT", "Action: allow"}},
	} {
		out, err := s.Proxy.Shell(c.line)
		if err != nil {
			t.Errorf("%s: %v: %s", c.line, err, out)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", c.line, w, out)
			}
		}
	}
}

// whatIsDenied is in the log in an ASA's words.
func whatIsDenied(t *testing.T, s *StubLab) {
	local := s.Far.Addr.Addr().String()
	if c, err := s.B.EdgeHost.Dial("tcp", local, s.A.Mapped.String()+":22", 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("a port that no list permits answers")
	}
	Until(t, wait, "the denial is logged", func() bool {
		return strings.Contains(s.Proxy.Log(), "%ASA-4-106023: Deny tcp src outside:"+local+"/") && strings.Contains(s.Proxy.Log(), fmt.Sprintf(" dst inside:%s/22 by access-group ", s.A.UCMIP))
	})
}
