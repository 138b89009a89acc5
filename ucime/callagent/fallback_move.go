package callagent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/dtmf"
	"imeproxy/ucime/callagent/leg"
	"imeproxy/ucime/learn"
)

const (
	// alertLimit is how long a fallback call may take until it rings.
	alertLimit = 10 * time.Second
	// theirLimit is how long the terminating side may take from the last digit on, its collection timer left out.
	theirLimit = 5 * time.Second
)

var errEnded = errors.New("the PSTN call ended")

// fallBack moves a call to the PSTN, as its originating side, over the trunk whose place it has or else another one.
func (c *call) fallBack(trunk int) error {
	s := c.a.settings()
	media, err := dtmf.Open(s.cfg.Media.Addr, s.cfg.Media.Low, s.cfg.Media.High)
	if err != nil {
		return err
	}
	c.mu.Lock()
	code := c.fb.code
	c.fb.media, c.fb.gone, c.fb.reoffer = media, make(chan struct{}), make(chan reoffer, 1)
	gone, offers := c.fb.gone, c.fb.reoffer
	c.mu.Unlock()
	l, err := c.dialTrunks(s, trunk, media)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.fb.leg = l
	c.mu.Unlock()
	c.register(l)
	remote, err := dtmf.ParseRemote(l.RemoteSDP())
	if err != nil {
		return err
	}
	media.SetRemote(remote)
	ctx, done := context.WithTimeout(c.ctx, time.Minute)
	defer done()
	if err := media.Send(ctx, code); err != nil {
		return fmt.Errorf("correlation digits: %w", err)
	}
	limit := time.NewTimer(theirLimit + s.cfg.Fallback.CollectionTimer)
	defer limit.Stop()
	select {
	case r := <-offers:
		return c.moveTo(l, r, media)
	case <-media.Audio():
	case <-gone:
		return errEnded
	case <-c.ctx.Done():
		return c.ctx.Err()
	case <-limit.C:
		return errors.New("no audio came over the PSTN")
	}
	turn := time.NewTimer(theirTurn)
	defer turn.Stop()
	select {
	case r := <-offers:
		return c.moveTo(l, r, media)
	case <-turn.C:
		return c.moveMyself(l)
	case <-gone:
		return errEnded
	}
}

// errTrunk says that a trunk did not take a call for reasons of its own.
var errTrunk = errors.New("the trunk does not take the call")

// dialTrunks places the fallback call on the first trunk that takes it.
func (c *call) dialTrunks(s settings, first int, media *dtmf.Session) (*leg.Leg, error) {
	a := c.a
	c.mu.Lock()
	number := c.fb.number
	c.mu.Unlock()
	var failed error
	for k := range s.cfg.PSTN {
		i := (first + k) % len(s.cfg.PSTN)
		t := s.cfg.PSTN[i]
		if k > 0 {
			wait, ok := a.reserve(i, t.CallRate, longestWait)
			if !ok || !pause(c.ctx, wait) {
				continue
			}
		}
		l := toTrunk(a.pstn[i], t, c.caller, "", s.plan.Transform(t.FallbackCalled, number))
		err := c.dial(s, l, media, k+1 < len(s.cfg.PSTN))
		if err == nil {
			c.mu.Lock()
			c.trunk = i
			c.mu.Unlock()
			return l, nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", t.Name, err))
		if !errors.Is(err, errTrunk) {
			break
		}
	}
	return nil, fmt.Errorf("fallback call: %w", failed)
}

// dial places the fallback call; it must ring in time and be answered within the answer timer from then on. Where there are more trunks, this
// one must give a sign of life soon.
func (c *call) dial(s settings, l *leg.Leg, media *dtmf.Session, more bool) error {
	answerTimer := s.cfg.Fallback.AnswerTimer
	c.mu.Lock()
	own := c.own()
	c.mu.Unlock()
	if p := s.plan.Profile(own); p != nil {
		answerTimer = p.AnswerTimer
	}
	c.a.counters.PSTNCallsPlaced.Add(1)
	ctx, done := context.WithTimeout(c.ctx, alertLimit)
	defer done()
	out, err := l.Invite(ctx, media.Offer(), "", nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errTrunk, err)
	}
	limit := time.NewTimer(alertLimit)
	if more {
		limit.Reset(trunkLimit)
	}
	defer limit.Stop()
	ringing, alive := false, false
	for {
		select {
		case res := <-out.Tx.Responses():
			switch {
			case res.IsSuccess():
				out.Learn(res)
				out.Ack(nil)
				return nil
			case trunkFails(res.StatusCode):
				return fmt.Errorf("%w: %d %s", errTrunk, res.StatusCode, res.Reason)
			case !res.IsProvisional():
				return fmt.Errorf("%d %s", res.StatusCode, res.Reason)
			case res.StatusCode > 100 && !ringing:
				ringing = true
				limit.Reset(answerTimer)
			case !alive && !ringing:
				limit.Reset(alertLimit)
			}
			alive = true
		case <-out.Tx.Done():
			return fmt.Errorf("%w: %w", errTrunk, leg.ErrNoAnswer)
		case <-limit.C:
			out.Cancel()
			if !ringing {
				return fmt.Errorf("%w: %w in time", errTrunk, leg.ErrNoAnswer)
			}
			return fmt.Errorf("%w in time", leg.ErrNoAnswer)
		case <-c.ctx.Done():
			out.Cancel()
			return c.ctx.Err()
		}
	}
}

// moveTo moves the phone to the description that the terminating side offers on the PSTN leg, as soon as audio comes from there.
func (c *call) moveTo(l *leg.Leg, r reoffer, media *dtmf.Session) error {
	defer close(r.done)
	l.Offered(r.req)
	if remote, err := dtmf.ParseRemote(l.RemoteSDP()); err == nil || errors.Is(err, dtmf.ErrNoEvents) {
		media.SetRemote(remote) // audio may come from another host from now on
	}
	wait := time.NewTimer(time.Second)
	defer wait.Stop()
	select {
	case <-media.Audio():
	case <-wait.C:
		_ = l.Respond(r.req, r.tx, 488, "Not Acceptable Here", nil, "", nil)
		return errors.New("no audio came over the PSTN")
	}
	phone, err := c.move(l.RemoteSDP())
	if err != nil {
		_ = l.Respond(r.req, r.tx, 488, "Not Acceptable Here", nil, "", nil)
		return err
	}
	if err := l.Respond(r.req, r.tx, 200, "OK", phone, "", nil); err != nil {
		c.revert(c.farLeg())
		return err
	}
	c.swap(l)
	return nil
}

// moveMyself moves the phone and tells the PSTN, which passes no INVITEs on.
func (c *call) moveMyself(l *leg.Leg) error {
	phone, err := c.move(l.RemoteSDP())
	if err != nil {
		return err
	}
	if err := c.tell(l, phone); err != nil {
		c.revert(c.farLeg())
		return err
	}
	c.swap(l)
	return nil
}

// tell gives the PSTN leg the phone's description. A PSTN that anchors media answers with the address that it has had; the phone
// is told of another one.
func (c *call) tell(l *leg.Leg, phone []byte) error {
	before, _ := dtmf.ParseRemote(l.RemoteSDP())
	ctx, done := context.WithTimeout(c.a.ctx, moveLimit)
	defer done()
	res, _, err := reinvite(ctx, l, phone)
	if err == nil && !res.IsSuccess() {
		err = fmt.Errorf("%d %s", res.StatusCode, res.Reason)
	}
	if err != nil {
		return fmt.Errorf("the PSTN did not take the phone's description: %w", err)
	}
	if after, _ := dtmf.ParseRemote(l.RemoteSDP()); after.Addr != before.Addr {
		_, err = c.move(l.RemoteSDP())
	}
	return err
}

func (c *call) farLeg() *leg.Leg {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.far
}

// swap makes the PSTN leg the call's and ends the IP leg: audio flows.
func (c *call) swap(l *leg.Leg) {
	c.mu.Lock()
	ime := c.far
	c.far, c.fb.leg, c.fb.moved, c.kind = l, nil, true, kindPSTN
	c.mu.Unlock()
	c.unregister(ime)
	c.a.wg.Go(func() {
		ctx, done := context.WithTimeout(context.Background(), moveLimit)
		defer done()
		ime.Bye(ctx)
	})
}

// fallbackNumber is the profile whose number was called over the PSTN.
func fallbackNumber(s settings, called string, to learn.Number) *config.FallbackProfile {
	for _, p := range s.cfg.Profiles {
		if called == p.DirectoryNumber || called == p.AdvertisedNumber || string(to) == p.AdvertisedNumber {
			return p
		}
	}
	return nil
}

// sameCaller compares two numbers of which the PSTN may have changed one: their last n digits must be the same.
func sameCaller(a, b string, n int) bool {
	tail := func(s string) string {
		s = strings.TrimPrefix(s, "+")
		return s[max(0, len(s)-n):]
	}
	return len(tail(a)) == n && tail(a) == tail(b)
}

// expected reports whether any call may fall back to a profile's number with this caller.
func (a *Agent) expected(p *config.FallbackProfile, caller string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, x := range a.digits {
		if strings.HasPrefix(k, p.AdvertisedNumber+";") && sameCaller(string(x.from), caller, p.CallerIDDigits) {
			return true
		}
	}
	return false
}

// fallbackCall is the terminating side: it answers the PSTN call of a fallback, collects the digits, and gives its leg to the call
// that they name.
func (c *call) fallbackCall(s settings, p *config.FallbackProfile, req *sip.Request, tx *sip.ServerTx) {
	a := c.a
	unmatched := func() { a.counters.FallbackUnmatched.Add(1) }
	if !s.cfg.Fallback.Enable || !a.expected(p, c.caller) {
		unmatched()
		c.refuse(req, tx, c.far, 404, "Not Found", nil)
		return
	}
	remote, err := dtmf.ParseRemote(req.Body())
	var media *dtmf.Session
	if err == nil {
		media, err = dtmf.Open(s.cfg.Media.Addr, s.cfg.Media.Low, s.cfg.Media.High)
	}
	if err != nil {
		unmatched()
		a.log.Warn("fallback call refused", "caller", c.caller, "err", err)
		c.refuse(req, tx, c.far, 488, "Not Acceptable Here", nil)
		return
	}
	defer media.Close()
	media.SetRemote(remote)
	c.mu.Lock()
	c.answered, c.fb.moved = a.now(), true // no voice call record
	c.mu.Unlock()
	if err := c.far.Respond(req, tx, 200, "OK", media.Answer(remote), "", nil); err != nil {
		c.forget()
		return
	}
	ctx, done := context.WithTimeout(c.ctx, s.cfg.Fallback.CollectionTimer)
	code := media.Collect(ctx, s.cfg.Fallback.Digits)
	done()
	a.mu.Lock()
	x := a.digits[key(p.AdvertisedNumber, code)]
	a.mu.Unlock()
	if x == nil || !sameCaller(string(x.from), c.caller, p.CallerIDDigits) || !x.adopt(c) {
		unmatched()
		a.log.Warn("fallback call fits no call", "caller", c.caller, "digits", len(code))
		c.hangUp(nil, moveLimit)
		return
	}
	x.settle(x.takeOver())
}

// adopt takes the PSTN leg of a fallback call; false: this call does not fall back now.
func (c *call) adopt(pstn *call) bool {
	l := pstn.far
	c.mu.Lock()
	if c.over || c.answered.IsZero() || c.fb.running || c.fb.moved {
		c.mu.Unlock()
		return false
	}
	c.fb.running, c.fb.leg, c.fb.gone, c.trunk = true, l, make(chan struct{}), pstn.trunk
	c.mu.Unlock()
	c.register(l) // from now on its requests are this call's
	pstn.mu.Lock()
	pstn.over, pstn.far = true, nil
	pstn.mu.Unlock()
	pstn.forget()
	return true
}

// takeOver moves the phone to the PSTN leg, as the terminating side. The IP leg stays until the originating side ends it.
func (c *call) takeOver() error {
	c.mu.Lock()
	l, ime := c.fb.leg, c.far
	c.mu.Unlock()
	if l == nil {
		return errEnded
	}
	phone, err := c.move(l.RemoteSDP())
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.fb.committed = true
	c.mu.Unlock()
	err = c.tell(l, phone)
	c.mu.Lock()
	gone := c.fb.leg == nil
	// The originating side ends the IP leg when it has moved: that tells what an answer would have told that is late or lost.
	moved := !gone && (err == nil || c.fb.farGone)
	if moved {
		c.far, c.fb.moved, c.kind, c.fb.leg = l, true, kindPSTN, ime
		if c.fb.farGone {
			c.fb.leg = nil
		}
	}
	farGone := c.fb.farGone
	c.mu.Unlock()
	switch {
	case moved:
		if farGone {
			c.unregister(ime)
		}
		return nil
	case farGone: // both ways are gone
		c.hangUp(ime, moveLimit)
		return errEnded
	case gone:
		err = errors.Join(errEnded, err)
	}
	c.revert(ime)
	return err
}
