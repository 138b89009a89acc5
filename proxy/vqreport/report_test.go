package vqreport

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/sipalg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ptr(v float64) *float64 { return &v }

func sample() *Report {
	return &Report{
		CallID: "ab6d7980@192.168.10.30", LocalID: "sip:+14085550100@a.example", RemoteID: "sip:+12125550199@b.example", Caller: "sip:+14085550100@a.example",
		LocalAddr: netip.MustParseAddrPort("209.165.200.228:21558"), RemoteAddr: netip.MustParseAddrPort("209.165.202.130:29824"), LocalSSRC: 0x1a3b5c7d, RemoteSSRC: 1,
		Start: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), Stop: time.Date(2026, 11, 27, 12, 1, 30, 0, time.UTC), PayloadType: 0, Codec: "PCMU", ClockRate: 8000,
		Local:  Metrics{Loss: ptr(1.254), RoundTrip: ptr(50.4), Jitter: ptr(3.2), R: ptr(88.2), MOSLQ: ptr(4.29), Algorithm: "G.107"},
		Remote: &Metrics{Loss: ptr(0.5), Discard: ptr(0.25), EndSystem: ptr(60), MOSCQ: ptr(4)},
	}
}

// The body is the grammar's of RFC 6035, and has what was measured alone.
func TestBody(t *testing.T) {
	want := `VQSessionReport: CallTerm
CallID: ab6d7980@192.168.10.30
LocalID: <sip:+14085550100@a.example>
RemoteID: <sip:+12125550199@b.example>
OrigID: <sip:+14085550100@a.example>
LocalAddr: IP=209.165.200.228 PORT=21558 SSRC=0x1a3b5c7d
RemoteAddr: IP=209.165.202.130 PORT=29824 SSRC=0x00000001
LocalMetrics:
Timestamps: START=2026-11-27T12:00:00Z STOP=2026-11-27T12:01:30Z
SessionDesc: PT=0 PD=PCMU SR=8000
PacketLoss: NLR=1.25
Delay: RTD=50 IAJ=3
QualityEst: RLQ=88 MOSLQ=4.3 QoEEstAlg=G.107
RemoteMetrics:
Timestamps: START=2026-11-27T12:00:00Z STOP=2026-11-27T12:01:30Z
SessionDesc: PT=0 PD=PCMU SR=8000
PacketLoss: NLR=0.50 JDR=0.25
Delay: ESD=60
QualityEst: MOSCQ=4.0
`
	if got := strings.ReplaceAll(string(sample().Body()), "\r\n", "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	hostile := sample()
	hostile.CallID, hostile.Codec = "x\r\nQualityEst: MOSLQ=5.0 <"+strings.Repeat("y", 500), "G722\r\n\r\n"
	if got := string(hostile.Body()); strings.Count(got, "\n") != strings.Count(want, "\n") || strings.Contains(got, "\r\nQualityEst: MOSLQ=5") || strings.Contains(got, strings.Repeat("y", 200)) {
		t.Errorf("hostile text:\n%s", got)
	}
}

// collector answers the requests that come by a script: a status each, 0 for none, -1 for a stranger's answer.
func collector(t *testing.T, script ...int) (at netip.AddrPort, seen chan []byte) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	seen = make(chan []byte, 16)
	go func() {
		buf := make([]byte, 4096)
		for _, status := range script {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			req := bytes.Clone(buf[:n])
			seen <- req
			m, bad := sipalg.Parse(req)
			if bad != nil {
				return
			}
			via := m.Get("Via")
			if status < 0 {
				via, status = strings.Replace(via, "z9hG4bK", "z9hG4bKother", 1), 200
			}
			if status > 0 {
				_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "SIP/2.0 %d X\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: 1 PUBLISH\r\nContent-Length: 0\r\n\r\n",
					status, via, m.Get("From"), m.Get("To"), m.CallID()), from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), seen
}

// A report goes out until it is answered, and what came of it is counted; another's answer counts for nothing.
func TestPublish(t *testing.T) {
	at, seen := collector(t, 0, -1, 100, 200, 489)
	p := New(slog.New(slog.DiscardHandler))
	p.first, p.longest = 20*time.Millisecond, 40*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	p.Publish(at, "sip:uc-ime@192.168.10.3", sample())
	first := <-seen
	for range 2 {
		if again := <-seen; !bytes.Equal(first, again) {
			t.Errorf("repeated as\n%s\nfirst\n%s", again, first)
		}
	}
	m, bad := sipalg.Parse(first)
	if bad != nil {
		t.Fatal(bad)
	}
	if m.Method != "PUBLISH" || m.Get("Event") != "vq-rtcpxr" || m.Get("Content-Type") != "application/vq-rtcpxr" || !bytes.Equal(m.Body, sample().Body()) || len(first) > 1300 {
		t.Errorf("%d bytes:\n%s", len(first), first)
	}
	<-seen // the last repetition, which is answered
	p.Publish(at, "sip:uc-ime@192.168.10.3", sample())
	<-seen
	for end := time.Now().Add(10 * time.Second); p.Counts().Refused == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := p.Counts(); got != (Counts{Published: 1, Refused: 1}) {
		t.Errorf("%+v", got)
	}
	cancel()
	<-done
}

// Where nobody answers, reports are given up, and where too many wait, dropped: nothing grows, nobody waits.
func TestNobodyAnswers(t *testing.T) {
	at, seen := collector(t, 0, 0, 0, 0, 0, 0, 0, 0)
	p := New(slog.New(slog.DiscardHandler))
	p.first, p.longest, p.giveUp = 5*time.Millisecond, 10*time.Millisecond, 30*time.Millisecond
	for range queueLength + 3 {
		p.Publish(at, "sip:x@y", sample())
	}
	long := sample()
	long.RemoteID, long.LocalID, long.CallID, long.Caller, long.Codec = strings.Repeat("r", 500), strings.Repeat("l", 500), strings.Repeat("c", 500), strings.Repeat("o", 500), strings.Repeat("d", 500)
	if n := len(long.Body()); n < maxBody {
		t.Errorf("the longest report has %d bytes", n)
	}
	if got := p.Counts(); got.Dropped != 3 {
		t.Errorf("%+v", got)
	}
	if err := p.send(context.Background(), <-p.queue); err == nil || p.Counts().Unanswered != 1 || len(seen) < 2 {
		t.Errorf("%v %+v, sent %d times", err, p.Counts(), len(seen))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Run(ctx) // ends although reports wait
}
