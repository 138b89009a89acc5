package mediaterm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

const (
	// maxSSRCs bounds a key's table in each direction. It is not an eviction bound: an
	// SSRC that was forgotten and came back would repeat key stream (sending) or be open
	// to replay (receiving).
	maxSSRCs = 256
	// keysKept is the number of keys a direction remembers, the current one included, so
	// that going back to an earlier key (a re-INVITE that failed) goes on where it was.
	keysKept = 4
	// restartPackets in a row behind the window mean that the sender began again.
	restartPackets = 3
)

// Reasons for which a packet was not sealed or opened.
var (
	errAuth       = errors.New("authentication failed")
	errNoKey      = errors.New("no key yet")
	errReplay     = errors.New("replayed")
	errExpired    = errors.New("key lifetime used up")
	errSSRCs      = errors.New("too many sources under one key")
	errRepeated   = errors.New("index used before")
	errBadPacket  = errors.New("malformed packet")
	errOtherCrypt = errors.New("transform failed")
)

func newContext(k Key) (*srtp.Context, error) {
	opts := []srtp.ContextOption{
		srtp.SRTPReplayProtection(replayWindow), srtp.SRTCPReplayProtection(replayWindow),
	}
	if len(k.MKI) > 0 {
		opts = append(opts, srtp.MasterKeyIndicator(k.MKI))
	}
	ctx, err := srtp.CreateContext(k.Master, k.Salt, k.Suite.profile(), opts...)
	if err != nil {
		return nil, fmt.Errorf("SRTP context for %s: %w", k.Suite, err)
	}
	return ctx, nil
}

// keyUse is what sending and receiving under a key have in common: the key, its pion
// context or transform of our own, its sources and how much of its lifetime is used. Not
// for concurrent use.
//
// What a packet needs comes first and lies together, the first source included: the state of thousands of calls is not in the cache, and each
// line of it that must be fetched costs more than the work with it.
type keyUse struct {
	own      transform
	last     *source // almost every packet has the SSRC of the one before it
	rtp      uint64  // packets under this key
	life     uint64  // of them that are allowed
	crypt    *crypt  // nil: ctx is used, else own
	overhead int32   // bytes that sealing adds to a packet
	warned   bool
	expired  bool
	full     bool // SSRC limit met and told
	heard    bool // first has its SSRC
	first    source

	ctx     *srtp.Context
	key     Key
	rtcp    uint64
	further map[uint32]*source // the others; nil: there are none

	_ [40]byte // to the memory manager's next size of whole lines
}

// source is one SSRC under a key.
type source struct {
	ssrc   uint32
	resync bool   // the context is new and must be told the rollover counter
	stray  uint16 // packets in a row behind the window
	index  window // SRTP indices
	report window // receiving without pion: SRTCP indices
	rtcp   uint64 // highest SRTCP index; sending with pion: unused
}

// newKeyUse uses pion/srtp when c is nil.
func newKeyUse(k Key, c *crypt) (*keyUse, error) {
	u := &keyUse{crypt: c}
	u.use(k)
	return u, u.prepare(k)
}

// use takes a key and what follows from it for each packet.
func (u *keyUse) use(k Key) {
	u.key, u.life, u.overhead = k, k.lifetimeRTP(), int32(k.overhead(kindRTP))
}

// newSource takes a new SSRC.
func (u *keyUse) newSource(ssrc uint32) *source {
	s := &u.first
	if u.heard {
		s = new(source)
		if u.further == nil {
			u.further = map[uint32]*source{}
		}
		u.further[ssrc] = s
	}
	s.ssrc, u.heard, u.last = ssrc, true, s
	return s
}

// sources is the number of SSRCs.
func (u *keyUse) sources() int {
	if !u.heard {
		return 0
	}
	return 1 + len(u.further)
}

// all iterates over the sources.
func (u *keyUse) all(yield func(*source) bool) {
	if u.heard && !yield(&u.first) {
		return
	}
	for _, s := range u.further {
		if !yield(s) {
			return
		}
	}
}

// prepare makes the context or transform for a key.
func (u *keyUse) prepare(k Key) error {
	if u.crypt != nil {
		own, err := newTransform(k, u.crypt.short)
		if err == nil {
			u.own = *own
		}
		return err
	}
	ctx, err := newContext(k)
	if err == nil {
		u.ctx = ctx
	}
	return err
}

// find returns the source, nil when it is not known.
func (u *keyUse) find(ssrc uint32) *source {
	if u.last != nil && u.last.ssrc == ssrc {
		return u.last
	}
	if u.heard && u.first.ssrc == ssrc {
		return &u.first
	}
	return u.further[ssrc]
}

// change takes another suite, MKI or lifetime for the same master key and salt. The
// session keys stay, so the indices must go on.
func (u *keyUse) change(k Key) error {
	if !u.key.sameOnWire(k) {
		old := u.ctx
		if err := u.prepare(k); err != nil {
			return err
		}
		if old != nil {
			u.takeOver(old)
		}
	}
	if u.key.Lifetime != k.Lifetime {
		u.warned, u.expired = false, false
	}
	u.use(k)
	return nil
}

// takeOver gives the new pion context the indices of the old one.
func (u *keyUse) takeOver(old *srtp.Context) {
	for s := range u.all {
		s.resync = true
		if i, ok := old.Index(s.ssrc); ok {
			u.ctx.SetIndex(s.ssrc, i)
		}
	}
}

// spent tells whether the lifetime is used up for a kind of packet.
func (u *keyUse) spent(kind packetKind) bool {
	if kind == kindRTCP {
		return u.rtcp >= u.key.lifetimeRTCP()
	}
	return u.rtp >= u.life
}

// count adds a packet and names the event that it brings about, if any.
func (u *keyUse) count(kind packetKind) EventKind {
	used, life := &u.rtp, u.life
	if kind == kindRTCP {
		used, life = &u.rtcp, u.key.lifetimeRTCP()
	}
	*used++
	switch {
	case *used >= life && !u.expired:
		u.expired, u.warned = true, true
		return EventKeyExpired
	case *used >= life-life/10 && !u.warned:
		u.warned = true
		return EventKeyExpiring
	}
	return ""
}

// wipe overwrites the master key. Session keys inside the standard library's ciphers are
// out of reach.
func (u *keyUse) wipe() {
	clear(u.key.Master)
	clear(u.key.Salt)
}

// keyRing is the keys of one direction of a leg, the current one first. In the
// receiving direction the first `accepted` of them are tried.
type keyRing struct {
	keys     [keysKept]*keyUse
	kept     int
	active   bool // false: no key is set (nil was), the memory stays
	accepted int
}

// set makes k the current key, with the state it had if it is remembered.
func (r *keyRing) set(k *Key, c *crypt) error {
	if k == nil {
		r.active = false
		r.accepted = 0
		return nil
	}
	use, at := (*keyUse)(nil), -1
	for i, u := range r.keys[:r.kept] {
		if u.key.sameMaterial(*k) {
			use, at = u, i
			break
		}
	}
	if use == nil {
		u, err := newKeyUse(k.clone(), c)
		if err != nil {
			return err
		}
		use = u
	} else if err := use.change(k.clone()); err != nil {
		return err
	}
	switch {
	case at == 0:
		r.accepted = max(r.accepted, 1)
	case at > 0:
		if at >= r.accepted {
			r.accepted++
		}
		copy(r.keys[1:at+1], r.keys[:at])
		r.keys[0] = use
	default:
		if r.kept == keysKept {
			r.keys[keysKept-1].wipe()
		}
		r.kept = min(r.kept+1, keysKept)
		copy(r.keys[1:], r.keys[:keysKept-1])
		r.keys[0] = use
		r.accepted++
	}
	r.accepted = min(r.accepted, r.kept)
	r.active = true
	return nil
}

// current is nil when no key is set.
func (r *keyRing) current() *keyUse {
	if !r.active {
		return nil
	}
	return r.keys[0]
}

func (r *keyRing) wipe() {
	for _, u := range r.keys[:r.kept] {
		u.wipe()
	}
	*r = keyRing{}
}

// seal protects a packet under the key into dst. The event, when not empty, is to be
// told whatever the error.
func (u *keyUse) seal(dst, pkt []byte, kind packetKind, h rtpHeader, hdr *rtp.Header) ([]byte, EventKind, error) {
	if u.spent(kind) {
		return nil, "", errExpired
	}
	s := u.find(h.ssrc)
	if s == nil {
		if u.sources() >= maxSSRCs {
			if u.full {
				return nil, "", errSSRCs
			}
			u.full = true
			return nil, EventSSRCLimit, errSSRCs
		}
		s = u.newSource(h.ssrc)
	}
	u.last = s
	if u.crypt != nil {
		return u.sealOwn(dst, pkt, kind, h, s)
	}
	var out []byte
	var err error
	if kind == kindRTCP {
		out, err = u.ctx.EncryptRTCP(dst, pkt, nil)
	} else {
		index := indexGuess(s.index.highest, h.seq)
		if v := s.index.use(index); v != fresh {
			return nil, s.strayed(v), errRepeated
		}
		s.stray = 0
		if s.resync {
			u.ctx.SetROC(h.ssrc, uint32(index>>16))
			s.resync = false
		}
		out, err = u.ctx.EncryptRTP(dst, pkt, hdr)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", errOtherCrypt, err)
	}
	return out, u.count(kind), nil
}

// sealOwn is the part of seal that does without pion.
func (u *keyUse) sealOwn(dst, pkt []byte, kind packetKind, h rtpHeader, s *source) ([]byte, EventKind, error) {
	if kind == kindRTCP {
		if s.rtcp >= maxLifetimeRTCP {
			return nil, "", errExpired
		}
		if err := u.own.reports(u.crypt, u.key); err != nil {
			return nil, "", fmt.Errorf("%w: %w", errOtherCrypt, err)
		}
		s.rtcp++
		return u.own.sealRTCP(u.crypt, dst, pkt, h.ssrc, uint32(s.rtcp)), u.count(kind), nil
	}
	index := indexGuess(s.index.highest, h.seq)
	if v := s.index.use(index); v != fresh {
		return nil, s.strayed(v), errRepeated
	}
	s.stray = 0
	return u.own.sealRTP(u.crypt, dst, pkt, rtpHeaderSize(pkt), h.ssrc, index), u.count(kind), nil
}

func (s *source) strayed(v verdict) EventKind {
	if v != tooOld {
		return ""
	}
	if s.stray > restartPackets {
		return ""
	}
	s.stray++
	if s.stray == restartPackets {
		return EventSequenceRestart
	}
	return ""
}

// opened is the result of keyUse.open, which writes it where the caller wants it: Go returns a struct of this size by way of copies that wait for
// their own stores.
type opened struct {
	plain []byte
	newer bool // above everything seen of its SSRC: may move the source lock
	event EventKind
}

// open authenticates and decrypts a packet under the key into dst. A packet that fails
// leaves no state behind.
func (u *keyUse) open(o *opened, dst, pkt []byte, kind packetKind, ssrc uint32, seq uint16, hdr *rtp.Header) error {
	*o = opened{}
	if u.spent(kind) {
		return errExpired
	}
	s := u.find(ssrc)
	if s == nil && u.sources() >= maxSSRCs {
		if !u.full {
			u.full = true
			o.event = EventSSRCLimit
		}
		return errSSRCs
	}
	if u.crypt != nil {
		return u.openOwn(o, dst, pkt, kind, ssrc, seq, s)
	}
	return u.openPion(o, dst, pkt, kind, ssrc, seq, s, hdr)
}

// openPion is the part of open that pion does; s is nil for a new SSRC.
func (u *keyUse) openPion(o *opened, dst, pkt []byte, kind packetKind, ssrc uint32, seq uint16, s *source, hdr *rtp.Header) error {
	var index uint64
	var out []byte
	var err error
	if kind == kindRTCP {
		index = srtcpIndex(pkt, u.key)
		out, err = u.ctx.DecryptRTCP(dst, pkt, nil)
	} else {
		if s != nil {
			index = indexGuess(s.index.highest, seq)
		}
		if s != nil && s.resync {
			// Again for each packet until one authenticates: a forged one teaches nothing.
			u.ctx.SetROC(ssrc, uint32(index>>16))
		}
		out, err = u.ctx.DecryptRTP(dst, pkt, hdr)
	}
	if err != nil {
		return openError(err, pkt, kind, u.key, hdr)
	}
	o.plain, o.newer, o.event = out, true, u.count(kind)
	if s == nil {
		s = u.newSource(ssrc)
		index = indexGuess(0, seq)
		if kind == kindRTCP {
			index = srtcpIndex(pkt, u.key)
		}
	}
	u.last = s
	if kind == kindRTCP {
		o.newer = index > s.rtcp || s.rtcp == 0
		s.rtcp = max(s.rtcp, index)
		return nil
	}
	s.resync = false
	o.newer = !s.index.started || index > s.index.highest
	if s.index.use(index) != fresh {
		o.plain = nil
		return errReplay // seen before change made the context anew
	}
	return nil
}

// openOwn is the part of open that does without pion; s is nil for a new SSRC. Replays are
// looked for first, RFC 3711 section 3.3: a flood of them costs no authentication.
func (u *keyUse) openOwn(o *opened, dst, pkt []byte, kind packetKind, ssrc uint32, seq uint16, s *source) error {
	var unknown source
	known := s
	if s == nil {
		known = &unknown
	}
	if kind == kindRTCP {
		return u.openOwnReport(o, dst, pkt, ssrc, s, known)
	}
	index := indexGuess(known.index.highest, seq)
	if known.index.peek(index) != fresh {
		return errReplay
	}
	out, err := u.own.openRTP(u.crypt, dst, pkt, rtpHeaderSize(pkt), ssrc, index)
	if err != nil {
		return err
	}
	s = u.learned(s, ssrc)
	o.newer = !s.index.started || index > s.index.highest
	s.index.use(index)
	o.plain, o.event = out, u.count(kind)
	return nil
}

// openOwnReport is openOwn for SRTCP; known is s, or one that has had nothing.
func (u *keyUse) openOwnReport(o *opened, dst, pkt []byte, ssrc uint32, s, known *source) error {
	if err := u.own.reports(u.crypt, u.key); err != nil {
		return fmt.Errorf("%w: %w", errOtherCrypt, err)
	}
	index := srtcpIndex(pkt, u.key)
	if known.report.peek(index) != fresh {
		return errReplay
	}
	out, err := u.own.openRTCP(u.crypt, dst, pkt, ssrc)
	if err != nil {
		return err
	}
	s = u.learned(s, ssrc)
	s.report.use(index)
	o.newer = index > s.rtcp || s.rtcp == 0
	s.rtcp = max(s.rtcp, index)
	o.plain, o.event = out, u.count(kindRTCP)
	return nil
}

// learned is the source of a packet that has authenticated.
func (u *keyUse) learned(s *source, ssrc uint32) *source {
	if s == nil {
		return u.newSource(ssrc)
	}
	u.last = s
	return s
}

// openError sorts pion's errors. Its error for replays is not exported, so that a
// replay is what is left when length and header are in order.
func openError(err error, pkt []byte, kind packetKind, k Key, hdr *rtp.Header) error {
	if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) || errors.Is(err, srtp.ErrMKINotFound) {
		return errAuth
	}
	if kind == kindRTCP {
		if len(pkt) < rtcpHeaderLen+4+k.tagLen(kind)+len(k.MKI) {
			return errBadPacket
		}
		return errReplay
	}
	n, herr := hdr.Unmarshal(pkt)
	if herr != nil || len(pkt) < n+k.tagLen(kind)+len(k.MKI) {
		return errBadPacket
	}
	return errReplay
}

// tagLen is the authentication tag in bytes: RFC 4568 section 6.2, RFC 7714 section 13.
func (k Key) tagLen(kind packetKind) int {
	switch {
	case k.Suite.aead():
		return 16
	case k.Suite == SuiteCM32 && kind == kindRTP:
		return 4
	}
	return 10
}

// overhead is what sealing adds to a packet, in bytes.
func (k Key) overhead(kind packetKind) int {
	n := k.tagLen(kind) + len(k.MKI)
	if kind == kindRTCP {
		n += 4
	}
	return n
}

// srtcpIndex reads the 31-bit index from a packet's end: RFC 3711 section 3.4 has it
// before MKI and tag, RFC 7714 section 9.2 before the MKI. 0 when it is too short.
func srtcpIndex(p []byte, k Key) uint64 {
	at := len(p) - len(k.MKI) - 4
	if !k.Suite.aead() {
		at -= k.tagLen(kindRTCP)
	}
	if at < rtcpHeaderLen {
		return 0
	}
	return uint64(binary.BigEndian.Uint32(p[at:]) &^ (1 << 31))
}
