package fallback

import "time"

// Times of the notification.
const (
	AnswerTime    = 32 * time.Second // a REFER without answer for that long has none
	MaxReferrals  = 3                // REFERs a call in all
	URNs          = "urn:uc-ime:"    // what Refer-To has in notifications, and nowhere else
	ReferTo       = "<" + URNs + "pstn-fallback>"
	statusTimeout = 408
	statusBusy    = 503
)

// Outcome of an answer to a REFER, or of its absence.
type Outcome uint8

// What comes of a REFER.
const (
	Done   Outcome = iota // 2xx
	Failed                // not to be repeated
	Again                 // another one goes out when the call is bad still
)

// Notifier repeats the REFER of one call as the protocol file says. The caller sends, and asks at each sample. It belongs to one goroutine,
// or to who holds the caller's lock.
type Notifier struct {
	HoldDown time.Duration
	sent     int
	retryAt  time.Duration
	waiting  bool // for the instant retryAt
	open     bool // for an answer
	deadline time.Duration
}

// Sent notes that a REFER went out.
func (n *Notifier) Sent(at time.Duration) {
	n.sent++
	n.waiting, n.open, n.deadline = false, true, at+AnswerTime
}

// Referrals is the number of REFERs so far.
func (n *Notifier) Referrals() int { return n.sent }

// Answer takes a final response. retryAfter is that of the header, negative when there is none. An answer that nobody waits for is Done.
func (n *Notifier) Answer(at time.Duration, status int, retryAfter time.Duration) Outcome {
	if !n.open {
		return Done
	}
	n.open = false
	switch {
	case status >= 200 && status < 300:
		return Done
	case status == statusTimeout:
		return n.again(at, 0)
	case status == statusBusy && retryAfter >= 0:
		return n.again(at, retryAfter)
	}
	return Failed
}

// again plans another REFER.
func (n *Notifier) again(at, retryAfter time.Duration) Outcome {
	if n.sent >= MaxReferrals {
		return Failed
	}
	n.waiting, n.retryAt = true, at+max(n.HoldDown, retryAfter)
	return Again
}

// Expired tells whether the answer to a REFER has not come in time, which counts as the outcome says.
func (n *Notifier) Expired(at time.Duration) (Outcome, bool) {
	if !n.open || at < n.deadline {
		return 0, false
	}
	n.open = false
	return n.again(n.deadline, 0), true
}

// Due tells whether another REFER is to go out now: its instant has come and the latest sample is bad. When the instant has come and the
// sample is not, none goes out any more.
func (n *Notifier) Due(at time.Duration, bad bool) bool {
	if !n.waiting || at < n.retryAt {
		return false
	}
	n.waiting = false
	return bad
}
