package dialog

import (
	"slices"
	"time"

	"imeproxy/sipalg"
)

// Response judges a response that came from the given side. Drop is for responses without a request;
// Absorb for those to the appliance's own requests.
func (c *Call) Response(m *sipalg.Message, from Side, now time.Time) Action {
	t := c.Pending(m, from)
	if t == nil {
		return drop(CauseNoTransaction)
	}
	if cseq, _ := m.CSeq(); cseq != t.CSeq {
		return drop(CauseNoTransaction)
	}
	if t.Own {
		if m.Status >= 200 {
			c.drop(t)
		}
		return Action{Verdict: Absorb, Tx: t}
	}
	if t.Answered {
		return Action{Verdict: Absorb, Tx: t}
	}
	if t.Method == "INVITE" {
		return c.inviteResponse(t, m, now)
	}
	return c.otherResponse(t, m, now)
}

func (c *Call) otherResponse(t *Transaction, m *sipalg.Message, now time.Time) Action {
	a := Action{Verdict: Forward, Tx: t, Dialog: c.dialog(t.Tag)}
	if m.Status < 200 {
		return a
	}
	c.drop(t)
	t.Final = m.Status
	d := a.Dialog
	if t.Method == "UPDATE" && m.Status < 300 {
		c.sessionTimer(m, now)
	}
	if t.Method == "BYE" && d != nil {
		d.byeAnswered(t.From, m.Status)
	}
	if t.Method == "NOTIFY" && d != nil && (m.Status == 481 || m.Status == 489) {
		d.unsubscribe(t.event, now) // RFC 6665 4.2.2: the far end knows of none
	}
	switch {
	case t.subEvent != "" && m.Status < 300:
		if d == nil {
			if d = c.dialogFor(m.ToTag(), now); d == nil {
				return drop(CauseTooManyDialogs)
			}
			d.State = Confirmed
			d.cseq[t.From] = t.CSeq
			a.Dialog = d
		}
		if !d.subscribe(t.subEvent, now.Add(expires(m))) {
			return drop(CauseTooManyDialogs)
		}
	case d != nil && (m.Status == 481 || m.Status == 408) && t.Method != "NOTIFY" && t.Method != "SUBSCRIBE" && t.Method != "PRACK":
		// RFC 3261 12.2.1.2: the far end has lost the dialog, or is gone.
		if d.UsageByInvite() && t.Method != "BYE" {
			d.terminate(now)
			a.Ended = c.settle()
		}
	}
	return a
}

// expires reads the Expires of a 2xx to SUBSCRIBE.
func expires(m *sipalg.Message) time.Duration {
	if n, ok := number(m.Get("Expires")); ok {
		return lifetime(n)
	}
	return DefaultSubscription
}

// lifetime is how long a subscription of n seconds is kept. Its end may come to nobody's mind: MaxSubscription bounds it.
func lifetime(n uint32) time.Duration {
	return min(time.Duration(n)*time.Second, MaxSubscription) + TransactionTimeout
}

func (c *Call) inviteResponse(t *Transaction, m *sipalg.Message, now time.Time) Action {
	initial := t == c.invite
	if t.Final != 0 {
		return c.lateFinal(t, m, initial, now)
	}
	a := Action{Verdict: Forward, Tx: t}
	switch {
	case m.Status == 100:
		t.deadline = now.Add(InviteTimeout)
		return a
	case m.Status < 200:
		t.deadline = now.Add(InviteTimeout)
		if m.ToTag() == "" {
			return a
		}
		d := c.dialog(t.Tag)
		if initial {
			if d = c.dialogFor(m.ToTag(), now); d == nil {
				return drop(CauseTooManyDialogs)
			}
			d.invite = true
		}
		a.Dialog = d
		if !d.provisional(m) {
			return drop(CauseDialogState)
		}
		return a
	case m.Status < 300:
		return c.success(t, m, initial, now)
	}
	t.Final = m.Status
	t.deadline = now.Add(TransactionTimeout)
	if initial {
		// RFC 3261 13.2.2.3: a final failure ends every early dialog.
		for _, d := range c.dialogs {
			if d.State == Early {
				d.terminate(now)
			}
		}
		a.Ended = c.settle()
		return a
	}
	a.Dialog = c.dialog(t.Tag)
	if d := a.Dialog; d != nil && (m.Status == 481 || m.Status == 408) {
		d.terminate(now)
		a.Ended = c.settle()
	}
	return a
}

// lateFinal handles a final response after the first one: another fork's 2xx (RFC 3261 13.2.2.4), else a repeat.
func (c *Call) lateFinal(t *Transaction, m *sipalg.Message, initial bool, now time.Time) Action {
	if m.Status < 200 || m.Status > 299 || t.Final > 299 || !initial {
		return Action{Verdict: Absorb, Tx: t}
	}
	if d := c.dialog(m.ToTag()); d != nil && d.State != Early {
		return Action{Verdict: Forward, Tx: t, Dialog: d} // repeated 2xx: the caller repeats its ACK
	}
	return c.success(t, m, initial, now)
}

func (c *Call) success(t *Transaction, m *sipalg.Message, initial bool, now time.Time) Action {
	a := Action{Verdict: Forward, Tx: t}
	if m.ToTag() == "" {
		return drop(CauseDialogState)
	}
	d := c.dialog(t.Tag)
	if initial {
		if d = c.dialogFor(m.ToTag(), now); d == nil {
			return drop(CauseTooManyDialogs)
		}
	}
	if d == nil {
		return drop(CauseDialogState)
	}
	t.Final = m.Status
	t.deadline = now.Add(TransactionTimeout)
	a.Dialog = d
	c.sessionTimer(m, now)
	if !initial {
		return a
	}
	if d.State == Early {
		d.State, d.Since, d.invite = Confirmed, now, true
		a.Confirmed = !c.ended
	}
	for _, other := range c.dialogs {
		if other.State == Early {
			// RFC 3261 13.2.2.4: early dialogs end 64*T1 after the first 2xx.
			other.linger = now.Add(TransactionTimeout)
		}
	}
	return a
}

// provisional notes a reliable provisional response that waits for its PRACK; at most 16 may wait.
func (d *Dialog) provisional(m *sipalg.Message) bool {
	n, ok := number(m.Get("RSeq"))
	if !ok || n == 0 {
		return true
	}
	if slices.Contains(d.rseq, n) {
		return true
	}
	if len(d.rseq) >= 16 {
		return false
	}
	d.rseq = append(d.rseq, n)
	return true
}
