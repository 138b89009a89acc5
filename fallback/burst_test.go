package fallback

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// appendixA2 is the algorithm of RFC 3611 appendix A.2, as it stands there, over all numbers of a stream.
func appendixA2(lost []bool, m time.Duration) (b Bursts) {
	var c11, c13, c14, c22, c23, c33, pkt, run float64
	for _, gone := range lost {
		if !gone {
			pkt++
			continue
		}
		if pkt >= 16 {
			if run == 1 {
				c14++
			} else {
				c13++
			}
			run, c11 = 1, c11+pkt
		} else {
			run++
			if pkt == 0 {
				c33++
			} else {
				c23++
				c22 += pkt - 1
			}
		}
		pkt = 0
	}
	c11 += pkt
	c31, c32 := c13, c23
	total := c11 + c14 + c13 + c22 + c23 + c31 + c32 + c33
	p32, p23 := 0.0, 1.0
	if c32 > 0 {
		p32 = c32 / (c31 + c32 + c33)
	}
	if c22+c23 >= 1 {
		p23 = 1 - c22/(c22+c23)
	}
	b.GapDensity = c14 / (c11 + c14)
	if c13 == 0 {
		b.GapLength = time.Duration((c11 + c14) * float64(m))
		return b
	}
	b.Density = p23 / (p23 + p32)
	b.GapLength = time.Duration((c11 + c14 + c13) * float64(m) / c13)
	b.Length = time.Duration(total*float64(m)/c13) - b.GapLength
	return b
}

// The burst metrics are those of the RFC's algorithm, whatever was lost, also when packets come late and when far more is lost than can
// still come.
func TestBurstsAgainstTheRFC(t *testing.T) {
	seen := 0
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		s := NewStream([]Format{{PayloadType: 0}}, 0)
		lost := make([]bool, 4000)
		gone := 0
		for i := 1; i < len(lost)-20; i++ {
			if gone == 0 && rnd.Float64() < 0.004 {
				gone = 1 + rnd.IntN([]int{3, 40, 300}[rnd.IntN(3)])
			}
			lost[i] = gone > 0 || rnd.Float64() < 0.01*float64(seed%4)
			gone = max(0, gone-1)
		}
		var swapped *Packet // the next one comes first
		for i, gone := range lost {
			p := Packet{At: time.Duration(i) * 20 * time.Millisecond, SSRC: 1, Seq: uint16(i + 65000), Timestamp: 160 * uint32(i), PayloadLength: 160}
			if gone {
				continue
			}
			if swapped == nil && i > 0 && i+1 < len(lost) && !lost[i+1] && rnd.IntN(30) == 0 {
				swapped = &p
				continue
			}
			s.Packet(p)
			if swapped != nil {
				swapped.At = p.At
				s.Packet(*swapped)
				swapped = nil
			}
		}
		s.Sample(time.Duration(len(lost)+20) * 20 * time.Millisecond)
		got, want := s.Bursts(), appendixA2(lost, 20*time.Millisecond)
		if math.Abs(got.Density-want.Density) > 1e-9 || math.Abs(got.GapDensity-want.GapDensity) > 1e-9 || (got.Length-want.Length).Abs() > time.Microsecond ||
			(got.GapLength-want.GapLength).Abs() > time.Microsecond {
			t.Errorf("seed %d: got %+v, want %+v", seed, got, want)
		}
		if want.Length > 0 {
			seen++
		}
		n := 0
		for _, gone := range lost {
			if gone {
				n++
			}
		}
		if ratio := float64(n) / float64(len(lost)); math.Abs(s.LossRatio()-ratio) > 1e-9 {
			t.Errorf("seed %d: loss %v, want %v", seed, s.LossRatio(), ratio)
		}
	}
	if seen < 30 {
		t.Errorf("%d streams had bursts", seen)
	}
}
