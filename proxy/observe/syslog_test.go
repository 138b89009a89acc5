package observe

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

// receiver is a syslog server.
func receiver(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func take(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// running is a logger whose lines go to servers too.
func running(t *testing.T, to SyslogSettings) (*slog.Logger, *Syslog) {
	t.Helper()
	s := NewSyslog(func() time.Time { return noon })
	s.Set(to)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return slog.New(s.Handler(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))), s
}

// Every server gets each line in the form of RFC 5424, with the severity of its level or of its attribute; secrets and control characters stay out.
func TestSyslogLines(t *testing.T) {
	a, at := receiver(t)
	b, bt := receiver(t)
	log, _ := running(t, SyslogSettings{Hosts: []netip.AddrPort{at, bt}, Most: 6, Hostname: "proxy-a"})
	log = log.With("call_id", "x@y").WithGroup("g")
	log.Info("call begins", "to", "b.example")
	log.Debug("not sent", "n", 1)
	log.Warn("odd\ntext", "password", "geheim123")
	log.With("k", "v").Error("failed")
	log.Error("alert BannedFromNetwork", "severity", "alert")
	log.Warn("a ticket is refused", EventKey, "ticket_refused")
	for _, c := range []*net.UDPConn{a, b} {
		for _, want := range []string{
			`^<166>1 2026-11-22T12:00:00\.000000Z proxy-a imeproxy \d+ - - call begins call_id=x@y g\.to=b\.example$`,
			`^<164>1 \S+ proxy-a imeproxy \d+ - - odd\?text call_id=x@y g\.password=\*\*\*\*\*$`,
			`^<163>1 .* - - failed call_id=x@y g\.k=v$`,
			`^<161>1 .* - - alert BannedFromNetwork call_id=x@y g\.severity=alert$`,
			`^<164>1 .* imeproxy \d+ ticket_refused - a ticket is refused call_id=x@y g\.event=ticket_refused$`,
		} {
			if got := take(t, c); !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%q, want %s", got, want)
			}
		}
	}
}

// A long line is cut, servers can change while it runs, and without one nothing is sent.
func TestSyslogSettings(t *testing.T) {
	a, at := receiver(t)
	b, bt := receiver(t)
	log, s := running(t, SyslogSettings{Hosts: []netip.AddrPort{at}, Most: 4})
	log.Info("left out")
	log.Warn(strings.Repeat("x", 5000))
	if got := take(t, a); len(got) != maxSyslogLine || !strings.HasPrefix(got, "<164>1 ") {
		t.Errorf("%d bytes: %.60q", len(got), got)
	}
	s.Set(SyslogSettings{})
	log.Error("to nobody")
	s.Set(SyslogSettings{Hosts: []netip.AddrPort{bt}, Most: 7})
	log.Debug("to another")
	if got := take(t, b); !strings.HasSuffix(got, " to another") || !strings.HasPrefix(got, "<167>1 ") {
		t.Errorf("%q", got)
	}
}

// What does not fit is lost and counted, and holds up nobody.
func TestSyslogQueueIsBounded(t *testing.T) {
	s := NewSyslog(time.Now)
	s.Set(SyslogSettings{Hosts: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, Most: 7})
	log := slog.New(s.Handler(slog.NewTextHandler(io.Discard, nil)))
	for range maxSyslogQueue + 3 {
		log.Info("x")
	}
	if s.Dropped() != 3 {
		t.Errorf("%d dropped", s.Dropped())
	}
}
