package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Defaults and ranges of the settings.
const (
	DefaultQuota    = 2000
	DefaultLow      = 20000
	DefaultHigh     = 39999
	DefaultLifetime = 10 * time.Minute
	DefaultIdle     = 10 * time.Minute
)

// Caps.
const (
	MaxConns = 1000   // connections of one client to the listening port
	MaxLegs  = 20_000 // connections to mapped ports
)

const (
	sweepEvery = 250 * time.Millisecond
	saveEvery  = time.Second
	// warnEvery is how often the log tells of one cause.
	warnEvery = time.Minute
)

// wholeWithin is how long a request may take from its first byte on. Tests shorten it.
var wholeWithin = 10 * time.Second

// Settings are the configuration, which may change while the service runs.
type Settings struct {
	Listen   netip.AddrPort // IPv4; mapped ports are on its address
	Clients  []netip.Addr   // IPv4 addresses of the call agents
	Quota    int            // mappings a client
	Low      uint16         // the range of mapped ports
	High     uint16
	Lifetime time.Duration // whole seconds
	Idle     time.Duration // of a client's connection
	// Allowed tells whether a target may be called. It must not block.
	Allowed func(target netip.AddrPort) bool
}

// Options are fixed while the service runs.
type Options struct {
	// Leg serves a connection of a client to a mapped port until it ends, and closes it. It is called on a goroutine of its own.
	Leg       func(c net.Conn, client netip.Addr, target netip.AddrPort)
	StateFile string // "" keeps nothing
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
	// Trace is offered the words for each decision on a request, if it is set. It must not block.
	Trace func(client netip.Addr, text func() string)
}

// Counters count from the start of the service.
type Counters struct {
	Requests         uint64 // whole requests
	Successes        uint64
	Failures         map[Code]uint64
	RefusedSources   uint64 // connections that were reset because no call agent opened them
	RefusedConns     uint64 // because the client has MaxConns
	RefusedLegs      uint64 // connections to mapped ports of others than the client, or over MaxLegs
	DroppedMessages  uint64 // indications and responses
	FramingErrors    uint64 // connections that were closed for what cannot be a message
	IncompleteClosed uint64 // connections that were closed because a request did not come whole in time
	IdleClosed       uint64
	MappingsMade     uint64
	MappingsEnded    uint64
	Mappings         int // now
	Legs             int // now
	PortsFree        int // now
	PortsRest        int // now, freed lately or in use by others
	Port             int // of the listener
}

// Service is the mapping service. Its methods are safe for concurrent use.
type Service struct {
	opt Options
	ctx context.Context // ends with Close
	end context.CancelFunc
	wg  sync.WaitGroup

	standing sync.WaitGroup // legs

	applying sync.Mutex // one Apply or Close at a time

	mu       sync.Mutex // guards everything that follows
	set      Settings
	listener net.Listener
	ports    *ports
	table    *table
	clients  map[*client]struct{}
	legs     int
	count    Counters
	warned   map[string]time.Time
	changed  bool // since the state was saved
	saved    time.Time
}

// Start opens the service. Mappings of the state file that are younger than their lifetime, or whose legs stood, live on.
func Start(opt Options, set Settings) (*Service, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{opt: opt, clients: make(map[*client]struct{}), warned: make(map[string]time.Time)}
	s.count.Failures = make(map[Code]uint64)
	s.ctx, s.end = context.WithCancel(context.Background())
	if err := s.Apply(set); err != nil {
		s.end()
		return nil, err
	}
	s.wg.Go(s.sweep)
	return s, nil
}

// Apply puts other settings into force, or with an error leaves the old ones. Connections and mappings of clients that are gone, and
// mappings to targets that are not allowed any more, end at once; legs that stand go on.
func (s *Service) Apply(set Settings) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	s.mu.Lock()
	old := s.set.Listen
	s.mu.Unlock()
	if set.Listen != old {
		if err := s.listen(set.Listen, set.Listen.Addr() != old.Addr()); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.set.Listen.IsValid()
	s.set = set
	now := s.opt.Now()
	s.table.setRange(set.Low, set.High)
	if first {
		s.restore(now)
	}
	for c := range s.clients {
		if !set.isClient(c.addr.Addr()) {
			reset(c.conn)
			continue
		}
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // looks at its limits anew
	}
	ended := s.table.endWhere(now, func(p pair) bool { return !set.isClient(p.client) || !set.Allowed(p.target) })
	s.endedLocked(ended)
	return nil
}

func (set *Settings) isClient(a netip.Addr) bool { return slices.Contains(set.Clients, a) }

// listen opens the listening port, and with another address the mapped ports anew: what was answered before names the former address.
func (s *Service) listen(at netip.AddrPort, anew bool) error {
	l, err := new(net.ListenConfig).Listen(s.ctx, "tcp4", at.String())
	if err != nil {
		return fmt.Errorf("mapping service: %w", err)
	}
	var p *ports
	if anew {
		if p, err = newPorts(at.Addr(), s.leg); err != nil {
			return errors.Join(fmt.Errorf("mapping service: %w", err), l.Close())
		}
	}
	s.mu.Lock()
	former, formerPorts := s.listener, s.ports
	s.listener = l
	if anew {
		if s.table != nil {
			s.endedLocked(s.table.endWhere(s.opt.Now(), func(pair) bool { return true }))
		}
		s.ports, s.table = p, newTable(p.listen)
	}
	s.mu.Unlock()
	if former != nil {
		_ = former.Close()
	}
	if anew && formerPorts != nil {
		formerPorts.close()
	}
	s.wg.Go(func() { s.accept(l) })
	return nil
}

// Addr is where the service listens.
func (s *Service) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Close ends connections and mapped ports and saves the mappings. Legs go on until those end them who serve them; see Wait.
func (s *Service) Close() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.ctx.Err() != nil {
		return nil
	}
	s.end()
	s.mu.Lock()
	_ = s.listener.Close()
	for c := range s.clients {
		_ = c.conn.Close()
	}
	p := s.ports
	s.mu.Unlock()
	p.close()
	s.wg.Wait()
	s.mu.Lock()
	f := s.snapshotLocked(s.opt.Now())
	s.mu.Unlock()
	return s.save(f)
}

// Wait returns when no leg stands. Call it after Close.
func (s *Service) Wait() { s.standing.Wait() }

// accept takes connections of clients until the listener is closed.
func (s *Service) accept(l net.Listener) {
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			s.admit(c)
			continue
		case errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil:
			return
		}
		s.opt.Log.Error("connection cannot be accepted", "service", "mapping", "err", err)
		select {
		case <-time.After(pause): // a lack of descriptors passes when calls end
			pause = min(2*pause, time.Second)
		case <-s.ctx.Done():
			return
		}
	}
}

// admit lets configured clients in; any other source is reset before a byte is read.
func (s *Service) admit(conn net.Conn) {
	from, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		_ = conn.Close()
		return
	}
	addr := from.AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	c := &client{s: s, conn: conn, addr: addr}
	s.mu.Lock()
	defer s.mu.Unlock()
	have := 0
	for other := range s.clients {
		if other.addr.Addr() == addr.Addr() {
			have++
		}
	}
	switch {
	case s.ctx.Err() != nil:
	case !s.set.isClient(addr.Addr()):
		s.count.RefusedSources++
		s.warnLocked("source", "mapping request connection refused: its source is no `ucm address`", "source", addr.String())
	case have >= MaxConns:
		s.count.RefusedConns++
		s.warnLocked("connections", "mapping request connection refused: the call agent has too many", "source", addr.String(), "maximum", MaxConns)
	default:
		c.last = s.opt.Now()
		s.clients[c] = struct{}{}
		s.wg.Go(c.run)
		return
	}
	reset(conn)
}

// reset closes with RST.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// leg serves a connection to a mapped port.
func (s *Service) leg(port uint16, conn net.Conn) {
	from, _ := conn.RemoteAddr().(*net.TCPAddr)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.table.byPort[port]
	if m == nil || from == nil || from.AddrPort().Addr().Unmap() != m.client || s.legs >= MaxLegs || s.ctx.Err() != nil {
		s.count.RefusedLegs++
		s.warnLocked("leg", "connection to a mapped port refused", "source", conn.RemoteAddr().String(), "port", port)
		reset(conn)
		return
	}
	m.legs++
	s.legs++
	s.changed = true
	client, target := m.client, m.target
	s.standing.Go(func() {
		s.opt.Leg(conn, client, target)
		s.mu.Lock()
		defer s.mu.Unlock()
		m.legs--
		s.legs--
		m.used = s.opt.Now()
		s.changed = true
	})
}

// answer decides on a request; nil: none is due, as the client is gone.
func (s *Service) answer(c *client, m *message) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.set.isClient(c.addr.Addr()) {
		return nil
	}
	s.count.Requests++
	c.requests++
	code := m.code
	if code == 0 && !s.set.Allowed(m.target) {
		code = CodeForbidden
	}
	if code == 0 {
		mp, fresh, refused, err := s.table.request(pair{c.addr.Addr(), m.target}, s.set.Quota, s.set.Lifetime, s.opt.Now())
		if refused == 0 {
			s.changed = s.changed || fresh || mp.used.Sub(mp.saved) > mp.lifetime/20
			if fresh {
				s.count.MappingsMade++
			}
			s.count.Successes++
			s.trace(c, func() string {
				return fmt.Sprintf("%s asks for %s: port %d for %s, new %t", c.addr, m.target, mp.port, mp.lifetime, fresh)
			})
			return m.success(netip.AddrPortFrom(s.set.Listen.Addr(), mp.port), uint32(mp.lifetime/time.Second))
		}
		code = refused
		if code != CodeQuota {
			s.warnLocked("port", "mapping request refused", "client", c.addr.Addr().String(), "err", err)
		} else {
			s.warnLocked("quota", "mapping request refused: the call agent has as many mappings as it may", "client", c.addr.Addr().String(), "quota", s.set.Quota)
		}
	}
	s.count.Failures[code]++
	c.failed++
	s.trace(c, func() string { return fmt.Sprintf("%s asks for %s: refused, code %d", c.addr, m.target, code) })
	return m.failure(code)
}

func (s *Service) trace(c *client, text func() string) {
	if s.opt.Trace != nil {
		s.opt.Trace(c.addr.Addr(), text)
	}
}

// warnLocked logs one cause once in warnEvery.
func (s *Service) warnLocked(cause, msg string, args ...any) {
	now := s.opt.Now()
	if last, ok := s.warned[cause]; ok && now.Sub(last) < warnEvery && !now.Before(last) {
		return
	}
	s.warned[cause] = now
	s.opt.Log.Warn(msg, args...)
}

func (s *Service) endedLocked(ended []*mapping) {
	if len(ended) > 0 {
		s.count.MappingsEnded += uint64(len(ended))
		s.changed = true
	}
}

// sweep ends mappings and saves the state.
func (s *Service) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		now := s.opt.Now()
		s.endedLocked(s.table.sweep(now))
		due := s.changed && (now.Sub(s.saved) >= saveEvery || now.Before(s.saved))
		var f stateFile
		if due {
			f = s.snapshotLocked(now)
		}
		s.mu.Unlock()
		if !due {
			continue
		}
		if err := s.save(f); err != nil {
			s.mu.Lock()
			s.warnLocked("state", "mappings are not saved: a restart would forget them", "err", err)
			s.mu.Unlock()
		}
	}
}

// Counters returns the counters.
func (s *Service) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.count
	c.Failures = make(map[Code]uint64, len(s.count.Failures))
	for code, n := range s.count.Failures {
		c.Failures[code] = n
	}
	c.Mappings, c.Legs, c.PortsFree, c.PortsRest = len(s.table.byPort), s.legs, len(s.table.free), len(s.table.rest)
	return c
}

// Session is the state of a client's connection.
type Session struct {
	Client    netip.AddrPort
	Requests  uint64
	Responses uint64 // handed to the system
	Failed    uint64 // requests that got an error response
	Pending   uint64 // requests whose answer is not sent yet
	Idle      time.Duration
}

// Sessions returns the connections of the clients in the order of their addresses.
func (s *Service) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opt.Now()
	out := make([]Session, 0, len(s.clients))
	for c := range s.clients {
		out = append(out, Session{
			Client: c.addr, Requests: c.requests, Responses: c.responses, Failed: c.failed, Pending: c.pending, Idle: max(0, now.Sub(c.last)),
		})
	}
	slices.SortFunc(out, func(a, b Session) int { return a.Client.Compare(b.Client) })
	return out
}
