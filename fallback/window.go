package fallback

import (
	"math"
	"math/bits"
	"time"
)

const (
	windowLength   = 8 * time.Second
	stepLength     = 50 * time.Millisecond // the protocol file allows 100 ms
	windowSteps    = int64(windowLength / stepLength)
	stepsPerSecond = windowSteps / windowSeconds
	windowSeconds  = 8
	youngSteps     = 3               // enough for the interval between two samples that is usual
	roomSteps      = windowSteps + 8 // steps past the window's wait there for the next sample, which takes them off all at once
)

// stepOf gives the step of an instant. A step holds its end and not its beginning, so
// that the window of an instant at a step's end is exact.
func stepOf(at time.Duration) int64 { return int64((at - 1) / stepLength) }

// slotOf gives the place of a step.
func slotOf(step int64) int64 { return step % roomSteps }

// young counts the numbers that packets brought with their turn since the window took them last. It is all that a packet in sequence needs of
// the window, and lies beside the rest of what it needs.
type young struct {
	step     uint8             // of the latest instant, after window.current
	received [youngSteps]uint8 // by step
}

// window counts numbers by the step of their turn. What a sample without losses needs of it comes first.
type window struct {
	current  int64  // step of the latest instant when young was taken last
	tail     int64  // oldest step that has not been taken off; current + youngSteps - tail <= roomSteps
	received uint32 // in the steps from tail on
	lost     uint32

	cells  [roomSteps]uint16             // received
	lossy  [(roomSteps + 63) / 64]uint64 // the slots whose losses hold
	losses *[roomSteps]losses            // nil until the first is pushed to a Stream's gaps
}

// losses of a step. They stop at the highest number, which only many holes of thousands within 50 ms reach.
type losses struct {
	lost    uint16
	longest uint16 // run
}

// clear makes the window one without numbers at an instant.
func (w *window) clear(at time.Duration) {
	w.current = stepOf(at)
	w.tail = w.current
	w.received, w.lost = 0, 0
	w.lossy = [len(w.lossy)]uint64{}
	w.cells = [roomSteps]uint16{}
}

// take adds what packets brought, and goes on to their latest step.
func (w *window) take(y *young) {
	i := slotOf(w.current)
	for k, n := range y.received[:y.step+1] {
		if n > 0 {
			w.cells[i] += uint16(n)
			w.received += uint32(n)
			y.received[k] = 0
		}
		if i++; i == roomSteps {
			i = 0
		}
	}
	w.current += int64(y.step)
	y.step = 0
}

// receive counts a number with its turn in the current step or one of the 200 ms before.
// A step that has more than a million packets a second bring takes no more.
func (w *window) receive(step int64) bool {
	cell := &w.cells[slotOf(step)]
	if *cell == math.MaxUint16 {
		return false
	}
	*cell++
	w.received++
	return true
}

// crowded tells that the current step might not have room for what a young one counts.
func (w *window) crowded() bool { return w.cells[slotOf(w.current)] > math.MaxUint16-math.MaxUint8 }

func (w *window) lose(step int64, lost, longest uint32) {
	if lost == 0 {
		return
	}
	i := slotOf(step)
	l, bit := &w.losses[i], uint64(1)<<(i%64)
	if w.lossy[i/64]&bit == 0 {
		w.lossy[i/64] |= bit
		*l = losses{}
	}
	lost = min(lost, math.MaxUint16-uint32(l.lost))
	l.lost += uint16(lost)
	l.longest = max(l.longest, uint16(longest))
	w.lost += lost
}

// expire takes off what has left the window, with its entries of the spread, none of which waits to be counted.
func (w *window) expire(s *spread) {
	gone := uint32(0)
	for ; w.tail <= w.current-windowSteps; w.tail++ {
		i := slotOf(w.tail)
		gone += uint32(w.cells[i])
		w.cells[i] = 0
		if w.lost == 0 {
			continue
		}
		if bit := uint64(1) << (i % 64); w.lossy[i/64]&bit != 0 {
			w.lossy[i/64] &^= bit
			w.lost -= uint32(w.losses[i].lost)
		}
	}
	if gone > 0 {
		w.received -= gone
		s.expire(gone)
	}
}

// judge goes through the steps with losses, for what only a window with losses has: the
// seconds with 5 % lost or more, and the longest run. Nothing waits to be taken on or off.
func (w *window) judge() (events int, longest uint16) {
	var lost [windowSeconds]uint32
	now := slotOf(w.current)
	for k, word := range w.lossy {
		for ; word != 0; word &= word - 1 {
			i := int64(64*k + bits.TrailingZeros64(word))
			age := now - i
			if age < 0 {
				age += roomSteps
			}
			lost[age/stepsPerSecond] += uint32(w.losses[i].lost)
			longest = max(longest, w.losses[i].longest)
		}
	}
	for k, n := range lost {
		if n > 0 && !w.more(int64(k), 19*n) {
			events++
		}
	}
	return events, longest
}

// more tells whether the window's second k has received more numbers than some.
func (w *window) more(k int64, than uint32) bool {
	received := uint32(0)
	i := slotOf(w.current - k*stepsPerSecond + roomSteps)
	for range stepsPerSecond {
		if received += uint32(w.cells[i]); received > than {
			return true
		}
		if i--; i < 0 {
			i = roomSteps - 1
		}
	}
	return false
}
