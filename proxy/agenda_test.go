package proxy

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A call is looked at in the second after its time, never before one that was asked for later, and never later than the agenda reaches.
func TestAgenda(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 11, 29, 20, 0, 0, 0, time.UTC)
	now := start
	g := newAgenda(now)
	calls := make([]*call, 50)
	due := make(map[*call]time.Time)
	for i := range calls {
		calls[i] = &call{}
	}
	for range 20000 {
		c := calls[r.IntN(len(calls))]
		switch r.IntN(4) {
		case 0, 1:
			at := now.Add(time.Duration(r.IntN(200)-10) * time.Second / 2)
			if r.IntN(8) == 0 {
				at = time.Time{}
			}
			g.plan(c, at)
			if at.IsZero() {
				at = now.Add(agendaSeconds * time.Second)
			}
			if at.Before(now) {
				at = now
			}
			if old, ok := due[c]; !ok || at.Before(old) {
				due[c] = at
			}
		case 2:
			if r.IntN(10) == 0 {
				g.drop(c)
				delete(due, c)
			}
		case 3:
			now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			if r.IntN(100) == 0 {
				now = now.Add(5 * time.Minute)
			}
			for _, c := range g.take(now) {
				if _, ok := due[c]; !ok {
					t.Fatal("a call is looked at that is not planned, or twice")
				}
				delete(due, c)
			}
			for c, at := range due {
				if now.Sub(at) > time.Second {
					t.Fatalf("a call due %v ago is not looked at; it is planned for second %d of %d", now.Sub(at), c.entry.second, g.done)
				}
			}
		}
	}
}

// What stands for a minute without anything to wait for is looked at once in it.
func TestAgendaLetsStand(t *testing.T) {
	start := time.Now()
	g, looked := newAgenda(start), 0
	c := &call{}
	g.plan(c, start.Add(time.Hour))
	for s := range 10 * agendaSeconds {
		for _, c := range g.take(start.Add(time.Duration(s) * time.Second)) {
			looked++
			g.plan(c, start.Add(time.Hour))
		}
	}
	if looked < 9 || looked > 11 {
		t.Errorf("looked at %d times in %d s", looked, 10*agendaSeconds)
	}
}
