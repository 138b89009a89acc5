package vap

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/ucime/source"
)

// conn is a client's connection to the server.
type conn struct {
	*peer
	s      *Server
	remote netip.AddrPort
	opened time.Time
	wake   chan struct{} // something may be to deliver

	// The reader's own.
	nonce    []byte
	nonceAt  time.Time
	failures int

	// Guarded by Server.mu.
	inst       *Instance
	registered bool
	leaving    bool // revoked or evicted: counts no more
	user, name string
	key        UserKey
	handle     uint32
	since      time.Time
	missed     int
	stopAlive  func() bool
	subs       map[uint32]*subscription
}

func newConn(s *Server, inst *Instance, raw net.Conn, remote netip.AddrPort) *conn {
	nc := raw
	if inst.TLS != nil {
		nc = tls.Server(raw, inst.TLS)
	}
	c := &conn{
		peer: newPeer(s.ctx, nc, raw, s.clock), s: s, remote: remote, opened: s.clock.Now(), wake: make(chan struct{}, 1),
		inst: inst, subs: map[uint32]*subscription{},
	}
	return c
}

// run serves the connection to its end.
func (c *conn) run() {
	defer c.end()
	defer c.clock.After(registerTime, func() {
		c.s.mu.Lock()
		late := !c.registered
		c.s.mu.Unlock()
		if late {
			c.s.count.unregistered.Add(1)
			c.close()
		}
	})()
	if t, ok := c.nc.(*tls.Conn); ok {
		if err := t.HandshakeContext(c.ctx); err != nil {
			c.s.count.handshakes.Add(1)
			c.s.log.Info("vap: no TLS session", "event", "vap_tls_failed", "client", c.remote, "error", err)
			return
		}
	}
	r := bufio.NewReader(c.nc)
	for {
		m, err := c.next(r)
		if m == nil {
			if errors.Is(err, errFraming) {
				c.s.count.framing.Add(1)
				c.s.log.Warn("vap: connection closed", "event", "vap_nonsense", "client", c.remote, "error", err)
			} else if !errors.Is(err, io.EOF) && c.ctx.Err() == nil {
				c.s.log.Info("vap: connection lost", "event", "vap_lost", "client", c.remote, "error", err)
			}
			return
		}
		if !c.take(m, err) {
			return
		}
	}
}

// take handles one message; err is what was wrong with its attributes. False ends the connection.
func (c *conn) take(m *message, err error) bool {
	if c.in.key == nil {
		return c.takePlain(m, err)
	}
	if !c.in.open(m) {
		c.s.count.integrity.Add(1)
		c.s.log.Warn("vap: integrity check failed", "event", "vap_integrity_failed", "client", c.remote, "user", c.user)
		if m.class == Request {
			_ = c.send(m.refuse(&Error{Code: CodeIntegrity}))
		}
		return false
	}
	if m.class != Request {
		if err != nil || !c.answered(m) {
			c.s.count.framing.Add(1)
			return false
		}
		return true
	}
	answer, then, err := c.request(m, err)
	if err != nil {
		c.s.count.refused.Add(1)
		if codeOf(err) == 0 {
			c.s.log.Error("vap: request failed", "client", c.remote, "user", c.user, "method", m.method, "error", err)
		}
		answer = m.refuse(err)
	}
	if c.send(answer) != nil {
		return false
	}
	if then != nil {
		then()
	}
	return err != nil || m.method != Unregister
}

// takePlain handles what comes before registration.
func (c *conn) takePlain(m *message, err error) bool {
	if m.class != Request {
		c.s.count.framing.Add(1)
		return false
	}
	switch {
	case m.method != Register:
		err = &Error{Code: CodeUnregistered}
	case err == nil:
		if err = m.acceptable(attrUsername, attrClientName, attrVersion); err == nil && m.get(attrVersion)[1] != 1 || err == nil && m.get(attrVersion)[0] != 0 {
			err = &Error{Code: CodeUnsupportedVersion}
		}
	}
	switch {
	case err != nil:
		return c.send(m.refuse(err)) == nil
	case m.signed == 0:
		return c.challenge(m, CodeUnauthorized)
	}
	if m.need(attrRealm, attrNonce, attrClientNonce, attrSequence) != nil {
		return c.send(m.refuse(&Error{Code: CodeNonceRequired})) == nil
	}
	if c.nonce == nil || string(c.nonce) != m.text(attrNonce) || c.clock.Now().Sub(c.nonceAt) > nonceTime {
		return c.challenge(m, CodeStaleNonce)
	}
	return c.register(m)
}

// acceptable reports unknown and missing attributes.
func (m *message) acceptable(types ...uint16) error {
	if len(m.unknown) > 0 {
		return &Error{Code: CodeUnknownAttribute}
	}
	return m.need(types...)
}

func (c *conn) challenge(m *message, code Code) bool {
	c.nonce, c.nonceAt = random(nonceLen), c.clock.Now()
	return c.send(m.refuse(&Error{Code: code}).put(attrRealm, []byte(realm)).put(attrNonce, c.nonce)) == nil
}

// register judges the proof of a password. A nonce is good for one.
func (c *conn) register(m *message) bool {
	nonce := c.nonce
	c.nonce = nil
	user := m.text(attrUsername)
	c.s.mu.Lock()
	credentials := c.inst.Credentials
	c.s.mu.Unlock()
	key, known := credentials.UserKey(user)
	if !known {
		key = c.s.dummy
	}
	fromClient, fromServer := sessionKeys(key, nonce, m.get(attrClientNonce))
	in := opener{key: fromClient}
	if !in.open(m) || !known {
		c.s.count.authentication.Add(1)
		c.s.log.Warn("vap: authentication failed", "event", "vap_login_failed", "client", c.remote, "user", user)
		c.s.mu.Lock()
		c.s.sources.failed(source.Of(c.remote.Addr()), c.clock.Now())
		c.s.mu.Unlock()
		c.failures++
		return c.send(m.refuse(&Error{Code: CodeIntegrity})) == nil && c.failures < maxFailures
	}
	c.in = in
	c.sealWith(fromServer)
	inst, err := c.s.admit(c, user, m.text(attrClientName), key)
	if err != nil {
		_ = c.send(m.refuse(err))
		return false
	}
	answer := m.answer().putU32(attrClientHandle, c.handle).putU32(attrKeepalive, uint32(inst.Keepalive/time.Second)).
		putU32(attrPageSize, PageSize).put(attrVersion, protocolVersion)
	if c.send(answer) != nil {
		return false
	}
	c.s.log.Info("vap: client registered", "client", c.remote, "server", inst.Name, "user", user, "name", c.name, "handle", c.handle)
	c.tasks.Go(c.deliver)
	return true
}

// admit registers a client whose password was right. One of the same user and name gives way to it.
func (s *Server) admit(c *conn, user, name string, key UserKey) (Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.leaving {
		return *c.inst, fail(CodeResponder, "the server stops")
	}
	var same *conn
	living := 0
	for o := range s.conns {
		switch {
		case !o.registered || o.leaving:
		case o.user == user && o.name == name:
			same = o
		case o.inst == c.inst:
			living++
		}
	}
	if living >= c.inst.MaxConnections {
		s.count.tooMany.Add(1)
		return *c.inst, &Error{Code: CodeTooManyConnections}
	}
	if same != nil {
		s.count.replaced.Add(1)
		same.revoke(CodeAlreadyRegistered, "another connection took this one's place")
	}
	s.count.registrations.Add(1)
	s.handle++
	c.registered, c.user, c.name, c.key, c.handle, c.since = true, user, name, key, s.handle, c.clock.Now()
	c.watch(c.rcvd.Load())
	return *c.inst, nil
}

// watch looks after an interval and a half whether anything came since seen; with Server.mu held.
func (c *conn) watch(seen uint64) {
	c.stopAlive = c.clock.After(c.inst.Keepalive*3/2, func() {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		if c.ctx.Err() != nil {
			return
		}
		now := c.rcvd.Load()
		if now != seen {
			c.missed = 0
		} else {
			c.missed++
			c.s.count.missed.Add(1)
		}
		if c.missed >= maxMissed {
			c.s.count.silent.Add(1)
			c.s.log.Warn("vap: client is silent", "client", c.remote, "user", c.user, "missed", c.missed)
			c.close()
			return
		}
		c.watch(now)
	})
}

// request does what an authentic request of a registered client asks; then runs when the answer is sent.
func (c *conn) request(m *message, err error) (answer *message, then func(), _ error) {
	if err != nil {
		return nil, nil, err
	}
	if len(m.unknown) > 0 {
		return nil, nil, &Error{Code: CodeUnknownAttribute}
	}
	do := map[Method]func(*conn, *message) (*message, func(), error){
		Unregister: (*conn).doUnregister, Publish: (*conn).doPublish, Unpublish: (*conn).doUnpublish, Subscribe: (*conn).doSubscribe,
		Unsubscribe: (*conn).doUnsubscribe, UploadVCR: (*conn).doUpload,
		Keepalive: func(_ *conn, m *message) (*message, func(), error) { return m.answer(), nil, nil },
	}[m.method]
	switch {
	case m.method == Register:
		return nil, nil, &Error{Code: CodeAlreadyRegistered}
	case do == nil:
		return nil, nil, &Error{Code: CodeNotImplemented}
	case m.get(attrClientHandle) == nil:
		return nil, nil, m.need(attrClientHandle)
	case m.u32(attrClientHandle) != c.handle:
		return nil, nil, &Error{Code: CodeBadHandle}
	}
	return do(c, m)
}

// revoke ends a registration from the server's side, with Server.mu held.
func (c *conn) revoke(code Code, reason string) {
	if c.leaving {
		return
	}
	c.leaving = true
	if !c.registered {
		c.close()
		return
	}
	m := &message{method: RegisterRevoke}
	m.putU32(attrClientHandle, c.handle)
	m.put(attrErrorCode, m.refuse(&Error{Code: code, Reason: reason}).get(attrErrorCode))
	c.tasks.Go(func() {
		defer c.close()
		defer c.clock.After(revokeTime, c.close)()
		_, _ = c.call(m) // gone either way
	})
}

// nudge tells deliver to look.
func (c *conn) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// end takes the connection out of the server.
func (c *conn) end() {
	c.finish()
	c.s.mu.Lock()
	if c.stopAlive != nil {
		c.stopAlive()
	}
	delete(c.s.conns, c)
	for id := range c.subs {
		c.unsubscribe(id)
	}
	registered := c.registered
	c.s.mu.Unlock()
	c.tasks.Wait()
	if registered {
		c.s.hold(c)
		c.s.log.Info("vap: client gone", "client", c.remote, "user", c.user, "name", c.name, "handle", c.handle)
	}
}

// peer is what both ends have in common: a connection that seals what it sends, opens what it gets, and waits for answers.
type peer struct {
	nc, raw    net.Conn // nc is raw, or TLS over it
	clock      Clock
	ctx        context.Context
	cancel     context.CancelFunc
	tasks      sync.WaitGroup
	in         opener // the reader's own
	sent, rcvd atomic.Uint64

	wmu sync.Mutex // one message at a time; held while it is written, so that its number is its place
	out sealer

	cmu   sync.Mutex // guards calls
	calls map[[12]byte]chan *message
}

func newPeer(ctx context.Context, nc, raw net.Conn, clock Clock) *peer {
	p := &peer{nc: nc, raw: raw, clock: clock, calls: map[[12]byte]chan *message{}}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// close makes the reader and all waiting calls end. It does not block.
func (p *peer) close() {
	p.cancel()
	_ = p.raw.Close()
}

// finish closes in good order where that is still possible.
func (p *peer) finish() {
	p.cancel()
	_ = p.nc.Close()
	_ = p.raw.Close()
}

// next reads a message; m is nil when the connection is of no more use, else err is what is wrong with m's attributes.
func (p *peer) next(r *bufio.Reader) (*message, error) {
	limit := maxBody
	if p.in.key == nil {
		limit = maxBodyBefore
	}
	var stop func() bool
	frame, err := readFrame(r, limit, func() { stop = p.clock.After(messageTime, p.close) })
	if stop != nil {
		stop()
	}
	if err != nil {
		return nil, err
	}
	p.rcvd.Add(1)
	m, err := parse(frame)
	if errors.Is(err, errFraming) {
		return nil, err
	}
	return m, err
}

func (p *peer) sealWith(key []byte) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	p.out = sealer{key: key}
}

// send writes a message. After an error the connection is of no more use.
func (p *peer) send(m *message) error {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	b, err := p.out.seal(m)
	if err != nil {
		return err
	}
	defer p.clock.After(writeTime, p.close)()
	if _, err := p.nc.Write(b); err != nil {
		p.close()
		return err
	}
	p.sent.Add(1)
	return nil
}

// begin sends a request; its answer comes on the channel.
func (p *peer) begin(m *message) (<-chan *message, error) {
	m.class = Request
	m.id = [12]byte(random(12))
	ch := make(chan *message, 1)
	p.cmu.Lock()
	p.calls[m.id] = ch
	p.cmu.Unlock()
	if err := p.send(m); err != nil {
		p.cmu.Lock()
		delete(p.calls, m.id)
		p.cmu.Unlock()
		return nil, err
	}
	return ch, nil
}

// await waits for an answer. The error is that of the answer, or says that the connection ended, which a late answer makes it do.
func (p *peer) await(ch <-chan *message) (*message, error) {
	defer p.clock.After(answerTime, p.close)()
	select {
	case a := <-ch:
		return a, a.err()
	case <-p.ctx.Done():
		select { // the answer may have been the last thing to come
		case a := <-ch:
			return a, a.err()
		default:
			return nil, errLost
		}
	}
}

// errLost is the end of a connection while an answer was waited for.
var errLost = errors.New("the connection ended")

func (p *peer) call(m *message) (*message, error) {
	ch, err := p.begin(m)
	if err != nil {
		return nil, err
	}
	return p.await(ch)
}

// answered gives an answer to who waits for it; false when nobody does.
func (p *peer) answered(m *message) bool {
	p.cmu.Lock()
	defer p.cmu.Unlock()
	ch := p.calls[m.id]
	delete(p.calls, m.id)
	if ch == nil {
		return false
	}
	ch <- m
	return true
}
