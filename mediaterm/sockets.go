package mediaterm

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// EngineSockets is the name of the portable engine.
const EngineSockets = "sockets"

// Receive buffers in bytes. They bound memory and, more so, the age of what is played
// after a stall: 128 KiB are about 0.2 s of one busy audio stream after the kernel's
// own accounting. Video comes in bursts of whole frames.
const (
	rcvbufAudio = 128 << 10
	rcvbufVideo = 512 << 10
	rcvbufRTCP  = 32 << 10
)

// readErrors in a row, each after readPause, end a reader: its socket is beyond repair.
const (
	readErrors = 100
	readPause  = 10 * time.Millisecond
)

// socketEngine uses one UDP socket and one goroutine a port.
type socketEngine struct {
	log *slog.Logger
	now func() time.Time
}

func newSocketEngine(cfg Config) *socketEngine {
	return &socketEngine{log: cfg.Log, now: cfg.Now}
}

func (e *socketEngine) Name() string { return EngineSockets }

func (e *socketEngine) Close() error { return nil }

func (e *socketEngine) Open(spec EngineSpec) (EngineStream, error) {
	s := &socketStream{
		relay: newRelay(spec, e.now),
		log:   e.log, stop: make(chan struct{}),
	}
	for side := Inside; side <= Outside; side++ {
		for p := portRTP; p <= portRTCP; p++ {
			addr := netip.AddrPortFrom(spec.Local[side].Addr(), spec.Local[side].Port()+uint16(p))
			conn, err := listen(addr)
			if err != nil {
				s.closeSockets()
				return nil, err
			}
			_ = conn.SetReadBuffer(bufferSize(p, spec.Media)) // a smaller buffer still works
			setClass(conn, spec.Marking.class(spec.Media))
			s.conns[side][p] = conn
		}
	}
	for side := Inside; side <= Outside; side++ {
		for p := portRTP; p <= portRTCP; p++ {
			s.readers.Go(func() { s.read(side, p) })
		}
	}
	return s, nil
}

func bufferSize(p port, media string) int {
	switch {
	case p == portRTCP:
		return rcvbufRTCP
	case media == "video":
		return rcvbufVideo
	}
	return rcvbufAudio
}

// listen binds a UDP socket; the error is a *BindError.
func listen(addr netip.AddrPort) (*net.UDPConn, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err == nil {
		return conn, nil
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys
	}
	return nil, &BindError{Addr: addr, Hint: bindHint(err, addr.Addr()), Err: err}
}

func bindHint(err error, addr netip.Addr) string {
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no interface has this address: add it (ip address add " + addr.String() +
			"/" + map[bool]string{true: "32", false: "128"}[addr.Is4()] + " dev INTERFACE) or correct the media-termination address"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program uses this port: stop it, or choose another rtp-min-port and rtp-max-port"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "not permitted: use ports above 1023"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "out of file descriptors, a stream takes four: raise the limit (LimitNOFILE)"
	}
	return "check the address and the port range"
}

// socketStream is one stream: four sockets, four readers.
type socketStream struct {
	*relay
	log     *slog.Logger
	conns   [2][2]*net.UDPConn // by Side and port
	readers sync.WaitGroup
	once    sync.Once
	stop    chan struct{}
}

// read relays what comes to one port until the socket is closed.
func (s *socketStream) read(side Side, p port) {
	conn, buf := s.conns[side][p], make([]byte, maxDatagram)
	failures := 0
	for {
		n, src, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if failures++; failures > readErrors {
				s.log.Error("media port given up", "local", conn.LocalAddr().String(), "error", err)
				return
			}
			select {
			case <-s.stop:
				return
			case <-time.After(readPause):
			}
			continue
		}
		failures = 0
		s.forward(side, p, netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), buf[:n])
	}
}

func (s *socketStream) forward(side Side, p port, src netip.AddrPort, pkt []byte) {
	sc := scratches.Get().(*scratch)
	defer scratches.Put(sc)
	if out, ok := s.receive(side, p, src, pkt, sc); ok {
		_, err := s.conns[out.side][out.port].WriteToUDPAddrPort(out.data, out.to)
		s.sent(out, err)
	}
}

func (s *socketStream) SetRemote(side Side, r Remote) error { return s.setRemote(side, r) }

func (s *socketStream) Withhold(side Side, on bool) { s.withhold(side, on) }

func (s *socketStream) Heard(side Side) (from netip.AddrPort, sent uint64, open bool) {
	return s.heard(side)
}

func (s *socketStream) SetCrypto(side Side, local, remote *Key) error {
	return s.setCrypto(side, local, remote)
}

func (s *socketStream) SetClockRate(pt uint8, hz uint32) { s.setClockRate(pt, hz) }

func (s *socketStream) Stats() Stats {
	in, out := s.stats()
	return Stats{Engine: EngineSockets, Inside: in, Outside: out}
}

func (s *socketStream) Close() {
	s.once.Do(func() {
		close(s.stop)
		s.closeSockets()
	})
	s.readers.Wait()
	s.wipe()
}

func (s *socketStream) closeSockets() {
	for _, leg := range s.conns {
		for _, c := range leg {
			if c != nil {
				_ = c.Close() // frees the port whatever it returns
			}
		}
	}
}
