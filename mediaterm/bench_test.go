package mediaterm

import "testing"

// The steady state allocates nothing a packet, in both directions.
func TestAllocationsPerPacket(t *testing.T) {
	for _, suite := range Suites() {
		t.Run(string(suite), func(t *testing.T) {
			l := newLoop(t, mustKey(t, suite))
			var wire [][]byte
			for seq := range uint16(1200) {
				wire = append(wire, l.seal(rtpPacket(1, seq)))
			}
			i := 0
			opening := testing.AllocsPerRun(1000, func() {
				if out, ok := l.rx.receive(Outside, portRTP, loopFar, wire[i], l.rxs); ok {
					l.rx.sent(out, nil)
				}
				i++
			})
			pkt, seq := rtpPacket(1, 1200), uint16(1200)
			sealing := testing.AllocsPerRun(1000, func() {
				pkt[2], pkt[3] = byte(seq>>8), byte(seq)
				if out, ok := l.tx.receive(Inside, portRTP, loopPhone, pkt, l.txs); ok {
					l.tx.sent(out, nil)
				}
				seq++
			})
			if opening != 0 || sealing != 0 {
				t.Errorf("allocations a packet: opening %v, sealing %v", opening, sealing)
			}
			if n := l.rx.legs[Inside].sent.packets; n < 1000 {
				t.Errorf("only %d packets passed", n)
			}
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, suite := range Suites() {
		b.Run(string(suite), func(b *testing.B) {
			l := newLoop(b, mustKey(b, suite))
			pkt := rtpPacket(1, 0)
			seq := uint16(0)
			b.ReportAllocs()
			for b.Loop() {
				pkt[2], pkt[3] = byte(seq>>8), byte(seq)
				out, ok := l.tx.receive(Inside, portRTP, loopPhone, pkt, l.txs)
				if !ok {
					b.Fatal("dropped")
				}
				l.tx.sent(out, nil)
				seq++
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, suite := range Suites() {
		b.Run(string(suite), func(b *testing.B) {
			l := newLoop(b, mustKey(b, suite))
			const batch = 4096
			wire := make([][]byte, batch)
			i, seq := batch, uint16(0)
			b.ReportAllocs()
			for b.Loop() {
				if i == batch {
					b.StopTimer()
					for j := range wire {
						wire[j] = l.seal(rtpPacket(1, seq))
						seq++
					}
					i = 0
					b.StartTimer()
				}
				out, ok := l.rx.receive(Outside, portRTP, loopFar, wire[i], l.rxs)
				if !ok {
					b.Fatal("dropped")
				}
				l.rx.sent(out, nil)
				i++
			}
		})
	}
}

// Through the sockets: one stream, one packet at a time, system calls of both ends and
// the relay included.
func BenchmarkSockets(b *testing.B) {
	r := newRig(b, nil)
	k := mustKey(b, SuiteCM80)
	r.setCrypto(Outside, k, k)
	pkt, buf := rtpPacket(1, 0), make([]byte, 2048)
	seq := uint16(0)
	b.ReportAllocs()
	for b.Loop() {
		pkt[2], pkt[3] = byte(seq>>8), byte(seq)
		send(b, r.phone.rtp, r.our(Inside, portRTP), pkt)
		if _, _, err := r.far.rtp.ReadFromUDPAddrPort(buf); err != nil {
			b.Fatal(err)
		}
		seq++
	}
}
