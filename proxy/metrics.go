package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"imeproxy/fallback"
	"imeproxy/proxy/observe"
)

// Metrics gives what Prometheus collects, as text.
func (a *Appliance) Metrics() (observe.Exposition, error) { return a.metrics.Exposition() }

// live gives the numbers of this moment.
func (a *Appliance) live() observe.Live {
	s := a.FallbackStatistics()
	l := observe.Live{Quality: s, Calls: map[string]int{
		fallback.Good.String(): s.Monitored - s.Suspect - s.Notified, fallback.Suspect.String(): s.Suspect, fallback.Notified.String(): s.Notified,
	}}
	if n := a.shownPeer.Load(); n != nil {
		l.Peer = perf(n.Status(), a.now())
	}
	if t := a.term.Load(); t != nil {
		c := t.Counters()
		l.Streams, l.Media = c.Streams, a.fastMedia(c.EngineCounters)
	}
	return l
}

// errNotLoopback: the page needs no password, so that it must not be on a network.
var errNotLoopback = errors.New("metrics are served on a loopback address alone")

// CheckMetricsAddress tells whether metrics can be served at "ADDRESS:PORT": on a loopback address alone. "" serves none.
func CheckMetricsAddress(address string) error {
	if address == "" {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("metrics: %q is no address and port, such as 127.0.0.1:9464", address)
	}
	if !at.Addr().IsLoopback() {
		return fmt.Errorf("%w, not on %s", errNotLoopback, address)
	}
	return nil
}

// serveMetrics lets a collector on this host have the metrics over HTTP until the appliance stops.
func (a *Appliance) serveMetrics(address string) error {
	if address == "" {
		return nil
	}
	if err := CheckMetricsAddress(address); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(a.ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.metrics.Handler())
	srv := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	a.wg.Go(func() { _ = srv.Serve(l) })
	context.AfterFunc(a.ctx, func() { _ = srv.Close() })
	return nil
}
