package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// DefaultSyslogPort is that of syslog over UDP.
const DefaultSyslogPort = 514

// maxLogHosts bounds the syslog servers: each line is sent to all.
const maxLogHosts = 16

// logLevels are an ASA's names of the severities, by their number.
var logLevels = []string{"emergencies", "alerts", "critical", "errors", "warnings", "notifications", "informational", "debugging"}

// DefaultLogTrap is informational.
const DefaultLogTrap = 6

// Logging is what goes to syslog servers.
type Logging struct {
	Enable bool
	Hosts  []LogHost
	Trap   int // one more than the highest severity number that is sent; 0: DefaultLogTrap
}

// Level is the highest severity number that is sent.
func (l Logging) Level() int {
	if l.Trap == 0 {
		return DefaultLogTrap
	}
	return l.Trap - 1
}

// LogHost is a syslog server.
type LogHost struct {
	Pos
	Interface string // a nameif
	Addr      netip.Addr
	Port      uint16
}

func loggingCommands(m *mode) {
	m.add("logging enable", "Send the log to the syslog servers", func(p *parser, _ args) { p.c.Logging.Enable = true }, func(p *parser, _ args) { p.c.Logging.Enable = false })
	m.add("logging host <interface:NAMEIF> <address:HOST> [<transport:SYSLOGPORT>]", "A syslog server", addLogHost, nil)
	m.addNo("logging host <interface:NAMEIF> <address:HOST> [<transport:SYSLOGPORT>]", func(p *parser, a args) {
		before := len(p.c.Logging.Hosts)
		p.c.Logging.Hosts = slices.DeleteFunc(p.c.Logging.Hosts, func(h LogHost) bool {
			return h.Interface == a.Text("interface") && h.Addr.String() == a.Text("address") && (a.Text("transport") == "" || h.Port == syslogPort(a.Text("transport")))
		})
		if len(p.c.Logging.Hosts) == before {
			p.absent(a.arg("address").Col, "logging host")
		}
	})
	m.add("logging trap {"+strings.Join(logLevels, "|")+"|<level:0-7>}", "Up to which severity it is sent", func(p *parser, a args) {
		level := a.Int("level")
		for n, name := range logLevels {
			if a.Has(name) {
				level = n
			}
		}
		if p.c.Logging.Trap = level + 1; level == DefaultLogTrap {
			p.c.Logging.Trap = 0
		}
	}, nil)
	m.addNo("logging trap", func(p *parser, _ args) { p.c.Logging.Trap = 0 })
}

func addLogHost(p *parser, a args) {
	h := LogHost{Pos: p.pos(), Interface: a.Text("interface"), Addr: netip.MustParseAddr(a.Text("address")), Port: DefaultSyslogPort}
	if text := a.Text("transport"); text != "" {
		h.Port = syslogPort(text)
	}
	if slices.ContainsFunc(p.c.Logging.Hosts, func(x LogHost) bool { return x.Addr == h.Addr && x.Port == h.Port && x.Interface == h.Interface }) {
		return
	}
	if p.roomFor(len(p.c.Logging.Hosts), maxLogHosts, "logging hosts") {
		p.c.Logging.Hosts = append(p.c.Logging.Hosts, h)
	}
}

// checkSyslogPort takes udp/PORT, as an ASA writes it.
func checkSyslogPort(w string) error {
	number, ok := strings.CutPrefix(strings.ToLower(w), "udp/")
	if n, err := strconv.Atoi(number); !ok || err != nil || n < 1 || n > 65535 {
		return errors.New("udp/PORT is expected, such as udp/514")
	}
	return nil
}

func syslogPort(w string) uint16 {
	n, _ := strconv.ParseUint(w[len("udp/"):], 10, 16)
	return uint16(n)
}

func writeLogging(c *Config, w *writer) {
	l := c.Logging
	w.flag("", l.Enable, "logging enable")
	if l.Trap != 0 || w.all {
		w.line("logging trap %s", logLevels[l.Level()])
	}
	for _, h := range l.Hosts {
		port := ""
		if h.Port != DefaultSyslogPort || w.all {
			port = fmt.Sprintf(" udp/%d", h.Port)
		}
		w.line("logging host %s %s%s", h.Interface, h.Addr, port)
	}
}

func (k *checker) logging() {
	for _, h := range k.c.Logging.Hosts {
		i := k.nameif(h.Pos, h.Interface)
		if i == nil {
			continue
		}
		k.usable(h.Pos, i, "the log is sent over it")
		if way := k.interfaceOf(h.Addr); way != nil && way != i {
			k.fail(h.Pos, h.Interface, fmt.Sprintf("%s is reached over interface %s, not %s", h.Addr, way.Nameif, h.Interface), "name that one, or add a route")
		}
	}
	switch l := k.c.Logging; {
	case len(l.Hosts) > 0 && !l.Enable:
		k.warn(l.Hosts[0].Pos, "host", "nothing is sent to syslog servers", "add logging enable")
	case len(l.Hosts) == 0 && l.Enable:
		k.warn(Pos{}, "", "logging is enabled and there is no syslog server", "add logging host INTERFACE ADDRESS")
	}
}
