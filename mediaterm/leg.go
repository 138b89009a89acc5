package mediaterm

import (
	"errors"
	"net/netip"
	"time"

	"github.com/pion/rtp"
)

// port is one of a leg's two local ports.
type port uint8

const (
	portRTP port = iota
	portRTCP
)

// cryptoMode of a leg.
type cryptoMode uint8

const (
	modeClosed cryptoMode = iota // SetCrypto has not been called: nothing passes
	modePlain
	modeSecure
)

// leg is the state of one side of a relay; the relay's mutex guards it.
//
// What each packet of RTP needs comes first, in legLines cache lines: the state of thousands of calls is not in the cache, and each line of it
// that must be fetched costs more than the work with it. A packet that leaves by the leg needs the first lines of these, one that comes the last.
type leg struct {
	local   netip.AddrPort
	to      netip.AddrPort // remote.RTP; zero while quiet
	sealKey *keyUse        // tx.current()
	hop     *hop           // engine tproxy: the way to where RTP went last, nil at first
	sent    traffic

	side     Side
	mode     cryptoMode
	locked   [2]bool // false with a source: SetRemote opened the lock again
	older    bool    // other keys than openKey are accepted
	clockPT  uint8   // of the last packet
	lastPT   uint8   // of the last packet that was accepted
	quiet    bool    // nothing is sent until the far end is heard, see withhold
	clockHz  uint32  // of clockPT; 0: to be looked up
	lastSSRC uint32  // of the last packet that was accepted
	source   netip.AddrPort

	openKey    *keyUse // rx.current()
	heard      traffic
	last       time.Duration // see Instant; 0: nothing has come yet
	receptions receptions

	sourceRTCP netip.AddrPort
	remote     Remote // as signalled now; zero RTP: hold
	known      Remote // last remote that was not a hold: what plain packets are checked against
	rx, tx     keyRing
	hopRTCP    *hop // as hop
	rtcp       reportTraffic
	dropped    *Drops     // nil while there are none, see drops
	crypt      *crypt     // nil: pion/srtp
	ended      string     // the suite when the relay was wiped
	reporting  *reporting // nil until the far end reports
}

// drops is what the leg counts of packets that went nowhere. Most legs never drop one: what they would be counted in takes a fifth of a stream.
func (l *leg) drops() *Drops {
	if l.dropped == nil {
		l.dropped = new(Drops)
	}
	return l.dropped
}

// traffic counts packets of RTP, and bytes as LegCounts does.
type traffic struct{ packets, bytes uint64 }

func (t *traffic) add(n int) {
	t.packets++
	t.bytes += uint64(n)
}

// reportTraffic counts packets of RTCP.
type reportTraffic struct{ sent, heard traffic }

// legLines is how many cache lines of a leg hold all that a packet of RTP needs; what leaves needs nothing of the last, what comes nothing of the first.
const (
	legLines  = 4
	cacheLine = 64
)

// sourceOf is where the packets to a local port come from; invalid: not known.
func (l *leg) sourceOf(p port) *netip.AddrPort {
	if p == portRTCP {
		return &l.sourceRTCP
	}
	return &l.source
}

// hopOf is the way to where a local port sent to last.
func (l *leg) hopOf(p port) **hop {
	if p == portRTCP {
		return &l.hopRTCP
	}
	return &l.hop
}

// setRemote opens the source lock. The source learned stays the target while the
// signalled address is what it was: a re-INVITE must not send media past a NAT.
func (l *leg) setRemote(r Remote) {
	l.remote, l.to, l.quiet = r, r.RTP, false
	l.locked = [2]bool{}
	if !r.RTP.IsValid() {
		return
	}
	if r != l.known {
		l.source, l.sourceRTCP = netip.AddrPort{}, netip.AddrPort{}
	}
	l.known = r
}

// talksFrom is where the far end sends from, invalid while nothing has come since its address was told.
func (l *leg) talksFrom() netip.AddrPort {
	if l.source.IsValid() {
		return l.source
	}
	return l.sourceRTCP
}

// withhold sends nothing until the far end is heard, or goes on with it. It does nothing where the far end has been heard.
func (l *leg) withhold(on bool) {
	l.quiet, l.to = on && !l.talksFrom().IsValid(), l.remote.RTP
	if l.quiet {
		l.to = netip.AddrPort{}
	}
}

// learn notes where the far end sends from.
func (l *leg) learn(p port, src netip.AddrPort) {
	l.locked[p] = true
	*l.sourceOf(p) = src
	if l.quiet {
		l.withhold(false)
	}
}

func (l *leg) setCrypto(local, remote *Key) error {
	for _, k := range []*Key{local, remote} {
		if k == nil {
			continue
		}
		if err := k.Check(); err != nil {
			return err
		}
	}
	// Contexts are made before anything changes, so that an error leaves the leg as it was.
	tx, rx := l.tx, l.rx
	if err := tx.set(local, l.crypt); err != nil {
		return err
	}
	if err := rx.set(remote, l.crypt); err != nil {
		return err
	}
	l.tx, l.rx = tx, rx
	l.keysChanged()
	l.mode = modeSecure
	if local == nil && remote == nil {
		l.mode = modePlain
	}
	return nil
}

// keysChanged follows a change of the key rings.
func (l *leg) keysChanged() {
	l.sealKey, l.openKey, l.older = l.tx.current(), l.rx.current(), l.rx.accepted > 1
}

// expected is the signalled address that packets on a local port should come from.
func (l *leg) expected(p port) netip.AddrPort {
	if p == portRTCP {
		return l.known.RTCP
	}
	return l.known.RTP
}

// teaches tells whether a packet may fix or move the source of the port that it came
// to. RTCP on the RTP port does so only while nothing else has, and only when muxed:
// else a peer that sends both there from two ports would move the lock forever.
func (l *leg) teaches(kind packetKind, p port) bool {
	if kind == kindRTP {
		return p == portRTP
	}
	return p == portRTCP || l.known.Mux && !l.source.IsValid()
}

// admitPlain checks the source of a packet that nothing authenticates. locks tells that
// the packet fixed the source.
func (l *leg) admitPlain(kind packetKind, p port, src netip.AddrPort) (ok, locks bool) {
	if l.locked[p] {
		return src == *l.sourceOf(p), false
	}
	if want := l.expected(p).Addr(); !want.IsValid() || src.Addr() != want {
		return false, false
	}
	if !l.teaches(kind, p) {
		return true, false
	}
	l.learn(p, src)
	return true, true
}

// admitSecure decides on the source of an authenticated packet.
func (l *leg) admitSecure(kind packetKind, p port, src netip.AddrPort, newer bool) (ok bool, event EventKind) {
	// Read before an address is taken, or Go's check would read the leg's first line, which nothing else needs here.
	locks := l.locked
	locked := locks[p]
	source := l.sourceOf(p)
	if locked && src == *source {
		return true, ""
	}
	if !l.teaches(kind, p) {
		// The key vouches for it; it may just not move anything.
		return true, ""
	}
	if !locked {
		l.learn(p, src)
		return true, EventSourceLocked
	}
	if !newer {
		return false, ""
	}
	*source = src
	return true, EventSourceChanged
}

// target is where a kind of packet leaves to, and from which local port. ok is false on
// hold and when the far end takes none.
func (l *leg) target(kind packetKind) (to netip.AddrPort, p port, ok bool) {
	if !l.to.IsValid() {
		return netip.AddrPort{}, 0, false
	}
	to, p = l.to, portRTP
	if kind == kindRTCP && !l.remote.Mux {
		to, p = l.remote.RTCP, portRTCP
	}
	if learned := *l.sourceOf(p); learned.IsValid() && l.followsSource(to, learned) {
		to = learned
	}
	return to, p, to.IsValid()
}

// followsSource: outside there are NATs, so media goes back to where it comes from.
// Inside the signalled address is right, and phones may receive on another port than
// they send from; a secure phone that is seen behind another address is behind a NAT.
func (l *leg) followsSource(signalled, learned netip.AddrPort) bool {
	if l.side == Outside {
		return true
	}
	return l.mode == modeSecure && signalled.Addr() != learned.Addr()
}

// open authenticates a packet under the current key, else under an older one that is
// still accepted. The first success of the current key ends the older ones.
func (l *leg) open(o *opened, dst, pkt []byte, kind packetKind, hdr *rtp.Header) error {
	if l.openKey == nil {
		*o = opened{}
		return errNoKey
	}
	ssrc, seq := rtcpSSRC(pkt), uint16(0)
	if kind == kindRTP {
		h := parseRTP(pkt)
		ssrc, seq = h.ssrc, h.seq
	}
	if !l.older {
		return l.openKey.open(o, dst, pkt, kind, ssrc, seq, hdr)
	}
	var first error
	for i, u := range l.rx.keys[:l.rx.accepted] {
		err := u.open(o, dst, pkt, kind, ssrc, seq, hdr)
		if err == nil {
			if i == 0 {
				l.rx.accepted, l.older = 1, false
			}
			return nil
		}
		if i == 0 || errors.Is(first, errAuth) {
			first = err
		}
		if o.event != "" {
			return err
		}
	}
	return first
}
