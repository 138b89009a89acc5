package proxy

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/tlsproxy"
)

// conn is one connection of a signaling session: a framer that one goroutine reads, and an outbox that
// another empties where the socket does not take all at once, so that a slow peer never holds up a call's lock.
type conn struct {
	net.Conn
	out    *outbox
	framer *sipalg.Framer
	done   chan struct{}
	once   sync.Once

	// Of a TLS connection, fixed by its handshake: the domains in the verified leaf, version and suite as the standards spell them.
	domains        []string
	version, suite string

	bytes    atomic.Uint64
	lastRead atomic.Int64 // Unix nanoseconds of the last whole frame
	pinged   atomic.Int64 // when the ping that has no pong yet went out; 0 = none
	ponged   atomic.Bool  // the peer answers pings: one that stays unanswered means it is gone
	trace    *trace.Hub   // told of every message; nil until the connection is attached
	started  bool         // a message has begun: its deadline runs; reader's goroutine only
	first    bool         // a first message was read whole; reader's goroutine only
	holding  [2]*conn     // whose messages collect until the reader waits; reader's goroutine only
}

// newConn takes a connection whose handshake, if it has one, is done. It writes to out, which is c itself without TLS.
func newConn(c net.Conn, out *outbox) *conn {
	k := &conn{Conn: c, out: out, done: make(chan struct{})}
	out.begin()
	if t, ok := c.(*tls.Conn); ok {
		st := t.ConnectionState()
		k.version, k.suite = tls.VersionName(st.Version), tls.CipherSuiteName(st.CipherSuite)
		if len(st.PeerCertificates) > 0 {
			k.domains = tlsproxy.Domains(st.PeerCertificates[0])
		}
	}
	k.framer = sipalg.NewFramer(connReader{k}, sipalg.Limits{})
	k.framer.OnStart = k.messageStarts
	k.lastRead.Store(time.Now().UnixNano())
	return k
}

// connReader counts what is read, and lets go what was held: the reader has nothing more to do.
type connReader struct{ k *conn }

func (r connReader) Read(p []byte) (int, error) {
	r.k.letGo()
	n, err := r.k.Conn.Read(p)
	r.k.bytes.Add(uint64(n))
	return n, err
}

// hold lets the messages to both connections of a session collect while the reader deals with what it has read.
func (k *conn) hold(both [2]*conn) {
	if k.holding[0] != nil || !both[0].open() || !both[1].open() {
		return // while one is opened, which takes its time, nothing may wait
	}
	k.holding = both
	for _, h := range both {
		h.out.hold()
	}
}

func (k *conn) letGo() {
	for i, h := range k.holding {
		if h != nil && h.out.release() != nil {
			h.shut()
		}
		k.holding[i] = nil
	}
}

// messageStarts sets the deadline of a message when its first byte has come: half a message must
// not hold a connection for ever.
func (k *conn) messageStarts() {
	if k.first {
		_ = k.SetReadDeadline(time.Now().Add(messageTimeout))
		k.started = true
	}
}

// next reads a frame. The deadline of the first message is set by the owner before.
func (k *conn) next() (sipalg.Frame, error) {
	f, err := k.framer.Next()
	if err != nil {
		return f, err
	}
	k.lastRead.Store(time.Now().UnixNano())
	if f.Kind == sipalg.KindMessage && !k.first || k.started {
		_ = k.SetReadDeadline(time.Time{})
		k.first, k.started = true, false
	}
	if f.Kind == sipalg.KindMessage && k.trace.Wants(trace.SIP) {
		k.trace.Message(k.RemoteAddr(), k.LocalAddr(), k.secure(), f.Data)
	}
	return f, nil
}

// texts are buffers for messages on their way out, which sending copies.
var texts = sync.Pool{New: func() any { return new([]byte) }}

// sendMessage is send for a message that is not written yet.
func (k *conn) sendMessage(m *sipalg.Message) bool {
	b := texts.Get().(*[]byte)
	defer texts.Put(b)
	if *b = m.Append((*b)[:0]); cap(*b) > keptBuffer {
		defer func() { *b = nil }()
	}
	return k.send(*b)
}

// send writes a message, or keeps what the socket does not take. It never waits. False when the connection is closed, or when its peer
// reads so slowly that too much waits already, in which case it is closed.
func (k *conn) send(b []byte) bool {
	select {
	case <-k.done:
		return false
	default:
	}
	if len(b) > 4 && k.trace.Wants(trace.SIP) { // no keep-alive
		k.trace.Message(k.LocalAddr(), k.RemoteAddr(), k.secure(), b)
	}
	k.out.hold() // TLS may make several records of it
	n, err := k.Conn.Write(b)
	if gone := k.out.release(); err == nil {
		err = gone
	}
	k.bytes.Add(uint64(n))
	if err != nil {
		k.shut()
		return false
	}
	return true
}

// write brings out what the socket did not take at once, until the connection is shut; what waits then still goes out.
func (k *conn) write() {
	var err error
	defer func() {
		if t, tls := k.Conn.(*tls.Conn); tls && err != nil {
			// tls.Conn.Close waits 5 s to tell a peer that does not read.
			_ = t.NetConn().Close()
			return
		}
		k.Close()
	}()
	for {
		select {
		case <-k.out.wake:
			if err = k.out.drain(writeTimeout); err != nil {
				k.shut()
				return
			}
		case <-k.done:
			_ = k.SetWriteDeadline(time.Now().Add(closeTimeout))
			err = k.out.drain(0)
			return
		}
	}
}

// shut ends the connection after what is queued has been written; it does not wait. A write that hangs on a peer which
// does not read is given up soon, so that the session is freed within a second.
func (k *conn) shut() {
	k.once.Do(func() {
		_ = k.SetWriteDeadline(time.Now().Add(closeTimeout))
		close(k.done)
	})
}

func (k *conn) open() bool {
	if k == nil {
		return false
	}
	select {
	case <-k.done:
		return false
	default:
		return true
	}
}

func (k *conn) secure() bool {
	_, ok := k.Conn.(*tls.Conn)
	return ok
}
