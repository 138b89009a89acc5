package proxy

import (
	"net"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/observe"
)

// A card without link stands in the health list, with how much depends on it; one that the configuration shuts down does not.
func TestLinkProblems(t *testing.T) {
	const up = net.FlagUp | net.FlagRunning
	p := testPlan(t, edgeConfig+"interface dmz0\n nameif dmz\n ip address 10.77.0.1 255.255.255.0\ninterface off0\n nameif off\n ip address 10.78.0.1 255.255.255.0\n shutdown\n")
	for _, c := range []struct {
		name   string
		down   string // a card
		flags  net.Flags
		err    error
		impact string // of its problem; empty: none
		severe observe.Severity
	}{
		{name: "all well", flags: up},
		{name: "no cable outside", down: p.Outside.Name, flags: net.FlagUp, impact: "no link", severe: observe.Critical},
		{name: "switched off inside", down: p.Inside.Name, impact: "switched off", severe: observe.Critical},
		{name: "a card gone", down: "dmz0", err: net.ErrClosed, impact: "the card is gone", severe: observe.Major},
		{name: "shut down by the configuration", down: "off0"},
	} {
		got := linkProblems(p, time.Now(), func(name string) (net.Flags, error) {
			if name == c.down {
				return c.flags, c.err
			}
			return up, nil
		})
		if c.impact == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || c.impact == "" || got[0].Object != c.down || got[0].Severity != c.severe || !strings.Contains(got[0].Impact, c.impact) || got[0].WhatToDo == "" {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
