package mediaterm

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

// loop is two relays back to back, without sockets: plain into the inside of tx, SRTP
// from its outside into the outside of rx, plain out of the inside of rx.
type loop struct {
	t        testing.TB
	tx, rx   *relay
	txs, rxs *scratch
	wire     []byte // what passed between them last
	events   []Event
}

var (
	loopPhone = netip.AddrPortFrom(phoneAddr, 4000)
	loopFar   = netip.AddrPortFrom(peerAddr, 5000)
	loopThief = netip.AddrPortFrom(thiefAddr, 6000)
)

func newLoop(t testing.TB, k *Key) *loop {
	t.Helper()
	l := &loop{t: t, txs: newScratch(), rxs: newScratch()}
	emit := func(e Event) { l.events = append(l.events, e) }
	local := [2]netip.AddrPort{netip.AddrPortFrom(ourInside, 20000), netip.AddrPortFrom(ourOutside, 20000)}
	l.tx = newRelay(EngineSpec{Local: local, Media: "audio", Emit: emit}, time.Now)
	l.rx = newRelay(EngineSpec{Local: local, Media: "audio", Emit: emit}, time.Now)
	if testEngine != nil {
		c := ownCrypt(t)
		for side := Inside; side <= Outside; side++ {
			l.tx.legs[side].crypt, l.rx.legs[side].crypt = c, c
		}
	}
	l.reinvite(k)
	return l
}

func (l *loop) reinvite(k *Key) {
	l.t.Helper()
	other := mustKey(l.t, k.Suite)
	for _, err := range []error{
		l.tx.setRemote(Inside, Remote{RTP: loopPhone}), l.tx.setRemote(Outside, Remote{RTP: loopFar}),
		l.rx.setRemote(Inside, Remote{RTP: loopPhone}), l.rx.setRemote(Outside, Remote{RTP: loopFar}),
		l.tx.setCrypto(Outside, k, other), l.rx.setCrypto(Outside, other, k),
	} {
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

// seal gives what tx sends to the outside for a packet of the phone; nil: nothing.
func (l *loop) seal(pkt []byte) []byte {
	out, ok := l.tx.receive(Inside, portRTP, loopPhone, pkt, l.txs)
	if !ok {
		return nil
	}
	l.tx.sent(out, nil)
	return bytes.Clone(out.data)
}

// open gives what rx sends to the inside for a packet of the far end; nil: nothing.
func (l *loop) open(pkt []byte) []byte {
	out, ok := l.rx.receive(Outside, portRTP, loopFar, pkt, l.rxs)
	if !ok {
		return nil
	}
	l.rx.sent(out, nil)
	return bytes.Clone(out.data)
}

// pass is seal and open; nil: lost on the way.
func (l *loop) pass(pkt []byte) []byte {
	l.wire = l.seal(pkt)
	if l.wire == nil {
		return nil
	}
	return l.open(l.wire)
}

func (l *loop) had(kind EventKind) int {
	n := 0
	for _, e := range l.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}
