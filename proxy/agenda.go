package proxy

import (
	"sync"
	"time"
)

// agendaSeconds is how far ahead the agenda reaches. A call that has nothing to wait for is looked at once in that time all the same.
const agendaSeconds = 64

// agenda tells which calls are to be looked at in which second, so that a call which stands, or waits for its last repeats, costs nothing in all
// the others. Safe for concurrent use.
type agenda struct {
	start time.Time

	mu      sync.Mutex // guards everything that follows, and agendaEntry of all calls
	done    int64      // the last second since the start whose calls were taken
	seconds [agendaSeconds]*call
}

// agendaEntry is a call's place in the list of a second.
type agendaEntry struct {
	second     int64 // 0: in no list
	next, prev *call
}

func newAgenda(now time.Time) *agenda { return &agenda{start: now} }

// plan has a call looked at in the second that follows a time, or earlier; the zero time is none in particular.
func (g *agenda) plan(c *call, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	second := g.done + agendaSeconds - 1
	if !at.IsZero() {
		second = max(min(second, int64((at.Sub(g.start)+time.Second-1)/time.Second)), g.done+1)
	}
	if c.entry.second != 0 {
		if c.entry.second <= second {
			return
		}
		g.unlink(c)
	}
	list := &g.seconds[second%agendaSeconds]
	c.entry = agendaEntry{second: second, next: *list}
	if *list != nil {
		(*list).entry.prev = c
	}
	*list = c
}

// take gives the calls of all seconds that have passed; they are in no list then.
func (g *agenda) take(now time.Time) (out []*call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	passed := int64(now.Sub(g.start) / time.Second)
	for second := g.done + 1; second <= min(passed, g.done+agendaSeconds); second++ {
		for c := g.seconds[second%agendaSeconds]; c != nil; {
			next := c.entry.next
			c.entry = agendaEntry{}
			out = append(out, c)
			c = next
		}
		g.seconds[second%agendaSeconds] = nil
	}
	g.done = max(g.done, passed)
	return out
}

// drop takes a call out.
func (g *agenda) drop(c *call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.entry.second != 0 {
		g.unlink(c)
	}
}

func (g *agenda) unlink(c *call) {
	e := &c.entry
	if e.prev != nil {
		e.prev.entry.next = e.next
	} else {
		g.seconds[e.second%agendaSeconds] = e.next
	}
	if e.next != nil {
		e.next.entry.prev = e.prev
	}
	*e = agendaEntry{}
}
