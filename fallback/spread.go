package fallback

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	binWidth    = 125 // microseconds; the protocol file allows 1 ms
	noTransit   = math.MinInt32
	maxBin      = 1 << 30
	minRing     = 512  // 8 s of 20 ms packets, with a margin
	maxRing     = 4096 // 8 s of 512 packets a second
	walkRanking = 3    // neighbours to walk to before ranking all anew
)

// ringFor chooses the first size of a stream's ring.
func ringFor(ptime time.Duration) int {
	size := minRing
	for size < maxRing && ptime > 0 && time.Duration(size)*ptime < windowLength+windowLength/8 {
		size *= 2
	}
	return size
}

// spread has an entry for each received number in the window, oldest turn first, and
// follows two things through them: the rank that pdv asks for and the packet time.
type spread struct {
	transits []int32  // bins; noTransit: no part of pdv
	steps    []uint32 // microseconds from this number's timestamp to its successor's; 0: none
	head     int      // the oldest entry
	n        int
	dropped  uint32 // numbers in the window that the ring had no room for, all older

	valid       int   // entries that are part of pdv
	lowest      int32 // of them; holds while lowestCount > 0
	lowestCount int
	ranked      bool // rank, below and equal hold
	rank        int32
	below       int // entries lower than rank
	equal       int

	links       int    // entries with a step
	common      uint32 // a step
	commonCount int    // entries that have it

	ticks, hz, us uint32 // the last step computed
}

func (s *spread) init(size int) {
	s.transits, s.steps = make([]int32, size), make([]uint32, size)
}

func (s *spread) clear() {
	s.head, s.n, s.dropped = 0, 0, 0
	s.links, s.common, s.commonCount = 0, 0, 0
	s.forgetRank()
}

func (s *spread) forgetRank() {
	s.valid, s.lowestCount, s.ranked = 0, 0, false
}

// index of the entry that has so many newer ones.
func (s *spread) index(newer int) int { return (s.head + s.n - 1 - newer) & (len(s.transits) - 1) }

func (s *spread) append(bin int32) {
	if s.n == len(s.transits) {
		s.drop()
	}
	s.n++
	i := s.index(0)
	s.transits[i], s.steps[i] = bin, 0
	s.count(bin)
}

// insert puts an entry before so many newer ones, fewer than maxMisorder.
func (s *spread) insert(newer int, bin int32) {
	if s.n == len(s.transits) {
		s.drop()
	}
	s.n++
	for k := range newer {
		to, from := s.index(k), s.index(k+1)
		s.transits[to], s.steps[to] = s.transits[from], s.steps[from]
	}
	i := s.index(newer)
	s.transits[i], s.steps[i] = bin, 0
	s.count(bin)
}

// link notes the timestamp step from an entry to its successor.
func (s *spread) link(newer int, ticks, hz uint32) {
	if ticks == 0 || newer >= s.n {
		return
	}
	if ticks != s.ticks || hz != s.hz {
		us := (uint64(ticks)*1e6 + uint64(hz)/2) / uint64(hz)
		s.ticks, s.hz, s.us = ticks, hz, uint32(min(us, math.MaxUint32))
	}
	s.steps[s.index(newer)] = s.us
	if s.links++; s.links == 1 {
		s.common, s.commonCount = s.us, 0
	}
	if s.us == s.common {
		s.commonCount++
	}
}

// expire takes off the entries of the oldest numbers.
func (s *spread) expire(numbers uint32) {
	gone := min(numbers, s.dropped)
	s.dropped -= gone
	for range numbers - gone {
		s.pop()
	}
}

func (s *spread) drop() {
	s.pop()
	s.dropped++
}

func (s *spread) pop() {
	if bin := s.transits[s.head]; bin != noTransit {
		s.uncount(bin)
	}
	if step := s.steps[s.head]; step != 0 {
		s.links--
		if step == s.common {
			s.commonCount--
		}
	}
	s.head = (s.head + 1) & (len(s.transits) - 1)
	s.n--
}

// forget takes all entries out of pdv. They are among the newest, so that the walk
// visits each entry about once in its life.
func (s *spread) forget() {
	for k := 0; s.valid > 0 && k < s.n; k++ {
		if i := s.index(k); s.transits[i] != noTransit {
			s.transits[i] = noTransit
			s.valid--
		}
	}
	s.forgetRank()
}

func (s *spread) count(bin int32) {
	if bin == noTransit {
		return
	}
	if s.valid++; s.valid == 1 || s.lowestCount > 0 && bin < s.lowest {
		s.lowest, s.lowestCount = bin, 0
	}
	if bin == s.lowest && (s.lowestCount > 0 || s.valid == 1) {
		s.lowestCount++
	} else if bin == s.lowest {
		s.lowestCount = 0
	}
	if s.ranked {
		if bin < s.rank {
			s.below++
		} else if bin == s.rank {
			s.equal++
		}
	}
}

func (s *spread) uncount(bin int32) {
	s.valid--
	if s.lowestCount > 0 && bin == s.lowest {
		s.lowestCount--
	}
	if s.ranked {
		if bin < s.rank {
			s.below--
		} else if bin == s.rank {
			s.equal--
		}
	}
}

// parts are the entries in one piece or two.
func (s *spread) parts() [2][]int32 {
	end := s.head + s.n
	if end <= len(s.transits) {
		return [2][]int32{s.transits[s.head:end]}
	}
	return [2][]int32{s.transits[s.head:], s.transits[:end-len(s.transits)]}
}

// pdv is the nearest rank, place ceil(0.95 n), less the lowest transit.
func (s *spread) pdv() time.Duration {
	if s.valid <= 1 {
		return 0
	}
	if s.lowestCount == 0 {
		s.findLowest()
	}
	place := (19*s.valid + 19) / 20
	for range walkRanking {
		switch {
		case !s.ranked:
		case s.below >= place:
			s.down()
			continue
		case s.below+s.equal < place:
			s.up()
			continue
		}
		break
	}
	if !s.ranked || s.below >= place || s.below+s.equal < place {
		s.rankAll(place)
	}
	return time.Duration(int64(s.rank)-int64(s.lowest)) * binWidth * time.Microsecond
}

func (s *spread) findLowest() {
	low, count := int32(math.MaxInt32), 0
	for _, part := range s.parts() {
		for _, bin := range part {
			switch {
			case bin == low:
				count++
			case bin < low && bin != noTransit:
				low, count = bin, 1
			}
		}
	}
	s.lowest, s.lowestCount = low, count
}

// down moves the rank to the next lower bin that has entries.
func (s *spread) down() {
	best, count := int32(noTransit), 0
	for _, part := range s.parts() {
		for _, bin := range part {
			if bin >= s.rank || bin < best {
				continue
			}
			if bin > best {
				best, count = bin, 0
			}
			count++
		}
	}
	s.rank, s.equal = best, count
	s.below -= count
}

// up moves the rank to the next higher bin that has entries.
func (s *spread) up() {
	best, count := int32(math.MaxInt32), 0
	for _, part := range s.parts() {
		for _, bin := range part {
			if bin <= s.rank || bin > best {
				continue
			}
			if bin < best {
				best, count = bin, 0
			}
			count++
		}
	}
	s.below += s.equal
	s.rank, s.equal = best, count
}

// sortRoom lends the memory of the rare samples that sort.
var sortRoom = sync.Pool{New: func() any { return new([maxRing]int32) }}

// rankAll finds the entry at a place (from 1) without help of what was known.
func (s *spread) rankAll(place int) {
	room := sortRoom.Get().(*[maxRing]int32)
	defer sortRoom.Put(room)
	sorted := room[:0]
	for _, part := range s.parts() {
		for _, bin := range part {
			if bin != noTransit {
				sorted = append(sorted, bin)
			}
		}
	}
	slices.Sort(sorted)
	s.ranked, s.rank = true, sorted[place-1]
	s.below, _ = slices.BinarySearch(sorted, s.rank)
	above, _ := slices.BinarySearch(sorted, s.rank+1)
	s.equal = above - s.below
}

// packetTime is the most frequent step, the smallest on a tie, 0 where there is none. A
// step that most entries have is known without counting.
func (s *spread) packetTime() time.Duration {
	if s.links > 0 && 2*s.commonCount <= s.links {
		s.findCommon()
	}
	if s.links == 0 {
		return 0
	}
	return time.Duration(s.common) * time.Microsecond
}

func (s *spread) findCommon() {
	room := sortRoom.Get().(*[maxRing]int32)
	defer sortRoom.Put(room)
	sorted := room[:0]
	for k := range s.n {
		if step := s.steps[s.index(k)]; step != 0 {
			sorted = append(sorted, int32(step^1<<31)) // keeps the order of uint32
		}
	}
	slices.Sort(sorted)
	s.commonCount = 0
	for i := 0; i < len(sorted); {
		from := i
		for i < len(sorted) && sorted[i] == sorted[from] {
			i++
		}
		if i-from > s.commonCount {
			s.common, s.commonCount = uint32(sorted[from])^1<<31, i-from
		}
	}
}

// nearlyFull tells that the ring should grow before the next sample.
func (s *spread) nearlyFull() bool {
	return s.n+s.n/8 >= len(s.transits) && len(s.transits) < maxRing
}

// grow doubles the ring.
func (s *spread) grow() {
	bigger := spread{}
	bigger.init(2 * len(s.transits))
	for k := range s.n {
		i := (s.head + k) & (len(s.transits) - 1)
		bigger.transits[k], bigger.steps[k] = s.transits[i], s.steps[i]
	}
	s.transits, s.steps, s.head = bigger.transits, bigger.steps, 0
}

// transitClock turns arrivals and timestamps into transits, in microseconds relative to
// its first packet.
type transitClock struct {
	running bool
	hz      uint32
	ts      uint32
	base    time.Duration
	ticks   int64 // from the first packet's timestamp to ts
	last    int64
}

// transit returns the bin of a packet's transit. afresh tells that it cannot be compared
// with those before: another clock rate, or a jump of 4 s or more. (So does a drift of
// more than a day, which only a wrong clock rate makes.)
func (c *transitClock) transit(at time.Duration, ts, hz uint32) (bin int32, afresh bool) {
	if !c.running || hz != c.hz {
		afresh = c.running
		c.start(at, ts, hz)
		return 0, afresh
	}
	c.ticks += int64(int32(ts - c.ts))
	c.ts = ts
	us := int64(at-c.base)/1000 - c.ticks*1e6/int64(hz)
	step := us - c.last
	c.last = us
	wide := us / binWidth
	if us < 0 {
		wide = (us - binWidth + 1) / binWidth
	}
	if step >= clockJump || step <= -clockJump || wide > maxBin || wide < -maxBin {
		c.start(at, ts, hz)
		return 0, true
	}
	return int32(wide), false
}

func (c *transitClock) start(at time.Duration, ts, hz uint32) {
	*c = transitClock{running: true, hz: hz, ts: ts, base: at}
}
