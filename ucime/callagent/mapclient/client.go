package mapclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun/v3"
)

const (
	method        = stun.Method(0x00f)
	maximumLength = 1024
	maximumWait   = 256
)

// Timers bound what a client waits for.
type Timers struct {
	Connect, Response, Idle time.Duration
}

// Client talks to one mapping service.
type Client struct {
	addr   netip.AddrPort
	timers Timers

	mu   sync.Mutex
	conn net.Conn
	idle *time.Timer
	wait map[[stun.TransactionIDSize]byte]chan answer
	wg   sync.WaitGroup
}

type answer struct {
	mapped netip.AddrPort
	err    error
}

// New makes a client; it connects when it is asked.
func New(addr netip.AddrPort, t Timers) *Client {
	return &Client{addr: addr, timers: t, wait: make(map[[stun.TransactionIDSize]byte]chan answer)}
}

// Refused is an answer with an error code.
type Refused struct {
	Code   int
	Reason string
}

// Error tells code and reason.
func (r Refused) Error() string { return fmt.Sprintf("mapping service: %d %s", r.Code, r.Reason) }

// Map asks for the stand-in of a target.
func (c *Client) Map(ctx context.Context, target netip.AddrPort) (netip.AddrPort, error) {
	m, err := stun.Build(stun.TransactionID, stun.NewType(method, stun.ClassRequest), peer(target), stun.Fingerprint)
	if err != nil {
		return netip.AddrPort{}, err
	}
	got := make(chan answer, 1)
	if err := c.send(ctx, m, got); err != nil {
		return netip.AddrPort{}, fmt.Errorf("mapping service %s: %w", c.addr, err)
	}
	limit := time.NewTimer(c.timers.Response)
	defer limit.Stop()
	select {
	case a := <-got:
		return a.mapped, a.err
	case <-limit.C:
		err = errors.New("no answer before the mapping response timer")
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	delete(c.wait, m.TransactionID)
	c.mu.Unlock()
	return netip.AddrPort{}, fmt.Errorf("mapping service %s: %w", c.addr, err)
}

type peer netip.AddrPort

// AddTo adds XOR-PEER-ADDRESS.
func (p peer) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	return stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

func (c *Client) send(ctx context.Context, m *stun.Message, got chan answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		d := net.Dialer{Timeout: c.timers.Connect}
		conn, err := d.DialContext(ctx, "tcp4", c.addr.String())
		if err != nil {
			return err
		}
		c.conn = conn
		c.idle = time.AfterFunc(c.timers.Idle, func() { conn.Close() })
		c.wg.Go(func() { c.read(conn) })
	}
	if len(c.wait) >= maximumWait {
		return errors.New("too many requests are unanswered")
	}
	c.idle.Reset(c.timers.Idle)
	c.wait[m.TransactionID] = got
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.timers.Response))
	if _, err := c.conn.Write(m.Raw); err != nil {
		delete(c.wait, m.TransactionID)
		c.conn.Close() // the reader takes it out
		return err
	}
	return nil
}

// read gives answers to who waits, until the connection ends.
func (c *Client) read(conn net.Conn) {
	for {
		m, err := next(conn)
		if err != nil {
			c.mu.Lock()
			for id, w := range c.wait {
				w <- answer{err: fmt.Errorf("mapping service %s: %w", c.addr, err)}
				delete(c.wait, id)
			}
			c.idle.Stop()
			c.conn = nil
			c.mu.Unlock()
			conn.Close()
			return
		}
		c.mu.Lock()
		if w := c.wait[m.TransactionID]; w != nil {
			mapped, err := decode(m)
			if err != nil && !errors.As(err, new(Refused)) {
				err = fmt.Errorf("mapping service %s: %w", c.addr, err)
			}
			w <- answer{mapped, err}
			delete(c.wait, m.TransactionID)
		}
		c.mu.Unlock()
	}
}

// next reads a message.
func next(r io.Reader) (*stun.Message, error) {
	b := make([]byte, 20, 128)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(b[2:])
	if b[0]&0xc0 != 0 || n > maximumLength || n%4 != 0 {
		return nil, errors.New("an answer that is no STUN message")
	}
	b = append(b, make([]byte, n)...)
	if _, err := io.ReadFull(r, b[20:]); err != nil {
		return nil, err
	}
	m := &stun.Message{Raw: b}
	return m, m.Decode()
}

// decode takes the mapped address or the error out of an answer.
func decode(m *stun.Message) (netip.AddrPort, error) {
	if err := stun.Fingerprint.Check(m); err != nil {
		return netip.AddrPort{}, err
	}
	if m.Type.Method != method {
		return netip.AddrPort{}, errors.New("an answer of another method")
	}
	if m.Type.Class == stun.ClassErrorResponse {
		var e stun.ErrorCodeAttribute
		if err := e.GetFrom(m); err != nil {
			return netip.AddrPort{}, err
		}
		return netip.AddrPort{}, Refused{int(e.Code), string(e.Reason)}
	}
	var x stun.XORMappedAddress
	if err := x.GetFrom(m); err != nil {
		return netip.AddrPort{}, err
	}
	ip, ok := netip.AddrFromSlice(x.IP)
	if !ok || m.Type.Class != stun.ClassSuccessResponse || x.Port < 1 || x.Port > 65535 {
		return netip.AddrPort{}, errors.New("an answer without a mapped address")
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(x.Port)), nil
}

// Close ends the connection.
func (c *Client) Close() {
	c.mu.Lock()
	if c.conn != nil {
		c.conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}
