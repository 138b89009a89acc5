package mediaterm

import "testing"

// The largest packets: what is sealed can be read at the other end, what is too long is
// counted where it went no further.
func TestLargestPackets(t *testing.T) {
	k := mustKey(t, SuiteGCM128)
	largest := maxDatagram - 1 - rtpHeaderLen - k.overhead(kindRTP)
	for size, pass := range map[int]bool{1400: true, largest: true, largest + 1: false, largest + k.overhead(kindRTP): false} {
		l := newLoop(t, k)
		if got := l.pass(rtpPayload(1, 1, 96, size)) != nil; got != pass {
			t.Errorf("payload of %d bytes passed: %v", size, got)
		}
		if d := l.tx.legs[Outside].drops(); (d.TxTooLong == 0) != pass {
			t.Errorf("payload of %d bytes: %+v", size, d)
		}
	}
}
