package fallback

import "time"

// maxGaps bounds the holes that wait for their late packets at one time.
const maxGaps = 32

// gap is a hole in the numbering. All its numbers have one turn, the arrival of the
// packet that came after it.
type gap struct {
	turn    time.Duration
	next    uint32 // numbers below have been judged
	end     uint32
	run     uint16 // of missing numbers up to next
	longest uint16
	lost    uint16
	gone    uint16 // of lost: at the beginning, from the outset
}

// judge looks at the numbers up to a limit, which no packet can bring any more.
func (g *gap) judge(limit, highest uint32, got *[2]uint64, runs *lossRuns) {
	if g.gone > 0 {
		runs.lose(g.next-uint32(g.gone), uint32(g.gone))
		g.gone = 0
	}
	for ; g.next != limit; g.next++ {
		if back := highest - g.next; got[back>>6]>>(back&63)&1 == 1 {
			g.run = 0
			continue
		}
		runs.lose(g.next, 1)
		g.lost++
		g.run++
		g.longest = max(g.longest, g.run)
	}
}

// gapQueue holds the holes of the last 200 ms, oldest first.
type gapQueue struct {
	list  *[maxGaps]gap // nil until the first is pushed
	first uint8
	n     uint8
	runs  lossRuns
}

func (q *gapQueue) at(i uint8) *gap { return &q.list[(q.first+i)%maxGaps] }

func (q *gapQueue) oldest() *gap { return q.at(0) }

// push adds the hole [from, end). Numbers that lie too far behind end to be anything but
// odd when they come are missing from the outset.
func (q *gapQueue) push(turn time.Duration, from, end uint32) {
	g := q.at(q.n)
	*g = gap{turn: turn, next: from, end: end}
	q.n++
	if length := end - from; length > maxMisorder-1 {
		gone := uint16(length - (maxMisorder - 1))
		g.next += uint32(gone)
		g.run, g.longest, g.lost, g.gone = gone, gone, gone, gone
	}
}

// retire judges the numbers that a new highest number puts out of reach, before the
// bits that remember them are shifted away.
func (q *gapQueue) retire(highest, to uint32, got *[2]uint64) {
	reach := to - (maxMisorder - 1) // the lowest number that is not odd then
	for i := range q.n {
		g := q.at(i)
		if int32(reach-g.next) <= 0 {
			if g.next != g.end {
				return
			}
			continue
		}
		limit := g.end
		if int32(reach-g.end) < 0 {
			limit = reach
		}
		g.judge(limit, highest, got, &q.runs)
	}
}

// turn finds the hole that a number would fill.
func (q *gapQueue) turn(n uint32) (time.Duration, bool) {
	for i := q.n; i > 0; i-- {
		if g := q.at(i - 1); int32(n-g.next) >= 0 && int32(n-g.end) < 0 {
			return g.turn, true
		}
	}
	return 0, false
}

// pop judges the oldest hole to its end and takes it off.
func (q *gapQueue) pop(highest uint32, got *[2]uint64) (turn time.Duration, lost, longest uint32) {
	g := q.oldest()
	g.judge(g.end, highest, got, &q.runs)
	q.first = (q.first + 1) % maxGaps
	q.n--
	return g.turn, uint32(g.lost), uint32(g.longest)
}
