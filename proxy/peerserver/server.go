package peerserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/store"
	"imeproxy/ucime/vap"
)

// MaxClaims is how many claimants of a number are asked.
const MaxClaims = 8

// Claim says that a peer claims a number, and where its validator is.
type Claim struct {
	Peer learn.PeerID
	Addr string // host:port
}

// Directory finds who claims a number. It may be called by several goroutines.
type Directory interface {
	Lookup(ctx context.Context, number learn.Number) ([]Claim, error)
}

// Config of a Server. Store, Identity, Own, Domain, Issuer and Directory are mandatory.
type Config struct {
	Store     *store.Store // closed by its owner, after Run has ended
	Identity  pvp.Identity
	Own       learn.PeerID
	Domain    string
	Issuer    pvp.Issuer
	Directory Directory
	// Publish is told all services with their numbers whenever these change; may be nil, must not block for long.
	Publish func([]vap.Publication)

	Learn     learn.Config
	PVP       pvp.Limits
	Quota     uint32        // numbers that call agents may publish
	KeepVCRs  time.Duration // how long a call that came in can be proven: 3 days
	Incoming  int           // of them, in the validator's index: 100,000
	Workers   int           // validations at a time: 8
	Now       func() time.Time
	Log       *slog.Logger
	VAPListen func(addr string) (net.Listener, error) // nil: TCP
}

// Server is a peer server.
type Server struct {
	cfg       Config
	vap       *vap.Server
	client    *pvp.Client
	validator *pvp.Server
	index     *pvp.Index
	counters  *pvp.Counters
	kick      chan struct{}
	slots     chan struct{}

	mu       sync.Mutex // guards what follows
	engine   *learn.Engine
	services map[vap.Key]vap.Publication
}

// New reads the store and makes a Server; Run starts it.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Directory == nil {
		return nil, errors.New("peer server: no store or no directory")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Learn.Random == nil {
		cfg.Learn.Random = rand.Int64N
	}
	if cfg.Workers == 0 {
		cfg.Workers = 8
	}
	if cfg.KeepVCRs == 0 {
		cfg.KeepVCRs = 72 * time.Hour
	}
	if cfg.Incoming == 0 {
		cfg.Incoming = 100_000
	}
	s := &Server{
		cfg: cfg, counters: &pvp.Counters{}, kick: make(chan struct{}, 1), slots: make(chan struct{}, cfg.Workers), services: map[vap.Key]vap.Publication{},
	}
	state, err := cfg.Store.State()
	if err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	s.engine = learn.Restore(cfg.Learn, state)
	s.index = pvp.NewIndex(cfg.Incoming, s.proven)
	if err := cfg.Store.EachIncoming(func(in store.Incoming) error {
		if in.Proven {
			return nil
		}
		_, _, err := s.index.Add(in.ID, in.VCR)
		return err
	}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	if s.client, err = pvp.NewClient(pvp.ClientConfig{
		Identity: cfg.Identity, Own: cfg.Own, Domain: cfg.Domain, Limits: cfg.PVP, Counters: s.counters, Now: cfg.Now,
	}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	if s.validator, err = pvp.NewServer(pvp.ServerConfig{
		Identity: cfg.Identity, Records: s.index, Trust: trust{s}, Issuer: cfg.Issuer, Limits: cfg.PVP, Counters: s.counters, Now: cfg.Now, Log: cfg.Log,
	}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	s.vap = vap.NewServer(vap.ServerConfig{Handler: handler{s}, Quota: cfg.Quota, Log: cfg.Log, Listen: cfg.VAPListen, OnOverQuota: func(q vap.Quota) {
		cfg.Log.Warn("call agents publish more numbers than the quota allows", "quota", q)
	}})
	return s, nil
}

// VAP is the call agents' side: its instances are set by Apply.
func (s *Server) VAP() *vap.Server { return s.vap }

// Counters are those of validation.
func (s *Server) Counters() *pvp.Counters { return s.counters }

// Learning gives the counters and the pools of the learning engine.
func (s *Server) Learning() (learn.Counters, map[learn.PeerID]learn.Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine.Counters, s.engine.Pools()
}

// Awaiting are the guide's gauges ValidationsPending and TerminatingVCRs.
func (s *Server) Awaiting() (pending, terminating int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine.Pending(), s.index.Len()
}

// Run validates and answers validations on ln until ctx ends, then ends everything and waits for it. Call it once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		defer cancel()
		failed = s.validator.Serve(ctx, ln)
	})
	wg.Go(func() { s.expire(ctx) })
	s.work(ctx, &wg)
	s.vap.Close()
	wg.Wait()
	if failed != nil {
		return fmt.Errorf("validator: %w", failed)
	}
	return nil
}

// work gives due VCRs to workers.
func (s *Server) work(ctx context.Context, wg *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-timer.C:
		}
		timer.Reset(s.dispatch(ctx, wg))
	}
}

// dispatch starts what is due and says when to look again.
func (s *Server) dispatch(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	const idle = time.Minute
	for {
		select {
		case s.slots <- struct{}{}:
		default:
			return idle // the one that ends kicks
		}
		s.mu.Lock()
		now := s.cfg.Now()
		due := s.engine.Due(now, 1)
		next := s.engine.Next()
		s.mu.Unlock()
		if len(due) == 0 {
			<-s.slots
			if next.IsZero() {
				return idle
			}
			return min(idle, max(next.Sub(now), time.Millisecond))
		}
		wg.Go(func() {
			s.validate(ctx, due[0])
			<-s.slots
			s.wake()
		})
	}
}

func (s *Server) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// validate asks those who claim the number.
func (s *Server) validate(ctx context.Context, task learn.Task) {
	claims, err := s.cfg.Directory.Lookup(ctx, task.VCR.Called)
	if err != nil {
		s.cfg.Log.Warn("no look-up of who claims a called number", "err", err)
		s.finish(task, true) // nobody was reached: it is tried again
		return
	}
	claimed := false
	for _, c := range claims[:min(len(claims), MaxClaims)] {
		if c.Peer == s.cfg.Own {
			continue
		}
		r := s.client.Validate(ctx, c.Addr, c.Peer, task.VCR, pvp.WithCaller, pvp.WithoutCaller)
		if errors.Is(r.Err, pvp.ErrUnusable) {
			break
		}
		claimed = true
		s.cfg.Log.Info("validation ended", "peer", c.Peer.String(), "outcome", r.Outcome.String(), "value", r.Value(), "err", r.Err)
		s.report(task, c.Peer, r)
		if r.Outcome == pvp.Success || r.Outcome == pvp.Refused {
			break // a call proves once
		}
	}
	s.finish(task, claimed)
}

var outcomes = map[pvp.Outcome]learn.Outcome{
	pvp.Unreachable: learn.Unreachable, pvp.FailedProof: learn.Failed, pvp.Refused: learn.Refused, pvp.Success: learn.Succeeded,
}

// report brings a result into the pools and stores what that has changed.
func (s *Server) report(task learn.Task, peer learn.PeerID, r pvp.Result) {
	out := learn.Result{Peer: peer, Outcome: outcomes[r.Outcome], Value: r.Value()}
	if r.Grant != nil {
		out.Domain, out.Numbers, out.URIs, out.Ticket = r.Grant.Domain, r.Grant.Numbers, r.Grant.Routes, r.Grant.Ticket
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	released := s.engine.Report(now, task.ID, s.group(task.Service), out)
	if err := s.save(now, released); err != nil {
		s.cfg.Log.Error("what was learned is not stored and is forgotten", "err", err)
		return
	}
	for _, l := range released {
		s.cfg.Log.Info("route learned", "number", string(l.Route.Number), "domain", l.Route.Domain, "peer", l.Route.Peer.String())
		if key, ok := s.keyOf(l.Service); ok {
			s.vap.Wake(key)
		}
	}
}

func (s *Server) finish(task learn.Task, claimed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	s.engine.Finish(now, task.ID, claimed)
	if err := s.save(now, nil); err != nil {
		s.cfg.Log.Error("the end of a validation is not stored: it is done again", "err", err)
	}
}

// save stores what the engine has changed. When that fails the engine goes back to what is stored: what it holds must never be ahead
// of the disk. The caller holds mu.
func (s *Server) save(now time.Time, released []learn.Learned, uploads ...store.Upload) error {
	_, err := s.cfg.Store.Apply(now, s.engine.Changes(), released, uploads...)
	if err == nil {
		return nil
	}
	state, rerr := s.cfg.Store.State()
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	counters := s.engine.Counters
	s.engine = learn.Restore(s.cfg.Learn, state)
	s.engine.Counters = counters
	return err
}

// proven stores that a VCR was proven.
func (s *Server) proven(id uint64, by learn.PeerID) error {
	ok, err := s.cfg.Store.Prove(id, by)
	if err == nil && !ok {
		err = fmt.Errorf("record %d is gone or was proven before", id)
	}
	return err
}

// expire removes what is old, once an hour.
func (s *Server) expire(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := s.cfg.Now()
		s.index.Expire(now.Add(-s.cfg.KeepVCRs))
		vcrs, routes, err := s.cfg.Store.Expire(now, now.Add(-s.cfg.KeepVCRs))
		if err != nil {
			s.cfg.Log.Error("old records stay", "err", err)
		} else if vcrs+routes > 0 {
			s.cfg.Log.Info("old records removed", "vcrs", vcrs, "routes", routes)
		}
		if routes > 0 {
			for _, p := range s.vap.Publications() {
				s.vap.Wake(p.Key)
			}
		}
	}
}
