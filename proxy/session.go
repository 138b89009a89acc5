package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
)

// session is a signaling session: one inside and one outside connection, opened as one and ended as one.
// Many dialogs share it; requests may come from either end at any time.
type session struct {
	a      *Appliance
	id     uint64
	opener dialog.Side // the side whose connection came first
	class  *class
	agent  *callAgent
	// remote is the far end: the original destination of an outbound session, the source of an inbound one.
	remote netip.AddrPort
	// alias is the mapped address by which the call agent knows the far end off-path; invalid in-line.
	alias netip.AddrPort
	// agentPort is the port of the call agent that an inbound session leads to.
	agentPort uint16
	mapped    netip.AddrPort // how the Internet knows the call agent
	rw        *sipalg.Rewriter
	since     time.Time
	// ours is set where the appliance opened the session by itself, to tell an end that its call is over.
	ours bool

	opening sync.Mutex // one attempt to open the other side at a time; never held with mu
	mu      sync.Mutex // guards what follows
	conns   [2]*conn
	ended   bool
	failed  []time.Time // ticket failures within the window
	calls   int         // calls opened on it that stand
	welcome bool        // a valid ticket was shown on it
}

// Errors of opening the other side; each becomes a 503 with its own Reason.
var (
	errLimit       = errors.New("tls-proxy maximum-sessions reached")
	errWrongDomain = errors.New("the certificate does not hold the domain")
	errEnded       = errors.New("the signaling session has ended")
)

// conn gives the connection of a side while it is open, else nil.
func (s *session) conn(side dialog.Side) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.conns[side]; k.open() && !s.ended {
		return k
	}
	return nil
}

// holds tells whether the certificate of the outside connection holds the domain (RFC 5922).
func (s *session) holds(domain string) bool {
	k := s.conn(dialog.Outside)
	if k == nil {
		return false
	}
	d, err := tlsproxy.ParseDomain(domain)
	return err == nil && slices.Contains(k.domains, d)
}

// attach makes a connection part of the session and starts its two goroutines.
func (s *session) attach(k *conn, side dialog.Side) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		k.Close()
		return false
	}
	s.conns[side], k.trace = k, &s.a.trace
	s.mu.Unlock()
	s.a.wg.Go(k.write)
	return true
}

// ensure gives the connection of a side, opening it when needed. Towards the Internet the server's
// certificate must hold the domain, also when the connection stands already.
func (s *session) ensure(side dialog.Side, domain string) (*conn, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if k := s.conn(side); k != nil {
		if side == dialog.Outside && !s.holds(domain) {
			return nil, fmt.Errorf("%w %q", errWrongDomain, domain)
		}
		return k, nil
	}
	s.mu.Lock()
	ended := s.ended || s.conns[side] != nil // one that is closed ends the session: a second one would be counted, and never uncounted
	s.mu.Unlock()
	if ended {
		return nil, errEnded
	}
	ctx, cancel := context.WithTimeout(s.a.ctx, openTimeout)
	defer cancel()
	var k *conn
	var err error
	if side == dialog.Outside {
		k, err = s.dialOutside(ctx, domain)
	} else {
		k, err = s.dialInside(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !s.attach(k, side) {
		if side == dialog.Outside {
			s.a.limiter.Release()
		}
		return nil, errEnded
	}
	// The first-message deadline is for strangers: this end was called by us.
	k.first = true
	s.a.trace.Event(trace.Signaling, "", s.remote.Addr().String(), "session %d: connection to %s opened, %s -> %s %s %s", s.id, side, k.LocalAddr(), k.RemoteAddr(), k.version, k.suite)
	s.a.wg.Go(func() { s.read(k, side) })
	return k, nil
}

func (s *session) dialOutside(ctx context.Context, domain string) (*conn, error) {
	if !s.a.acquire() {
		s.a.count("tls", "sessions_refused", "outbound")
		return nil, errLimit
	}
	k, err := s.dialTLS(ctx, domain)
	if err != nil {
		s.a.limiter.Release()
		return nil, err
	}
	return k, nil
}

// source is the address that the session's outside connection comes from.
func (s *session) source() netip.Addr {
	if s.agent.source.IsValid() {
		return s.agent.source
	}
	return s.mapped.Addr()
}

func (s *session) dialTLS(ctx context.Context, domain string) (*conn, error) {
	cfg, err := s.a.store.ClientConfig(s.class.outsideTrustpoint(), domain, s.a.tlsPolicy(s.class, true))
	if err != nil {
		return nil, err
	}
	raw, err := tlsproxy.DialTransparent(ctx, netip.AddrPortFrom(s.source(), 0), s.remote, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.remote, err)
	}
	out := newOutbox(raw)
	t := tls.Client(out, cfg)
	if err := tlsproxy.Handshake(ctx, t, openTimeout); err != nil {
		s.a.handshakeFailed(err)
		return nil, fmt.Errorf("%s: %w", s.remote, err)
	}
	return newConn(t, out), nil
}

// dialInside connects to the call agent in the remote's own name, so that the call agent sees the far enterprise's address and port as it
// would without the appliance: it may send requests back over the connection because a Contact names just these. Off-path, where that
// address leads elsewhere, `nat (outside,inside) dynamic` gives another.
func (s *session) dialInside(ctx context.Context) (*conn, error) {
	to, from := netip.AddrPortFrom(s.agent.real, s.agentPort), s.remote
	if a := s.a.plan.Load().hidesOutside(from.Addr()); a.IsValid() {
		from = netip.AddrPortFrom(a, 0)
	}
	raw, err := tlsproxy.DialTransparent(ctx, from, to, 0)
	if err != nil {
		s.a.agentDown(s.agent, err)
		return nil, fmt.Errorf("connect to call agent %s: %w", to, err)
	}
	out := newOutbox(raw)
	if !s.agent.secure {
		s.a.agentUp(s.agent)
		return newConn(out, out), nil
	}
	policy := s.a.tlsPolicy(s.class, true)
	// A call agent is known by its address and its authority; its certificate need not hold a SIP domain.
	policy.AnyName = true
	cfg, err := s.a.store.ClientConfig(s.class.insideTrustpoint(), "", policy)
	if err != nil {
		raw.Close()
		return nil, err
	}
	t := tls.Client(out, cfg)
	if err := tlsproxy.Handshake(ctx, t, openTimeout); err != nil {
		s.a.handshakeFailed(err)
		s.a.agentDown(s.agent, err)
		return nil, fmt.Errorf("call agent %s: %w", to, err)
	}
	s.a.agentUp(s.agent)
	return newConn(t, out), nil
}

// read moves the messages of one connection until it ends; the other ends with it.
func (s *session) read(k *conn, side dialog.Side) {
	why := "a defect of this software"
	defer func() {
		// What one sender has found must not end the calls of all others.
		if p := recover(); p != nil {
			s.a.log.Error("a message cannot be dealt with: this is a defect, please report it", "session", s.id, "side", side.String(), "remote", s.remote.String(),
				"panic", observe.Clean(fmt.Sprint(p)), "stack", string(debug.Stack()))
		}
		s.end(why)
	}()
	why = s.readAll(k, side)
}

func (s *session) readAll(k *conn, side dialog.Side) string {
	defer k.letGo()
	for {
		f, err := k.next()
		if err != nil {
			var v *sipalg.Violation
			if !errors.As(err, &v) {
				return endReason(err, side)
			}
			s.violation(k, v)
			if v.Close {
				return "malformed message from " + side.String()
			}
			continue
		}
		switch f.Kind {
		case sipalg.KindPing:
			s.a.count("sip", "keepalives", "")
			k.send([]byte("\r\n"))
			continue
		case sipalg.KindPong:
			k.pinged.Store(0)
			k.ponged.Store(true)
			continue
		}
		s.mu.Lock()
		both := s.conns
		s.mu.Unlock()
		k.hold(both)
		m, v := f.Parse()
		if v == nil {
			v = sipalg.Check(m)
		}
		if v != nil {
			s.violation(k, v)
			if v.Close {
				return "malformed message from " + side.String()
			}
			continue
		}
		if !s.handle(m, side) {
			return "too many requests without a valid ticket"
		}
	}
}

func endReason(err error, side dialog.Side) string {
	var ne net.Error
	switch {
	case errors.Is(err, io.EOF):
		return "closed by " + side.String()
	case errors.As(err, &ne) && ne.Timeout():
		return "no whole message from " + side.String() + " in time"
	}
	return "connection of " + side.String() + " failed: " + err.Error()
}

// violation answers and counts a message that goes no further.
func (s *session) violation(k *conn, v *sipalg.Violation) {
	s.a.count("sip", "messages_refused", string(v.Cause))
	if s.conn(dialog.Outside) == k {
		s.a.offence(s.remote.Addr(), string(v.Cause))
	}
	log := s.a.log
	if v.Message != nil && v.Message.CallID() != "" {
		log = observe.WithCall(log, v.Message.CallID())
	}
	log.Warn("message refused", "event", "message_refused", "cause", string(v.Cause), "phrase", v.Phrase, "from", k.RemoteAddr().String(), "session", s.id)
	id := ""
	if v.Message != nil {
		id = v.Message.CallID()
	}
	s.a.trace.Event(trace.Signaling, id, "", "session %d: message from %s refused: %s (%s)", s.id, k.RemoteAddr(), v.Phrase, v.Cause)
	if v.Status == 0 || v.Message == nil || !v.Message.IsRequest() || v.Message.Method == "ACK" {
		return
	}
	k.sendMessage(sipalg.NewResponse(v.Message, v.Status, v.Phrase))
}

// end closes both connections and frees the session. Its calls live on: they go over the next
// connection of the same two ends.
func (s *session) end(why string) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	conns := s.conns
	s.mu.Unlock()
	for _, k := range conns {
		if k != nil {
			k.shut()
		}
	}
	if conns[dialog.Outside] != nil {
		s.a.limiter.Release()
	}
	s.a.sessions.remove(s)
	s.a.trace.Event(trace.Signaling, "", s.remote.Addr().String(), "session %d with %s ended: %s", s.id, s.remote, why)
	s.a.log.Info("signaling session ended", "session", s.id, "remote", s.remote.String(), "reason", why)
}

// sessions is the table of signaling sessions.
type sessions struct {
	mu   sync.Mutex
	all  map[*session]struct{}
	most int
	next uint64
}

func newSessions() *sessions { return &sessions{all: make(map[*session]struct{})} }

func (t *sessions) add(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	s.id = t.next
	t.all[s] = struct{}{}
	t.most = max(t.most, len(t.all))
}

func (t *sessions) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, s)
}

func (t *sessions) snapshot() (list []*session, most int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.all {
		list = append(list, s)
	}
	return list, t.most
}

// between finds a session of the same two ends whose connection to a side stands, for a message whose own session is gone. Several
// enterprises may share an address: on the Internet the certificate must hold the call's domain.
func (t *sessions) between(agent *callAgent, remote netip.Addr, domain string, side dialog.Side) *session {
	list, _ := t.snapshot()
	for _, s := range list {
		if s.agent.real == agent.real && s.remote.Addr() == remote && s.conn(side) != nil && (side == dialog.Inside || s.holds(domain)) {
			return s
		}
	}
	return nil
}
