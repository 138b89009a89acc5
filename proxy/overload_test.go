package proxy

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"imeproxy/mediaterm"
)

// The operator is told of packets that were dropped while they are, with the remedy that fits, and no longer than a minute after the last.
func TestMediaOverload(t *testing.T) {
	var o overload
	now := time.Unix(1000, 0)
	c := mediaterm.EngineCounters{Nice: mediaterm.WorkerNice}
	if p := o.look(now, c); p != nil || o.listed {
		t.Fatalf("a problem without one: %+v", p)
	}
	for _, x := range []struct {
		name           string
		drops          uint64
		stalls         mediaterm.Stalls
		denied         bool
		impact, remedy string
	}{
		{"other programs, no place before them", 100, mediaterm.Stalls{Number: 1, ForCore: 1, Longest: 118 * time.Millisecond}, true, "100 packets", "LimitNICE=-15"},
		{"others all the same", 50, mediaterm.Stalls{Number: 3, ForCore: 2, Longest: 118 * time.Millisecond}, false, "50 packets", "up to 118 ms"},
		{"too much came", 7, mediaterm.Stalls{Number: 3, ForCore: 2, Longest: 118 * time.Millisecond}, false, "7 packets", "fewer calls or more cores"},
	} {
		c.KernelDrops, c.Stalls, c.NiceDenied = c.KernelDrops+x.drops, x.stalls, x.denied
		p := o.look(now, c)
		if p == nil || p.Code != "media_overload" || !strings.HasPrefix(p.Impact, x.impact) || !strings.Contains(p.WhatToDo, x.remedy) {
			t.Errorf("%s: %+v", x.name, p)
		}
		now = now.Add(overloadFor - time.Second)
		if p := o.look(now, c); p != nil || !o.listed {
			t.Errorf("%s: %+v, listed %v before the minute is over", x.name, p, o.listed)
		}
		c.KernelDrops++
		if p := o.look(now, c); p == nil {
			t.Errorf("%s: one more is no problem", x.name)
		}
		now = now.Add(overloadFor)
		if o.look(now, c); o.listed {
			t.Errorf("%s: listed for longer than a minute", x.name)
		}
	}
	if p := o.look(now, mediaterm.EngineCounters{}); p != nil || o.listed {
		t.Errorf("counters that went back are a problem: %+v", p)
	}
	if p := o.look(now, c); p != nil {
		t.Errorf("counters that came back are a problem: %+v", p)
	}
}

// A problem of media does not outlive it: the configuration may lose its media-termination.
func TestMediaOverloadEndsWithTheMedia(t *testing.T) {
	now := time.Unix(1000, 0)
	a := &Appliance{log: slog.New(slog.DiscardHandler)}
	a.health.Raise(*a.overload.look(now, mediaterm.EngineCounters{KernelDrops: 5}))
	a.sweepMedia(now.Add(overloadFor - time.Second))
	if n := len(a.Health().Problems); n != 1 {
		t.Fatalf("%d problems within the minute, want 1", n)
	}
	a.sweepMedia(now.Add(overloadFor))
	if l := a.Health().Problems; len(l) != 0 {
		t.Errorf("listed for longer than its minute: %+v", l)
	}
}
