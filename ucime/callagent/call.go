package callagent

import (
	"cmp"
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/leg"
	"imeproxy/ucime/learn"
)

// kind says where the far leg of a call leads.
type kind string

const (
	kindNone kind = ""
	kindPSTN kind = "pstn"
	kindIME  kind = "ime"
)

// call is a call of the PBX with the PSTN or with another enterprise.
type call struct {
	a      *Agent
	trunk  int        // of its PSTN leg
	role   learn.Role // of our user
	ctx    context.Context
	cancel context.CancelFunc // the caller gave up

	mu       sync.Mutex
	pbx, far *leg.Leg
	kind     kind
	from, to learn.Number // +E.164, "" where it is not
	caller   string       // as the trunk has it
	begun    time.Time
	answered time.Time // zero: not yet
	over     bool
	told     bool     // the caller got a description from somebody who did not answer
	early    *leg.Leg // to who may answer
	reliable reliable
	acks     map[*leg.Leg]func([]byte) // what an ACK from a leg lets us acknowledge at the other one
	fb       fallbackState
	sessions map[*leg.Leg]*session
	timed    bool // the ends have a session timer of their own
	expired  bool // the call ended because one of them was gone
}

// newCall makes the call of an INVITE, with the leg that it came by; nil: it was refused.
func (a *Agent) newCall(s settings, e *leg.Endpoint, req *sip.Request, tx *sip.ServerTx) *call {
	c := &call{a: a, begun: a.now(), acks: make(map[*leg.Leg]func([]byte)), sessions: make(map[*leg.Leg]*session)}
	c.ctx, c.cancel = context.WithCancel(a.ctx)
	a.mu.Lock()
	full := a.closing || len(a.calls) >= s.cfg.MaximumCalls
	if !full {
		a.calls[c] = true
	}
	a.mu.Unlock()
	if full {
		a.counters.CallsRefused.Add(1)
		answer(req, tx, 503, "Service Unavailable", "Retry-After", "5")
		return nil
	}
	if tag, _ := req.From().Params.Get("tag"); tag == "" {
		answer(req, tx, 400, "Bad Request")
		c.forget()
		return nil
	}
	if !tx.OnCancel(func(*sip.Request) { c.cancel() }) {
		c.cancel()
	}
	l := e.Called(req)
	if e == a.pbx {
		c.pbx = l
	} else {
		c.far = l
	}
	c.register(l)
	return c
}

func key(callID, tag string) string { return callID + ";" + tag }

func (c *call) register(l *leg.Leg) {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	c.a.dialogs[key(l.CallID, l.LocalTag())] = c
}

func (c *call) unregister(l *leg.Leg) {
	if l == nil {
		return
	}
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	delete(c.a.dialogs, key(l.CallID, l.LocalTag()))
}

// forget takes a call out of the tables.
func (c *call) forget() {
	c.cancel()
	c.mu.Lock()
	legs := []*leg.Leg{c.pbx, c.far, c.fb.leg, c.early}
	c.over = true
	digits := c.fb.digits
	c.mu.Unlock()
	for _, l := range legs {
		c.unregister(l)
	}
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	delete(c.a.calls, c)
	if digits != "" && c.a.digits[digits] == c {
		delete(c.a.digits, digits)
	}
}

// number is the user of a URI without visual separators and parameters.
func number(u sip.Uri) string {
	user, _, _ := strings.Cut(u.User, ";")
	return strings.NewReplacer("-", "", ".", "", "(", "", ")", "", " ", "", "%20", "").Replace(user)
}

// relayed are the header lines that go from one side of a call to the other.
var relayed = []string{"Subject", "Date", "Privacy", "Reason", "Priority", "Content-Disposition"}

func carry(m message) (x leg.Extra) {
	for _, name := range relayed {
		if h := m.GetHeader(name); h != nil {
			x = append(x, [2]string{name, h.Value()})
		}
	}
	return append(x, extensions(m)...)
}

func contentType(m interface {
	ContentType() *sip.ContentTypeHeader
},
) string {
	if h := m.ContentType(); h != nil {
		return h.Value()
	}
	return ""
}

// userSaid are refusals of the called user: no other way would change them.
func userSaid(code int) bool { return code == 486 || code == 600 || code == 603 || code == 607 }

// attempt is one try to reach the called party.
type attempt struct {
	leg   *leg.Leg
	extra leg.Extra
	limit time.Duration // until the first answer, 0: the transaction's own
	rings time.Duration // until an answer that tells of more than life (over 100), 0: the transaction's own
	watch func(ctx context.Context, dead chan<- error)
	learn func(res *sip.Response)
}

// try sends the INVITE and passes its provisional answers on. The result is a final answer with its INVITE, or an error.
func (c *call) try(req *sip.Request, tx *sip.ServerTx, caller *leg.Leg, t attempt) (*leg.Outgoing, *sip.Response, error) {
	ctx, done := context.WithCancel(c.ctx)
	defer done()
	c.fork(caller)
	c.mayAnswer(t.leg)
	won := false
	defer func() {
		if !won {
			c.mayAnswer(nil)
		}
	}()
	dial := ctx
	if t.limit > 0 {
		var stop context.CancelFunc
		dial, stop = context.WithTimeout(ctx, t.limit)
		defer stop()
	}
	out, err := t.leg.Invite(dial, req.Body(), contentType(req), append(carry(req), t.extra...))
	if err != nil {
		return nil, nil, err
	}
	first := dial.Done()
	var rings <-chan time.Time
	if t.rings > 0 {
		timer := time.NewTimer(t.rings)
		defer timer.Stop()
		rings = timer.C
	}
	dead, watched := make(chan error, 1), false
	for {
		select {
		case res := <-out.Tx.Responses():
			if t.learn != nil {
				t.learn(res)
			}
			if !res.IsProvisional() {
				if won = res.IsSuccess(); won {
					out.Learn(res)
				}
				return out, res, nil
			}
			if t.watch != nil && !watched {
				watched = true
				c.a.wg.Go(func() { t.watch(ctx, dead) })
			}
			first = ctx.Done()
			if res.StatusCode > 100 {
				rings = nil
				out.Learn(res)
				if len(res.Body()) > 0 {
					c.mu.Lock()
					c.told = true
					c.mu.Unlock()
				}
				x := append(carry(res), c.announce(caller)...)
				_ = caller.Respond(req, tx, res.StatusCode, res.Reason, res.Body(), contentType(res), append(x, c.number(t.leg, res)...))
			}
		case <-out.Tx.Done():
			return nil, nil, leg.ErrNoAnswer
		case err := <-dead:
			out.Cancel()
			return nil, nil, err
		case <-rings:
			out.Cancel()
			return nil, nil, errNoProgress
		case <-first:
			out.Cancel()
			if err := c.ctx.Err(); err != nil {
				return nil, nil, err
			}
			return nil, nil, leg.ErrNoAnswer
		}
	}
}

// fork begins another early dialog with the caller where the one that there is has a description of somebody else.
func (c *call) fork(caller *leg.Leg) {
	c.mu.Lock()
	told := c.told
	c.told = false
	c.mu.Unlock()
	if told {
		c.unregister(caller)
		caller.Fork()
		c.register(caller)
	}
}

// established connects the two legs with the called side's 2xx.
func (c *call) established(req *sip.Request, tx *sip.ServerTx, caller *leg.Leg, out *leg.Outgoing, res *sip.Response) {
	c.mu.Lock()
	if caller == c.pbx {
		c.far = out.Leg
	} else {
		c.pbx = out.Leg
	}
	c.answered, c.early = c.a.now(), nil
	late := len(req.Body()) == 0
	if late {
		c.acks[caller] = out.Ack
	}
	c.mu.Unlock()
	c.register(out.Leg)
	c.ends(out.Leg, res)
	c.heardFrom(caller)
	if !late {
		out.Ack(nil)
	}
	err := caller.Respond(req, tx, res.StatusCode, res.Reason, res.Body(), contentType(res), append(carry(res), c.announce(caller)...))
	if err != nil || c.ctx.Err() != nil { // the caller is gone
		if late {
			out.Ack(nil)
		}
		c.hangUp(caller, 5*time.Second)
	}
}

// refuse answers the caller with a refusal and ends the call.
func (c *call) refuse(req *sip.Request, tx *sip.ServerTx, caller *leg.Leg, code int, reason string, x leg.Extra) {
	_ = caller.Respond(req, tx, code, reason, nil, "", x) // a cancelled transaction has been answered
	c.forget()
}

// announce are the header lines that an answer on the IME trunk gets (protocol/fallback.md).
func (c *call) announce(to *leg.Leg) leg.Extra {
	if to.E != c.a.ime {
		return nil
	}
	x := c.sensitivity()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fb.announce != "" {
		x = append(x, [2]string{targetHeader, c.fb.announce})
	}
	return x
}

const (
	ticketHeader      = "X-Cisco-UC-IME-Ticket"
	sensitivityHeader = "X-Cisco-UC-IME-Fallback"
	targetHeader      = "X-Cisco-UC-IME-Fallback-Target"
)

// own is our user's number; mu is held.
func (c *call) own() learn.Number {
	if c.role == learn.Originating {
		return c.from
	}
	return c.to
}

func (c *call) sensitivity() leg.Extra {
	c.mu.Lock()
	own := c.own()
	c.mu.Unlock()
	level := c.a.settings().plan.Sensitivity(own)
	return leg.Extra{{sensitivityHeader, "sensitivity=" + string(rune('0'+int(level)))}}
}

// peer is the other leg of a call; nil while there is none.
func (c *call) peer(l *leg.Leg) *leg.Leg {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch l {
	case nil:
		return nil
	case c.early:
		return cmp.Or(c.pbx, c.far) // there is no more than the caller yet
	case c.pbx:
		return cmp.Or(c.far, c.early)
	case c.far:
		return cmp.Or(c.pbx, c.early)
	}
	return nil
}

// legOf is the leg of an in-dialog request.
func (c *call) legOf(req *sip.Request, tag string) *leg.Leg {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range []*leg.Leg{c.pbx, c.far, c.fb.leg, c.early} {
		if l != nil && l.CallID == req.CallID().Value() && l.LocalTag() == tag && l.Matches(req) {
			return l
		}
	}
	return nil
}

// inDialog takes a request of a dialog.
func (a *Agent) inDialog(req *sip.Request, tx *sip.ServerTx, tag string) {
	a.mu.Lock()
	c := a.dialogs[key(req.CallID().Value(), tag)]
	a.mu.Unlock()
	var l *leg.Leg
	if c != nil {
		l = c.legOf(req, tag)
	}
	switch {
	case l == nil && tx == nil:
	case l == nil:
		answer(req, tx, 481, "Call/Transaction Does Not Exist")
	case req.IsAck():
		c.ack(l, req)
	case !l.Fresh(req):
		answer(req, tx, 500, "Server Internal Error")
	default:
		c.heardFrom(l)
		c.take(l, req, tx)
	}
}

// take takes a new request of a leg.
func (c *call) take(l *leg.Leg, req *sip.Request, tx *sip.ServerTx) {
	switch {
	case unsupported(req) != "" && req.Method != sip.REFER:
		answer(req, tx, 420, "Bad Extension", "Unsupported", unsupported(req))
	case req.Method == sip.BYE:
		answer(req, tx, 200, "OK")
		c.bye(l)
	case req.Method == sip.INVITE:
		c.reinvite(l, req, tx)
	case req.Method == sip.PRACK:
		c.prack(l, req, tx)
	case req.Method == sip.REFER:
		c.referInDialog(l, req, tx)
	case req.Method == sip.OPTIONS:
		answer(req, tx, 200, "OK")
	case req.Method == sip.INFO || req.Method == sip.UPDATE || req.Method == sip.MESSAGE:
		c.relay(l, req, tx)
	default:
		answer(req, tx, 405, "Method Not Allowed", "Allow", "INVITE, ACK, CANCEL, BYE, PRACK, OPTIONS, INFO, UPDATE, MESSAGE, REFER")
	}
}

func (c *call) ack(l *leg.Leg, req *sip.Request) {
	l.Acked(req)
	c.mu.Lock()
	f := c.acks[l]
	delete(c.acks, l)
	c.mu.Unlock()
	if f != nil {
		f(req.Body())
	}
}

// relay passes a request of a dialog to the other side, and its answer back.
func (c *call) relay(l *leg.Leg, req *sip.Request, tx *sip.ServerTx) {
	other := c.peer(l)
	if other == nil {
		answer(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	if req.Method == sip.UPDATE {
		l.Offered(req)
	}
	x := carry(req)
	if other.E == c.a.ime && req.Method == sip.UPDATE {
		x = append(x, c.sensitivity()...)
	}
	c.pass(l, other, req, tx, x)
}

// pass sends a request of a dialog to another leg, and its answer back.
func (c *call) pass(l, other *leg.Leg, req *sip.Request, tx *sip.ServerTx, x leg.Extra) {
	ctx, done := context.WithTimeout(c.a.ctx, 32*time.Second)
	defer done()
	res, err := other.Do(ctx, req.Method, req.Body(), contentType(req), x)
	if err != nil {
		answer(req, tx, 408, "Request Timeout")
		return
	}
	c.ends(other, res)
	_ = l.Respond(req, tx, res.StatusCode, res.Reason, res.Body(), contentType(res), carry(res))
}

// reinvite passes an INVITE of a dialog to the other side, and its answer back.
func (c *call) reinvite(l *leg.Leg, req *sip.Request, tx *sip.ServerTx) {
	if !l.Begin() {
		answer(req, tx, 491, "Request Pending")
		return
	}
	defer l.End()
	if c.fallbackReinvite(l, req, tx) {
		return
	}
	other := c.peer(l)
	c.mu.Lock()
	answered := !c.answered.IsZero()
	c.mu.Unlock()
	if other == nil || !answered {
		answer(req, tx, 491, "Request Pending")
		return
	}
	l.Offered(req)
	x := carry(req)
	if other.E == c.a.ime {
		x = append(x, c.sensitivity()...)
	}
	ctx, done := context.WithTimeout(c.a.ctx, 32*time.Second)
	defer done()
	res, ack, err := other.Reinvite(ctx, req.Body(), contentType(req), x)
	switch {
	case err == leg.ErrGlare:
		answer(req, tx, 491, "Request Pending")
	case err != nil:
		answer(req, tx, 408, "Request Timeout")
	default:
		c.ends(other, res)
		if res.IsSuccess() && len(req.Body()) == 0 {
			c.mu.Lock()
			c.acks[l] = ack
			c.mu.Unlock()
		}
		x := carry(res)
		if l.E == c.a.ime {
			x = append(x, c.sensitivity()...)
		}
		_ = l.Respond(req, tx, res.StatusCode, res.Reason, res.Body(), contentType(res), x)
	}
}

// bye ends what the other side of a leg ended.
func (c *call) bye(l *leg.Leg) {
	if c.fallbackBye(l) {
		return
	}
	c.hangUp(l, 5*time.Second)
}

// hangUp ends the call: BYE to every leg but one, and the record of a PSTN call. It returns when the BYEs are answered or after limit.
func (c *call) hangUp(but *leg.Leg, limit time.Duration) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	c.over = true
	stop := c.a.now()
	legs := []*leg.Leg{c.pbx, c.far, c.fb.leg}
	answered := !c.answered.IsZero()
	media := c.fb.media
	c.mu.Unlock()
	c.forget()
	if media != nil {
		media.Close()
	}
	c.record(stop)
	if !answered {
		return // the caller's transaction was cancelled, and the INVITE to the called side with it
	}
	ctx, done := context.WithTimeout(context.Background(), limit)
	defer done()
	var wg sync.WaitGroup
	for _, l := range legs {
		if l != nil && l != but && l.RemoteTag() != "" {
			wg.Go(func() { l.Bye(ctx) })
		}
	}
	wg.Wait()
}

// record writes the record of a finished PSTN call. Without +E.164 numbers there is none, nor for own numbers that are not
// enrolled, nor for calls that came to the PSTN by falling back. A call to one of several aliases is recorded for each of them: the
// calling side knows the number that its user dialled, and the PSTN may have told us another one (guide table 6).
func (c *call) record(stop time.Time) {
	c.mu.Lock()
	v := learn.VCR{Role: c.role, Called: c.to, Caller: c.from, Start: c.answered, Stop: stop}
	ok := c.kind == kindPSTN && !c.answered.IsZero() && !c.fb.moved && !c.expired && v.Called.Valid() && (c.role == learn.Terminating || v.Caller.Valid())
	own := c.own()
	c.mu.Unlock()
	if !ok {
		return
	}
	group, enrolled := c.a.settings().plan.Enrolled(own)
	if !enrolled {
		return
	}
	v.Start, v.Stop = v.Start.UTC().Truncate(time.Millisecond), v.Stop.UTC().Truncate(time.Millisecond)
	called := []string{string(v.Called)}
	if group.Aliases && c.role == learn.Terminating {
		called = group.Patterns
	}
	for _, n := range called {
		v.Called = learn.Number(n)
		if err := c.a.records.Put(v); err != nil {
			c.a.counters.VCRsLost.Add(1)
			c.a.log.Error("voice call record not kept", "err", err)
			continue
		}
		c.a.counters.VCRsWritten.Add(1)
	}
}

// uri is a number at a place.
func uri(user, host string) sip.Uri { return sip.Uri{Scheme: "sip", User: user, Host: host} }

// toTrunk makes the leg of a call to a trunk's peer.
func toTrunk(e *leg.Endpoint, t *config.Trunk, caller, callerName, called string) *leg.Leg {
	peer := t.Peer.Addr
	target := uri(called, peer.Addr().String())
	target.Port = int(peer.Port())
	from := leg.Party{Name: callerName, URI: uri(caller, e.Local(t.Peer.Transport).Addr().String())}
	return e.Calling(t.Peer.Transport, peer.String(), target, from, leg.Party{URI: uri(called, peer.Addr().String())})
}

// resolve gives the addresses of a host: itself, or what DNS says.
func resolve(ctx context.Context, r interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}, host string, port uint16,
) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, port)}, nil
	}
	found, err := r.LookupNetIP(ctx, "ip4", host)
	var out []netip.AddrPort
	for _, a := range found[:min(len(found), 4)] {
		out = append(out, netip.AddrPortFrom(a.Unmap(), port))
	}
	return out, err
}
