package fallback

import (
	"math/rand/v2"
	"testing"
	"time"
)

// history judges a call from all its samples by the words of the protocol file.
type history struct {
	holdDown time.Duration
	at       []time.Duration
	bad      []bool
}

// state after the last sample, and whether that one decides.
func (h *history) state() (State, bool) {
	state, decided := Good, false
	start, due := 0, false
	lastBad := time.Duration(0)
	for i, at := range h.at {
		decided = false
		if h.bad[i] {
			lastBad = at
		}
		switch state {
		case Notified:
			continue
		case Good:
			if h.bad[i] {
				state, start, due = Suspect, i, false
			}
			continue
		}
		if at-lastBad >= 8*time.Second {
			state = Good
			continue
		}
		if due {
			if h.bad[i] {
				state, decided = Notified, true
			}
			continue
		}
		if at < h.at[start]+h.holdDown {
			continue
		}
		bad, all := 0, 0
		for j := start + 1; j <= i; j++ {
			all++
			if h.bad[j] {
				bad++
			}
		}
		switch {
		case 2*bad < all:
			state = Good
		case h.bad[i]:
			state, decided = Notified, true
		default:
			due = true
		}
	}
	return state, decided
}

// decide takes a sample and notifies at once when that is due.
func (m *Monitor) decide(at time.Duration, bad bool) bool {
	due := m.judge(at, bad)
	m.last.Bad = bad
	_, ok := m.Notify()
	if ok != due {
		panic("a call that is due is not notified, or the other way round")
	}
	return ok
}

func TestStatesAgainstHistory(t *testing.T) {
	seen := map[State]int{}
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		every := []time.Duration{10, 100, 600, 130}[seed%4] * time.Millisecond
		h := &history{holdDown: []time.Duration{10, 20, 13}[seed%3] * time.Second}
		m := NewMonitor(Nominal, h.holdDown)
		share := rnd.Float64()
		for n := range int(45 * time.Second / every) {
			if rnd.IntN(100) == 0 {
				share = rnd.Float64() * rnd.Float64() * 2
			}
			at, bad := time.Second+time.Duration(n)*every, rnd.Float64() < share
			h.at, h.bad = append(h.at, at), append(h.bad, bad)
			decided := m.decide(at, bad)
			if n%37 != 0 && !decided {
				continue
			}
			state, want := h.state()
			if m.state != state || decided != want {
				t.Fatalf("seed %d, sample %d at %v: %v decided %v, want %v %v", seed, n, at, m.state, decided, state, want)
			}
			seen[state]++
		}
	}
	if seen[Good] == 0 || seen[Suspect] == 0 || seen[Notified] == 0 {
		t.Errorf("states seen: %v", seen)
	}
}

func TestDecisions(t *testing.T) {
	const s = time.Second
	type step struct {
		at      time.Duration
		bad     bool
		state   State
		decided bool
	}
	for name, steps := range map[string][]step{
		"bad all the time":        {{0, true, Suspect, false}, {5 * s, true, Suspect, false}, {20*s - 1, true, Suspect, false}, {20 * s, true, Notified, true}, {21 * s, true, Notified, false}, {90 * s, false, Notified, false}},
		"half, and this one":      {{0, true, Suspect, false}, {7 * s, false, Suspect, false}, {7*s + 1, true, Suspect, false}, {14 * s, false, Suspect, false}, {20 * s, true, Notified, true}},
		"half, not this one":      {{0, true, Suspect, false}, {7 * s, true, Suspect, false}, {14 * s, true, Suspect, false}, {20 * s, false, Suspect, false}, {21 * s, false, Suspect, false}, {21*s + 1, true, Notified, true}},
		"half, then 8 s of quiet": {{0, true, Suspect, false}, {7 * s, true, Suspect, false}, {14 * s, true, Suspect, false}, {20 * s, false, Suspect, false}, {22*s - 1, false, Suspect, false}, {22 * s, false, Good, false}, {23 * s, true, Suspect, false}},
		"fewer than half":         {{0, true, Suspect, false}, {7 * s, true, Suspect, false}, {8 * s, false, Suspect, false}, {14 * s, false, Suspect, false}, {14*s + 1, true, Suspect, false}, {20 * s, false, Good, false}},
		"8 s of quiet":            {{0, true, Suspect, false}, {8*s - 1, false, Suspect, false}, {8 * s, false, Good, false}},
		"the first is not counted": {
			{0, true, Suspect, false},
			{1 * s, false, Suspect, false},
			{2 * s, false, Suspect, false},
			{7 * s, true, Suspect, false},
			{14 * s, true, Suspect, false},
			{15 * s, false, Suspect, false},
			{20 * s, false, Good, false},
		},
	} {
		m := NewMonitor(Nominal, 20*s)
		for i, x := range steps {
			if decided := m.decide(x.at, x.bad); m.state != x.state || decided != x.decided {
				t.Errorf("%s, sample %d: %v %v, want %v %v", name, i, m.state, decided, x.state, x.decided)
			}
		}
	}
}

// feed sends a stream packets of 20 ms from an instant on, of which lost tells those that are missing.
func feed(s *Stream, from time.Duration, n int, seq uint16, lost func(i int) bool) {
	for i := range n {
		if !lost(i) {
			s.Packet(Packet{At: from + time.Duration(i)*20*time.Millisecond, SSRC: 9, Seq: seq + uint16(i), Timestamp: 160 * uint32(i), PayloadLength: 160})
		}
	}
}

func TestMonitorOfStreams(t *testing.T) {
	table := Builtin()
	a, b := NewStream(nil, 0), NewStream(nil, 0)
	m := NewMonitor(Nominal, 10*time.Second)
	if r := m.Sample(time.Second, &table); r.Sampled {
		t.Error("a call without streams is sampled")
	}
	m.SetStreams([]*Stream{a, b})
	feed(a, 0, 400, 1, func(int) bool { return false })
	feed(b, 0, 400, 1, func(i int) bool { return i%10 == 5 && i < 300 })
	r := m.Sample(8*time.Second, &table)
	if !r.Sampled || !r.Bad || r.State != Suspect || r.Figures.Loss() < 7 || r.Figures.SSRC != 9 {
		t.Errorf("one bad stream of two: %+v", r)
	}
	m.SetLevel(Utility) // with state kept: from the next sample it is good enough
	if r := m.Sample(8*time.Second+1, &table); r.Bad || r.State != Suspect || r.Level != Utility {
		t.Errorf("another level: %+v", r)
	}
	m.SetLevel(Disabled)
	if r := m.Last(); r.State != Good {
		t.Errorf("disabled: %+v", r)
	}
	if r := m.Sample(8*time.Second+2, &table); r.Bad || r.State != Good {
		t.Errorf("disabled: %+v", r)
	}
	m.SetLevel(Nominal)
	m.Sample(8*time.Second+3, &table)
	b.SetHold(8*time.Second+4, true)
	b.SetHold(8*time.Second+5, false) // between two samples
	if r := m.Sample(8*time.Second+6, &table); r.State != Good {
		t.Errorf("a hold ends suspicion: %+v", r)
	}
	a.SetHold(9*time.Second, true)
	b.SetHold(9*time.Second, true)
	if r := m.Sample(20*time.Second, &table); r.Sampled || r.Bad {
		t.Errorf("all on hold: %+v", r)
	}
	a.SetHold(21*time.Second, false)
	if r := m.Sample(23*time.Second-1, &table); r.Bad {
		t.Errorf("shortly after a hold: %+v", r)
	}
	if r := m.Sample(23*time.Second, &table); !r.Bad || !r.Figures.Dead || r.Figures.Burst != 2*time.Second || r.Figures.Quality(Nominal) != "level=3;loss=100.00;burst=2000;pdv=0.0;events=0;mos=1.0;ssrc=00000009" {
		t.Errorf("dead: %+v, %s", r, r.Figures.Quality(Nominal))
	}
}

func TestNotifier(t *testing.T) {
	const s = time.Second
	for name, x := range map[string]struct {
		status  int
		after   time.Duration
		outcome Outcome
		retry   time.Duration // after the answer
	}{
		"2xx": {202, -1, Done, 0}, "busy": {503, 45 * s, Again, 45 * s}, "busy, soon": {503, s, Again, 20 * s}, "busy, no time": {503, -1, Failed, 0},
		"timeout": {408, -1, Again, 20 * s}, "refused": {603, -1, Failed, 0}, "not there": {481, 30 * s, Failed, 0},
	} {
		n := Notifier{HoldDown: 20 * s}
		n.Sent(100 * s)
		if got := n.Answer(101*s, x.status, x.after); got != x.outcome {
			t.Errorf("%s: %v", name, got)
		}
		if n.Due(101*s+x.retry-1, true) {
			t.Errorf("%s: due too early", name)
		}
		if due := n.Due(101*s+x.retry, true); due != (x.outcome == Again) {
			t.Errorf("%s: due is %v", name, due)
		}
	}
	n := Notifier{HoldDown: 10 * s}
	at := time.Duration(0)
	for i := 1; i <= MaxReferrals; i++ {
		n.Sent(at)
		if _, expired := n.Expired(at + 32*s - 1); expired {
			t.Error("expired too early")
		}
		outcome, expired := n.Expired(at + 33*s)
		if last := i == MaxReferrals; !expired || (outcome == Failed) != last {
			t.Errorf("REFER %d: %v %v", i, outcome, expired)
		}
		if n.Due(at+42*s-1, true) || n.Due(at+42*s, true) == (i == MaxReferrals) { // 10 s after the answer should have come
			t.Errorf("REFER %d: when the next is due", i)
		}
		at += 42 * s
	}
	good := Notifier{HoldDown: 10 * s}
	good.Sent(0)
	good.Answer(s, 408, -1)
	if good.Due(11*s, false) || good.Due(12*s, true) {
		t.Error("a call that is good when the instant has come is notified again")
	}
}

func TestSensitivity(t *testing.T) {
	for text, want := range map[string]Level{"sensitivity=0": 0, "sensitivity=5": 5, " Sensitivity = 3 ": 3} {
		if got, err := ParseSensitivity(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "3", "sensitivity", "sensitivity=", "sensitivity=6", "sensitivity=-1", "sensitivity=33", "level=3", "sensitivity=3;x"} {
		if _, err := ParseSensitivity(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// What nothing has changed since is told as such, of good calls and of those that were told of, and is kept as any other result.
func TestSteadyResults(t *testing.T) {
	table := Builtin()
	s := NewStream(nil, 0)
	m := NewMonitor(Nominal, 10*time.Second)
	m.SetStreams([]*Stream{s})
	at, seq := time.Second, uint16(1)
	steady := map[State]int{}
	goOn := func(seconds, lose int) {
		t.Helper()
		for range seconds * 10 { // a sample each 100 ms
			for i := range 5 {
				if i >= lose {
					s.Packet(Packet{At: at, SSRC: 9, Seq: seq, Timestamp: 160 * uint32(seq), PayloadLength: 160})
				}
				at, seq = at+20*time.Millisecond, seq+1
			}
			r := m.Sample(at, &table)
			if last := m.Last(); last != r {
				t.Fatalf("at %v %v: %+v is kept as %+v", at, m.state, r, last)
			}
			if r.Steady {
				steady[r.State]++
				if r.Bad || r.Figures.Lost > 0 {
					t.Fatalf("steady with loss: %+v", r)
				}
			}
			m.Notify()
		}
	}
	goOn(10, 0)
	if steady[Good] == 0 {
		t.Error("a call without loss is not steady")
	}
	goOn(15, 1)
	if m.state != Notified {
		t.Fatalf("after 15 s with loss: %v", m.state)
	}
	goOn(20, 0)
	if steady[Notified] == 0 {
		t.Error("a call that was told of, and goes on without loss, is not steady")
	}
	goOn(1, 1) // a gap is known of when something comes behind it
	before := steady[Notified]
	goOn(5, 1)
	if steady[Notified] != before || !m.Last().Bad {
		t.Errorf("loss in a call that was told of: steady %d times, %+v", steady[Notified]-before, m.Last())
	}
}
