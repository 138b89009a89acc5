package mapping

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// Rules are replaced while a flow that they let through goes on: not one of its packets is lost, and none of a flow that they refuse gets through.
func TestReplacingRulesLosesNoPacket(t *testing.T) {
	l := newLab(t)
	spec := func(n int) Spec {
		s := labSpec()
		s.Groups[0].Rules = nil
		for i := range 3000 {
			s.Groups[0].Rules = append(s.Groups[0].Rules, Rule{Permit: true, Proto: "udp", Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), byte(i >> 8), byte(i)}), 32), DstLo: 9, DstHi: 9})
		}
		s.Groups[0].Rules = append(s.Groups[0].Rules, Rule{Permit: true, Proto: "udp", Dst: hostPrefix(addr(caReal)), DstLo: 8010, DstHi: 8010})
		return s
	}
	k := l.apply(spec(0))
	from, at := l.packetConn(l.outside, remoteAddr+":4000"), l.packetConn(l.ca, caReal+":8010")
	wrong, never := l.packetConn(l.outside, remoteAddr+":4001"), l.packetConn(l.ca, caReal+":8011")
	if err := at.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	var sent, got, leaked atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		permitted, refused := netip.MustParseAddrPort(caMapped+":8010"), netip.MustParseAddrPort(caMapped+":8011")
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for range 10 {
				if _, err := from.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, sent.Load()), permitted); err != nil {
					t.Error(err)
					return
				}
				sent.Add(1)
				_, _ = wrong.WriteToUDPAddrPort([]byte("no"), refused)
			}
		}
	}()
	go func() {
		for b := make([]byte, 100); ; got.Add(1) {
			if _, err := at.Read(b); err != nil {
				return
			}
		}
	}()
	go func() {
		for b := make([]byte, 100); ; leaked.Add(1) {
			if _, err := never.Read(b); err != nil {
				return
			}
		}
	}()
	const changes = 30
	for n := range changes {
		l.update(k, spec(n%2))
	}
	close(stop)
	<-done
	for last := uint64(0); got.Load() != last; time.Sleep(200 * time.Millisecond) { // until nothing more comes
		last = got.Load()
	}
	t.Logf("%d changes of %d rules, %d packets", changes, 3000, sent.Load())
	if got.Load() != sent.Load() || sent.Load() < 1000 {
		t.Errorf("%d of %d packets of the standing flow came through %d changes", got.Load(), sent.Load(), changes)
	}
	if leaked.Load() > 0 {
		t.Errorf("%d packets slipped through that no list permits", leaked.Load())
	}
}
