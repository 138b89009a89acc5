package observe

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// Severities of RFC 5424 section 6.2.1 that a log line gets by its level. An attribute `severity` with a name of them counts more.
const (
	syslogError   = 3
	syslogWarning = 4
	syslogInfo    = 6
	syslogDebug   = 7
)

// syslogFacility is local4, that of an ASA.
const syslogFacility = 20

// Limits of a Syslog.
const (
	maxSyslogLine  = 2048 // bytes; RFC 5426 asks receivers for 480, most take 2048
	maxSyslogQueue = 1000
)

var severityNames = map[string]int{"emergency": 0, "alert": 1, "critical": 2, "error": 3, "warning": 4, "notice": 5}

// Syslog sends log lines to syslog servers over UDP (RFC 5424, RFC 5426). Lines that do not fit into its queue of 1000 are counted and lost: a log must never hold up a
// call. Make it by NewSyslog, let Run run, set the servers by Set; all may be called at any time from any goroutine.
type Syslog struct {
	now     func() time.Time
	set     atomic.Pointer[SyslogSettings]
	queue   chan syslogLine
	dropped atomic.Uint64
}

// SyslogSettings say who gets what.
type SyslogSettings struct {
	Hosts    []netip.AddrPort
	Most     int    // the highest severity number that is sent
	Hostname string // of this appliance
}

type syslogLine struct {
	severity int
	at       time.Time
	event    string // the MSGID of RFC 5424 section 6.2.7; may be empty
	text     string
}

// NewSyslog makes one that sends to nobody yet.
func NewSyslog(now func() time.Time) *Syslog {
	return &Syslog{now: now, queue: make(chan syslogLine, maxSyslogQueue)}
}

// Set says who gets what from now on.
func (s *Syslog) Set(to SyslogSettings) { s.set.Store(&to) }

// Handler sends what goes to another handler too.
func (s *Syslog) Handler(next slog.Handler) slog.Handler { return syslogHandler{next: next, to: s} }

// Run sends until ctx ends.
func (s *Syslog) Run(ctx context.Context) {
	var conn net.PacketConn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case line := <-s.queue:
			to := s.set.Load()
			if conn == nil {
				var err error
				var lc net.ListenConfig
				if conn, err = lc.ListenPacket(ctx, "udp4", ":0"); err != nil {
					s.dropped.Add(1)
					continue
				}
			}
			packet := s.packet(line, to.Hostname)
			for _, h := range to.Hosts {
				if _, err := conn.WriteTo(packet, net.UDPAddrFromAddrPort(h)); err != nil {
					s.dropped.Add(1) // told to nobody: the log of it would come here again
				}
			}
		}
	}
}

// Dropped is how many lines were lost.
func (s *Syslog) Dropped() uint64 { return s.dropped.Load() }

// packet is a line in the form of RFC 5424.
func (s *Syslog) packet(l syslogLine, hostname string) []byte {
	if hostname == "" {
		hostname = "-"
	}
	event := l.event
	if event == "" {
		event = "-"
	}
	text := fmt.Sprintf("<%d>1 %s %s imeproxy %d %s - %s", syslogFacility*8+l.severity, l.at.UTC().Format("2006-01-02T15:04:05.000000Z"), hostname, os.Getpid(), event, l.text)
	return []byte(cut(text, maxSyslogLine))
}

func (s *Syslog) put(l syslogLine) {
	select {
	case s.queue <- l:
	default:
		s.dropped.Add(1)
	}
}

// syslogHandler writes the text of a record without its time and level, which the packet has.
type syslogHandler struct {
	next slog.Handler
	to   *Syslog
	with func(slog.Handler) slog.Handler // attributes and groups that were added
}

// Enabled is as the next handler says.
func (h syslogHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle sends a record and passes it on.
func (h syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	if to := h.to.set.Load(); to != nil && len(to.Hosts) > 0 {
		if severity := severityOf(r); severity <= to.Most {
			h.to.put(syslogLine{severity, h.to.now(), eventOf(r), h.text(ctx, r)})
		}
	}
	return h.next.Handle(ctx, r)
}

func (h syslogHandler) text(ctx context.Context, r slog.Record) string {
	var b bytes.Buffer
	var out slog.Handler = slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return maskSecrets(groups, a)
	}})
	if h.with != nil {
		out = h.with(out)
	}
	if err := out.Handle(ctx, r); err != nil {
		return Clean(r.Message)
	}
	return strings.TrimSpace(Clean(r.Message) + " " + Clean(strings.TrimSpace(b.String())))
}

func severityOf(r slog.Record) int {
	out := syslogDebug
	switch {
	case r.Level >= slog.LevelError:
		out = syslogError
	case r.Level >= slog.LevelWarn:
		out = syslogWarning
	case r.Level >= slog.LevelInfo:
		out = syslogInfo
	}
	r.Attrs(func(a slog.Attr) bool {
		n, named := severityNames[a.Value.String()]
		if a.Key == "severity" && named {
			out = n
		}
		return a.Key != "severity"
	})
	return out
}

// WithAttrs keeps what was added for both.
func (h syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.more(h.next.WithAttrs(attrs), func(x slog.Handler) slog.Handler { return x.WithAttrs(attrs) })
}

// WithGroup keeps what was added for both.
func (h syslogHandler) WithGroup(name string) slog.Handler {
	return h.more(h.next.WithGroup(name), func(x slog.Handler) slog.Handler { return x.WithGroup(name) })
}

func (h syslogHandler) more(next slog.Handler, add func(slog.Handler) slog.Handler) slog.Handler {
	before := h.with
	return syslogHandler{next, h.to, func(x slog.Handler) slog.Handler {
		if before != nil {
			x = before(x)
		}
		return add(x)
	}}
}
