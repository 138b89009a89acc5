package proxy

import (
	"testing"

	"imeproxy/sipalg/dialog"
)

// A defect that one call or message brings to light ends one session and no more (see session.read): the sweep waits for no call for ever.
func TestPanicLeavesNoCallLocked(t *testing.T) {
	m := sipMessage(t, "BYE sip:x@y SIP/2.0", "Call-ID: c", "CSeq: 1 BYE", "From: <sip:f@h>;tag=a", "To: <sip:t@h>;tag=b", "Via: SIP/2.0/TCP h;branch=z9hG4bKx")
	answer := sipMessage(t, "SIP/2.0 200 OK", "Call-ID: c", "CSeq: 1 BYE", "From: <sip:f@h>;tag=a", "To: <sip:t@h>;tag=b", "Via: SIP/2.0/TCP h;branch=z9hG4bKx")
	for what, use := range map[string]func(*Appliance){
		"a request":                      func(a *Appliance) { a.calls.forRequest(m, dialog.Outside) },
		"a response":                     func(a *Appliance) { a.calls.forResponse(answer, dialog.Outside) },
		"`show sip`":                     func(a *Appliance) { a.SIPCalls() },
		"`show media-termination`":       func(a *Appliance) { a.MediaSessions() },
		"`clear connection all`":         func(a *Appliance) { a.ClearConns() },
		"a stop that counts calls":       func(a *Appliance) { a.standing() },
		"a stop that waits for requests": func(a *Appliance) { a.unanswered() },
	} {
		w := newWalk(t, nil)
		broken := &call{opener: w.s} // without the state that everything looks at
		w.a.calls.byID["c"] = []*call{broken}
		w.a.calls.n++
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the broken call is not looked at", what)
				}
			}()
			use(w.a)
		}()
		if !broken.mu.TryLock() {
			t.Errorf("%s leaves the call locked", what)
		}
		delete(w.a.calls.byID, "c")
		w.a.calls.n--
	}
}
