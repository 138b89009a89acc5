package fallback

import (
	"math"
	"math/bits"
	"sync"
	"time"
	"unsafe"

	"imeproxy/mediaterm/prefetch"
)

// Packet is what the packet path knows of an RTP packet from the Internet that is authentic and no replay: there is no field that says so,
// since a forged packet must have no way in at all. The media room tells its watchers of no other packet, and tests it.
type Packet struct {
	At            time.Duration // arrival
	SSRC          uint32
	Timestamp     uint32
	Seq           uint16
	PayloadType   uint8 // 0 to 127
	PayloadLength int   // bytes without header, extension, padding and tag
}

// Limits of RFC 3550 A.1: a number beyond them is odd.
const (
	maxDropout  = 3000
	maxMisorder = 100
)

const (
	lateAfter   = 200 * time.Millisecond // a number that comes later after its turn is lost
	silentAfter = 2 * time.Second        // without packet the stream is dead
	clockJump   = 4_000_000              // microseconds: a step of transit that starts pdv afresh
)

// Totals of a stream since it was made.
type Totals struct {
	Packets    uint64 `json:"packets"` // that count, duplicates and late ones included
	Odd        uint64 `json:"odd"`
	Held       uint64 `json:"held"` // arrived on hold
	Duplicates uint64 `json:"duplicates"`
	Late       uint64 `json:"late"`      // over 200 ms after their turn, or before the window's first
	Reordered  uint64 `json:"reordered"` // after their turn, in time
	Lost       uint64 `json:"lost"`      // numbers
	Resets     uint64 `json:"resets"`    // windows begun afresh by odd packets
	Holds      uint64 `json:"holds"`
	PDVResets  uint64 `json:"pdv_resets"` // another clock rate, or a jump of the clock
}

// noType is no payload type.
const noType = 0xff

// recentSlots is how many numbers below the highest can still be told apart: more than
// maxMisorder, and as many as the bits of Stream.got.
const recentSlots = 128

// never is no instant.
const never = time.Duration(-1)

// Stream follows one audio stream that arrives from the Internet. Safe for concurrent
// use; see the package's thread rules. Make it with NewStream.
//
// The fields stand in the order in which packets and samples need them: those of a packet
// in sequence lie in two cache lines and one of the ring, those of a sample of a stream
// without loss in three more, one of the window's and another of the ring. The allocator's
// header makes the 56 bytes of the first ones a line of 64.
type Stream struct {
	formats []format
	holes   *holes // nil until a number is missing
	ptime   time.Duration
	first   uint32 // of the window
	oddSSRC uint32
	oddSeq  uint16
	_       [3]uint16

	mu        sync.Mutex    // guards all fields
	now       time.Duration // latest instant seen
	until     time.Duration // end of its step
	ssrc      uint32
	highest   uint32 // extended sequence number, modulo 2^32
	highTS    uint32 // what came with the highest number
	format    format // of the last packet
	highPT    uint8  // what came with the highest number
	codec     codec
	hold      hold
	quiet     bool // the last packet announced silence
	begun     bool // the window has its first packet
	oddBefore bool // the last packet was odd
	alive     bool // the latest instant is that of the last packet
	holed     bool // a hole waits, or a bit of got is 0
	young     young
	spread    spread

	lastAlive time.Duration // while alive is false: last packet, or the end of the last hold; never: no packet has come, ever
	lost      uint64        // Totals.Lost
	win       window

	got     [2]uint64 // bit i: highest - i has come, or lies before the window
	gaps    gapQueue
	packets uint64 // Totals.Packets, but for those that wait to be counted and those of spread.taken
	totals  Totals // but packets and lost
}

// hold of a stream, and what its monitor knows of it.
type hold uint8

const (
	flowing hold = iota
	lifted       // flowing again, and the monitor does not know that it was held
	held
	heldKnown
)

// holes is what only a stream needs in which numbers are missing, for a while or for good: as much memory as all the rest but the ring.
type holes struct {
	// What came with the numbers in holes and next to them, by number.
	recentTS [recentSlots]uint32
	recentPT [recentSlots]uint8

	gaps   [maxGaps]gap
	losses [roomSteps]losses
}

// NewStream returns a stream that has seen nothing. formats are the payload types that
// the far side may send, thus those of the description that the near side gave; ptime is
// a=ptime, 0 where there is none.
func NewStream(formats []Format, ptime time.Duration) *Stream {
	s := &Stream{lastAlive: never}
	s.spread.init(ringFor(ptime))
	s.SetFormats(formats, ptime)
	return s
}

// SetFormats takes the payload types and a=ptime of a new description. The window goes on.
func (s *Stream) SetFormats(formats []Format, ptime time.Duration) {
	list := newFormats(formats)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.formats, s.ptime = list, ptime
	s.format.pt = noType // so that the next packet looks its own up again
}

// SetHold says at each answer whether the descriptions in force let the far side send
// (see OnHold). Saying again what already holds changes nothing.
func (s *Stream) SetHold(at time.Duration, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass(at)
	switch {
	case on && s.hold < held:
		s.hold = held
		s.totals.Holds++
	case !on && s.hold >= held:
		if s.hold == held {
			s.hold = lifted
		} else {
			s.hold = flowing
		}
		if s.lastAlive != never {
			s.lastAlive = s.now
		}
		s.begun, s.oddBefore = false, false
		s.tally()
		s.clear()
	}
}

// pass brings the stream to an instant without packet.
func (s *Stream) pass(at time.Duration) {
	if s.alive {
		s.lastAlive, s.alive = s.now, false
	}
	s.now = max(s.now, at)
}

// Packet counts one packet. It allocates nothing, but for the first hole of a stream.
func (s *Stream) Packet(p Packet) {
	s.mu.Lock()
	s.packet(&p)
	s.mu.Unlock()
}

// Prefetch fetches into the cache what the next packet in sequence needs: the stream in step 0, its place in the ring in step 1. It waits for
// nothing, not even for the mutex: where it guesses wrong it fetches in vain.
//
//go:norace
func (s *Stream) Prefetch(step int) {
	if step == 0 {
		// Not &s.mu: before it takes the address of a field Go reads the beginning of what s points to, and would wait for it.
		prefetch.Lines(unsafe.Add(unsafe.Pointer(s), unsafe.Offsetof(s.mu)), (unsafe.Offsetof(s.spread)+unsafe.Offsetof(s.spread.near)-unsafe.Offsetof(s.mu))/64)
		return
	}
	s.spread.prefetch(s.spread.next)
}

// prefetchSample fetches what a sample of a stream without loss needs: the stream in step 0, places in the ring and the window in step 1.
//
//go:norace
func (s *Stream) prefetchSample(step int) {
	if step == 0 {
		p := unsafe.Pointer(s) // as in Prefetch
		prefetch.Lines(unsafe.Add(p, unsafe.Offsetof(s.mu)), (unsafe.Offsetof(s.spread)+unsafe.Offsetof(s.spread.steps)-unsafe.Offsetof(s.mu))/64+1)
		prefetch.Lines(unsafe.Add(p, unsafe.Offsetof(s.lastAlive)), 1)
		return
	}
	if s.spread.len() > 0 {
		s.spread.prefetch(s.spread.counted)
		s.spread.prefetch(s.spread.head)
	}
	if s.begun {
		prefetch.Lines(unsafe.Pointer(&s.win.cells[slotOf(s.win.current)]), 1)
		prefetch.Lines(unsafe.Pointer(&s.win.cells[slotOf(s.win.tail)]), 1)
	}
}

func (s *Stream) packet(p *Packet) {
	if s.hold >= held {
		s.totals.Held++
		s.lives(p)
		return
	}
	if !s.begun {
		s.begin(p)
		return
	}
	ahead := int(int16(p.Seq - uint16(s.highest)))
	if p.SSRC != s.ssrc || ahead >= maxDropout || ahead <= -maxMisorder {
		if s.odd(p) {
			s.totals.Resets++
			s.begin(p)
		}
		return
	}
	s.oddBefore = false
	s.lives(p)
	s.advance()
	switch {
	case ahead == 1:
		s.next(p)
	case ahead > 1:
		s.jump(p, uint32(ahead))
	default:
		s.packets++
		s.behind(p, uint32(-ahead))
	}
}

// odd reports whether a packet is the second odd one in a row, of one SSRC and
// neighbouring numbers.
func (s *Stream) odd(p *Packet) bool {
	step := p.Seq - s.oddSeq
	confirmed := s.oddBefore && p.SSRC == s.oddSSRC && (step == 1 || step == 0xffff)
	s.oddBefore, s.oddSSRC, s.oddSeq = true, p.SSRC, p.Seq
	if !confirmed {
		s.totals.Odd++
	}
	return confirmed
}

// lives notes that the far side is there, and what it sends.
func (s *Stream) lives(p *Packet) {
	s.now, s.alive = max(s.now, p.At), true
	if p.PayloadType != s.format.pt {
		s.change(s.find(p.PayloadType))
	}
	s.quiet = s.format.silent(p.PayloadLength)
}

// change takes the format of a packet that differs from the one before.
func (s *Stream) change(f format) {
	if f.hz != s.format.hz {
		s.spread.ticks = 0 // the same ticks are another time now
	}
	s.format = f
	if f.codec.audio() {
		s.codec = f.codec
	}
}

func (s *Stream) find(pt uint8) format {
	for i := range s.formats {
		if s.formats[i].pt == pt {
			return s.formats[i]
		}
	}
	return staticFormat(pt)
}

// begin starts the window with its first packet.
func (s *Stream) begin(p *Packet) {
	s.lives(p)
	s.tally()
	s.begun, s.oddBefore = true, false
	s.ssrc, s.first, s.highest = p.SSRC, uint32(p.Seq), uint32(p.Seq)
	s.got, s.holed = allGot, false
	s.clear()
	s.spread.clock = transitClock{}
	s.gaps.n, s.gaps.runs.next = 0, s.highest
	s.add(p)
}

// allGot has all bits of Stream.got.
var allGot = [2]uint64{^uint64(0), ^uint64(0)}

// clear empties the window at the latest instant. Nothing waits to be counted.
func (s *Stream) clear() {
	s.win.clear(s.now)
	s.until = time.Duration(s.win.current+1) * stepLength
	s.spread.clear()
	s.makeRoom()
}

// tally counts what packets have only noted since it was called last.
func (s *Stream) tally() {
	s.spread.take()
	if s.spread.taken > math.MaxInt16 {
		s.packets, s.spread.taken = s.packets+uint64(s.spread.taken), 0
	}
	s.win.take(&s.young)
	if s.win.current+youngSteps-s.win.tail > roomSteps {
		s.win.expire(&s.spread)
	}
	s.makeRoom()
}

// came is the number of packets that count.
func (s *Stream) came() uint64 {
	s.tally()
	return s.packets + uint64(s.spread.taken)
}

// makeRoom tells packets how many entries they may append.
func (s *Stream) makeRoom() {
	s.spread.room = uint16(len(s.spread.ring) - s.spread.len())
	if s.win.crowded() {
		s.spread.room = 0
	}
}

// advance brings the window to the latest instant: holes that waited long enough become
// losses. What has left the window is taken off by the next sample, see window.expire.
func (s *Stream) advance() {
	if s.holed {
		for s.gaps.n > 0 && s.now-s.gaps.oldest().turn > lateAfter {
			s.settle()
		}
	}
	if s.now > s.until {
		s.move()
	}
}

// move goes on to the step of the latest instant, which lies behind the current one's end.
func (s *Stream) move() {
	steps := (s.now-1-s.until)/stepLength + 1
	if steps >= time.Duration(windowSteps) {
		s.tally()
		s.clear()
		return
	}
	if time.Duration(s.young.step)+steps >= youngSteps {
		s.tally()
		s.win.current += int64(steps)
		s.tally()
	} else {
		s.young.step += uint8(steps)
	}
	s.until += steps * stepLength
}

// next takes the number after the highest: the usual packet.
func (s *Stream) next(p *Packet) {
	if s.holed {
		s.shift()
	}
	if s.highPT == p.PayloadType {
		if by := ticks(p.Timestamp, s.highTS); by > 0 && !s.spread.linkUsual(by) {
			s.tally()
			s.spread.link(0, by, s.format.hz)
		}
	}
	s.highest++
	s.add(p)
}

// shift makes got that of the next number, which has come.
func (s *Stream) shift() {
	if s.gaps.n > 0 {
		s.gaps.retire(s.highest, s.highest+1, &s.got)
	}
	s.got[1] = s.got[1]<<1 | s.got[0]>>63
	s.got[0] = s.got[0]<<1 | 1
	s.holed = s.gaps.n > 0 || s.got != allGot
}

// jump takes a number that leaves a hole before it.
func (s *Stream) jump(p *Packet, ahead uint32) {
	if s.holes == nil {
		s.holes = new(holes)
		s.gaps.list, s.win.losses = &s.holes.gaps, &s.holes.losses
	}
	if s.gaps.n > 0 {
		s.gaps.retire(s.highest, s.highest+ahead, &s.got)
	}
	if s.gaps.n == maxGaps {
		s.settle()
	}
	s.gaps.push(s.now, s.highest+1, s.highest+ahead)
	s.holed = true
	s.remember(s.highest, s.highTS, s.highPT)
	s.highest += ahead
	s.remember(s.highest, p.Timestamp, p.PayloadType)
	switch {
	case ahead >= 128:
		s.got = [2]uint64{}
	case ahead >= 64:
		s.got = [2]uint64{0, s.got[0] << (ahead - 64)}
	default:
		s.got[1] = s.got[1]<<ahead | s.got[0]>>(64-ahead)
		s.got[0] <<= ahead
	}
	s.got[0] |= 1
	s.add(p)
}

// remember notes what came with a number.
func (s *Stream) remember(n, ts uint32, pt uint8) {
	s.holes.recentTS[n%recentSlots], s.holes.recentPT[n%recentSlots] = ts, pt
}

// add counts the highest number as received at its turn.
func (s *Stream) add(p *Packet) {
	s.highTS, s.highPT = p.Timestamp, p.PayloadType
	bin := s.transit(p)
	if n := &s.young.received[s.young.step]; s.spread.room > 0 && *n < math.MaxUint8 {
		*n++
		s.spread.append(bin)
		s.spread.room--
		return
	}
	s.tally()
	if s.spread.full() { // no sample has come for long
		s.win.expire(&s.spread)
	}
	if !s.win.receive(s.win.current) {
		s.packets++
		return
	}
	if s.spread.full() {
		s.spread.drop()
	}
	s.spread.append(bin)
	s.makeRoom()
}

// behind takes a number below the highest: a duplicate, one too late, or one that
// fills a hole in time.
func (s *Stream) behind(p *Packet, back uint32) {
	if s.got[back>>6]>>(back&63)&1 == 1 {
		if back > s.highest-s.first {
			s.totals.Late++
		} else {
			s.totals.Duplicates++
		}
		return
	}
	n := s.highest - back
	turn, waiting := s.gaps.turn(n)
	if !waiting {
		s.totals.Late++
		return
	}
	s.totals.Reordered++
	newer := uint32(bits.OnesCount64(s.got[0] & (1<<min(back, 64) - 1)))
	if back > 64 {
		newer += uint32(bits.OnesCount64(s.got[1] & (1<<(back-64) - 1)))
	}
	s.got[back>>6] |= 1 << (back & 63)
	s.remember(n, p.Timestamp, p.PayloadType)
	bin := s.transit(p)
	s.tally()
	if s.win.receive(stepOf(turn)) {
		s.spread.insert(newer, bin)
		s.neighbours(newer, back)
		s.makeRoom()
	}
}

// neighbours notes the timestamp steps from and to a number that filled a hole.
func (s *Stream) neighbours(newer, back uint32) {
	n, h := s.highest-back, s.holes
	slot, after, before := n%recentSlots, (n+1)%recentSlots, (n-1)%recentSlots
	pt := h.recentPT[slot]
	if next := back - 1; s.got[next>>6]>>(next&63)&1 == 1 && h.recentPT[after] == pt {
		s.spread.link(newer, ticks(h.recentTS[after], h.recentTS[slot]), s.format.hz)
	}
	if prev := back + 1; s.got[prev>>6]>>(prev&63)&1 == 1 && h.recentPT[before] == pt {
		s.spread.link(newer+1, ticks(h.recentTS[slot], h.recentTS[before]), s.format.hz)
	}
}

// settle counts the oldest hole: what has not filled it is lost.
func (s *Stream) settle() {
	turn, lost, longest := s.gaps.pop(s.highest, &s.got)
	s.lost += uint64(lost)
	s.win.lose(stepOf(turn), lost, longest)
}

// transit gives a packet's transit as a bin, or none for one that pdv leaves out.
func (s *Stream) transit(p *Packet) int32 {
	if s.format.codec == codecEvent {
		return noTransit
	}
	bin, afresh := s.spread.clock.transit(s.now, p.Timestamp, s.format.hz)
	if afresh {
		s.tally()
		s.spread.forget()
		s.totals.PDVResets++
	}
	near, ok := s.spread.place(bin)
	if !ok {
		s.tally()
		s.spread.rebase(bin)
		return 0
	}
	return near
}

// ticks is an advance of timestamps; backwards is none.
func ticks(to, from uint32) uint32 {
	if d := int32(to - from); d > 0 {
		return uint32(d)
	}
	return 0
}
