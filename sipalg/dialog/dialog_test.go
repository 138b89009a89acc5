package dialog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"imeproxy/sipalg"
)

var start = time.Unix(1_700_000_000, 0)

// script plays messages of one call and checks each verdict. A line reads
//
//	SIDE METHOD-or-STATUS cseq=N [branch=B] [to=TAG] [from=TAG] [Header: value]... -> VERDICT
//
// where VERDICT is forward, absorb, drop, or the status of the answer, optionally followed by +confirmed or +ended.
// Tags default to the caller's "a" and the callee's "b"; a request of the callee's side has them the other way round.
func script(t *testing.T, lines ...string) *Call {
	t.Helper()
	var c *Call
	now := start
	for n, line := range lines {
		if d, ok := strings.CutPrefix(line, "wait "); ok {
			w, err := time.ParseDuration(d)
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(w)
			c.Expire(now)
			continue
		}
		text, want, ok := strings.Cut(line, " -> ")
		if !ok {
			t.Fatalf("line %d: no verdict", n+1)
		}
		m, side := message(t, text)
		if c == nil {
			c = Open(m, side, now)
		}
		var act Action
		if m.IsRequest() {
			act = c.Request(m, side, now)
		} else {
			act = c.Response(m, side, now)
		}
		if got := describe(act); got != want {
			t.Fatalf("line %d: %s\n got %s (%s)\nwant %s", n+1, text, got, act.Cause, want)
		}
	}
	return c
}

func describe(a Action) string {
	s := map[Verdict]string{Forward: "forward", Absorb: "absorb", Drop: "drop", Answer: fmt.Sprint(a.Status)}[a.Verdict]
	if a.Confirmed {
		s += "+confirmed"
	}
	if a.Ended {
		s += "+ended"
	}
	return s
}

func message(t *testing.T, text string) (*sipalg.Message, Side) {
	t.Helper()
	head, extra, _ := strings.Cut(text, " | ")
	f := strings.Fields(head)
	side := Inside
	if f[0] == "out" {
		side = Outside
	}
	what := f[1]
	response := what[0] >= '1' && what[0] <= '6'
	method := what
	fromTag, toTag := "a", "b"
	if (side == Outside) != response {
		fromTag, toTag = "b", "a"
	}
	cseq, branch := "1", ""
	for _, p := range f[2:] {
		k, v, _ := strings.Cut(p, "=")
		switch k {
		case "cseq":
			cseq = v
		case "branch":
			branch = v
		case "to":
			toTag = v
		case "from":
			fromTag = v
		case "of":
			method = v
		}
	}
	if branch == "" {
		branch = fromTag + cseq + method
	}
	start := fmt.Sprintf("%s sip:x@h SIP/2.0", what)
	if response {
		start = fmt.Sprintf("SIP/2.0 %s X", what)
	}
	tag := func(s string) string {
		if s == "-" {
			return ""
		}
		return ";tag=" + s
	}
	raw := fmt.Sprintf("%s\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK%s\r\nFrom: <sip:f@h>%s\r\nTo: <sip:t@h>%s\r\nCall-ID: c\r\nCSeq: %s %s\r\nContact: <sip:%s@h>\r\n",
		start, branch, tag(fromTag), tag(toTag), cseq, method, side)
	for h := range strings.SplitSeq(extra, " | ") {
		if h != "" {
			raw += h + "\r\n"
		}
	}
	m, v := sipalg.Parse([]byte(raw + "Content-Length: 0\r\n\r\n"))
	if v != nil {
		t.Fatalf("%s: %v", text, v)
	}
	return m, side
}

// answered is a call from inside that was answered.
var answered = []string{
	"in INVITE cseq=1 to=- -> forward",
	"out 100 of=INVITE to=- -> forward",
	"out 180 of=INVITE -> forward",
	"out 200 of=INVITE -> forward+confirmed",
	"in ACK cseq=1 branch=ack1 -> forward",
}

func after(lines ...string) []string { return append(append([]string{}, answered...), lines...) }

func TestStates(t *testing.T) {
	tests := map[string][]string{
		"call and BYE from caller": after("in BYE cseq=2 -> forward+ended", "out 200 of=BYE cseq=2 -> forward"),
		"call and BYE from callee": after("out BYE cseq=1 -> forward+ended", "in 200 of=BYE from=b to=a -> forward"),
		"BYEs that cross both pass, a third does not": after(
			"in BYE cseq=2 -> forward+ended", "out BYE cseq=1 -> forward", "out BYE cseq=2 -> 481", "in BYE cseq=3 -> 481"),
		"a BYE that is asked for credentials comes again": after(
			"in BYE cseq=2 -> forward+ended", "out 407 of=BYE cseq=2 -> forward", "in BYE cseq=3 branch=again -> forward", "out 200 of=BYE cseq=3 branch=again -> forward",
			"in BYE cseq=4 branch=third -> 481"),
		"a NOTIFY of which the far end knows nothing ends the subscription": after(
			"in REFER cseq=2 | Refer-To: <sip:c@h> -> forward", "out 202 of=REFER cseq=2 -> forward",
			"out NOTIFY cseq=1 | Event: refer | Subscription-State: active;expires=60 -> forward", "in 481 of=NOTIFY cseq=1 from=b to=a -> forward",
			"out NOTIFY cseq=2 | Event: refer | Subscription-State: active -> 481"),
		"nothing after BYE": after("in BYE cseq=2 -> forward+ended", "in INFO cseq=3 -> 481", "out INVITE cseq=1 -> 481", "in UPDATE cseq=4 -> 481"),
		"BYE of the callee in an early dialog": {
			"in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE -> forward", "out BYE cseq=1 -> 481",
		},
		"BYE of the caller in an early dialog waits for the INVITE to end the call": {
			"in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE -> forward", "in BYE cseq=2 -> forward", "out 487 of=INVITE -> forward+ended",
		},
		"CANCEL": {
			"in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE -> forward", "in CANCEL cseq=1 to=- branch=a1INVITE -> forward",
			"out 200 of=CANCEL to=- branch=a1INVITE -> forward", "out 487 of=INVITE -> forward+ended", "in ACK cseq=1 branch=a1INVITE -> forward",
		},
		"CANCEL without INVITE": after("in CANCEL cseq=9 to=- branch=none -> 481"),
		"CANCEL of the wrong number": {
			"in INVITE cseq=1 to=- -> forward", "in CANCEL cseq=2 to=- branch=a1INVITE -> 481",
		},
		"CANCEL from the other side": {
			"in INVITE cseq=1 to=- -> forward", "out CANCEL cseq=1 from=a to=- branch=a1INVITE -> 481",
		},
		"failure": {
			"in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE -> forward", "out 486 of=INVITE -> forward+ended", "in ACK cseq=1 branch=a1INVITE -> forward",
		},
		"a final response after a failure is no answer": {
			"in INVITE cseq=1 to=- -> forward", "out 486 of=INVITE -> forward+ended", "out 200 of=INVITE -> absorb",
		},
		"forks: two early dialogs, one answered, the other too": {
			"in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE to=b1 -> forward", "out 183 of=INVITE to=b2 -> forward",
			"out 200 of=INVITE to=b2 -> forward+confirmed", "out 200 of=INVITE to=b1 -> forward+confirmed",
			"in ACK cseq=1 to=b2 branch=k1 -> forward", "in ACK cseq=1 to=b1 branch=k2 -> forward",
			"in BYE cseq=2 to=b1 branch=k3 -> forward", "in BYE cseq=2 to=b2 branch=k4 -> forward+ended",
		},
		"a repeated 2xx passes without confirming twice": after("out 200 of=INVITE -> forward"),
		"re-INVITE, one at a time": after(
			"in INVITE cseq=2 -> forward", "in INVITE cseq=3 -> 500", "out INVITE cseq=1 -> 491", "out 200 of=INVITE cseq=2 -> forward",
			"in ACK cseq=2 branch=ack2 -> forward", "out INVITE cseq=1 -> forward"),
		"re-INVITE that fails keeps the call":          after("in INVITE cseq=2 -> forward", "out 488 of=INVITE cseq=2 -> forward", "in BYE cseq=3 -> forward+ended"),
		"re-INVITE that finds no dialog ends the call": after("in INVITE cseq=2 -> forward", "out 481 of=INVITE cseq=2 -> forward+ended"),
		"re-INVITE before the answer": {
			"in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE -> forward", "in INVITE cseq=2 -> 481",
		},
		"PRACK": {
			"in INVITE cseq=1 to=- -> forward", "out 183 of=INVITE | RSeq: 7 -> forward", "in PRACK cseq=2 | RAck: 7 1 INVITE -> forward",
			"out 200 of=PRACK cseq=2 -> forward", "in PRACK cseq=3 | RAck: 7 1 INVITE -> 481", "in PRACK cseq=3 | RAck: x -> 481",
		},
		"a PRACK after the end of its dialog": {
			"in INVITE cseq=1 to=- -> forward", "out 183 of=INVITE | RSeq: 7 -> forward", "out 486 of=INVITE -> forward+ended",
			"in PRACK cseq=2 | RAck: 7 1 INVITE -> 481",
		},
		"UPDATE in early and confirmed dialogs": {
			"in INVITE cseq=1 to=- -> forward", "out 183 of=INVITE -> forward", "in UPDATE cseq=2 -> forward", "out UPDATE cseq=1 -> forward",
		},
		"numbers must grow":                 after("in INFO cseq=5 -> forward", "in INFO cseq=5 branch=other -> 500", "in INFO cseq=4 -> 500", "in INFO cseq=6 -> forward"),
		"a repeated request ends here":      after("in INFO cseq=2 -> forward", "in INFO cseq=2 -> absorb"),
		"wrong tag":                         after("in INFO cseq=2 to=zz -> 481", "out INFO cseq=1 from=zz -> 481"),
		"responses without a request":       after("out 200 of=INFO cseq=9 -> drop", "in 200 of=INVITE branch=none from=b to=a -> drop"),
		"a response with another number":    after("in INFO cseq=2 branch=q -> forward", "out 200 of=INFO cseq=3 branch=q -> drop"),
		"a response from the sender's side": after("in INFO cseq=2 branch=q -> forward", "in 200 of=INFO cseq=2 branch=q -> drop"),
		"ACK without dialog":                after("in ACK cseq=1 to=zz branch=k -> drop", "in ACK cseq=7 branch=k -> drop"),
		"ACK of a 2xx with the INVITE's branch": {
			"in INVITE cseq=1 to=- -> forward", "out 200 of=INVITE -> forward+confirmed", "in ACK cseq=1 branch=a1INVITE -> forward",
		},
		"unknown method":          after("in FROB cseq=2 -> 501"),
		"REGISTER in a dialog":    after("in REGISTER cseq=2 -> 403"),
		"PUBLISH in a dialog":     after("out PUBLISH cseq=2 -> 403"),
		"NOTIFY without anything": after("out NOTIFY cseq=1 | Event: refer | Subscription-State: active -> 481"),
		"NOTIFY of another event than the one subscribed to": after(
			"in SUBSCRIBE cseq=2 | Event: dialog -> forward", "out NOTIFY cseq=1 | Event: check-sync | Subscription-State: active -> 481",
			"out NOTIFY cseq=1 branch=n1 | o: Dialog;id=7 | Subscription-State: active -> forward", "out 200 of=SUBSCRIBE cseq=2 | Expires: 60 -> forward",
			"out NOTIFY cseq=2 | Event: service-control | Subscription-State: active;expires=60 -> 481", "out NOTIFY cseq=2 branch=n2 | Event: dialog | Subscription-State: active -> forward"),
		"NOTIFY of the one who has subscribed himself": after(
			"out SUBSCRIBE cseq=1 | Event: check-sync -> forward", "in 200 of=SUBSCRIBE cseq=1 from=b to=a | Expires: 60 -> forward",
			"out NOTIFY cseq=2 | Event: check-sync | Subscription-State: active -> 481", "in NOTIFY cseq=2 | Event: check-sync | Subscription-State: active -> forward"),
		"an early NOTIFY of another event": {
			"in SUBSCRIBE cseq=1 to=- | Event: presence -> forward", "out NOTIFY cseq=1 | Event: check-sync | Subscription-State: active -> 481",
		},
		"REFER, NOTIFY, BYE, NOTIFY": after(
			"in REFER cseq=2 | Refer-To: <sip:c@h> -> forward", "out 202 of=REFER cseq=2 -> forward",
			"out NOTIFY cseq=1 | Event: refer | Subscription-State: active -> forward", "in BYE cseq=3 -> forward+ended",
			"out NOTIFY cseq=2 | Event: refer | Subscription-State: terminated -> forward",
			"out NOTIFY cseq=3 | Event: refer | Subscription-State: terminated -> 481"),
		"REFER that wants no subscription": after(
			"in REFER cseq=2 | Refer-Sub: false -> forward", "out 200 of=REFER cseq=2 -> forward", "out NOTIFY cseq=1 | Event: refer | Subscription-State: active -> 481"),
		"SUBSCRIBE with NOTIFY before its answer": {
			"in SUBSCRIBE cseq=1 to=- | Event: presence -> forward", "out NOTIFY cseq=1 | Event: presence | Subscription-State: active -> forward",
			"out 200 of=SUBSCRIBE | Expires: 60 -> forward", "in SUBSCRIBE cseq=2 | Event: presence -> forward",
		},
		"an unasked NOTIFY opens nothing": {
			"in MESSAGE cseq=1 to=- -> forward", "out NOTIFY cseq=1 | Event: presence | Subscription-State: active -> 481",
		},
		"a call is opened once, also when nothing is left of it": {
			"in MESSAGE cseq=1 to=- -> forward", "out 200 of=MESSAGE -> forward", "in INVITE cseq=1 to=- -> 482",
		},
		"a request merged on the way": {"in INVITE cseq=1 to=- -> forward", "in INVITE cseq=1 to=- branch=other -> 482"},
	}
	for name, lines := range tests {
		t.Run(name, func(t *testing.T) { script(t, lines...) })
	}
}

func TestNothingIsKeptForEver(t *testing.T) {
	c := script(t, after("in BYE cseq=2 -> forward+ended", "out 200 of=BYE cseq=2 -> forward")...)
	if c.Idle() {
		t.Error("the call is forgotten before late messages could come")
	}
	c.Expire(start.Add(TransactionTimeout))
	if !c.Idle() {
		t.Error("an ended call is kept after 64*T1")
	}
	c = script(t, "in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE to=b1 -> forward", "out 200 of=INVITE to=b2 -> forward+confirmed")
	c.Expire(start.Add(TransactionTimeout))
	c.Expire(start.Add(TransactionTimeout))
	if n := len(c.Dialogs()); n != 1 {
		t.Errorf("%d dialogs 64*T1 after the answer of one fork, want 1", n)
	}
}

// A subscription whose NOTIFY promises years is kept for MaxSubscription: calls of which nothing else is left would fill the table.
func TestSubscriptionsAreBounded(t *testing.T) {
	c := script(t, after(
		"in REFER cseq=2 | Refer-To: <sip:c@h> -> forward", "out 202 of=REFER cseq=2 -> forward",
		"out NOTIFY cseq=1 | Event: refer | Subscription-State: active;expires=2147483647 -> forward", "in 200 of=NOTIFY cseq=1 from=b to=a -> forward",
		"in BYE cseq=3 -> forward+ended", "out 200 of=BYE cseq=3 -> forward")...)
	c.Expire(start.Add(MaxSubscription + 2*TransactionTimeout))
	if !c.Idle() {
		t.Error("the call is kept for a subscription of 68 years")
	}
}

// A dialog by SUBSCRIBE or REFER goes with its subscription, whichever way that ends.
func TestSubscriptionsLeaveNothing(t *testing.T) {
	const subscribe = "in SUBSCRIBE cseq=1 to=- | Event: presence -> forward"
	for name, lines := range map[string][]string{
		"expired": {subscribe, "out 200 of=SUBSCRIBE | Expires: 60 -> forward"},
		"ended":   {subscribe, "out 200 of=SUBSCRIBE | Expires: 60 -> forward", "out NOTIFY cseq=1 | Event: presence | Subscription-State: terminated -> forward"},
		"refused": {subscribe, "out 200 of=SUBSCRIBE | Expires: 60 -> forward", "out NOTIFY cseq=1 | Event: presence | Subscription-State: active -> forward", "in 481 of=NOTIFY cseq=1 from=b to=a -> forward"},
		"a 2xx without tag after another one": {
			"in INVITE cseq=1 to=- -> forward", "out 200 of=INVITE -> forward+confirmed", "out 202 of=INVITE to=- -> drop", "in BYE cseq=2 -> forward+ended",
		},
		"fetched":  {subscribe, "out NOTIFY cseq=1 | Event: presence | Subscription-State: terminated -> forward", "out 200 of=SUBSCRIBE | Expires: 0 -> forward"},
		"referred": {"in REFER cseq=1 to=- | Refer-To: <sip:c@h> -> forward", "out 202 of=REFER -> forward"},
	} {
		c := script(t, lines...)
		now := start
		for n := 0; !c.Idle(); n++ {
			at := c.Due()
			if at.IsZero() || n == 10 {
				t.Errorf("%s: the call waits for nothing and is kept", name)
				break
			}
			now = at
			c.Expire(now)
		}
		if now.After(start.Add(2 * time.Hour)) {
			t.Errorf("%s: kept until %v later", name, now.Sub(start))
		}
	}
}

// A PRACK in a dialog belongs to the INVITE that its RAck names, not to the opening one that is remembered still.
func TestPrackOfReinvite(t *testing.T) {
	c := script(t, after("in INVITE cseq=2 branch=re -> forward", "out 183 of=INVITE cseq=2 branch=re | RSeq: 1 -> forward")...)
	m, side := message(t, "in PRACK cseq=3 | RAck: 1 2 INVITE")
	if a := c.Request(m, side, start); a.Verdict != Forward || a.Invite == nil || a.Invite.CSeq != 2 {
		t.Errorf("the PRACK of the INVITE with number 2 is taken for that of %+v", a.Invite)
	}
}

// What is due tells when something expires: nothing does before, and looking then is enough to end all.
func TestDue(t *testing.T) {
	bye := []string{"in BYE cseq=2 -> forward+ended", "out 200 of=BYE cseq=2 -> forward"}
	for name, c := range map[string]*Call{
		"ended":          script(t, after(bye...)...),
		"forked":         script(t, "in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE to=b1 -> forward", "out 200 of=INVITE to=b2 -> forward+confirmed", "in BYE cseq=2 to=b2 -> forward+ended"),
		"not answered":   script(t, "in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE -> forward", "out 486 of=INVITE -> forward+ended"),
		"BYE unanswered": script(t, after(bye[0])...),
		"subscription": script(t, after(append([]string{"in REFER cseq=2 | Refer-To: <sip:c@h> -> forward", "out 202 of=REFER cseq=2 -> forward"},
			"in BYE cseq=3 -> forward+ended")...)...),
	} {
		looks := 0
		for ; !c.Idle(); looks++ {
			at := c.Due()
			if at.IsZero() || looks > 8 {
				t.Fatalf("%s: due %v after %d looks, and something is left", name, at, looks)
			}
			txs, dialogs := len(c.txs), len(c.Dialogs())
			c.Expire(at.Add(-1))
			if len(c.txs) != txs || len(c.Dialogs()) != dialogs {
				t.Errorf("%s: something expired before it was due", name)
			}
			c.Expire(at)
		}
	}
	c := script(t, answered...)
	c.Expire(start.Add(TransactionTimeout))
	if at := c.Due(); !at.IsZero() {
		t.Errorf("a standing call is due at %v", at)
	}
	c = script(t, "in INVITE cseq=1 to=- -> forward", "out 200 of=INVITE | Session-Expires: 90;refresher=uac -> forward+confirmed")
	c.Expire(start.Add(TransactionTimeout))
	if at := c.Due(); !at.Equal(c.SessionExpires()) {
		t.Errorf("due at %v, the session timer ends at %v", at, c.SessionExpires())
	}
}

// An answered request is not kept; one that the appliance has answered itself is, for what may follow.
func TestAnsweredRequestIsLetGo(t *testing.T) {
	c := script(t, answered...)
	tx := c.txs[0]
	if tx.Request == nil {
		t.Fatal("let go before its answer went out")
	}
	if tx.Answer(); tx.Request != nil {
		t.Error("kept")
	}
	c = script(t, "in INVITE cseq=1 to=- -> forward")
	tx = c.Invite()
	c.Reject(tx, 488, start)
	if tx.Answer(); tx.Request == nil {
		t.Error("let go though the appliance may have to repeat its headers")
	}
}

func TestStaleInviteIsReported(t *testing.T) {
	c := script(t, "in INVITE cseq=1 to=- -> forward", "out 180 of=INVITE -> forward")
	if tx := c.Expire(start.Add(InviteTimeout - time.Second)); tx != nil {
		t.Error("reported too early")
	}
	if tx := c.Expire(start.Add(InviteTimeout)); tx == nil {
		t.Error("an INVITE without final response is not reported")
	}
}

func TestSessionTimer(t *testing.T) {
	c := script(t, "in INVITE cseq=1 to=- -> forward", "out 200 of=INVITE | Session-Expires: 90;refresher=uac -> forward+confirmed")
	if got, want := c.SessionExpires(), start.Add(90*time.Second+TransactionTimeout); !got.Equal(want) {
		t.Errorf("session expires at %v, want %v", got, want)
	}
	c = script(t, after("in UPDATE cseq=2 -> forward", "out 200 of=UPDATE cseq=2 | Session-Expires: 1800 -> forward")...)
	if c.SessionExpires().IsZero() {
		t.Error("a refresh by UPDATE is not seen")
	}
}

func TestCaps(t *testing.T) {
	lines := []string{"in INVITE cseq=1 to=- -> forward"}
	for i := range MaxDialogs {
		lines = append(lines, fmt.Sprintf("out 180 of=INVITE to=b%d -> forward", i))
	}
	script(t, append(lines, "out 180 of=INVITE to=more -> drop")...)

	lines = after()
	for i := range MaxTransactions - 1 {
		lines = append(lines, fmt.Sprintf("in INFO cseq=%d -> forward", i+2))
	}
	script(t, append(lines, "in INFO cseq=100 -> 503", "wait 32s", "in INFO cseq=101 -> forward")...)

	lines = nil
	for i := range MaxSubscriptions {
		lines = append(lines, fmt.Sprintf("in SUBSCRIBE cseq=%d | Event: e%d -> forward", i+2, i), fmt.Sprintf("out 200 of=SUBSCRIBE cseq=%d -> forward", i+2))
	}
	lines = append(lines, "in SUBSCRIBE cseq=90 | Event: more -> forward", "out 200 of=SUBSCRIBE cseq=90 -> drop")
	script(t, after(lines...)...)

	lines = []string{"in INVITE cseq=1 to=- -> forward"}
	for i := range 16 {
		lines = append(lines, fmt.Sprintf("out 183 of=INVITE | RSeq: %d -> forward", i+1))
	}
	script(t, append(lines, "out 183 of=INVITE | RSeq: 99 -> drop")...)
}

func TestRejectAbsorbsWhatFollows(t *testing.T) {
	c := script(t, "in INVITE cseq=1 to=- -> forward")
	if !c.Reject(c.Invite(), 488, start) {
		t.Fatal("the call goes on after its INVITE was refused")
	}
	m, side := message(t, "in ACK cseq=1 branch=a1INVITE")
	if got := describe(c.Request(m, side, start)); got != "absorb" {
		t.Errorf("ACK of our own answer: %s", got)
	}
	m, side = message(t, "out 200 of=INVITE")
	if got := describe(c.Response(m, side, start)); got != "absorb" {
		t.Errorf("late answer to a refused INVITE: %s", got)
	}
}

func TestOwnRequests(t *testing.T) {
	c := script(t, answered...)
	d := c.Confirmed()
	if n := d.NextCSeq(Outside); n != 1 {
		t.Errorf("first number in the callee's name is %d", n)
	}
	if n := d.NextCSeq(Inside); n != 2 {
		t.Errorf("number in the caller's name is %d, want the one after the INVITE's", n)
	}
	bye, _ := message(t, "in BYE cseq=2 branch=own")
	c.AddOwn(bye, Outside, start)
	if c.Unanswered() != 1 {
		t.Error("an own request is not waited for")
	}
	m, side := message(t, "out 200 of=BYE cseq=2 branch=own")
	if got := describe(c.Response(m, side, start)); got != "absorb" || c.Unanswered() != 0 {
		t.Errorf("answer to an own request: %s, %d pending", got, c.Unanswered())
	}
}

func TestEndsFollowRecordRoute(t *testing.T) {
	inv := "in INVITE cseq=1 to=- | Record-Route: <sip:p1;lr>, <sip:p0;lr>"
	c := script(t, inv+" -> forward")
	m, _ := message(t, inv)
	c.NoteRequest(m, Inside)
	c.NoteRequest(m, Outside)
	res := "out 200 of=INVITE | Record-Route: <sip:q2;lr>, <sip:q1;lr>, <sip:p1;lr>, <sip:p0;lr>"
	m, side := message(t, res)
	act := c.Response(m, side, start)
	c.NoteResponse(act.Dialog, m, Outside)
	c.NoteResponse(act.Dialog, m, Inside)
	out, in := act.Dialog.Ends[Outside], act.Dialog.Ends[Inside]
	if got := strings.Join(out.Routes, " "); got != "<sip:q1;lr> <sip:q2;lr>" || out.Target != "sip:outside@h" {
		t.Errorf("to the callee: %s, target %s", got, out.Target)
	}
	if got := strings.Join(in.Routes, " "); got != "<sip:p1;lr> <sip:p0;lr>" || in.Target != "sip:inside@h" {
		t.Errorf("to the caller: %s, target %s", got, in.Target)
	}
}

func TestAddressURI(t *testing.T) {
	for in, want := range map[string]string{
		`<sip:a@h>;x=y`:             "sip:a@h",
		`"A <x> \" B" <sip:a@h;lr>`: "sip:a@h;lr",
		`sip:a@h;tag=1`:             "sip:a@h",
		`<sip:a@h`:                  "",
		`"open <sip:a@h>`:           "",
		``:                          "",
	} {
		if got := AddressURI(in); got != want {
			t.Errorf("AddressURI(%q) = %q, want %q", in, got, want)
		}
	}
}

// What is kept of an end while a dialog stands is bounded, whatever it is called and wherever it is.
func TestLongNamesAreNotKept(t *testing.T) {
	long := strings.Repeat("x", maxKept)
	for name, value := range map[string]string{"Contact": "<sip:" + long + "@h>", "Record-Route": "<sip:p;lr>" + strings.Repeat(", <sip:"+long[:200]+";lr>", 12)} {
		inv, side := message(t, "in INVITE cseq=1 to=-")
		inv.Set(name, value)
		c := Open(inv, side, start)
		c.Request(inv, side, start)
		c.NoteRequest(inv, side)
		if c.nearTarget != "" && name == "Contact" || c.nearRoutes != nil {
			t.Errorf("%s: %d bytes of a target and %d routes are kept", name, len(c.nearTarget), len(c.nearRoutes))
		}
		res, from := message(t, "out 200 of=INVITE")
		res.Set(name, value)
		act := c.Response(res, from, start)
		c.NoteResponse(act.Dialog, res, from)
		act.Dialog.NoteTarget(res, from)
		if e := act.Dialog.Ends[from]; len(e.Target) > maxKept || len(e.Routes) > 0 {
			t.Errorf("%s of the callee: %d bytes of a target and %d routes are kept", name, len(e.Target), len(e.Routes))
		}
	}
	m, _ := message(t, "in INVITE cseq=1 to=-")
	m.Set("From", "\""+long+"\" <sip:f@h>;tag=a")
	c := Open(m, Inside, start)
	d := &Dialog{}
	c.NoteResponse(d, m, Inside)
	if n := len(d.Ends[Inside].Party); n != 0 {
		t.Errorf("%d bytes of a party are kept", n)
	}
}
