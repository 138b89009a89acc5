package capture

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/bpf"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const options = "OPTIONS sip:b.example SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@a.example>;tag=1\r\nTo: <sip:b.example>\r\n" +
	"Call-ID: one@a\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"

var (
	here  = &net.TCPAddr{IP: net.IPv4(192, 168, 10, 30), Port: 5060}
	there = &net.TCPAddr{IP: net.IPv4(209, 165, 201, 3), Port: 5061}
)

func newStore(t *testing.T) (*Store, *trace.Hub, *bytes.Buffer) {
	t.Helper()
	hub, log := new(trace.Hub), new(bytes.Buffer)
	s := NewStore(t.TempDir(), hub, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(s.Close)
	return s, hub, log
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// only gives the one capture of a store when it has come to what is asked for.
func only(t *testing.T, s *Store, what string, is func(observe.Capture) bool) observe.Capture {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		all := s.List().Captures
		if len(all) == 1 && is(all[0]) {
			return all[0]
		}
		if time.Now().After(end) {
			t.Fatalf("not %s: %+v", what, all)
		}
	}
}

func tshark(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark on this machine")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, append([]string{"-n"}, args...)...)
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr.String())
	}
	return string(out)
}

// SIP in clear is a file that tshark reads with its addresses.
func TestCaptureOfSIP(t *testing.T) {
	s, hub, _ := newStore(t)
	must(t, s.Start(Spec{Name: "calls", SIP: trace.Filter{CallID: "one@a"}}))
	hub.Message(here, there, true, []byte(options))
	hub.Message(here, there, true, []byte(strings.Replace(options, "one@a", "two@a", 1)))
	c := only(t, s, "one packet", func(c observe.Capture) bool { return c.Packets == 1 })
	if c.Type != "sip" || c.Filter != "call-id one@a" || c.State != "Capturing" || c.File != "calls.pcapng" || c.KeysUntil != nil {
		t.Errorf("got %+v", c)
	}
	shown, err := s.Show("calls") // while it runs
	must(t, err)
	if len(shown.Packets) != 1 || shown.Packets[0].Text != "192.168.10.30:5060 > 209.165.201.3:5061: OPTIONS sip:b.example SIP/2.0" {
		t.Errorf("got %+v", shown)
	}
	must(t, s.Stop("calls"))
	if hub.Wants(trace.SIP) {
		t.Error("an ended capture still listens")
	}
	file := filepath.Join(s.dir, "calls.pcapng")
	info, err := os.Stat(file)
	must(t, err)
	if c := s.List().Captures[0]; info.Mode().Perm() != 0o600 || info.Size() != c.Bytes || c.State != "stopped" {
		t.Errorf("file %v of %d bytes, told %+v", info.Mode(), info.Size(), c)
	}
	got := tshark(t, "-r", file, "-T", "fields", "-e", "ip.src", "-e", "ip.dst", "-e", "sip.Call-ID", "-e", "sip.Method", "-e", "frame.time_epoch")
	f := strings.Fields(got)
	if len(f) != 5 || strings.Join(f[:4], " ") != "192.168.10.30 209.165.201.3 one@a OPTIONS" {
		t.Fatalf("tshark reads %q", got)
	}
	if at, err := strconv.ParseFloat(f[4], 64); err != nil || time.Since(time.Unix(int64(at), 0)).Abs() > time.Minute {
		t.Errorf("the time is %s, %v", f[4], err)
	}
	must(t, s.Remove("calls"))
	if _, err := os.Stat(file); err == nil || len(s.List().Captures) != 0 {
		t.Error("the capture or its file is still there")
	}
}

// hear begins a capture of the loopback interface, where this user may.
func hear(t *testing.T, s *Store, spec Spec) {
	t.Helper()
	spec.Device, spec.Nameif = "lo", "inside"
	err := s.Start(spec)
	if os.Geteuid() != 0 && err != nil {
		t.Skipf("no packet sockets on this machine for this user: %v", err)
	}
	must(t, err)
}

// The kernel's filter lets through what was asked for.
func TestCaptureOfAnInterface(t *testing.T) {
	s, _, _ := newStore(t)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer conn.Close()
	port := uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	hear(t, s, Spec{Name: "udp", Host: netip.MustParseAddr("127.0.0.1"), Port: port})
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer other.Close()
	_, err = other.WriteTo([]byte("to itself"), other.LocalAddr())
	must(t, err)
	_, err = other.WriteTo([]byte("hello"), conn.LocalAddr())
	must(t, err)
	c := only(t, s, "two packets", func(c observe.Capture) bool { return c.Packets == 2 }) // out and in: the loopback has each twice
	if c.Type != "interface" || c.Filter != fmt.Sprintf("inside host 127.0.0.1 port %d", port) {
		t.Errorf("got %+v", c)
	}
	must(t, s.Stop("udp"))
	shown, err := s.Show("udp")
	must(t, err)
	for _, p := range shown.Packets {
		if p.Text != fmt.Sprintf("%s > 127.0.0.1:%d: udp, 5 bytes", other.LocalAddr(), port) || time.Since(p.At).Abs() > time.Minute {
			t.Errorf("got %+v", p)
		}
	}
	if got := strings.Fields(tshark(t, "-r", filepath.Join(s.dir, "udp.pcapng"), "-T", "fields", "-e", "udp.dstport")); len(got) != 2 || got[0] != fmt.Sprint(port) {
		t.Errorf("tshark reads %q", got)
	}
}

// The keys are written while they are asked for, and tshark reads the session with them. The log tells of it and of nothing secret.
func TestTLSKeys(t *testing.T) {
	s, _, log := newStore(t)
	if s.KeyLog() != nil || (*Store)(nil).KeyLog() != nil {
		t.Error("keys are written although nobody asked")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	hear(t, s, Spec{Name: "tls", Port: uint16(l.Addr().(*net.TCPAddr).Port)})
	must(t, s.Keys("tls", "admin", time.Minute))
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "by=admin") {
		t.Errorf("log: %s", log.String())
	}
	cert := certificate(t)
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			k := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, KeyLogWriter: s.KeyLog()})
			_, err = k.Read(make([]byte, 4096))
			k.Close()
		}
		served <- err
	}()
	c, err := tls.Dial("tcp4", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	must(t, err)
	_, err = c.Write([]byte(options))
	must(t, err)
	must(t, <-served)
	c.Close()
	shown := only(t, s, "the session", func(c observe.Capture) bool { return c.Packets >= 20 })
	if shown.KeysUntil == nil {
		t.Errorf("nobody is told that keys are written: %+v", shown)
	}
	must(t, s.Stop("tls"))
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	if got := tshark(t, "-r", filepath.Join(s.dir, "tls.pcapng"), "-d", "tcp.port=="+port+",tls", "-d", "tls.port=="+port+",sip", "-Y", "sip", "-T", "fields", "-e", "sip.Call-ID"); !strings.Contains(got, "one@a") {
		t.Errorf("tshark reads %q", got)
	}
	if s.KeyLog() != nil {
		t.Error("keys are written into an ended capture")
	}
}

func TestKeysAreRefused(t *testing.T) {
	s, _, _ := newStore(t)
	must(t, s.Start(Spec{Name: "sip"}))
	for name, want := range map[string]string{"sip": "SIP in clear", "none": "no capture none"} {
		if err := s.Keys(name, "x", time.Minute); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	hear(t, s, Spec{Name: "lo"})
	if err := s.Keys("lo", "x", 2*MaxKeyTime); err == nil {
		t.Error("keys may be written for ever")
	}
	must(t, s.Keys("lo", "x", 20*time.Millisecond))
	for end := time.Now().Add(10 * time.Second); s.KeyLog() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the time for keys does not end")
		}
	}
}

// A file that is full ends its capture, and is whole.
func TestFullCapture(t *testing.T) {
	s, hub, _ := newStore(t)
	must(t, s.Start(Spec{Name: "small", Size: 1}))
	body := []byte(options + strings.Repeat("x", 100_000))
	for range 20 {
		hub.Message(here, there, true, body)
	}
	c := only(t, s, "full", func(c observe.Capture) bool { return c.State == "full" })
	if c.Packets != 10 || c.Bytes > 1<<20 {
		t.Errorf("got %+v", c)
	}
	shown, err := s.Show("small")
	must(t, err)
	if len(shown.Packets) != 10 {
		t.Errorf("%d packets in the file", len(shown.Packets))
	}
	for end := time.Now().Add(10 * time.Second); hub.Wants(trace.SIP); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a full capture still listens")
		}
	}
}

func TestRefusedCaptures(t *testing.T) {
	s, _, _ := newStore(t)
	must(t, os.WriteFile(filepath.Join(s.dir, "old.pcapng"), []byte("x"), 0o600))
	must(t, s.Start(Spec{Name: "one"}))
	for name, want := range map[string]string{
		"one": "no capture one removes it", "old": "from an earlier capture", "../x": "letters", "": "letters", "a.b": "letters", strings.Repeat("a", 33): "letters",
	} {
		if err := s.Start(Spec{Name: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := s.Start(Spec{Name: "dev", Device: "nosuchdevice"}); err == nil {
		t.Error("a capture of no interface")
	}
	if _, err := os.Stat(filepath.Join(s.dir, "dev.pcapng")); err == nil {
		t.Error("a capture that could not begin left a file")
	}
	for i := range MaxCaptures - 1 {
		must(t, s.Start(Spec{Name: fmt.Sprint("n", i)}))
	}
	if err := s.Start(Spec{Name: "more"}); err == nil || !strings.Contains(err.Error(), "run already") {
		t.Errorf("over the limit: %v", err)
	}
	must(t, s.Stop("n0"))
	must(t, s.Start(Spec{Name: "more"}))
	for _, err := range []error{s.Stop("none"), s.Remove("none"), s.Remove("../one")} {
		if err == nil {
			t.Error("what is not there was ended")
		}
	}
	if c, err := s.Show("old"); err == nil {
		t.Errorf("a file that is none was read: %+v", c)
	}
	must(t, s.Remove("old"))
}

// A name of an earlier run is listed, and its file is not written over.
func TestCapturesOfAnEarlierRun(t *testing.T) {
	s, hub, _ := newStore(t)
	must(t, s.Start(Spec{Name: "kept"}))
	hub.Message(here, there, false, []byte(options))
	only(t, s, "one packet", func(c observe.Capture) bool { return c.Packets == 1 })
	s.Close()
	if err := s.Start(Spec{Name: "late"}); err == nil {
		t.Error("a closed store takes captures")
	}
	next := NewStore(s.dir, hub, slog.New(slog.DiscardHandler))
	defer next.Close()
	c := next.List().Captures
	if len(c) != 1 || c[0].Name != "kept" || c[0].State != "of an earlier run" {
		t.Errorf("got %+v", c)
	}
	if shown, err := next.Show("kept"); err != nil || len(shown.Packets) != 1 {
		t.Errorf("got %+v %v", shown, err)
	}
}

// The filter is run as the kernel runs it.
func TestFilterCode(t *testing.T) {
	packet := func(proto byte, src, dst string, sport, dport uint16, fragment byte) []byte {
		b := append(make([]byte, 12), 8, 0)
		ip := []byte{0x46, 0, 0, 40, 0, 0, 0, fragment, 64, proto, 0, 0}
		s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
		ip = append(append(append(ip, s[:]...), d[:]...), 1, 1, 1, 0) // with options
		return append(append(b, ip...), byte(sport>>8), byte(sport), byte(dport>>8), byte(dport), 0, 8, 0, 0)
	}
	host := netip.MustParseAddr("192.0.2.1")
	for name, c := range map[string]struct {
		host netip.Addr
		port uint16
		b    []byte
		want bool
	}{
		"from the host":         {host, 0, packet(6, "192.0.2.1", "192.0.2.2", 1, 2, 0), true},
		"to the host":           {host, 0, packet(1, "192.0.2.3", "192.0.2.1", 1, 2, 0), true},
		"between others":        {host, 0, packet(6, "192.0.2.3", "192.0.2.2", 1, 2, 0), false},
		"from the port":         {netip.Addr{}, 5061, packet(6, "192.0.2.3", "192.0.2.2", 5061, 2, 0), true},
		"to the port":           {netip.Addr{}, 5061, packet(17, "192.0.2.3", "192.0.2.2", 1, 5061, 0), true},
		"another port":          {netip.Addr{}, 5061, packet(17, "192.0.2.3", "192.0.2.2", 5060, 5062, 0), false},
		"no ports":              {netip.Addr{}, 5061, packet(1, "192.0.2.3", "192.0.2.2", 5061, 5061, 0), false},
		"a later fragment":      {netip.Addr{}, 5061, packet(17, "192.0.2.3", "192.0.2.2", 5061, 5061, 9), false},
		"both":                  {host, 5061, packet(17, "192.0.2.1", "192.0.2.2", 5061, 1, 0), true},
		"host without the port": {host, 5061, packet(17, "192.0.2.1", "192.0.2.2", 1, 1, 0), false},
		"port without the host": {host, 5061, packet(17, "192.0.2.3", "192.0.2.2", 5061, 1, 0), false},
		"no IPv4":               {host, 0, append(append(make([]byte, 12), 0x08, 0x06), make([]byte, 46)...), false},
	} {
		raw, err := filterCode(c.host, c.port)
		must(t, err)
		code, _ := bpf.Disassemble(raw)
		vm, err := bpf.NewVM(code)
		must(t, err)
		if n, err := vm.Run(c.b); err != nil || (n > 0) != c.want {
			t.Errorf("%s: %d bytes pass, %v", name, n, err)
		}
	}
	if raw, err := filterCode(netip.Addr{}, 0); raw != nil || err != nil {
		t.Errorf("a filter for everything: %v %v", raw, err)
	}
	if _, err := filterCode(netip.MustParseAddr("::1"), 0); err == nil {
		t.Error("a filter for IPv6")
	}
}

func FuzzReadPackets(f *testing.F) {
	good := header(linkUpperPDU, "sip")
	good = append(good, packetBlock(time.Unix(1, 2), pdu(&trace.Event{From: netip.MustParseAddrPort("192.0.2.1:1"), To: netip.MustParseAddrPort("192.0.2.2:2"), Data: []byte(options)}), 9)...)
	f.Add(append(good, secretsBlock([]byte("CLIENT_RANDOM 00 11\n"))...))
	ether := header(linkEthernet, "lo")
	f.Add(append(ether, packetBlock(time.Unix(1, 2), make([]byte, 60), 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readPackets(bytes.NewReader(b), func(link uint16, p packet) bool {
			if text := summary(link, p.data); strings.ContainsAny(text, "\x00\x1b\n") {
				t.Errorf("control characters in %q", text)
			}
			return true
		})
	})
}

func TestSummaries(t *testing.T) {
	ip := func(proto byte, l4 ...byte) []byte {
		n := byte(20 + len(l4))
		return append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0x45, 0, 0, n, 0, 0, 0, 0, 64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}, l4...)
	}
	for want, b := range map[string][]byte{
		"192.0.2.1:5060 > 192.0.2.2:5061: tcp S, 0 bytes": ip(6, 0x13, 0xc4, 0x13, 0xc5, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0),
		"192.0.2.1 > 192.0.2.2: icmp type 8 code 0":       ip(1, 8, 0),
		"192.0.2.1 > 192.0.2.2: ip protocol 47, 2 bytes":  ip(47, 8, 0),
		"cut short":                            {1, 2},
		"ip, cut short":                        append(make([]byte, 12), 8, 0, 0x45),
		"ethertype 0x1234":                     append(make([]byte, 12), 0x12, 0x34),
		"arp who-has 192.0.2.9 tell 192.0.2.1": append(append(make([]byte, 12), 8, 6), 0, 1, 8, 0, 6, 4, 0, 1, 1, 1, 1, 1, 1, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 9),
	} {
		if got := summary(linkEthernet, b); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
