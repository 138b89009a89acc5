package callagent

import (
	"context"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/leg"
)

// sessionWorld is a world with a call to the PSTN that stands.
type sessionWorld struct {
	*world
	out       *leg.Outgoing
	pstnThere *leg.Leg
}

func newSessionWorld(t *testing.T, more string, x ...[2]string) *sessionWorld {
	t.Helper()
	w := &sessionWorld{world: newWorld(t, more)}
	w.out = w.pbx.call(w.pbxAt, own, other, anySDP, x...)
	_, w.pstnThere = w.toPSTN(w.out, other)
	return w
}

// later moves the clock on and lets the agent look at its calls.
func (w *sessionWorld) later(d time.Duration) {
	w.ahead.Add(int64(d))
	w.a.sweepSessions()
}

// renews answers the refresh that comes to a peer.
func (w *sessionWorld) renews(p *peer) {
	w.t.Helper()
	s := p.expect()
	if s.req.Method != sip.UPDATE || header(s.req, "Session-Expires") != "1800;refresher=uac" || header(s.req, "Supported") != "timer" || len(s.req.Body()) > 0 {
		w.t.Errorf("%s", s.req)
	}
	answer(s.req, s.tx, 200, "OK", "Session-Expires", "1800;refresher=uac", "Require", "timer")
}

// asked waits until no question is under way.
func (w *sessionWorld) asked() {
	w.t.Helper()
	until(w.t, "all questions are answered or given up", func() bool {
		w.a.mu.Lock()
		defer w.a.mu.Unlock()
		for c := range w.a.calls {
			c.mu.Lock()
			for _, s := range c.sessions {
				if s.asking {
					c.mu.Unlock()
					return false
				}
			}
			c.mu.Unlock()
		}
		return true
	})
}

func (w *sessionWorld) quiet(p *peer) {
	w.t.Helper()
	select {
	case s := <-p.got:
		w.t.Errorf("%s", s.req)
	default:
	}
}

// A call whose ends live stands as long as they like, and each of them is asked twice in an interval, whatever else it says.
func TestSessionsAreRefreshed(t *testing.T) {
	w := newSessionWorld(t, "")
	w.later(899 * time.Second)
	w.asked()
	w.quiet(w.pbx)
	w.quiet(w.pstn)
	for range 5 {
		w.later(time.Second)
		w.renews(w.pbx)
		w.renews(w.pstn)
		w.asked()
		w.later(600 * time.Second)
		if res, err := w.out.Leg.Do(context.Background(), sip.OPTIONS, nil, "", nil); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		w.later(299 * time.Second)
		w.asked()
		w.quiet(w.pbx)
		w.quiet(w.pstn)
	}
	w.counts(map[string]uint64{"ActiveCalls": 1, "SessionsExpired": 0})
}

// An end that is dead ends the call for the other one, and leaves no record that tells a wrong end.
func TestADeadPeerDoesNotHoldACall(t *testing.T) {
	w := newSessionWorld(t, "")
	w.pstn.setMute(true)
	w.later(900 * time.Second)
	w.renews(w.pbx)
	w.asked()
	w.later(899 * time.Second)
	w.asked()
	w.counts(map[string]uint64{"ActiveCalls": 1})
	w.later(time.Second)
	take(t, w.pbx.byes, "the BYE for the end that lives")
	w.counts(map[string]uint64{"ActiveCalls": 0, "SessionsExpired": 1, "VCRsWritten": 0})
}

// A pause of the whole machine for longer than the interval ends no call: nobody was asked in it.
func TestAPauseOfTheMachineEndsNoCall(t *testing.T) {
	w := newSessionWorld(t, "")
	w.later(5 * time.Hour)
	w.renews(w.pbx)
	w.renews(w.pstn)
	w.asked()
	w.later(time.Second)
	w.counts(map[string]uint64{"ActiveCalls": 1, "SessionsExpired": 0})
}

// An end that was started anew and knows the call no more ends it at once.
func TestAnEndThatForgotTheCall(t *testing.T) {
	w := newSessionWorld(t, "")
	w.later(900 * time.Second)
	w.renews(w.pstn)
	s := w.pbx.expect()
	answer(s.req, s.tx, 481, "Call/Transaction Does Not Exist")
	take(t, w.pstn.byes, "the BYE for the other end")
	w.counts(map[string]uint64{"ActiveCalls": 0, "SessionsExpired": 1})
}

// An end that refuses the refresh for its interval lives, and is asked with OPTIONS from then on; a call whose ends have a timer of their own
// is asked so from the beginning. OPTIONS is answered by the peer itself.
func TestSessionsThatAreNotRefreshed(t *testing.T) {
	w := newSessionWorld(t, "")
	w.later(900 * time.Second)
	w.renews(w.pbx)
	s := w.pstn.expect()
	answer(s.req, s.tx, 422, "Session Interval Too Small", "Min-SE", "3600")
	w.asked()
	w.later(900 * time.Second)
	w.renews(w.pbx)
	w.asked()
	w.later(900 * time.Second)
	w.renews(w.pbx)
	w.asked()
	w.quiet(w.pstn)
	w.counts(map[string]uint64{"ActiveCalls": 1, "SessionsExpired": 0})
	// The ends agree on a timer.
	done := make(chan *sip.Response, 1)
	go func() {
		res, _ := w.out.Leg.Do(context.Background(), sip.UPDATE, nil, "", leg.Extra{{"Supported", "timer"}, {"Session-Expires", "7200;refresher=uac"}})
		done <- res
	}()
	s = w.pstn.expect()
	answer(s.req, s.tx, 200, "OK", "Session-Expires", "7200;refresher=uac")
	if res := take(t, done, "the answer"); res == nil || header(res, "Session-Expires") != "7200;refresher=uac" {
		t.Fatalf("%v", res)
	}
	for range 5 {
		w.later(900 * time.Second)
		w.asked()
	}
	w.quiet(w.pbx)
	w.quiet(w.pstn)
	w.counts(map[string]uint64{"ActiveCalls": 1, "SessionsExpired": 0})
}

func TestSessionTimerOff(t *testing.T) {
	w := newSessionWorld(t, "feature\n session-timer off\n")
	w.later(24 * time.Hour)
	w.asked()
	w.quiet(w.pbx)
	w.quiet(w.pstn)
	w.counts(map[string]uint64{"ActiveCalls": 1})
}
