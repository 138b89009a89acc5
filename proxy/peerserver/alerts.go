package peerserver

import (
	"fmt"
	"sync"
	"time"

	"imeproxy/ucime/enroll"
	"imeproxy/ucime/ring"
)

// Alert tells an administrator of something. Names and severities are the guide's (lines 9008-9620), which also says when one comes again.
type Alert struct {
	Name     string    `json:"alert"`
	Severity Severity  `json:"severity"`
	Time     time.Time `json:"time"`
	Text     string    `json:"text"`
}

// Severity is one of the guide's.
type Severity string

// The severities, the worst first.
const (
	SeverityAlert    Severity = "alert"
	SeverityCritical Severity = "critical"
	SeverityError    Severity = "error"
	SeverityWarning  Severity = "warning"
	SeverityNotice   Severity = "notice"
)

// everyPoll is what the guide's "trigger alert on every poll" means here.
const everyPoll = time.Minute

// condition is an alert that holds for a while: text is empty while it does not.
type condition struct {
	name     string
	severity Severity
	every    time.Duration
	text     func(s Status, now time.Time) string
}

// conditions are the server's alerts (tables 40 to 51); those that tell of an event are methods of alerter.
var conditions = []condition{
	{"BannedFromNetwork", SeverityAlert, everyPoll, func(s Status, _ time.Time) string {
		if s.Ring.Banned {
			return "a bootstrap server has banned this server from the distributed cache; ask who runs the ring"
		}
		return ""
	}},
	{"IMEDistributedCacheCertificateExpiring", SeverityWarning, 24 * time.Hour, func(s Status, now time.Time) string {
		if left := s.Enrollment.NotAfter.Sub(now); s.Enrollment.Enrolled && left < enroll.WarnBefore {
			return fmt.Sprintf("%d days until the certificate expires: the authority does not renew it (%s)", int(left/(24*time.Hour)), s.Enrollment.LastError)
		}
		return ""
	}},
	{"IMEDistributedCacheFailure", SeverityAlert, time.Hour, func(s Status, _ time.Time) string {
		if s.Running && s.Ring.Health != ring.Green {
			return fmt.Sprintf("the distributed cache is %s: %s", s.Ring.Health, s.Ring.Reason)
		}
		return ""
	}},
	{"IMESdlLinkOutOfService", SeverityCritical, everyPoll, func(s Status, _ time.Time) string {
		if s.Failed != "" {
			return "a part of the peer server is out of service: " + s.Failed
		}
		return ""
	}},
	{"InvalidCertificate", SeverityAlert, everyPoll, func(s Status, _ time.Time) string {
		switch e := s.Enrollment; {
		case !e.Licensed:
			return "no license is installed: utils ime license file install FILE"
		case !e.Enrolled:
			return "there is no certificate that is valid now: " + e.LastError
		case e.OwnRevoked:
			return "the certificate was revoked"
		}
		return ""
	}},
	{"MessageOfTheDay", SeverityNotice, 24 * time.Hour, func(s Status, _ time.Time) string { return s.Ring.MOTD }},
	{"SWUpdateRequired", SeverityWarning, time.Hour, func(s Status, _ time.Time) string {
		if s.Ring.Update {
			return fmt.Sprintf("the ring requires version %d of the software", s.Ring.Required)
		}
		return ""
	}},
	{"ValidationsPendingExceeded", SeverityCritical, time.Hour, func(s Status, _ time.Time) string {
		if s.Pending > 100 {
			return fmt.Sprintf("%d calls wait for their validation; some may never be validated", s.Pending)
		}
		return ""
	}},
	{"IMEOverQuota", SeverityAlert, everyPoll, func(s Status, _ time.Time) string {
		switch {
		case s.VAP.Quota.Target > 0 && s.VAP.Quota.Current > s.VAP.Quota.Target:
			return fmt.Sprintf("VAP over quota: current %d, target %d", s.VAP.Quota.Current, s.VAP.Quota.Target)
		case s.OverQuota != "":
			return s.OverQuota
		}
		return ""
	}},
}

// alerter tells alerts as often as the guide says.
type alerter struct {
	tell func(Alert)

	mu         sync.Mutex // guards what follows
	told       map[string]time.Time
	texts      map[string]string
	passwords  uint64 // failed authentications that were told
	overQuotas uint64
}

func newAlerter(tell func(Alert)) *alerter {
	if tell == nil {
		tell = func(Alert) {}
	}
	return &alerter{tell: tell, told: map[string]time.Time{}, texts: map[string]string{}}
}

// look tells what holds and is due. A condition that ended and comes again is told at once, and so is another message of the day.
func (a *alerter) look(now time.Time, s Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range conditions {
		text := c.text(s, now)
		if text == "" {
			delete(a.told, c.name)
			continue
		}
		at, before := a.told[c.name]
		if before && now.Sub(at) < c.every && (c.name != "MessageOfTheDay" || a.texts[c.name] == text) {
			continue
		}
		a.told[c.name], a.texts[c.name] = now, text
		a.tell(Alert{c.name, c.severity, now, text})
	}
	if wrong := s.VAP.FailedAuthentication; wrong > a.passwords {
		if now.Sub(a.told["InvalidCredentials"]) >= everyPoll {
			a.told["InvalidCredentials"] = now
			a.tell(Alert{"InvalidCredentials", SeverityError, now, fmt.Sprintf("%d registrations of call agents with a wrong user or password", wrong-a.passwords)})
			a.passwords = wrong
		}
	} else {
		a.passwords = wrong
	}
	if over := s.VAP.OverQuota; over > a.overQuotas && now.Sub(a.told["IMEOverQuota"]) >= everyPoll {
		a.told["IMEOverQuota"] = now
		a.tell(Alert{"IMEOverQuota", SeverityAlert, now, fmt.Sprintf("VAP over quota: a publication was refused, current %d, target %d", s.VAP.Quota.Current, s.VAP.Quota.Target)})
		a.overQuotas = over
	} else if over < a.overQuotas { // the server has begun anew
		a.overQuotas = over
	}
}

func (a *alerter) enrolled(now, until time.Time) {
	a.tell(Alert{"SuccessfulEnrollment", SeverityNotice, now, "a certificate was installed; it is valid until " + until.UTC().Format(time.RFC3339)})
}

func (a *alerter) enrollFailed(now time.Time, err error) {
	a.tell(Alert{"EnrollFailure", SeverityError, now, err.Error()})
}

// PasswordChanged is the alert TicketPasswordChanged.
func PasswordChanged(now time.Time) Alert {
	return Alert{"TicketPasswordChanged", SeverityNotice, now, "the password that tickets are made with is another one: tickets given out before are good no more"}
}
