package ring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"imeproxy/ucime/learn"
)

// Config says who we are in which ring. Identity, Listen and either Bootstraps or Bootstrap are needed.
type Config struct {
	Identity   Identity
	Listen     string         // address:port to listen on; ":6084"
	Advertise  netip.AddrPort // how others reach us; zero: the address that Listen got
	Validator  string         // address:port of our validator, told to those who look up our numbers; the address is that of Advertise
	Bootstraps []string       // host:port of bootstrap servers
	Software   uint32         // our version, compared with the one that the ring requires

	Bootstrap  bool            // we are a bootstrap server; our certificate has to agree
	Settings   *Settings       // of a bootstrap server: those it kept. nil: another one tells them
	OnSettings func(*Settings) // called with new settings, to be kept; not at once with itself

	MaxRecords int // records held for others, default 1,000,000
	Pace       Pace
	Now        func() time.Time
	Tick       <-chan time.Time // when to look what is due; nil: each second
	Log        *slog.Logger
}

const (
	askEvery    = 5 * time.Second // for admission, while there is none
	askedAtOnce = 16              // members that are called dead

	joinToldEvery = 10 * time.Minute // that we are not admitted, for one reason or the other
)

// Ring is our membership. All methods may be called by several goroutines.
type Ring struct {
	cfg    Config
	n      *node
	w      *wire
	g      *gossip
	q      *requests
	cancel context.CancelFunc
	wg     sync.WaitGroup
	store  chan struct{} // kicks
	keep   chan struct{}

	ml atomic.Pointer[memberlist.Memberlist] // set once, by the upkeep goroutine

	once     sync.Once
	closeErr error
	tell     sync.Mutex // one call of OnSettings at a time, the last with the newest

	mu       sync.Mutex
	joinErr  error // of the last try
	joinTold time.Time
	rates    [2]float64
	measured time.Time
	at       [2]uint64
}

// New starts a member. It joins in the background, again and again until a bootstrap server lets it in; Status tells.
func New(cfg Config) (*Ring, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxRecords == 0 {
		cfg.MaxRecords = defaultRecords
	}
	for _, d := range []*time.Duration{&cfg.Pace.Token, &cfg.Pace.Rejoin} {
		if *d == 0 {
			*d = time.Minute
		}
	}
	if len(cfg.Bootstraps) == 0 && !cfg.Bootstrap {
		return nil, errors.New("ring: no bootstrap server is configured")
	}
	if len(cfg.Bootstraps) > maxBootstraps {
		return nil, fmt.Errorf("ring: %d bootstrap servers, %d at most", len(cfg.Bootstraps), maxBootstraps)
	}
	n, err := newNode(cfg.Identity, cfg.Validator, cfg.Software, cfg.MaxRecords, cfg.Now)
	if err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	n.tokenEvery = cfg.Pace.Token
	if cfg.Bootstrap {
		if err := n.govern(cfg.Settings); err != nil {
			return nil, fmt.Errorf("ring: %w", err)
		}
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	if !cfg.Advertise.IsValid() {
		cfg.Advertise = ln.Addr().(*net.TCPAddr).AddrPort()
	}
	cfg.Advertise = netip.AddrPortFrom(cfg.Advertise.Addr().Unmap(), cfg.Advertise.Port())
	n.addr = cfg.Advertise
	if v, err := netip.ParseAddrPort(cfg.Validator); cfg.Validator != "" && (err != nil || v.Addr().Unmap() != cfg.Advertise.Addr()) {
		ln.Close()
		return nil, fmt.Errorf("ring: validator %s: others take our word for a port at our own address %s alone", cfg.Validator, cfg.Advertise.Addr())
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Ring{cfg: cfg, n: n, cancel: cancel, store: make(chan struct{}, 1), keep: make(chan struct{}, 1), measured: cfg.Now()}
	r.w = &wire{
		n: n, ln: ln, ctx: ctx, wg: &r.wg, serveC: r.serve, shaking: newHandshakes(), open: map[*inbound]struct{}{},
		perMember: map[memberUse]int{},
	}
	r.g = newGossip(r.w, cfg.Advertise, cfg.Pace.PushPull, r.news, cfg.Log)
	r.q = &requests{w: r.w}
	r.wg.Go(r.w.accept)
	r.wg.Go(func() { r.run(ctx) })
	r.wg.Go(func() { r.loop(ctx, r.store, func() { r.n.step(ctx, r.q.call, 8) }) })
	r.wg.Go(func() { r.loop(ctx, r.keep, r.upkeep(ctx)) })
	return r, nil
}

func (r *Ring) serve(alpn string, p *party, c net.Conn) {
	if alpn == alpnRing {
		r.w.serveRequests(p, c)
		return
	}
	r.g.serve(alpn, p, c)
}

// run turns ticks into kicks: a step that takes long makes the next one late, never more than one.
func (r *Ring) run(ctx context.Context) {
	tick := r.cfg.Tick
	if tick == nil {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		tick = t.C
	}
	for {
		kick(r.store)
		kick(r.keep)
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *Ring) loop(ctx context.Context, kicked <-chan struct{}, do func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-kicked:
			do()
		}
	}
}

// upkeep returns what is done each second for the membership: admission, tokens, doubts, ways back.
func (r *Ring) upkeep(ctx context.Context) func() {
	var asked, beat, rejoined, swept time.Time
	return func() {
		now := r.cfg.Now()
		if swept.IsZero() || now.Sub(swept) >= time.Minute {
			swept = now
			r.measure(now)
			r.Recheck()
			if r.n.upkeep() {
				asked = time.Time{}
				r.renewed()
			}
		}
		switch due, silent := r.n.admissionDue(now); {
		case due && now.Sub(asked) >= askEvery:
			asked = now
			r.noteJoin(r.join(ctx))
		case silent && now.Sub(asked) >= r.cfg.Pace.Token:
			asked = now
			if _, err := r.ask(ctx); err == nil { // its settings and token are what we are after
				r.news()
			}
		}
		if r.ml.Load() == nil {
			return
		}
		if r.cfg.Bootstrap && now.Sub(beat) >= r.cfg.Pace.Token {
			beat = now
			if b, err := r.n.beat(); err == nil {
				r.g.spread(userToken, b)
			}
		}
		r.askDoubted(ctx)
		if now.Sub(rejoined) >= r.cfg.Pace.Rejoin {
			rejoined = now
			r.rejoin()
		}
	}
}

// askDoubted asks members that gossip calls dead, several at once: one that does not answer takes 5 s, and admission and tokens must not wait for a thousand of them.
func (r *Ring) askDoubted(ctx context.Context) {
	slots := make(chan struct{}, askedAtOnce)
	var wg sync.WaitGroup
	for _, m := range r.n.doubted() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			_, err := r.q.call(ctx, m, typePing, nil)
			var code Code
			if errors.As(err, &code) {
				err = nil // it answers, if only to refuse
			}
			if err != nil {
				r.g.lose(m.Addr)
				r.cfg.Log.Info("ring member gone", "peer", m.Name, "address", m.Addr, "err", err)
			}
			r.n.heard(m, err)
		})
	}
	wg.Wait()
}

// renewed acts on a new certificate of ours: connections that show the former one are used no more, and a bootstrap server's key goes around.
func (r *Ring) renewed() {
	r.q.renew()
	r.n.mu.Lock()
	raw, authority := bytes.Clone(r.n.raw), r.n.authority
	r.n.mu.Unlock()
	if authority && len(raw) > 0 {
		r.g.spread(userSettings, raw)
		r.news()
	}
}

// admissionDue says whether we need a new admission, and whether the bootstrap servers have been silent so long that it is better
// to ask one what is the matter.
func (n *node) admissionDue(now time.Time) (due, silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	due = n.admission == nil || now.Sub(n.admission.issued) >= admissionRenewal ||
		n.trusted[n.admission.bootstrap].spki != n.admitter // who joins from now on does not know the key that admitted us
	return due, n.last == nil || now.Sub(n.last.at) > 3*n.tokenEvery
}

// join asks for admission and takes part from then on.
func (r *Ring) join(ctx context.Context) error {
	a, err := r.ask(ctx)
	if err != nil {
		return err
	}
	if err := r.n.admitted(a, r.cfg.Advertise); err != nil {
		return err
	}
	r.news()
	if ml := r.ml.Load(); ml != nil {
		return ml.UpdateNode(callTimeout)
	}
	ml, err := memberlist.Create(r.g.config(r.n.self.name, r.cfg.Pace, logLines{r.cfg.Log}))
	if err != nil {
		return fmt.Errorf("start the membership: %w", err)
	}
	r.ml.Store(ml)
	r.rejoin()
	return nil
}

// ask goes through the bootstrap servers until one admits us. A bootstrap server admits itself, but hears others first:
// the ring may have newer settings than those it kept.
func (r *Ring) ask(ctx context.Context) (*admission, error) {
	errs := []error{errors.New("no bootstrap server to ask")}
	for _, b := range r.cfg.Bootstraps {
		a, err := r.q.askAdmission(ctx, b)
		if err == nil {
			r.n.setBanned(false)
			return a, nil
		}
		if errors.Is(err, CodeBanned) {
			r.n.setBanned(true)
		}
		errs = append(errs, err)
	}
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	if r.n.authority && r.n.settings != nil {
		return r.n.admit(r.n.self.peers, r.n.self.spki, r.cfg.Now())
	}
	return nil, errors.Join(errs[min(1, len(errs)-1):]...)
}

func (n *node) setBanned(b bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.banned = b || n.settings.bans(n.self.named)
	n.changed()
}

func (r *Ring) noteJoin(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// An error names the port that the try went out from, and so is another one each time.
	if now := r.cfg.Now(); err != nil && (r.joinErr == nil || r.joinErr.Error() != err.Error() && now.Sub(r.joinTold) >= joinToldEvery) {
		r.joinTold = now
		r.cfg.Log.Warn("ring: not admitted", "err", err)
	}
	r.joinErr = err
}

// rejoin looks for bootstrap servers that are no members, and for one lost member: so the sides of a partition find each other.
func (r *Ring) rejoin() {
	var list []string
	for _, b := range r.cfg.Bootstraps {
		a, err := resolve(b)
		if err != nil {
			r.cfg.Log.Warn("ring: bootstrap server has no address", "bootstrap", b, "err", err)
			continue
		}
		if !r.n.hasAddr(a) {
			r.g.allow(a)
			list = append(list, a.String())
		}
	}
	if a, ok := r.g.lostOne(); ok {
		list = append(list, a.String())
	}
	if len(list) == 0 {
		return
	}
	if _, err := r.ml.Load().Join(list); err != nil {
		r.cfg.Log.Debug("ring: rejoin", "err", err)
	}
}

func (n *node) hasAddr(a netip.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.members {
		if m.Addr == a {
			return true
		}
	}
	return false
}

func resolve(hostPort string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		host, port = hostPort, strconv.Itoa(Port)
	}
	a, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, err
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()), nil
}

// news acts on settings that changed: the banned lose their connections, and the settings are kept.
func (r *Ring) news() {
	r.tell.Lock()
	defer r.tell.Unlock()
	r.n.mu.Lock()
	s := r.n.settings
	r.n.mu.Unlock()
	if s == nil {
		return
	}
	r.w.closeIf(func(p *party) bool { return s.bans(p.named) })
	if r.cfg.OnSettings != nil {
		r.cfg.OnSettings(s.clone())
	}
	kick(r.store)
}

// Publish takes numbers up and keeps them in the ring until Unpublish or Close. Numbers beyond the quota wait for room, which
// a *[QuotaError] says; any other error means that nothing was taken up.
func (r *Ring) Publish(numbers []learn.Number) error {
	defer kick(r.store)
	return r.n.publish(numbers)
}

// Unpublish withdraws numbers, from their holders too.
func (r *Ring) Unpublish(numbers []learn.Number) {
	r.n.unpublish(numbers)
	kick(r.store)
}

// Lookup returns who claims a number, ascending by peer ID; none and no error when nobody does. It takes one hop, to the three holders at once,
// and at most 10 s.
func (r *Ring) Lookup(ctx context.Context, number learn.Number) ([]Claim, error) {
	return r.n.lookup(ctx, number, r.q.call)
}

// Change edits the global settings on a bootstrap server and spreads them; elsewhere it is refused with [ErrNotBootstrap].
func (r *Ring) Change(edit func(*Settings)) error {
	b, err := r.n.change(edit)
	if err != nil {
		return err
	}
	r.g.spread(userSettings, bytes.Clone(b))
	r.news()
	return nil
}

// Settings returns the global settings that are in force, false before any are known.
func (r *Ring) Settings() (Settings, bool) {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	if r.n.settings == nil {
		return Settings{}, false
	}
	return *r.n.settings.clone(), true
}

// Addr is the address that others know us by.
func (r *Ring) Addr() netip.AddrPort { return r.cfg.Advertise }

// Bandwidth is what the ring took in and out in the last minute, in bit/s (InternetBandwidthRecv, InternetBandwidthSend).
func (r *Ring) Bandwidth() (in, out float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rates[0], r.rates[1]
}

func (r *Ring) measure(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := [2]uint64{r.w.in.Load(), r.w.out.Load()}
	if s := now.Sub(r.measured).Seconds(); s > 0 {
		for i := range at {
			r.rates[i] = float64(at[i]-r.at[i]) * 8 / s
		}
	}
	r.at, r.measured = at, now
}

// Status returns our view of the ring, its counters included.
func (r *Ring) Status() Status {
	s := r.n.status()
	s.HandshakesRefused, s.ConnectionsRefused = r.w.refusedHandshakes.Load(), r.w.refusedConnections.Load()
	s.PacketsDropped, s.BytesIn, s.BytesOut = r.g.dropped.Load(), r.w.in.Load(), r.w.out.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !s.Admitted && r.joinErr != nil && !s.Banned {
		s.Reason += ": " + r.joinErr.Error()
	}
	return s
}

// Close leaves the ring and waits until nothing of it runs any more. Our records end with their time. It may be called again.
func (r *Ring) Close() error {
	r.once.Do(func() { r.closeErr = r.close() })
	return r.closeErr
}

func (r *Ring) close() error {
	r.w.shut() // first of all: a member that answers would not be believed to leave
	if ml := r.ml.Load(); ml != nil {
		if err := ml.Leave(time.Second); err != nil {
			r.cfg.Log.Debug("ring: leave", "err", err)
		}
	}
	r.cancel()
	r.g.Shutdown()
	r.q.close()
	r.wg.Wait()
	if ml := r.ml.Load(); ml != nil {
		return ml.Shutdown()
	}
	return nil
}

// logLines turns memberlist's log into debug lines: what counts is in Status.
type logLines struct{ log *slog.Logger }

func (l logLines) Write(b []byte) (int, error) {
	l.log.Debug("memberlist: " + string(bytes.TrimSpace(b)))
	return len(b), nil
}
