package fallback

import "time"

// burstGap is Gmin of RFC 3611 section 4.7.2: so many numbers received in a row end a burst.
const burstGap = 16

// Bursts tell how the losses of a stream since its beginning lie (RFC 3611 section 4.7.2). What was late counts as lost.
type Bursts struct {
	Density, GapDensity float64       // 0 to 1: the share lost in bursts and outside of them
	Length, GapLength   time.Duration // mean; without burst the gap is all that there was
}

// lossRuns counts the losses by how far they lie apart: the states and transitions of RFC 3611 appendix A.2.
type lossRuns struct {
	next               uint32 // the number after the last lost one, or the window's first
	run                uint32 // lost since the last gap
	c11, c13, c14      uint64
	c22, c23, c33, all uint64
}

// lose counts some numbers in a row from n on as lost; they come in order.
func (r *lossRuns) lose(n, count uint32) {
	if count == 0 {
		return
	}
	if received := n - r.next; received >= burstGap {
		if r.run == 1 {
			r.c14++
		} else {
			r.c13++
		}
		r.run = 1
		r.c11 += uint64(received)
	} else {
		r.run++
		if received == 0 {
			r.c33++
		} else {
			r.c23++
			r.c22 += uint64(received - 1)
		}
	}
	r.run += count - 1
	r.c33 += uint64(count - 1)
	r.all += uint64(count)
	r.next = n + count
}

// of works the metrics out; highest is the highest number that was received, each lasting so long.
func (r lossRuns) of(highest uint32, each time.Duration) (b Bursts) {
	if tail := highest + 1 - r.next; int32(tail) > 0 {
		r.c11 += uint64(tail) // received since the last loss, which the appendix counts at the next one
	}
	if r.c11+r.c14 > 0 {
		b.GapDensity = float64(r.c14) / float64(r.c11+r.c14)
	}
	c31, c32 := r.c13, r.c23
	b.GapLength = time.Duration(r.c11+r.c14+r.c13) * each
	if r.c13 == 0 {
		return b
	}
	p32, p23 := 0.0, 1.0
	if c32 > 0 {
		p32 = float64(c32) / float64(c31+c32+r.c33)
	}
	if r.c22+r.c23 > 0 {
		p23 = 1 - float64(r.c22)/float64(r.c22+r.c23)
	}
	b.Density = p23 / (p23 + p32)
	total := r.c11 + r.c14 + r.c13 + r.c22 + r.c23 + c31 + c32 + r.c33
	b.GapLength = time.Duration(r.c11+r.c14+r.c13) * each / time.Duration(r.c13)
	b.Length = time.Duration(total)*each/time.Duration(r.c13) - b.GapLength
	return b
}

// Bursts returns how the losses lie that have been counted so far.
func (s *Stream) Bursts() Bursts {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally()
	return s.gaps.runs.of(s.highest, s.packetTime())
}

// LossRatio is the share of the numbers that were lost since the stream began, 0 to 1.
func (s *Stream) LossRatio() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost, came := s.lost, s.came()-s.totals.Duplicates-s.totals.Late
	if lost == 0 {
		return 0
	}
	return float64(lost) / float64(lost+came)
}
