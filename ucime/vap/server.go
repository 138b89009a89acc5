package vap

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/source"
)

// DefaultPort is the TCP port of a VAP server.
const DefaultPort = 5620

// Times and limits of a server; docs/protocol/vap.md names each.
const (
	DefaultKeepalive      = 30 * time.Second
	DefaultMaxConnections = 16
	DefaultHoldTime       = time.Hour

	registerTime    = 10 * time.Second // from the opening of a connection to its registration
	messageTime     = 10 * time.Second // from a message's first byte to its last
	writeTime       = 15 * time.Second // no other time's: tests wait for its timers alone
	answerTime      = 30 * time.Second
	revokeTime      = 5 * time.Second
	nonceTime       = 60 * time.Second
	maxMissed       = 3
	maxFailures     = 3  // wrong integrities a connection
	maxUnregistered = 64 // connections an instance
	maxSubs         = 16 // a connection
	window          = 16 // unanswered notifications a connection
	retryFirst      = 60 * time.Second
	retryLast       = time.Hour
)

// Key names a service. VServiceIds belong to their user: those of two users are never the same service.
type Key struct {
	User    string
	Service ServiceID
}

// Publication is a service with all of its numbers.
type Publication struct {
	Key     Key
	Service Service
	Numbers *Numbers
}

// Handler is what stands behind a server. Its methods are called from several goroutines, with ctx ending when the server stops. An error
// of type *Error goes to the client as it is; any other is logged and the client learns 500.
type Handler interface {
	// Published tells that a service is new, or that it or its numbers changed; the client's answer waits for it, and an error refuses
	// the change. Calls of Published and Unpublished come one after the other, for all services.
	Published(ctx context.Context, p Publication) error
	// Unpublished tells that a service has ended: the client took it back, or was away for the hold time.
	Unpublished(ctx context.Context, key Key)
	// StoreVCRs returns nil when the records are on stable storage. Equal records may come again, and are then stored once.
	StoreVCRs(ctx context.Context, key Key, vcrs []learn.VCR) error
	// Pending returns the notifications for a service with an ID above after that are not settled, lowest ID first, at most limit.
	Pending(ctx context.Context, key Key, after uint64, limit int) ([]Notification, error)
	// Settle ends a notification: the client has stored it (accepted), or its trust rules forbid it.
	Settle(ctx context.Context, key Key, id uint64, accepted bool) error
}

// ServerConfig is what a server is made of.
type ServerConfig struct {
	Handler     Handler
	Quota       uint32        // unique numbers over all services (SetQuota)
	HoldTime    time.Duration // how long publications outlive their connection; 0: DefaultHoldTime
	OnOverQuota func(Quota)   // a publication was refused for it; may be nil, must not block
	Clock       Clock
	Log         *slog.Logger // nil: none
	Listen      func(addr string) (net.Listener, error)
}

// Instance is one VAP server of the guide: a port with a mode and limits (guide lines 1678-1720).
type Instance struct {
	Name           string        // unique
	Addr           string        // host:port to listen on
	TLS            *tls.Config   // nil: mode authenticated; else encrypted
	Keepalive      time.Duration // 5 s to 1 h; 0: DefaultKeepalive
	MaxConnections int           // registrations; 0: DefaultMaxConnections
	Credentials    Credentials
}

func (i *Instance) check() error {
	if i.Keepalive == 0 {
		i.Keepalive = DefaultKeepalive
	}
	if i.MaxConnections == 0 {
		i.MaxConnections = DefaultMaxConnections
	}
	switch {
	case i.Name == "" || !printable(i.Name):
		return errors.New("vap server without a name")
	case i.Keepalive < 5*time.Second || i.Keepalive > time.Hour || i.Keepalive%time.Second != 0:
		return fmt.Errorf("vap server %s: keepalive interval %v: want whole seconds, 5 to 3600", i.Name, i.Keepalive)
	case i.MaxConnections < 1 || i.MaxConnections > 1000:
		return fmt.Errorf("vap server %s: %d connections: want 1 to 1000", i.Name, i.MaxConnections)
	case i.Credentials == nil:
		return fmt.Errorf("vap server %s has no credentials", i.Name)
	}
	if i.TLS != nil {
		i.TLS = i.TLS.Clone()
		i.TLS.MinVersion = max(i.TLS.MinVersion, tls.VersionTLS12)
	}
	return nil
}

// Server serves VAP on any number of instances. Its methods may be called from any goroutine.
type Server struct {
	cfg    ServerConfig
	clock  Clock
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	count  counters
	dummy  UserKey // stands in for users that do not exist

	applyMu sync.Mutex // one Apply or Close at a time

	// pubMu makes changes of publications, with the handler's part of them, one after the other. It is taken before mu. The handler is
	// called with it held, and so must not call what changes publications.
	pubMu sync.Mutex

	mu        sync.Mutex // guards everything that follows; never held across I/O or calls of the handler
	listeners map[string]*listener
	conns     map[*conn]struct{}
	handle    uint32
	quota     uint32
	pubs      map[Key]*publication
	total     uint64          // unique numbers of pubs
	subs      map[Key][]*conn // the last one gets the routes
	sources   sources
	closed    bool
}

// listener is an open port; inst may change while it is open.
type listener struct {
	socket net.Listener
	inst   *Instance // guarded by Server.mu
}

// NewServer makes a server that listens nowhere yet: see Apply.
func NewServer(cfg ServerConfig) *Server {
	if cfg.HoldTime == 0 {
		cfg.HoldTime = DefaultHoldTime
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == nil {
		cfg.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	s := &Server{
		cfg: cfg, clock: cfg.Clock.orReal(), log: cfg.Log, quota: cfg.Quota, dummy: UserKey{[32]byte(random(32))},
		listeners: map[string]*listener{}, conns: map[*conn]struct{}{}, pubs: map[Key]*publication{}, subs: map[Key][]*conn{}, sources: sources{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// place tells listeners apart: by address, and by name where the kernel chooses the port.
func (i *Instance) place() string {
	if _, port, err := net.SplitHostPort(i.Addr); err == nil && port == "0" {
		return i.Addr + " " + i.Name
	}
	return i.Addr
}

// Apply makes the server listen for exactly these instances. Connections of an instance whose name, address and mode stay are kept, unless
// their credentials are no longer good or they are too many; others get RegisterRevoke. When an address cannot be had, nothing changes.
func (s *Server) Apply(instances []Instance) error {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	next := map[string]*Instance{}
	names := map[string]bool{}
	for _, i := range instances {
		if err := i.check(); err != nil {
			return err
		}
		if names[i.Name] || next[i.place()] != nil {
			return fmt.Errorf("vap server %s: name or port %s is used twice", i.Name, i.Addr)
		}
		names[i.Name], next[i.place()] = true, &i
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	missing := map[string]*Instance{}
	for place, i := range next {
		if s.listeners[place] == nil {
			missing[place] = i
		}
	}
	s.mu.Unlock()
	opened := map[string]*listener{}
	for place, i := range missing {
		socket, err := s.cfg.Listen(i.Addr)
		if err != nil {
			for _, l := range opened {
				_ = l.socket.Close()
			}
			return fmt.Errorf("vap server %s: %w", i.Name, err)
		}
		opened[place] = &listener{socket: socket, inst: i}
	}
	s.replace(next, opened)
	return nil
}

// replace takes on the instances; those in opened have new listeners.
func (s *Server) replace(next map[string]*Instance, opened map[string]*listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for place, l := range s.listeners {
		if next[place] == nil {
			_ = l.socket.Close()
			delete(s.listeners, place)
			continue
		}
		l.inst = next[place]
	}
	for place, l := range opened {
		s.listeners[place] = l
		s.wg.Go(func() { s.accept(l) })
	}
	registered := map[*Instance]int{}
	for c := range s.conns {
		old, now := c.inst, next[c.inst.place()]
		if now == nil || now.Name != old.Name || (now.TLS == nil) != (old.TLS == nil) {
			c.revoke(CodeResponder, "the server stops")
			continue
		}
		c.inst = now
		if !c.registered {
			continue
		}
		if key, known := now.Credentials.UserKey(c.user); !known || subtle.ConstantTimeCompare(key.b[:], c.key.b[:]) != 1 {
			c.revoke(CodeUnauthorized, "the credentials changed")
		} else if registered[now]++; registered[now] > now.MaxConnections {
			c.revoke(CodeTooManyConnections, "")
		}
	}
}

// Addr is where an instance listens; nil when there is none of that name.
func (s *Server) Addr(name string) net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		if l.inst.Name == name {
			return l.socket.Addr()
		}
	}
	return nil
}

// Close ends all: clients get RegisterRevoke and at most 5 s to answer it. Publications are not withdrawn.
func (s *Server) Close() {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	s.mu.Lock()
	s.closed = true
	for place, l := range s.listeners {
		_ = l.socket.Close()
		delete(s.listeners, place)
	}
	for _, p := range s.pubs {
		p.disarm()
	}
	for c := range s.conns {
		c.revoke(CodeResponder, "the server stops")
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.pubMu.Lock() // a hold time may just have ended
	defer s.pubMu.Unlock()
	s.cancel()
}

// accept runs for as long as the listener is open.
func (s *Server) accept(l *listener) {
	for {
		raw, err := l.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: wait for better times
			s.log.Error("vap: accept failed", "error", err)
			if !s.pause(time.Second) {
				return
			}
			continue
		}
		s.count.accepted.Add(1)
		s.take(l, raw)
	}
}

// pause waits by the server's clock; false when the server ended.
func (s *Server) pause(d time.Duration) bool {
	done := make(chan struct{})
	defer s.clock.After(d, func() { close(done) })()
	select {
	case <-done:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// take starts a connection, unless its source has guessed passwords.
func (s *Server) take(l *listener, raw net.Conn) {
	remote := sourceOf(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.sources.refused(source.Of(remote.Addr()), s.clock.Now()) {
		s.count.refusedSources.Add(1)
		_ = raw.Close()
		return
	}
	c := newConn(s, l.inst, raw, remote)
	if o := s.surplus(l.inst); o != nil {
		s.count.evicted.Add(1)
		o.leaving = true
		o.close()
	}
	s.conns[c] = struct{}{}
	s.wg.Go(c.run)
}

// surplus is the connection that has to give way when too many are not registered: the oldest of the source (IPv4 address, IPv6 /64) that has most of them,
// so that one host cannot keep another out. With mu held.
func (s *Server) surplus(inst *Instance) *conn {
	total := 0
	waiting := map[netip.Addr][]*conn{}
	for o := range s.conns {
		if o.inst == inst && !o.registered && !o.leaving {
			total++
			from := source.Of(o.remote.Addr())
			waiting[from] = append(waiting[from], o)
		}
	}
	if total < maxUnregistered {
		return nil
	}
	var most []*conn
	for _, list := range waiting {
		if len(list) > len(most) {
			most = list
		}
	}
	return slices.MinFunc(most, func(a, b *conn) int { return a.opened.Compare(b.opened) })
}

func sourceOf(raw net.Conn) netip.AddrPort {
	if a, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// Wake tells that a service has new notifications.
func (s *Server) Wake(key Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.subs[key]; len(list) > 0 {
		list[len(list)-1].nudge()
	}
}

// SetQuota changes how many unique numbers may be published. What is published stays, even when it is over the new quota.
func (s *Server) SetQuota(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota = n
}
