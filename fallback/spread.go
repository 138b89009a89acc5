package fallback

import (
	"math"
	"time"
	"unsafe"

	"imeproxy/mediaterm/prefetch"
)

const (
	binWidth  = 125 // microseconds; the protocol file allows 1 ms
	minRing   = 512 // 8 s of 20 ms packets, with a margin
	maxRing   = 4096
	nearBins  = 32 // counted one by one around the rank that pdv asks for
	stepBits  = 5  // of a ring's entry; the others are the bin
	maxSteps  = 1 << stepBits
	maxBin    = 1<<(31-stepBits) - 1
	noTransit = -maxBin - 1
)

// ringFor chooses the first size of a stream's ring.
func ringFor(ptime time.Duration) int {
	size := minRing
	for size < maxRing && ptime > 0 && time.Duration(size)*ptime < windowLength+windowLength/8 {
		size *= 2
	}
	return size
}

// entry of a received number: its transit as a bin, less spread.zero, or noTransit; and
// the step from its timestamp to its successor's, an index of spread.steps, 0: none.
type entry int32

func (e entry) bin() int32 { return int32(e >> stepBits) }
func (e entry) step() int  { return int(e & (maxSteps - 1)) }

func (e entry) withBin(bin int32) entry { return entry(bin)<<stepBits | e&(maxSteps-1) }

// step is a timestamp step and how many entries have it.
type step struct {
	us    uint32
	count uint32
}

// spread has an entry for each received number in the window, oldest turn first, and
// follows two things through them: the rank that pdv asks for and the packet time.
//
// Packets only append entries, and link them; what that changes in the counters, take
// finds out, all at once. The fields before near are all that a packet in sequence needs,
// those before steps, with a place or two there, all that a sample needs.
type spread struct {
	linked uint8  // entries given the step last since take
	last   uint8  // index of the last step computed
	taken  uint16 // entries counted that Stream.packets does not have yet
	ticks  uint32 // the last step computed, at the clock rate of the stream's format; 0: none
	ring   []entry
	zero   int32
	next   uint16 // place of the next entry, modulo 2^16 as head and counted
	room   uint16 // packets may append so many before they have to look further, see Stream.tally
	clock  transitClock

	near        [nearBins]uint16 // entries by bin
	head        uint16           // the oldest entry
	counted     uint16           // entries from there on have not been counted
	valid       uint16           // entries that are part of pdv
	lowestCount uint16
	below       uint16 // entries lower than base
	used        uint8  // steps below have had entries
	ranked      bool   // base, below and near hold
	lowest      int32  // bin of them; holds while lowestCount > 0
	base        int32  // bin of near[0]
	dropped     uint32 // numbers in the window that the ring had no room for, all older
	steps       [maxSteps]step
}

func (s *spread) init(size int) {
	s.ring = make([]entry, size)
	s.clear()
}

// clear takes off all entries. None of them waits to be counted.
func (s *spread) clear() {
	s.head, s.next, s.counted, s.dropped, s.zero = 0, 0, 0, 0, 0
	s.used, s.ticks, s.last = 1, 0, 0
	s.forgetRank()
}

func (s *spread) forgetRank() {
	s.valid, s.lowestCount, s.ranked = 0, 0, false
}

// prefetch fetches the place of an entry.
//
//go:norace
func (s *spread) prefetch(i uint16) {
	prefetch.Lines(unsafe.Add(unsafe.Pointer(unsafe.SliceData(s.ring)), uintptr(int(i)&(len(s.ring)-1))*unsafe.Sizeof(entry(0))), 1)
}

// len is the number of entries.
func (s *spread) len() int { return int(s.next - s.head) }

func (s *spread) full() bool { return s.len() == len(s.ring) }

// at is the entry that has so many newer ones.
func (s *spread) at(newer uint32) *entry {
	return &s.ring[int(s.next-1-uint16(newer))&(len(s.ring)-1)]
}

// append puts an entry after all others; the ring is not full.
func (s *spread) append(bin int32) {
	s.ring[int(s.next)&(len(s.ring)-1)] = entry(0).withBin(bin)
	s.next++
}

// take counts the entries that were appended since it was called last.
func (s *spread) take() {
	s.taken += s.next - s.counted
	for ; s.counted != s.next; s.counted++ {
		s.count(s.ring[int(s.counted)&(len(s.ring)-1)].bin())
	}
	if s.linked > 0 {
		s.steps[s.last].count += uint32(s.linked)
		s.linked = 0
	}
}

// insert puts an entry before so many newer ones, fewer than maxMisorder. None waits to be counted.
func (s *spread) insert(newer uint32, bin int32) {
	if s.full() {
		s.drop()
	}
	s.next++
	for k := range newer {
		*s.at(k) = *s.at(k + 1)
	}
	*s.at(newer) = entry(0).withBin(bin)
	s.count(bin)
	s.counted = s.next
}

// linkUsual gives the newest entry the step that most have; false: that takes link.
func (s *spread) linkUsual(ticks uint32) bool {
	if ticks != s.ticks || s.linked == math.MaxUint8 {
		return false
	}
	if s.last > 0 {
		*s.at(0) |= entry(s.last)
		s.linked++
	}
	return true
}

// link notes the timestamp step from an entry, which has none, to its successor. None waits to be counted.
func (s *spread) link(newer, ticks, hz uint32) {
	if ticks == 0 || int(newer) >= s.len() {
		return
	}
	if ticks != s.ticks {
		us := (uint64(ticks)*1e6 + uint64(hz)/2) / uint64(hz)
		s.ticks, s.last = ticks, s.stepFor(uint32(min(us, math.MaxUint32)))
	}
	if s.last == 0 {
		return
	}
	*s.at(newer) |= entry(s.last)
	s.steps[s.last].count++
}

// stepFor finds a step's place, or gives it one that no entry has; 0: there is none.
func (s *spread) stepFor(us uint32) uint8 {
	free := 0
	for i := 1; i < int(s.used); i++ {
		if s.steps[i].us == us {
			return uint8(i)
		}
		if s.steps[i].count == 0 {
			free = i
		}
	}
	if free == 0 && s.used < maxSteps {
		free = int(s.used)
		s.used++
	}
	if free > 0 {
		s.steps[free] = step{us: us}
	}
	return uint8(free)
}

// expire takes off the entries of the oldest numbers. None waits to be counted.
func (s *spread) expire(numbers uint32) {
	gone := min(numbers, s.dropped)
	s.dropped -= gone
	for range numbers - gone {
		s.pop()
	}
	if s.head == s.next {
		s.ticks = 0 // there is no newest one to link
	}
}

func (s *spread) drop() {
	s.pop()
	s.dropped++
}

func (s *spread) pop() {
	e := s.ring[int(s.head)&(len(s.ring)-1)]
	s.uncount(e.bin())
	if i := e.step(); i > 0 {
		s.steps[i].count--
	}
	s.head++
}

// forget takes all entries out of pdv. They are among the newest, so that the walk
// visits each entry about once in its life. None waits to be counted.
func (s *spread) forget() {
	for k := 0; s.valid > 0 && k < s.len(); k++ {
		if e := s.at(uint32(k)); e.bin() != noTransit {
			*e = e.withBin(noTransit)
			s.valid--
		}
	}
	s.zero = 0
	s.forgetRank()
}

// place makes a bin relative to zero; false: it does not fit an entry.
func (s *spread) place(bin int64) (int32, bool) {
	bin -= int64(s.zero)
	return int32(bin), bin <= maxBin && bin >= -maxBin
}

// rebase moves zero to a bin that does not fit an entry, because transits have drifted
// for an hour; what is another hour away then is no part of pdv any more. Transits step
// by less than 4 s, so that this is rare. None waits to be counted.
func (s *spread) rebase(bin int64) {
	by := bin - int64(s.zero)
	s.zero = int32(bin)
	s.forgetRank()
	for k := range s.len() {
		e := s.at(uint32(k))
		old := e.bin()
		if old == noTransit {
			continue
		}
		if now := int64(old) - by; now < -maxBin || now > maxBin {
			*e = e.withBin(noTransit)
		} else {
			*e = e.withBin(int32(now))
			s.valid++
		}
	}
}

func (s *spread) count(bin int32) {
	if bin == noTransit {
		return
	}
	s.valid++
	switch {
	case s.valid == 1 || s.lowestCount > 0 && bin < s.lowest:
		s.lowest, s.lowestCount = bin, 1
	case s.lowestCount > 0 && bin == s.lowest:
		s.lowestCount++
	}
	if i := uint32(bin - s.base); i < nearBins {
		s.near[i]++
	} else if bin < s.base {
		s.below++
	}
}

func (s *spread) uncount(bin int32) {
	if bin == noTransit {
		return
	}
	s.valid--
	if s.lowestCount > 0 && bin == s.lowest {
		s.lowestCount--
	}
	if i := uint32(bin - s.base); i < nearBins {
		s.near[i]--
	} else if bin < s.base {
		s.below--
	}
}

// pdv is the nearest rank, place ceil(0.95 n), less the lowest transit.
func (s *spread) pdv() time.Duration {
	if s.valid <= 1 {
		return 0
	}
	if s.lowestCount == 0 {
		s.findLowest()
	}
	place := (19*uint32(s.valid) + 19) / 20
	bin, ok := s.rank(place)
	if !ok {
		s.centre(s.selectBin(place))
		bin, _ = s.rank(place)
	}
	return time.Duration(int64(bin)-int64(s.lowest)) * binWidth * time.Microsecond
}

// rank finds the entry at a place (from 1) among those that are counted by bin.
func (s *spread) rank(place uint32) (bin int32, ok bool) {
	if !s.ranked || uint32(s.below) >= place {
		return 0, false
	}
	sum := uint32(s.below)
	for i, n := range s.near {
		if sum += uint32(n); sum >= place {
			return s.base + int32(i), true
		}
	}
	return 0, false
}

// parts are the entries in one piece or two.
func (s *spread) parts() [2][]entry {
	from := int(s.head) & (len(s.ring) - 1)
	end := from + s.len()
	if end <= len(s.ring) {
		return [2][]entry{s.ring[from:end]}
	}
	return [2][]entry{s.ring[from:], s.ring[:end-len(s.ring)]}
}

func (s *spread) findLowest() {
	low, count := int32(math.MaxInt32), uint16(0)
	for _, part := range s.parts() {
		for _, e := range part {
			switch bin := e.bin(); {
			case bin == low:
				count++
			case bin < low && bin != noTransit:
				low, count = bin, 1
			}
		}
	}
	s.lowest, s.lowestCount = low, count
}

// selectBin finds the entry at a place (from 1) by parting the range that it must be in into 256, until the parts are single bins.
func (s *spread) selectBin(place uint32) int32 {
	low, high := int32(math.MaxInt32), int32(math.MinInt32)
	for _, part := range s.parts() {
		for _, e := range part {
			if bin := e.bin(); bin != noTransit {
				low, high = min(low, bin), max(high, bin)
			}
		}
	}
	for {
		shift := 0
		for (high-low)>>shift > math.MaxUint8 {
			shift++
		}
		var counts [math.MaxUint8 + 1]uint16
		for _, part := range s.parts() {
			for _, e := range part {
				if bin := e.bin(); bin >= low && bin <= high && bin != noTransit {
					counts[uint8((bin-low)>>shift)]++
				}
			}
		}
		i := int32(0)
		for ; uint32(counts[i]) < place; i++ {
			place -= uint32(counts[i])
		}
		low += i << shift
		if shift == 0 {
			return low
		}
		high = min(high, low+1<<shift-1)
	}
}

// centre counts the bins around one.
func (s *spread) centre(bin int32) {
	s.ranked, s.base, s.below = true, bin-nearBins/2, 0
	s.near = [nearBins]uint16{}
	for _, part := range s.parts() {
		for _, e := range part {
			bin := e.bin()
			if bin == noTransit {
				continue
			}
			if i := uint32(bin - s.base); i < nearBins {
				s.near[i]++
			} else if bin < s.base {
				s.below++
			}
		}
	}
}

// packetTime is the most frequent step, the smallest on a tie, 0 where there is none.
func (s *spread) packetTime() time.Duration {
	var best step
	for _, x := range s.steps[1:s.used] {
		if x.count > best.count || x.count == best.count && x.us < best.us {
			best = x
		}
	}
	if best.count == 0 {
		return 0
	}
	return time.Duration(best.us) * time.Microsecond
}

// nearlyFull tells that the ring should grow before the next sample.
func (s *spread) nearlyFull() bool {
	n := s.len()
	return n+n/8 >= len(s.ring) && len(s.ring) < maxRing
}

// grow doubles the ring. No entry waits to be counted.
func (s *spread) grow() {
	bigger := make([]entry, 2*len(s.ring))
	n := 0
	for _, part := range s.parts() {
		n += copy(bigger[n:], part)
	}
	s.ring, s.head, s.next, s.counted = bigger, 0, uint16(n), uint16(n)
}
