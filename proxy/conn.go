package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
)

// conn is one connection of a signaling session: a framer that one goroutine reads, and a queue
// that another writes, so that a slow peer never holds up a call's lock.
type conn struct {
	net.Conn
	framer  *sipalg.Framer
	queue   chan []byte
	done    chan struct{}
	once    sync.Once
	flushed chan struct{} // closed when the writer has ended

	bytes    atomic.Uint64
	lastRead atomic.Int64 // Unix nanoseconds of the last whole frame
	pinged   atomic.Int64 // when the ping that has no pong yet went out; 0 = none
	ponged   atomic.Bool  // the peer answers pings: one that stays unanswered means it is gone
	trace    *trace.Hub   // told of every message; nil until the connection is attached
	started  bool         // a message has begun: its deadline runs; reader's goroutine only
	first    bool         // a first message was read whole; reader's goroutine only
}

func newConn(c net.Conn) *conn {
	k := &conn{Conn: c, queue: make(chan []byte, maxQueue), done: make(chan struct{}), flushed: make(chan struct{})}
	k.framer = sipalg.NewFramer(countReader{c, &k.bytes}, sipalg.Limits{})
	k.framer.OnStart = k.messageStarts
	k.lastRead.Store(time.Now().UnixNano())
	return k
}

type countReader struct {
	net.Conn
	n *atomic.Uint64
}

func (r countReader) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.n.Add(uint64(n))
	return n, err
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

// send queues bytes; false when the connection is closed or its queue is full, in which case it is closed.
func (k *conn) send(b []byte) bool {
	select {
	case <-k.done:
		return false
	default:
	}
	select {
	case k.queue <- b:
		return true
	default:
		k.shut()
		return false
	}
}

// write empties the queue until the connection is shut; what is queued then still goes out.
func (k *conn) write() {
	defer close(k.flushed)
	ok := true
	defer func() {
		if t, tls := k.Conn.(*tls.Conn); tls && !ok {
			// tls.Conn.Close waits 5 s to tell a peer that does not read.
			_ = t.NetConn().Close()
			return
		}
		k.Close()
	}()
	for {
		select {
		case b := <-k.queue:
			_ = k.SetWriteDeadline(time.Now().Add(writeTimeout))
			if ok = k.put(b); !ok {
				return
			}
		case <-k.done:
			ok = k.drain()
			return
		}
	}
}

// drain writes what is still queued when the connection is shut, within closeTimeout in all.
func (k *conn) drain() bool {
	_ = k.SetWriteDeadline(time.Now().Add(closeTimeout))
	for {
		select {
		case b := <-k.queue:
			if !k.put(b) {
				return false
			}
		default:
			return true
		}
	}
}

func (k *conn) put(b []byte) bool {
	if len(b) > 4 && k.trace.Wants(trace.SIP) { // no keep-alive
		k.trace.Message(k.LocalAddr(), k.RemoteAddr(), k.secure(), b)
	}
	n, err := k.Write(b)
	k.bytes.Add(uint64(n))
	if err != nil {
		k.shut()
		return false
	}
	return true
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

// peerCertificate is the verified leaf of a TLS connection, nil on TCP.
func (k *conn) peerCertificate() *x509.Certificate {
	t, ok := k.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
		return certs[0]
	}
	return nil
}

// tlsNames gives version and suite of a TLS connection as the standards spell them, "" on TCP.
func (k *conn) tlsNames() (version, suite string) {
	if t, ok := k.Conn.(*tls.Conn); ok {
		st := t.ConnectionState()
		return tls.VersionName(st.Version), tls.CipherSuiteName(st.CipherSuite)
	}
	return "", ""
}
