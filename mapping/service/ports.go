package service

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	backlog    = 64 // connections that wait to be accepted, a port
	acceptWait = 20 * time.Millisecond
)

// ports are the listening sockets of the mappings. One goroutine waits for all of them: one each would cost more than the mapping.
type ports struct {
	addr  netip.Addr
	came  func(port uint16, c net.Conn) // must not block
	epoll int
	stop  int // eventfd
	done  chan struct{}

	mu   sync.Mutex
	open map[int32]uint16 // port by descriptor
}

func newPorts(addr netip.Addr, came func(port uint16, c net.Conn)) (*ports, error) {
	p := &ports{addr: addr, came: came, open: make(map[int32]uint16), done: make(chan struct{})}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if p.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(p.epoll))
	}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.stop, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.stop)}); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(p.epoll), unix.Close(p.stop))
	}
	go p.run()
	return p, nil
}

// portCloser closes one port.
type portCloser struct {
	p  *ports
	fd int32
}

func (c *portCloser) Close() error {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if _, ok := c.p.open[c.fd]; !ok {
		return nil
	}
	delete(c.p.open, c.fd)
	return os.NewSyscallError("close", unix.Close(int(c.fd))) // leaves epoll by itself
}

// listen opens a port. EADDRINUSE when anyone else listens there.
func (p *ports) listen(port uint16) (io.Closer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	// Legs of an earlier mapping that are closing must not keep the port.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: p.addr.As4(), Port: int(port)})
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen on %s port %d: %w", p.addr, port, err)
	}
	p.open[int32(fd)] = port
	return &portCloser{p, int32(fd)}, nil
}

func (p *ports) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(p.stop) {
				return
			}
			p.accept(e.Fd)
		}
	}
}

// accept takes what waits at a port.
func (p *ports) accept(listener int32) {
	for {
		p.mu.Lock()
		port, ok := p.open[listener]
		if !ok { // closed since
			p.mu.Unlock()
			return
		}
		fd, _, err := unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		p.mu.Unlock()
		switch {
		case err == nil:
		case errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM):
			// What waits goes on waiting; asked again at once it would only spin.
			time.Sleep(acceptWait)
			return
		default:
			return
		}
		f := os.NewFile(uintptr(fd), "leg")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err == nil {
			p.came(port, c)
		}
	}
}

// close ends all ports.
func (p *ports) close() {
	_, _ = unix.Write(p.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	for fd := range p.open {
		_ = unix.Close(int(fd))
	}
	clear(p.open)
	_ = unix.Close(p.epoll)
	_ = unix.Close(p.stop)
}
