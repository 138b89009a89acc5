package dialog

import (
	"slices"
	"strings"
	"time"

	"imeproxy/sipalg"
)

// Request judges a request of this call that came from the given side. Verdict Forward means that it
// was taken into the call's state: the owner forwards it or, when it cannot, tells so with
// [Transaction.Mark] after giving its own answer.
func (c *Call) Request(m *sipalg.Message, from Side, now time.Time) Action {
	if !KnownMethod(m.Method) {
		return answer(501, "Not Implemented", CauseUnknownMethod)
	}
	branch := m.Branch()
	switch m.Method {
	case "ACK":
		return c.ack(m, from, branch)
	case "CANCEL":
		return c.cancel(m, from, branch, now)
	}
	if t := c.find(from, branch, m.Method); t != nil {
		// A repeat on a reliable transport: the first one is being dealt with.
		return Action{Verdict: Absorb, Tx: t}
	}
	if m.ToTag() == "" {
		return c.opening(m, from, now)
	}
	d := c.dialog(c.far(m, from))
	if d == nil && m.Method == "NOTIFY" && from != c.From {
		d = c.earlyNotify(m, now)
	}
	if d == nil {
		return noDialog()
	}
	return c.within(d, m, from, now)
}

// opening takes the request that opens the call. A second one of the same Call-ID and From tag is a merged
// request (RFC 3261 8.2.2.2) when its CSeq is the same; with another CSeq it opens a call of its own.
func (c *Call) opening(m *sipalg.Message, from Side, now time.Time) Action {
	if from != c.From || c.opened {
		return answer(482, "Loop Detected", CauseDialogState)
	}
	c.opened = true
	t := c.add(m, from, now)
	if t == nil {
		return answer(503, "Service Unavailable", CauseTooManyRequests)
	}
	switch m.Method {
	case "INVITE":
		c.invite = t
	case "SUBSCRIBE", "REFER":
		t.subEvent = subscription(m, from)
	}
	return Action{Verdict: Forward, Tx: t}
}

// earlyNotify allows the NOTIFY that overtakes the 2xx of its SUBSCRIBE or REFER (RFC 6665 4.1.2.4).
func (c *Call) earlyNotify(m *sipalg.Message, now time.Time) *Dialog {
	for _, t := range c.txs {
		if t.subEvent == "" || t.From != c.From || t.subEvent != notification(m, c.From.Other()) {
			continue
		}
		if d := c.dialogFor(m.FromTag(), now); d != nil {
			d.State = Confirmed
			d.subscribe(t.subEvent, now.Add(DefaultSubscription))
			return d
		}
	}
	return nil
}

// within judges a request inside a dialog.
func (c *Call) within(d *Dialog, m *sipalg.Message, from Side, now time.Time) Action {
	cseq, _ := m.CSeq()
	if cseq <= d.cseq[from] && d.cseq[from] != 0 {
		return answer(500, "Server Internal Error", CauseCSeqOrder)
	}
	if a := c.allowed(d, m, from); a.Verdict != Forward {
		return a
	}
	t := c.add(m, from, now)
	if t == nil {
		return answer(503, "Service Unavailable", CauseTooManyRequests)
	}
	t.Tag = d.Tag
	d.cseq[from] = cseq
	a := Action{Verdict: Forward, Tx: t, Dialog: d}
	switch m.Method {
	case "BYE":
		d.byeFrom[from] = true
		d.terminate(now)
		a.Ended = c.settle()
	case "PRACK":
		a.Invite = c.acknowledge(d, m, from)
	case "SUBSCRIBE", "REFER":
		t.subEvent = subscription(m, from)
	case "NOTIFY":
		t.event = d.notified(m, from, now)
	}
	return a
}

// allowed applies the state of the dialog to the method.
func (c *Call) allowed(d *Dialog, m *sipalg.Message, from Side) Action {
	pass := Action{Verdict: Forward}
	switch m.Method {
	case "INVITE":
		return c.reinvite(d, from)
	case "BYE":
		return c.bye(d, from)
	case "PRACK":
		if d.State == Terminated || from != c.From && d.State != Confirmed || c.rack(d, m) < 0 {
			return noDialog()
		}
		return pass
	case "UPDATE":
		if !d.UsageByInvite() {
			return noDialog()
		}
		return pass
	case "NOTIFY":
		event := notification(m, from)
		if _, ok := d.subs[event]; !ok && !c.subscribing(d, event) {
			return answer(481, "Subscription Does Not Exist", CauseNoDialog)
		}
		return pass
	case "SUBSCRIBE":
		if d.State == Terminated && len(d.subs) == 0 {
			return noDialog()
		}
		return pass
	case "INFO", "MESSAGE", "OPTIONS", "REFER":
		if d.State == Terminated {
			return noDialog()
		}
		return pass
	}
	return answer(403, "Forbidden", CauseDialogState) // REGISTER, PUBLISH, and whatever becomes known without a rule of its own
}

// reinvite: only in a confirmed dialog, one at a time (RFC 3261 14.1 and 14.2).
func (c *Call) reinvite(d *Dialog, from Side) Action {
	if d.State != Confirmed || !d.invite {
		return noDialog()
	}
	for _, t := range c.txs {
		if t.Method != "INVITE" || t.Final != 0 || t.Tag != d.Tag {
			continue
		}
		if t.From == from {
			a := answer(500, "Server Internal Error", CauseRequestPending)
			a.RetryAfter = 5 // RFC 3261 14.2: between 0 and 10 s
			return a
		}
		return answer(491, "Request Pending", CauseRequestPending)
	}
	return Action{Verdict: Forward}
}

// bye: the callee must not send it in an early dialog (RFC 3261 15); a BYE that crosses one from the other
// end passes, so that both ends get their answer; who has answered a BYE knows that the dialog is over.
func (c *Call) bye(d *Dialog, from Side) Action {
	switch {
	case d.State == Early && from != c.From:
		return noDialog()
	case d.State == Terminated && d.byeAsk[from]:
		d.byeAsk[from] = false
	case d.State == Terminated && (d.byeFrom[from] || !d.byeFrom[from.Other()] || d.byeDone[from.Other()]):
		return noDialog()
	case d.State == Confirmed && !d.invite:
		return noDialog()
	}
	return Action{Verdict: Forward}
}

// ack judges an ACK: the one to a 2xx is forwarded by CSeq, the one to another final answer goes
// with its INVITE by branch.
func (c *Call) ack(m *sipalg.Message, from Side, branch string) Action {
	// Some user agents give the ACK of a 2xx its INVITE's branch: that one is told by the status.
	if t := c.find(from, branch, "INVITE"); t != nil && t.Final/100 != 2 {
		switch {
		case t.Final < 300:
			return drop(CauseDialogState)
		case t.Answered:
			return Action{Verdict: Absorb, Invite: t}
		}
		return Action{Verdict: Forward, Invite: t}
	}
	d := c.dialog(c.far(m, from))
	if d == nil {
		return drop(CauseNoDialog)
	}
	cseq, _ := m.CSeq()
	for _, t := range c.txs {
		if t.Method != "INVITE" || t.From != from || t.CSeq != cseq || t.Final < 200 || t.Final > 299 {
			continue
		}
		if t.Answered {
			return Action{Verdict: Absorb, Invite: t, Dialog: d}
		}
		return Action{Verdict: Forward, Invite: t, Dialog: d}
	}
	return drop(CauseNoTransaction)
}

// cancel judges a CANCEL: it must name an INVITE that the sender's side has open.
func (c *Call) cancel(m *sipalg.Message, from Side, branch string, now time.Time) Action {
	inv := c.find(from, branch, "INVITE")
	cseq, _ := m.CSeq()
	if inv == nil || inv.CSeq != cseq || inv.Own {
		return noDialog()
	}
	if t := c.find(from, branch, "CANCEL"); t != nil {
		return Action{Verdict: Absorb, Tx: t, Invite: inv}
	}
	t := c.add(m, from, now)
	if t == nil {
		return answer(503, "Service Unavailable", CauseTooManyRequests)
	}
	t.Tag = inv.Tag
	inv.cancelled = true
	return Action{Verdict: Forward, Tx: t, Invite: inv}
}

// rack finds the reliable provisional response that a PRACK acknowledges (RFC 3262 section 7.2); -1 when none.
func (c *Call) rack(d *Dialog, m *sipalg.Message) int {
	f := strings.Fields(m.Get("RAck"))
	if len(f) != 3 || f[2] != "INVITE" {
		return -1
	}
	r, ok := number(f[0])
	if !ok {
		return -1
	}
	return slices.Index(d.rseq, r)
}

func (c *Call) acknowledge(d *Dialog, m *sipalg.Message, from Side) *Transaction {
	if i := c.rack(d, m); i >= 0 {
		d.rseq = slices.Delete(d.rseq, i, i+1)
	}
	var cseq uint32
	if f := strings.Fields(m.Get("RAck")); len(f) == 3 {
		cseq, _ = number(f[1])
	}
	// By number: the opening INVITE is remembered for a while when another one in the dialog is under way already.
	for _, t := range c.txs {
		if t.Method == "INVITE" && t.CSeq == cseq && t.From == from && (t.Tag == d.Tag || t == c.invite) {
			return t
		}
	}
	return nil
}

// subscribing tells whether the SUBSCRIBE or REFER of this dialog that opens a subscription waits for its answer.
func (c *Call) subscribing(d *Dialog, event string) bool {
	for _, t := range c.txs {
		if t.subEvent == event && t.Tag == d.Tag {
			return true
		}
	}
	return false
}

// subscription names what a SUBSCRIBE or REFER of a side opens: who subscribes, and the event package.
func subscription(m *sipalg.Message, from Side) string {
	if m.Method == "REFER" {
		if strings.EqualFold(strings.TrimSpace(m.Get("Refer-Sub")), "false") {
			return "" // RFC 4488: no implicit subscription
		}
		return eventKey("refer", from)
	}
	return eventKey(m.Get("Event"), from)
}

// notification names the subscription that a NOTIFY of a side is of. It is the other side's: a NOTIFY of something that nobody there has subscribed
// to may restart a phone.
func notification(m *sipalg.Message, from Side) string { return eventKey(m.Get("Event"), from.Other()) }

func eventKey(event string, subscriber Side) string {
	event, _, _ = strings.Cut(event, ";")
	return subscriber.String() + " " + strings.ToLower(strings.TrimSpace(event))
}

func (d *Dialog) subscribe(event string, end time.Time) bool {
	if _, ok := d.subs[event]; !ok && len(d.subs) >= MaxSubscriptions {
		return false
	}
	if d.subs == nil {
		d.subs = make(map[string]time.Time)
	}
	d.subs[event] = end
	return true
}

// unsubscribe ends a subscription. A dialog that was nothing else ends with its last one (RFC 6665 4.4.1).
func (d *Dialog) unsubscribe(event string, now time.Time) {
	delete(d.subs, event)
	if len(d.subs) == 0 && !d.invite && d.State == Confirmed {
		d.terminate(now)
	}
}

// notified ends a subscription whose NOTIFY says so (RFC 6665 4.1.3), and gives its key.
func (d *Dialog) notified(m *sipalg.Message, from Side, now time.Time) (key string) {
	state, params, _ := strings.Cut(m.Get("Subscription-State"), ";")
	key = notification(m, from)
	if strings.EqualFold(strings.TrimSpace(state), "terminated") {
		d.unsubscribe(key, now)
		return key
	}
	for p := range strings.SplitSeq(params, ";") {
		if name, v, ok := strings.Cut(strings.TrimSpace(p), "="); ok && strings.EqualFold(name, "expires") {
			if n, ok := number(v); ok {
				d.subscribe(key, now.Add(lifetime(n)))
			}
		}
	}
	return key
}

// settle tells, once, that no usage by INVITE is left in the call. Early dialogs that another fork's 2xx has left
// behind do not count: what may still come from them, the caller ends at once (RFC 3261 13.2.2.4).
func (c *Call) settle() bool {
	if c.ended || c.Method != "INVITE" {
		return false
	}
	for _, d := range c.dialogs {
		if d.invite && (d.State != Early || d.linger.IsZero()) {
			return false
		}
	}
	if c.Invite() != nil {
		return false
	}
	c.ended = true
	c.expires = time.Time{}
	return true
}
