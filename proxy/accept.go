package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
)

// listener is the transparent listener of one inspection class. It outlives configurations in which that class stays, so that a
// reload resets no connection that waits to be accepted.
type listener struct {
	net.Listener
	class *class
	live  *atomic.Pointer[class] // the class in force, which the accepting goroutine asks
}

// accept takes connections until the listener is closed. Transient failures (no descriptor left) are waited
// out by the listener's own back-off; nothing else ends it.
func (a *Appliance) accept(l *listener) {
	pause := 5 * time.Millisecond
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || a.ctx.Err() != nil {
				return
			}
			a.log.Error("connection cannot be accepted", "class", l.live.Load().name, "err", err)
			select {
			case <-time.After(pause): // a lack of descriptors passes when calls end
				pause = min(2*pause, time.Second)
			case <-a.ctx.Done():
				return
			}
			continue
		}
		pause = 5 * time.Millisecond
		cl := l.live.Load()
		a.wg.Go(func() { a.serve(c, cl) })
	}
}

// serve makes a signaling session of an intercepted connection and reads it.
func (a *Appliance) serve(c net.Conn, cl *class) {
	src, ok1 := addrPort(c.RemoteAddr())
	dst, ok2 := addrPort(c.LocalAddr())
	if !ok1 || !ok2 {
		c.Close()
		return
	}
	if cl.outbound {
		a.serveOutbound(c, cl, src, dst)
		return
	}
	a.serveInbound(c, cl, src, dst)
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// reset ends a connection with RST: a refused caller learns it at once, and nothing lingers.
func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if o, ok := c.(*outbox); ok {
		c = o.Conn
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}

func (a *Appliance) serveOutbound(c net.Conn, cl *class, src, dst netip.AddrPort) {
	p := a.plan.Load()
	agent := p.agents[src.Addr()]
	if agent == nil {
		a.count("tls", "connections_refused", "not_a_call_agent")
		a.trace.Event(trace.Signaling, "", src.Addr().String(), "connection from %s refused: it is no ucm address", src)
		a.log.Warn("connection refused: its source is no `ucm address`", "event", "not_a_call_agent", "source", src.String(), "class", cl.name)
		reset(c)
		return
	}
	s := &session{a: a, opener: dialog.Inside, class: cl, agent: agent, remote: dst, agentPort: p.agentPort(agent), since: a.now()}
	s.mapped = netip.AddrPortFrom(agent.hide, p.trunkPort(agent))
	a.begin(s, c, dialog.Inside, agent.secure)
}

func (a *Appliance) serveInbound(c net.Conn, cl *class, src, dst netip.AddrPort) {
	p := a.plan.Load()
	real, port, ok := p.realOf(dst)
	agent := p.agents[real]
	if !ok || agent == nil {
		a.count("tls", "connections_refused", "not_a_call_agent")
		a.trace.Event(trace.Signaling, "", src.Addr().String(), "connection from %s refused: no call agent behind %s", src, dst)
		a.log.Warn("connection refused: no call agent behind this address", "event", "no_call_agent_there", "address", dst.String(), "source", src.String(), "class", cl.name)
		reset(c)
		return
	}
	if a.limiter.Full() {
		a.makeRoom()
	}
	if a.limiter.Full() {
		// Before its handshake: a full appliance must not spend more on strangers.
		a.refuseInbound(c, src)
		return
	}
	s := &session{a: a, opener: dialog.Outside, class: cl, agent: agent, remote: src, agentPort: port, mapped: dst, since: a.now()}
	a.begin(s, c, dialog.Outside, true)
}

// refuseInbound turns a connection from the Internet away because the appliance has as many as it may have.
func (a *Appliance) refuseInbound(c net.Conn, src netip.AddrPort) {
	a.count("tls", "sessions_refused", "inbound")
	a.trace.Event(trace.Signaling, "", src.Addr().String(), "connection from %s refused: tls-proxy maximum-sessions %d is reached", src, a.limiter.Max())
	a.log.Warn("connection refused: tls-proxy maximum-sessions is reached", "event", "too_many_sessions", "source", src.String(), "maximum", a.limiter.Max())
	reset(c)
}

// begin does the handshake where the connection is TLS, and reads the connection until it ends.
func (a *Appliance) begin(s *session, raw net.Conn, side dialog.Side, secure bool) {
	out := newOutbox(raw)
	var c net.Conn = out
	if secure {
		t, err := a.handshake(s, out, side)
		if err != nil {
			if side == dialog.Outside {
				a.offence(s.remote.Addr(), "TLS handshake")
			}
			a.trace.Event(trace.Signaling, "", s.remote.Addr().String(), "TLS handshake with %s, %s, failed: %v", c.RemoteAddr(), side, err)
			a.log.Info("tls handshake failed", "event", "tls_handshake_failed", "remote", c.RemoteAddr().String(), "side", side.String(), "err", err)
			c.Close()
			return
		}
		// A session is counted from here on: half-open handshakes, which cost a stranger nothing, must not fill the appliance up.
		if side == dialog.Outside && !a.acquire() {
			a.refuseInbound(t, s.remote)
			return
		}
		c = t
	}
	s.rw = a.rewriter(s)
	k := newConn(c, out)
	_ = k.SetReadDeadline(time.Now().Add(messageTimeout))
	a.sessions.add(s)
	s.attach(k, side)
	if a.ctx.Err() != nil {
		s.end("shutdown")
	}
	a.trace.Event(trace.Signaling, "", s.remote.Addr().String(), "session %d begun by %s: %s -> %s %s %s", s.id, side, k.RemoteAddr(), k.LocalAddr(), k.version, k.suite)
	a.log.Info("signaling session begun", "session", s.id, "by", side.String(), "remote", s.remote.String(), "call_agent", s.agent.real.String(), "tls", k.version, "suite", k.suite)
	s.read(k, side)
}

// handshake does the server's part. Half-open handshakes are bounded by the gate, known peers having a share of their own.
func (a *Appliance) handshake(s *session, c net.Conn, side dialog.Side) (net.Conn, error) {
	tp := s.class.outsideTrustpoint()
	if side == dialog.Inside {
		tp = s.class.insideTrustpoint()
	}
	cfg, err := a.store.ServerConfig(tp, a.tlsPolicy(s.class, false))
	if err != nil {
		return nil, err
	}
	src, _ := addrPort(c.RemoteAddr())
	leave, ok := a.gate.Enter(c, src.Addr())
	if !ok {
		a.count("tls", "handshake_failures", tooManyHalfOpen)
		return nil, errors.New("too many half-open handshakes")
	}
	t := tls.Server(c, cfg)
	err = tlsproxy.Handshake(a.ctx, t, handshakeTimeout)
	leave(err == nil)
	if err != nil {
		a.handshakeFailed(err)
		return nil, err
	}
	return t, nil
}

// tooManyHalfOpen is counted among the reasons of failed handshakes: the gate turned the connection away.
const tooManyHalfOpen = "too_many_half_open"

// handshakeFailed counts a handshake that failed. The reason is that of tlsproxy, which knows the peer's certificate.
func (a *Appliance) handshakeFailed(err error) {
	reason := tlsproxy.ReasonOther
	if h := new(tlsproxy.HandshakeError); errors.As(err, &h) {
		reason = h.Reason
	}
	a.count("tls", "handshake_failures", string(reason))
}

// handshakeReasons is the closed set of reasons.
func handshakeReasons() []string {
	out := []string{tooManyHalfOpen}
	for _, r := range tlsproxy.Reasons() {
		out = append(out, string(r))
	}
	return out
}

// rewriter translates the messages of one session.
func (a *Appliance) rewriter(s *session) *sipalg.Rewriter {
	transport := "TCP"
	if s.agent.secure {
		transport = "TLS"
	}
	p := a.plan.Load()
	return &sipalg.Rewriter{
		Map: &addressMap{plan: p, statics: p.translations(), hide: s.agent.hide, remote: s.remote.Addr(), alias: s.alias, far: s.remote}, Seal: a.sealer,
		InsideTransport: transport, SourceRemote: s.remote,
		HidePort: p.trunkPort(s.agent),
	}
}
