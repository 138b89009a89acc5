package learn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// In whatever order records come, also when the clock is set in between, no two calls of a number within an hour are validated.
func TestIntervalWhateverTheOrder(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		e := New(Config{})
		taken := map[Number][]time.Time{}
		for range 100 {
			to, at := Number(fmt.Sprint("+", rnd.IntN(2))), start.Add(time.Duration(rnd.IntN(600))*time.Minute)
			if _, err := e.Add(start.Add(12*time.Hour), "s", nil, call(to, at.Add(time.Minute))); err != nil {
				continue
			}
			for _, other := range taken[to] {
				if d := at.Sub(other).Abs(); d < time.Hour {
					t.Fatalf("seed %d: two calls of %s, %v apart, are validated", seed, to, d)
				}
			}
			taken[to] = append(taken[to], at)
		}
	}
}

// When more numbers are called within the interval than are remembered, a call is put off rather than one forgotten.
func TestNumbersAreNotForgottenWithinTheInterval(t *testing.T) {
	e := New(Config{MaxNumbers: 2})
	for i, want := range []error{nil, nil, ErrPending} {
		if _, err := e.Add(start, "s", nil, call(Number(fmt.Sprint("+", i)), start)); !errors.Is(err, want) {
			t.Errorf("number %d: %v, want %v", i, err, want)
		}
	}
	if _, err := e.Add(start, "s", nil, call("+0", start.Add(time.Minute))); !errors.Is(err, ErrTooSoon) {
		t.Errorf("the first number was forgotten: %v", err)
	}
	later := start.Add(2 * time.Hour)
	if _, err := e.Add(later, "s", nil, call("+2", later)); err != nil {
		t.Errorf("after the interval: %v", err)
	}
}

// A clock that was a year ahead and is set right keeps no number and no record back.
func TestClockThatIsSetBack(t *testing.T) {
	e := New(Config{})
	wrong := start.Add(365 * 24 * time.Hour)
	if _, err := e.Add(wrong, "s", nil, call("+1", wrong)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Add(wrong, "s", nil, call("+2", start)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Add(start, "s", nil, call("+1", start)); err != nil {
		t.Errorf("the number waits for a year: %v", err)
	}
	if _, err := e.Add(start, "s", nil, call("+1", start.Add(time.Minute))); !errors.Is(err, ErrTooSoon) {
		t.Errorf("a second call of the number: %v", err)
	}
	e.Due(start, 10)
	if due := e.Due(start.Add(10*time.Minute), 10); len(due) != 3 {
		t.Errorf("due is %+v, want all three calls", due)
	}
}

// A peer that claims in vain does not use the call up for one that was not reached, or not asked yet, not even when the process ends in between.
func TestCallWaitsForThePeerThatWasNotReached(t *testing.T) {
	for _, restart := range []bool{false, true} {
		e := New(Config{Threshold: 8})
		id, _ := e.Add(start, "s", nil, call("+1", start))
		at := start.Add(time.Hour)
		e.Due(at, 1)
		if !e.Ask(id, peer(1)) || e.Ask(id, peer(1)) {
			t.Fatal("a peer is to be asked once")
		}
		e.Report(at, id, nil, Result{Peer: peer(1), Outcome: Failed})
		if restart {
			e = Restore(e.cfg, e.State())
		} else {
			e.Ask(id, peer(2))
			e.Report(at, id, nil, Result{Peer: peer(2), Outcome: Unreachable})
			e.Finish(at, id, true)
			at = at.Add(time.Hour)
		}
		due := e.Due(at, 1)
		if len(due) != 1 || len(due[0].Asked) != 1 || due[0].Asked[0] != peer(1) {
			t.Fatalf("restart %v: due is %+v", restart, due)
		}
		if e.Ask(id, peer(1)) || !e.Ask(id, peer(2)) {
			t.Errorf("restart %v: who has failed is asked again, or who was not reached is not", restart)
		}
		if got := e.Report(at, id, nil, Result{Peer: peer(2), Outcome: Succeeded, Value: 8, Numbers: []Number{"+1"}}); numbers(got) != "+1" {
			t.Errorf("restart %v: learned %v", restart, got)
		}
		e.Finish(at, id, true)
		if e.Pending() != 0 {
			t.Errorf("restart %v: %d pending", restart, e.Pending())
		}
	}
	// Claimants that nobody has asked yet keep the call too, but not for ever; when all have failed it is used up.
	for again, want := range map[bool]int{true: 3, false: 1} {
		e := New(Config{})
		id, _ := e.Add(start, "s", nil, call("+1", start))
		runs := 0
		for at := start.Add(10 * time.Minute); e.Pending() > 0; at = at.Add(10 * time.Minute) {
			runs += len(e.Due(at, 1))
			e.Ask(id, peer(byte(runs)))
			e.Report(at, id, nil, Result{Peer: peer(byte(runs)), Outcome: Failed})
			if again {
				e.Again(id)
			}
			e.Finish(at, id, true)
		}
		if runs != want {
			t.Errorf("again %v: %d runs, want %d", again, runs, want)
		}
	}
}

// A process that dies while it asks a peer does not ask it again: the peer has used up its own record, and would seem to fail.
func TestPeerIsNotAskedAgainAfterACrash(t *testing.T) {
	e := New(Config{})
	id, _ := e.Add(start, "s", nil, call("+1", start))
	e.Due(start.Add(time.Hour), 1)
	e.Ask(id, peer(1))
	e = Restore(e.cfg, e.State())
	due := e.Due(start.Add(time.Hour), 1)
	if len(due) != 1 || e.Ask(id, peer(1)) {
		t.Fatalf("due is %+v, and the peer is asked again", due)
	}
	e.Finish(start.Add(time.Hour), id, true)
	if e.Pending() != 0 {
		t.Error("a call whose claimants were all asked waits on")
	}
}

// A peer that owns one number is not given others by naming them in its answer: nobody has proven those.
func TestOnlyTheProvenNumberIsLearned(t *testing.T) {
	e := New(Config{Threshold: 8})
	id, _ := e.Add(start, "s", nil, call("+1", start))
	e.Due(start.Add(time.Hour), 1)
	r := Result{Peer: peer(1), Outcome: Succeeded, Value: 8, Domain: "b", Numbers: []Number{"+2", "+1", "+3"}}
	if got := numbers(e.Report(start, id, nil, r)); got != "+1" {
		t.Errorf("learned %q, want the called number alone", got)
	}
}

// A route ends with its ticket, and one whose end came while it waited in a bucket is not learned; nor is one of a domain that is not trusted any more.
func TestRoutesThatHaveEndedAreNotLearned(t *testing.T) {
	e, now := New(Config{}), start
	validate := func(to Number, domain string, trust *TrustGroup, until time.Time) []Learned {
		id, err := e.Add(now, "s", nil, call(to, now))
		if err != nil {
			t.Fatal(err)
		}
		e.Due(now.Add(5*time.Minute), 1)
		defer e.Finish(now, id, true)
		return e.Report(now, id, trust, Result{Peer: peer(1), Outcome: Succeeded, Value: 12, Domain: domain, Numbers: []Number{to}, Until: until})
	}
	validate("+1", "a", nil, time.Time{})
	now = now.Add(RouteLife)
	if got := validate("+2", "a", nil, now.Add(time.Hour)); numbers(got) != "+2" || !got[0].Route.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("learned %+v, want +2 alone, until its ticket ends", got)
	}
	validate("+3", "bad.example", nil, time.Time{})
	if got := numbers(validate("+4", "a", &TrustGroup{Domains: []string{"bad.example"}}, time.Time{})); got != "+4" {
		t.Errorf("learned %q, want +4 alone", got)
	}
}

// What could not be stored is among the next changes.
func TestChangesThatCouldNotBeStored(t *testing.T) {
	w := newWorld(t, Config{MaxPeers: 1, MaxNumbers: 1})
	stored := w.e.State()
	w.validates("+1", peer(1), Failed, 0)
	w.validates("+2", peer(2), Succeeded, 8)
	_, _ = w.e.Add(w.now.Add(2*time.Hour), "s", nil, call("+3", w.now.Add(2*time.Hour)))
	w.e.Unstored(w.e.Changes())
	stored.Apply(w.e.Changes())
	if got, want := fmt.Sprint(stored), fmt.Sprint(w.e.State()); got != want {
		t.Errorf("stored\n%s\nwant\n%s", got, want)
	}
}

// Calls of a service that is not ready wait; others do not.
func TestServiceThatIsNotReady(t *testing.T) {
	ready := map[string]bool{"a": true}
	e := New(Config{Ready: func(s string) bool { return ready[s] }})
	a, _ := e.Add(start, "a", nil, call("+1", start))
	b, _ := e.Add(start, "b", nil, call("+2", start))
	at := start.Add(10 * time.Minute)
	if due := e.Due(at, 10); len(due) != 1 || due[0].ID != a || !e.Next().IsZero() {
		t.Errorf("due is %+v", due)
	}
	ready["b"] = true
	if due := e.Due(at, 10); len(due) != 1 || due[0].ID != b {
		t.Errorf("due is %+v", due)
	}
}
