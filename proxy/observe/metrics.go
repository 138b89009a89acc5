package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// Metrics has what Prometheus collects: the counters of Counters, the quality of calls as histograms, and numbers of this moment. Labels come
// from closed sets. The registry is its own, not the process's. Safe for concurrent use.
type Metrics struct {
	registry              *prometheus.Registry
	loss, burst, pdv, mos *prometheus.HistogramVec
}

// Window is what 8 s of a call's audio from the Internet showed.
type Window struct {
	LossRatio  float64 // 0 to 1
	Burst, PDV float64 // seconds
	MOS        float64
}

// Live are numbers of the moment when they are collected.
type Live struct {
	Calls   map[string]int // whose quality is watched, by state: "good", "suspect", "notified"
	Streams int
	Media   *MediaEngine // nil: the engine keeps no figures
	Quality FallbackStatistics
	Peer    []PerfObject // of the peer server; none where there is none
}

var directions = []string{"inbound", "outbound"}

// NewMetrics makes the registry; live is asked at each collection.
func NewMetrics(counters *Counters, live func() Live) (*Metrics, error) {
	m := &Metrics{registry: prometheus.NewRegistry()}
	histogram := func(name, help string, buckets ...float64) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "imeproxy_quality_window_" + name, Buckets: buckets,
			Help: help + " in 8 s of a call's audio from the Internet, one window after the other, by who called.",
		}, []string{"direction"})
		for _, d := range directions {
			v.WithLabelValues(d)
		}
		return v
	}
	// The limits of the built-in sensitivity levels are among the bounds.
	m.loss = histogram("loss_ratio", "Packets lost", 0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
	m.burst = histogram("burst_seconds", "The longest run of lost packets", 0, 0.02, 0.04, 0.12, 0.3, 0.6, 1.2, 2, 4, 8)
	m.pdv = histogram("pdv_seconds", "95th percentile of the packet delay variation", 0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.2, 0.4, 1)
	m.mos = histogram("mos", "MOS by the E-model", 1.5, 2, 2.5, 3, 3.3, 3.6, 3.8, 4, 4.2, 4.35)
	for _, c := range []prometheus.Collector{m.loss, m.burst, m.pdv, m.mos, &bridge{counters: counters, live: live}} {
		if err := m.registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

// Window counts 8 s of a call. A direction outside the closed set counts nowhere.
func (m *Metrics) Window(direction string, w Window) {
	for _, d := range directions {
		if d != direction {
			continue
		}
		m.loss.WithLabelValues(d).Observe(w.LossRatio)
		m.burst.WithLabelValues(d).Observe(w.Burst)
		m.pdv.WithLabelValues(d).Observe(w.PDV)
		m.mos.WithLabelValues(d).Observe(w.MOS)
	}
}

// Handler answers a collector.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}

// Exposition is the text of all metrics, as Prometheus reads it (`show metrics`).
type Exposition struct{ text string }

// Exposition collects.
func (m *Metrics) Exposition() (Exposition, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return Exposition{}, fmt.Errorf("metrics: %w", err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return Exposition{}, fmt.Errorf("metrics: %w", err)
		}
	}
	return Exposition{b.String()}, nil
}

// Text is the exposition.
func (e Exposition) Text() string { return e.text }

// MarshalJSON has the text as a string: it is a format of its own.
func (e Exposition) MarshalJSON() ([]byte, error) { return json.Marshal(object{{"metrics", e.text}}) }

// bridge gives Prometheus the counters that others keep.
type bridge struct {
	counters *Counters
	live     func() Live
}

// Describe sends nothing: the set is fixed, but told by Collect alone.
func (b *bridge) Describe(chan<- *prometheus.Desc) {}

func (b *bridge) Collect(out chan<- prometheus.Metric) {
	descs := make(map[string]*prometheus.Desc)
	for _, s := range b.counters.Snapshot() {
		var labels, values []string
		if s.Reason != "" {
			labels, values = []string{"reason"}, []string{s.Reason}
		}
		if descs[s.Name] == nil {
			descs[s.Name] = prometheus.NewDesc(s.Name, s.Help, labels, nil)
		}
		out <- prometheus.MustNewConstMetric(descs[s.Name], prometheus.CounterValue, float64(s.Value), values...)
	}
	l := b.live()
	calls := prometheus.NewDesc("imeproxy_quality_calls", "Calls whose quality is watched now, by state.", []string{"state"}, nil)
	for _, state := range []string{"good", "suspect", "notified"} {
		out <- prometheus.MustNewConstMetric(calls, prometheus.GaugeValue, float64(l.Calls[state]), state)
	}
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("imeproxy_quality_calls_queued", "Calls that are to be told to fall back when the rate allows.", nil, nil), prometheus.GaugeValue, float64(l.Quality.Queued))
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("imeproxy_media_streams", "Media streams in use now.", nil, nil), prometheus.GaugeValue, float64(l.Streams))
	mediaMetrics(out, l.Media)
	sent := prometheus.NewDesc("imeproxy_fallback_notifications_sent_total", "REFERs to fall back to the PSTN.", nil, nil)
	out <- prometheus.MustNewConstMetric(sent, prometheus.CounterValue, float64(l.Quality.Sent))
	answers := prometheus.NewDesc("imeproxy_fallback_notifications_answered_total", "What came of them: accepted, deferred (to be repeated), failed.", []string{"result"}, nil)
	for result, n := range map[string]uint64{"accepted": l.Quality.Accepted, "deferred": l.Quality.Deferred, "failed": l.Quality.Failed} {
		out <- prometheus.MustNewConstMetric(answers, prometheus.CounterValue, float64(n), result)
	}
	peerMetrics(out, l.Peer)
	reports, r := prometheus.NewDesc("imeproxy_quality_reports_total", "Reports to the collector (RFC 6035) by what came of them.", []string{"result"}, nil), l.Quality.Reports
	for result, n := range map[string]uint64{"published": r.Published, "refused": r.Refused, "unanswered": r.Unanswered, "dropped": r.Dropped} {
		out <- prometheus.MustNewConstMetric(reports, prometheus.CounterValue, float64(n), result)
	}
}
