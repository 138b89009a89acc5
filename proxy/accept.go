package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
)

// listener is the transparent listener of one inspection class.
type listener struct {
	net.Listener
	class *class
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
			a.log.Error("connection cannot be accepted", "class", l.class.name, "err", err)
			select {
			case <-time.After(pause): // a lack of descriptors passes when calls end
				pause = min(2*pause, time.Second)
			case <-a.ctx.Done():
				return
			}
			continue
		}
		pause = 5 * time.Millisecond
		a.wg.Go(func() { a.serve(c, l.class) })
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
		a.log.Warn("connection refused: its source is no `ucm address`", "source", src.String(), "class", cl.name)
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
		a.log.Warn("connection refused: no call agent behind this address", "address", dst.String(), "source", src.String(), "class", cl.name)
		reset(c)
		return
	}
	if a.stopping.Load() {
		a.count("tls", "sessions_refused", "stopping")
		reset(c)
		return
	}
	if !a.limiter.Acquire() {
		// Before its handshake: a full appliance must not spend more on strangers.
		a.count("tls", "sessions_refused", "inbound")
		reset(c)
		return
	}
	s := &session{a: a, opener: dialog.Outside, class: cl, agent: agent, remote: src, agentPort: port, mapped: dst, since: a.now()}
	a.begin(s, c, dialog.Outside, true)
}

// begin does the handshake where the connection is TLS, and reads the connection until it ends.
func (a *Appliance) begin(s *session, c net.Conn, side dialog.Side, secure bool) {
	if secure {
		t, err := a.handshake(s, c, side)
		if err != nil {
			a.log.Info("tls handshake failed", "remote", c.RemoteAddr().String(), "side", side.String(), "err", err)
			c.Close()
			if side == dialog.Outside {
				a.limiter.Release()
			}
			return
		}
		c = t
	}
	s.rw = a.rewriter(s)
	k := newConn(c)
	_ = k.SetReadDeadline(time.Now().Add(messageTimeout))
	a.sessions.add(s)
	s.attach(k, side)
	version, suite := k.tlsNames()
	a.log.Info("signaling session begun", "session", s.id, "by", side.String(), "remote", s.remote.String(), "call_agent", s.agent.real.String(), "tls", version, "suite", suite)
	s.read(k, side)
}

// handshake does the server's part. Half-open handshakes are bounded by the gate, known peers having a share of their own.
func (a *Appliance) handshake(s *session, c net.Conn, side dialog.Side) (net.Conn, error) {
	tp := s.class.outsideTrustpoint()
	if side == dialog.Inside {
		tp = s.class.insideTrustpoint()
	}
	cfg, err := a.store.ServerConfig(tp, a.tlsPolicy(s.class))
	if err != nil {
		return nil, err
	}
	src, _ := addrPort(c.RemoteAddr())
	leave, ok := a.gate.Enter(c, src.Addr())
	if !ok {
		a.count("tls", "handshake_failures", "too_many_half_open")
		return nil, errors.New("too many half-open handshakes")
	}
	t := tls.Server(c, cfg)
	err = tlsproxy.Handshake(a.ctx, t, handshakeTimeout)
	leave(err == nil)
	if err != nil {
		a.count("tls", "handshake_failures", handshakeReason(err))
		return nil, err
	}
	return t, nil
}

// handshakeReason sorts handshake errors into the closed set of a counter.
func handshakeReason(err error) string {
	var ne net.Error
	text := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	case strings.Contains(text, "didn't provide a certificate"):
		return "no_certificate"
	case strings.Contains(text, "protocol version"), strings.Contains(text, "unsupported versions"):
		return "protocol_version"
	case strings.Contains(text, "cipher suite"):
		return "cipher_suite"
	case strings.Contains(text, "expired"), strings.Contains(text, "not yet valid"):
		return "certificate_expired"
	case strings.Contains(text, "unknown authority"):
		return "unknown_issuer"
	case strings.Contains(text, "domain"):
		return "wrong_name"
	case strings.Contains(text, "certificate"):
		return "bad_certificate"
	}
	return "other"
}

// handshakeReasons is the closed set of handshakeReason and of the gate.
var handshakeReasons = []string{
	"timeout", "no_certificate", "protocol_version", "cipher_suite", "certificate_expired", "unknown_issuer", "wrong_name",
	"bad_certificate", "too_many_half_open", "other",
}

// rewriter translates the messages of one session.
func (a *Appliance) rewriter(s *session) *sipalg.Rewriter {
	transport := "TCP"
	if s.agent.secure {
		transport = "TLS"
	}
	p := a.plan.Load()
	return &sipalg.Rewriter{
		Map: &addressMap{plan: p, statics: p.translations(), hide: s.agent.hide, remote: s.remote.Addr()}, Seal: a.sealer,
		InsideTransport: transport, SourceRemote: s.remote,
		HidePort: p.trunkPort(s.agent),
	}
}
