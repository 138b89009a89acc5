package learn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)

func peer(n byte) PeerID { return PeerID{15: n} }

// world is an engine with a clock.
type world struct {
	t   *testing.T
	e   *Engine
	now time.Time
}

func newWorld(t *testing.T, cfg Config) *world { return &world{t, New(cfg), start} }

func call(to Number, at time.Time) VCR {
	return VCR{Role: Originating, Called: to, Caller: "+14085551212", Start: at.Add(-time.Minute), Stop: at}
}

// validates lets an hour pass, uploads a call and reports an outcome of its validation.
func (w *world) validates(to Number, p PeerID, o Outcome, value int) []Learned {
	w.t.Helper()
	w.now = w.now.Add(time.Hour)
	id, err := w.e.Add(w.now, "s", nil, call(to, w.now))
	if err != nil {
		w.t.Fatalf("%s: %v", to, err)
	}
	w.now = w.now.Add(10 * time.Minute)
	due := w.e.Due(w.now, 10)
	if len(due) != 1 || due[0].ID != id {
		w.t.Fatalf("%s: due is %+v", to, due)
	}
	r := Result{Peer: p, Outcome: o, Value: value, Domain: "b.example", Numbers: []Number{to}, URIs: []string{"sip:x@203.0.113.1"}, Ticket: fmt.Sprint("ticket ", id)}
	out := w.e.Report(w.now, id, nil, r)
	w.e.Finish(w.now, id, true)
	return out
}

func numbers(all []Learned) (out string) {
	for _, l := range all {
		out += " " + string(l.Route.Number)
	}
	return strings.TrimSpace(out)
}

// Three consecutive validations against different numbers of one enterprise pass all three routes together (guide lines 256-262).
func TestThreeValidationsTeachThreeRoutes(t *testing.T) {
	w := newWorld(t, Config{})
	for _, n := range []Number{"+1", "+2"} {
		if got := w.validates(n, peer(1), Succeeded, 8); got != nil {
			t.Fatalf("%s teaches %v", n, got)
		}
	}
	got := w.validates("+3", peer(1), Succeeded, 8)
	if numbers(got) != "+1 +2 +3" || got[0].Service != "s" || got[0].Route.Expires.Sub(got[0].Route.Learned) != RouteLife || got[0].Route.Peer != peer(1) {
		t.Errorf("learned: %+v", got)
	}
	if got := w.validates("+4", peer(1), Succeeded, 8); got != nil {
		t.Errorf("the bucket was not emptied: %v", got)
	}
}

func TestCallerIsWorthMore(t *testing.T) {
	w := newWorld(t, Config{})
	w.validates("+1", peer(1), Succeeded, 12)
	if got := numbers(w.validates("+2", peer(1), Succeeded, 12)); got != "+1 +2" {
		t.Errorf("two of 12 teach %q", got)
	}
	w.validates("+1", peer(1), Succeeded, 12)
	w.validates("+2", peer(1), Succeeded, 8)
	if got := numbers(w.validates("+2", peer(1), Succeeded, 8)); got != "+1 +2" {
		t.Errorf("12, 8 and 8 teach %q", got)
	}
	w = newWorld(t, Config{Threshold: 8})
	if got := numbers(w.validates("+1", peer(1), Succeeded, 8)); got != "+1" {
		t.Errorf("with a threshold of 8 one teaches %q", got)
	}
}

// After a failure the peer's buckets are empty, and the number wants consecutive validations of its own; other peers are not touched.
func TestPenaltyBox(t *testing.T) {
	w := newWorld(t, Config{})
	w.validates("+1", peer(1), Succeeded, 8)
	w.validates("+2", peer(1), Succeeded, 8)
	w.validates("+2", peer(2), Succeeded, 8)
	w.validates("+9", peer(1), Failed, 0)
	if got := w.validates("+3", peer(1), Succeeded, 8); got != nil {
		t.Errorf("what came before the failure counts: %v", got)
	}
	w.validates("+9", peer(1), Succeeded, 8)
	w.validates("+9", peer(1), Succeeded, 8)
	if got := numbers(w.validates("+4", peer(1), Succeeded, 8)); got != "" {
		t.Errorf("results of the penalty box count for others: %q", got)
	}
	if got := numbers(w.validates("+9", peer(1), Succeeded, 8)); got != "+9" {
		t.Errorf("three of its own teach %q", got)
	}
	if got := numbers(w.validates("+5", peer(1), Succeeded, 8)); got != "+3 +4 +5" {
		t.Errorf("the default bucket teaches %q", got)
	}
	w.validates("+9", peer(1), Succeeded, 8)
	w.validates("+8", peer(1), Failed, 0)
	p := w.e.Pools()[peer(1)]
	if p.Numbers["+9"].Value != 0 || p.Numbers["+8"] == nil || p.Default.Value != 0 {
		t.Errorf("a second failure leaves %+v", p)
	}
	w.validates("+2", peer(2), Succeeded, 8)
	if got := numbers(w.validates("+2", peer(2), Succeeded, 8)); got != "+2" {
		t.Errorf("another peer's bucket was touched: %q", got)
	}
}

// The guide's figure (lines 268-280): three pools, each with a default bucket; peer 2 with a bucket for +17327662496, peer 3 with one for that number and
// one for +1408952500; the buckets of one number in two pools have nothing to do with each other.
func TestFigureOfPools(t *testing.T) {
	w := newWorld(t, Config{})
	w.validates("+12025550001", peer(1), Succeeded, 8)
	w.validates("+17327662496", peer(2), Failed, 0)
	w.validates("+17327662496", peer(3), Failed, 0)
	w.validates("+1408952500", peer(3), Failed, 0)
	w.validates("+17327662496", peer(2), Succeeded, 12)
	got := map[PeerID]string{}
	for id, p := range w.e.Pools() {
		got[id] = fmt.Sprint(p.Default.Value)
		for _, n := range []Number{"+1408952500", "+17327662496"} {
			if b, ok := p.Numbers[n]; ok {
				got[id] += fmt.Sprintf(" %s:%d", n, b.Value)
			}
		}
	}
	want := map[PeerID]string{peer(1): "8", peer(2): "0 +17327662496:12", peer(3): "0 +1408952500:0 +17327662496:0"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("pools %v, want %v", got, want)
	}
}

// Two calls of a number within the interval are never both validated, in whatever order their records come.
func TestIntervalOfANumber(t *testing.T) {
	w := newWorld(t, Config{})
	at := w.now
	for _, x := range []struct {
		to    Number
		start time.Time
		want  error
	}{
		{"+1", at, nil},
		{"+1", at.Add(59 * time.Minute), ErrTooSoon},
		{"+1", at.Add(-59 * time.Minute), ErrTooSoon},
		{"+2", at.Add(time.Minute), nil},
		{"+1", at.Add(time.Hour), nil},
		{"+1", at.Add(90 * time.Minute), ErrTooSoon},
	} {
		_, err := w.e.Add(at.Add(2*time.Hour), "s", nil, VCR{Role: Originating, Called: x.to, Start: x.start, Stop: x.start.Add(time.Second)})
		if !errors.Is(err, x.want) {
			t.Errorf("%s at %v: %v, want %v", x.to, x.start, err, x.want)
		}
	}
	if c := w.e.Counters; c.TooSoon != 3 || c.ValidationsBlocked != 3 || c.Added != 3 {
		t.Errorf("counters %+v", c)
	}
	short := newWorld(t, Config{Interval: time.Minute})
	for i := range 3 {
		if _, err := short.e.Add(at.Add(time.Hour), "s", nil, call("+1", at.Add(time.Duration(i)*time.Minute))); err != nil {
			t.Errorf("with an interval of a minute: %v", err)
		}
	}
}

func TestRecordsThatAreNotValidated(t *testing.T) {
	w := newWorld(t, Config{})
	good := call("+1", w.now)
	for name, x := range map[string]struct {
		change func(*VCR)
		want   error
	}{
		"came in":        {func(v *VCR) { v.Role = Terminating }, ErrNotOurs},
		"no role":        {func(v *VCR) { v.Role = 0 }, ErrInvalid},
		"no called":      {func(v *VCR) { v.Called = "" }, ErrInvalid},
		"national":       {func(v *VCR) { v.Called = "4085551212" }, ErrInvalid},
		"bad caller":     {func(v *VCR) { v.Caller = "anonymous" }, ErrInvalid},
		"ends first":     {func(v *VCR) { v.Stop = v.Start.Add(-time.Second) }, ErrInvalid},
		"in the future":  {func(v *VCR) { v.Start, v.Stop = w.now.Add(2*time.Hour), w.now.Add(3*time.Hour) }, ErrInvalid},
		"without caller": {func(v *VCR) { v.Caller = "" }, nil},
	} {
		v := good
		x.change(&v)
		if _, err := New(Config{}).Add(w.now, "s", nil, v); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	full := New(Config{MaxPending: 2})
	for i, want := range []error{nil, nil, ErrPending} {
		if _, err := full.Add(w.now, "s", nil, call(Number(fmt.Sprint("+", i)), w.now)); !errors.Is(err, want) {
			t.Errorf("record %d: %v, want %v", i, err, want)
		}
	}
	if full.Pending() != 2 || full.Counters.Refused != 1 {
		t.Errorf("%d pending, counters %+v", full.Pending(), full.Counters)
	}
}

// A record waits between the two delays, is given once, and comes again only when no peer was reached, a bounded number of times.
func TestDelayAndTries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	w := newWorld(t, Config{DelayMin: time.Minute, DelayMax: 3 * time.Minute, Random: rnd.Int64N})
	seen := map[time.Duration]bool{}
	for i := range 50 {
		e := New(w.e.cfg)
		if _, err := e.Add(start, "s", nil, call(Number(fmt.Sprint("+", i)), start)); err != nil {
			t.Fatal(err)
		}
		d := e.Next().Sub(start)
		if seen[d] = true; d < time.Minute || d >= 3*time.Minute {
			t.Errorf("waits %v", d)
		}
		if due := e.Due(start.Add(d-1), 10); due != nil {
			t.Errorf("is due too early: %v", due)
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d different delays", len(seen))
	}
	id, _ := w.e.Add(start, "s", nil, call("+1", start))
	at := start.Add(3 * time.Minute)
	for try := range 3 {
		if due := w.e.Due(at, 10); len(due) != 1 {
			t.Fatalf("try %d: %v", try, due)
		}
		if due := w.e.Due(at, 10); due != nil {
			t.Fatalf("given twice: %v", due)
		}
		w.e.Report(at, id, nil, Result{Peer: peer(1), Outcome: Unreachable})
		w.e.Finish(at, id, true)
		if due := w.e.Due(at, 10); due != nil {
			t.Errorf("tried again at once: %v", due)
		}
		at = at.Add(10 * time.Minute)
	}
	if w.e.Pending() != 0 || len(w.e.Pools()) != 0 {
		t.Errorf("after three tries %d pending, pools %v", w.e.Pending(), w.e.Pools())
	}
	// Nobody claims the number, the call is old.
	id, _ = w.e.Add(at, "s", nil, call("+2", at))
	w.e.Due(at.Add(time.Hour), 1)
	w.e.Finish(at, id, false)
	_, _ = w.e.Add(at, "s", nil, call("+3", at))
	if due := w.e.Due(at.Add(25*time.Hour), 1); due != nil || w.e.Pending() != 0 || w.e.Counters.Expired != 1 || w.e.Counters.Unclaimed != 1 {
		t.Errorf("due %v, %d pending, %+v", due, w.e.Pending(), w.e.Counters)
	}
}

// A record proves once, whatever several claimants answer; one that claims in vain does not spoil the other's proof.
func TestRecordProvesOnce(t *testing.T) {
	w := newWorld(t, Config{Threshold: 8})
	id, _ := w.e.Add(w.now, "s", nil, call("+1", w.now))
	w.now = w.now.Add(time.Hour)
	w.e.Due(w.now, 1)
	good := Result{Peer: peer(2), Outcome: Succeeded, Value: 8, Domain: "b", Numbers: []Number{"+1"}}
	w.e.Report(w.now, id, nil, Result{Peer: peer(1), Outcome: Failed})
	if got := w.e.Report(w.now, id, nil, good); numbers(got) != "+1" {
		t.Errorf("the second claimant teaches %v", got)
	}
	good.Peer = peer(3)
	if got := w.e.Report(w.now, id, nil, good); got != nil {
		t.Errorf("a third proof of the same call teaches %v", got)
	}
	w.e.Report(w.now, id, nil, Result{Peer: peer(4), Outcome: Failed})
	w.e.Finish(w.now, id, true)
	if got := w.e.Report(w.now, id, nil, good); got != nil {
		t.Errorf("a proof after the end teaches %v", got)
	}
	if pools := w.e.Pools(); len(pools) != 2 || pools[peer(1)].Numbers["+1"] == nil {
		t.Errorf("pools %+v", pools)
	}
	// Refused after a good proof: used up, and no failure.
	w = newWorld(t, Config{Threshold: 8})
	if got := w.validates("+1", peer(1), Refused, 0); got != nil || len(w.e.Pools()) != 0 || w.e.Pending() != 0 {
		t.Errorf("refused: %v, pools %v", got, w.e.Pools())
	}
	// A success of another number, or of no worth, is none.
	for _, r := range []Result{{Value: 8, Numbers: []Number{"+2"}}, {Value: 80, Numbers: []Number{"+1"}}, {Value: 8}} {
		e := New(Config{Threshold: 8})
		id, _ := e.Add(start, "s", nil, call("+1", start))
		e.Due(start.Add(time.Hour), 1)
		r.Outcome = Succeeded
		if got := e.Report(start, id, nil, r); got != nil {
			t.Errorf("%+v teaches %v", r, got)
		}
	}
}

func TestTrustGroups(t *testing.T) {
	white := &TrustGroup{Trusted: true, Domains: []string{"b.example"}, Prefixes: []string{"+44"}}
	black := &TrustGroup{Domains: []string{"B.example"}, Prefixes: []string{"+44"}}
	for _, x := range []struct {
		g            *TrustGroup
		domain       string
		number       Number
		early, whole bool
	}{
		{nil, "b.example", "+441", true, true},
		{white, "B.EXAMPLE", "+1", true, true},
		{white, "sub.b.example", "+1", true, false},
		{white, "c.example", "+441", true, true},
		{white, "c.example", "+1", true, false},
		{&TrustGroup{Trusted: true, Prefixes: []string{"+44"}}, "b.example", "+1", false, false},
		{&TrustGroup{Trusted: true}, "b.example", "+1", false, false},
		{black, "b.example", "+1", true, false},
		{black, "c.example", "+441", false, false},
		{black, "c.example", "+1", true, true},
	} {
		if got := x.g.AllowsNumber(x.number); got != x.early {
			t.Errorf("%+v: number %s %v", x.g, x.number, got)
		}
		if got := x.g.Allows(x.domain, x.number); got != x.whole {
			t.Errorf("%+v: %s %s %v", x.g, x.domain, x.number, got)
		}
	}
	e := New(Config{Threshold: 8})
	if _, err := e.Add(start, "s", black, call("+441", start)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("%v", err)
	}
	id, _ := e.Add(start, "s", black, call("+1", start))
	e.Due(start.Add(time.Hour), 1)
	r := Result{Peer: peer(1), Outcome: Succeeded, Value: 8, Domain: "c.example", Numbers: []Number{"+1", "+442", "bad"}}
	if got := numbers(e.Report(start, id, black, r)); got != "+1" {
		t.Errorf("learned %q, want the trusted number alone", got)
	}
	id, _ = e.Add(start, "s", black, call("+2", start))
	e.Due(start.Add(time.Hour), 1)
	r.Domain, r.Numbers = "b.example", []Number{"+2"}
	if got := e.Report(start, id, black, r); got != nil || e.Pools()[peer(1)].Default.Value != 0 {
		t.Errorf("an untrusted domain teaches %v", got)
	}
}

// The caps of pools, number buckets, results and numbers hold, and penalties outlive the crowd.
func TestCapsOfState(t *testing.T) {
	w := newWorld(t, Config{MaxPeers: 3, MaxNumbers: 5, Threshold: 10_000})
	w.validates("+100", peer(1), Failed, 0)
	for i := range byte(20) {
		w.validates(Number(fmt.Sprint("+2", i)), peer(10+i), Succeeded, 8)
	}
	pools := w.e.Pools()
	if len(pools) != 3 || pools[peer(1)].Numbers["+100"] == nil || w.e.Counters.PoolsEvicted != 18 {
		t.Errorf("pools %v, counters %+v", pools, w.e.Counters)
	}
	if n := len(w.e.State().Last); n != 5 {
		t.Errorf("%d numbers are remembered", n)
	}
	for i := range 70 {
		w.validates(Number(fmt.Sprint("+3", i)), peer(1), Failed, 0)
	}
	if n := len(w.e.Pools()[peer(1)].Numbers); n != maxNumberBuckets {
		t.Errorf("%d number buckets", n)
	}
	for i := range 40 {
		w.validates(Number(fmt.Sprint("+4", i)), peer(1), Succeeded, 8)
	}
	if b := w.e.Pools()[peer(1)].Default; len(b.Results) != maxResults || b.Value != 320 {
		t.Errorf("%d results worth %d", len(b.Results), b.Value)
	}
}

// What a bucket's rules mean, said another way: a peer's routes are learned exactly when, since its last failure, and since the last release, the
// successes that count for a bucket reach the threshold.
func TestBucketsAgainstTheHistory(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t, Config{})
		type event struct {
			to    Number
			value int // 0: failed
		}
		history := map[PeerID][]event{}
		for range 200 {
			p, to := peer(byte(rnd.IntN(3))), Number(fmt.Sprint("+", rnd.IntN(4)))
			ev := event{to, []int{8, 12, 8, 12, 0}[rnd.IntN(5)]}
			history[p] = append(history[p], ev)
			outcome := Succeeded
			if ev.value == 0 {
				outcome = Failed
			}
			got := w.validates(to, p, outcome, ev.value)
			// The reference: walk the whole history of the peer again.
			boxed, sums := map[Number]bool{}, map[Number]int{}
			release := false
			for _, h := range history[p] {
				release = false
				if h.value == 0 {
					clear(sums)
					boxed[h.to] = true
					continue
				}
				bucket := Number("")
				if boxed[h.to] {
					bucket = h.to
				}
				if sums[bucket] += h.value; sums[bucket] >= 24 {
					sums[bucket], release = 0, true
				}
			}
			if (got != nil) != release {
				t.Fatalf("seed %d: %s learns %v, want a release %v; history %v", seed, p, got, release, history[p])
			}
		}
	}
}

// A restart changes nothing: an engine restored at any moment goes on as the one that was never stopped.
func TestRestoreGoesOn(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	cfg := Config{MaxPeers: 2, MaxNumbers: 4, Keep: 2 * time.Hour}
	a, b := newWorld(t, cfg), newWorld(t, cfg)
	var stored State
	for i := range 300 {
		to, p, o, v := Number(fmt.Sprint("+", rnd.IntN(5))), peer(byte(rnd.IntN(3))), []Outcome{Succeeded, Succeeded, Succeeded, Failed, Refused}[rnd.IntN(5)], 8+4*rnd.IntN(2)
		x, y := a.validates(to, p, o, v), b.validates(to, p, o, v)
		if !reflect.DeepEqual(x, y) {
			t.Fatalf("step %d: %v and %v", i, x, y)
		}
		stored.Apply(b.e.Changes())
		if !reflect.DeepEqual(stored, b.e.State()) {
			t.Fatalf("step %d: what was stored is\n%+v\nwant\n%+v", i, stored, b.e.State())
		}
		b.e = Restore(cfg, stored)
		if !reflect.DeepEqual(a.e.State(), b.e.State()) {
			t.Fatalf("step %d: the states differ", i)
		}
	}
	// One that was being validated is validated again; one that has proven is not, and nothing of it stays in the store.
	id, _ := b.e.Add(b.now, "s", nil, call("+77", b.now))
	id2, _ := b.e.Add(b.now, "s", nil, call("+78", b.now))
	b.e.Due(b.now.Add(time.Hour), 10)
	b.e.Report(b.now, id2, nil, Result{Peer: peer(1), Outcome: Succeeded, Value: 8, Numbers: []Number{"+78"}})
	stored.Apply(b.e.Changes())
	c := Restore(cfg, stored)
	if due := c.Due(b.now.Add(time.Hour), 10); len(due) != 1 || due[0].ID != id {
		t.Errorf("after a restart due is %+v", due)
	}
	if stored.Apply(c.Changes()); !reflect.DeepEqual(stored, c.State()) {
		t.Errorf("what is stored after a restart is\n%+v\nwant\n%+v", stored, c.State())
	}
}
