package testbed

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Stub is a SIP element that a test plays by hand: the call agent, or a peer
// on the Internet. What arrives on any of its connections goes to one inbox,
// from which Expect takes. Its methods may be called from several goroutines.
type Stub struct {
	Name      string
	Host      *Host
	Addr      netip.AddrPort // where it listens, and what it writes in Via and Contact
	Transport string         // TCP or TLS
	// OnMessage, when set before the first connection, is called with each
	// message as it comes; true keeps it out of the inbox.
	OnMessage func(*StubMessage) bool

	mu     sync.Mutex
	inbox  []*StubMessage
	all    []*StubMessage
	conns  []*StubConn
	sent   map[string]*StubMessage // requests by branch and method
	faults []string
	ln     net.Listener
}

// StubConn is one connection of a Stub.
type StubConn struct {
	net.Conn
	stub *Stub

	mu     sync.Mutex
	raw    []byte
	closed error // why reading ended; nil while it stands
}

func newStub(name string, h *Host, addr netip.AddrPort, transport string) *Stub {
	return &Stub{Name: name, Host: h, Addr: addr, Transport: transport, sent: make(map[string]*StubMessage)}
}

// Listen accepts connections at the stub's address; with cfg as TLS server.
func (s *Stub) Listen(t T, cfg *tls.Config) {
	t.Helper()
	ln, err := s.Host.Listen(s.Addr.String())
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	s.mu.Lock()
	s.ln = ln
	s.mu.Unlock()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if cfg != nil {
				c = tls.Server(c, cfg)
			}
			s.take(c)
		}
	}()
}

// StopListening refuses further connections; those that stand are kept.
func (s *Stub) StopListening() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		s.ln.Close()
		s.ln = nil
	}
}

// Close ends the listener and every connection.
func (s *Stub) Close() {
	s.StopListening()
	for _, c := range s.Conns() {
		c.Close()
	}
}

// Dial opens a connection from the stub's address, any port; with cfg as TLS client.
func (s *Stub) Dial(t T, to netip.AddrPort, cfg *tls.Config) *StubConn {
	t.Helper()
	c, err := s.TryDial(to, cfg)
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	return c
}

// TryDial is Dial that returns its error.
func (s *Stub) TryDial(to netip.AddrPort, cfg *tls.Config) (*StubConn, error) {
	c, err := s.Host.Dial("tcp", s.Addr.Addr().String(), to.String(), 5*time.Second)
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		t := tls.Client(c, cfg)
		t.SetDeadline(time.Now().Add(5 * time.Second))
		if err := t.Handshake(); err != nil {
			c.Close()
			return nil, err
		}
		t.SetDeadline(time.Time{})
		c = t
	}
	return s.take(c), nil
}

func (s *Stub) take(c net.Conn) *StubConn {
	k := &StubConn{Conn: c, stub: s}
	s.mu.Lock()
	s.conns = append(s.conns, k)
	s.mu.Unlock()
	go k.read()
	return k
}

// Conns are all connections so far, ended ones too.
func (s *Stub) Conns() []*StubConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*StubConn(nil), s.conns...)
}

// Open are the connections that stand.
func (s *Stub) Open() []*StubConn {
	var out []*StubConn
	for _, c := range s.Conns() {
		if c.Ended() == nil {
			out = append(out, c)
		}
	}
	return out
}

// Ended tells why the far end is gone: io.EOF, a reset; nil while the connection stands.
func (k *StubConn) Ended() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.closed
}

// RawBytes is everything that has come on the connection.
func (k *StubConn) RawBytes() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]byte(nil), k.raw...)
}

// WaitEnd waits until the far end has closed the connection.
func (k *StubConn) WaitEnd(t T, limit time.Duration) {
	t.Helper()
	Until(t, limit, "connection of "+k.stub.Name+" ended by the far end", func() bool { return k.Ended() != nil })
}

// Reset ends the connection with RST.
func (k *StubConn) Reset() {
	c := k.Conn
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// SendRaw writes bytes as they are.
func (k *StubConn) SendRaw(t T, b []byte) {
	t.Helper()
	k.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if _, err := k.Write(b); err != nil {
		t.Fatalf("%s: write: %v", k.stub.Name, err)
	}
}

// Send writes a message and remembers a request, whose responses must come
// back with exactly what was written.
func (k *StubConn) Send(t T, m *StubMessage) *StubMessage {
	t.Helper()
	k.stub.remember(m)
	k.SendRaw(t, m.Bytes())
	return m
}

func (s *Stub) remember(m *StubMessage) {
	if m.Method() == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[m.Branch()+" "+m.Method()] = m.Clone()
}

func (k *StubConn) read() {
	var pending []byte
	buf := make([]byte, 65536)
	for {
		n, err := k.Read(buf)
		k.mu.Lock()
		k.raw = append(k.raw, buf[:n]...)
		k.mu.Unlock()
		pending = append(pending, buf[:n]...)
		for {
			m, rest := nextStub(pending)
			if m == nil {
				break
			}
			pending = rest
			m.Conn = k
			k.stub.deliver(m)
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				err = io.ErrClosedPipe
			}
			k.mu.Lock()
			k.closed = err
			k.mu.Unlock()
			k.Close()
			return
		}
	}
}

// nextStub cuts one message or keep-alive off received bytes.
func nextStub(b []byte) (*StubMessage, []byte) {
	switch {
	case bytes.HasPrefix(b, []byte("\r\n\r\n")):
		return &StubMessage{Start: "PING", Raw: "\r\n\r\n"}, b[4:]
	case bytes.HasPrefix(b, []byte("\r\n")):
		return &StubMessage{Start: "PONG", Raw: "\r\n"}, b[2:]
	}
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return nil, b
	}
	m := parseStub(string(b[:head]))
	n, _ := strconv.Atoi(m.Get("Content-Length"))
	if len(b) < head+4+n {
		return nil, b
	}
	m.Raw, m.Body = string(b[:head+4+n]), string(b[head+4:head+4+n])
	return m, b[head+4+n:]
}

func (s *Stub) deliver(m *StubMessage) {
	s.mu.Lock()
	s.all = append(s.all, m)
	if m.Status() > 0 {
		s.checkReturn(m)
	}
	hook := s.OnMessage
	s.mu.Unlock()
	if hook != nil && hook(m) {
		return
	}
	s.mu.Lock()
	s.inbox = append(s.inbox, m)
	s.mu.Unlock()
}

// checkReturn compares a response with its request: what identifies the
// transaction and the dialog must be what was written, whoever translated it
// on the way. Called with the lock held.
func (s *Stub) checkReturn(m *StubMessage) {
	_, method := m.CSeq()
	req := s.sent[m.Branch()+" "+method]
	if req == nil {
		s.faults = append(s.faults, fmt.Sprintf("response to no request of ours: %s (Via %s)", m.Start, m.Get("Via")))
		return
	}
	for _, name := range []string{"Via", "From", "Call-ID", "CSeq"} {
		if was, now := strings.Join(req.All(name), ","), strings.Join(m.All(name), ","); was != now {
			s.faults = append(s.faults, fmt.Sprintf("%s: %s was sent as %q and came back as %q", m.Start, name, was, now))
		}
	}
	was, now := req.Get("To"), m.Get("To")
	if !strings.HasPrefix(now, was) {
		s.faults = append(s.faults, fmt.Sprintf("%s: To was sent as %q and came back as %q", m.Start, was, now))
	}
}

// Faults gives and forgets what checkReturn found.
func (s *Stub) Faults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults
	s.faults = nil
	return f
}

// All gives every message so far.
func (s *Stub) All() []*StubMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*StubMessage(nil), s.all...)
}

// take1 removes the first message of the inbox that matches.
func (s *Stub) take1(match Match) *StubMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.inbox {
		if match(m) {
			s.inbox = append(s.inbox[:i:i], s.inbox[i+1:]...)
			return m
		}
	}
	return nil
}

// Waiting lists what stands in the inbox.
func (s *Stub) Waiting() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, m := range s.inbox {
		n, method := m.CSeq()
		out = append(out, fmt.Sprintf("%s [%s, CSeq %d %s]", m.Start, m.Get("Call-ID"), n, method))
	}
	return out
}

// Expect takes the first message that matches out of the inbox, waiting for it at most for the limit.
func (s *Stub) Expect(t T, match Match, limit time.Duration) *StubMessage {
	t.Helper()
	var m *StubMessage
	if !eventually(limit, func() bool { m = s.take1(match); return m != nil }) {
		t.Fatalf("%s: the expected message has not come within %v; there are: %s", s.Name, limit, strings.Join(s.Waiting(), "; "))
	}
	return m
}

// Drain empties the inbox and returns it.
func (s *Stub) Drain() []*StubMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.inbox
	s.inbox = nil
	return out
}

// NoneOf ends the test when a message that matches has come. What was sent
// before must have been followed by something that has arrived (a barrier).
func (s *Stub) NoneOf(t T, match Match) {
	t.Helper()
	if m := s.take1(match); m != nil {
		t.Errorf("%s got what it should not have:\n%s", s.Name, m.Raw)
	}
}
