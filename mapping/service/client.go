package service

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	// maxPending is the number of requests of a connection that may wait for their answers; no more is read until they are sent.
	maxPending = 1024
	readSize   = 16 << 10
	// lingerTime and lingerBytes bound what is still read of a connection that is closed for a framing error: bytes that nobody has read
	// would turn the FIN into an RST, which takes the answers before it away.
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// client is a connection to the listening port.
type client struct {
	s    *Service
	conn net.Conn
	addr netip.AddrPort

	// Guarded by Service.mu.
	last                                 time.Time // last whole request, or the beginning
	requests, responses, failed, pending uint64

	buf   []byte    // what has come and is no whole message yet
	first time.Time // when the first byte of buf came
}

// run answers until the connection ends.
func (c *client) run() {
	defer func() {
		c.s.mu.Lock()
		delete(c.s.clients, c)
		c.s.mu.Unlock()
		_ = c.conn.Close()
	}()
	chunk := make([]byte, readSize)
	for {
		idleAt := c.deadline()
		_ = c.conn.SetReadDeadline(idleAt)
		if c.s.ctx.Err() != nil {
			return
		}
		n, err := c.conn.Read(chunk)
		if n > 0 {
			if len(c.buf) == 0 {
				c.first = time.Now()
			}
			c.buf = append(c.buf, chunk[:n]...)
			if !c.work() {
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.timedOut() {
				return
			}
		default: // EOF: all answers are sent
			return
		}
	}
}

// deadline is when the connection ends unless more comes.
func (c *client) deadline() time.Time {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	at := time.Now().Add(c.s.set.Idle - c.s.opt.Now().Sub(c.last))
	if len(c.buf) > 0 {
		if whole := c.first.Add(wholeWithin); whole.Before(at) {
			at = whole
		}
	}
	return at
}

// timedOut tells whether the connection has been without a whole request for too long. Other settings may have moved the deadline.
func (c *client) timedOut() bool {
	if time.Now().Before(c.deadline()) {
		return false
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if len(c.buf) > 0 && !time.Now().Before(c.first.Add(wholeWithin)) {
		c.s.count.IncompleteClosed++
	} else {
		c.s.count.IdleClosed++
	}
	return true
}

// work answers the whole requests in buf. It returns false when the connection is over.
func (c *client) work() bool {
	for {
		out, n, bad := c.answers()
		if len(out) > 0 && !c.send(out, n) {
			return false
		}
		if bad {
			c.linger()
			return false
		}
		if len(c.buf) == 0 {
			c.buf = nil // an idle connection holds no memory
			return true
		}
		if size, ok := frameSize(c.buf); !ok || len(c.buf) < size {
			return true
		}
	}
}

// answers takes whole messages from buf, at most maxPending, and returns what is to be sent for how many requests. bad tells that what
// follows cannot be a message.
func (c *client) answers() (out []byte, n int, bad bool) {
	at := 0
	for n < maxPending {
		rest := c.buf[at:]
		if badFrame(rest) {
			bad = true
			c.s.mu.Lock()
			c.s.count.FramingErrors++
			c.s.mu.Unlock()
			break
		}
		size, ok := frameSize(rest)
		if !ok || len(rest) < size {
			break
		}
		m := decode(rest[:size])
		at += size
		c.first = time.Now() // of what may follow, which came with this
		if !m.isRequest() {
			c.s.mu.Lock()
			c.s.count.DroppedMessages++
			c.s.mu.Unlock()
			continue
		}
		answer := c.s.answer(c, &m)
		if answer == nil {
			break
		}
		out = append(out, answer...)
		n++
	}
	c.buf = append(c.buf[:0], c.buf[at:]...)
	return out, n, bad
}

// send writes n answers. A client that reads none for as long as it may be idle is given up.
func (c *client) send(out []byte, n int) bool {
	c.s.mu.Lock()
	c.last = c.s.opt.Now()
	c.pending = uint64(n)
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.s.set.Idle))
	c.s.mu.Unlock()
	_, err := c.conn.Write(out)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.pending = 0
	if err != nil {
		return false
	}
	c.responses += uint64(n)
	return true
}

// linger ends a connection so that the answers before the end arrive.
func (c *client) linger() {
	t, ok := c.conn.(*net.TCPConn)
	if !ok || t.CloseWrite() != nil {
		return
	}
	_ = t.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, t, lingerBytes)
}
