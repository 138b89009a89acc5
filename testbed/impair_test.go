package testbed

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
)

// Patterns are what their parameters say, and one seed makes one pattern.
func TestLossPatterns(t *testing.T) {
	for seed := range uint64(20) {
		b := Burst{Worsen: 0.02, Recover: 0.25, Good: 0.001, Bad: 0.8}
		l := BurstLoss(seed, b)
		if !slices.Equal(l, BurstLoss(seed, b)) || slices.Equal(l, BurstLoss(seed+1, b)) {
			t.Fatal("a seed does not make one pattern")
		}
		n, longest := l.Lost()
		if share := float64(n) / float64(len(l)); math.Abs(share-b.Share()) > 0.02 {
			t.Errorf("seed %d: %.3f lost, want %.3f", seed, share, b.Share())
		}
		// As much of random loss falls apart: its runs are a third as long.
		m, single := RandomLoss(seed, b.Share()).Lost()
		if math.Abs(float64(m)/float64(len(l))-b.Share()) > 0.02 || single >= longest {
			t.Errorf("seed %d: random loss of %d with runs of %d, bursty one of %d with runs of %d", seed, m, single, n, longest)
		}
	}
	if n, longest := badInternet(1).Lost(); n < impairPeriod/8 || longest > 22 {
		t.Errorf("the demo's bad Internet loses %d packets, %d in a row", n, longest)
	}
}

// The Internet loses exactly what the pattern says, of RTP alone and in that direction alone; it changes while packets flow, and
// each pattern begins with its begin.
func TestSpoiltInternet(t *testing.T) {
	lab := Start(t, Options{A: Side{Edge: EdgeRouter}, B: Side{Edge: EdgeRouter}, NoStart: true})
	at := lab.Capture(t, lab.B.EdgeHost, "eout")
	back := lab.Capture(t, lab.A.EdgeHost, "eout")
	send := func(from, to *Enterprise, port uint16, first, n int) {
		t.Helper()
		conn, err := from.EdgeHost.ListenUDP(netip.AddrPortFrom(from.MediaOut, 0).String()) // a connected one would be told that nobody listens there
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for i := range n {
			if _, err := conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint32([]byte("lab"), uint32(first+i)), netip.AddrPortFrom(to.MediaOut, port)); err != nil {
				t.Fatal(err)
			}
		}
	}
	spoil := func(l map[*Enterprise]Loss) {
		t.Helper()
		if err := lab.Internet.Spoil(l); err != nil {
			t.Fatal(err)
		}
	}
	pattern := BurstLoss(7, Burst{Worsen: 0.05, Recover: 0.2, Bad: 1})
	spoil(map[*Enterprise]Loss{lab.A: pattern})
	send(lab.A, lab.B, 20000, 0, 1000)
	send(lab.A, lab.B, 20001, 1000, 100) // RTCP
	send(lab.B, lab.A, 20000, 0, 100)
	spoil(map[*Enterprise]Loss{lab.A: Blackout()})
	send(lab.A, lab.B, 20000, 2000, 100)
	send(lab.A, lab.B, 20001, 2100, 100)
	spoil(map[*Enterprise]Loss{lab.A: pattern})
	send(lab.A, lab.B, 20000, 3000, 500)
	spoil(nil)
	send(lab.A, lab.B, 20000, 4000, 100)
	at.Stop(t)
	back.Stop(t)

	var want []string
	add := func(port uint16, first, n int, lost func(i int) bool) {
		for i := range n {
			if !lost(i) {
				want = append(want, fmt.Sprint(port, first+i))
			}
		}
	}
	none := func(int) bool { return false }
	byPattern := func(i int) bool { return pattern[i] }
	add(20000, 0, 1000, byPattern)
	add(20001, 1000, 100, none)
	add(20000, 3000, 500, byPattern)
	add(20000, 4000, 100, none)
	if got := numbered(at.Packets(t), lab.B.MediaOut); !slices.Equal(got, want) {
		t.Errorf("%d packets arrived, want %d", len(got), len(want))
	}
	if got := numbered(back.Packets(t), lab.A.MediaOut); len(got) != 100 {
		t.Errorf("%d packets arrived from the other side, want 100", len(got))
	}
}

// numbered are the test's packets to an address: port and number.
func numbered(packets []Packet, to netip.Addr) (out []string) {
	for _, p := range packets {
		if p.Proto == protoUDP && p.Dst.Addr() == to && len(p.Payload) == 7 && string(p.Payload[:3]) == "lab" {
			out = append(out, fmt.Sprint(p.Dst.Port(), binary.BigEndian.Uint32(p.Payload[3:])))
		}
	}
	return out
}
