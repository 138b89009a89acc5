package peerserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/store"
	"imeproxy/ucime/ticket"
	"imeproxy/ucime/vap"
)

// MaxClaims is how many claimants of a number are asked in one try of a call; the others in the next.
const MaxClaims = 8

// awaitServices is how long the validator waits after a start for the first service to be published: call agents come back after 10 minutes at the latest.
const awaitServices = 10 * time.Minute

// maxUnsaved is how many learned routes wait for a store that fails; more are forgotten.
const maxUnsaved = 10_000

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

	own map[learn.PeerID]bool

	published chan struct{} // closed when the first service is
	publish   sync.Once

	mu       sync.Mutex // guards what follows
	engine   *learn.Engine
	services map[vap.Key]vap.Publication
	unsaved  []learn.Learned // routes that the store has failed to take
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
		own: ownPeers(cfg), published: make(chan struct{}), cfg: cfg, counters: &pvp.Counters{}, kick: make(chan struct{}, 1), slots: make(chan struct{}, cfg.Workers), services: map[vap.Key]vap.Publication{},
	}
	state, err := cfg.Store.State()
	if err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	s.cfg.Learn.Ready = func(service string) bool { _, ok := s.group(service); return ok }
	s.engine = learn.Restore(s.cfg.Learn, state)
	s.index = pvp.NewIndex(cfg.Incoming, s.proven)
	if err := cfg.Store.EachIncoming(func(in store.Incoming) error {
		if !in.Proven {
			s.provable(in)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	if s.client, err = pvp.NewClient(pvp.ClientConfig{
		Identity: cfg.Identity, Own: cfg.Own, Domain: cfg.Domain, Limits: cfg.PVP, Counters: s.counters, Now: cfg.Now,
	}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	if s.validator, err = pvp.NewServer(pvp.ServerConfig{
		Identity: cfg.Identity, Records: s.index, Trust: trust{s}, Issuer: cfg.Issuer, Guesses: cfg.Store, Limits: cfg.PVP, Counters: s.counters, Now: cfg.Now, Log: cfg.Log,
	}); err != nil {
		return nil, fmt.Errorf("peer server: %w", err)
	}
	s.vap = vap.NewServer(vap.ServerConfig{Handler: handler{s}, Quota: cfg.Quota, Log: cfg.Log, Listen: cfg.VAPListen, OnOverQuota: func(q vap.Quota) {
		cfg.Log.Warn("call agents publish more numbers than the quota allows", "quota", q)
	}})
	return s, nil
}

// ownPeers are all peer IDs that our certificate names: the ring publishes our numbers under each of them.
func ownPeers(cfg Config) map[learn.PeerID]bool {
	own := map[learn.PeerID]bool{cfg.Own: true}
	c, err := cfg.Identity.Certificate()
	if err != nil || c.Leaf == nil {
		return own
	}
	ids, _ := cfg.Identity.PeerIDs(c.Leaf)
	for _, id := range ids {
		own[id] = true
	}
	return own
}

// provable lets others prove a call that came in. One that nobody can prove, or that is older than all of a full index, only takes up
// room in the store until it is old: it must keep neither the others out nor the server from starting.
func (s *Server) provable(in store.Incoming) {
	if _, _, err := s.index.Add(in.ID, in.VCR); err != nil {
		s.cfg.Log.Info("a call that came in cannot be proven by others", "record", in.ID, "why", err)
	}
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
		s.awaitService(ctx)
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

// awaitService waits until a call agent is back. Before that nobody knows who is trusted nor where calls go: whoever proves a call would be refused, and the call used up. Not
// to be reached does no harm: it is tried again.
func (s *Server) awaitService(ctx context.Context) {
	limit := time.NewTimer(awaitServices)
	defer limit.Stop()
	select {
	case <-s.published:
	case <-limit.C:
	case <-ctx.Done():
	}
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
	s.mu.Lock()
	trust, _ := s.group(task.Service) // the service may go while this goes on; its rules count on
	s.mu.Unlock()
	claims, err := s.cfg.Directory.Lookup(ctx, task.VCR.Called)
	if err != nil {
		s.cfg.Log.Warn("no look-up of who claims a called number", "err", err)
		s.finish(task, true) // nobody was reached: it is tried again
		return
	}
	claims = s.rank(task, claims)
	asked := 0
	for _, c := range claims {
		if slices.Contains(task.Asked, c.Peer) {
			continue
		}
		if asked == MaxClaims || ctx.Err() != nil {
			s.mu.Lock()
			s.engine.Again(task.ID)
			s.mu.Unlock()
			break
		}
		if !s.ask(task, c.Peer) {
			break
		}
		asked++
		r := s.client.Validate(ctx, c.Addr, c.Peer, task.VCR, pvp.WithCaller, pvp.WithoutCaller)
		if errors.Is(r.Err, pvp.ErrUnusable) {
			break
		}
		s.cfg.Log.Info("validation ended", "peer", c.Peer.String(), "outcome", r.Outcome.String(), "value", r.Value(), "err", r.Err)
		s.report(task, trust, c.Peer, r)
		if r.Outcome == pvp.Success || r.Outcome == pvp.Refused {
			break // a call proves once
		}
	}
	s.finish(task, len(claims) > 0)
}

// rank gives each claimant once, without ourselves, in the order in which they are asked: by chance, so that nobody is first because of
// its name, and last those that have failed for this number before, so that a crowd of liars keeps the owner out no longer than it takes to try them.
func (s *Server) rank(task learn.Task, claims []Claim) []Claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[learn.PeerID]bool{}
	var first, last []Claim
	for _, c := range claims {
		switch {
		case s.own[c.Peer] || seen[c.Peer]:
		case s.engine.Boxed(c.Peer, task.VCR.Called):
			last = append(last, c)
		default:
			first = append(first, c)
		}
		seen[c.Peer] = true
	}
	for _, list := range [][]Claim{first, last} {
		for i := len(list) - 1; i > 0; i-- {
			j := s.cfg.Learn.Random(int64(i + 1))
			list[i], list[j] = list[j], list[i]
		}
	}
	return append(first, last...)
}

// ask stores that a peer is going to be asked; false: it must not be.
func (s *Server) ask(task learn.Task, peer learn.PeerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.engine.Ask(task.ID, peer) {
		return false
	}
	if err := s.save(s.cfg.Now(), nil); err != nil {
		s.engine.Report(s.cfg.Now(), task.ID, nil, learn.Result{Peer: peer, Outcome: learn.Unreachable})
		s.cfg.Log.Error("nobody is asked for a call while the store fails", "err", err)
		return false
	}
	return true
}

var outcomes = map[pvp.Outcome]learn.Outcome{
	pvp.Unreachable: learn.Unreachable, pvp.FailedProof: learn.Failed, pvp.Refused: learn.Refused, pvp.Success: learn.Succeeded,
}

// report brings a result into the pools and stores what that has changed.
func (s *Server) report(task learn.Task, trust *learn.TrustGroup, peer learn.PeerID, r pvp.Result) {
	out := learn.Result{Peer: peer, Outcome: outcomes[r.Outcome], Value: r.Value()}
	if r.Grant != nil {
		out.Domain, out.Numbers, out.URIs, out.Ticket = r.Grant.Domain, r.Grant.Numbers, r.Grant.Routes, r.Grant.Ticket
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if t, err := ticket.Decode(out.Ticket); err == nil && t.NotAfter < uint64(now.Add(learn.RouteLife).Unix()) {
		out.Until = time.Unix(int64(t.NotAfter), 0)
	}
	released := s.engine.Report(now, task.ID, trust, out)
	for _, l := range released {
		s.cfg.Log.Info("route learned", "number", string(l.Route.Number), "domain", l.Route.Domain, "peer", l.Route.Peer.String())
	}
	if err := s.save(now, released); err != nil {
		s.cfg.Log.Error("what was learned is not stored yet", "err", err)
	}
}

func (s *Server) finish(task learn.Task, claimed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	s.engine.Finish(now, task.ID, claimed)
	if err := s.save(now, nil); err != nil {
		s.cfg.Log.Error("the end of a validation is not stored yet", "err", err)
	}
}

// save stores what the engine has changed, and tells call agents of the routes. What cannot be stored now is stored with the next change: an engine that went
// back to what the disk has would forget failures, and would validate again what other peers have used up. The caller holds mu.
func (s *Server) save(now time.Time, released []learn.Learned, uploads ...store.Upload) error {
	changes, routes := s.engine.Changes(), append(s.unsaved, released...)
	s.unsaved = nil
	_, err := s.cfg.Store.Apply(now, changes, routes, uploads...)
	if errors.Is(err, store.ErrFull) && len(routes) > 0 {
		routes, err = s.saveApart(now, changes, routes, uploads)
	}
	if err != nil {
		s.engine.Unstored(changes)
		if s.unsaved = routes; len(routes) > maxUnsaved {
			s.unsaved = routes[len(routes)-maxUnsaved:]
			s.cfg.Log.Error("learned routes are forgotten: the store has failed for too long", "routes", len(routes)-maxUnsaved)
		}
		return err
	}
	for _, l := range routes {
		if key, ok := s.keyOf(l.Service); ok {
			s.vap.Wake(key)
		}
	}
	return nil
}

// saveApart stores changes when the table of routes is full, and then each route that has room. It returns the routes that are stored, or when it fails those that are to be.
func (s *Server) saveApart(now time.Time, changes learn.Changes, routes []learn.Learned, uploads []store.Upload) (stored []learn.Learned, err error) {
	if _, err := s.cfg.Store.Apply(now, changes, nil, uploads...); err != nil {
		return routes, err
	}
	for i, l := range routes {
		_, err := s.cfg.Store.Apply(now, learn.Changes{}, []learn.Learned{l})
		switch {
		case err == nil:
			stored = append(stored, l)
		case errors.Is(err, store.ErrFull):
			s.cfg.Log.Error("a learned route is forgotten", "number", string(l.Route.Number), "why", err)
		default:
			s.unsaved = append(s.unsaved, routes[i:]...)
			return stored, nil // the changes are stored
		}
	}
	return stored, nil
}

// proven stores that a VCR was proven.
func (s *Server) proven(id uint64, by learn.PeerID) error {
	ok, err := s.cfg.Store.Prove(id, by)
	if err == nil && !ok {
		err = fmt.Errorf("record %d is gone or was proven before", id)
	}
	return err
}

// expire removes what is old, at the start and once an hour.
func (s *Server) expire(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for ctx.Err() == nil {
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
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
