package callagent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/dtmf"
	"imeproxy/ucime/callagent/leg"
	"imeproxy/ucime/learn"
)

const (
	fallbackURN   = "urn:uc-ime:pstn-fallback"
	maximumQueued = 1024
	// moveLimit bounds a re-INVITE of a fallback.
	moveLimit = 5 * time.Second
	// theirTurn is how long the originating side lets the terminating one move the PSTN leg first: gateways answer alike, but where
	// the PSTN passes INVITEs on, two at once would refuse each other.
	theirTurn = 150 * time.Millisecond
)

// fallbackState is what a call knows of its fallback.
type fallbackState struct {
	announce string // value of the target header that the terminating side tells
	profile  *config.FallbackProfile
	digits   string // key in Agent.digits
	number   string // originating side: what to dial
	code     string // and which digits to send

	running   bool
	committed bool     // terminating side: the phone has moved, the PSTN leg is being told
	farGone   bool     // the far side ended its IP leg meanwhile
	moved     bool     // the call is on the PSTN
	leg       *leg.Leg // the one not in use: to the PSTN before the move, of the IP path after it
	reoffer   chan reoffer
	gone      chan struct{} // closed when the PSTN leg ends before the move
	media     *dtmf.Session
}

// reoffer is a re-INVITE on the PSTN leg before the move; its handler waits for done.
type reoffer struct {
	req  *sip.Request
	tx   *sip.ServerTx
	done chan struct{}
}

// identify gives a received IME call its fallback number and digits (guide lines 4040-4060).
func (c *call) identify(s settings) {
	p := s.plan.Profile(c.to)
	if p == nil {
		return
	}
	a := c.a
	a.mu.Lock()
	digits, ok := a.pick(p.AdvertisedNumber, s.cfg.Fallback.Digits)
	if ok {
		a.digits[key(p.AdvertisedNumber, digits)] = c
	}
	a.mu.Unlock()
	if !ok {
		a.counters.InsufficientIdentifiers.Add(1)
		a.raise("InsufficientFallbackIdentifiers", "profile "+p.Name+": no digits are left for another call; increase dtmf-digits by one")
		return
	}
	c.mu.Lock()
	c.fb.profile, c.fb.digits = p, key(p.AdvertisedNumber, digits)
	c.fb.announce = fmt.Sprintf("<tel:%s>;dtmf=%s", p.AdvertisedNumber, digits)
	c.mu.Unlock()
}

// pick finds digits that no call has. Agent.mu is held.
func (a *Agent) pick(number string, n int) (string, bool) {
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
	try := func(v *big.Int) (string, bool) {
		digits := fmt.Sprintf("%0*s", n, v)
		return digits, a.digits[key(number, digits)] == nil
	}
	for range 64 {
		v, err := rand.Int(rand.Reader, limit)
		if err != nil {
			return "", false
		}
		if digits, free := try(v); free {
			return digits, true
		}
	}
	for v := int64(0); n <= 6 && v < limit.Int64(); v++ { // nearly all are in use
		if digits, free := try(big.NewInt(v)); free {
			return digits, true
		}
	}
	return "", false
}

// learnTarget takes the number and the digits that the far side announces.
func (c *call) learnTarget(res *sip.Response) {
	h := res.GetHeader(targetHeader)
	if h == nil {
		return
	}
	number, rest, ok := strings.Cut(strings.TrimPrefix(h.Value(), "<tel:"), ">")
	code, dtmf := strings.CutPrefix(rest, ";dtmf=")
	if !ok || !dtmf || !learn.Number(number).Valid() || len(code) < 4 || len(code) > 20 || strings.Trim(code, "0123456789") != "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fb.number, c.fb.code = number, code
}

// refer takes a notification of the proxy (protocol/fallback.md).
func (a *Agent) refer(req *sip.Request, tx *sip.ServerTx) {
	c := a.targetDialog(req)
	if c == nil {
		a.counters.FallbackRequestsRefused.Add(1)
		answer(req, tx, 481, "Call/Transaction Does Not Exist")
		return
	}
	c.begin(req, tx)
}

// targetDialog is the call that Target-Dialog (RFC 4538) names, where it is one of the IME trunk.
func (a *Agent) targetDialog(req *sip.Request) *call {
	h := req.GetHeader("Target-Dialog")
	if h == nil {
		return nil
	}
	parts := strings.Split(h.Value(), ";")
	var local, remote string
	for _, p := range parts[1:] {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "local-tag":
			local = strings.TrimSpace(value)
		case "remote-tag":
			remote = strings.TrimSpace(value)
		}
	}
	a.mu.Lock()
	c := a.dialogs[key(strings.TrimSpace(parts[0]), local)]
	a.mu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.far == nil || c.far.E != a.ime || c.far.LocalTag() != local || c.far.RemoteTag() != remote {
		return nil
	}
	return c
}

// referInDialog is the far side's wish to fall back: it sees what it receives, and only the originating side can dial.
func (c *call) referInDialog(l *leg.Leg, req *sip.Request, tx *sip.ServerTx) {
	c.mu.Lock()
	ok := l == c.far && c.kind == kindIME && c.role == learn.Originating
	c.mu.Unlock()
	if !ok {
		answer(req, tx, 603, "Decline")
		return
	}
	c.begin(req, tx)
}

// begin answers a notification and begins the fallback.
func (c *call) begin(req *sip.Request, tx *sip.ServerTx) {
	a := c.a
	refuse := func(code int, reason string, headers ...string) {
		a.counters.FallbackRequestsRefused.Add(1)
		answer(req, tx, code, reason, headers...)
	}
	if h := req.GetHeader("Refer-To"); h == nil || !strings.Contains(h.Value(), fallbackURN) {
		refuse(403, "Forbidden")
		return
	}
	c.mu.Lock()
	standing := !c.answered.IsZero() && !c.over
	busy := c.fb.running || c.fb.moved
	role, dial := c.role, c.fb.number
	c.mu.Unlock()
	switch {
	case !standing:
		refuse(481, "Call/Transaction Does Not Exist")
	case !a.settings().cfg.Fallback.Enable:
		refuse(603, "Decline")
	case busy:
		answer(req, tx, 202, "Accepted", "Refer-Sub", "false")
	case role == learn.Terminating:
		a.counters.FallbackRequests.Add(1)
		answer(req, tx, 202, "Accepted", "Refer-Sub", "false")
		a.wg.Go(c.askOriginator)
	case dial == "":
		a.counters.FallbackWithoutNumber.Add(1)
		refuse(603, "Decline")
	case !a.enqueue(c):
		refuse(503, "Service Unavailable", "Retry-After", "10")
	default:
		a.counters.FallbackRequests.Add(1)
		answer(req, tx, 202, "Accepted", "Refer-Sub", "false")
	}
}

// askOriginator passes the wish on, within the dialog.
func (c *call) askOriginator() {
	c.mu.Lock()
	far := c.far
	c.mu.Unlock()
	ctx, done := context.WithTimeout(c.a.ctx, 10*time.Second)
	defer done()
	res, err := far.Do(ctx, sip.REFER, nil, "", leg.Extra{{"Refer-To", "<" + fallbackURN + ">"}, {"Refer-Sub", "false"}, {"Supported", "norefersub"}})
	if err == nil && res.IsSuccess() {
		return
	}
	c.mu.Lock()
	settled := c.fb.running || c.fb.moved || c.over
	c.mu.Unlock()
	if settled {
		return // it has begun to by itself, or the users hung up: its IP leg is gone, and so is the dialog that we asked in
	}
	if err == nil {
		err = fmt.Errorf("%d %s", res.StatusCode, res.Reason)
	}
	c.a.counters.FallbackCallsFailed.Add(1)
	c.a.log.Warn("the originating side does not fall back", "call", far.CallID, "err", err)
}

// enqueue lets a call wait for the trunk's call rate.
func (a *Agent) enqueue(c *call) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) >= maximumQueued {
		return false
	}
	c.mu.Lock()
	c.fb.running = true
	c.mu.Unlock()
	a.queue = append(a.queue, c)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return true
}

// fallbacks begins the queued fallbacks at the trunks' call rates. It holds one place at a time, so calls of users come between.
func (a *Agent) fallbacks() {
	for {
		a.mu.Lock()
		var c *call
		if len(a.queue) > 0 {
			c = a.queue[0]
			a.queue = a.queue[1:]
		}
		trunks := a.set.cfg.PSTN
		a.mu.Unlock()
		if c == nil {
			select {
			case <-a.wake:
				continue
			case <-a.ctx.Done():
				return
			}
		}
		c.mu.Lock()
		over := c.over
		c.mu.Unlock()
		if over {
			continue
		}
		trunk, wait := a.reserveFirst(trunks)
		if !pause(a.ctx, wait) {
			return
		}
		a.wg.Go(func() { c.settle(c.fallBack(trunk)) })
	}
}

// settle counts the end of a fallback. One that failed leaves the IP call as it is.
func (c *call) settle(err error) {
	c.mu.Lock()
	c.fb.running = false
	media, l, over := c.fb.media, c.fb.leg, c.over
	c.fb.media = nil
	if err != nil {
		c.fb.leg = nil
		c.fb.committed = false
	}
	c.mu.Unlock()
	if media != nil {
		media.Close()
	}
	if err == nil {
		c.a.counters.FallbackCallsSuccessful.Add(1)
		c.a.log.Info("call moved to the PSTN", "called", c.to)
		return
	}
	if over {
		return // its users ended the call
	}
	c.a.counters.FallbackCallsFailed.Add(1)
	c.a.log.Warn("fallback failed, the IP call goes on", "called", c.to, "err", err)
	if l != nil {
		c.unregister(l)
		ctx, done := context.WithTimeout(context.Background(), moveLimit)
		defer done()
		l.Bye(ctx)
	}
}

// move offers the PBX the description of where its media is to go and returns what it answers.
func (c *call) move(sdp []byte) ([]byte, error) {
	c.mu.Lock()
	pbx := c.pbx
	c.mu.Unlock()
	ctx, done := context.WithTimeout(c.a.ctx, moveLimit)
	defer done()
	res, _, err := reinvite(ctx, pbx, sdp)
	if err == nil && !res.IsSuccess() {
		err = fmt.Errorf("%d %s", res.StatusCode, res.Reason)
	}
	if err != nil {
		return nil, fmt.Errorf("the PBX did not take the PSTN's description: %w", err)
	}
	return pbx.RemoteSDP(), nil
}

// reinvite tries again after a collision (RFC 3261 section 14.1), with waits that a listener does not hear.
func reinvite(ctx context.Context, l *leg.Leg, sdp []byte) (res *sip.Response, ack func([]byte), err error) {
	for range 8 {
		res, ack, err = l.Reinvite(ctx, sdp, "", nil)
		if !errors.Is(err, leg.ErrGlare) && (err != nil || res.StatusCode != 491) {
			return res, ack, err
		}
		n, _ := rand.Int(rand.Reader, big.NewInt(150))
		if !pause(ctx, 30*time.Millisecond+time.Duration(n.Int64())*time.Millisecond) {
			return nil, nil, ctx.Err()
		}
	}
	if err == nil {
		err = leg.ErrGlare
	}
	return nil, nil, err
}

// revert lets the phone go back to the IP path.
func (c *call) revert(ime *leg.Leg) {
	if _, err := c.move(ime.RemoteSDP()); err != nil {
		c.a.log.Error("the phone does not go back to the IP path", "called", c.to, "err", err)
	}
}

// fallbackReinvite takes a re-INVITE that is part of a fallback, or that comes during one; false: it is neither.
func (c *call) fallbackReinvite(l *leg.Leg, req *sip.Request, tx *sip.ServerTx) bool {
	c.mu.Lock()
	pending, ours, ch := c.fb.running && !c.fb.moved, l == c.fb.leg, c.fb.reoffer
	c.mu.Unlock()
	if !pending {
		return false
	}
	if ours && ch != nil && len(req.Body()) > 0 {
		r := reoffer{req, tx, make(chan struct{})}
		select {
		case ch <- r:
			<-r.done // the fallback always answers
			return true
		default:
		}
	}
	if !ours && c.fbQuiet() {
		return false // it waits for the trunk: the call is as it was
	}
	answer(req, tx, 491, "Request Pending")
	return true
}

// fbQuiet reports whether a fallback has not begun to dial.
func (c *call) fbQuiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fb.leg == nil
}

// fallbackBye takes a BYE that does not end the call; false: it does.
func (c *call) fallbackBye(l *leg.Leg) bool {
	c.mu.Lock()
	switch {
	case l == c.fb.leg && c.fb.moved: // the far side has moved too, and ends the IP leg
		c.fb.leg = nil
		c.mu.Unlock()
		c.unregister(l)
		return true
	case l == c.fb.leg: // the PSTN call ended before the move
		if c.fb.gone != nil {
			close(c.fb.gone)
			c.fb.gone = nil
		}
		c.fb.leg = nil
		c.mu.Unlock()
		c.unregister(l)
		return true
	case l == c.far && c.fb.committed && !c.fb.moved: // the far side was quicker than our PSTN leg's answer
		c.fb.farGone = true
		c.mu.Unlock()
		return true
	case l == c.far && c.fb.moved && c.fb.leg != nil: // the originating side gave up: the IP leg is still there
		ime := c.fb.leg
		c.far, c.fb.leg, c.fb.moved, c.fb.committed, c.kind = ime, nil, false, false, kindIME
		c.mu.Unlock()
		c.unregister(l)
		c.a.counters.FallbackCallsFailed.Add(1)
		c.a.wg.Go(func() { c.revert(ime) })
		return true
	}
	c.mu.Unlock()
	return false
}
