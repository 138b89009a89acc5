package ring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

const (
	maxIdle  = 64 // connections kept for the next request
	idleKept = idleTimeout / 2
)

var errUnexpected = errors.New("unexpected answer")

// serveRequests answers one member's requests, one after the other, until it is silent for idleTimeout.
func (w *wire) serveRequests(p *party, c net.Conn) {
	defer c.Close()
	s := &session{p: p}
	for {
		if err := c.SetDeadline(time.Now().Add(idleTimeout)); err != nil {
			return
		}
		kind, body, err := readFrame(c)
		if err != nil {
			return
		}
		out := []byte{uint8(CodeThrottled)}
		if w.n.mayAsk(p, kind) {
			kind, out = w.n.serve(s, kind, body)
		} else {
			kind = typeError
			w.pause(throttled)
		}
		if _, err := c.Write(frame(kind, out)); err != nil {
			return
		}
	}
}

// requests is the client side: connections to members, described and idle, at most maxIdle.
type requests struct {
	w    *wire
	mu   sync.Mutex
	idle []idleConn // the oldest first
	cert int        // grows with each certificate of ours
}

type idleConn struct {
	name  learn.PeerID
	c     net.Conn
	since time.Time
}

// take returns an idle connection to a member, nil if there is none, and closes those that the other side is about to.
func (q *requests) take(name learn.PeerID) (c net.Conn) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	keep := q.idle[:0]
	for _, x := range q.idle {
		switch {
		case now.Sub(x.since) > idleKept:
			x.c.Close()
		case c == nil && x.name == name:
			c = x.c
		default:
			keep = append(keep, x)
		}
	}
	clear(q.idle[len(keep):])
	q.idle = keep
	return c
}

// certificate says with which certificate of ours connections are opened now.
func (q *requests) certificate() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cert
}

// renew ends the connections that show a former certificate of ours: records that the next one signs are refused on them.
func (q *requests) renew() {
	q.close()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cert++
}

func (q *requests) give(name learn.PeerID, c net.Conn, cert int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t, ok := tlsOf(c); q.w.ctx.Err() != nil || cert != q.cert || ok && q.w.n.id.Admitted(t.PeerCertificates[0]) != nil { // revoked while it was in use
		c.Close()
		return
	}
	if len(q.idle) >= maxIdle {
		q.idle[0].c.Close()
		q.idle = append(q.idle[:0], q.idle[1:]...)
	}
	q.idle = append(q.idle, idleConn{name, c, time.Now()})
}

func (q *requests) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range q.idle {
		x.c.Close()
	}
	q.idle = nil
}

// exchange sends one request on a connection.
func exchange(ctx context.Context, c net.Conn, kind uint8, body []byte) ([]byte, error) {
	until := time.Now().Add(callTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := c.SetDeadline(until); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(frame(kind, body)); err != nil {
		return nil, err
	}
	got, answer, err := readFrame(c)
	switch {
	case err != nil:
		return nil, err
	case got == typeError && len(answer) == 1:
		return nil, Code(answer[0])
	case got != kind+answerBit:
		return nil, errUnexpected
	}
	return answer, nil
}

// call is the caller of a real ring. A request to ourselves takes no connection.
func (q *requests) call(ctx context.Context, to *Member, kind uint8, body []byte) ([]byte, error) {
	n := q.w.n
	n.mu.Lock()
	self, desc := n.self, n.descRaw
	n.mu.Unlock()
	if to.Name == self.name {
		answer, code := n.answer(&session{p: self, hello: true}, kind, body)
		if code != CodeOK {
			return nil, code
		}
		return answer, nil
	}
	cert := q.certificate()
	if c := q.take(to.Name); c != nil {
		answer, err := exchange(ctx, c, kind, body)
		if q.after(to.Name, c, cert, err) {
			return answer, err
		}
		// It had closed while it was idle: all requests may be repeated, so ask on a new one.
	}
	c, _, err := q.w.dial(ctx, to.Addr.String(), alpnRing, to.Name)
	if err != nil {
		return nil, err
	}
	if _, err := exchange(ctx, c, typeHello, desc); err != nil {
		c.Close()
		return nil, fmt.Errorf("describe us to %s: %w", to.Name, err)
	}
	answer, err := exchange(ctx, c, kind, body)
	q.after(to.Name, c, cert, err)
	return answer, err
}

// after keeps a connection that answered, with a refusal too, and closes another.
func (q *requests) after(name learn.PeerID, c net.Conn, cert int, err error) (answered bool) {
	var code Code
	if err == nil || errors.As(err, &code) {
		q.give(name, c, cert)
		return true
	}
	c.Close()
	return false
}

// askAdmission lets a bootstrap server admit us, and takes its settings and token along.
func (q *requests) askAdmission(ctx context.Context, addr string) (*admission, error) {
	n := q.w.n
	c, p, err := q.w.dial(ctx, addr, alpnRing, learn.PeerID{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if !p.bootstrap {
		return nil, fmt.Errorf("%s at %s is no bootstrap server", p.name, addr)
	}
	body, err := exchange(ctx, c, typeAdmit, putU32(n.software))
	if err != nil {
		return nil, fmt.Errorf("ask %s at %s for admission: %w", p.name, addr, err)
	}
	r := reader{b: body}
	adm, settings, tok := r.bytes16(), r.bytes16(), r.bytes16()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("admission by %s: %w", p.name, err)
	}
	a, err := decodeAdmission(adm)
	if err != nil {
		return nil, err
	}
	n.trustParty(p)
	if err := n.learnSettings(settings, p); err != nil && !errors.Is(err, errStale) {
		return nil, err
	}
	n.trustParty(p) // settings may have come that do not list it yet
	if err := n.learnToken(tok); err != nil && !errors.Is(err, errStale) {
		return nil, err
	}
	return a, nil
}
