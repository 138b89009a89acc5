package testbed

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// Whenever a call is bad, its call agent is told at the time that an independent computation over a capture says, for one of the
// possible phases of the sampling, and never before; calls that only had a blip are not told of.
func TestReferTiming(t *testing.T) {
	s := StartStubs(t)
	s.mustReload(t, FastFallback(s.Proxy.DefaultConfig(t)))
	second := func(from, to float64) func(i int) bool { // everything in these seconds
		return func(i int) bool { return float64(i) >= 50*from && float64(i) < 50*to }
	}
	pattern := func(l Loss) func(int) bool { return func(i int) bool { return l[i%len(l)] } }
	calls := map[string]*struct {
		spoken
		level int
		told  bool
	}{
		"bursts":                   {level: 3, told: true, spoken: spoken{lose: pattern(badInternet(11))}},
		"random loss":              {level: 3, told: true, spoken: spoken{lose: pattern(RandomLoss(12, 0.1))}},
		"aggressive":               {level: 5, told: true, spoken: spoken{lose: pattern(RandomLoss(13, 0.04))}},
		"moderate":                 {level: 4, told: true, spoken: spoken{lose: every(30)}},
		"utility":                  {level: 1, told: true, spoken: spoken{lose: every(4)}},
		"late packets":             {level: 3, told: true, spoken: spoken{lose: every(1 << 30), delay: func(i int) int { return 6 * (i % 10 / 9) }}}, // one of ten comes 120 ms late
		"blackout":                 {level: 3, told: true, spoken: spoken{lose: second(1, 14)}},
		"two blips":                {level: 3, told: true, spoken: spoken{lose: func(i int) bool { return second(2, 3)(i) || second(13.5, 14.5)(i) }}},
		"a blip":                   {level: 3, spoken: spoken{lose: second(2, 3)}},
		"a bad beginning":          {level: 3, spoken: spoken{lose: func(i int) bool { return i == 5 || i == 6 }}},
		"as much as nominal bears": {level: 3, spoken: spoken{lose: every(33)}},
		"as much as utility bears": {level: 1, spoken: spoken{lose: every(6)}},
		"two thousandths":          {level: 3, spoken: spoken{lose: every(500)}},
		"nobody wants to be told":  {level: 0, spoken: spoken{lose: every(2)}},
		"a little late":            {level: 3, spoken: spoken{lose: every(1 << 30), delay: func(i int) int { return 2 * (i % 10 / 9) }}},
	}
	outside, inside := s.Capture(t, s.A.EdgeHost, "eout"), s.Capture(t, s.A.EdgeHost, "ein")
	var all []*spoken
	for _, c := range calls {
		c.talk = s.newTalk(t, true, NewStubCrypto(1, srtpSuites[0]))
		inv, seen := c.invite(t, sdp(c.descr(false)), func(m *StubMessage) { m.Add("X-Cisco-UC-IME-Fallback", fmt.Sprintf("sensitivity=%d", c.level)) })
		c.pick(t, seen.Body)
		c.callee.Respond(t, seen, 200, "OK", sdp(c.descr(true)))
		c.answered(t, seen, c.caller.AwaitStatus(t, inv, 200))
		c.caller.Ack(t)
		c.callee.Expect(t, "ACK")
		all = append(all, &c.spoken)
	}
	stop, begin := make(chan struct{}), time.Now()
	var done sync.WaitGroup
	speak(t, all, stop, &done)
	for name, c := range calls {
		if c.told {
			m := c.refer(t, time.Until(begin.Add(16*time.Second)))
			s.Agent.AnswerLeg(m).Respond(t, m, 202, "Accepted")
			t.Logf("%s: %s", name, m.Get("X-Cisco-UC-IME-Quality"))
		}
	}
	// The blip's hold-down ends within the 13th second; a notification would have come by the 14th.
	Until(t, 20*time.Second, "the calls have lasted long enough", func() bool { return time.Since(begin) > 14500*time.Millisecond })
	close(stop)
	done.Wait()
	outside.Stop(t)
	inside.Stop(t)
	streams, signaling := outside.Streams(t), inside.Packets(t)
	for name, c := range calls {
		t.Run(name, func(t *testing.T) {
			refer := notification(signaling, c.caller.CallID+";")
			if c.told == refer.IsZero() {
				t.Fatalf("notification at %v", refer)
			}
			if c.level == 0 {
				return
			}
			for _, st := range streams {
				if st.SSRC != c.far.SSRC || st.Dst != c.out {
					continue
				}
				end := st.Packets[len(st.Packets)-1].Time
				if refer.After(end) { // it came after the last packet, and ended the waiting for it
					end = refer
				}
				late, err := referFits(refer, ReferDues(st.Packets, refer, end, shortestHoldDown, levels[c.level]))
				if err != nil {
					t.Error(err)
				}
				if name == "bursts" { // this comparison would see a hold-down that is off by four samples
					for _, off := range []time.Duration{-4 * sampleEvery, 4 * sampleEvery} {
						if _, err := referFits(refer, ReferDues(st.Packets, refer, end, shortestHoldDown+off, levels[c.level])); err == nil {
							t.Errorf("a hold-down that is off by %v fits too", off)
						}
					}
				}
				if c.told {
					t.Logf("told %v after the first packet, %v after it was due at the earliest fitting phase", refer.Sub(st.Packets[0].Time), late)
				}
				return
			}
			t.Error("its stream is not in the capture")
		})
	}
}
