package callagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/dialplan"
	"imeproxy/ucime/callagent/leg"
	"imeproxy/ucime/callagent/mapclient"
	"imeproxy/ucime/callagent/records"
	"imeproxy/ucime/callagent/routes"
	"imeproxy/ucime/callagent/uplink"
	"imeproxy/ucime/learn"
	"imeproxy/ucime/vap"
)

// Options of an agent.
type Options struct {
	Config *config.Config
	Log    *slog.Logger
	Now    func() time.Time // nil is time.Now
	Peer   vap.Clock        // of the connections to peer servers; the zero Clock is the machine's

	askLimit time.Duration // 0: askLimit
}

// settings are what a reload replaces.
type settings struct {
	cfg  *config.Config
	plan *dialplan.Plan
}

// Agent is a running call agent. Its methods are for concurrent use.
type Agent struct {
	log      *slog.Logger
	now      func() time.Time
	counters Counters
	routes   *routes.Table
	records  *records.Queue
	link     *uplink.Link // to the peer servers
	pbx, ime *leg.Endpoint
	pstn     []*leg.Endpoint // as in the configuration
	open     chan struct{}   // closed when all sockets are open
	ctx      context.Context // ends with the agent
	stop     context.CancelFunc
	wg       sync.WaitGroup
	askLimit time.Duration // for an end's answer whether it has a call

	mu       sync.Mutex
	set      settings
	firewall *mapclient.Client
	dialogs  map[string]*call // by Call-ID and local tag
	calls    map[*call]bool
	alerts   map[string]*Alert
	quality  quality
	limits   []limiter // of the PSTN trunks
	queue    []*call   // fallbacks that wait for the first trunk
	wake     chan struct{}
	digits   map[string]*call // correlation digits in use, with the profile's number
	closing  bool
}

// Start opens state and sockets and serves.
func Start(o Options) (*Agent, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	cfg := o.Config
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, err
	}
	a := &Agent{
		log: o.Log, now: o.Now, dialogs: make(map[string]*call), calls: make(map[*call]bool), alerts: make(map[string]*Alert),
		open: make(chan struct{}), wake: make(chan struct{}, 1), digits: make(map[string]*call), limits: make([]limiter, len(cfg.PSTN)),
		askLimit: cmp.Or(o.askLimit, askLimit),
	}
	a.ctx, a.stop = context.WithCancel(context.Background())
	var err error
	if a.routes, err = routes.Open(cfg.StateDir, o.Now); err != nil {
		return nil, err
	}
	if a.records, err = records.Open(cfg.StateDir, cfg.VCRQueue); err != nil {
		return nil, err
	}
	a.link = uplink.New(uplink.Options{Log: o.Log, Records: a.records, Store: a.store, Alert: a.linkAlert, Clock: o.Peer})
	a.apply(cfg)
	if err := errors.Join(a.link.Apply(cfg), a.listen(cfg)); err != nil {
		a.Close()
		return nil, err
	}
	a.wg.Go(a.fallbacks)
	a.wg.Go(a.watchQuality)
	a.wg.Go(a.watchSessions)
	return a, nil
}

// listen opens all sockets. Requests wait until the last one is open: a call needs more than its own.
func (a *Agent) listen(cfg *config.Config) (err error) {
	whenOpen := func(handle leg.Handler) leg.Handler {
		return func(e *leg.Endpoint, req *sip.Request, tx *sip.ServerTx) {
			select {
			case <-a.open:
				handle(e, req, tx)
			case <-a.ctx.Done(): // it never served
			}
		}
	}
	peer := func(t func(*config.Config) *config.Trunk) func(netip.Addr) bool {
		return func(from netip.Addr) bool { return t(a.settings().cfg).Peer.Addr.Addr() == from }
	}
	if a.pbx, err = leg.Listen(cfg.PBX.Name, cfg.PBX.Listen, peer(func(c *config.Config) *config.Trunk { return c.PBX }), a.log, whenOpen(a.fromPBX)); err != nil {
		return err
	}
	for i, t := range cfg.PSTN {
		e, err := leg.Listen(t.Name, t.Listen, peer(func(c *config.Config) *config.Trunk { return c.PSTN[i] }), a.log,
			whenOpen(func(e *leg.Endpoint, req *sip.Request, tx *sip.ServerTx) { a.fromPSTN(i, e, req, tx) }))
		if err != nil {
			return err
		}
		a.pstn = append(a.pstn, e)
	}
	if a.ime, err = leg.Listen(cfg.IME.Name, []config.Listener{cfg.IME.Listen}, nil, a.log, whenOpen(a.fromIME)); err == nil {
		close(a.open)
	}
	return err
}

// apply puts a configuration in force.
func (a *Agent) apply(cfg *config.Config) {
	var old *mapclient.Client
	a.mu.Lock()
	before := a.set.cfg
	a.set = settings{cfg, dialplan.New(cfg)}
	next := cfg.Firewalls[cfg.Service.Firewall]
	timers := mapclient.Timers{Connect: cfg.Feature.FirewallConnectionTimer, Response: cfg.Feature.FirewallMappingTimer, Idle: cfg.Feature.FirewallIdleTimer}
	if before == nil || !sameFirewall(before, cfg) {
		old, a.firewall = a.firewall, nil
		if next != nil {
			a.firewall = mapclient.New(next.Addr, timers)
		}
	}
	a.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func sameFirewall(a, b *config.Config) bool {
	x, y := a.Firewalls[a.Service.Firewall], b.Firewalls[b.Service.Firewall]
	return (x == nil) == (y == nil) && (x == nil || x.Addr == y.Addr) && a.Feature == b.Feature
}

// Reload puts another configuration in force for what happens from now on. Listeners, the state directory, the control socket,
// the metrics address and the length of the queue of records are fixed while the agent runs: a change of them is refused.
func (a *Agent) Reload(cfg *config.Config) error {
	now := a.settings().cfg
	fixed := func(c *config.Config) string {
		s := fmt.Sprintln(c.StateDir, c.Control, c.Metrics, c.VCRQueue, c.PBX.Listen, c.IME.Listen, len(c.PSTN))
		for _, t := range c.PSTN {
			s += fmt.Sprintln(t.Listen)
		}
		return s
	}
	if fixed(now) != fixed(cfg) {
		return errors.New("listeners, number of PSTN trunks, state-directory, control, metrics and vcr-queue cannot change while the call agent runs: restart it")
	}
	if err := a.link.Apply(cfg); err != nil {
		return err
	}
	a.apply(cfg)
	a.checkService()
	return nil
}

func (a *Agent) settings() settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.set
}

// Records is the queue of voice call records.
func (a *Agent) Records() *records.Queue { return a.records }

// Learn takes a route from an administrator; one that is not trusted is refused and counted.
func (a *Agent) Learn(r learn.Route) error {
	if !a.settings().plan.Trusted(r.Domain, r.Number) {
		a.counters.RoutesRejected.Add(1)
		return fmt.Errorf("%s of %s is not trusted", r.Number, r.Domain)
	}
	return a.routes.Learn(r)
}

// store takes what a peer server tells; when it returns nil that is on the disk. What is not trusted, or is no route, is refused for good.
func (a *Agent) store(server string, all []learn.Route, withdrawn []learn.Number) (refused int, err error) {
	s := a.settings()
	var known []string
	for name := range s.cfg.Servers {
		known = append(known, name)
	}
	var keep []learn.Route
	for _, r := range all {
		log := a.log.With("ime-server", server, "number", r.Number, "domain", r.Domain)
		if !s.plan.Trusted(r.Domain, r.Number) {
			a.counters.RoutesRejected.Add(1)
			log.Warn("route rejected: it is not trusted")
			continue
		}
		r, err := a.routes.Complete(r)
		if err != nil {
			a.counters.RoutesUnusable.Add(1)
			log.Error("route refused", "err", err)
			continue
		}
		keep = append(keep, r)
	}
	return len(all) - len(keep), a.routes.Apply(server, keep, withdrawn, known...)
}

// Close ends all calls, within two seconds, and closes all sockets.
func (a *Agent) Close() {
	a.mu.Lock()
	a.closing = true
	var all []*call
	for c := range a.calls {
		all = append(all, c)
	}
	firewall := a.firewall
	a.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() { c.hangUp(nil, 2*time.Second) })
	}
	wg.Wait()
	a.stop()
	a.wg.Wait()
	a.link.Close()
	for _, e := range append([]*leg.Endpoint{a.pbx, a.ime}, a.pstn...) {
		if e != nil {
			e.Close()
		}
	}
	if firewall != nil {
		firewall.Close()
	}
	_ = errors.Join(a.records.Close(), a.routes.Close()) // all that they hold was synced when it was written
}

// from reports whether a request comes from a trunk's peer.
func from(req *sip.Request, t *config.Trunk) bool {
	host, _, err := net.SplitHostPort(req.Source())
	return err == nil && host == t.Peer.Addr.Addr().String()
}

// answer responds without a dialog.
func answer(req *sip.Request, tx *sip.ServerTx, code int, reason string, headers ...string) {
	res := sip.NewResponseFromRequest(req, code, reason, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		res.AppendHeader(sip.NewHeader(headers[i], headers[i+1]))
	}
	_ = tx.Respond(res) // the sender repeats its request
}

// common answers what every trunk answers alike; true: done.
func (a *Agent) common(req *sip.Request, tx *sip.ServerTx) bool {
	if tag, _ := req.To().Params.Get("tag"); tag != "" {
		a.inDialog(req, tx, tag)
		return true
	}
	switch {
	case tx == nil: // an ACK of no dialog
	case req.Method == sip.OPTIONS:
		answer(req, tx, 200, "OK", "Accept", "application/sdp", "Allow", "INVITE, ACK, CANCEL, BYE, PRACK, OPTIONS, INFO, UPDATE, REFER, NOTIFY, MESSAGE", "Supported", "100rel, timer")
	case req.Method == sip.CANCEL:
		answer(req, tx, 481, "Call/Transaction Does Not Exist")
	case req.MaxForwards() != nil && *req.MaxForwards() == 0:
		answer(req, tx, 483, "Too Many Hops")
	case unsupported(req) != "" && req.Method != sip.REFER:
		answer(req, tx, 420, "Bad Extension", "Unsupported", unsupported(req))
	case req.Method == sip.INVITE || req.Method == sip.REFER:
		return false
	default:
		answer(req, tx, 405, "Method Not Allowed", "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, REFER")
	}
	return true
}

func (a *Agent) refuseStranger(req *sip.Request, tx *sip.ServerTx) {
	if tx == nil {
		return // the ACK for our refusal
	}
	a.counters.RequestsRefused.Add(1)
	answer(req, tx, 403, "Forbidden")
}

// fromPBX takes a request of the PBX.
func (a *Agent) fromPBX(e *leg.Endpoint, req *sip.Request, tx *sip.ServerTx) {
	s := a.settings()
	switch {
	case !from(req, s.cfg.PBX):
		a.refuseStranger(req, tx)
	case a.common(req, tx):
	case req.Method != sip.INVITE:
		answer(req, tx, 405, "Method Not Allowed", "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS")
	default:
		if c := a.newCall(s, e, req, tx); c != nil {
			c.outbound(s, req, tx)
		}
	}
}

// fromPSTN takes a request of a PSTN trunk.
func (a *Agent) fromPSTN(i int, e *leg.Endpoint, req *sip.Request, tx *sip.ServerTx) {
	s := a.settings()
	switch {
	case !from(req, s.cfg.PSTN[i]):
		a.refuseStranger(req, tx)
	case a.common(req, tx):
	case req.Method != sip.INVITE:
		answer(req, tx, 405, "Method Not Allowed", "Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS")
	default:
		a.counters.PSTNCallsReceived.Add(1)
		if c := a.newCall(s, e, req, tx); c != nil {
			c.trunk = i
			c.pstnInbound(s, req, tx)
		}
	}
}

// fromIME takes a request of the proxy: calls of far enterprises, whose tickets it has verified, and its notifications.
func (a *Agent) fromIME(e *leg.Endpoint, req *sip.Request, tx *sip.ServerTx) {
	s := a.settings()
	switch {
	case a.common(req, tx):
	case req.Method == sip.REFER:
		a.refer(req, tx)
	default:
		a.counters.CallsReceived.Add(1)
		if c := a.newCall(s, e, req, tx); c != nil {
			c.imeInbound(s, req, tx)
		}
	}
}
