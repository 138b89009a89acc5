package fallback

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// sound makes a stream of 8 s, packets of 10 ms with turns at 10 ms, 20 ms ... 8 s, and returns its figures at 8 s. lost tells the missing
// numbers, late what is added to the arrival of the others; both by number from 0. Numbers in the last 200 ms are never lost.
func sound(t *testing.T, lost func(i int) bool, late func(i int) time.Duration) Figures {
	t.Helper()
	s := NewStream([]Format{{PayloadType: 0}}, 10*time.Millisecond)
	var list []Packet
	for i := range 800 {
		if !lost(i) {
			list = append(list, Packet{At: time.Duration(i+1)*10*time.Millisecond + late(i), SSRC: 1, Seq: uint16(i), Timestamp: 80 * uint32(i), PayloadLength: 80})
		}
	}
	slices.SortStableFunc(list, func(a, b Packet) int { return int(a.At - b.At) })
	for _, p := range list {
		if p.At <= 8*time.Second {
			s.Packet(p)
		}
	}
	return s.Sample(8 * time.Second)
}

func none(int) bool              { return false }
func intime(int) time.Duration   { return 0 }
func run(from, n int) (s [2]int) { return [2]int{from, from + n} }

func within(runs ...[2]int) func(int) bool {
	return func(i int) bool {
		for _, r := range runs {
			if i >= r[0] && i < r[1] {
				return true
			}
		}
		return false
	}
}

// spaced loses n numbers evenly, no two in a row.
func spaced(n int) func(int) bool {
	return func(i int) bool { return i%2 == 1 && i < 780 && (i/2+1)*n/390 > i/2*n/390 }
}

// Each figure of each level, at the limit and one packet, event or bin beyond it, with the other figures' limits out of the way: at the limit
// the sample is good.
func TestThresholdsOnBothSides(t *testing.T) {
	builtin := Builtin()
	for l := Utility; l <= Aggressive; l++ {
		limits := builtin[l]
		alone := func(figure string) Table {
			th := Thresholds{Loss: 100_000, Burst: 8 * time.Second, PDV: 8 * time.Second, Events: 8}
			switch figure {
			case "loss":
				th.Loss = limits.Loss
			case "burst":
				th.Burst = limits.Burst
			case "pdv":
				th.PDV = limits.PDV
			case "events":
				th.Events = limits.Events
			}
			var table Table
			table[l] = th
			return table
		}
		check := func(figure string, at, beyond Figures, shown func(*Figures) string) {
			t.Helper()
			table := alone(figure)
			if table.Bad(l, &at) || !table.Bad(l, &beyond) {
				t.Errorf("%s %s: at %s bad is %v, at %s %v", l, figure, shown(&at), table.Bad(l, &at), shown(&beyond), table.Bad(l, &beyond))
			}
		}
		n := 800 * limits.Loss / 100_000
		check("loss", sound(t, spaced(n), intime), sound(t, spaced(n+1), intime), func(f *Figures) string { return fmt.Sprintf("%.3f %%", f.Loss()) })

		n = int(limits.Burst / (10 * time.Millisecond))
		check("burst", sound(t, within(run(100, n), run(500, n)), intime), sound(t, within(run(100, n), run(500, n+1)), intime), func(f *Figures) string { return f.Burst.String() })

		// 41 of 800 come late: the 95th percentile is one of them. 40, and it is not.
		late := func(n int, by time.Duration) func(int) time.Duration {
			return func(i int) time.Duration {
				if i >= 10 && i < 10+n {
					return by
				}
				return 0
			}
		}
		if limits.PDV < lateAfter { // beyond, such packets are lost
			const bin = binWidth * time.Microsecond
			check("pdv", sound(t, none, late(41, limits.PDV)), sound(t, none, late(41, limits.PDV+bin)), func(f *Figures) string { return f.PDV.String() })
			check("pdv", sound(t, none, late(40, limits.PDV+bin)), sound(t, none, late(41, limits.PDV+bin)), func(f *Figures) string { return f.PDV.String() })
		}

		// 5 of 100 lost make an event of a second, 4 do not.
		seconds := func(full, almost int) func(int) bool {
			return func(i int) bool {
				n := 0
				if i/100 < full {
					n = 5
				} else if i/100 < full+almost {
					n = 4
				}
				return i%100%10 == 5 && i%100/10 < n
			}
		}
		check("events", sound(t, seconds(limits.Events, 7-limits.Events), intime), sound(t, seconds(limits.Events+1, 0), intime), func(f *Figures) string { return fmt.Sprint(f.Events) })
	}
}

// drift is a stream whose delay grows slowly, which alone reaches a pdv beyond 200 ms.
func drift(t *testing.T, by time.Duration) Figures {
	t.Helper()
	return sound(t, none, func(i int) time.Duration {
		if i >= 400 {
			return by // and the turns with it
		}
		return 0
	})
}

func TestPDVBeyondLateness(t *testing.T) {
	table := Builtin()
	for _, l := range []Level{Utility, Accommodative} {
		limit := table[l].PDV
		at, beyond := drift(t, limit), drift(t, limit+binWidth*time.Microsecond)
		if table.Bad(l, &at) || !table.Bad(l, &beyond) {
			t.Errorf("%s: %v and %v", l, at.PDV, beyond.PDV)
		}
	}
}

// listen plays d of 20 ms packets to a call at a level, samples it every 100 ms, and tells when it was notified; 0: never.
func listen(level Level, d time.Duration, lost func(at time.Duration, i int) bool) time.Duration {
	table := Builtin()
	s := NewStream([]Format{{PayloadType: 0}}, 0)
	m := NewMonitor(level, DefaultHoldDown)
	m.SetStreams([]*Stream{s})
	for i := 0; ; i++ {
		at := time.Duration(i) * 20 * time.Millisecond
		if at > d {
			return 0
		}
		if !lost(at, i) {
			s.Packet(Packet{At: at, SSRC: 1, Seq: uint16(i), Timestamp: 160 * uint32(i), PayloadLength: 160})
		}
		if i%5 == 4 {
			if r := m.Sample(at, &table); r.Due {
				return at
			}
		}
	}
}

// A blip of silence tells nobody, at any level, as long as it and the 8 s that the window remembers it are shorter than the hold-down. What
// lasts longer does.
func TestBlips(t *testing.T) {
	for l := Utility; l <= Aggressive; l++ {
		for blip := time.Second; blip+windowLength < DefaultHoldDown; blip += time.Second {
			every := func(at time.Duration, _ int) bool {
				return at%(60*time.Second) >= 30*time.Second && at%(60*time.Second) < 30*time.Second+blip
			}
			if at := listen(l, 10*time.Minute, every); at != 0 {
				t.Errorf("%s: blips of %v, told at %v", l, blip, at)
			}
		}
		begin := 30 * time.Second
		at := listen(l, 2*time.Minute, func(at time.Duration, i int) bool { return at >= begin && i%3 == 0 })
		if at < begin+DefaultHoldDown || at > begin+DefaultHoldDown+8*time.Second {
			t.Errorf("%s: a third lost from %v on, told at %v", l, begin, at)
		}
	}
}

// Hours of a good Internet tell nobody: just under 0.2 % lost, at random. At level aggressive, where three packets lost in 8 s are too many,
// chance alone brings them together within minutes (docs/fallback.md has the arithmetic), so that the losses are spread evenly there.
func TestLongGoodCalls(t *testing.T) {
	for l := Utility; l <= Aggressive; l++ {
		for seed := range uint64(4) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			if at := listen(l, 2*time.Hour, func(_ time.Duration, i int) bool {
				if l == Aggressive {
					return i%501 == 500
				}
				return rnd.Float64() < 0.0019
			}); at != 0 {
				t.Errorf("%s, seed %d: told at %v", l, seed, at)
			}
		}
	}
}
