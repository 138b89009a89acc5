package testbed

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestReload(t *testing.T) {
	s := StartStubs(t)
	for _, x := range []struct {
		name string
		test func(*testing.T, *StubLab)
	}{
		{"mistakes", reloadWithMistakes},
		{"refused by the system", reloadRefused},
		{"media addresses and ports", reloadMedia},
		{"ticket password", reloadPassword},
		{"access lists", reloadAccessLists},
		{"port of the class", reloadClassPort},
		{"call agent replaced", reloadOtherAgent},
		{"no uc-ime", reloadWithoutProxy},
		{"from the shell, anew", reloadFromShell},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, s) })
		s.hangUpAll(t)
	}
}

var nftCounter = regexp.MustCompile(`packets \d+ bytes \d+`)

// inForce is what the operator sees of the configuration in force, and what the kernel has of it.
func (s *StubLab) inForce(t T) string {
	t.Helper()
	running, err := s.Proxy.Shell("show running-config")
	if err != nil {
		t.Fatalf("%v", err)
	}
	return running + nftCounter.ReplaceAllString(kernelState(t, s.A.EdgeHost), "")
}

// place gives LINE:COLUMN of a word in a text.
func place(t T, text, word string) string {
	t.Helper()
	at := strings.Index(text, word)
	if at < 0 {
		t.Fatalf("no %q in the configuration", word)
	}
	line := strings.Count(text[:at], "\n")
	return fmt.Sprintf("%d:%d", line+1, at-strings.LastIndex(text[:at], "\n"))
}

// A file with mistakes changes nothing; the log tells where they are.
func reloadWithMistakes(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	before := s.inForce(t)
	unchanged := func(t *testing.T, said string, want ...string) {
		t.Helper()
		for _, w := range append(want, "reload failed, the running configuration stays") {
			if !strings.Contains(said, w) {
				t.Errorf("the log has no %q:\n%s", w, tail(said, 1500))
			}
		}
		if strings.Contains(said, s.A.TicketPassword) {
			t.Error("the log tells the ticket's password")
		}
		if now := s.inForce(t); now != before {
			sameState(t, "after the refused reload", before, now)
		}
		callStands(t, f, a)
	}
	for _, x := range []struct{ name, old, text, word string }{
		{"unknown command", "tls-proxy remote_to_local-ent\n", "frobnicate\ntls-proxy remote_to_local-ent\n", "frobnicate"},
		{"value out of range", "security-level 100", "security-level 101", "101"},
		{"epoch out of range", "ticket epoch 1 ", "ticket epoch 256 ", "256 password"},
		{"port out of range", "rtp-min-port 16384", "rtp-min-port 1000", "1000 rtp"},
		{"address cut short", "ucm address 192.168.10.30", "ucm address 192.168.30", "192.168.30"},
		{"list that does not exist", "match access-list ime-inbound-sip", "match access-list ime-inbound-sop", "ime-inbound-sop"},
		{"trustpoint that does not exist", "server trust-point local_ent", "server trust-point locl_ent", "locl_ent"},
		{"media address of another network", "address 192.168.10.3 ", "address 192.168.77.3 ", "192.168.77.3"},
	} {
		t.Run(x.name, func(t *testing.T) {
			text := s.edit(t, x.old, x.text)
			unchanged(t, s.reload(t, text), s.Proxy.ConfigFile+":"+place(t, text, x.word)+": error: ")
		})
	}
	t.Run("two mistakes", func(t *testing.T) {
		text := strings.Replace(s.edit(t, "security-level 100", "security-level 101"), "ticket epoch 1 ", "ticket epoch 0 ", 1)
		unchanged(t, s.reload(t, text), s.Proxy.ConfigFile+":"+place(t, text, "101")+": error: ", s.Proxy.ConfigFile+":"+place(t, text, "0 password")+": error: ")
	})
	// What only the system can tell.
	t.Run("trustpoint without certificate", func(t *testing.T) {
		unchanged(t, s.reload(t, s.edit(t, "server trust-point local_ent", "server trust-point lab_ca")), "lab_ca", "no identity certificate")
	})
	t.Run("interface that does not exist", func(t *testing.T) {
		unchanged(t, s.reload(t, s.edit(t, "interface ein", "interface enope")), "enope")
	})
	t.Run("route that the system has otherwise", func(t *testing.T) {
		if err := s.A.EdgeHost.ip("route add 203.0.113.0/24 dev ein"); err != nil {
			t.Fatal(err)
		}
		was := before
		before = s.inForce(t)
		unchanged(t, s.reload(t, s.edit(t, "route outside", "route outside 203.0.113.0 255.255.255.0 "+s.A.Gateway.String()+"\nroute outside")), "203.0.113.0/24", "another one already")
		if err := s.A.EdgeHost.ip("route del 203.0.113.0/24 dev ein"); err != nil {
			t.Fatal(err)
		}
		before = was
	})
	t.Run("no file", func(t *testing.T) {
		at := len(s.Proxy.Log())
		if err := os.Remove(s.Proxy.ConfigFile); err != nil {
			t.Fatal(err)
		}
		s.Proxy.Signal(sigHUP)
		var said string
		Until(t, wait, "the daemon has looked", func() bool { said = s.Proxy.Log()[at:]; return strings.Contains(said, "reload failed") })
		unchanged(t, said, "no such file")
	})
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	if now := s.inForce(t); now != before {
		sameState(t, "after a reload of the same", before, now)
	}
	f.Transact(t, a, "BYE", 200)
}

// A configuration that would move the calls to another card, and that the system refuses, leaves the media of standing calls and of new ones alone.
func reloadRefused(t *testing.T, s *StubLab) {
	const suite = "AES_CM_128_HMAC_SHA1_80"
	host := s.A.EdgeHost
	if err := host.ip("link add spare type bridge", "link set spare up", "route add 203.0.113.0/24 dev ein"); err != nil {
		t.Fatal(err)
	}
	defer host.ip("link del spare", "route del 203.0.113.0/24 dev ein")
	k := s.talk(t, true, suite)
	k.bothWays(t, 3)
	text := s.edit(t, "interface eout\n", "interface spare\n")
	text = strings.Replace(text, "route outside", "route outside 203.0.113.0 255.255.255.0 "+s.A.Gateway.String()+"\nroute outside", 1)
	if said := s.reload(t, text); !strings.Contains(said, "another one already") {
		t.Fatalf("the daemon says\n%s", said)
	}
	k.bothWays(t, 3)
	fresh := s.talk(t, false, suite)
	fresh.bothWays(t, 3)
	fresh.end(t)
	k.end(t)
}

// Standing calls keep their media addresses and ports, which stay open for them and go with the last one; new calls get the new.
func reloadMedia(t *testing.T, s *StubLab) {
	const suite = "AES_CM_128_HMAC_SHA1_80"
	old := s.talk(t, true, suite)
	// The same ports under another configuration: those of standing calls are passed over.
	s.mustReload(t, s.edit(t, "rtp-maxport 32767", "rtp-maxport 32765"))
	again := s.talk(t, true, suite)
	again.bothWays(t, 3)
	old.bothWays(t, 3)
	again.end(t)
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	quiet := s.talk(t, false, suite) // has sent nothing yet, so that the kernel knows of no flow
	old.bothWays(t, 3)
	newOut, newIn := netip.MustParseAddr("209.165.200.230"), netip.MustParseAddr("192.168.10.5")
	text := s.Proxy.DefaultConfig(t)
	for was, is := range map[string]string{
		"address " + s.A.MediaOut.String() + " ": "address " + newOut.String() + " ",
		"address " + s.A.MediaIn.String() + " ":  "address " + newIn.String() + " ",
		"rtp-min-port 16384 rtp-maxport 32767":   "rtp-min-port 40000 rtp-maxport 40999",
	} {
		if !strings.Contains(text, was) {
			t.Fatalf("no %q in the configuration", was)
		}
		text = strings.Replace(text, was, is, 1)
	}
	s.mustReload(t, text)
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	fresh := s.talk(t, true, suite)
	for at, want := range map[netip.AddrPort]netip.Addr{fresh.in: newIn, fresh.out: newOut} {
		if at.Addr() != want || at.Port() < 40000 || at.Port() > 40999 {
			t.Errorf("the new call has media at %v", at)
		}
	}
	fresh.bothWays(t, 3)
	quiet.toPhone(t, 3)
	quiet.toFar(t, 3)
	old.toPhone(t, 3)
	old.toFar(t, 3)
	wasIn, wasOut := old.in, old.out
	old.again(t, false, nil, nil)
	if old.in != wasIn || old.out != wasOut {
		t.Errorf("the standing call moved from %v, %v to %v, %v", wasIn, wasOut, old.in, old.out)
	}
	old.bothWays(t, 3)
	old.end(t)
	quiet.bothWays(t, 3)
	quiet.end(t)
	Until(t, wait, "the former address is given back", func() bool {
		return !strings.Contains(s.A.EdgeHost.MustRun(t, "ip", "-4", "-o", "addr"), s.A.MediaOut.String()+"/")
	})
	if rules := s.A.EdgeHost.MustRun(t, "nft", "list", "ruleset"); strings.Contains(rules, s.A.MediaOut.String()) || strings.Contains(rules, "16384") {
		t.Error("the rules of the former ports stand")
	}
	fresh.bothWays(t, 3)
	fresh.end(t)
}

// With a new password the tickets of the old one end at once, on standing connections too.
func reloadPassword(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	s.mustReload(t, s.edit(t, s.A.TicketPassword, "another-password"))
	before := s.counters(t)
	l := s.Inbound(f.Conn)
	l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket), 403)
	s.grew(t, before, "ticket_integrity_check_failed")
	callStands(t, f, a)
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	s.syncInside(t, f.Conn)
	f.Transact(t, a, "BYE", 200)
}

// A new entry opens a port; without it new connections drop and standing ones of it end, others go on.
func reloadAccessLists(t *testing.T, s *StubLab) {
	defer echo(t, s.Agent.Host, s.A.UCMIP.String()+":5080")()
	target := s.A.Mapped.String() + ":5080"
	if c, err := s.Outsider.Dial("tcp", "", target, 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("port 5080 is open without an entry")
	}
	entry := "access-list incoming extended permit tcp any host " + s.A.UCMIP.String() + " eq "
	s.mustReload(t, s.edit(t, entry+"5070", entry+"5080\n"+entry+"5070"))
	c, err := s.Outsider.Dial("tcp", "", target, wait)
	if err != nil {
		t.Fatalf("port 5080: %v", err)
	}
	defer c.Close()
	echoes(t, c)
	const web = "198.51.100.10:8080"
	defer echo(t, s.Outsider, web)()
	other, err := s.Agent.Host.Dial("tcp", "", web, wait)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer other.Close()
	echoes(t, other)
	s.mustReload(t, s.Proxy.DefaultConfig(t))
	if c, err := s.Outsider.Dial("tcp", "", target, 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("port 5080 is open after its entry has gone")
	}
	echoes(t, other)
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	_, _ = c.Write([]byte("late"))
	if n, err := c.Read(make([]byte, 4)); err == nil {
		t.Errorf("the connection goes on though its entry has gone: %d bytes", n)
	}
}

// The class moves to another port: what stands at the old one goes on, new connections come at the new one.
func reloadClassPort(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	s.mustReload(t, strings.ReplaceAll(s.Proxy.DefaultConfig(t), "host "+s.A.UCMIP.String()+" eq 5070", "host "+s.A.UCMIP.String()+" eq 5071"))
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	s.Agent.StopListening()
	defer s.Agent.Listen(t, nil)
	ln := &Stub{Name: "call agent at 5071", Host: s.Agent.Host, Addr: netip.AddrPortFrom(s.A.UCMIP, 5071), Transport: "TCP", sent: s.Agent.sent}
	ln.Listen(t, nil)
	defer ln.Close()
	callStands(t, f, a)
	c := s.Far.Dial(t, netip.AddrPortFrom(s.A.Mapped, 5071), s.CA.TLSConfig(s.FarID, s.A.Domain))
	l := s.Inbound(c)
	l.Request(t, "MESSAGE", s.WithTicket, func(m *StubMessage) { m.WithBody("text/plain", "x") })
	seen := ln.Expect(t, InCall(l.CallID, ReqIs("MESSAGE")), wait)
	ln.AnswerLeg(seen).Respond(t, seen, 200, "OK")
	s.Far.Expect(t, InCall(l.CallID, RespIs(200, "MESSAGE")), wait)
	if c, err := s.Far.Host.Dial("tcp", s.Far.Addr.Addr().String(), s.Trunk().String(), 300*time.Millisecond); err == nil {
		c.Close()
		t.Error("the old port still takes connections")
	}
	f.Transact(t, a, "BYE", 200)
	c.Close()
}

// Another call agent takes the place of the one whose calls stand: those go on, new ones to it do not begin.
func reloadOtherAgent(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	a2, f2 := s.CallOut(t)
	text := strings.ReplaceAll(s.Proxy.DefaultConfig(t), "host "+s.A.UCMIP.String(), "host 192.168.10.31")
	s.mustReload(t, strings.Replace(text, "ucm address "+s.A.UCMIP.String(), "ucm address 192.168.10.31", 1))
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	callStands(t, f, a)
	callStands(t, a2, f2)
	for _, l := range []*Leg{s.Inbound(f.Conn), s.Outbound(a2.Conn)} {
		if resp := l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(plainOffer(s.A.PhoneIP.String(), 4000))), 503); resp.Get("Retry-After") == "" {
			t.Errorf("no Retry-After in\n%s", resp.Raw)
		}
	}
	nothingCame(t, s.Agent)
	nothingCame(t, s.Far)
	f.Transact(t, a, "BYE", 200)
	a2.Transact(t, f2, "BYE", 200)
}

// Without a uc-ime the box forwards only: calls that stand can end, none begins.
func reloadWithoutProxy(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	text := s.Proxy.DefaultConfig(t)
	at, end := strings.Index(text, "uc-ime local-ent-ime\n"), strings.Index(text, "class-map ime-inbound-sip")
	text = text[:at] + text[end:strings.Index(text, "policy-map ime-policy")]
	s.mustReload(t, text)
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	callStands(t, f, a)
	l := s.Inbound(f.Conn)
	l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000))), 503)
	nothingCame(t, s.Agent)
	f.Transact(t, a, "BYE", 200)
}

// reloadFromShell lets the daemon begin anew: the same process, with the saved configuration, and calls go on being made.
func reloadFromShell(t *testing.T, s *StubLab) {
	p := s.Proxy
	var before, after struct {
		Hostname, Started string
	}
	p.Show(t, "version", &before)
	pid := p.Process().Pid()
	s.CallOut(t)
	p.typeAt(t, "configure terminal", "hostname unsaved")
	if out, err := p.Shell("reload noconfirm"); err != nil || !strings.Contains(out, "begins anew") {
		t.Fatalf("%v: %s", err, out)
	}
	// Nobody answers its BYEs, for which it waits some seconds.
	Until(t, 10*time.Second, "the daemon has begun anew", func() bool {
		return p.TryShow("version", &after) == nil && after.Started != before.Started
	})
	if p.Process().Pid() != pid || !p.Running() || after.Hostname != before.Hostname {
		t.Errorf("process %d, was %d; hostname %s, was %s", p.Process().Pid(), pid, after.Hostname, before.Hostname)
	}
	p.Says(t, "the daemon begins anew")
	agent, far := s.CallOut(t)
	far.Transact(t, agent, "BYE", 200)
}
