package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// What an entry of an access list logs when nothing else is said, and the bounds of it, as an ASA has them.
const (
	DefaultEntryLevel    = 6 // informational
	DefaultEntryInterval = 300 * time.Second
	DefaultDenyFlowMax   = 4096
	DefaultAlertInterval = 300 * time.Second
)

// EntryLog is what an entry of an access list tells the log. The zero value is an ASA's default: of what it denies each packet is told (message 106023).
type EntryLog struct {
	Flows    bool          // flows are told (message 106100): their first packet, then how many came in each interval
	Off      bool          // nothing is told
	Level    int           // severity, 0 to 7; with Flows
	Interval time.Duration // 1 to 600 s; with Flows
}

// DenyFlows is how many denied flows are logged at once.
func (c *Config) DenyFlows() int {
	if c.DenyFlowMax == 0 {
		return DefaultDenyFlowMax
	}
	return c.DenyFlowMax
}

// FlowAlerts is the time between two alerts that DenyFlows are logged.
func (c *Config) FlowAlerts() time.Duration {
	if c.AlertInterval == 0 {
		return DefaultAlertInterval
	}
	return c.AlertInterval
}

var logPattern = "[log [disable|default|{" + strings.Join(logLevels, "|") + "|<level:0-7>} [interval <interval:1-600>]|interval <interval:1-600>]]"

// flowNames are commands where the name of an access list could stand.
var flowNames = []string{"deny-flow-max", "alert-interval"}

func flowCommands(m *mode) {
	m.add("access-list deny-flow-max <flows:1-4096>", "How many denied flows are logged at once", func(p *parser, a args) {
		if p.c.DenyFlowMax = a.Int("flows"); p.c.DenyFlowMax == DefaultDenyFlowMax {
			p.c.DenyFlowMax = 0
		}
	}, func(p *parser, _ args) { p.c.DenyFlowMax = 0 })
	m.add("access-list alert-interval <seconds:1-3600>", "The least time between two alerts that as many are", func(p *parser, a args) {
		if p.c.AlertInterval = time.Duration(a.Int("seconds")) * time.Second; p.c.AlertInterval == DefaultAlertInterval {
			p.c.AlertInterval = 0
		}
	}, func(p *parser, _ args) { p.c.AlertInterval = 0 })
}

// resetFlows carries out `no access-list deny-flow-max` and its like, which have no pattern of their own: `no access-list d` must be about the list d.
func (p *parser) resetFlows(name string) bool {
	switch name {
	case flowNames[0]:
		p.c.DenyFlowMax = 0
	case flowNames[1]:
		p.c.AlertInterval = 0
	default:
		return false
	}
	return true
}

func entryLog(a args) EntryLog {
	if !a.Has("log") || a.Has("default") {
		return EntryLog{}
	}
	if a.Has("disable") {
		return EntryLog{Off: true}
	}
	l := EntryLog{Flows: true, Level: DefaultEntryLevel, Interval: DefaultEntryInterval}
	if _, ok := a.Get("level"); ok {
		l.Level = a.Int("level")
	}
	for n, name := range logLevels {
		if a.Has(name) {
			l.Level = n
		}
	}
	if a.Has("interval") {
		l.Interval = time.Duration(a.Int("interval")) * time.Second
	}
	return l
}

// appendTo writes the words of an entry after a blank: defaults are left out, unless all is to be seen.
func (l EntryLog) appendTo(b []byte, all bool) []byte {
	switch {
	case l.Off:
		return append(b, " log disable"...)
	case !l.Flows:
		return b
	}
	b = append(b, " log"...)
	odd := l.Interval != DefaultEntryInterval
	if all || odd || l.Level != DefaultEntryLevel {
		b = append(append(b, ' '), logLevels[l.Level]...)
	}
	if all || odd {
		b = strconv.AppendInt(append(b, " interval "...), int64(l.Interval/time.Second), 10)
	}
	return b
}

// entryKey is an entry of a list, whatever it logs.
type entryKey struct {
	list  string
	entry ACE
}

func (l *AccessList) key(e ACE) entryKey {
	e.Pos, e.Log = Pos{}, EntryLog{}
	return entryKey{l.Name, e}
}

// alike finds an entry that differs in nothing but what it logs; -1: none.
func (l *AccessList) alike(e ACE) int {
	k := l.key(e)
	return slices.IndexFunc(l.Entries, func(x ACE) bool { return x.Dst == e.Dst && l.key(x) == k })
}

// relog has an entry of the list log what the same entry says that is typed again, as on an ASA; false: there is none.
func (p *parser) relog(l *AccessList, e ACE) bool {
	if l == nil {
		return false
	}
	if p.known == nil { // a text of many entries would compare each with all before it
		p.known = map[entryKey]bool{}
		for _, x := range p.c.AccessLists {
			for _, y := range x.Entries {
				p.known[x.key(y)] = true
			}
		}
	}
	if !p.known[l.key(e)] {
		return false
	}
	at := l.alike(e)
	if at < 0 {
		return false
	}
	l.Entries[at] = e
	return true
}
