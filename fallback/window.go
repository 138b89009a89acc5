package fallback

import "time"

const (
	windowLength   = 8 * time.Second
	stepLength     = 50 * time.Millisecond // the protocol file allows 100 ms
	windowSteps    = int64(windowLength / stepLength)
	stepsPerSecond = windowSteps / windowSeconds
	windowSeconds  = 8
)

// stepOf gives the step of an instant. A step holds its end and not its beginning, so
// that the window of an instant at a step's end is exact.
func stepOf(at time.Duration) int64 { return int64((at - 1) / stepLength) }

// window counts numbers by the step of their turn: received in the low half of a cell,
// lost in the high half, so that both move in one addition.
type window struct {
	current int64 // step of the latest instant
	total   uint64
	cells   [windowSteps]uint64
	runs    [windowSteps]uint16 // longest run of lost numbers with their turn in the step
}

const oneLost = 1 << 32

func split(cell uint64) (received, lost uint32) { return uint32(cell), uint32(cell >> 32) }

func (w *window) clear() {
	w.total = 0
	w.cells = [windowSteps]uint64{}
	w.runs = [windowSteps]uint16{}
}

// start sets the latest instant of an empty window.
func (w *window) start(at time.Duration) { w.current = stepOf(at) }

func (w *window) received(step int64) {
	w.cells[step%windowSteps]++
	w.total++
}

func (w *window) lose(step int64, lost, longest uint32) {
	i := step % windowSteps
	w.cells[i] += uint64(lost) * oneLost
	w.total += uint64(lost) * oneLost
	w.runs[i] = max(w.runs[i], uint16(longest))
}

// roll moves the window on and takes the entries of what has left it off the spread.
func (w *window) roll(at time.Duration, s *spread) {
	to := stepOf(at)
	if to-w.current >= windowSteps {
		w.clear()
		s.clear()
		w.current = to
		return
	}
	for w.current < to {
		w.current++
		i := w.current % windowSteps // where the step that leaves lies
		cell := w.cells[i]
		if cell == 0 {
			continue
		}
		w.total -= cell
		w.cells[i], w.runs[i] = 0, 0
		received, _ := split(cell)
		s.expire(received)
	}
}

// losses goes through the steps for what only a window with losses has: the seconds
// with 5 % lost or more, and the longest run.
func (w *window) losses() (events int, longest uint16) {
	i := w.current % windowSteps
	for range windowSeconds {
		var second uint64
		for range stepsPerSecond {
			second += w.cells[i]
			longest = max(longest, w.runs[i])
			if i--; i < 0 {
				i = windowSteps - 1
			}
		}
		if received, lost := split(second); lost > 0 && uint64(lost)*20 >= uint64(lost)+uint64(received) {
			events++
		}
	}
	return events, longest
}
