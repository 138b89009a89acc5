package uplink

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/records"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/vap"
)

// Options of a link. Its functions are called from several goroutines.
type Options struct {
	Log     *slog.Logger
	Records *records.Queue
	// Store learns and removes routes and returns nil when that is on the disk. Those that it returns were refused for good: they are against
	// the trust group, or no routes. An error lets the server tell of all of them again.
	Store func(server string, routes []learn.Route, withdrawn []learn.Number) (refused int, err error)
	// Alert tells that a condition of an alert holds (detail says of what), or, where detail is empty, that it holds no more.
	Alert func(name, detail string)
	Clock vap.Clock // of the connections; the zero Clock is the machine's
}

// Link is the service's connection to its servers.
type Link struct {
	o      Options
	host   string
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	uploaded, refused, requests atomic.Uint64

	applying sync.Mutex // one Apply or Close at a time
	alerting sync.Mutex // one look at alerts at a time
	mu       sync.Mutex // guards what follows
	servers  []*server  // the primary one first
	service  vap.ServiceID
	changed  chan struct{} // closed when any of it, or the state of a server, has changed
}

// server is a connection.
type server struct {
	cfg    config.Server
	trust  []byte // what the certificate file had in it
	client *vap.Client
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	done   chan struct{}
	failed map[string]string // alerts that it asks for and what they say; guarded by Link.mu
}

// New makes a link that has no server yet.
func New(o Options) *Link {
	l := &Link{o: o, changed: make(chan struct{})}
	if l.host, _ = os.Hostname(); l.host == "" || len(l.host) > 64 {
		l.host = "callagent"
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.upload)
	return l
}

// Apply puts a configuration in force. A server whose settings stay keeps its connection; one that goes, and all of them when the service is
// deactivated, is told that the service is withdrawn. An error changes nothing.
func (l *Link) Apply(cfg *config.Config) error {
	l.applying.Lock()
	defer l.applying.Unlock()
	offers := offerOf(cfg)
	var want []*config.Server
	if cfg.Service.Activated {
		want = cfg.ServersOf()
	}
	l.mu.Lock()
	before := l.servers
	l.mu.Unlock()
	var next, fresh []*server
	for _, s := range want {
		trust, err := trustOf(s)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(before, func(o *server) bool { return o.cfg == *s && bytes.Equal(o.trust, trust) }); i >= 0 {
			next = append(next, before[i])
			continue
		}
		n, err := l.connection(*s, trust)
		if err != nil {
			return err
		}
		next, fresh = append(next, n), append(fresh, n)
	}
	for _, s := range next {
		if err := s.client.SetServices(offers); err != nil {
			return err // of the content: so it is the first one that refuses it
		}
	}
	l.mu.Lock()
	l.servers, l.service = next, IDOf(cfg.Service)
	l.broadcast()
	l.mu.Unlock()
	for _, s := range fresh {
		l.start(s)
	}
	for _, s := range before {
		if !slices.Contains(next, s) {
			l.retire(s, !slices.ContainsFunc(want, func(w *config.Server) bool { return w.Name == s.cfg.Name }))
		}
	}
	l.alerting.Lock()
	defer l.alerting.Unlock()
	l.settle()
	return nil
}

func (l *Link) connection(s config.Server, trust []byte) (*server, error) {
	cc, err := clientConfig(s, trust, l.host)
	if err != nil {
		return nil, err
	}
	out := &server{cfg: s, trust: trust, done: make(chan struct{})}
	out.ctx, out.cancel = context.WithCancel(l.ctx)
	cc.Clock, cc.Log = l.o.Clock, l.o.Log.With("ime-server", s.Name)
	cc.OnNotify = func(_ context.Context, n vap.Notification) error { return l.notified(s.Name, n) }
	cc.OnRevoke = func(id vap.ServiceID, why vap.RemovedReason) {
		l.o.Log.Error("the peer server took the service back", "ime-server", s.Name, "service", id, "reason", why)
	}
	out.client, err = vap.NewClient(cc)
	return out, err
}

func (l *Link) start(s *server) {
	l.wg.Go(func() {
		defer close(s.done)
		_ = s.client.Run(s.ctx) // it ended because ctx did, or by Unregister
	})
	l.wg.Go(func() { l.watch(s) })
}

// withdrawTime bounds how long a server that goes is waited for.
const withdrawTime = 3 * time.Second

// retire ends a connection. A service that is withdrawn is taken back at once; else the server holds it for its hold time.
func (l *Link) retire(s *server, withdraw bool) {
	if withdraw {
		ctx, done := context.WithTimeout(l.ctx, withdrawTime)
		if err := s.client.Unregister(ctx); err != nil {
			l.o.Log.Warn("the peer server was not told that the service is withdrawn", "ime-server", s.cfg.Name, "err", err)
		}
		done()
	}
	s.cancel()
	<-s.done
	l.requests.Add(s.client.Registration().Counters.VCRUploadRequests)
}

// notified stores what a server tells.
func (l *Link) notified(name string, n vap.Notification) error {
	refused, err := l.o.Store(name, n.Routes, n.Withdrawn)
	switch {
	case err != nil:
		return err
	case refused > 0 && refused == len(n.Routes):
		return vap.ErrForbidden
	}
	for _, r := range n.Routes {
		l.o.Log.Info("route received", "ime-server", name, "number", r.Number, "domain", r.Domain)
	}
	for _, number := range n.Withdrawn {
		l.o.Log.Info("route withdrawn", "ime-server", name, "number", number, "reason", n.Reason)
	}
	return nil
}

// broadcast wakes who waits for a change; with mu held.
func (l *Link) broadcast() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// upload takes records from the queue for as long as the link lives.
func (l *Link) upload() {
	for first := 0; l.ctx.Err() == nil; {
		vcrs, mark := l.o.Records.Take(vap.MaxVCRs)
		if len(vcrs) == 0 {
			select {
			case <-l.o.Records.Ready():
			case <-l.ctx.Done():
			}
			continue
		}
		s, service := l.choose(first)
		if s == nil {
			return
		}
		if err := l.send(s, service, vcrs); err != nil {
			if l.ctx.Err() == nil {
				l.o.Log.Warn("voice call records wait", "ime-server", s.cfg.Name, "records", len(vcrs), "err", err)
			}
			first++ // the other server, if there is one
			l.pause(errorPause)
			continue
		}
		first = 0
		if err := l.o.Records.Done(mark); err != nil {
			l.o.Log.Error("uploaded records stay in the file, and are uploaded again after a restart", "err", err)
		}
	}
}

// An upload has time for an answer and a little more; where one fails at once, it is not tried again at once.
const (
	uploadTime = 45 * time.Second
	errorPause = time.Second
)

func (l *Link) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.ctx.Done():
	}
}

// send uploads records and returns nil when each of them is stored or will never be taken.
func (l *Link) send(s *server, service vap.ServiceID, vcrs []learn.VCR) error {
	ctx, done := context.WithTimeout(s.ctx, uploadTime)
	defer done()
	err := s.client.Upload(ctx, service, vcrs)
	switch {
	case err == nil:
		l.uploaded.Add(uint64(len(vcrs)))
		return nil
	case !forGood(err):
		return err
	case len(vcrs) == 1:
		l.refused.Add(1)
		l.o.Log.Error("a voice call record is never taken and is dropped", "ime-server", s.cfg.Name, "role", vcrs[0].Role, "start", vcrs[0].Start, "err", err)
		return nil
	}
	for i := range vcrs { // one of them is wrong
		if err := l.send(s, service, vcrs[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// forGood reports whether the same records would be refused again.
func forGood(err error) bool {
	var e *vap.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case vap.CodeBadRequest, vap.CodeTooLarge, vap.CodeUnknownAttribute, vap.CodeInvalidIdentity:
		return true
	}
	return false
}

// choose waits for a server that has the service, and prefers that at a place, counted round; nil: the link ends.
func (l *Link) choose(place int) (*server, vap.ServiceID) {
	for {
		l.mu.Lock()
		servers, service, changed := l.servers, l.service, l.changed
		l.mu.Unlock()
		for i := range servers {
			s := servers[(place+i)%len(servers)]
			if s.client.Registration().Services[service].Published {
				return s, service
			}
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
			return nil, service
		}
	}
}

// Close ends the connections. What is published stays so for the servers' hold time: a restart takes no number off the ring.
func (l *Link) Close() {
	l.applying.Lock()
	defer l.applying.Unlock()
	l.cancel()
	l.wg.Wait()
}

// Counts are the link's part of the counters.
type Counts struct {
	Requests  uint64 // UploadVCR requests sent
	Uploaded  uint64 // records stored by a server
	Refused   uint64 // records dropped: no server will ever take them
	Published uint64 // own numbers that a server has published
}

// Counts tells them.
func (l *Link) Counts() Counts {
	c := Counts{Requests: l.requests.Load(), Uploaded: l.uploaded.Load(), Refused: l.refused.Load()}
	for _, s := range l.Status() {
		c.Requests += s.Requests
		c.Published = max(c.Published, s.Numbers)
	}
	return c
}

// Status is a server's, for `show servers`.
type Status struct {
	Name       string     `json:"name"`
	Role       string     `json:"role"` // "primary" or "secondary"
	Address    string     `json:"address"`
	Mode       string     `json:"security_mode"`
	User       string     `json:"application_user"`
	Client     string     `json:"client_name"`
	Registered bool       `json:"registered"`
	Handle     uint32     `json:"client_handle,omitempty"`
	Since      *time.Time `json:"registered_since,omitempty"`
	Sent       uint64     `json:"packets_sent"`
	Received   uint64     `json:"packets_received"`
	Service    string     `json:"vservice_id"`
	Published  bool       `json:"published"` // the service
	Complete   bool       `json:"complete"`  // and all its numbers
	Numbers    uint64     `json:"numbers"`   // published
	Quota      *vap.Quota `json:"quota,omitempty"`
	Requests   uint64     `json:"upload_requests"`
	Routes     uint64     `json:"routes_received"`
	Revoked    uint64     `json:"revoked"`
	LastError  string     `json:"last_error,omitempty"`
	Refusal    string     `json:"refusal,omitempty"` // why something is not published
}

// Status tells the state of every server, the primary one first.
func (l *Link) Status() []Status {
	l.mu.Lock()
	servers, service := l.servers, l.service
	l.mu.Unlock()
	out := make([]Status, 0, len(servers))
	for i, s := range servers {
		r := s.client.Registration()
		p := r.Services[service]
		st := Status{
			Name: s.cfg.Name, Role: []string{"primary", "secondary"}[i], Address: s.cfg.Addr.String(), Mode: "authenticated", User: s.cfg.User,
			Client: cmp.Or(s.cfg.ClientName, l.host), Registered: r.Registered, Handle: r.Handle, Sent: r.Sent, Received: r.Rcvd, Service: service.String(),
			Published: p.Published, Complete: p.Complete, Numbers: p.Numbers, Requests: r.Counters.VCRUploadRequests,
			Routes: r.Counters.RoutesReceived, Revoked: r.Counters.Revoked, LastError: r.LastError, Refusal: p.Err,
		}
		if s.cfg.Encrypted {
			st.Mode = "encrypted"
		}
		if r.Registered {
			st.Since = &r.Since
			if p.Published {
				st.Quota = &r.Quota
			}
		}
		out = append(out, st)
	}
	return out
}
