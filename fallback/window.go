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
	roomSteps      = 192 // steps past the window's wait there for the next sample, which takes them off all at once
)

// stepOf gives the step of an instant. A step holds its end and not its beginning, so
// that the window of an instant at a step's end is exact.
func stepOf(at time.Duration) int64 { return int64((at - 1) / stepLength) }

// slotOf gives the place of a step.
func slotOf(step int64) int64 { return step % roomSteps }

// window counts numbers by the step of their turn. What a packet without loss touches
// comes first.
type window struct {
	until    time.Duration // end of the current step
	current  int64         // step of the latest instant
	tail     int64         // oldest step that has not been taken off; current - tail < roomSteps
	received uint32        // in the steps from tail on
	lost     uint32
	fresh    uint16 // received with their turn in the current step, whose cell is 0 until it ends

	lossy  [roomSteps / 64]uint64 // the slots whose losses hold
	cells  [roomSteps]uint16      // received
	losses *[roomSteps]losses     // nil until the first is pushed to a Stream's gaps
}

// losses of a step. They stop at the highest number, which only many holes of thousands within 50 ms reach.
type losses struct {
	lost    uint16
	longest uint16 // run
}

// clear makes the window one without numbers at an instant.
func (w *window) clear(at time.Duration) {
	w.current = stepOf(at)
	w.until = time.Duration(w.current+1) * stepLength
	w.tail = w.current
	w.received, w.lost, w.fresh = 0, 0, 0
	w.lossy = [len(w.lossy)]uint64{}
	w.cells = [roomSteps]uint16{}
}

// receive counts a number with its turn in the current step or one of the 200 ms before.
// A step that has more than a million packets a second bring takes no more.
func (w *window) receive(step int64) bool {
	cell := &w.fresh
	if step != w.current {
		cell = &w.cells[slotOf(step)]
	}
	if *cell == math.MaxUint16 {
		return false
	}
	*cell++
	w.received++
	return true
}

func (w *window) lose(step int64, lost, longest uint32) {
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

// move goes on to the step of an instant behind the current one's end.
func (w *window) move(at time.Duration, s *spread) {
	to := stepOf(at)
	if to-w.current >= windowSteps {
		w.clear(at)
		s.clear()
		return
	}
	w.cells[slotOf(w.current)] += w.fresh
	w.fresh = 0
	w.current, w.until = to, time.Duration(to+1)*stepLength
	if to-w.tail >= roomSteps {
		w.expire(s)
	}
}

// expire takes off what has left the window, with its entries of the spread.
func (w *window) expire(s *spread) {
	for ; w.tail <= w.current-windowSteps; w.tail++ {
		i := slotOf(w.tail)
		if n := uint32(w.cells[i]); n > 0 {
			w.cells[i] = 0
			w.received -= n
			s.expire(n)
		}
		if bit := uint64(1) << (i % 64); w.lossy[i/64]&bit != 0 {
			w.lossy[i/64] &^= bit
			w.lost -= uint32(w.losses[i].lost)
		}
	}
}

// judge goes through the steps with losses, for what only a window with losses has: the
// seconds with 5 % lost or more, and the longest run. Nothing waits to be taken off.
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
	if k == 0 {
		received = uint32(w.fresh)
	}
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
