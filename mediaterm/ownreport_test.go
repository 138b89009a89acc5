package mediaterm

import (
	"bytes"
	"errors"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// someVoIP are figures whose report is worked out by hand below.
var someVoIP = VoIP{
	Loss: 0.1, BurstDensity: 0.5, GapDensity: 0.0625, BurstLength: 260 * time.Millisecond, GapLength: 9 * time.Second, R: 78.6, MOSLQ: 4.12, MOSCQ: -1,
}

// The far end reads what a report of our own says of its sound, as libsrtp opens it and tshark decodes it: a receiver report while the end
// inside sends none, and the VoIP metrics.
func TestOwnReport(t *testing.T) {
	r := newRig(t, nil)
	reporter := NewReporter(r.stream)
	if err := reporter.Send(someVoIP, time.Now()); !errors.Is(err, ErrNoReport) {
		t.Errorf("a report without sound and key: %v", err)
	}
	local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
	r.setCrypto(Outside, local, remote)
	far := newPeer(t, *remote, *local)
	for seq := uint16(65530); seq != 4; seq++ { // ten numbers, and two of them are lost
		if seq != 65532 && seq != 1 {
			send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', rtpPacket(7, seq)))
		}
	}
	send(t, r.far.rtcp, r.our(Outside, portRTCP), far.one('P', senderReport(7)))
	r.waitFor(func(s Stats) bool { return s.Outside.RxRTPPackets == 8 && s.Outside.RxRTCPPackets == 1 })

	read := func() (plain []byte, rr *rtcp.ReceiverReport, x *rtcp.VoIPMetricsReportBlock) {
		t.Helper()
		if err := reporter.Send(someVoIP, time.Now()); err != nil {
			t.Fatal(err)
		}
		wire, from := recv(t, r.far.rtcp)
		if from != r.our(Outside, portRTCP) {
			t.Errorf("it comes from %s", from)
		}
		plain = far.one('U', wire)
		all, err := rtcp.Unmarshal(plain)
		if err != nil || len(all) != 3 {
			t.Fatalf("%v %v", all, err)
		}
		rr, _ = all[0].(*rtcp.ReceiverReport)
		sdes, _ := all[1].(*rtcp.SourceDescription)
		xr, _ := all[2].(*rtcp.ExtendedReport)
		if rr == nil || sdes == nil || xr == nil || len(xr.Reports) != 1 || rr.SSRC != xr.SenderSSRC || rr.SSRC == 7 || len(sdes.Chunks) != 1 || sdes.Chunks[0].Source != rr.SSRC {
			t.Fatalf("%v", all)
		}
		x, _ = xr.Reports[0].(*rtcp.VoIPMetricsReportBlock)
		return plain, rr, x
	}
	plain, rr, x := read()
	if len(rr.Reports) != 1 {
		t.Fatalf("%v", rr)
	}
	b := rr.Reports[0]
	if b.SSRC != 7 || b.FractionLost != 51 || b.TotalLost != 2 || b.LastSequenceNumber != 1<<16+3 || b.LastSenderReport == 0 || b.Delay > 65536*uint32(patience/time.Second) {
		t.Errorf("%+v", b)
	}
	want := rtcp.VoIPMetricsReportBlock{
		XRHeader: x.XRHeader, SSRC: 7, LossRate: 25, BurstDensity: 128, GapDensity: 16, BurstDuration: 260, GapDuration: 9000, SignalLevel: 127, NoiseLevel: 127,
		RERL: 127, Gmin: 16, RFactor: 79, ExtRFactor: 127, MOSLQ: 41, MOSCQ: 127,
	}
	if *x != want {
		t.Errorf("\ngot  %+v\nwant %+v", *x, want)
	}
	decoded(t, plain)

	// One more number is lost, one comes; the next report tells of these two alone as its share, and the end inside has begun to report.
	send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', rtpPacket(7, 5)))
	r.waitFor(func(s Stats) bool { return s.Outside.RxRTPPackets == 9 })
	if _, rr, _ = read(); len(rr.Reports) != 1 || rr.Reports[0].FractionLost != 128 || rr.Reports[0].TotalLost != 3 {
		t.Errorf("%+v", rr)
	}
	report := senderReport(1)
	send(t, r.phone.rtcp, r.our(Inside, portRTCP), report)
	wire, _ := recv(t, r.far.rtcp)
	if got := far.one('U', wire); !bytes.Equal(got, report) {
		t.Errorf("the phone's report came as %x", got)
	}
	if _, rr, x = read(); len(rr.Reports) != 0 || x == nil {
		t.Errorf("%+v", rr)
	}
	r.setRemote(Outside, Remote{}) // hold
	if err := reporter.Send(someVoIP, time.Now()); !errors.Is(err, ErrNoReport) {
		t.Errorf("on hold: %v", err)
	}
}

// decoded lets tshark read a report.
func decoded(t *testing.T, plain []byte) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Log("this machine has no tshark (Debian: tshark)")
		return
	}
	file := filepath.Join(t.TempDir(), "report.pcap")
	writeCapture(t, file, [][]passing{{{0, plain}}})
	args := []string{"-n", "-r", file, "-d", "udp.port==20000,rtcp", "-T", "fields", "-E", "separator=/s"}
	for _, f := range []string{
		"rtcp.length_check", "rtcp.ssrc.fraction", "rtcp.ssrc.cum_nr", "rtcp.ssrc.ext_high", "rtcp.xr.bt", "rtcp.xr.voipmetrics.burstdensity", "rtcp.xr.voipmetrics.gapdensity",
		"rtcp.xr.voipmetrics.burstduration", "rtcp.xr.voipmetrics.gapduration", "rtcp.xr.voipmetrics.gmin", "rtcp.xr.voipmetrics.rfactor", "rtcp.xr.voipmetrics.moslq",
		"rtcp.xr.voipmetrics.moscq", "_ws.malformed",
	} {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	if got, want := strings.TrimSpace(string(out)), "1 51,25 2 65539 7 128 16 260 9000 16 79 4.1 127"; got != want && got != strings.Replace(want, "1", "True", 1) {
		t.Errorf("tshark reads %s, want %s", got, want)
	}
}

// An imeproxy shows what another one reports, beside its own figures, when the phones report nothing.
func TestOwnReportIsShownAtTheFarEnd(t *testing.T) {
	l := newLoop(t, mustKey(t, SuiteCM80))
	for seq := range uint16(4) {
		if seq == 2 {
			continue
		}
		out, ok := l.rx.receive(Inside, portRTP, loopPhone, rtpPacket(2, seq), l.rxs)
		if !ok {
			t.Fatal("not sent")
		}
		if _, ok := l.tx.receive(Outside, portRTP, loopFar, bytes.Clone(out.data), l.txs); !ok {
			t.Fatal("not received")
		}
	}
	r := &Reporter{ssrc: 99, name: "x"}
	out, ok := l.tx.own(func(w *reportView) []byte { return r.compound(someVoIP, w, time.Now()) }, r.ssrc, l.txs)
	if !ok {
		t.Fatal("no report")
	}
	if _, ok := l.rx.receive(Outside, portRTCP, loopFar, bytes.Clone(out.data), l.rxs); !ok {
		t.Fatal("the report does not arrive")
	}
	_, side := l.rx.stats()
	got := side.Report
	if got.SSRC != 2 || got.LossPercent != 25 || got.Lost != 1 || got.Reports != 1 || got.OtherReports != 0 || got.VoIP.R != 79 || got.VoIP.MOSLQ != 4.1 || got.VoIP.MOSCQ != -1 ||
		got.VoIP.BurstMS != 260 || math.Abs(got.VoIP.LossPercent-9.77) > 0.01 {
		t.Errorf("%+v", got)
	}
}
