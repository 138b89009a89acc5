package dialog

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"imeproxy/sipalg"
)

// Side names one of the two ends of the appliance.
type Side uint8

// The two sides: Inside is where the call agent is, Outside the Internet.
const (
	Inside Side = iota
	Outside
)

// Other is the opposite side.
func (s Side) Other() Side { return 1 - s }

// String gives "inside" or "outside".
func (s Side) String() string {
	if s == Inside {
		return "inside"
	}
	return "outside"
}

// Caps of one call. They bound what a peer can make the appliance remember.
const (
	MaxDialogs       = 32
	MaxTransactions  = 64
	MaxSubscriptions = 16
	// LargeRequest is the size in bytes from which requests that wait for their answer are counted in Call.Held.
	LargeRequest = 8 << 10
)

// Times after which state that nobody used is given up.
const (
	// InviteTimeout is how long an INVITE may stay without a final response after
	// its last provisional one (RFC 3261 16.6 item 11: timer C is over 3 minutes).
	InviteTimeout = 185 * time.Second
	// TransactionTimeout is 64*T1, the life of a transaction (RFC 3261 17.1.2.2).
	TransactionTimeout = 32 * time.Second
	// DefaultSubscription bounds a subscription without Expires (RFC 6665 gives the
	// event package the say; an hour covers those that enterprises exchange).
	DefaultSubscription = time.Hour
	// MaxSubscription is the longest one that is kept without being refreshed.
	MaxSubscription = 24 * time.Hour
)

// Verdict is what is to be done with a message.
type Verdict uint8

// The verdicts. Absorb is for messages that end at the proxy (the ACK of an answer that
// the proxy gave itself, repeated requests); Drop counts as a violation.
const (
	Forward Verdict = iota
	Absorb
	Drop
	Answer
)

// Action is the judgement on one message.
type Action struct {
	Verdict Verdict
	// Status and Phrase are the answer due when Verdict is Answer.
	Status int
	Phrase string
	// RetryAfter in seconds goes with a 500 or 503; 0 means none.
	RetryAfter int
	// Cause is the counter for Drop and Answer.
	Cause sipalg.Cause
	// Tx is the transaction the message belongs to; nil for an ACK to 2xx.
	Tx *Transaction
	// Invite is the INVITE transaction that an ACK, PRACK or CANCEL refers to.
	Invite *Transaction
	// Dialog is the dialog concerned; nil before one exists.
	Dialog *Dialog
	// Confirmed is set on the first 2xx to INVITE of a dialog, Ended when the last usage
	// by INVITE of the call ended (BYE answered or sent, failed INVITE).
	Confirmed bool
	Ended     bool
}

// The causes this package counts.
const (
	CauseNoDialog        sipalg.Cause = "no_dialog"
	CauseDialogState     sipalg.Cause = "dialog_state"
	CauseCSeqOrder       sipalg.Cause = "cseq_order"
	CauseNoTransaction   sipalg.Cause = "response_without_request"
	CauseRequestPending  sipalg.Cause = "request_pending"
	CauseTooManyDialogs  sipalg.Cause = "too_many_dialogs"
	CauseTooManyRequests sipalg.Cause = "too_many_transactions"
	CauseUnknownMethod   sipalg.Cause = "unknown_method"
)

// Causes lists the closed set of causes of this package, for metrics.
func Causes() []sipalg.Cause {
	return []sipalg.Cause{
		CauseNoDialog, CauseDialogState, CauseCSeqOrder, CauseNoTransaction,
		CauseRequestPending, CauseTooManyDialogs, CauseTooManyRequests, CauseUnknownMethod,
	}
}

// known holds the methods that the appliance understands; all others get 501. The text is what is kept of a method: that of a message is a part
// of the whole message.
var known = func() map[string]string {
	t := make(map[string]string)
	for method := range strings.SplitSeq(Methods, ", ") {
		t[method] = method
	}
	return t
}()

// KnownMethod tells whether the method is one of those that the appliance passes.
func KnownMethod(method string) bool { return known[method] != "" }

// NeedsDialog tells whether requests of the method mean nothing outside a dialog: BYE (RFC 3261 15), PRACK (RFC 3262)
// and UPDATE (RFC 3311).
func NeedsDialog(method string) bool {
	return method == "BYE" || method == "PRACK" || method == "UPDATE"
}

// Methods is the value of an Allow header that names the known methods.
const Methods = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, SUBSCRIBE, NOTIFY, REFER, PUBLISH, REGISTER"

// Call is everything that one opening request led to. Its methods are not safe for
// concurrent use: the owner holds a lock.
type Call struct {
	ID      string // Call-ID
	InitTag string // From tag of the opening request
	From    Side   // where the opening request came from
	Method  string // its method
	Opened  time.Time
	// Held counts the bytes of large requests that are kept until they have their answer, in all calls that share it; nil counts none.
	Held *atomic.Int64

	// There are one or two of each: looking through them costs less than a map, and so does keeping them while the call stands.
	dialogs []*Dialog
	txs     []*Transaction
	invite  *Transaction // the opening INVITE, until its dialogs are settled
	opened  bool         // the opening request has come
	ended   bool         // no usage by INVITE any more
	expires time.Time    // session timer (RFC 4028); zero = none

	initCSeq   uint32
	nearTarget string   // Contact of the opening request
	nearRoutes []string // its Record-Route, in order
	farRoutes  int      // how many of them it had when it left on the other side
}

// Open starts a call with a request outside a dialog. The request itself is then given to [Call.Request]. What a call keeps
// of messages for as long as it stands are copies, so that a few words do not hold the whole text.
func Open(m *sipalg.Message, from Side, now time.Time) *Call {
	n, _ := m.CSeq()
	return &Call{
		initCSeq: n, ID: strings.Clone(m.CallID()), InitTag: strings.Clone(m.FromTag()), From: from, Method: known[m.Method], Opened: now,
	}
}

// Matches tells whether a message from that side belongs to this call: its tags are those
// of the opening request or of a dialog that it led to. Call-ID must already be equal.
func (c *Call) Matches(m *sipalg.Message, from Side) bool {
	near, far := m.FromTag(), m.ToTag()
	sender := from
	if !m.IsRequest() {
		sender = from.Other() // the tags of a response are those of its request
	}
	if sender != c.From {
		near, far = far, near
	}
	if near != c.InitTag {
		return false
	}
	if far == "" || c.dialog(far) != nil {
		return true
	}
	// A response or an early NOTIFY may bring the far tag. So may the ACK of a failure; its number tells it from that of
	// a request repeated with credentials, which has the same Call-ID and From tag.
	return !m.IsRequest() || m.Method == "NOTIFY" && sender != c.From || m.Method == "ACK" && c.Opens(m)
}

// Dialogs gives the dialogs that stand, in the order in which they came.
func (c *Call) Dialogs() []*Dialog { return slices.Clone(c.dialogs) }

// dialog gives the one with that tag of the answering end, or nil.
func (c *Call) dialog(tag string) *Dialog {
	for _, d := range c.dialogs {
		if d.Tag == tag {
			return d
		}
	}
	return nil
}

// Between tells whether one of its dialogs has these tags, in either order.
func (c *Call) Between(a, b string) bool {
	if a != c.InitTag {
		a, b = b, a
	}
	return a == c.InitTag && c.dialog(b) != nil
}

// Confirmed gives the dialog whose INVITE was answered 2xx, or nil.
func (c *Call) Confirmed() *Dialog {
	for _, d := range c.dialogs {
		if d.State == Confirmed && d.invite {
			return d
		}
	}
	return nil
}

// Invite is the opening INVITE's transaction while it has no final response.
func (c *Call) Invite() *Transaction {
	if c.invite != nil && c.invite.Final == 0 {
		return c.invite
	}
	return nil
}

// HasInvite tells whether the call is one by INVITE that has not ended.
func (c *Call) HasInvite() bool { return c.Method == "INVITE" && !c.ended }

// Idle tells whether nothing is left that a later message could belong to.
func (c *Call) Idle() bool { return len(c.txs) == 0 && len(c.dialogs) == 0 }

// Settled tells whether no transaction is left: what is in force stays until another request comes.
func (c *Call) Settled() bool { return len(c.txs) == 0 }

// SessionExpires is the time at which the session timer runs out; zero means that none runs.
func (c *Call) SessionExpires() time.Time { return c.expires }

// far returns the tag of the answering end in a message from the given side.
func (c *Call) far(m *sipalg.Message, from Side) string {
	sender := from
	if !m.IsRequest() {
		sender = from.Other()
	}
	if sender == c.From {
		return m.ToTag()
	}
	return m.FromTag()
}

func answer(status int, phrase string, cause sipalg.Cause) Action {
	return Action{Verdict: Answer, Status: status, Phrase: phrase, Cause: cause}
}

func drop(cause sipalg.Cause) Action { return Action{Verdict: Drop, Cause: cause} }

func noDialog() Action {
	return answer(481, "Call/Transaction Does Not Exist", CauseNoDialog)
}

// Expire forgets transactions, subscriptions and ended dialogs whose time is over. It
// reports the INVITE that never got a final response, so that the owner can end it at both ends.
func (c *Call) Expire(now time.Time) (stale *Transaction) {
	c.txs = slices.DeleteFunc(c.txs, func(t *Transaction) bool {
		if now.Before(t.deadline) {
			return false
		}
		if t.Method == "INVITE" && t.Final == 0 && !t.Own {
			stale = t
		}
		t.uncount()
		return true
	})
	if len(c.txs) == 0 {
		c.txs = nil // a call may stand for hours
	}
	c.dialogs = slices.DeleteFunc(c.dialogs, func(d *Dialog) bool {
		for k, end := range d.subs {
			if !now.Before(end) {
				d.unsubscribe(k, now)
			}
		}
		if d.State == Early && !d.linger.IsZero() && !now.Before(d.linger) {
			d.terminate(now)
			d.linger = now
		}
		return d.State == Terminated && len(d.subs) == 0 && !now.Before(d.linger)
	})
	return stale
}

// Due is the earliest time at which Expire will find something, or the session timer runs out; zero where neither happens
// without another message.
func (c *Call) Due() (at time.Time) {
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, t := range c.txs {
		earlier(t.deadline)
	}
	for _, d := range c.dialogs {
		if d.State == Early || d.State == Terminated && len(d.subs) == 0 {
			earlier(d.linger)
		}
		for _, end := range d.subs {
			earlier(end)
		}
	}
	if c.HasInvite() {
		earlier(c.expires)
	}
	return at
}

// Reject notes that the appliance itself gave the final answer to a request of this call. ended tells that
// the call by INVITE is over with it.
func (c *Call) Reject(t *Transaction, status int, now time.Time) (ended bool) {
	t.Mark(status, now)
	if t.Method != "INVITE" {
		return false
	}
	for _, d := range c.dialogs {
		if t == c.invite && d.State == Early {
			d.terminate(now)
		}
	}
	return c.settle()
}

// EndDialog ends one dialog's usage by INVITE; ended tells that it was the call's last.
func (c *Call) EndDialog(d *Dialog, now time.Time) (ended bool) {
	d.terminate(now)
	return c.settle()
}

// Opens tells whether the call's opening request has this CSeq number: the same again is a merged request.
func (c *Call) Opens(m *sipalg.Message) bool {
	n, _ := m.CSeq()
	return n == c.initCSeq
}

// End ends every usage by INVITE at once, for a call that the appliance itself ended.
func (c *Call) End(now time.Time) {
	for _, d := range c.dialogs {
		d.terminate(now)
		clear(d.subs)
	}
	c.ended = true
	c.expires = time.Time{}
}

// sessionTimer reads Session-Expires of a 2xx (RFC 4028 section 7): seconds, then parameters.
func (c *Call) sessionTimer(m *sipalg.Message, now time.Time) {
	v := m.Get("Session-Expires")
	if v == "" {
		c.expires = time.Time{}
		return
	}
	v, _, _ = strings.Cut(v, ";")
	n, ok := number(v)
	if !ok || n == 0 {
		return
	}
	// The refresher acts at half the interval; the other end sends BYE a little before
	// its end. 32 s more let that BYE come before the appliance gives up the call.
	c.expires = now.Add(time.Duration(n)*time.Second + TransactionTimeout)
}

// number reads an unsigned decimal below 2^31.
func number(s string) (uint32, bool) {
	s = strings.TrimSpace(s)
	if s == "" || len(s) > 10 {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + uint64(s[i]-'0')
	}
	return uint32(n), n < 1<<31
}
