package observe

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func testMetrics(t *testing.T) *Metrics {
	t.Helper()
	counters, err := NewCounters(Family{Area: "sip", What: "messages_refused", Help: "SIP messages that went no further, by cause.", Reasons: []string{"bad_header"}},
		Family{Area: "sip", What: "keepalives", Help: "RFC 5626 pings answered."})
	if err != nil {
		t.Fatal(err)
	}
	counters.Inc("sip", "messages_refused", "bad_header")
	m, err := NewMetrics(counters, func() Live {
		return Live{Calls: map[string]int{"good": 3, "suspect": 1, "made up": 9}, Streams: 5, Media: &MediaEngine{PacketsReceived: 6, DroppedByOverload: 8, Stalls: 9, LongestStall: 25 * time.Millisecond}, Quality: FallbackStatistics{Queued: 2, Sent: 7, Accepted: 6, Failed: 1}}
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The page has the counters and histograms, names and labels as Prometheus wants them, and nothing from outside a closed set.
func TestMetrics(t *testing.T) {
	m := testMetrics(t)
	m.Window("inbound", Window{LossRatio: 0.03, Burst: 0.1, PDV: 0.05, MOS: 4.1})
	m.Window("inbound", Window{MOS: 4.4})
	m.Window("outbound", Window{LossRatio: 1, Burst: 3, MOS: 1})
	m.Window("sideways", Window{LossRatio: 1, MOS: 1})
	page := httptest.NewRecorder()
	m.Handler().ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	shown, err := m.Exposition()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{page.Body.String(), shown.Text()} {
		for _, want := range []string{
			`imeproxy_quality_window_loss_ratio_bucket{direction="inbound",le="0.02"} 1`, `imeproxy_quality_window_loss_ratio_bucket{direction="inbound",le="0.05"} 2`,
			`imeproxy_quality_window_loss_ratio_count{direction="outbound"} 1`, `imeproxy_quality_window_mos_sum{direction="inbound"} 8.5`,
			`imeproxy_quality_window_burst_seconds_bucket{direction="outbound",le="2"} 0`, `imeproxy_quality_window_pdv_seconds_bucket{direction="inbound",le="0.08"} 2`,
			`imeproxy_sip_messages_refused_total{reason="bad_header"} 1`, `imeproxy_sip_keepalives_total 0`, `imeproxy_quality_calls{state="good"} 3`,
			`imeproxy_fallback_notifications_answered_total{result="failed"} 1`, `imeproxy_media_streams 5`,
			`imeproxy_media_packets_received_total 6`, `imeproxy_media_packets_dropped_total{reason="overload"} 8`, `imeproxy_media_stalls_total 9`, `imeproxy_media_longest_stall_seconds 0.025`,
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("%s is not in\n%s", want, text)
			}
		}
		if strings.Contains(text, "sideways") || strings.Contains(text, "made up") {
			t.Errorf("a label out of nowhere:\n%s", text)
		}
	}
	if problems, err := testutil.GatherAndLint(m.registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
