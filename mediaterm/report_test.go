package mediaterm

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// reporter is a relay whose ends have sent sound: the phone SSRC 1, the far end SSRC 2.
type reporter struct {
	*relay
	t    *testing.T
	time time.Time
}

func newReporter(t *testing.T) *reporter {
	t.Helper()
	l := newLoop(t, mustKey(t, SuiteCM80))
	r := &reporter{relay: l.tx, t: t, time: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)}
	r.now = func() time.Time { return r.time }
	if err := r.setCrypto(Outside, nil, nil); err != nil {
		t.Fatal(err)
	}
	r.setClockRate(111, 48000)
	r.from(Inside, rtpPayload(1, 7, 111, 40))
	r.from(Outside, rtpPayload(2, 9, 8, 160))
	return r
}

func (r *reporter) from(side Side, pkt []byte) {
	r.t.Helper()
	src, p := loopPhone, portRTP
	if side == Outside {
		src = loopFar
	}
	if classify(pkt) == kindRTCP {
		p = portRTCP
	}
	r.mu.Lock()
	var out departure
	ok := r.take(&out, side, p, src, pkt, classify(pkt), Instant(r.time), newScratch())
	r.mu.Unlock()
	if !ok {
		r.t.Errorf("not relayed: %x", pkt)
	}
}

func (r *reporter) compound(side Side, pkts ...rtcp.Packet) {
	r.t.Helper()
	b, err := rtcp.Marshal(pkts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.from(side, b)
}

// What each end tells of what it receives stands beside our own figures, with the round trip between us and it.
func TestFarReports(t *testing.T) {
	r := newReporter(t)
	const ntp = 0x1122334455667788
	r.compound(Inside, &rtcp.SenderReport{SSRC: 1, NTPTime: ntp})
	r.time = r.time.Add(300 * time.Millisecond)
	block := rtcp.ReceptionReport{SSRC: 1, FractionLost: 64, TotalLost: 12, Jitter: 480, LastSenderReport: ntp >> 16 & 0xffffffff, Delay: 65536 / 4}
	voip := &rtcp.VoIPMetricsReportBlock{SSRC: 1, LossRate: 128, DiscardRate: 64, BurstDuration: 500, GapDuration: 900, RoundTripDelay: 70, EndSystemDelay: 90, RFactor: 88, MOSLQ: 41, MOSCQ: 127, JBNominal: 60}
	r.compound(Outside, &rtcp.SenderReport{SSRC: 2, NTPTime: 5 << 16, Reports: []rtcp.ReceptionReport{{SSRC: 77, FractionLost: 255}, block}}, &rtcp.ExtendedReport{SenderSSRC: 2, Reports: []rtcp.ReportBlock{voip}})
	_, out := r.stats()
	want := FarReport{
		At: r.time, SSRC: 1, LossPercent: 25, Lost: 12, JitterMS: 10, RoundTrip: true, RoundTripMS: 50, Reports: 1, OtherReports: 1,
		VoIP: FarVoIP{At: r.time, LossPercent: 50, DiscardPercent: 25, BurstMS: 500, GapMS: 900, RoundTripMS: 70, EndSystemMS: 90, R: 88, MOSLQ: 4.1, MOSCQ: -1, JitterBufferMS: 60},
	}
	if math.Abs(out.Report.RoundTripMS-50) > 0.1 {
		t.Errorf("round trip %v ms", out.Report.RoundTripMS)
	}
	out.Report.RoundTripMS = 50
	if out.Report != want {
		t.Errorf("\ngot  %+v\nwant %+v", out.Report, want)
	}
	// The phone has no report of the far end's that it could repeat, more copies than packets, and leaves the old figures where they are.
	r.time = r.time.Add(time.Second)
	r.compound(Inside, &rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 2, TotalLost: 0xffffff, Jitter: 80, LastSenderReport: 99}}})
	in, out := r.stats()
	if got, want := in.Report, (FarReport{At: r.time, SSRC: 2, Lost: -1, JitterMS: 10, Reports: 1}); got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
	if out.Report.Reports != 1 {
		t.Errorf("a report of the phone counts outside: %+v", out.Report)
	}
}

// Only the last reports that passed can be answered: memory is bounded, and a late answer gives no round trip.
func TestSenderReportsBounded(t *testing.T) {
	r := newReporter(t)
	for i := range uint64(sentReports + 1) {
		r.compound(Inside, &rtcp.SenderReport{SSRC: 1, NTPTime: (i + 1) << 16})
	}
	for lsr, want := range map[uint32]bool{1: false, 2: true, sentReports + 1: true, 0: false} {
		r.compound(Outside, &rtcp.ReceiverReport{SSRC: 2, Reports: []rtcp.ReceptionReport{{SSRC: 1, LastSenderReport: lsr}}})
		if _, out := r.stats(); out.Report.RoundTrip != want {
			t.Errorf("answer to report %d: %v", lsr, out.Report.RoundTrip)
		}
	}
}

// Reports are hostile bytes: no panic, figures within what the fields can say, no allocation.
func FuzzReports(f *testing.F) {
	f.Add(senderReport(1))
	b, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 2, Reports: []rtcp.ReceptionReport{{SSRC: 1}}}, &rtcp.ExtendedReport{SenderSSRC: 2, Reports: []rtcp.ReportBlock{&rtcp.VoIPMetricsReportBlock{SSRC: 1}}}})
	f.Add(b)
	f.Add([]byte{0x80, 203, 0, 0})
	f.Add([]byte{0x80, 207, 0, 2, 0, 0, 0, 0, 7, 0, 0, 8})
	l := newLoop(f, mustKey(f, SuiteCM80))
	l.seal(rtpPacket(1, 1))
	r := l.tx
	f.Fuzz(func(t *testing.T, p []byte) {
		if !validCompound(p) {
			return
		}
		r.report(Outside, p, time.Unix(1, 0))
		g := r.legs[Outside].reports().last
		if g.LossPercent < 0 || g.LossPercent >= 100 || g.JitterMS < 0 || g.RoundTripMS < 0 || g.VoIP.R > 255 || g.VoIP.MOSLQ > 5 {
			t.Errorf("%+v", g)
		}
		if n := testing.AllocsPerRun(1, func() { r.report(Outside, p, time.Unix(1, 0)) }); n > 0 {
			t.Errorf("%v allocations for %x", n, p)
		}
	})
}

type seenPackets []WatchedPacket

func (*seenPackets) Prefetch(int) {}

func (s *seenPackets) Watch(_ time.Duration, p WatchedPacket) { *s = append(*s, p) }

// Who watches a stream is told of authentic packets from the outside alone: not of forged ones, of replays, of those under another key, of
// those of the phone, or of a leg in the clear.
func TestWatcherSeesAuthenticPacketsAlone(t *testing.T) {
	k := mustKey(t, SuiteCM80)
	l := newLoop(t, k)
	var seen seenPackets
	l.rx.watcher = &seen
	var good [][]byte
	for i := range uint16(5) {
		wire := l.seal(rtpPacket(1, i))
		forged := bytes.Clone(wire)
		forged[len(forged)-1] ^= 1
		header := bytes.Clone(wire)
		header[3] += 40
		l.open(forged)
		l.open(header)
		l.open(rtpPacket(1, i))
		if l.open(wire) == nil {
			t.Fatal("a good packet is refused")
		}
		l.open(wire)
		good = append(good, wire)
	}
	for _, w := range good {
		l.open(w)
	}
	stranger := newLoop(t, mustKey(t, SuiteCM80))
	l.open(stranger.seal(rtpPacket(1, 100)))
	l.rx.receive(Inside, portRTP, loopPhone, rtpPacket(9, 1), l.rxs)
	if err := l.rx.setCrypto(Outside, nil, nil); err != nil {
		t.Fatal(err)
	}
	if l.open(rtpPacket(1, 50)) == nil {
		t.Error("a plain leg does not relay")
	}
	if len(seen) != 5 {
		t.Fatalf("%d packets seen: %+v", len(seen), seen)
	}
	for i, p := range seen {
		if want := (WatchedPacket{SSRC: 1, Seq: uint16(i), Timestamp: uint32(i) * 160, PayloadLength: 160}); p != want {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
}
