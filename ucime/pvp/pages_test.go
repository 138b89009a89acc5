package pvp

import (
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// busy puts newer calls to the number of callOf, which nobody proves, before it.
func (w *world) busy(n int) {
	for i := range n {
		v := seenBy(callOf(), time.Duration(10+7*i)*time.Second, time.Duration(600+11*i)*time.Second)
		v.Caller = "+12125550199"
		w.add(uint64(1000+i), v)
	}
}

// A call with many newer ones to its number, of callers that never validate them, is proven: with a known caller at once, without one as soon as the peer has proven
// anything. The search stays bounded, as are the guesses of a liar.
func TestBusyNumber(t *testing.T) {
	for _, d := range []struct {
		name    string
		newer   int
		proven  bool // the peer has proven a call before
		methods []Method
		want    Outcome
		runs    int
	}{
		{"second page", 20, false, []Method{WithCaller, WithoutCaller}, Success, 2},
		{"third page", 40, false, []Method{WithCaller, WithoutCaller}, Success, 3},
		{"third page, one method", 40, true, []Method{WithoutCaller}, Success, 3},
		{"beyond all pages", 60, false, []Method{WithCaller, WithoutCaller}, FailedProof, maxRuns},
	} {
		w := newWorld(t, nil)
		c := w.client(peerA)
		if d.proven {
			w.add(1, seenBy(callOf(), 0, 0))
			if r := w.validate(c, callOf(), WithoutCaller); r.Outcome != Success {
				t.Fatalf("%s: first %+v", d.name, r)
			}
		}
		w.add(2, seenBy(callOf(), 0, 0))
		w.busy(d.newer)
		r := w.validate(c, callOf(), d.methods...)
		if r.Outcome != d.want || r.Runs != d.runs {
			t.Errorf("%s: %+v, want %v in %d runs", d.name, r, d.want, d.runs)
		}
		if r.Outcome == Success && r.Method != d.methods[0] {
			t.Errorf("%s: by method %v", d.name, r.Method)
		}
	}
}

// moving is an index to which a new call comes whenever it is looked at.
type moving struct {
	*Index
	w    *world
	next uint64
}

func (m *moving) Candidates(selector uint16, limit int) []Candidate {
	m.next++
	m.w.add(m.next, seenBy(callOf(), time.Hour, time.Hour+time.Duration(m.next)*time.Second))
	return m.Index.Candidates(selector, limit)
}

// A call that ends between two pages moves no other one from one page to the next, unseen.
func TestPagesStandStill(t *testing.T) {
	w := newWorld(t, nil)
	w.server.Records = &moving{Index: w.index, w: w, next: 5000}
	w.add(2, seenBy(callOf(), 0, 0))
	w.busy(2*maxCandidates - 2) // the moving one and these leave it the last place of the second page
	if r := w.validate(w.client(peerA), callOf(), WithCaller, WithoutCaller); r.Outcome != Success || r.Runs != 2 {
		t.Errorf("%+v", r)
	}
}

// However much is known of a peer, and whichever methods are tried, a validation has three runs a method and no two alike.
func TestRunsOfAValidation(t *testing.T) {
	for _, methods := range [][]Method{{WithCaller}, {WithoutCaller}, {WithCaller, WithoutCaller}} {
		for _, known := range []int{-1, 0, 1} {
			for _, ok := range []bool{false, true} {
				if !ok && known != 0 {
					continue
				}
				seen, per := map[try]bool{}, map[Method]int{}
				for _, x := range tries(methods, known, ok) {
					if seen[x] {
						t.Errorf("%v %d %v: %+v twice", methods, known, ok, x)
					}
					seen[x], per[x.method] = true, per[x.method]+1
				}
				for _, m := range methods {
					if per[m] != maxRuns/2 || !seen[try{m, known, 0}] {
						t.Errorf("%v %d %v: runs %v", methods, known, ok, seen)
					}
				}
				if !ok { // by one method or the other all differences of the clocks are tried
					for _, s := range shifts {
						if !seen[try{methods[len(methods)-1], s, 0}] {
							t.Errorf("%v: difference %d is not tried: %v", methods, s, seen)
						}
					}
				}
			}
		}
	}
}

func TestKnownClocksAreBounded(t *testing.T) {
	c := clocks{cap: 3}
	for i := range byte(10) {
		c.note(learn.PeerID{i}, true, 1)
		if s, ok := c.known(learn.PeerID{i}); !ok || s != 1 || len(c.m) > 3 {
			t.Errorf("peer %d: %d %v, %d peers", i, s, ok, len(c.m))
		}
	}
	c.note(learn.PeerID{9}, false, 0)
	if _, ok := c.known(learn.PeerID{9}); ok {
		t.Error("a peer that has failed keeps its difference")
	}
}
