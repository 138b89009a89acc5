package mapping

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
)

// What a list denies is told with its list and both interfaces, what it permits where the entry says log; a flood is told in part.
func TestDenials(t *testing.T) {
	l := newLab(t)
	spec := plainSpec()
	spec.Groups = []AccessGroup{{Link: linkOut, Direction: "in", Name: "incoming", Rules: []Rule{
		{Permit: true, Proto: "udp", DstLo: 53, DstHi: 53, Log: true}, {Proto: "udp", DstLo: 54, DstHi: 54, Log: true}, {Proto: "udp", DstLo: 55, DstHi: 55}, {Permit: true, Proto: "udp", DstLo: 57, DstHi: 57},
	}}}
	k := l.apply(spec)
	if !canLog() {
		t.Skip("this kernel has no nfnetlink_log")
	}
	l.run(l.outside, "ip", "route", "replace", "default", "via", boxOut)
	var mu sync.Mutex
	var told []Denial
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- try(l.box, func() error {
			return k.Denials(ctx, func(d Denial) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, d)
			})
		})
	}()
	from := l.packetConn(l.outside, remoteAddr+":4000")
	send := func(port uint16) {
		if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(addr(dmzHost), port)); err != nil {
			t.Fatal(err)
		}
	}
	count := func(port uint16) (n int, one Denial) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range told {
			if d.Dst.Port() == port {
				n, one = n+1, d
			}
		}
		return n, one
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // until it listens
		send(56)
		if n, _ := count(56); n > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is told")
		}
	}
	for _, p := range []uint16{53, 54, 55, 57} {
		send(p)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n, _ := count(55); n > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the denied entry is not told")
		}
	}
	for port, want := range map[uint16]Denial{
		53: {List: "incoming", Permitted: true, Logged: true, Direction: "in"}, 54: {List: "incoming", Logged: true, Direction: "in"}, 55: {List: "incoming"}, 56: {List: "incoming"},
	} {
		want.In, want.Out, want.Proto = linkOut, linkDMZ, "udp"
		want.Src, want.Dst = netip.MustParseAddrPort(remoteAddr+":4000"), netip.AddrPortFrom(addr(dmzHost), port)
		if _, got := count(port); got != want {
			t.Errorf("port %d: %+v", port, got)
		}
	}
	if n, _ := count(57); n > 0 {
		t.Error("what is permitted without log is told")
	}
	for range 1000 {
		send(58)
	}
	time.Sleep(100 * time.Millisecond)
	if n, _ := count(58); n < 10 || n > logBurst+3*logRate {
		t.Errorf("%d of a flood of 1000 are told", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSameSecurityLevel(t *testing.T) {
	l := newLab(t)
	spec := plainSpec()
	spec.Interfaces[2].Level, spec.SameLevel = 100, true
	l.apply(spec)
	inside, dmz := l.packetConn(l.ca, caReal+":9000"), l.packetConn(l.dmz, dmzHost+":9000")
	if _, ok := sends(t, inside, dmz, dmzHost+":9000"); !ok {
		t.Error("interfaces of one level do not reach each other")
	}
	outside := l.packetConn(l.outside, remoteAddr+":9000")
	l.run(l.outside, "ip", "route", "replace", "default", "via", boxOut)
	if _, ok := sends(t, outside, dmz, dmzHost+":9000"); ok {
		t.Error("the outside reaches the other level")
	}
}

func FuzzParseDenial(f *testing.F) {
	packet := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x10, 0, 0, 53}
	b, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: attrIn, Data: binary.BigEndian.AppendUint32(nil, 2)}, {Type: attrPrefix, Data: []byte("d incoming\x00")}, {Type: attrPayload, Data: packet},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2*logBytes {
			return // the kernel sends none, and the time that the fuzzer takes to shorten an input grows with the square of its length
		}
		if d, ok := parseDenial(b, func(int) string { return "x" }); ok && (d.List == "" || d.Proto == "" || !d.Src.Addr().Is4()) {
			t.Errorf("%+v", d)
		}
	})
}
