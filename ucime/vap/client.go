package vap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

// Retry intervals of a client. Call agents offer MinRetry and more; a laboratory may go below.
const (
	DefaultRetry = 120 * time.Second
	MinRetry     = 60 * time.Second
	MaxRetry     = 600 * time.Second
)

// ClientConfig is what a client is made of.
type ClientConfig struct {
	Addr          string      // host:port of the VAP server
	TLS           *tls.Config // nil: mode authenticated; else encrypted, and the server's certificate is verified as it says
	Username      string
	Password      string
	Name          string        // tells apart the clients of one user, such as the nodes of a cluster
	RetryInterval time.Duration // 1 s to MaxRetry; 0: DefaultRetry

	// OnNotify stores what a notification says and returns nil, and only then is it acknowledged. It may come again after that, and must
	// take less than 30 s. ErrForbidden ends it as rejected; after any other error it comes again later. One call at a time.
	OnNotify func(context.Context, Notification) error
	// OnRevoke tells that the server took back a service. It is published again when SetServices is called or after the next registration.
	OnRevoke func(ServiceID, RemovedReason)

	Clock Clock
	Log   *slog.Logger                                             // nil: none
	Dial  func(ctx context.Context, addr string) (net.Conn, error) // nil: TCP, within 10 s
}

// Offer is a service and the numbers that it publishes.
type Offer struct {
	Service  Service
	Patterns []Pattern
	Exclude  []Pattern
}

// Client keeps one registration with a server. Its methods may be called from any goroutine.
type Client struct {
	cfg   ClientConfig
	key   UserKey
	clock Clock
	log   *slog.Logger

	mu       sync.Mutex // guards everything that follows
	offers   map[ServiceID]*offer
	session  *session // nil: not registered
	changed  chan struct{}
	leaving  bool // Unregister was called
	lastErr  error
	quota    Quota
	services map[ServiceID]ServiceState
	count    ClientCounters
}

// offer is an Offer as it goes over the wire.
type offer struct {
	Offer
	document []byte
	rev      int // rises with each SetServices that changed it
}

// ErrUnregistered is what Run returns after Unregister.
var ErrUnregistered = errors.New("unregistered")

// ErrTLS says that there was no TLS session, because of the server's certificate or otherwise.
var ErrTLS = errors.New("no TLS session")

// ErrStranger says that the server took the proof of the password and could not prove that it knows it too.
var ErrStranger = errors.New("not registered: the server does not know the password")

// NewClient checks the configuration, and derives the user's key, which takes a moment.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.RetryInterval == 0 {
		cfg.RetryInterval = DefaultRetry
	}
	if cfg.RetryInterval < time.Second || cfg.RetryInterval > MaxRetry {
		return nil, fmt.Errorf("retry interval %v: want 1 s to %v", cfg.RetryInterval, MaxRetry)
	}
	if n := len(cfg.Name); n < 1 || n > 64 || !printable(cfg.Name) {
		return nil, errors.New("client name: want 1 to 64 bytes without control characters")
	}
	if _, _, err := net.SplitHostPort(cfg.Addr); err != nil {
		return nil, fmt.Errorf("server address: %w", err)
	}
	key, err := DeriveUserKey(cfg.Username, cfg.Password)
	if err != nil {
		return nil, err
	}
	cfg.Password = "" // not needed any more
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnNotify == nil {
		cfg.OnNotify = func(context.Context, Notification) error { return errors.New("nobody takes notifications") }
	}
	if cfg.OnRevoke == nil {
		cfg.OnRevoke = func(ServiceID, RemovedReason) {}
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
		cfg.TLS.MinVersion = max(cfg.TLS.MinVersion, tls.VersionTLS12)
		if cfg.TLS.ServerName == "" {
			cfg.TLS.ServerName, _, _ = net.SplitHostPort(cfg.Addr)
		}
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
		}
	}
	return &Client{
		cfg: cfg, key: key, clock: cfg.Clock.orReal(), log: cfg.Log,
		offers: map[ServiceID]*offer{}, changed: make(chan struct{}), services: map[ServiceID]ServiceState{},
	}, nil
}

// Run keeps the client registered until ctx ends or Unregister was called, and returns why it ended. The server holds what is published for
// its hold time after that, unless it was Unregister. Call it once.
func (c *Client) Run(ctx context.Context) error {
	for {
		err := c.once(ctx)
		c.mu.Lock()
		leaving := c.leaving
		c.lastErr = err
		c.signal()
		c.mu.Unlock()
		switch {
		case leaving:
			return ErrUnregistered
		case ctx.Err() != nil:
			return ctx.Err()
		}
		c.log.Warn("vap: not registered", "server", c.cfg.Addr, "retry", c.cfg.RetryInterval, "error", err)
		if err := c.pause(ctx, c.cfg.RetryInterval); err != nil {
			return err
		}
	}
}

// once connects, registers and serves one connection to its end.
func (c *Client) once(ctx context.Context) error {
	raw, err := c.cfg.Dial(ctx, c.cfg.Addr)
	if err != nil {
		return err
	}
	nc := raw
	if c.cfg.TLS != nil {
		nc = tls.Client(raw, c.cfg.TLS)
	}
	s := &session{peer: newPeer(ctx, nc, raw, c.clock), c: c, queue: make(chan *message, 2*window), wake: make(chan struct{}, 1)}
	defer context.AfterFunc(ctx, s.close)()
	err = s.run()
	s.finish()
	s.tasks.Wait()
	return err
}

// SetServices says what to publish from now on; what is not among it is withdrawn. It returns the first error of the offers' content, and
// then changes nothing.
func (c *Client) SetServices(offers []Offer) error {
	next := map[ServiceID]*offer{}
	if len(offers) > MaxServices {
		return fmt.Errorf("%d services, at most %d", len(offers), MaxServices)
	}
	for _, o := range offers {
		if err := o.Service.Check(); err != nil {
			return fmt.Errorf("service %s: %w", o.Service.ID, err)
		}
		if next[o.Service.ID] != nil {
			return fmt.Errorf("service %s stands twice", o.Service.ID)
		}
		o.Patterns, o.Exclude = slices.Clone(o.Patterns), slices.Clone(o.Exclude)
		for _, list := range [][]Pattern{o.Patterns, o.Exclude} {
			for i, p := range list {
				canonical, err := ParsePattern(string(p))
				if err != nil {
					return fmt.Errorf("service %s: %w", o.Service.ID, err)
				}
				list[i] = canonical
			}
			slices.Sort(list)
		}
		if n := len(o.Patterns) + len(o.Exclude); n > MaxPages*PageSize {
			return fmt.Errorf("service %s: %d patterns and exclusions, at most %d", o.Service.ID, n, MaxPages*PageSize)
		}
		next[o.Service.ID] = &offer{Offer: o, document: o.Service.document()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, o := range next {
		if old := c.offers[id]; old != nil {
			o.rev = old.rev + 1
		}
	}
	c.offers = next
	for id, state := range c.services { // until sync has seen to it
		state.Complete = false
		c.services[id] = state
	}
	c.signal()
	return nil
}

// signal wakes whoever waits for a change; with mu held.
func (c *Client) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
	if c.session != nil {
		c.session.nudge()
	}
}

// pause waits by the client's clock.
func (c *Client) pause(ctx context.Context, d time.Duration) error {
	done := make(chan struct{})
	defer c.clock.After(d, func() { close(done) })()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Upload hands records to the server and returns nil when they are on its stable storage. While there is no registration, the service is not
// published or the server cannot store, it waits and tries again, until ctx ends; the server takes equal records once. An error of type
// *Error means that the server will never take them.
func (c *Client) Upload(ctx context.Context, service ServiceID, vcrs []learn.VCR) error {
	for _, v := range vcrs {
		if err := CheckVCR(v); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(vcrs, MaxVCRs) {
		if err := c.upload(ctx, service, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) upload(ctx context.Context, service ServiceID, vcrs []learn.VCR) error {
	for {
		s, err := c.publishing(ctx, service)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.count.VCRUploadRequests++
		c.mu.Unlock()
		m := s.request(UploadVCR).put(attrIdentity, identity{serviceNumbers, 0, service}.bytes()).put(attrServiceData, vcrDocument(vcrs))
		_, err = s.call(m)
		switch codeOf(err) {
		case 0:
			if err == nil {
				return nil
			}
			// The connection ended: the next registration decides. This session must not be tried again.
			s.close()
			if err := c.gone(ctx, s); err != nil {
				return err
			}
		case CodeBadRequest, CodeTooLarge, CodeInvalidIdentity, CodeUnknownAttribute, CodeNotImplemented, CodeForbidden:
			return err
		default:
			if err := c.pause(ctx, c.cfg.RetryInterval); err != nil {
				return err
			}
		}
	}
}

// publishing waits until the service is published.
func (c *Client) publishing(ctx context.Context, service ServiceID) (*session, error) {
	return c.wait(ctx, func() bool { return c.session != nil && c.services[service].Published })
}

// gone waits for the end of a session.
func (c *Client) gone(ctx context.Context, s *session) error {
	_, err := c.wait(ctx, func() bool { return c.session != s })
	return err
}

// wait waits for a state, which ready tests with mu held, and returns the session of that moment.
func (c *Client) wait(ctx context.Context, ready func() bool) (*session, error) {
	for {
		c.mu.Lock()
		ok, s, changed := ready(), c.session, c.changed
		c.mu.Unlock()
		if ok {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Changed gives a channel that is closed when what Registration tells has changed, counters excepted. Ask for it before Registration.
func (c *Client) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// WaitRegistered waits until the client is registered.
func (c *Client) WaitRegistered(ctx context.Context) error {
	_, err := c.wait(ctx, func() bool { return c.session != nil })
	return err
}

// Unregister withdraws at once what only this client has published, and ends Run. Without a registration it only ends Run at its next step.
func (c *Client) Unregister(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	defer s.close()
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	_, err := s.call(s.request(Unregister))
	return err
}

// ServiceState is what became of an offer.
type ServiceState struct {
	Published bool   // the service itself
	Numbers   uint64 // that the server has taken
	Complete  bool   // the service and all its numbers are as offered, and its routes are subscribed to
	Err       string // why not, when the server refused something
	Code      Code   // of that refusal, 0: none
}

// ClientCounters count since the client was made (guide table 38).
type ClientCounters struct {
	Registrations     uint64
	VCRUploadRequests uint64
	Notifications     uint64 // received, each time
	RoutesReceived    uint64 // in acknowledged notifications
	RoutesRejected    uint64 // ErrForbidden
	Revoked           uint64 // services and registrations taken back by the server
}

// Registration is the state of a client.
type Registration struct {
	Registered bool
	Handle     uint32
	Since      time.Time
	Sent, Rcvd uint64 // messages of this connection
	LastError  string // why the last connection ended or failed
	Cause      error  // the same
	Quota      Quota  // of the server, as the last answer to a Publish of this connection told it
	Services   map[ServiceID]ServiceState
	Counters   ClientCounters
}

// Registration tells the client's state.
func (c *Client) Registration() Registration {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := Registration{Cause: c.lastErr, Services: map[ServiceID]ServiceState{}, Counters: c.count}
	if c.lastErr != nil {
		r.LastError = c.lastErr.Error()
	}
	if s := c.session; s != nil {
		r.Quota = c.quota
		r.Registered, r.Handle, r.Since, r.Sent, r.Rcvd = true, s.handle, s.since, s.sent.Load(), s.rcvd.Load()
	}
	for id, st := range c.services {
		r.Services[id] = st
	}
	return r
}
