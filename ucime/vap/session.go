package vap

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// session is a client's connection. It has four goroutines: the reader (run), one that answers the server's requests in order (serve), one
// that makes the server's state that of the offers (sync), and one that keeps it alive.
type session struct {
	*peer
	c         *Client
	handle    uint32
	keepalive time.Duration
	pageSize  int
	since     time.Time
	queue     chan *message // the server's requests
	wake      chan struct{} // offers changed

	state map[ServiceID]*published // sync's own

	// Guarded by Client.mu.
	subscribed map[ServiceID]bool // or about to be
	revoked    map[ServiceID]int  // services that the server took back: rev of their offer
	ended      error              // RegisterRevoke
}

// published is what the server has of a service. Versions rise during a session.
type published struct {
	document     []byte
	pages        [][]byte
	maxDIDs      uint32 // of document
	version      uint32
	subscription uint32
	refused      map[string][]byte // by "service" or page: a document the server will never take
}

// run registers, serves to the end and returns its reason.
func (s *session) run() error {
	r := bufio.NewReader(s.nc)
	if err := s.register(r); err != nil {
		return err
	}
	c := s.c
	s.subscribed, s.revoked, s.state = map[ServiceID]bool{}, map[ServiceID]int{}, map[ServiceID]*published{}
	s.since = c.clock.Now()
	c.mu.Lock()
	c.session, c.services, c.lastErr, c.quota = s, map[ServiceID]ServiceState{}, nil, Quota{}
	c.count.Registrations++
	c.signal()
	c.mu.Unlock()
	c.log.Info("vap: registered", "server", c.cfg.Addr, "handle", s.handle)
	s.tasks.Go(s.serve)
	s.tasks.Go(s.sync)
	s.tasks.Go(s.stayAlive)
	err := s.read(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ended != nil {
		err = s.ended
	}
	c.session, c.services = nil, map[ServiceID]ServiceState{}
	c.signal()
	return err
}

// register proves the password and has the server prove it.
func (s *session) register(r *bufio.Reader) error {
	defer s.clock.After(answerTime, s.close)()
	if t, ok := s.nc.(*tls.Conn); ok {
		if err := t.HandshakeContext(s.ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrTLS, err)
		}
	}
	first := s.registration()
	a, err := s.exchange(r, first)
	if err != nil {
		return err
	}
	if a.class != Failure || codeOf(a.err()) != CodeUnauthorized || a.need(attrRealm, attrNonce) != nil {
		return fmt.Errorf("not registered, the server wants no password: %w", a.err())
	}
	clientNonce := random(nonceLen)
	toServer, fromServer := sessionKeys(s.c.key, a.get(attrNonce), clientNonce)
	s.sealWith(toServer)
	a, err = s.exchange(r, s.registration().put(attrRealm, []byte(realm)).put(attrNonce, a.get(attrNonce)).put(attrClientNonce, clientNonce))
	if err != nil {
		return err
	}
	in := opener{key: fromServer}
	if !in.open(a) {
		if a.class == Failure {
			return fmt.Errorf("not registered: %w", a.err())
		}
		return ErrStranger
	}
	if a.class == Failure {
		return fmt.Errorf("not registered: %w", a.err())
	}
	if err := a.need(attrClientHandle, attrKeepalive, attrPageSize); err != nil {
		return fmt.Errorf("not registered: %w", err)
	}
	s.in = in
	s.handle, s.keepalive = a.u32(attrClientHandle), time.Duration(a.u32(attrKeepalive))*time.Second
	s.pageSize = int(min(a.u32(attrPageSize), PageSize))
	return nil
}

func (s *session) registration() *message {
	m := &message{method: Register, id: [12]byte(random(12))}
	return m.put(attrUsername, []byte(s.c.cfg.Username)).put(attrClientName, []byte(s.c.cfg.Name)).put(attrVersion, protocolVersion)
}

// exchange is for registration alone: the answer is the next message.
func (s *session) exchange(r *bufio.Reader, m *message) (*message, error) {
	if err := s.send(m); err != nil {
		return nil, err
	}
	a, err := s.next(r)
	if err != nil {
		return nil, err
	}
	if a.class == Request || a.id != m.id || a.method != Register {
		return nil, fmt.Errorf("%w: no answer to Register", errFraming)
	}
	return a, nil
}

// request starts a request of a registered client.
func (s *session) request(method Method) *message {
	return (&message{method: method}).putU32(attrClientHandle, s.handle)
}

// read takes messages until the connection ends.
func (s *session) read(r *bufio.Reader) error {
	for {
		m, err := s.next(r)
		if m == nil {
			return err
		}
		switch {
		case !s.in.open(m):
			return errors.New("integrity check of a message of the server failed")
		case m.class != Request:
			if err != nil || !s.answered(m) {
				return fmt.Errorf("%w: answer that cannot be used", errFraming)
			}
		case err != nil:
			if err := s.send(m.refuse(err)); err != nil {
				return err
			}
		default:
			select {
			case s.queue <- m:
			default:
				return errors.New("the server sends more requests than it may")
			}
		}
	}
}

// serve answers the server's requests, one after the other.
func (s *session) serve() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case m := <-s.queue:
			answer, err := s.do(m)
			if err != nil {
				answer = m.refuse(err)
			}
			if s.send(answer) != nil {
				return
			}
			if m.method == RegisterRevoke && err == nil {
				s.finish()
				return
			}
		}
	}
}

func (s *session) do(m *message) (*message, error) {
	if len(m.unknown) > 0 {
		return nil, &Error{Code: CodeUnknownAttribute}
	}
	c := s.c
	switch m.method {
	case Notify, Withdraw:
		return s.notified(m)
	case PublishRevoke:
		if err := m.need(attrIdentity, attrRemovedReason); err != nil {
			return nil, err
		}
		id, err := m.identity(1)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		if o := c.offers[id.id]; o != nil {
			s.revoked[id.id] = o.rev
		}
		c.count.Revoked++
		c.services[id.id] = ServiceState{Err: "taken back by the server"}
		c.signal()
		c.mu.Unlock()
		c.cfg.OnRevoke(id.id, RemovedReason(m.u32(attrRemovedReason)))
		return m.answer(), nil
	case RegisterRevoke:
		if err := m.need(attrClientHandle, attrErrorCode); err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		s.ended = fmt.Errorf("registration taken back: %w", (&message{class: Failure, attrs: m.attrs}).err())
		c.count.Revoked++
		return m.answer(), nil
	}
	return nil, &Error{Code: CodeNotImplemented}
}

// notified hands a notification to the callback; the answer says what it said.
func (s *session) notified(m *message) (*message, error) {
	if err := m.need(attrSubscription, attrIdentity, attrNotification, attrServiceData); err != nil {
		return nil, err
	}
	id, err := m.identity(1)
	if err != nil {
		return nil, err
	}
	c := s.c
	c.mu.Lock()
	known := s.subscribed[id.id]
	c.count.Notifications++
	c.mu.Unlock()
	if !known {
		return nil, &Error{Code: CodeUnknownSub}
	}
	n := Notification{Service: id.id, ID: m.u64(attrNotification)}
	if err := readNotification(m.method, &n, m.get(attrServiceData)); err != nil {
		return nil, err
	}
	err = c.cfg.OnNotify(s.ctx, n)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.count.RoutesReceived += uint64(len(n.Routes))
		return m.answer().put(attrNotification, m.get(attrNotification)), nil
	case errors.Is(err, ErrForbidden):
		c.count.RoutesRejected += uint64(len(n.Routes))
		return nil, &Error{Code: CodeForbidden}
	}
	c.log.Error("vap: notification not stored", "service", n.Service, "id", n.ID, "error", err)
	return nil, &Error{Code: CodeResponder}
}

// stayAlive sends a Keepalive each interval.
func (s *session) stayAlive() {
	for s.c.pause(s.ctx, s.keepalive) == nil {
		if _, err := s.call(s.request(Keepalive)); err != nil {
			s.c.log.Warn("vap: keepalive failed", "server", s.c.cfg.Addr, "error", err)
			s.close()
		}
	}
}

func (s *session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sync publishes what is offered, after every change of it, and again after the retry interval where the server refused something for now.
func (s *session) sync() {
	for {
		select {
		case <-s.wake: // what woke us is seen by what follows
		default:
		}
		again := s.publishAll()
		var stop func() bool
		if again {
			stop = s.clock.After(s.c.cfg.RetryInterval, s.nudge)
		}
		select {
		case <-s.ctx.Done():
		case <-s.wake:
		}
		if stop != nil {
			stop()
		}
		if s.ctx.Err() != nil {
			return
		}
	}
}

// publishAll goes once over all services; true when some of it should be tried again.
func (s *session) publishAll() (again bool) {
	c := s.c
	c.mu.Lock()
	offers := c.offers
	revoked := map[ServiceID]bool{}
	for id, rev := range s.revoked {
		delete(s.state, id) // the server has nothing of it any more; its subscription stands
		if o := offers[id]; o != nil && o.rev == rev {
			revoked[id] = true
		} else {
			delete(s.revoked, id)
		}
	}
	c.mu.Unlock()
	for id := range s.state {
		if offers[id] == nil {
			s.withdraw(id)
		}
	}
	for id, o := range offers {
		if revoked[id] {
			continue
		}
		err := s.publish(id, o)
		if err != nil {
			again = again || !never(err)
			if s.ctx.Err() == nil {
				c.log.Warn("vap: service not published as offered", "service", id, "name", o.Service.Name, "error", err)
			}
		}
		s.report(id, o, err)
	}
	return again
}

// never reports whether a refusal is for good.
func never(err error) bool {
	switch codeOf(err) {
	case CodeBadRequest, CodeTooLarge, CodeUnknownAttribute, CodeInvalidIdentity, CodeNotImplemented:
		return true
	}
	return false
}

// report makes a service's state known, unless it was taken back meanwhile.
func (s *session) report(id ServiceID, o *offer, err error) {
	st := s.state[id]
	if st == nil || s.ctx.Err() != nil {
		return
	}
	var patterns, exclude []Pattern
	for i, p := range o.split(s.pageSize) {
		if i < len(st.pages) && bytes.Equal(st.pages[i], p.document()) {
			patterns, exclude = append(patterns, p.patterns...), append(exclude, p.exclude...)
		}
	}
	state := ServiceState{Published: st.document != nil, Numbers: NewNumbers(patterns, exclude).Count(), Complete: err == nil}
	if err != nil {
		state.Err, state.Code = err.Error(), codeOf(err)
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if _, taken := s.revoked[id]; taken || s.c.session != s {
		return
	}
	if now := s.c.offers[id]; now != o { // another was made meanwhile, which is still to be published
		state.Complete = false
	}
	if s.c.services[id] != state {
		s.c.services[id] = state
		close(s.c.changed) // signal would wake sync for its own news
		s.c.changed = make(chan struct{})
	}
}

// split gives the pages of an offer's numbers.
func (o *offer) split(size int) (pages []page) {
	patterns, exclude := o.Patterns, o.Exclude
	for len(patterns)+len(exclude) > 0 {
		n := min(len(patterns), size)
		x := min(len(exclude), size-n)
		pages = append(pages, page{patterns[:n], exclude[:x]})
		patterns, exclude = patterns[n:], exclude[x:]
	}
	return pages
}

// publish makes one service as offered. The first refusal is returned; what does not depend on it is done all the same.
func (s *session) publish(id ServiceID, o *offer) error {
	st := s.state[id]
	if st == nil {
		st = &published{refused: map[string][]byte{}}
		s.state[id] = st
	}
	var docs [][]byte
	for _, p := range o.split(s.pageSize) {
		docs = append(docs, p.document())
	}
	itself := identity{serviceItself, 0, id}
	fewer := st.document != nil && o.Service.MaxDIDs < st.maxDIDs
	var failed error
	note := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	if st.document == nil { // nothing goes without it
		if err := s.put(st, "service", itself, &st.document, o.document); err != nil {
			return err
		}
	}
	for n := len(st.pages) - 1; n >= len(docs); n-- { // less first, for the quota's sake
		m := s.request(Unpublish).put(attrIdentity, identity{serviceNumbers, uint16(n), id}.bytes())
		if _, err := s.call(m); err != nil && codeOf(err) != CodeUnknownService {
			return err
		}
		st.pages = st.pages[:n]
	}
	if !fewer {
		note(s.put(st, "service", itself, &st.document, o.document))
	}
	for n, doc := range docs {
		if n == len(st.pages) {
			st.pages = append(st.pages, nil)
		}
		note(s.put(st, fmt.Sprint("page ", n), identity{serviceNumbers, uint16(n), id}, &st.pages[n], doc))
	}
	if fewer { // the server takes a lower didcount once the numbers are fewer
		note(s.put(st, "service", itself, &st.document, o.document))
	}
	if failed == nil {
		st.maxDIDs = o.Service.MaxDIDs
	}
	if st.subscription == 0 {
		note(s.subscribe(st, id))
	}
	return failed
}

// put publishes a document where the server has another one, and notes that it has it.
func (s *session) put(st *published, what string, id identity, have *[]byte, want []byte) error {
	if bytes.Equal(*have, want) {
		return nil
	}
	if bytes.Equal(st.refused[what], want) {
		return &Error{Code: CodeBadRequest, Reason: what + " was refused"}
	}
	st.version++
	m := s.request(Publish).put(attrIdentity, id.bytes()).put(attrServiceVersion, binary.BigEndian.AppendUint32(nil, st.version)).put(attrServiceData, want)
	a, err := s.call(m)
	if a != nil {
		s.told(a)
	}
	if err != nil {
		if never(err) {
			st.refused[what] = want
		}
		return err
	}
	delete(st.refused, what)
	*have = want
	return nil
}

// told takes the quota out of an answer.
func (s *session) told(a *message) {
	v := a.get(attrQuota)
	if v == nil {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.quota = Quota{binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:])}
}

func (s *session) subscribe(st *published, id ServiceID) error {
	s.c.mu.Lock()
	s.subscribed[id] = true // before the answer: a notification may come right behind it
	s.c.mu.Unlock()
	a, err := s.call(s.request(Subscribe).put(attrIdentity, identity{serviceNumbers, 0, id}.bytes()))
	if err != nil {
		return err
	}
	st.subscription = a.u32(attrSubscription)
	return nil
}

// withdraw takes a service off the server.
func (s *session) withdraw(id ServiceID) {
	st := s.state[id]
	delete(s.state, id)
	s.c.mu.Lock()
	delete(s.c.services, id)
	delete(s.subscribed, id)
	s.c.mu.Unlock()
	if st.document != nil {
		if _, err := s.call(s.request(Unpublish).put(attrIdentity, identity{serviceItself, 0, id}.bytes())); err != nil {
			s.c.log.Warn("vap: service not withdrawn", "service", id, "error", err)
		}
	}
	if st.subscription != 0 {
		if _, err := s.call(s.request(Unsubscribe).putU32(attrSubscription, st.subscription)); err != nil {
			s.c.log.Warn("vap: subscription not ended", "service", id, "error", err)
		}
	}
}
