package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outbox stands between a connection and its socket. A write never waits: what the socket does not take at once is kept, and the
// connection's own goroutine brings it out. So most messages leave on the goroutine that made them, without waking another one, which costs more
// than the message does. Until begin is called it passes writes on, as a TLS handshake needs.
type outbox struct {
	net.Conn
	raw syscall.RawConn       // nil: no socket, all writes are the goroutine's
	try func(fd uintptr) bool // to write
	in  reading
	// wake tells the connection's goroutine that something is left.
	wake chan struct{}

	mu    sync.Mutex // guards everything that follows
	begun bool
	held  int    // bytes are collected until all who hold it let go
	buf   []byte // not yet taken by the socket
	spare []byte // the goroutine's last part, to be used again
	busy  bool   // the goroutine writes: order forbids anybody else to
	took  int    // by the last try
	errno error  // of the last try
	err   error  // the connection is of no use any more
}

// reading is the read under way.
type reading struct {
	try   func(fd uintptr) bool
	p     []byte
	n     int
	errno error
}

// errSlow ends a connection whose peer does not read.
var errSlow = errors.New("the peer does not read: too much waits to be sent")

func newOutbox(c net.Conn) *outbox {
	o := &outbox{Conn: c, wake: make(chan struct{}, 1)}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			o.raw = raw
		}
	}
	o.try = func(fd uintptr) bool {
		o.took, o.errno = transfer(unix.SYS_SENDTO, fd, o.buf)
		return true // also where the socket is full: not to wait is the point
	}
	o.in.try = func(fd uintptr) bool {
		o.in.n, o.in.errno = transfer(unix.SYS_RECVFROM, fd, o.in.p)
		return o.in.errno != unix.EAGAIN
	}
	return o
}

// transfer reads or writes what a socket has, or takes, at once. The scheduler is not told, as it is of calls that may wait: telling it
// wakes a thread that watches over such calls, for each message, at twice the cost of the call.
func transfer(call, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// Read waits for bytes. One goroutine at a time may call it.
func (o *outbox) Read(p []byte) (int, error) {
	o.mu.Lock()
	begun := o.begun
	o.mu.Unlock()
	if !begun || o.raw == nil || len(p) == 0 {
		return o.Conn.Read(p)
	}
	o.in.p = p
	err := o.raw.Read(o.in.try)
	o.in.p = nil
	switch {
	case err != nil:
		return 0, err
	case o.in.errno != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: o.LocalAddr(), Addr: o.RemoteAddr(), Err: os.NewSyscallError("read", o.in.errno)}
	case o.in.n == 0:
		return 0, io.EOF
	}
	return o.in.n, nil
}

// begin ends the time in which writes wait.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = true
}

// Write takes all of p, or fails: when an earlier write has failed, or when more than maxWaiting bytes wait.
func (o *outbox) Write(p []byte) (int, error) {
	o.mu.Lock()
	if !o.begun {
		o.mu.Unlock()
		return o.Conn.Write(p)
	}
	defer o.mu.Unlock()
	if o.err == nil && len(o.buf)+len(p) > maxWaiting {
		o.err = errSlow
	}
	if o.err != nil {
		return 0, o.err
	}
	o.buf = append(o.buf, p...)
	if o.held == 0 {
		o.flush()
	}
	return len(p), o.err
}

// hold lets bytes collect until release: one system call, and one segment, for all of them.
func (o *outbox) hold() {
	o.mu.Lock()
	o.held++
	o.mu.Unlock()
}

// release undoes one hold. The error is that of the connection.
func (o *outbox) release() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held--; o.held == 0 && o.err == nil {
		o.flush()
	}
	return o.err
}

// flush writes what the socket takes at once. mu is locked.
func (o *outbox) flush() {
	if len(o.buf) == 0 || o.busy {
		return
	}
	if o.raw != nil {
		o.took, o.errno = 0, nil
		if err := o.raw.Write(o.try); err != nil {
			o.err = err
			return
		}
		if o.errno != nil && o.errno != unix.EAGAIN {
			o.err = o.errno
			return
		}
		o.buf = o.buf[:copy(o.buf, o.buf[o.took:])]
		if len(o.buf) == 0 {
			if cap(o.buf) > keptBuffer {
				o.buf = nil
			}
			return
		}
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// drain writes all that waits, as slowly as the peer takes it; the deadline is the caller's. One goroutine alone may call it.
func (o *outbox) drain(each time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > 0 && o.err == nil {
		part := o.buf
		o.buf, o.spare, o.busy = o.spare[:0], nil, true
		o.mu.Unlock()
		if each > 0 {
			_ = o.Conn.SetWriteDeadline(time.Now().Add(each))
		}
		_, err := o.Conn.Write(part)
		o.mu.Lock()
		o.busy = false
		if cap(part) <= keptBuffer {
			o.spare = part
		}
		if err != nil && o.err == nil {
			o.err = err
		}
	}
	if each > 0 && o.err == nil {
		_ = o.Conn.SetWriteDeadline(time.Time{}) // one that has passed would fail the writes of flush, which do not wait
	}
	return o.err
}
