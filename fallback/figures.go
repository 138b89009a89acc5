package fallback

import (
	"fmt"
	"time"
)

// Figures of one stream at one sample.
//
// What differs from one sample to the next of a stream without loss comes first, see Monitor.
type Figures struct {
	PDV      time.Duration
	MOS      float64 // 1 to 4.41
	Received uint32
	Lost     uint32 // numbers in the window
	SSRC     uint32
	Measured bool // false: nothing to judge, all figures zero and no MOS
	Dead     bool // no packet for 2 s: loss 100, burst the silence so far, MOS 1.0
	Held     bool // on hold: no sample

	Burst  time.Duration // longest run of lost numbers
	Events int           // seconds of the window that lost 5 % or more, 0 to 8
	// PacketTime is what Burst is counted with; 0 in a window without loss.
	PacketTime time.Duration
}

// Loss in percent.
func (f *Figures) Loss() float64 {
	if f.Dead {
		return 100
	}
	if f.Lost == 0 {
		return 0
	}
	return 100 * float64(f.Lost) / (float64(f.Lost) + float64(f.Received))
}

// lossExceeds compares in whole numbers; limit is in thousandths of a percent.
func (f *Figures) lossExceeds(limit int) bool {
	if f.Dead {
		return limit < 100_000
	}
	return uint64(f.Lost)*100_000 > uint64(limit)*(uint64(f.Lost)+uint64(f.Received))
}

// hundredths of a percent lost, half up.
func (f *Figures) hundredths() uint64 {
	if f.Dead {
		return 100_00
	}
	all := uint64(f.Lost) + uint64(f.Received)
	if all == 0 {
		return 0
	}
	return (2*uint64(f.Lost)*100_00 + all) / (2 * all)
}

// Quality writes the value of X-Cisco-UC-IME-Quality.
func (f *Figures) Quality(l Level) string {
	loss := f.hundredths()
	pdv := (f.PDV + 50*time.Microsecond) / (100 * time.Microsecond)
	mos := ""
	if f.Measured {
		tenths := int(f.MOS*10 + 0.5)
		mos = fmt.Sprintf(";mos=%d.%d", tenths/10, tenths%10)
	}
	return fmt.Sprintf("level=%d;loss=%d.%02d;burst=%d;pdv=%d.%d;events=%d%s;ssrc=%08x", int(l), loss/100, loss%100,
		(f.Burst+time.Millisecond/2)/time.Millisecond, pdv/10, pdv%10, f.Events, mos, f.SSRC)
}

// worse orders streams of one sample, see the package's choices.
func (f *Figures) worse(g *Figures) bool {
	switch {
	case f.Measured != g.Measured:
		return f.Measured
	case f.MOS != g.MOS:
		return f.MOS < g.MOS
	case f.Loss() != g.Loss():
		return f.Loss() > g.Loss()
	case f.Burst != g.Burst:
		return f.Burst > g.Burst
	}
	return f.PDV > g.PDV
}

// Sample returns the figures at an instant. On hold there are none.
func (s *Stream) Sample(at time.Duration) (f Figures) {
	s.mu.Lock()
	s.sample(at, &f)
	s.mu.Unlock()
	return f
}

// sampleMore also tells whether the stream is on hold or was since the last time, so that
// a hold between two samples is not overlooked, and how many numbers are lost. f is zero.
func (s *Stream) sampleMore(at time.Duration, f *Figures) (stopped bool, lost uint64) {
	s.mu.Lock()
	s.sample(at, f)
	stopped, lost = s.hold != flowing, s.lost
	if stopped {
		s.knowHold()
	}
	s.mu.Unlock()
	return stopped, lost
}

// overlook has the next sample tell of no hold that began before.
func (s *Stream) overlook() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knowHold()
}

func (s *Stream) knowHold() {
	switch s.hold {
	case lifted:
		s.hold = flowing
	case held:
		s.hold = heldKnown
	}
}

func (s *Stream) sample(at time.Duration, f *Figures) {
	s.pass(at)
	f.SSRC = s.ssrc
	if s.hold >= held {
		f.Held = true
		return
	}
	if s.begun {
		s.advance()
		s.tally()
		s.win.expire(&s.spread)
		s.windowFigures(f)
		if s.spread.nearlyFull() {
			s.spread.grow()
		}
		s.makeRoom()
	}
	if silence := s.now - s.lastAlive; silence >= silentAfter && !s.quiet && s.lastAlive != never {
		f.Measured, f.Dead, f.Burst, f.MOS = true, true, silence, 1
	}
}

func (s *Stream) windowFigures(f *Figures) {
	f.Received, f.Lost = s.win.received, s.win.lost
	f.PDV = s.spread.pdv()
	switch {
	case f.Lost > 0:
		var longest uint16
		f.Events, longest = s.win.judge()
		f.PacketTime = s.packetTime()
		f.Burst = time.Duration(longest) * f.PacketTime
		f.MOS = s.codec.mos(f.Loss())
	case f.Received > 0:
		f.MOS = intact[s.codec]
	default:
		return
	}
	f.Measured = true
}

func (s *Stream) packetTime() time.Duration {
	if t := s.spread.packetTime(); t > 0 {
		return t
	}
	if s.ptime > 0 {
		return s.ptime
	}
	return defaultPtime
}

// PacketTime is that of what the window has received, else that of a=ptime, else 20 ms.
func (s *Stream) PacketTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally()
	return s.packetTime()
}

// Totals returns what the stream has counted.
func (s *Stream) Totals() Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.totals
	t.Packets, t.Lost = s.came(), s.lost
	return t
}

// Side is what one description says of a stream.
type Side struct {
	Direction   string // "sendrecv", "sendonly", "recvonly" or "inactive", as its author sees it
	Unspecified bool   // c=0.0.0.0 or ::
	Port        int
}

// OnHold tells whether the descriptions in force keep the far side from sending: far is
// the Internet's, near the call agent's.
func OnHold(far, near Side) bool {
	switch far.Direction {
	case "inactive", "recvonly":
		return true
	}
	switch near.Direction {
	case "inactive", "sendonly":
		return true
	}
	return near.Unspecified || near.Port == 0
}
