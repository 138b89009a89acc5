package mediaterm

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/rtp"
)

// maxDatagram bounds what is read: media fits an Ethernet frame, and a datagram that
// fills the buffer may have been cut, so it is dropped. Nothing longer is sent either.
const maxDatagram = 2048

// scratch is the memory of one packet's way through a relay, borrowed for that way, so
// that nothing is allocated a packet and idle streams hold none. Opening and sealing go
// from one buffer into another: a failed GCM open in place would destroy what the next
// key has to try.
type scratch struct {
	plain, sealed []byte
	header        rtp.Header
}

func newScratch() *scratch {
	return &scratch{plain: make([]byte, maxDatagram), sealed: make([]byte, maxDatagram)}
}

var scratches = sync.Pool{New: func() any { return newScratch() }}

// departure is what a relay wants sent: from which of our ports of which side, to where. It is written where the caller wants it, as opened is.
type departure struct {
	side Side
	port port
	to   netip.AddrPort
	kind packetKind
	data []byte // within the scratch or the datagram
}

// relay is a stream without its sockets: packets in, packets out. Engines that move
// packets by other means can use it for what is not their own concern. Its mutex is
// never held over a system call. Engine sockets takes it once a packet: the four readers
// of a stream meet there, which at some hundred packets a second they practically never
// do. Engine tproxy has one for all streams of a worker and takes it once a batch.
type relay struct {
	mu      *sync.Mutex // guards legs, clocks and wiped
	watcher Watcher     // nil: nobody watches
	wiped   bool
	noRTCP  bool
	legs    [2]leg // at a multiple of cacheLine in what holds many relays
	clocks  map[uint8]uint32

	media string
	now   func() time.Time
	emit  func(Event)
}

// newRelay makes a relay with a mutex of its own that uses pion/srtp.
func newRelay(spec EngineSpec, now func() time.Time) *relay {
	r := &relay{noRTCP: spec.NoRTCP, media: spec.Media, now: now, emit: spec.Emit, watcher: spec.Watcher, mu: new(sync.Mutex)}
	for side := Inside; side <= Outside; side++ {
		r.legs[side].side = side
		r.legs[side].local = spec.Local[side]
	}
	r.legs[Inside].mode = modePlain
	return r
}

// receive takes a datagram that came from src to one of our ports and returns what is
// to be sent for it; ok is false when that is nothing.
func (r *relay) receive(side Side, p port, src netip.AddrPort, pkt []byte, sc *scratch) (out departure, ok bool) {
	kind := classify(pkt)
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	ok = r.take(&out, side, p, src, pkt, kind, Instant(now), sc)
	return out, ok
}

// take is receive for a caller that holds the mutex and knows when the packet came, see Instant. It writes out when it returns true.
func (r *relay) take(out *departure, side Side, p port, src netip.AddrPort, pkt []byte, kind packetKind, at time.Duration, sc *scratch) bool {
	if r.wiped {
		return false
	}
	in := &r.legs[side]
	if kind > kindRTCP {
		in.drops().foreign(kind)
		return false
	}
	if len(pkt) >= maxDatagram {
		in.drops().TooLong++
		return false
	}
	if kind == kindRTCP && r.noRTCP {
		in.drops().RTCPOff++
		return false
	}
	plain, accepted := r.accept(in, kind, p, src, pkt, sc)
	if !accepted {
		return false
	}
	var h rtpHeader
	if kind == kindRTP {
		h = parseRTP(plain)
		in.heard.add(len(pkt))
		in.lastSSRC, in.lastPT = h.ssrc, h.payloadType
		in.receptions.packet(h, r.clock(in, h.payloadType), at)
		if r.watcher != nil && side == Outside && in.mode == modeSecure { // in the clear anyone could have sent it
			r.watcher.Watch(at, WatchedPacket{
				SSRC: h.ssrc, Timestamp: h.timestamp, Seq: h.seq, PayloadType: h.payloadType, PayloadLength: payloadLen(plain),
			})
		}
	} else {
		h.ssrc = rtcpSSRC(plain)
		in.rtcp.heard.add(len(pkt))
		now := r.now()
		r.report(side, plain, now.Add(at-Instant(now)))
	}
	in.last = at
	return r.depart(out, &r.legs[side.other()], kind, h, plain, sc)
}

// Watcher is told of each RTP packet from the outside that is authentic and no replay. It must not block, and may be called by
// several goroutines.
type Watcher interface {
	Watch(at time.Duration, p WatchedPacket) // at: see Instant
	// Prefetch is called twice some time before Watch, by engines that know what is to come, with 0 and 1: what the first step fetches into the
	// cache the second may use to find more.
	Prefetch(step int)
}

// WatchedPacket is what a Watcher learns of a packet.
type WatchedPacket struct {
	SSRC, Timestamp uint32
	Seq             uint16
	PayloadType     uint8
	PayloadLength   int // bytes without header, extension, padding and tag
}

// began is what Instant counts from: an hour before the program, so that no clock of a test lies before it.
var began = time.Now().Add(-time.Hour)

// Instant is a time as watchers have it: since a point before the program began, by the monotonic clock where t has it.
func Instant(t time.Time) time.Duration { return t.Sub(began) }

// payloadLen is the payload of an RTP packet without padding, in bytes.
func payloadLen(p []byte) int {
	n := len(p) - rtpHeaderSize(p)
	if p[0]&0x20 != 0 && n > 0 {
		n -= int(p[len(p)-1])
	}
	return max(n, 0)
}

// accept authenticates a packet, checks its source and its RTCP headers.
func (r *relay) accept(l *leg, kind packetKind, p port, src netip.AddrPort, pkt []byte, sc *scratch) ([]byte, bool) {
	switch l.mode {
	case modeClosed:
		l.drops().NoKey++
		return nil, false
	case modePlain:
		if kind == kindRTCP && !validCompound(pkt) {
			l.drops().Malformed++
			return nil, false
		}
		ok, locks := l.admitPlain(kind, p, src)
		if !ok {
			l.drops().WrongSource++
		}
		if locks {
			r.tell(EventSourceLocked, l.side, src)
		}
		return pkt, ok
	}
	var o opened
	err := l.open(&o, sc.plain[:0], pkt, kind, &sc.header)
	if o.event != "" {
		r.emit(Event{Kind: o.event, Side: l.side})
	}
	if err != nil {
		// A stranger's packet is told from a broken key by where it comes from.
		if l.locked[p] && src != *l.sourceOf(p) && errors.Is(err, errAuth) {
			l.drops().WrongSource++
		} else {
			l.drops().unopened(err)
		}
		return nil, false
	}
	if kind == kindRTCP && !validCompound(o.plain) {
		l.drops().Malformed++
		return nil, false
	}
	ok, event := l.admitSecure(kind, p, src, o.newer)
	if !ok {
		l.drops().WrongSource++
	}
	if event != "" {
		r.tell(event, l.side, src)
	}
	return o.plain, ok
}

// depart seals a packet for a leg and finds its way. It writes out when it returns true.
func (r *relay) depart(out *departure, l *leg, kind packetKind, h rtpHeader, plain []byte, sc *scratch) bool {
	to, p, ok := l.target(kind)
	if !ok {
		l.drops().TxHeld++
		return false
	}
	out.side, out.port, out.to, out.kind, out.data = l.side, p, to, kind, plain
	if l.mode == modePlain {
		return true
	}
	key := l.sealKey
	if l.mode == modeClosed || key == nil {
		l.drops().TxNoKey++
		return false
	}
	overhead := int(key.overhead)
	if kind == kindRTCP {
		overhead = key.key.overhead(kind)
	}
	if len(plain)+overhead >= maxDatagram {
		l.drops().TxTooLong++
		return false
	}
	data, event, err := key.seal(sc.sealed[:0], plain, kind, h, &sc.header)
	if event != "" {
		r.emit(Event{Kind: event, Side: l.side, Sent: true})
	}
	if err != nil {
		l.drops().unsealed(err)
		return false
	}
	out.data = data
	return true
}

// sent counts the outcome of sending a departure.
func (r *relay) sent(d departure, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.account(d.side, d.kind, len(d.data), err == nil)
}

// account is sent for a caller that holds the mutex.
func (r *relay) account(side Side, kind packetKind, n int, ok bool) {
	l := &r.legs[side]
	switch {
	case !ok:
		l.drops().SendErrors++
	case kind == kindRTCP:
		l.rtcp.sent.add(n)
	default:
		l.sent.add(n)
	}
}

func (r *relay) tell(kind EventKind, side Side, src netip.AddrPort) {
	r.emit(Event{Kind: kind, Side: side, Source: src})
}

// clock is that of a payload type. The leg keeps the last one: a look into the map costs as much as the encryption.
func (r *relay) clock(l *leg, pt uint8) uint32 {
	if l.clockHz == 0 || l.clockPT != pt {
		hz, ok := r.clocks[pt]
		if !ok {
			hz = clockRate(pt, r.media)
		}
		l.clockPT, l.clockHz = pt, hz
	}
	return l.clockHz
}

// setClockRate tells the clock of a dynamic payload type (a=rtpmap).
func (r *relay) setClockRate(pt uint8, hz uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clocks == nil {
		r.clocks = map[uint8]uint32{}
	}
	r.clocks[pt&0x7f] = hz
	for i := range r.legs {
		r.legs[i].clockHz = 0
	}
}

func (r *relay) setRemote(side Side, remote Remote) error {
	n, err := remote.normal(r.legs[side].local.Addr())
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wiped {
		return ErrClosed
	}
	r.legs[side].setRemote(n)
	return nil
}

func (r *relay) withhold(side Side, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.legs[side].withhold(on)
}

func (r *relay) heard(side Side) (from netip.AddrPort, sent uint64, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.legs[side]
	return l.talksFrom(), l.sent.packets, !r.wiped
}

func (r *relay) setCrypto(side Side, local, remote *Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wiped {
		return ErrClosed
	}
	return r.legs[side].setCrypto(local, remote)
}

// wipe ends the relay: nothing passes any more, keys are overwritten, counters stay.
func (r *relay) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.legs {
		l := &r.legs[i]
		l.ended = l.suite()
		l.tx.wipe()
		l.rx.wipe()
		l.keysChanged()
	}
	r.wiped = true
}

func (r *relay) stats() (inside, outside LegStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.legs[Inside].snapshot(r.wiped), r.legs[Outside].snapshot(r.wiped)
}

func (l *leg) suite() string {
	if k := l.sealKey; k != nil {
		return string(k.key.Suite)
	}
	if k := l.openKey; k != nil {
		return string(k.key.Suite)
	}
	return ""
}

func (l *leg) snapshot(wiped bool) LegStats {
	s := LegStats{LegCounts: l.counts(), Local: l.local.String(), Suite: l.ended}
	if l.remote.RTP.IsValid() {
		s.Remote = l.remote.RTP.String()
	}
	if l.source.IsValid() {
		s.Source = l.source.String()
	}
	s.Mux, s.Secure = l.remote.Mux, l.mode == modeSecure
	if !wiped {
		s.Suite = l.suite()
	}
	if l.reporting != nil {
		s.Report = l.reporting.last
	}
	s.Lost, s.JitterMS = l.receptions.lost(), l.receptions.jitter(s.SSRC)
	return s
}

// counts gathers what the leg has counted.
func (l *leg) counts() LegCounts {
	c := LegCounts{
		RxRTPPackets: l.heard.packets, RxRTPBytes: l.heard.bytes, RxRTCPPackets: l.rtcp.heard.packets, RxRTCPBytes: l.rtcp.heard.bytes,
		TxRTPPackets: l.sent.packets, TxRTPBytes: l.sent.bytes, TxRTCPPackets: l.rtcp.sent.packets, TxRTCPBytes: l.rtcp.sent.bytes,
		SSRC: l.lastSSRC, PayloadType: l.lastPT,
	}
	if l.dropped != nil {
		c.Drops = *l.dropped
	}
	if l.last != 0 {
		c.LastPacket = began.Add(l.last)
	}
	return c
}

func (d *Drops) foreign(kind packetKind) {
	switch kind {
	case kindSTUN:
		d.STUN++
	case kindDTLS:
		d.DTLS++
	case kindTooShort:
		d.TooShort++
	case kindMalformed:
		d.Malformed++
	default:
		d.Unknown++
	}
}

func (d *Drops) unopened(err error) {
	switch {
	case errors.Is(err, errNoKey):
		d.NoKey++
	case errors.Is(err, errReplay):
		d.Replays++
	case errors.Is(err, errExpired):
		d.KeyExpired++
	case errors.Is(err, errSSRCs):
		d.SSRCLimit++
	case errors.Is(err, errBadPacket):
		d.Malformed++
	default:
		d.AuthFailures++
	}
}

func (d *Drops) unsealed(err error) {
	switch {
	case errors.Is(err, errExpired):
		d.TxKeyExpired++
	case errors.Is(err, errSSRCs):
		d.TxSSRCLimit++
	case errors.Is(err, errRepeated):
		d.TxRepeated++
	default: // pion could not read the header
		d.Malformed++
	}
}
