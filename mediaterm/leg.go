package mediaterm

import (
	"errors"
	"net/netip"

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
// What each packet needs comes first, see keyUse.
type leg struct {
	side   Side
	mode   cryptoMode
	rx, tx keyRing
	local  netip.AddrPort
	remote Remote            // as signalled now; zero RTP: hold
	source [2]netip.AddrPort // by local port: where packets come from
	locked [2]bool           // false with a source: SetRemote opened the lock again

	clockPT    uint8  // of the last packet
	clockHz    uint32 // of clockPT; 0: to be looked up
	receptions receptions
	stats      LegCounts

	known     Remote     // last remote that was not a hold: what plain packets are checked against
	crypt     *crypt     // nil: pion/srtp
	ended     string     // the suite when the relay was wiped
	reporting *reporting // nil until the far end reports
}

// setRemote opens the source lock. The source learned stays the target while the
// signalled address is what it was: a re-INVITE must not send media past a NAT.
func (l *leg) setRemote(r Remote) {
	l.remote = r
	l.locked = [2]bool{}
	if !r.RTP.IsValid() {
		return
	}
	if r != l.known {
		l.source = [2]netip.AddrPort{}
	}
	l.known = r
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
	l.mode = modeSecure
	if local == nil && remote == nil {
		l.mode = modePlain
	}
	return nil
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
	return p == portRTCP || l.known.Mux && !l.source[portRTP].IsValid()
}

// admitPlain checks the source of a packet that nothing authenticates. locks tells that
// the packet fixed the source.
func (l *leg) admitPlain(kind packetKind, p port, src netip.AddrPort) (ok, locks bool) {
	if l.locked[p] {
		return src == l.source[p], false
	}
	if want := l.expected(p).Addr(); !want.IsValid() || src.Addr() != want {
		return false, false
	}
	if !l.teaches(kind, p) {
		return true, false
	}
	l.locked[p] = true
	l.source[p] = src
	return true, true
}

// admitSecure decides on the source of an authenticated packet.
func (l *leg) admitSecure(kind packetKind, p port, src netip.AddrPort, newer bool) (ok bool, event EventKind) {
	if l.locked[p] && src == l.source[p] {
		return true, ""
	}
	if !l.teaches(kind, p) {
		// The key vouches for it; it may just not move anything.
		return true, ""
	}
	if !l.locked[p] {
		l.locked[p] = true
		l.source[p] = src
		return true, EventSourceLocked
	}
	if !newer {
		return false, ""
	}
	l.source[p] = src
	return true, EventSourceChanged
}

// target is where a kind of packet leaves to, and from which local port. ok is false on
// hold and when the far end takes none.
func (l *leg) target(kind packetKind) (to netip.AddrPort, p port, ok bool) {
	if !l.remote.RTP.IsValid() {
		return netip.AddrPort{}, 0, false
	}
	to, p = l.remote.RTP, portRTP
	if kind == kindRTCP && !l.remote.Mux {
		to, p = l.remote.RTCP, portRTCP
	}
	if learned := l.source[p]; learned.IsValid() && l.followsSource(to, learned) {
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
func (l *leg) open(dst, pkt []byte, kind packetKind, hdr *rtp.Header) (opened, error) {
	if l.rx.current() == nil {
		return opened{}, errNoKey
	}
	ssrc, seq := rtcpSSRC(pkt), uint16(0)
	if kind == kindRTP {
		h := parseRTP(pkt)
		ssrc, seq = h.ssrc, h.seq
	}
	var first error
	for i, u := range l.rx.keys[:l.rx.accepted] {
		o, err := u.open(dst, pkt, kind, ssrc, seq, hdr)
		if err == nil {
			if i == 0 {
				l.rx.accepted = 1
			}
			return o, nil
		}
		if i == 0 || errors.Is(first, errAuth) {
			first = err
		}
		if o.event != "" {
			return o, err
		}
	}
	return opened{}, first
}
