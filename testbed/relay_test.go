package testbed

import (
	"math"
	"testing"
	"time"
)

// The choices of a relay are what its settings say, and one seed makes the same ones.
func TestRelayChoices(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	run := func(im Impairment, n, size int, every time.Duration) (delays []time.Duration, kinds map[string]int, twice int) {
		w := newRelayWay(im)
		kinds = map[string]int{}
		for i := range n {
			now := at.Add(time.Duration(i) * every)
			due, copies, what := w.judge(size, now)
			kinds[what]++
			if copies > 0 {
				delays = append(delays, due.Sub(now))
			}
			if copies == 2 {
				twice++
			}
		}
		return delays, kinds, twice
	}
	const n = 10000
	im := Impairment{Seed: 3, Delay: 40 * time.Millisecond, Jitter: 30 * time.Millisecond, Reorder: 0.02, Duplicate: 0.05, Loss: RandomLoss(4, 0.1)}
	delays, kinds, twice := run(im, n, 200, 20*time.Millisecond)
	again, _, _ := run(im, n, 200, 20*time.Millisecond)
	for i, d := range delays {
		if d != again[i] || d != 0 && (d < 40*time.Millisecond || d >= 70*time.Millisecond) {
			t.Fatalf("packet %d is delayed by %v, and with the same seed by %v", i, d, again[i])
		}
	}
	for what, want := range map[string]float64{"lost": 0.1, "overtaking": 0.02 * 0.9} {
		if got := float64(kinds[what]) / n; math.Abs(got-want) > 0.01 {
			t.Errorf("%s: %.3f, want %.3f", what, got, want)
		}
	}
	if got := float64(twice) / n; math.Abs(got-0.05*0.9) > 0.01 {
		t.Errorf("twice: %.3f", got)
	}
	// 50 packets/s of 200 bytes are 80 kbit/s: half of it gets through 40 kbit/s, after the queue that is allowed.
	delays, kinds, _ = run(Impairment{Rate: 40_000}, 1000, 200, 20*time.Millisecond)
	if got := len(delays); got < 500 || got > 520 || kinds["queue"] != 1000-got {
		t.Errorf("%d of 1000 packets pass half of their rate, %v", got, kinds)
	}
	if d := delays[len(delays)-1]; d < 200*time.Millisecond || d > 280*time.Millisecond {
		t.Errorf("the queue is %v long", d)
	}
	delays, _, _ = run(Impairment{Seed: 5, Jitter: 100 * time.Millisecond, InOrder: true}, 1000, 200, 20*time.Millisecond)
	for i := 1; i < len(delays); i++ {
		if delays[i]+20*time.Millisecond < delays[i-1] {
			t.Fatalf("packet %d overtakes the one before", i)
		}
	}
}

// A call over an Internet that delays, shakes, reorders and repeats: what the captures before and behind the relay say is what it was set to, the phones hear each other all the
// same, and the proxy counts what a repeated or late packet is.
func TestImpairedInternet(t *testing.T) {
	l := Start(t, Options{})
	relay := l.Relay(t)
	before, behind := l.Capture(t, l.Internet.Host, "ea"), l.Capture(t, l.Internet.Host, "eb")
	l.A.Phone.Call(t, l.B.Phone)
	relay.Set(t, map[*Enterprise]Impairment{l.A: {Seed: 1, Delay: 60 * time.Millisecond, Jitter: 30 * time.Millisecond, Reorder: 0.05, Duplicate: 0.1, Loss: RandomLoss(2, 0.02)}})
	l.TalkFor(t, 4*time.Second, before, behind)
	middle := time.Now()
	relay.Set(t, nil)
	l.TalkFor(t, time.Second, before, behind)
	l.A.Phone.Hangup(t)
	l.B.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	before.Stop(t)
	behind.Stop(t)

	sent := map[uint16]time.Time{}
	for _, s := range Streams(before.Packets(t)) {
		if s.Src.Addr() == l.A.MediaOut {
			for _, p := range s.Packets {
				sent[p.Seq] = p.Time
			}
		}
	}
	var delays []time.Duration
	seen := map[uint16]int{}
	late, after := 0, 0
	for _, s := range Streams(behind.Packets(t)) {
		if s.Dst.Addr() != l.B.MediaOut {
			continue
		}
		highest := uint16(0)
		for i, p := range s.Packets {
			d := p.Time.Sub(sent[p.Seq])
			if seen[p.Seq]++; p.Time.Before(middle) && d > 20*time.Millisecond {
				delays = append(delays, d)
			} else if p.Time.After(middle.Add(200 * time.Millisecond)) {
				if after++; d > 20*time.Millisecond {
					t.Errorf("the Internet is good again and delays a packet by %v", d)
				}
			}
			if i > 0 && int16(p.Seq-highest) < 0 {
				late++
			} else {
				highest = p.Seq
			}
		}
	}
	twice := 0
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	stats := relay.Stats()
	t.Logf("relay %+v; behind it %d delayed packets, %d twice, %d out of order, %d after it ended", stats, len(delays), twice, late, after)
	if len(delays) < 150 || twice != stats.Duplicated || stats.Lost == 0 || stats.Overtaking == 0 || late == 0 || after < 30 {
		t.Errorf("not what the relay was set to: %+v", stats)
	}
	for _, d := range delays {
		if d < 59*time.Millisecond || d > 140*time.Millisecond {
			t.Errorf("a packet was delayed by %v, want 60 to 90 ms", d)
		}
	}
	for _, e := range l.Enterprises() {
		if tone := e.Phone.LastTone(t); math.Abs(tone.Hz-float64(e.far.Phone.Tone)) > 10 {
			t.Errorf("phone %s heard %.0f Hz, want %d", e.Letter, tone.Hz, e.far.Phone.Tone)
		}
	}
}
