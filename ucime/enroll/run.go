package enroll

import (
	"context"
	"time"
)

// Run enrols, renews when 30 days are left, and fetches the list of revoked certificates every hour, until ctx ends. After a failure it tries
// again: for a certificate after the retry interval, for the list after 5 minutes.
func (m *Member) Run(ctx context.Context) error {
	var nextTry, nextList time.Time
	for {
		now := m.clock.Now()
		if now.Before(nextList) && now.Before(m.renewal(nextTry)) {
			if err := m.sleep(ctx, minTime(nextList, m.renewal(nextTry)).Sub(now)); err != nil {
				return err
			}
			continue
		}
		if !now.Before(nextList) {
			nextList = now.Add(ListInterval)
			if err := m.FetchList(ctx); err != nil {
				m.log.Warn("enroll: list of revoked certificates not fetched", "error", err)
				nextList = now.Add(listRetry)
			}
		}
		if !now.Before(m.renewal(nextTry)) {
			nextTry = now.Add(m.cfg.RetryInterval)
			if m.Enroll(ctx) == nil {
				nextTry = time.Time{}
				nextList = now // a first certificate is of no use without the list
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// renewal is when the next enrolment is due, not before a time. Without a license it is not due.
func (m *Member) renewal(notBefore time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due time.Time
	switch {
	case m.license == nil:
		return m.clock.Now().Add(ListInterval)
	case m.cert != nil && m.revoked[m.cert.Leaf.SerialNumber.Text(16)].IsZero(): // a revoked one is to be replaced, if the authority will
		due = m.cert.Leaf.NotAfter.Add(-RenewBefore)
	}
	if due.Before(notBefore) {
		return notBefore
	}
	return due
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// sleep waits for a time, or until something changed.
func (m *Member) sleep(ctx context.Context, d time.Duration) error {
	done := make(chan struct{})
	defer m.clock.After(d, func() { close(done) })()
	select {
	case <-done:
	case <-m.wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// MemberStatus is what an administrator wants to know.
type MemberStatus struct {
	Licensed   bool      `json:"licensed"`
	Tag        string    `json:"tag,omitempty"`
	PeerCount  int       `json:"peer_count,omitempty"`
	Enrolled   bool      `json:"enrolled"`
	NotAfter   time.Time `json:"not_after,omitzero"`
	Serial     string    `json:"serial,omitempty"`
	PeerIDs    []string  `json:"peer_ids,omitempty"`
	ListUntil  time.Time `json:"revocation_list_until,omitzero"`
	Revoked    int       `json:"revoked"` // certificates on the list
	OwnRevoked bool      `json:"own_certificate_revoked"`
	LastError  string    `json:"last_error,omitempty"` // of the last enrolment
}

// Status tells the member's state.
func (m *Member) Status() MemberStatus {
	ids := m.OwnPeerIDs()
	m.mu.Lock()
	defer m.mu.Unlock()
	var s MemberStatus
	if m.license != nil {
		s.Licensed, s.Tag, s.PeerCount = true, m.license.Tag.String(), m.license.PeerCount
	}
	if m.cert != nil {
		s.Enrolled, s.NotAfter, s.Serial = m.clock.Now().Before(m.cert.Leaf.NotAfter), m.cert.Leaf.NotAfter, m.cert.Leaf.SerialNumber.Text(16)
		_, s.OwnRevoked = m.revoked[s.Serial]
	}
	for _, id := range ids {
		s.PeerIDs = append(s.PeerIDs, id.String())
	}
	if m.list != nil {
		s.ListUntil, s.Revoked = m.list.NextUpdate, len(m.revoked)
	}
	if m.lastErr != nil {
		s.LastError = m.lastErr.Error()
	}
	return s
}
