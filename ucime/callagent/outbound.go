package callagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/leg"
	"imeproxy/ucime/callagent/mapclient"
	"imeproxy/ucime/callagent/routes"
	"imeproxy/ucime/learn"
)

// The path of a call that is being set up is asked for life with OPTIONS, which the far proxy answers by itself: a path that dies
// while the phone rings would else never let the call be answered.
const (
	watchEvery = 600 * time.Millisecond
	watchLimit = 1200 * time.Millisecond
	// setupLimit is how long all ways over the Internet together may give no sign of life; a timer that is set higher raises it.
	setupLimit = 2 * time.Second
	// headStart is what is left of it to place the call on the PSTN.
	headStart = 100 * time.Millisecond
	// leastTry is the least time that is worth a try.
	leastTry = 50 * time.Millisecond
	// trunkLimit is how long a PSTN trunk may give no sign of life when there is another one.
	trunkLimit = 2 * time.Second
	// longestWait is how long a caller waits for the trunk's call rate.
	longestWait = 2 * time.Second
	// longestSetup bounds the ringing of a call.
	longestSetup = 5 * time.Minute
)

// outbound takes a call of the PBX to where it goes.
func (c *call) outbound(s settings, req *sip.Request, tx *sip.ServerTx) {
	setup := time.AfterFunc(longestSetup, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.answered.IsZero() {
			c.cancel()
		}
	})
	defer setup.Stop()
	caller, called := number(req.From().Address), number(req.Recipient)
	from, to, both := s.plan.Outgoing(s.cfg.PSTN[0], caller, called)
	c.mu.Lock()
	c.from, c.to, c.caller, c.role = from, to, caller, learn.Originating
	c.mu.Unlock()
	if both && s.cfg.Feature.OutboundCalls {
		if r, ok := c.route(s); ok {
			c.a.counters.CallsAttempted.Add(1)
			if c.byIP(s, r, req, tx) {
				return
			}
			c.a.counters.IMESetupsFailed.Add(1)
		}
	}
	if c.ctx.Err() != nil {
		c.refuse(req, tx, c.pbx, 487, "Request Terminated", nil)
		return
	}
	c.byPSTN(s, called, req, tx)
}

// route is the route of the called number where both ends may use it.
func (c *call) route(s settings) (learn.Route, bool) {
	if _, ok := s.plan.Enrolled(c.from); !ok {
		return learn.Route{}, false
	}
	r, ok := c.a.routes.Lookup(c.to)
	return r, ok && s.plan.Trusted(r.Domain, r.Number)
}

// silence is how long the ways of a call over the Internet together may be silent.
func silence(f config.Feature, offPath bool) time.Duration {
	limit := max(setupLimit, f.ConnectionTimer)
	if offPath {
		limit = max(limit, f.FirewallConnectionTimer, f.FirewallMappingTimer)
	}
	return limit - headStart
}

// errFirewall says that the mapping service is of no use now: no URI is reached without it (guide table 16).
var errFirewall = errors.New("the mapping service does not answer")

// byIP tries the URIs of a route, one after the other. Those that are silent share one limit, so that the caller of an enterprise that
// has many does not wait for each. True: the call is settled, by an answer, the called user's refusal or the caller's hanging up.
// False: the PSTN is next.
func (c *call) byIP(s settings, r learn.Route, req *sip.Request, tx *sip.ServerTx) bool {
	log := c.a.log.With("called", c.to, "domain", r.Domain)
	end := time.Now().Add(silence(s.cfg.Feature, s.cfg.Service.Firewall != ""))
	for i, u := range r.URIs {
		if time.Until(end) < leastTry {
			return false
		}
		out, res, err := c.tryURI(s, r, u, window{end, len(r.URIs) - i}, req, tx)
		switch {
		case err != nil && c.ctx.Err() != nil:
			c.refuse(req, tx, c.pbx, 487, "Request Terminated", nil)
			return true
		case errors.Is(err, errFirewall):
			log.Warn("IP path failed", "err", err)
			return false
		case errors.Is(err, errNoProgress): // the next URI leads to the same enterprise
			log.Warn("IP path failed", "uri", u, "err", err)
			return false
		case err != nil:
			log.Warn("IP path failed", "uri", u, "err", err)
		case res.IsSuccess():
			c.a.counters.CallsSetup.Add(1)
			c.mu.Lock()
			c.kind = kindIME
			c.mu.Unlock()
			c.established(req, tx, c.pbx, out, res)
			return true
		case userSaid(res.StatusCode) || res.StatusCode == 422: // an interval too small for the session timer: the PBX calls again
			c.refuse(req, tx, c.pbx, res.StatusCode, res.Reason, carry(res))
			return true
		default:
			log.Warn("IP path refused the call", "uri", u, "status", res.StatusCode, "reason", res.Reason)
			if res.StatusCode != 408 && res.StatusCode < 500 {
				return false // the next URI leads to the same enterprise
			}
		}
	}
	return false
}

// window is the time that some URIs share.
type window struct {
	end  time.Time
	uris int
}

func (w window) share() time.Duration { return time.Until(w.end) / time.Duration(w.uris) }

// tryURI tries one URI of a route, which may be silent for its share of the window and no longer than the connection timer.
func (c *call) tryURI(s settings, r learn.Route, u string, w window, req *sip.Request, tx *sip.ServerTx) (*leg.Outgoing, *sip.Response, error) {
	timer := s.cfg.Feature.ConnectionTimer - headStart
	ctx, done := context.WithTimeout(c.ctx, min(w.share(), timer))
	defer done()
	begun := time.Now()
	host, port, err := routes.Target(u)
	if err != nil {
		return nil, nil, err
	}
	found, err := resolve(ctx, net.DefaultResolver, host, port)
	if err != nil || len(found) == 0 {
		return nil, nil, fmt.Errorf("resolve %s: %w", host, errors.Join(err, ctx.Err()))
	}
	dest := found[0]
	limit := min(w.share(), timer-time.Since(begun))
	c.a.mu.Lock()
	firewall := c.a.firewall
	c.a.mu.Unlock()
	if firewall != nil {
		// Its timers are its own, and it is the same one for all URIs: only the end of the window cuts them short.
		whole, done := context.WithDeadline(c.ctx, w.end)
		dest, err = firewall.Map(whole, dest)
		done()
		if refused := (mapclient.Refused{}); errors.As(err, &refused) {
			return nil, nil, err
		} else if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errFirewall, err)
		}
		limit = min(w.share(), timer)
	}
	l := c.a.ime.Calling("tcp", dest.String(), uri(string(c.to), r.Domain),
		leg.Party{Name: req.From().DisplayName, URI: uri(string(c.from), s.cfg.Service.Domain)}, leg.Party{URI: uri(string(c.to), r.Domain)})
	x := append(leg.Extra{{ticketHeader, r.Ticket}}, c.sensitivity()...)
	out, res, err := c.try(req, tx, c.pbx, attempt{
		leg: l, extra: x, limit: max(limit, leastTry), rings: s.cfg.Feature.ProgressTimer,
		watch: func(ctx context.Context, dead chan<- error) { c.watchPath(ctx, dest, r.Domain, dead) },
		learn: c.learnTarget,
	})
	if err == nil && res.IsSuccess() && firewall != nil {
		l.StayWith()
	}
	return out, res, err
}

// errNoProgress says that the far enterprise lives but does nothing with the call that a caller could hear.
var errNoProgress = errors.New("no ringing and no refusal within the progress timer")

var errPathDead = errors.New("the path died while the call was set up")

// watchPath asks for life until ctx ends.
func (c *call) watchPath(ctx context.Context, dest netip.AddrPort, domain string, dead chan<- error) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wg.Go(func() {
			one, done := context.WithTimeout(ctx, watchLimit)
			defer done()
			probe := c.a.ime.Calling("tcp", dest.String(), sip.Uri{Scheme: "sip", Host: domain},
				leg.Party{URI: sip.Uri{Scheme: "sip", Host: c.a.settings().cfg.Service.Domain}}, leg.Party{URI: sip.Uri{Scheme: "sip", Host: domain}})
			if _, err := probe.Do(one, sip.OPTIONS, nil, "", nil); err != nil && ctx.Err() == nil {
				select {
				case dead <- fmt.Errorf("%w: %w", errPathDead, err):
				default:
				}
			}
		})
	}
}

// byPSTN places the call on the first trunk that takes it.
func (c *call) byPSTN(s settings, called string, req *sip.Request, tx *sip.ServerTx) {
	c.mu.Lock()
	c.kind = kindPSTN
	c.mu.Unlock()
	for i, t := range s.cfg.PSTN {
		wait, ok := c.a.reserve(i, t.CallRate, longestWait)
		if !ok {
			c.a.counters.PSTNCallsRefused.Add(1)
			continue
		}
		if !pause(c.ctx, wait) {
			break
		}
		c.mu.Lock()
		c.trunk = i
		c.mu.Unlock()
		c.a.counters.PSTNCallsPlaced.Add(1)
		x := leg.Extra{}
		if h := req.GetHeader("P-Asserted-Identity"); h != nil {
			x = append(x, [2]string{"P-Asserted-Identity", h.Value()})
		}
		way := attempt{leg: toTrunk(c.a.pstn[i], t, c.caller, req.From().DisplayName, called), extra: x}
		more := i+1 < len(s.cfg.PSTN)
		if more {
			way.limit = trunkLimit
		}
		out, res, err := c.try(req, tx, c.pbx, way)
		switch {
		case c.ctx.Err() != nil && err != nil:
			c.refuse(req, tx, c.pbx, 487, "Request Terminated", nil)
			return
		case err != nil:
			c.a.log.Warn("PSTN trunk failed", "trunk", t.Name, "err", err)
			continue
		case res.IsSuccess():
			c.established(req, tx, c.pbx, out, res)
			return
		case more && trunkFails(res.StatusCode):
			continue
		}
		c.refuse(req, tx, c.pbx, res.StatusCode, res.Reason, carry(res))
		return
	}
	if c.ctx.Err() != nil {
		c.refuse(req, tx, c.pbx, 487, "Request Terminated", nil)
		return
	}
	c.refuse(req, tx, c.pbx, 503, "Service Unavailable", leg.Extra{{"Retry-After", strconv.Itoa(2)}})
}

// trunkFails are refusals that say more of the trunk than of the called user: another trunk may do.
func trunkFails(code int) bool {
	return code == 408 || code == 500 || code == 502 || code == 503 || code == 504
}

// pause waits; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// limiter spaces the calls of a trunk.
type limiter struct {
	next time.Time
}

func (l *limiter) wait(now time.Time) time.Duration { return max(0, l.next.Sub(now)) }

func (l *limiter) take(now time.Time, rate int) {
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(time.Second / time.Duration(rate))
}

// reserve takes the next place of a trunk that begins at most rate calls a second. Wait is how long until then; not ok: longer
// than the limit, and no place was taken.
func (a *Agent) reserve(trunk, rate int, limit time.Duration) (wait time.Duration, ok bool) {
	if rate == 0 {
		return 0, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	wait = a.limits[trunk].wait(time.Now())
	if wait > limit {
		return wait, false
	}
	a.limits[trunk].take(time.Now(), rate)
	return wait, true
}

// reserveFirst takes a place of the trunk that has one first, the earlier one where several do.
func (a *Agent) reserveFirst(all []*config.Trunk) (trunk int, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for i, t := range all {
		w := a.limits[i].wait(now)
		if t.CallRate == 0 {
			w = 0
		}
		if i == 0 || w < wait {
			trunk, wait = i, w
		}
	}
	if rate := all[trunk].CallRate; rate > 0 {
		a.limits[trunk].take(now, rate)
	}
	return trunk, wait
}
