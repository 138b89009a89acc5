package proxy

import (
	"fmt"
	"log/slog"

	"imeproxy/mapping"
)

// tellDenials logs what access lists deny, and the first packets of flows where an entry says log, in the words of an ASA (messages 106023 and 106100).
func (a *Appliance) tellDenials() {
	if err := a.kernel.Denials(a.ctx, a.decided); err != nil {
		a.log.Warn("what access lists deny is not told", "err", err)
	}
}

// decided takes what the kernel tells of a packet.
func (a *Appliance) decided(d mapping.Denial) {
	now := a.now()
	switch {
	case d.Lost:
		a.flows.hurry()
	case d.Full:
		a.tellFull(d.Permitted)
	case d.Logged:
		f := d.Flow()
		e, ok := a.plan.Load().told[a.kernel.Entry(f)]
		if !ok { // the rules change in this moment
			e = toldEntry{list: d.List, log: defaultEntryLog}
		}
		line, tell, full := a.flows.first(now, f, e, way{d.In, d.Out}, a.plan.Load().cfg.DenyFlows())
		if tell {
			a.tellFlow(line)
		}
		if full {
			a.tellFull(f.Permitted)
		}
	default:
		a.log.Warn(a.denial(d))
	}
}

// denial is message 106023.
func (a *Appliance) denial(d mapping.Denial) string {
	in, out := a.nameOf(d.In), a.nameOf(d.Out)
	if d.Proto == "icmp" {
		return fmt.Sprintf("%%ASA-4-106023: Deny icmp src %s:%s dst %s:%s (type %d, code %d) by access-group %q [0x0, 0x0]", in, d.Src.Addr(), out, d.Dst.Addr(), d.ICMPType, d.ICMPCo, d.List)
	}
	return fmt.Sprintf("%%ASA-4-106023: Deny %s src %s:%s/%d dst %s:%s/%d by access-group %q [0x0, 0x0]", d.Proto, in, d.Src.Addr(), d.Src.Port(), out, d.Dst.Addr(), d.Dst.Port(), d.List)
}

// tellFull alerts that flows find no room (message 106101), once in the configured time.
func (a *Appliance) tellFull(permitted bool) {
	cfg := a.plan.Load().cfg
	switch {
	case !a.flows.alert(a.now(), permitted, cfg.FlowAlerts()):
	case permitted:
		a.log.Warn("flows that access lists permit are not logged: as many as can be are", "flows", mapping.MaxFlows)
	default:
		a.log.Error(fmt.Sprintf("%%ASA-1-106101: Number of cached deny-flows for ACL log has reached limit (%d)", cfg.DenyFlows()), "severity", "alert")
	}
}

// tellFlow writes message 106100 at its entry's level.
func (a *Appliance) tellFlow(l flowLine) {
	word := "denied"
	if l.flow.Permitted {
		word = "permitted"
	}
	src, dst := l.flow.Src.Port(), l.flow.Dst.Port()
	if l.flow.Proto == "icmp" { // an ASA writes type and code there
		src, dst = uint16(l.flow.ICMPType), uint16(l.flow.ICMPCode)
	}
	when := "first hit"
	if l.seconds > 0 {
		when = fmt.Sprintf("%d-second interval", l.seconds)
	}
	level, attrs := asaLevel(l.entry.log.Level)
	a.log.LogAttrs(a.ctx, level, fmt.Sprintf("%%ASA-%d-106100: access-list %s %s %s %s/%s(%d) -> %s/%s(%d) hit-cnt %d %s [%s, 0x0]", l.entry.log.Level, l.entry.list, word, l.flow.Proto,
		a.nameOf(l.way.in), l.flow.Src.Addr(), src, a.nameOf(l.way.out), l.flow.Dst.Addr(), dst, l.hits, when, l.entry.hash()), attrs...)
}

// asaLevel gives a severity of an ASA, 0 to 7, as a level of our log; syslog servers get those that it has not by an attribute.
func asaLevel(severity int) (slog.Level, []slog.Attr) {
	named := func(s string) []slog.Attr { return []slog.Attr{slog.String("severity", s)} }
	switch severity {
	case 0:
		return slog.LevelError, named("emergency")
	case 1:
		return slog.LevelError, named("alert")
	case 2:
		return slog.LevelError, named("critical")
	case 3:
		return slog.LevelError, nil
	case 4:
		return slog.LevelWarn, nil
	case 5:
		return slog.LevelInfo, named("notice")
	case 6:
		return slog.LevelInfo, nil
	}
	return slog.LevelDebug, nil
}
