package fallback

import (
	"math"
	"testing"
	"time"
	"unsafe"
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

// What packets have only noted is counted in what is asked for at any moment, however many they are and whether samples come or not.
func TestCountedAtAnyMoment(t *testing.T) {
	for _, every := range []time.Duration{20 * time.Millisecond, time.Millisecond, 50 * time.Microsecond} {
		s := NewStream([]Format{{PayloadType: 0}}, 0)
		for i := range 100_000 {
			s.Packet(Packet{At: time.Duration(i) * every, SSRC: 1, Seq: uint16(i), Timestamp: uint32(i), PayloadLength: 160})
			if i < 300 || i%997 == 0 {
				if n := s.Totals().Packets; n != uint64(i+1) {
					t.Fatalf("%v: %d packets of %d", every, n, i+1)
				}
			}
			if i%20_000 == 0 {
				at := time.Duration(i) * every
				if f, want := s.Sample(at), min(windowLength/every, time.Duration(i+1)); f.Received != uint32(want) {
					t.Fatalf("%v: %d received at %v, want %d", every, f.Received, at, want)
				}
			}
		}
	}
}

// A step of 50 ms takes no more numbers than it has room for, and the packets beyond count as such.
func TestStepIsFull(t *testing.T) {
	s := NewStream([]Format{{PayloadType: 0}}, 0)
	const n = 2 * math.MaxUint16
	for i := range n {
		s.Packet(Packet{At: time.Second, SSRC: 1, Seq: uint16(i), Timestamp: uint32(i), PayloadLength: 160})
	}
	if f := s.Sample(time.Second); f.Received != math.MaxUint16 || f.Lost != 0 {
		t.Errorf("%+v", f)
	}
	if got := s.Totals().Packets; got != n {
		t.Errorf("%d packets", got)
	}
	s.Packet(Packet{At: 2 * time.Second, SSRC: 1, Seq: uint16(n % (1 << 16)), Timestamp: n, PayloadLength: 160})
	if f := s.Sample(2 * time.Second); f.Received != math.MaxUint16+1 {
		t.Errorf("a second later: %+v", f)
	}
}

// The cache lines that packets and samples are to touch are those that they are laid out for.
func TestLinesOfAStream(t *testing.T) {
	s := NewStream(nil, 0)
	if at := uintptr(unsafe.Pointer(&s.mu)); at%64 != 0 {
		t.Errorf("a stream's lines begin at %#x", at)
	}
	if n := uintptr(unsafe.Pointer(&s.spread.near)) - uintptr(unsafe.Pointer(&s.mu)); n != 128 {
		t.Errorf("packets need %d bytes", n)
	}
	if from, to := uintptr(unsafe.Pointer(&s.lastAlive)), uintptr(unsafe.Pointer(&s.win.cells)); from/64 != (to-1)/64 {
		t.Errorf("what samples need lies from %#x to %#x", from, to)
	}
	var m Monitor
	if n := unsafe.Offsetof(m.last) + unsafe.Offsetof(m.last.Figures) + unsafe.Offsetof(m.last.Figures.Burst); n > 64*MonitorLines {
		t.Errorf("samples need %d bytes of a monitor", n)
	}
}
