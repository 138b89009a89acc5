package enroll

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/ucime/source"
)

// Paths of the server.
const (
	PathCertificate = "/enroll/v1/certificate"
	PathList        = "/enroll/v1/crl"
	PathCA          = "/enroll/v1/ca"
)

const (
	maxRequest     = 16 << 10
	maxAtOnce      = 64
	maxConnections = 256
	maxSources     = 1024
	sourceTries    = 20
	sourceTime     = time.Minute
)

// ServerStats count since the server was made.
type ServerStats struct {
	Issued      uint64 `json:"issued"`
	Refused     uint64 `json:"refused"` // requests, by their content
	Limited     uint64 `json:"limited"` // requests of sources that were refused too often
	Busy        uint64 `json:"busy"`    // requests over the 64 at a time
	Failed      uint64 `json:"failed"`  // the authority's own trouble
	Lists       uint64 `json:"lists"`
	Connections uint64 `json:"connections_refused"` // that gave way to others, over the 256 at a time
}

// Server serves an authority over HTTPS.
type Server struct {
	authority *Authority
	hosts     []string
	log       *slog.Logger
	busy      chan struct{}
	count     struct{ issued, refused, limited, busy, failed, lists, connections atomic.Uint64 }

	mu      sync.Mutex // guards sources
	sources map[netip.Addr]*tries
}

type tries struct {
	first time.Time
	count int
}

// NewServer makes a server; hosts are the names and addresses that its own certificate names.
func NewServer(a *Authority, hosts []string, log *slog.Logger) (*Server, error) {
	if len(hosts) == 0 {
		return nil, errors.New("a server needs the name that members call it by")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{authority: a, hosts: hosts, log: log, busy: make(chan struct{}, maxAtOnce), sources: map[netip.Addr]*tries{}}, nil
}

// Stats reads the counters.
func (s *Server) Stats() ServerStats {
	n := &s.count
	return ServerStats{n.issued.Load(), n.refused.Load(), n.limited.Load(), n.busy.Load(), n.failed.Load(), n.lists.Load(), n.connections.Load()}
}

// Serve serves until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: s.certificate, ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs: (&Trust{CA: s.authority.ca}).Pool(), Time: s.authority.clock.Now, SessionTicketsDisabled: true,
	}
	web := &http.Server{
		Handler: s, TLSConfig: config, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8192, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = web.Close() })()
	err := web.Serve(tls.NewListener(&boundedListener{Listener: l, refused: &s.count.connections, open: map[netip.Addr][]*boundedConn{}}, config))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// boundedListener keeps at most maxConnections open. Beyond that the oldest one of the source that has most of them gives way: one host that opens connections
// and says nothing would keep all members from the list of revoked certificates, without which they stop.
type boundedListener struct {
	net.Listener
	refused *atomic.Uint64

	mu     sync.Mutex                    // guards what follows
	open   map[netip.Addr][]*boundedConn // by source, the oldest first
	n      int                           // connections in open
	opened uint64                        // since the start
}

func (l *boundedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b := &boundedConn{Conn: c, list: l, source: source.OfConn(c)}
	if victim := l.add(b); victim != nil {
		l.refused.Add(1)
		_ = victim.Close()
	}
	return b, nil
}

// add takes a connection in and returns the one that gives way to it, nil for none.
func (l *boundedListener) add(b *boundedConn) (victim *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n >= maxConnections {
		most := 0
		for _, of := range l.open {
			if victim == nil || len(of) > most || len(of) == most && of[0].opened < victim.opened {
				victim, most = of[0], len(of)
			}
		}
	}
	if victim != nil {
		l.forget(victim) // at once: its goroutine may take its time
	}
	l.opened++
	b.opened = l.opened
	l.open[b.source] = append(l.open[b.source], b)
	l.n++
	return victim
}

// forget takes a connection out, the first time. The caller holds mu.
func (l *boundedListener) forget(b *boundedConn) {
	list := l.open[b.source]
	i := slices.Index(list, b)
	if i < 0 {
		return
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(l.open, b.source)
	} else {
		l.open[b.source] = list
	}
	l.n--
}

type boundedConn struct {
	net.Conn
	list   *boundedListener
	source netip.Addr
	opened uint64 // grows with each
}

func (c *boundedConn) Close() error {
	c.list.mu.Lock()
	c.list.forget(c)
	c.list.mu.Unlock()
	return c.Conn.Close()
}

// serverCertificate is the HTTPS server's own.
type serverCertificate struct {
	tls   *tls.Certificate
	renew time.Time
}

// certificate gives the server's own certificate, which is made anew when a third of its life is left.
func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a := s.authority
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server == nil || a.clock.Now().After(a.server.renew) {
		cert, key, err := a.serverFor(s.hosts)
		if err != nil {
			return nil, err
		}
		a.server = &serverCertificate{
			&tls.Certificate{Certificate: [][]byte{cert.Raw, a.ca.Raw}, PrivateKey: crypto.PrivateKey(key), Leaf: cert},
			a.clock.Now().Add(serverLife * 2 / 3),
		}
	}
	return a.server.tls, nil
}

// ServeHTTP answers requests.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	default:
		s.count.busy.Add(1)
		s.refuse(w, http.StatusServiceUnavailable, "too many requests at a time")
		return
	}
	switch {
	case r.URL.Path == PathCertificate && r.Method == http.MethodPost:
		s.enroll(w, r)
	case r.URL.Path == PathList && r.Method == http.MethodGet:
		list, err := s.authority.List()
		if err != nil {
			s.count.failed.Add(1)
			s.log.Error("enroll: no list of revoked certificates", "error", err)
			s.refuse(w, http.StatusInternalServerError, "the authority cannot do it now")
			return
		}
		s.count.lists.Add(1)
		w.Header().Set("Content-Type", "application/pkix-crl")
		_, _ = w.Write(list)
	case r.URL.Path == PathCA && r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = w.Write(s.authority.trust)
	default:
		s.refuse(w, http.StatusNotFound, "there is nothing here")
	}
}

func (s *Server) refuse(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": reason})
}

func (s *Server) enroll(w http.ResponseWriter, r *http.Request) {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	addr, now := source.Of(from.Addr()), s.authority.clock.Now()
	if s.tooMany(addr, now) {
		s.count.limited.Add(1)
		s.refuse(w, http.StatusTooManyRequests, "too many refused requests, try again in a minute")
		return
	}
	answer, err := s.answer(w, r)
	var no *Refusal
	switch {
	case errors.As(err, &no):
		s.count.refused.Add(1)
		s.failed(addr, now)
		s.log.Warn("enroll: request refused", "event", "enroll_refused", "source", from, "status", no.Status, "reason", no.Reason)
		s.refuse(w, no.Status, no.Reason)
	case err != nil:
		s.count.failed.Add(1)
		s.log.Error("enroll: request failed", "source", from, "error", err)
		s.refuse(w, http.StatusInternalServerError, "the authority cannot do it now")
	default:
		s.count.issued.Add(1)
		s.log.Info("enroll: certificate issued", "source", from, "until", answer.NotAfter)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) (*Answer, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusRequestEntityTooLarge, "request over %d bytes", maxRequest)
	} else if err != nil {
		return nil, refuse(http.StatusBadRequest, "request not complete")
	}
	var req Request
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, refuse(http.StatusBadRequest, "request is no JSON of the right form: %v", err)
	}
	var with *x509.Certificate
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		with = r.TLS.PeerCertificates[0]
	}
	answer, err := s.authority.Enroll(req, with)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// tooMany reports whether a source was refused too often within the last minute.
func (s *Server) tooMany(a netip.Addr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.sources[a]
	return t != nil && t.count >= sourceTries && now.Sub(t.first) < sourceTime
}

// failed counts a refusal; where the table is full the entry that began first gives way.
func (s *Server) failed(a netip.Addr, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.sources[a]
	if t == nil {
		if len(s.sources) >= maxSources {
			var oldest netip.Addr
			for k, o := range s.sources {
				if first := s.sources[oldest]; first == nil || o.first.Before(first.first) {
					oldest = k
				}
			}
			delete(s.sources, oldest)
		}
		t = &tries{first: now}
		s.sources[a] = t
	}
	if now.Sub(t.first) >= sourceTime {
		t.first, t.count = now, 0
	}
	t.count++
}

// parseAnswer reads what the server answers to a request for a certificate.
func parseAnswer(status int, body []byte) (*Answer, error) {
	if status != http.StatusOK {
		var e struct{ Error string }
		if json.Unmarshal(body, &e) != nil || e.Error == "" {
			e.Error = http.StatusText(status)
		}
		return nil, &Refusal{status, fmt.Sprintf("the authority refuses (%d): %.300s", status, e.Error)}
	}
	var a Answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("answer of the authority: %w", err)
	}
	return &a, nil
}
