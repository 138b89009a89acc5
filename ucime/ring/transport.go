package ring

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/source"
)

// Port is the ring's TCP port (guide line 1853).
const Port = 6084

// What a connection is for.
const (
	alpnRing   = "ime-ring/1"
	alpnGossip = "ime-ring-gossip/1"
	alpnSync   = "ime-ring-sync/1"
)

const (
	maxInbound       = 2048
	maxOfMember      = 8 // connections of one member and ALPN
	maxSyncs         = 16
	maxSyncsOfMember = 2
	maxHandshakes    = 512
	maxOfAddress     = 16 // unfinished handshakes of one IPv4 address or IPv6 /64
	handshakesRate   = 50 // of one of these, begun in a second
	handshakesBurst  = 500
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 60 * time.Second
	callTimeout      = 5 * time.Second
)

// net is the TLS side of a Ring: who may connect, and how much.
type wire struct {
	n      *node
	ln     net.Listener
	ctx    context.Context
	wg     *sync.WaitGroup
	serveC func(alpn string, p *party, c net.Conn) // serves and closes

	in, out            atomic.Uint64 // bytes
	refusedHandshakes  atomic.Uint64
	refusedConnections atomic.Uint64

	shaking *handshakes

	mu        sync.Mutex
	open      map[*inbound]struct{}
	perMember map[memberUse]int
	last      uint64 // number of the newest connection
	closed    bool
}

type memberUse struct {
	name learn.PeerID
	alpn string
}

// inbound is an accepted connection, counted until it closes.
type inbound struct {
	net.Conn
	w       *wire
	p       *party
	use     memberUse
	number  uint64 // grows: the oldest has the lowest
	network netip.Prefix
	once    sync.Once
}

func (c *inbound) Close() error {
	c.once.Do(func() {
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		delete(c.w.open, c)
		if c.w.perMember[c.use]--; c.w.perMember[c.use] == 0 {
			delete(c.w.perMember, c.use)
		}
	})
	return c.Conn.Close()
}

// counted counts the bytes of a connection.
type counted struct {
	*tls.Conn
	w *wire
}

func (c counted) Read(b []byte) (int, error) {
	k, err := c.Conn.Read(b)
	c.w.in.Add(uint64(k))
	return k, err
}

func (c counted) Write(b []byte) (int, error) {
	k, err := c.Conn.Write(b)
	c.w.out.Add(uint64(k))
	return k, err
}

// tlsOf says who is at the other end of a connection.
func tlsOf(c net.Conn) (s tls.ConnectionState, ok bool) {
	if in, is := c.(*inbound); is {
		c = in.Conn
	}
	t, ok := c.(counted)
	if !ok {
		return s, false
	}
	return t.ConnectionState(), true
}

func (w *wire) tlsConfig(accepted bool, alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
		NextProtos:             alpn,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.n.id.Certificate() },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return w.n.id.Certificate() },
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection verifies, on either side: host names mean nothing here, peer IDs do
		SessionTicketsDisabled: true, // a resumed session would skip today's revocations and bans
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol == "" {
				return errors.New("the other side does not speak the ring's protocol")
			}
			p, err := partyOf(w.n.id, s.PeerCertificates, w.n.now())
			if err != nil {
				return err
			}
			w.n.mu.Lock()
			defer w.n.mu.Unlock()
			// Requests of a banned member are answered, each with "banned": it has to learn of it.
			if w.n.settings.bans(p.named) && (!accepted || s.NegotiatedProtocol != alpnRing) {
				return CodeBanned
			}
			return nil
		},
	}
}

// accept takes connections until the listener closes.
func (w *wire) accept() {
	for {
		c, err := w.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: others give theirs back
			w.pause(throttled)
			continue
		}
		w.mu.Lock()
		closed := w.closed
		w.mu.Unlock()
		h, victim := w.shaking.begin(c, source.OfConn(c), w.n.now())
		if victim != nil {
			w.refusedConnections.Add(1)
			victim.Close()
		}
		if closed || h == nil {
			w.refusedConnections.Add(1)
			c.Close()
			continue
		}
		w.wg.Go(func() { w.handshake(c, h) })
	}
}

// pause waits, no longer than the ring runs.
func (w *wire) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.ctx.Done():
	case <-t.C:
	}
}

func (w *wire) handshake(raw net.Conn, h *handshake) {
	c := tls.Server(raw, w.tlsConfig(true, alpnRing, alpnGossip, alpnSync))
	ctx, cancel := context.WithTimeout(w.ctx, handshakeTimeout)
	err := c.HandshakeContext(ctx)
	cancel()
	w.shaking.end(h, err == nil)
	if err != nil {
		w.refusedHandshakes.Add(1)
		raw.Close()
		return
	}
	p, err := describe(w.n.id, c.ConnectionState().PeerCertificates[0])
	if err != nil {
		c.Close()
		return
	}
	in, victim := w.register(counted{c, w}, p, c.ConnectionState().NegotiatedProtocol)
	if victim != nil {
		w.refusedConnections.Add(1)
		victim.cut()
	}
	if in == nil {
		w.refusedConnections.Add(1)
		raw.Close() // without close_notify, which would wait for the other side
		return
	}
	w.serveC(in.use.alpn, p, in)
}

// register counts a connection in, nil where its member has too many; victim is one that ends in its place.
func (w *wire) register(c net.Conn, p *party, alpn string) (in, victim *inbound) {
	in = &inbound{Conn: c, w: w, p: p, use: memberUse{p.name, alpn}, network: source.NetworkOfConn(c)}
	most := maxOfMember
	if alpn == alpnSync {
		most = maxSyncsOfMember
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.perMember[in.use] >= most {
		return nil, nil
	}
	w.last++
	in.number = w.last
	w.open[in] = struct{}{}
	w.perMember[in.use]++
	if alpn == alpnSync {
		victim = w.tooMany(maxSyncs, func(o *inbound) bool { return o.use.alpn == alpnSync })
	}
	if victim == nil {
		victim = w.tooMany(maxInbound, func(*inbound) bool { return true })
	}
	return in, victim
}

// closeIf closes the accepted connections that f picks.
func (w *wire) closeIf(f func(*party) bool) {
	w.mu.Lock()
	var list []*inbound
	for c := range w.open {
		if f(c.p) {
			list = append(list, c)
		}
	}
	w.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

func (w *wire) shut() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.ln.Close()
	w.closeIf(func(*party) bool { return true })
}

// dial connects to an address and, unless name is zero, demands that member there.
func (w *wire) dial(ctx context.Context, addr, alpn string, name learn.PeerID) (net.Conn, *party, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	d := tls.Dialer{Config: w.tlsConfig(false, alpn)}
	verify := d.Config.VerifyConnection
	var p *party
	d.Config.VerifyConnection = func(s tls.ConnectionState) error {
		if err := verify(s); err != nil {
			return err
		}
		var err error
		if p, err = describe(w.n.id, s.PeerCertificates[0]); err != nil {
			return err
		}
		if name != (learn.PeerID{}) && p.name != name {
			return fmt.Errorf("%s answers in place of %s", p.name, name)
		}
		return nil
	}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return counted{c.(*tls.Conn), w}, p, nil
}

// readPacket and writePacket: the frames of gossip.
func readPacket(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}
