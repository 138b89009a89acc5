package proxy

import (
	"strings"
	"testing"
	"time"

	"imeproxy/mediaterm"
	"imeproxy/proxy/observe"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// A report says who called, who is inside, and of the sound what was measured alone.
func TestQualityReport(t *testing.T) {
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	m, bad := sipalg.Parse([]byte("INVITE sip:b@b.example SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bK1\r\nFrom: <sip:a@a.example>;tag=1\r\nTo: <sip:b@b.example>\r\nCall-ID: one\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"))
	if bad != nil {
		t.Fatal(bad)
	}
	c := &call{d: dialog.Open(m, dialog.Inside, at), rec: observe.CallRecord{
		Direction: "inbound", From: "+12125550199", To: "+14085550100", LocalDomain: "a.example", PeerDomain: "b.example", Connect: at, End: at.Add(time.Minute),
	}}
	st := &mediaterm.Stats{Outside: mediaterm.LegStats{Local: "209.165.200.228:21558", Remote: "209.165.202.130:29824", Source: "209.165.202.131:1024", LegCounts: mediaterm.LegCounts{SSRC: 7}}}
	l := &mediaLine{kind: "audio", codec: "opus/48000/2", pt: "111"}
	text := string(c.qualityReport(l, st).Body())
	for _, want := range []string{"LocalID: <sip:+14085550100@a.example>\r\n", "RemoteID: <sip:+12125550199@b.example>\r\n", "OrigID: <sip:+12125550199@b.example>\r\n", "RemoteAddr: IP=209.165.202.131 PORT=1024 SSRC=0x00000007\r\n", "SessionDesc: PT=111 PD=opus SR=48000\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "NLR") || strings.Contains(text, "MOS") || strings.Contains(text, "RemoteMetrics") {
		t.Errorf("figures out of nowhere:\n%s", text)
	}
	c.rec.Direction, c.rec.From, c.rec.To = "outbound", c.rec.To, c.rec.From
	st.Outside.RxRTPPackets, st.Outside.Lost, st.Outside.JitterMS = 95, 5, 3
	st.Outside.Report = mediaterm.FarReport{Reports: 1, LossPercent: 2, JitterMS: 4, RoundTrip: true, RoundTripMS: 30, VoIP: mediaterm.FarVoIP{At: at, LossPercent: 2.5, DiscardPercent: 1, R: -1, MOSLQ: 4.1, MOSCQ: -1}}
	l.codec, l.pt = "PCMU", "0"
	text = string(c.qualityReport(l, st).Body())
	for _, want := range []string{"OrigID: <sip:+14085550100@a.example>\r\n", "PacketLoss: NLR=5.00\r\nDelay: RTD=30 IAJ=3\r\nQualityEst: RLQ=77 MOSLQ=3.9 QoEEstAlg=G.107\r\n", "PacketLoss: NLR=2.50 JDR=1.00\r\n", "QualityEst: MOSLQ=4.1\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
