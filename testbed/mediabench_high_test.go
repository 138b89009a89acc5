package testbed

import (
	"fmt"
	"time"
)

// highRun is what one run of the ring of frames gave.
type highRun struct {
	sent, received, wrong int
	refused               int     // by the far end of a wire, which are lost too
	pps                   int     // that were sent
	us                    float64 // of the relay a packet, from when the whole rate was reached
	busy                  float64 // its time to that in which they were sent: above 1 it works off what its buffers hold after that
	cpu                   float64 // its time in all, nanoseconds
}

func (h highRun) String() string {
	return fmt.Sprintf("%d packets/s, %d sent, %d lost, %d wrong, %.2f us, %.2f of the core", h.pps, h.sent, h.sent-h.received, h.wrong, h.us, h.busy)
}

// takesFrames makes the relay's ends of the wires take what the ring of frames sends, which a virtual cable does where that end has a queue of
// its own, as it has for receive offload. Not for longer: what comes otherwise would go through the queue as well.
func (r *mediaRelay) takesFrames(t T, how string) {
	t.Helper()
	for _, link := range []string{"ein", "eout"} {
		r.lab.A.EdgeHost.MustRun(t, "ethtool", "-K", link, "gro", how)
	}
}

func (r *mediaRelay) refused(t T) (n int) {
	t.Helper()
	for _, end := range r.senders() {
		n += refusedFrames(t, end.host, end.link)
	}
	return n
}

// pour sends packets of the first calls by the ring of frames, so many a second in all, of both directions in turn or of protect alone.
func (r *mediaRelay) pour(t T, calls, rate int, both bool, length time.Duration) highRun {
	t.Helper()
	loads := []*mediaLoad{r.protect.some(calls)}
	if both {
		loads = append(loads, r.unprotect.some(calls))
	}
	pinProcess(t, r.process.Pid())
	packets := int(int64(rate) * int64(length) / int64(time.Second))
	var settle []func()
	for _, l := range loads {
		l.prepare(packets/len(loads) + 1)
		settle = append(settle, l.begin(t))
	}
	refused, cpu := r.refused(t), cpuOf(t, r.process.Pid())
	// It sets in as calls do, not all at once: before there is media the relay sleeps, and shares its core otherwise.
	stop := r.ring.run(min(rate, highFirst))
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		defer sharpTimer()()
		defer prefer(fillNice)()
		r.ring.fill(loads, packets)
	}()
	time.Sleep(highWarm)
	r.ring.pace(rate)
	early, warm, begun := r.ring.taken(), cpuOf(t, r.process.Pid()), time.Now()
	<-filled
	sent, took := int(r.ring.taken()-early), time.Since(begun)
	if err := stop(); err != nil {
		t.Fatalf("%v", err)
	}
	var h highRun
	for i, l := range loads {
		settle[i]()
		h.sent, h.received, h.wrong = h.sent+l.sent, h.received+int(l.received), h.wrong+int(l.wrong.Load())
	}
	h.refused = r.refused(t) - refused
	end := cpuOf(t, r.process.Pid())
	h.pps, h.us, h.busy = int(float64(sent)/took.Seconds()), float64(end-warm)/1000/float64(max(1, sent)), float64(end-warm)/float64(took)
	h.cpu = float64(end - cpu)
	return h
}

// prepare makes so many packets of a load that is sealed: to seal them takes as long as to send them.
func (l *mediaLoad) prepare(packets int) {
	if l.streams[0].seal == nil {
		return
	}
	var room [mediaFrame]byte
	for i := range packets {
		n := l.streams[i%len(l.streams)].write(l.out, room[:])
		if l.made == nil {
			l.length, l.made = n, make([]byte, packets*n)
		}
		copy(l.made[i*n:], room[:n])
	}
}

// fillNap is how long the filler sleeps before it looks for room again, a small part of what the ring lasts: to wake more often is taken off the core
// that has to send.
const fillNap = time.Millisecond

// fill makes so many packets, each stream's in turn, and returns when all have been sent.
func (r *frameRing) fill(loads []*mediaLoad, packets int) {
	next := make([]int, len(loads))
	for made := 0; made < packets || r.free() < ringSlots; {
		for n := min(r.free(), packets-made); n > 0; n-- {
			wire := made % len(loads)
			l := loads[wire]
			s := l.streams[next[wire]]
			if next[wire]++; next[wire] == len(l.streams) {
				next[wire] = 0
			}
			r.put(uint32(wire), func(frame []byte) int {
				end := frameHead - vnetLen
				if l.made != nil {
					end += copy(frame[end:], l.made[l.sent*l.length:][:l.length])
				} else {
					end += s.write(l.out, frame[end:])
				}
				l.out.completeChecked(frame[:end], s.to.Port())
				return end
			})
			l.sent++
			made++
			if made%mediaBatch == 0 {
				r.publish()
			}
		}
		r.publish()
		nap(fillNap)
	}
}

// The search for the highest rate.
const (
	highFirst = 50_000
	highMost  = 2_000_000
	highTime  = 2 * time.Second
	highWarm  = 500 * time.Millisecond
	highBusy  = 1.02 // parts of a core, of which two hundredths are how far readings of one rate are apart
	highSteps = 3    // halvings of what is between the last rate without loss and the first with it, a quarter
)

// highest raises the rate until packets are lost, then looks between. The first figure is the highest rate without loss, as it was really sent. A
// relay that needs more than a second of its core for a second's packets, by more than the readings differ, works off what its buffers hold when the generator has ended: that rate is
// too high for it. Of three runs at a rate two count, as medians do: the machine itself may stop a relay for longer than its buffers last. The second
// figure is what the relay's CPU time a packet at the highest rate would let it move with a whole core.
func (r *mediaRelay) highest(t T) (measured, possible int) {
	t.Helper()
	r.takesFrames(t, "on")
	defer r.takesFrames(t, "off")
	once := func(rate int) bool {
		h := r.pour(t, *benchMany, rate, false, highTime)
		t.Logf("%s at %d packets/s: %s", r.name, rate, h)
		if h.refused > 0 || h.pps < rate*98/100 {
			t.Logf("the generator gave out: the wire refused %d frames", h.refused)
			return false
		}
		if h.wrong > 0 {
			t.Errorf("%s at %d packets/s: %s", r.name, rate, h)
		}
		if h.received < h.sent || h.busy > highBusy {
			return false
		}
		measured, possible = h.pps, int(1e6/h.us)
		return true
	}
	passes := func(rate int) bool {
		if once(rate) {
			return true
		}
		for range 2 {
			if !once(rate) {
				return false
			}
		}
		return true
	}
	low, high := 0, highFirst
	for high < highMost && passes(high) {
		low, high = high, high*5/4
	}
	for range highSteps {
		if middle := (low + high) / 2; passes(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return measured, possible
}

// soak sends both directions of the calls at once, for long: of as many as are carried without a loss.
func (r *mediaRelay) soak(t T) *mediaSoak {
	t.Helper()
	r.takesFrames(t, "on")
	defer r.takesFrames(t, "off")
	for calls := *benchLong; ; calls = calls * 4 / 5 {
		h := r.pour(t, calls, 100*calls, true, *benchSoak)
		t.Logf("%s for %v with %d calls: %s", r.name, *benchSoak, calls, h)
		if h.wrong > 0 {
			t.Errorf("%s with %d calls: %s", r.name, calls, h)
		}
		if h.received == h.sent || calls < *benchCalls {
			return &mediaSoak{Seconds: benchSoak.Seconds(), Calls: calls, Packets: h.sent, Lost: h.sent - h.received, Core: h.cpu / float64(*benchSoak)}
		}
		if r.state != nil {
			t.Logf("%s:\n%s", r.name, r.state())
		}
	}
}
