package proxy

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"imeproxy/mapping"
	"imeproxy/proxy/config"
)

// flowKernel counts as the kernel does, for one entry.
type flowKernel struct {
	counted map[mapping.Flow]uint64
	entry   map[string]toldEntry // by the list's name; empty: it logs no more
	ways    int
}

var flowStart = time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)

func flowTo(port uint16, permitted bool) mapping.Flow {
	return mapping.Flow{
		Link: "e1", Direction: "in", Permitted: permitted, Proto: "tcp",
		Src: netip.MustParseAddrPort("198.51.100.7:40312"), Dst: netip.AddrPortFrom(netip.MustParseAddr("192.168.10.30"), port),
	}
}

func entryOf(level int, interval time.Duration) toldEntry {
	return toldEntry{"incoming", "0123456789abcdef", config.EntryLog{Flows: true, Level: level, Interval: interval}}
}

// look looks at the counts and forgets what is to be forgotten.
func (k *flowKernel) look(l *flowLog, now time.Time, most int) (lines []flowLine, full bool) {
	var counted []mapping.CountedFlow
	for f, n := range k.counted {
		counted = append(counted, mapping.CountedFlow{Flow: f, Packets: n})
	}
	slices.SortFunc(counted, func(a, b mapping.CountedFlow) int { return a.Dst.Compare(b.Dst) })
	lines, gone, full := l.take(look{
		began: now, now: now, most: most,
		entry: func(mapping.Flow) (toldEntry, bool, bool) { e, ok := k.entry["incoming"]; return e, ok, false },
		way:   func(mapping.Flow) way { k.ways++; return way{"e1", "e0"} },
	}, counted)
	for _, x := range gone {
		delete(k.counted, x.Flow)
	}
	return lines, full
}

func newFlowKernel(e toldEntry) *flowKernel {
	return &flowKernel{counted: map[mapping.Flow]uint64{}, entry: map[string]toldEntry{"incoming": e}}
}

// The first packet is told at once, each interval with packets by their number, the first one's with it; a flow without any is forgotten.
func TestFlowLog(t *testing.T) {
	e := entryOf(6, 300*time.Second)
	l, k, f := newFlowLog(), newFlowKernel(e), flowTo(22, false)
	now := flowStart
	if _, some := l.next(); some {
		t.Error("it looks before there is anything")
	}
	line, tell, full := l.first(now, f, e, way{"e1", "e0"}, 10)
	if !tell || full || line != (flowLine{f, e, way{"e1", "e0"}, 1, 0}) {
		t.Fatalf("%+v %v %v", line, tell, full)
	}
	if _, tell, _ := l.first(now.Add(time.Millisecond), f, e, way{"e1", "e0"}, 10); tell {
		t.Error("a flow's first packet is told twice")
	}
	k.counted[f] = 21
	at, some := l.next()
	if !some || at != now.Add(300*time.Second) {
		t.Errorf("it looks at %v, %v", at, some)
	}
	if lines, _ := k.look(l, now.Add(299*time.Second), 10); len(lines) > 0 {
		t.Errorf("told before the interval's end: %+v", lines)
	}
	now = at
	if lines, _ := k.look(l, now, 10); len(lines) != 1 || lines[0] != (flowLine{f, e, way{"e1", "e0"}, 21, 300}) {
		t.Errorf("first interval: %+v", lines)
	}
	k.counted[f] = 24
	k.entry["incoming"] = entryOf(3, 60*time.Second) // typed anew
	now = now.Add(300 * time.Second)
	if lines, _ := k.look(l, now, 10); len(lines) != 1 || lines[0].hits != 3 || lines[0].entry.log.Level != 6 {
		t.Errorf("second interval: %+v", lines)
	}
	if at, _ := l.next(); at != now.Add(60*time.Second) {
		t.Errorf("it looks at %v though the interval has become 60 s", at)
	}
	k.counted[f] = 25
	now = now.Add(60 * time.Second)
	if lines, _ := k.look(l, now, 10); len(lines) != 1 || lines[0].hits != 1 || lines[0].entry.log.Level != 3 || lines[0].seconds != 60 {
		t.Errorf("third interval: %+v", lines)
	}
	now = now.Add(60 * time.Second)
	if lines, _ := k.look(l, now, 10); len(lines) > 0 || len(k.counted) > 0 || len(l.flows) > 0 || l.denied > 0 {
		t.Errorf("an interval without packets: %+v, %v, %v", lines, k.counted, l.flows)
	}
	if _, some := l.next(); some {
		t.Error("it looks though nothing is left")
	}
	// A flow that comes once and never again has had its line.
	_, _, _ = l.first(now, f, e, way{"e1", "e0"}, 10)
	k.counted[f] = 1
	if lines, _ := k.look(l, now.Add(300*time.Second), 10); len(lines) > 0 || len(k.counted) > 0 {
		t.Errorf("%+v, %v", lines, k.counted)
	}
}

// What the kernel had to leave out is found in its counts; lines are bounded, and nothing is lost by that.
func TestFlowLogFlood(t *testing.T) {
	e := entryOf(6, 300*time.Second)
	l, k := newFlowLog(), newFlowKernel(e)
	now := flowStart
	for n := range uint16(20) {
		l.first(now, flowTo(n+1, false), e, way{"e1", "e0"}, 1000)
	}
	if at, some := l.next(); !some || at.After(now) {
		t.Errorf("many first packets, and it looks at %v, %v", at, some)
	}
	for n := range uint16(500) {
		k.counted[flowTo(n+1, false)] = 2
	}
	told := map[uint16]int{}
	for range 10 {
		lines, full := k.look(l, now, 1000)
		if len(lines) > flowLines || full {
			t.Errorf("%d lines in a second, full %v", len(lines), full)
		}
		for _, x := range lines {
			told[x.flow.Dst.Port()]++
			if x.hits != 2 || x.seconds != 0 || x.way != (way{"e1", "e0"}) {
				t.Errorf("%+v", x)
			}
		}
		at, _ := l.next()
		if at.Before(now.Add(time.Second)) {
			t.Errorf("it looks again after %s", at.Sub(now))
		}
		now = now.Add(time.Second)
	}
	if len(told) != 480 || k.ways != 480 { // 20 have been told at once
		t.Errorf("%d flows are told of 480, %d ways looked up", len(told), k.ways)
	}
	for port, n := range told {
		if n != 1 {
			t.Errorf("port %d is told %d times", port, n)
		}
	}
}

// No more denied flows are followed than may be, whatever the kernel has; permitted ones do not count among them. The alert comes once in its time.
func TestFlowLogFull(t *testing.T) {
	e := entryOf(6, 10*time.Second)
	l, k := newFlowLog(), newFlowKernel(e)
	now := flowStart
	for n := range uint16(5) {
		k.counted[flowTo(n+1, false)] = 1
		if _, _, full := l.first(now, flowTo(n+1, false), e, way{"e1", "e0"}, 3); full != (n >= 3) {
			t.Errorf("flow %d: full %v", n+1, full)
		}
	}
	for n := range uint16(5) {
		k.counted[flowTo(n+101, true)] = 1
	}
	lines, full := k.look(l, now, 3)
	if !full || len(l.flows) != 8 || len(k.counted) != 8 || l.denied != 3 || l.notFollowed() != 2 || len(lines) != 5 {
		t.Errorf("full %v, %d followed, %d in the kernel, %d denied, %d packets beside, %d lines", full, len(l.flows), len(k.counted), l.denied, l.notFollowed(), len(lines))
	}
	for _, x := range []struct {
		after     time.Duration
		permitted bool
		want      bool
	}{{0, false, true}, {59 * time.Second, false, false}, {59 * time.Second, true, true}, {60 * time.Second, false, true}} {
		if got := l.alert(now.Add(x.after), x.permitted, time.Minute); got != x.want {
			t.Errorf("alert after %s of permitted %v: %v", x.after, x.permitted, got)
		}
	}
	// Room comes back when flows are over.
	now = now.Add(10 * time.Second)
	k.look(l, now, 3)
	if l.denied != 0 || len(l.flows) != 0 {
		t.Errorf("%d denied flows stay", l.denied)
	}
}

// Counts that begin anew, because the set is another one, are no packets that never were; entries that are gone take their flows with them.
func TestFlowLogOverChanges(t *testing.T) {
	e := entryOf(6, 300*time.Second)
	l, k, f := newFlowLog(), newFlowKernel(e), flowTo(22, false)
	now := flowStart
	l.first(now, f, e, way{"e1", "e0"}, 10)
	k.counted[f] = 50
	now = now.Add(300 * time.Second)
	k.look(l, now, 10)
	k.counted[f] = 4
	now = now.Add(300 * time.Second)
	if lines, _ := k.look(l, now, 10); len(lines) != 1 || lines[0].hits != 4 {
		t.Errorf("after the counts began anew: %+v", lines)
	}
	if _, tell, _ := l.first(now, f, e, way{"e1", "e0"}, 10); !tell {
		t.Error("the first packet of a flow that has begun anew is not told")
	}
	k.counted[f] = 9
	delete(k.entry, "incoming")
	now = now.Add(300 * time.Second)
	if lines, _ := k.look(l, now, 10); len(lines) != 1 || lines[0].hits != 9 || len(k.counted) > 0 || len(l.flows) > 0 {
		t.Errorf("after the entry was removed: %+v, %v", lines, k.counted)
	}
	k.counted[f] = 1
	if lines, _ := k.look(l, now, 10); len(lines) > 0 || len(k.counted) > 0 {
		t.Errorf("a flow of no entry: %+v, %v", lines, k.counted)
	}
	l.first(now, f, e, way{"e1", "e0"}, 10)
	delete(k.counted, f)
	if k.look(l, now.Add(time.Second), 10); len(l.flows) > 0 || l.denied > 0 {
		t.Error("a flow stays that the kernel does not have")
	}
}

// Lines have an ASA's text, and the level of their entry, in the log and for syslog servers.
func TestFlowLines(t *testing.T) {
	cfg, found := config.Load("f", []byte("interface e0\n nameif inside\n security-level 100\n ip address 192.168.10.1 255.255.255.0\ninterface e1\n nameif outside\n security-level 0\n ip address 198.51.100.1 255.255.255.0\naccess-list deny-flow-max 7\n"))
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	var out bytes.Buffer
	a := &Appliance{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), now: func() time.Time { return flowStart }, flows: newFlowLog(), ctx: t.Context()}
	a.plan.Store(&plan{cfg: cfg})
	const denied, permitted = "denied tcp outside/198.51.100.7(40312) -> inside/192.168.10.30(22) hit-cnt ", "permitted icmp outside/198.51.100.7(8) -> inside/192.168.10.30(0) hit-cnt "
	ping := flowTo(0, true)
	ping.Proto, ping.ICMPType = "icmp", 8
	ping.Src = netip.AddrPortFrom(ping.Src.Addr(), 0)
	for level, want := range []string{"level=ERROR", "level=ERROR", "level=ERROR", "level=ERROR", "level=WARN", "level=INFO", "level=INFO", "level=DEBUG"} {
		severity := map[int]string{0: " severity=emergency", 1: " severity=alert", 2: " severity=critical", 5: " severity=notice"}[level]
		out.Reset()
		a.tellFlow(flowLine{flowTo(22, false), entryOf(level, time.Minute), way{"e1", "e0"}, 1, 0})
		a.tellFlow(flowLine{ping, entryOf(level, time.Minute), way{"e1", "e0"}, 21, 60})
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		for i, text := range []string{denied + "1 first hit", permitted + "21 60-second interval"} {
			if full := fmt.Sprintf(` %s msg="%%ASA-%d-106100: access-list incoming %s [0x01234567, 0x0]"%s`, want, level, text, severity); len(lines) != 2 || !strings.HasSuffix(lines[i], full) {
				t.Errorf("level %d: %q, want %q", level, lines, full)
			}
		}
	}
	out.Reset()
	a.tellFull(false)
	a.tellFull(false)
	if want := ` level=ERROR msg="%ASA-1-106101: Number of cached deny-flows for ACL log has reached limit (7)" severity=alert`; strings.Count(out.String(), want) != 1 {
		t.Errorf("%s", out.String())
	}
}
