package learn

import (
	"maps"
	"slices"
	"time"
)

// State is all that an Engine knows but its counters and what is being validated at the moment, which begins anew.
type State struct {
	Next    uint64
	Waiting []StateVCR
	Last    map[Number]time.Time
	Pools   map[PeerID]Pool
}

// StateVCR is a VCR that waits.
type StateVCR struct {
	Task
	Due    time.Time
	Tries  int
	Proven bool // it was used up while it was being validated
}

// State gives a copy, in a fixed order.
func (e *Engine) State() State {
	s := State{Next: e.next, Last: maps.Clone(e.last), Pools: e.Pools()}
	for _, w := range e.waiting {
		s.Waiting = append(s.Waiting, w.state())
	}
	slices.SortFunc(s.Waiting, func(a, b StateVCR) int { return int(a.ID) - int(b.ID) })
	return s
}

// Restore makes an Engine that knows what another one did.
func Restore(cfg Config, s State) *Engine {
	e := New(cfg)
	e.next = s.Next
	maps.Copy(e.last, s.Last)
	for id, p := range s.Pools {
		own := p.clone()
		e.pools[id] = &own
	}
	for _, w := range s.Waiting {
		if w.Proven {
			e.dirty.vcrs[w.ID] = true // used up when the process ended: the store is to forget it too
			continue
		}
		e.waiting[w.ID] = &waiting{Task: w.Task, Due: w.Due, Tries: w.Tries}
	}
	return e
}

func (w *waiting) state() StateVCR {
	s := StateVCR{w.Task, w.Due, w.Tries, w.proven}
	if s.Asked = slices.Clone(w.Asked); len(s.Asked) == 0 {
		s.Asked = nil
	}
	return s
}

// Changes are what has become different in an Engine since they were asked for last. What is gone stands in the second of each pair.
type Changes struct {
	Next    uint64
	Waiting []StateVCR
	Ended   []uint64
	Last    map[Number]time.Time
	Former  []Number
	Pools   map[PeerID]Pool
	NoPools []PeerID
}

// Empty says that nothing has changed.
func (c Changes) Empty() bool {
	return len(c.Waiting)+len(c.Ended)+len(c.Last)+len(c.Former)+len(c.Pools)+len(c.NoPools) == 0
}

// dirty is what must be stored.
type dirty struct {
	vcrs    map[uint64]bool
	numbers map[Number]bool
	peers   map[PeerID]bool
}

func newDirty() dirty {
	return dirty{map[uint64]bool{}, map[Number]bool{}, map[PeerID]bool{}}
}

// Changes gives what has changed since the last call. Applied to a State of that time (Apply) they give that of now.
func (e *Engine) Changes() Changes {
	c := Changes{Next: e.next, Last: map[Number]time.Time{}, Pools: map[PeerID]Pool{}}
	for _, id := range slices.Sorted(maps.Keys(e.dirty.vcrs)) {
		if w, ok := e.waiting[id]; ok {
			c.Waiting = append(c.Waiting, w.state())
		} else {
			c.Ended = append(c.Ended, id)
		}
	}
	for n := range e.dirty.numbers {
		if t, ok := e.last[n]; ok {
			c.Last[n] = t
		} else {
			c.Former = append(c.Former, n)
		}
	}
	for id := range e.dirty.peers {
		if p, ok := e.pools[id]; ok {
			c.Pools[id] = p.clone()
		} else {
			c.NoPools = append(c.NoPools, id)
		}
	}
	e.dirty = newDirty()
	return c
}

// Unstored takes back changes that could not be stored: they are among the next ones.
func (e *Engine) Unstored(c Changes) {
	for _, w := range c.Waiting {
		e.dirty.vcrs[w.ID] = true
	}
	for _, id := range c.Ended {
		e.dirty.vcrs[id] = true
	}
	for n := range c.Last {
		e.dirty.numbers[n] = true
	}
	for _, n := range c.Former {
		e.dirty.numbers[n] = true
	}
	for id := range c.Pools {
		e.dirty.peers[id] = true
	}
	for _, id := range c.NoPools {
		e.dirty.peers[id] = true
	}
}

// Apply brings changes into a state.
func (s *State) Apply(c Changes) {
	s.Next = c.Next
	for _, w := range c.Waiting {
		i, found := slices.BinarySearchFunc(s.Waiting, w.ID, func(x StateVCR, id uint64) int { return int(x.ID) - int(id) })
		if found {
			s.Waiting[i] = w
		} else {
			s.Waiting = slices.Insert(s.Waiting, i, w)
		}
	}
	s.Waiting = slices.DeleteFunc(s.Waiting, func(x StateVCR) bool { return slices.Contains(c.Ended, x.ID) })
	if s.Last == nil {
		s.Last, s.Pools = map[Number]time.Time{}, map[PeerID]Pool{}
	}
	maps.Copy(s.Last, c.Last)
	maps.Copy(s.Pools, c.Pools)
	for _, n := range c.Former {
		delete(s.Last, n)
	}
	for _, id := range c.NoPools {
		delete(s.Pools, id)
	}
}
