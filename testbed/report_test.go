package testbed

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// A collector gets a report on each call that ends, with our figures and those of the far end, and the proxy counts its answer.
func TestQualityReport(t *testing.T) {
	s := StartStubs(t)
	at := netip.AddrPortFrom(s.A.UCMIP, 5090)
	collector, err := s.A.UCMHost.ListenUDP(at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer collector.Close()
	s.mustReload(t, replaceOnce(s.Proxy.DefaultConfig(t), " ticket epoch", fmt.Sprintf(" quality-report collector %s port %d\n ticket epoch", at.Addr(), at.Port())))
	for _, out := range []bool{true, false} {
		k := s.talk(t, out, srtpSuites[0])
		k.bothWays(t, 20)
		k.reports(t, false)
		k.end(t)
		buf := make([]byte, 2048)
		if err := collector.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		n, from, err := collector.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("no report: %v", err)
		}
		m := string(buf[:n])
		for _, want := range []string{
			"PUBLISH sip:" + at.String() + " SIP/2.0\r\n", "\r\nEvent: vq-rtcpxr\r\n", "\r\nContent-Type: application/vq-rtcpxr\r\n", "VQSessionReport: CallTerm\r\nCallID: " + k.caller.CallID + "\r\n",
			fmt.Sprintf("RemoteAddr: IP=%s PORT=%d SSRC=0x%08x\r\n", k.far.Addr.Addr(), k.far.Addr.Port(), k.far.SSRC), "PacketLoss: NLR=0.00\r\n", "MOSLQ=4.4 QoEEstAlg=G.107\r\n",
			"RemoteMetrics:\r\n", "PacketLoss: NLR=21.48\r\nDelay: IAJ=34\r\n",
		} {
			if !strings.Contains(m, want) {
				t.Errorf("%q is not in\n%s", want, m)
			}
		}
		var answer strings.Builder
		answer.WriteString("SIP/2.0 200 OK\r\n")
		for line := range strings.SplitSeq(m, "\r\n") {
			if name, _, _ := strings.Cut(line, ":"); name == "Via" || name == "From" || name == "To" || name == "Call-ID" || name == "CSeq" {
				answer.WriteString(line + "\r\n")
			}
		}
		if _, err := collector.WriteToUDPAddrPort([]byte(answer.String()+"Content-Length: 0\r\n\r\n"), from); err != nil {
			t.Fatal(err)
		}
	}
	var stats struct {
		Published int `json:"quality_reports_published"`
	}
	Until(t, wait, "both answers are counted", func() bool {
		s.Proxy.Show(t, "uc-ime fallback-notification statistics", &stats)
		return stats.Published == 2
	})
}

// The far end outside is told how its sound arrives, where the configuration says so, while the phone inside reports nothing.
func TestReportsOfOurOwn(t *testing.T) {
	s := StartStubs(t)
	k := s.talk(t, true, srtpSuites[0])
	k.bothWays(t, 50)
	k.far.ForgetReports()
	s.mustReload(t, replaceOnce(s.Proxy.DefaultConfig(t), " ticket epoch", " quality-report rtcp-xr\n ticket epoch"))
	var got [][]byte
	Until(t, 20*time.Second, "a report comes", func() bool {
		got, _ = k.far.Reports()
		return len(got) > 0 || len(k.far.Bad()) > 0
	})
	if len(got) == 0 {
		t.Fatalf("unreadable: %v", k.far.Bad())
	}
	all, err := rtcp.Unmarshal(got[0])
	if err != nil || len(all) != 3 {
		t.Fatalf("%x: %v", got[0], err)
	}
	rr, _ := all[0].(*rtcp.ReceiverReport)
	if rr == nil || len(rr.Reports) != 1 || rr.Reports[0].SSRC != k.far.SSRC || rr.Reports[0].TotalLost != 0 {
		t.Errorf("%v", all[0])
	}
	xr, _ := all[2].(*rtcp.ExtendedReport)
	if xr == nil || len(xr.Reports) != 1 {
		t.Fatalf("%v", all[2])
	}
	if v, _ := xr.Reports[0].(*rtcp.VoIPMetricsReportBlock); v == nil || v.SSRC != k.far.SSRC || v.LossRate != 0 || v.MOSLQ != 44 || v.Gmin != 16 {
		t.Errorf("%+v", xr.Reports[0])
	}
	if inside, _ := k.phone.Reports(); len(inside) > 0 {
		t.Errorf("the phone inside got %x", inside)
	}
	k.end(t)
}
