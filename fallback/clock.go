package fallback

import "time"

// maxDrift in bins is more than a day, which only a wrong clock rate makes.
const maxDrift = 1 << 30

// transitClock turns arrivals and timestamps into transits, in microseconds relative to
// its first packet.
type transitClock struct {
	hz    uint32 // 0: no packet yet
	ts    uint32
	base  time.Duration
	ticks int64 // from the first packet's timestamp to ts
	last  int64
}

// transit returns the bin of a packet's transit. afresh tells that it cannot be compared
// with those before: another clock rate, a jump of 4 s or more, or maxDrift.
func (c *transitClock) transit(at time.Duration, ts, hz uint32) (bin int64, afresh bool) {
	if hz != c.hz {
		afresh = c.hz != 0
		c.start(at, ts, hz)
		return 0, afresh
	}
	c.ticks += int64(int32(ts - c.ts))
	c.ts = ts
	us := int64(at-c.base)/1000 - c.ticks*1e6/int64(hz)
	step := us - c.last
	c.last = us
	bin = us / binWidth
	if us < 0 {
		bin = (us - binWidth + 1) / binWidth
	}
	if step >= clockJump || step <= -clockJump || bin > maxDrift || bin < -maxDrift {
		c.start(at, ts, hz)
		return 0, true
	}
	return bin, false
}

func (c *transitClock) start(at time.Duration, ts, hz uint32) {
	*c = transitClock{hz: hz, ts: ts, base: at}
}
