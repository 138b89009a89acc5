package vap

import (
	"time"

	"imeproxy/ucime/learn"
)

// subscription is a client's wish for the routes of a service. Guarded by Server.mu.
type subscription struct {
	id      uint32
	key     Key
	cursor  uint64 // notifications up to it were sent to this client, settled or not
	rewind  bool   // begin again: some failed, or another client had the routes
	backoff time.Duration
	stop    func() bool // of the timer that sets rewind; nil: none
}

func (c *conn) doSubscribe(m *message) (*message, func(), error) {
	if err := m.need(attrIdentity); err != nil {
		return nil, nil, err
	}
	id, err := m.identity(1)
	if err != nil {
		return nil, nil, err
	}
	if id.service != serviceNumbers {
		return nil, nil, &Error{Code: CodeUnknownService}
	}
	s, key := c.s, Key{c.user, id.id}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range c.subs {
		if sub.key == key {
			return m.answer().putU32(attrSubscription, sub.id), nil, nil
		}
	}
	if len(c.subs) >= maxSubs {
		return nil, nil, fail(CodeQuota, "%d subscriptions", len(c.subs))
	}
	sub := &subscription{key: key, backoff: retryFirst}
	for sub.id = 1; c.subs[sub.id] != nil; sub.id++ {
	}
	return m.answer().putU32(attrSubscription, sub.id), func() { // after the answer: the client must know the ID first
		s.mu.Lock()
		defer s.mu.Unlock()
		c.subs[sub.id] = sub
		s.subs[key] = append(s.subs[key], c)
		c.nudge()
	}, nil
}

func (c *conn) doUnsubscribe(m *message) (*message, func(), error) {
	if err := m.need(attrSubscription); err != nil {
		return nil, nil, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.subs[m.u32(attrSubscription)] == nil {
		return nil, nil, &Error{Code: CodeUnknownSub}
	}
	c.unsubscribe(m.u32(attrSubscription))
	return m.answer(), nil, nil
}

// unsubscribe ends a subscription; the client that subscribed before gets the routes from now on. With Server.mu held.
func (c *conn) unsubscribe(id uint32) {
	s, sub := c.s, c.subs[id]
	delete(c.subs, id)
	if sub.stop != nil {
		sub.stop()
	}
	list := s.subs[sub.key]
	for i, o := range list {
		if o == c {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(s.subs, sub.key)
		return
	}
	s.subs[sub.key] = list
	heir := list[len(list)-1]
	for _, o := range heir.subs {
		if o.key == sub.key {
			o.rewind = true
		}
	}
	heir.nudge()
}

// deliver brings notifications for as long as the connection stands.
func (c *conn) deliver() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		}
		for again := true; again && c.ctx.Err() == nil; {
			again = false
			for _, sub := range c.mine() {
				again = c.batch(sub) || again
			}
		}
	}
}

// mine are the subscriptions whose routes this connection gets.
func (c *conn) mine() (list []*subscription) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, sub := range c.subs {
		if on := c.s.subs[sub.key]; on[len(on)-1] == c {
			list = append(list, sub)
		}
	}
	return list
}

// batch sends up to a window of a subscription's notifications and waits for their answers; false when there were none.
func (c *conn) batch(sub *subscription) bool {
	s := c.s
	s.mu.Lock()
	if sub.rewind {
		sub.rewind, sub.cursor = false, 0
	}
	after := sub.cursor
	s.mu.Unlock()
	list, err := s.cfg.Handler.Pending(s.ctx, sub.key, after, window)
	if err != nil {
		s.log.Error("vap: no notifications from the store", "user", sub.key.User, "service", sub.key.Service, "error", err)
		c.retry(sub)
		return false
	}
	if len(list) == 0 {
		return false
	}
	waits := make([]<-chan *message, len(list))
	failed := false
	for i := range list {
		n := &list[i]
		if err := n.Check(); err != nil {
			s.log.Error("vap: notification cannot be sent", "user", sub.key.User, "service", sub.key.Service, "id", n.ID, "error", err)
			failed = true
			continue
		}
		m := (&message{method: n.method()}).putU32(attrSubscription, sub.id).put(attrIdentity, identity{serviceNumbers, 0, sub.key.Service}.bytes()).
			putU64(attrNotification, n.ID).put(attrServiceData, n.document())
		if waits[i], err = c.begin(m); err != nil {
			return false
		}
		s.count.notified.Add(1)
	}
	for i, ch := range waits {
		if ch == nil {
			continue
		}
		answer, err := c.await(ch)
		if answer == nil {
			return false
		}
		failed = !c.settle(sub, list[i].ID, err) || failed
	}
	s.mu.Lock()
	sub.cursor = max(sub.cursor, list[len(list)-1].ID)
	s.mu.Unlock()
	if failed {
		c.retry(sub)
	}
	return true
}

// settle takes a client's answer to a notification; false when it has to be brought again.
func (c *conn) settle(sub *subscription, id uint64, answer error) bool {
	s := c.s
	accepted := answer == nil
	switch {
	case accepted:
		s.count.acknowledged.Add(1)
	case codeOf(answer) == CodeForbidden:
		s.count.rejected.Add(1)
		s.log.Info("vap: route rejected by the call agent", "user", sub.key.User, "service", sub.key.Service, "id", id)
	default:
		s.count.notifyFailed.Add(1)
		s.log.Warn("vap: notification not taken, will be brought again", "user", sub.key.User, "service", sub.key.Service, "id", id, "error", answer)
		return false
	}
	if err := s.cfg.Handler.Settle(s.ctx, sub.key, id, accepted); err != nil {
		s.log.Error("vap: notification not settled", "user", sub.key.User, "service", sub.key.Service, "id", id, "error", err)
		return false
	}
	return true
}

// retry begins a subscription again after a while, at first 60 s.
func (c *conn) retry(sub *subscription) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.subs[sub.id] != sub || sub.stop != nil {
		return
	}
	wait := sub.backoff
	sub.backoff = min(2*wait, retryLast)
	sub.stop = s.clock.After(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		sub.rewind, sub.stop = true, nil
		c.nudge()
	})
}

func (c *conn) doUpload(m *message) (*message, func(), error) {
	if err := m.need(attrIdentity, attrServiceData); err != nil {
		return nil, nil, err
	}
	id, err := m.identity(1)
	if err != nil {
		return nil, nil, err
	}
	s, key := c.s, Key{c.user, id.id}
	s.mu.Lock()
	known := id.service == serviceNumbers && s.pubs[key] != nil
	s.mu.Unlock()
	if !known {
		return nil, nil, &Error{Code: CodeUnknownService}
	}
	var vcrs []learn.VCR
	if vcrs, err = readVCRs(m.get(attrServiceData)); err == nil {
		err = s.cfg.Handler.StoreVCRs(s.ctx, key, vcrs)
	}
	if err != nil {
		s.count.uploadsFailed.Add(1)
		return nil, nil, err
	}
	s.count.vcrs.Add(uint64(len(vcrs)))
	return m.answer(), nil, nil
}
