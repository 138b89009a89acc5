package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/mapping"
	"imeproxy/mapping/service"
	"imeproxy/mediaterm"
	"imeproxy/proxy/capture"
	"imeproxy/proxy/config"
	"imeproxy/proxy/disk"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/peerserver"
	"imeproxy/proxy/trace"
	"imeproxy/proxy/vqreport"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
	"imeproxy/ucime/ticket"
)

// Options are what the command line gives.
type Options struct {
	Config   *config.Config
	File     string // where it came from, for `show version`
	StateDir string // keys, certificates, call records, what was added to the kernel
	Log      *slog.Logger
	KeyLog   io.Writer // TLS key log for a lab; nil in service
	Now      func() time.Time
	Version  string
	Commit   string
	Recent   *observe.LogRing // what Log wrote last; nil: not kept
	Syslog   *observe.Syslog  // that Log writes to; nil: no syslog servers
	Metrics  string           // "127.0.0.1:9464": where Prometheus may collect, a loopback address; "": nowhere
}

// Appliance is the running proxy. Start it once, Stop it once; its other methods may be called from any goroutine
// in between.
type Appliance struct {
	opt     Options
	log     *slog.Logger
	now     func() time.Time
	started time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	plan     atomic.Pointer[plan]
	applying sync.Mutex // one configuration change at a time

	store    *tlsproxy.Store
	limiter  *tlsproxy.Limiter
	gate     *tlsproxy.HandshakeGate
	term     atomic.Pointer[mediaterm.Terminator]
	engine   mediaEngine
	former   []formerMedia // of earlier configurations, until their streams end; guarded by applying
	kernel   *mapping.Kernel
	sealer   *sipalg.Sealer
	records  *observe.RecordWriter
	counters *observe.Counters
	metrics  *observe.Metrics
	reports  *vqreport.Publisher
	health   observe.Health
	sessions *sessions
	calls    *calls
	agenda   *agenda
	held     atomic.Int64 // bytes of large requests that wait for their answer
	lent     lent

	described atomic.Int64 // bytes of session descriptions, see media.weigh
	reached   reached
	expiry    expiry
	reloaded  atomic.Bool // since certificates were looked at last
	stopping  atomic.Bool
	room      sync.Mutex // guards roomMade
	roomMade  time.Time  // when a session was last ended for another

	quality *quality
	trace   trace.Hub
	guard   guard
	silent  *silentEnds // far ends that have never sent any media

	overload overload
	flows    *flowLog
	capture  *capture.Store
	disk     *disk.Disk

	peers         peers
	shownPeer     atomic.Pointer[peerserver.Node] // nil: none
	mappings      *service.Service                // guarded by applying; nil: none
	shownMappings atomic.Pointer[service.Service]
	listen        []*listener
}

// Start builds the appliance from its configuration: certificates are checked before the kernel is touched, the kernel's
// state is in place before a connection is accepted. On an error everything that was begun is undone.
func Start(ctx context.Context, opt Options) (_ *Appliance, err error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	// Not the named result: `return nil, err` would take the appliance away from what undoes it.
	a := &Appliance{opt: opt, log: limitedLog(opt.Log, opt.Now), now: opt.Now, started: opt.Now(), sessions: newSessions(), calls: newCalls(), agenda: newAgenda(opt.Now()), flows: newFlowLog()}
	a.silent = newSilent(a.log, a.now)
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.quality, a.reports = newQuality(a), vqreport.New(a.log)
	a.peers.webhooks = peerserver.NewWebhooks(a.log)
	a.capture = capture.NewStore(opt.StateDir, &a.trace, a.log)
	var undo []func()
	defer func() {
		if err != nil {
			err = explainOwner(opt.StateDir, err)
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
			a.cancel()
		}
	}()
	if a.counters, err = newCounters(); err != nil {
		return nil, err
	}
	if a.metrics, err = observe.NewMetrics(a.counters, a.live); err != nil {
		return nil, err
	}
	var key [32]byte
	_, _ = rand.Read(key[:])
	a.sealer = sipalg.NewSealer(key)
	if a.store, err = tlsproxy.OpenStore(opt.StateDir); err != nil {
		return nil, err
	}
	p, err := newPlan(opt.Config, nil)
	if err != nil {
		return nil, err
	}
	if err = errors.Join(a.checkTrustpoints(p), checkInterfaces(opt.Config)); err != nil {
		return nil, err
	}
	a.limiter, a.gate = tlsproxy.NewLimiter(p.maxSessions()), tlsproxy.NewHandshakeGate(0, a.now)
	if a.records, err = observe.NewRecordWriter(observe.RecordConfig{File: filepath.Join(opt.StateDir, "calls.json"), StateDir: opt.StateDir, Log: a.log}); err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = a.records.Close() })
	if a.disk, err = disk.Open(opt.StateDir); err != nil {
		return nil, err
	}
	undo = append(undo, a.disk.Close)
	if err = mapping.Cleanup(a.log, opt.StateDir); err != nil {
		return nil, err
	}
	a.plan.Store(p)
	if a.listen, err = a.openListeners(p, nil); err != nil {
		return nil, err
	}
	undo = append(undo, a.closeListeners)
	a.probeAddresses(p)
	if p.proxying() {
		if err = a.engine.open(p.Media, a.log); err != nil {
			return nil, err
		}
		undo = append(undo, func() { _ = a.engine.close() })
	}
	if a.kernel, err = mapping.Apply(a.spec(p, a.listen, nil), opt.StateDir, a.log); err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = a.kernel.Remove() })
	a.disk.Sweep() // no other daemon has this directory now
	if p.proxying() {
		if err = a.proveEngine(p, func() mapping.Spec { return a.spec(p, a.listen, nil) }); err != nil {
			return nil, err
		}
		term, err := a.newTerminator(p)
		if err != nil {
			return nil, err
		}
		a.term.Store(term)
	} else {
		a.log.Warn("no uc-ime is configured: traffic is forwarded and translated, no call is taken")
	}
	if err = a.applyMappings(p); err != nil {
		return nil, err
	}
	if err = a.serveMetrics(opt.Metrics); err != nil {
		return nil, err
	}
	a.startPeer(p)
	a.serveListeners(a.listen, nil)
	a.setSyslog(p)
	a.quality.loadTable(p)
	a.atBeat(a.quality.run)
	a.wg.Go(func() { a.reports.Run(a.ctx) })
	a.wg.Go(func() { a.peers.webhooks.Run(a.ctx) })
	a.wg.Go(a.tellDenials)
	a.wg.Go(a.followFlows)
	a.atBeat(a.sweep)
	return a, nil
}

// atBeat starts what works every so often when lines of the log and records may be written, too: to wake up costs more than what is done then.
func (a *Appliance) atBeat(run func()) {
	a.wg.Go(func() {
		select {
		case <-time.After(observe.ToBeat()):
			run()
		case <-a.ctx.Done():
		}
	})
}

// openListeners opens one transparent listener a class, on a loopback port that nobody reaches but through the interception. A class
// that stood before keeps its listener.
func (a *Appliance) openListeners(p *plan, old []*listener) ([]*listener, error) {
	var out []*listener
	for _, cl := range p.classes {
		if i := slices.IndexFunc(old, func(l *listener) bool { return l.class.name == cl.name && l.class.outbound == cl.outbound }); i >= 0 {
			out = append(out, &listener{Listener: old[i].Listener, class: cl, live: old[i].live})
			old = slices.Delete(slices.Clone(old), i, i+1)
			continue
		}
		l, err := tlsproxy.ListenTransparent(a.ctx, netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			closeFresh(out)
			return nil, fmt.Errorf("listener of class %s: %w", cl.name, err)
		}
		out = append(out, &listener{Listener: l, class: cl, live: new(atomic.Pointer[class])})
	}
	return out, nil
}

// fresh tells whether nobody accepts on a listener yet.
func (l *listener) fresh() bool { return l.live.Load() == nil }

func closeFresh(list []*listener) {
	for _, l := range list {
		if l.fresh() {
			_ = l.Close()
		}
	}
}

// serveListeners puts listeners and their classes into force, and closes those of old that are in use no more.
func (a *Appliance) serveListeners(list, old []*listener) {
	for _, l := range list {
		fresh := l.fresh()
		l.live.Store(l.class)
		if fresh {
			a.wg.Go(func() { a.accept(l) })
		}
	}
	for _, o := range old {
		if !slices.ContainsFunc(list, func(l *listener) bool { return l.live == o.live }) {
			_ = o.Close()
		}
	}
	a.listen = list
}

func (a *Appliance) closeListeners() {
	for _, l := range a.listen {
		_ = l.Close()
	}
}

// probeAddresses warns of addresses that another host on the link uses already.
func (a *Appliance) probeAddresses(p *plan) {
	var wg sync.WaitGroup
	for _, ad := range p.addresses() {
		wg.Go(func() {
			used, mac, err := mapping.ProbeARP(ad.Link, ad.Addr, 300*time.Millisecond)
			switch {
			case err != nil:
				a.log.Debug("address not probed", "address", ad.Addr.String(), "interface", ad.Link, "err", err)
			case used:
				a.log.Warn("address is in use by another host", "address", ad.Addr.String(), "interface", ad.Link, "mac", mac.String())
			}
		})
	}
	wg.Wait()
}

// Stop ends the appliance: new calls are refused, standing ones may end by themselves for the drain time, then get
// BYE; then the kernel's state is removed. The context ends the waiting early.
func (a *Appliance) Stop(ctx context.Context, drain time.Duration) error {
	a.stopping.Store(true)
	a.log.Info("stopping: new calls are refused", "drain", drain, "calls", a.standing())
	if drain > 0 {
		a.drain(ctx, drain)
	}
	for _, c := range a.calls.snapshot() {
		a.clearCall(c, "shutdown")
	}
	a.await(ctx, stopGrace, func() bool { return a.unanswered() == 0 })
	a.closeListeners()
	// First the context: a session that begins from now on ends itself, those that have begun are in the list.
	a.cancel()
	list, _ := a.sessions.snapshot()
	for _, s := range list {
		s.end("shutdown")
	}
	a.wg.Wait()
	a.applying.Lock()
	defer a.applying.Unlock()
	err := a.closePeer()
	if t := a.term.Load(); t != nil {
		err = errors.Join(err, t.Close())
	}
	for _, f := range a.former {
		err = errors.Join(err, f.term.Close())
	}
	if a.mappings != nil {
		err = errors.Join(err, a.mappings.Close())
		a.mappings.Wait()
	}
	a.capture.Close()
	a.disk.Close()
	err = errors.Join(err, a.kernel.Remove(), a.engine.close())
	if e := a.records.Close(); !errors.Is(e, observe.ErrRecordsClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// drainToldEvery is how often the log says how many calls are left.
const drainToldEvery = time.Minute

// drain lets standing calls end by themselves. The list of health problems and the log tell how many are left and for how long.
func (a *Appliance) drain(ctx context.Context, d time.Duration) {
	begun := a.now()
	end := begun.Add(d)
	told := begun
	a.await(ctx, d, func() bool {
		now, left := a.now(), a.standing()
		a.health.Raise(observe.Problem{
			Code: "draining", Severity: observe.Critical, Since: begun,
			Impact:   fmt.Sprintf("the daemon is stopping: new calls get 503; %d left, which get BYE at %s", left, end.UTC().Format("15:04:05 MST")),
			WhatToDo: "wait, or end the waiting by another SIGTERM",
		})
		if now.Sub(told) >= drainToldEvery {
			told = now
			a.log.Info("draining", "calls", left, "until", end.UTC().Format(time.RFC3339))
		}
		return left == 0
	})
	why := "no call is left"
	switch left := a.standing(); {
	case left > 0 && ctx.Err() != nil:
		why = "it was ended early: the rest gets BYE"
	case left > 0:
		why = "its time is over: the rest gets BYE"
	}
	a.log.Info("the drain is over", "calls", a.standing(), "why", why)
}

// await looks ten times a second whether something has come about, for at most d.
func (a *Appliance) await(ctx context.Context, d time.Duration, done func() bool) {
	end := time.NewTimer(d)
	defer end.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-look.C:
		}
	}
}

// standing counts the calls by INVITE that have not ended.
func (a *Appliance) standing() int {
	n := 0
	for _, c := range a.calls.snapshot() {
		c.locked(func() {
			if c.d.HasInvite() {
				n++
			}
		})
	}
	return n
}

// unanswered counts the requests that wait for an answer: the appliance's own, those that wait for a connection too, and those that
// it has passed on.
func (a *Appliance) unanswered() int {
	n := a.reached.waiting()
	for _, c := range a.calls.snapshot() {
		c.locked(func() { n += c.d.Unanswered() })
	}
	return n
}

func (a *Appliance) count(area, what, reason string) { a.counters.Inc(area, what, reason) }

// newCounters declares every counter with its closed set of reasons.
func newCounters() (*observe.Counters, error) {
	var causes, tickets []string
	for _, c := range append(sipalg.Causes(), dialog.Causes()...) {
		causes = append(causes, string(c))
	}
	causes = append(causes, "outside_unreachable", "call_agent_unreachable", "session_limit", "wrong_domain", "stopping", "too_many_calls",
		"unusable_offer", "unusable_answer", "no_media_port", "untranslatable", "connection_lost", "inside_address_named", causeTarget, "fallback_ordered", causeRegistration, causeMethod, causeTransfer, causeReplaces)
	for _, r := range ticket.Results() {
		tickets = append(tickets, observe.Snake(string(r)))
	}
	return observe.NewCounters(
		observe.Family{Area: "sip", What: "messages_refused", Help: "SIP messages that went no further, by cause.", Reasons: causes},
		observe.Family{Area: "sip", What: "keepalives", Help: "RFC 5626 pings answered."},
		observe.Family{Area: "sip", What: "options_answered", Help: "OPTIONS from the Internet that the proxy answered itself."},
		observe.Family{Area: "sip", What: "unknown_dialog", Help: "Requests answered 481."},
		observe.Family{Area: "sip", What: "acks_without_dialog", Help: "ACKs that belonged to no dialog, such as those of refused requests."},
		observe.Family{Area: "sip", What: "dialogs_opened", Help: "Calls answered."},
		observe.Family{Area: "sip", What: "dialogs_ended", Help: "Answered calls that ended."},
		observe.Family{Area: "ticket", What: "verified", Help: "Requests whose ticket passed every check."},
		observe.Family{Area: "ticket", What: "failures", Help: "Requests refused for their ticket, by check.", Reasons: tickets},
		observe.Family{Area: "tls", What: "handshake_failures", Help: "TLS handshakes that failed, by reason.", Reasons: handshakeReasons()},
		observe.Family{Area: "tls", What: "sessions_refused", Help: "Signaling sessions refused, by reason.", Reasons: []string{"inbound", "outbound"}},
		observe.Family{Area: "tls", What: "connections_refused", Help: "Intercepted connections that belong to no call agent.", Reasons: []string{"not_a_call_agent"}},
	)
}
