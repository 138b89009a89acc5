package fallback

import (
	"testing"
	"time"
)

// Transits that drift for days by a clock that runs too fast, which no 32 bits hold, keep their spread: 8 s of a drift of 5 s a second.
func TestDriftForHours(t *testing.T) {
	s := NewStream([]Format{{PayloadType: 0}}, 0)
	p := Packet{SSRC: 1, PayloadLength: 160}
	for i := range 8 * 3600 * 50 {
		p.At = time.Duration(i+1) * 20 * time.Millisecond
		p.Seq, p.Timestamp = uint16(i), uint32(160*6*i) // 48 kHz where 8 kHz are told
		s.Packet(p)
		if i%5000 == 4999 {
			// 400 numbers: the 380th lowest is 379 steps of 100 ms above the lowest.
			if f := s.Sample(p.At); f.PDV != 37900*time.Millisecond {
				t.Fatalf("after %v: pdv %v", p.At, f.PDV)
			}
		}
	}
	if n := s.Totals().PDVResets; n != 1 { // after a day's drift
		t.Errorf("pdv began afresh %d times", n)
	}
}

// Packets that nobody samples for longer than the window, more of them than the ring holds, leave the figures of the last 8 s.
func TestLateSample(t *testing.T) {
	for _, every := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond} {
		s := NewStream([]Format{{PayloadType: 0}}, 0)
		for i := range int(time.Minute / every) {
			if i%10 != 3 {
				s.Packet(Packet{At: time.Duration(i+1) * every, SSRC: 1, Seq: uint16(i), Timestamp: uint32(i) * uint32(every/time.Millisecond) * 8, PayloadLength: 160})
			}
		}
		f := s.Sample(time.Minute)
		all, undecided := uint32(8*time.Second/every), uint32(200*time.Millisecond/every)/10
		if f.Received != all*9/10 || f.Lost != all/10-undecided || f.PacketTime != every {
			t.Errorf("%v: %+v", every, f)
		}
	}
}

// More packet times in a window than there is room for do not hide the one that most packets have.
func TestManyPacketTimes(t *testing.T) {
	s := NewStream([]Format{{PayloadType: 0}}, 0)
	p := Packet{SSRC: 1, PayloadLength: 160}
	for i := range 2000 {
		p.At += 20 * time.Millisecond
		p.Seq++
		p.Timestamp += 160
		if i%2 == 1 && i < 1500 {
			p.Timestamp += uint32(8 * i)
		}
		if i%50 == 7 {
			continue
		}
		s.Packet(p)
		if i%5 == 4 && i > 50 {
			if f := s.Sample(p.At); f.PacketTime != 20*time.Millisecond && f.Lost > 0 {
				t.Fatalf("packet %d: packet time %v", i, f.PacketTime)
			}
		}
	}
	if used := s.spread.used; used != maxSteps {
		t.Errorf("%d steps used", used)
	}
}
