package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What an entry logs is kept and printed: defaults are left out, and shown where all is.
func TestEntryLog(t *testing.T) {
	flows := func(level int, seconds time.Duration) EntryLog {
		return EntryLog{Flows: true, Level: level, Interval: seconds * time.Second}
	}
	for words, want := range map[string]struct {
		log         EntryLog
		short, full string
	}{
		"":                                {EntryLog{}, "", ""},
		" log":                            {flows(6, 300), " log", " log informational interval 300"},
		" log 6":                          {flows(6, 300), " log", " log informational interval 300"},
		" log informational interval 300": {flows(6, 300), " log", " log informational interval 300"},
		" log 2":                          {flows(2, 300), " log critical", " log critical interval 300"},
		" log 0":                          {flows(0, 300), " log emergencies", " log emergencies interval 300"},
		" log notif interval 600":         {flows(5, 600), " log notifications interval 600", " log notifications interval 600"},
		" log interval 1":                 {flows(6, 1), " log informational interval 1", " log informational interval 1"},
		" log debugging":                  {flows(7, 300), " log debugging", " log debugging interval 300"},
		" log disable":                    {EntryLog{Off: true}, " log disable", " log disable"},
		" log default":                    {EntryLog{}, "", ""},
	} {
		for _, end := range []string{"", " inactive"} {
			const entry = "extended deny udp any eq 53 host 192.168.10.30 range 7 9"
			c, found := Parse("f", []byte("access-list a "+entry+words+end+"\n"))
			if len(found) > 0 {
				t.Errorf("%q: %s", words, found.Error())
				continue
			}
			fixedPoint(t, c)
			e := c.AccessLists[0].Entries[0]
			if e.Log != want.log || e.String() != entry+want.short+end || e.Full() != entry+want.full+end {
				t.Errorf("%q%s: %+v, %q, %q", words, end, e.Log, e, e.Full())
			}
			if all := c.All(); !strings.Contains(all, "access-list a "+entry+want.full+end+"\n") {
				t.Errorf("%q%s: not in the text with all defaults", words, end)
			}
		}
	}
}

// An entry that is typed again logs what it says then, as on an ASA: it is not there twice. Removing it asks for nothing of its log.
func TestEntryLogAgain(t *testing.T) {
	for typed, want := range map[string]string{
		"permit ip any any log":                                              "permit ip any any log",
		"permit ip any any log 3 interval 9":                                 "permit ip any any log errors interval 9",
		"line 1 permit ip any any log":                                       "permit ip any any log",
		"permit ip any any log\naccess-list a permit ip any any log default": "permit ip any any",
		"permit ip any any log disable":                                      "permit ip any any log disable",
	} {
		c, found := Parse("f", []byte("access-list a deny tcp any any eq 1\naccess-list b permit ip any any\naccess-list a permit ip any any\naccess-list a deny udp any any eq 1\naccess-list a "+typed+"\n"))
		if len(found) > 0 {
			t.Fatal(found.Error())
		}
		l := c.AccessList("a")
		if len(l.Entries) != 3 || l.Entries[1].String() != "extended "+want || c.AccessList("b").Entries[0].Log.Flows {
			t.Errorf("%q: %v", typed, l.Entries)
		}
		fixedPoint(t, c)
	}
	for typed, left := range map[string]int{
		"no access-list a deny ip any any": 1, "no access-list a deny ip any any log 7": 1, "no access-list a deny ip any any log": 1, "no access-list a deny ip any any inactive": 2,
	} {
		c, _ := Parse("f", []byte("access-list a permit tcp any any\naccess-list a deny ip any any log 7\n"+typed+"\n"))
		if n := len(c.AccessList("a").Entries); n != left {
			t.Errorf("%q leaves %d", typed, n)
		}
	}
	// Each of many is compared with the one that it may be, not with all.
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "access-list a permit tcp any host 10.0.%d.%d log %d\n", i/200, i%200, i%7)
	}
	c, found := Parse("f", []byte(text.String()))
	if len(found) > 0 || len(c.AccessList("a").Entries) != 20000 {
		t.Errorf("%d entries: %s", len(c.AccessList("a").Entries), found.Error())
	}
}

// Mistakes are told at the word, with what would be right.
func TestMistakenEntryLog(t *testing.T) {
	for line, want := range map[string]string{
		"access-list a permit ip any any log 8":                  "f:1:37: error:",
		"access-list a permit ip any any log loud":               "f:1:37: error:",
		"access-list a permit ip any any log interval 0":         "f:1:46: error:",
		"access-list a permit ip any any log 3 interval 601":     "f:1:48: error:",
		"access-list a permit ip any any log disable interval 3": "f:1:45: error:",
		"access-list a permit ip any any log 3 interval":         "f:1:47: error: the command is not complete",
		"access-list deny-flow-max 4097":                         "f:1:27: error:",
		"access-list deny-flow-max 0":                            "f:1:27: error:",
		"access-list alert-interval 3601":                        "f:1:28: error:",
		"access-list deny-flow-max permit ip any any":            `f:1:13: error: "deny-flow-max" is a command and no name of an access list`,
	} {
		_, found := Parse("f", []byte(line+"\n"))
		text := found.Error()
		if len(found) != 1 || !strings.HasPrefix(text, want) || !strings.Contains(text, "^") {
			t.Errorf("%s: %s", line, text)
		}
	}
}

func TestFlowLimits(t *testing.T) {
	c, found := Parse("f", []byte("access-list deny-flow-max 100\naccess-list alert-interval 60\naccess-list d permit ip any any\n"))
	if len(found) > 0 || c.DenyFlows() != 100 || c.FlowAlerts() != time.Minute {
		t.Fatalf("%d, %s: %v", c.DenyFlows(), c.FlowAlerts(), found)
	}
	fixedPoint(t, c)
	for _, again := range []string{"no access-list deny-flow-max\nno access-list alert-interval 60\n", "no access-list deny-flow-max 100\nno access-list alert-interval\n", "access-list deny-flow-max 4096\naccess-list alert-interval 300\n"} {
		c, found := Parse("f", []byte(c.String()+again))
		if len(found) > 0 || c.DenyFlows() != 4096 || c.FlowAlerts() != 300*time.Second || strings.Contains(c.String(), "-max") || strings.Contains(c.String(), "alert") {
			t.Errorf("%q: %s\n%v", again, c, found)
		}
	}
	// An abbreviation of the command may be a list.
	if c, found = Parse("f", []byte(c.String()+"no access-list d\n")); len(found) > 0 || c.AccessList("d") != nil || c.DenyFlows() != 100 {
		t.Errorf("%s\n%v", c, found)
	}
}

// What a class's list logs comes to nothing, which is said.
func TestEntryLogOfAClass(t *testing.T) {
	_, found := Load("f", []byte(edit(t, "access-list ime-inbound-sip extended permit tcp any host 192.168.10.30 eq 5070", "access-list ime-inbound-sip extended permit tcp any host 192.168.10.30 eq 5070 log")))
	if found.HasErrors() || !strings.Contains(found.Error(), "warning: an entry of a class logs nothing") {
		t.Error(found.Error())
	}
}
