package probe

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddr("127.0.0.1")

// allowed skips where the machine lets nobody send ICMP.
func allowed(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no raw sockets on this machine for this user")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPingAnswers(t *testing.T) {
	var out bytes.Buffer
	allowed(t, Ping{To: loopback, Repeat: 80}.Run(context.Background(), &out))
	want := regexp.MustCompile(`^Type escape sequence to abort\.
Sending 80, 100-byte ICMP Echos to 127\.0\.0\.1, timeout is 2 seconds:
!{70}
!{10}
Success rate is 100 percent \(80/80\), round-trip min/avg/max = [0-9.]+/[0-9.]+/[0-9.]+ ms
$`)
	if !want.Match(out.Bytes()) {
		t.Errorf("got %q", out.String())
	}
}

// stopAfter ends a context when a text has been written.
type stopAfter struct {
	buf  bytes.Buffer
	text string
	stop func()
}

func (s *stopAfter) Write(b []byte) (int, error) {
	n, err := s.buf.Write(b)
	if strings.Contains(s.buf.String(), s.text) {
		s.stop()
	}
	return n, err
}

// An answer that nobody waits for any more does not keep the operator waiting, and the statistics count what was finished.
func TestPingInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &stopAfter{text: "!!!", stop: cancel}
	allowed(t, Ping{To: loopback, Repeat: MaxRepeat}.Run(ctx, out))
	if got := out.buf.String(); !strings.Contains(got, "\n!!!\nSuccess rate is 100 percent (3/3)") {
		t.Errorf("got %q", got[:min(len(got), 500)])
	}
}

func TestPingSilence(t *testing.T) {
	var out bytes.Buffer
	// Nobody has an address of the loopback that is not bound: the kernel answers all of 127/8, so a bound device without the address stands for silence.
	err := Ping{From: From{Device: "lo"}, To: netip.MustParseAddr("192.0.2.1"), Repeat: 2, Timeout: 50 * time.Millisecond}.Run(context.Background(), &out)
	allowed(t, err)
	if !strings.Contains(out.String(), "\n??\nSuccess rate is 0 percent (0/2)\n") {
		t.Errorf("got %q", out.String())
	}
}

// Package netcheck's tests have a link that is too narrow.
func TestReaches(t *testing.T) {
	lo := From{Device: "lo"}
	for name, c := range map[string]struct {
		to   netip.Addr
		size int
		want bool
	}{
		"as much as fits":             {loopback, 60000, true},
		"nobody answers at all":       {netip.MustParseAddr("192.0.2.1"), 1500, true},
		"more than the device's size": {loopback, 65536 + headers, false},
	} {
		whole, err := Reaches(context.Background(), lo, c.to, c.size)
		allowed(t, err)
		if whole != c.want {
			t.Errorf("%s: %t, want %t", name, whole, c.want)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Reaches(ended, lo, loopback, 1500); !errors.Is(err, context.Canceled) {
		t.Errorf("of a context that has ended: %v", err)
	}
}

func TestTraceroute(t *testing.T) {
	var out bytes.Buffer
	allowed(t, Trace{To: loopback}.Run(context.Background(), &out))
	if !regexp.MustCompile(`^Type escape sequence to abort\.
Tracing the route to 127\.0\.0\.1

 1  127\.0\.0\.1 [0-9.]+ msec [0-9.]+ msec [0-9.]+ msec
$`).Match(out.Bytes()) {
		t.Errorf("got %q", out.String())
	}
}

func TestResolve(t *testing.T) {
	if a, err := Resolve(context.Background(), "192.0.2.7"); err != nil || a.String() != "192.0.2.7" {
		t.Errorf("got %v %v", a, err)
	}
	if _, err := Resolve(context.Background(), "2001:db8::1"); err == nil || !strings.Contains(err.Error(), "IPv4") {
		t.Errorf("got %v", err)
	}
	if _, err := Resolve(context.Background(), "no such host"); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("got %v", err)
	}
}

// strangers are messages that look like answers and are none: another identifier, another number, another host, a quotation that is cut short.
func TestStrangersAreIgnored(t *testing.T) {
	p := &prober{id: 7, to: netip.MustParseAddr("192.0.2.1")}
	echo := func(id, seq int) []byte {
		b, err := (&icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &icmp.Echo{ID: id, Seq: seq}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	exceeded := func(to byte, id, seq byte, cut int) []byte {
		quoted := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 1, 1, 0, 0, 10, 0, 0, 1, 192, 0, 2, to, 8, 0, 0, 0, 0, id, 0, seq}
		b, err := (&icmp.Message{Type: ipv4.ICMPTypeTimeExceeded, Body: &icmp.TimeExceeded{Data: quoted[:len(quoted)-cut]}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		from string
		want bool
	}{
		"our reply":              {echo(7, 3), "192.0.2.1", true},
		"another's reply":        {echo(8, 3), "192.0.2.1", false},
		"an earlier reply":       {echo(7, 2), "192.0.2.1", false},
		"a reply from elsewhere": {echo(7, 3), "192.0.2.2", false},
		"our error":              {exceeded(1, 7, 3, 0), "198.51.100.1", true},
		"another's error":        {exceeded(1, 8, 3, 0), "198.51.100.1", false},
		"error about another":    {exceeded(2, 7, 3, 0), "198.51.100.1", false},
		"cut error":              {exceeded(1, 7, 3, 1), "198.51.100.1", false},
		"nothing":                {nil, "192.0.2.1", false},
	} {
		if got := p.ours(c.b, 3, &reply{from: netip.MustParseAddr(c.from)}); got != c.want {
			t.Errorf("%s: taken %t, want %t", name, got, c.want)
		}
	}
}

func FuzzOurs(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 7, 0, 3})
	f.Add([]byte{11, 0, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 1, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1, 8, 0, 0, 0, 0, 7, 0, 3})
	p := &prober{id: 7, to: netip.MustParseAddr("192.0.2.1")}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reply{from: p.to}
		if p.ours(b, 3, &r) && r.kind == nil {
			t.Error("taken without a kind")
		}
	})
}
