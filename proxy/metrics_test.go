package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/peerserver"
)

// The reference page names every metric with its help text, and no other; 8 s of a call count once, by who called.
func TestMetricsDocumented(t *testing.T) {
	a := &Appliance{}
	a.plan.Store(testPlan(t, edgeConfig))
	a.quality = newQuality(a)
	var err error
	if a.counters, err = newCounters(); err != nil {
		t.Fatal(err)
	}
	withPeer := func() observe.Live {
		l := a.live()
		l.Peer = perf(peerserver.Status{}, time.Now())
		l.Media = new(observe.MediaEngine)
		return l
	}
	if a.metrics, err = observe.NewMetrics(a.counters, withPeer); err != nil {
		t.Fatal(err)
	}
	x, err := a.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, m := range regexp.MustCompile(`(?m)^# HELP (\S+) (.*)$`).FindAllStringSubmatch(x.Text(), -1) {
		rows++
		if row := "| `" + m[1] + "` | " + m[2] + " |"; !strings.Contains(string(doc), row) {
			t.Errorf("docs/metrics.md lacks %s", row)
		}
	}
	if n := len(regexp.MustCompile("(?m)^[|] `imeproxy_").FindAllString(string(doc), -1)); n != rows || rows < 15 {
		t.Errorf("%d metrics are documented, %d are there", n, rows)
	}
}

func TestWindowsCountOnce(t *testing.T) {
	c := newCrowd(t, 4)
	a := c.q.a
	var err error
	if a.counters, err = newCounters(); err != nil {
		t.Fatal(err)
	}
	if a.metrics, err = observe.NewMetrics(a.counters, a.live); err != nil {
		t.Fatal(err)
	}
	c.calls[0].direction, c.calls[1].direction, c.calls[2].direction = "inbound", "inbound", "outbound"
	c.run(25*time.Second, 1, 5, func(i int) bool { return i == 2 })
	x, err := a.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`imeproxy_quality_window_loss_ratio_bucket{direction="inbound",le="0"} 6`, `imeproxy_quality_window_loss_ratio_count{direction="inbound"} 6`,
		`imeproxy_quality_window_loss_ratio_bucket{direction="outbound",le="0.1"} 0`, `imeproxy_quality_window_loss_ratio_bucket{direction="outbound",le="0.2"} 3`,
		`imeproxy_quality_calls{state="suspect"} 0`, `imeproxy_quality_calls{state="notified"} 1`, `imeproxy_quality_calls{state="good"} 3`,
	} {
		if !strings.Contains(x.Text(), want+"\n") {
			t.Errorf("%s is not in\n%s", want, x.Text())
		}
	}
}

// The page needs no password: it is served on this host alone, and ends with the appliance.
func TestMetricsOnLoopbackAlone(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &Appliance{ctx: ctx}
	a.plan.Store(testPlan(t, edgeConfig))
	a.quality = newQuality(a)
	var err error
	if a.counters, err = newCounters(); err != nil {
		t.Fatal(err)
	}
	if a.metrics, err = observe.NewMetrics(a.counters, a.live); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"0.0.0.0:9464", "192.168.10.3:9464", "[::]:9464", "localhost:9464", "9464"} {
		if err := a.serveMetrics(bad); err == nil {
			t.Errorf("served on %s", bad)
		}
	}
	if err := a.serveMetrics(""); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close()
	if err := a.serveMetrics(at); err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), "imeproxy_media_streams 0\n") {
		t.Errorf("%v %s: %.300s", err, res.Status, body)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	a.wg.Wait()
	if _, err := http.Get("http://" + at + "/metrics"); err == nil {
		t.Error("it answers although the appliance has stopped")
	}
}
