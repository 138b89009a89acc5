package mediaterm

import (
	"bytes"
	"testing"

	"github.com/pion/rtp"
)

func fuzzSeeds() [][]byte {
	return append(shapes(1), senderReport(1), nil, []byte{0x80}, []byte{0x80, 200, 0, 0, 0, 0, 0, 0},
		[]byte{0x80, 200, 0xff, 0xff, 0, 0, 0, 1}, []byte{0xa0, 201, 0, 1, 0, 0, 0, 1}, []byte{0, 1, 0, 0}, []byte{22, 254, 253},
		append([]byte{0x90, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xBE, 0xDE, 0, 9}, make([]byte, 8)...),
		append([]byte{0x90, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xC0, 0xDE, 0, 1}, make([]byte, 8)...))
}

// Whatever arrives in the clear: no panic; what passes is RTP or whole RTCP, and comes
// out at the other end as it went in.
func FuzzPlainToSecure(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s)
	}
	k := mustKey(f, SuiteGCM128)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		l := newLoop(t, k)
		got := l.pass(pkt)
		if got != nil && !bytes.Equal(got, pkt) {
			t.Errorf("%x came out as %x", pkt, got)
		}
		kind := classify(pkt)
		switch {
		case l.wire != nil && kind > kindRTCP:
			t.Errorf("kind %d passed: %x", kind, pkt)
		case l.wire != nil && got == nil:
			t.Errorf("sealed but not opened: %x", pkt)
		case l.wire == nil && kind == kindRTCP && validCompound(pkt) && len(pkt) < 1500:
			t.Errorf("whole compound packet dropped: %x", pkt)
		case l.wire == nil && kind == kindRTP && len(pkt) < 1500:
			var h rtp.Header
			if _, err := h.Unmarshal(pkt); err == nil {
				t.Errorf("RTP dropped: %x", pkt)
			}
		}
	})
}

// Whatever arrives at a secure leg without the key: no panic, nothing passes, nothing
// is kept, whichever suite and MKI.
func FuzzSecure(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s)
	}
	var keys []*Key
	for _, s := range Suites() {
		keys = append(keys, mustKey(f, s))
		withMKI := keys[len(keys)-1].clone()
		withMKI.MKI = []byte{1, 2, 3}
		keys = append(keys, &withMKI)
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		for _, k := range keys {
			l := newLoop(t, k)
			if got := l.open(pkt); got != nil {
				t.Fatalf("%v opened %x as %x", k, pkt, got)
			}
			leg := &l.rx.legs[Outside]
			if leg.rx.current().sources() != 0 || leg.locked[portRTP] || leg.heard.packets != 0 {
				t.Errorf("state was kept for %x", pkt)
			}
			if *leg.drops() == (Drops{}) {
				t.Errorf("drop was not counted: %x", pkt)
			}
		}
	})
}

// An authentic packet with one bit changed never passes, and what is sealed of it keeps
// the header in the clear for routers and monitors.
func FuzzTampered(f *testing.F) {
	f.Add(uint16(0), uint8(0))
	f.Add(uint16(14), uint8(3))
	f.Add(uint16(181), uint8(7))
	k := mustKey(f, SuiteCM80)
	f.Fuzz(func(t *testing.T, at uint16, bit uint8) {
		l := newLoop(t, k)
		wire := l.seal(rtpPacket(1, 1))
		if !bytes.Equal(wire[:rtpHeaderLen], rtpPacket(1, 1)[:rtpHeaderLen]) {
			t.Error("header is not in the clear")
		}
		wire[int(at)%len(wire)] ^= 1 << (bit % 8)
		if got := l.open(wire); got != nil {
			t.Errorf("bit %d of byte %d changed: opened as %x", bit, at, got)
		}
	})
}
