package mediaterm

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EngineTProxy is the name of the fast engine.
const EngineTProxy = "tproxy"

// DefaultWait is how long a worker lets a batch form while little comes; MaxWait is the longest.
const (
	DefaultWait = 500 * time.Microsecond
	MaxWait     = 500 * time.Microsecond
)

// maxWorkers bounds the receiving sockets, and so the rules that the kernel walks a packet.
const maxWorkers = 8

// probeTime is how long a probe through the kernel's rules may take.
const probeTime = 2 * time.Second

// TProxyConfig of OpenTProxy.
type TProxyConfig struct {
	Workers int           // a power of two; 0: the largest that the CPUs allow, at most 8
	Wait    time.Duration // 0 to MaxWait; SetWait changes it
	Log     *slog.Logger  // nil: discarded
	XDP     bool          // transmit through AF_XDP sockets on the links that Tap names: EngineXDP

	// PortLimit is the number of packets that a port takes in 20 ms; 0: 200. More is a flood, and is dropped.
	PortLimit int
}

// TProxy is the engine of one receiving socket a worker. The kernel must give the datagrams of the media addresses' port
// range to the workers' ports on 127.0.0.1 by tproxy rules, a port pair always to the same worker (Steer). IPv4 only.
type TProxy struct {
	log       *slog.Logger
	wait      atomic.Int64
	portLimit int
	workers   []*worker
	hops      *resolver
	running   sync.WaitGroup
	closed    atomic.Bool
	xdp       bool

	processors *processors

	tapMu  sync.Mutex // guards tapped, and that one goroutine changes the taps
	tapped []Tap      // what Tap was called with last

	held heldPorts
}

// Steer tells how packets are dealt out: of Workers workers, number (port>>1)&(Workers-1) gets a destination port, at
// 127.0.0.1:Ports[number].
type Steer struct{ Ports []uint16 }

// OpenTProxy opens the sockets and starts the workers. It needs CAP_NET_RAW; the error says what is missing.
func OpenTProxy(cfg TProxyConfig) (*TProxy, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := cfg.Workers
	if n <= 0 {
		n = 1 << (bits.Len(uint(min(runtime.NumCPU(), maxWorkers))) - 1)
	}
	if n > maxWorkers || n&(n-1) != 0 {
		return nil, fmt.Errorf("media workers: %d is not a power of two up to %d", n, maxWorkers)
	}
	short, err := bestShortcuts()
	if err != nil {
		cfg.Log.Warn("media is slower than it could be", "error", err)
	}
	if cfg.XDP {
		if err := xskUsable(); err != nil {
			return nil, fmt.Errorf("AF_XDP: %w", err)
		}
	}
	e := &TProxy{log: cfg.Log, portLimit: cfg.PortLimit, xdp: cfg.XDP}
	e.processors = newProcessors(n, e.packets, &e.running)
	if e.portLimit <= 0 {
		e.portLimit = portLimit
	}
	e.SetWait(cfg.Wait)
	if e.hops, err = newResolver(cfg.Log, e.relink); err != nil {
		return nil, err
	}
	for i := range n {
		w, err := newWorker(e, i, newCrypt(short))
		if err != nil {
			_ = e.Close()
			return nil, err
		}
		e.workers = append(e.workers, w)
	}
	for _, w := range e.workers {
		e.running.Go(w.run)
		w.started = true
	}
	return e, nil
}

// Name is EngineTProxy or EngineXDP.
func (e *TProxy) Name() string {
	if e.xdp {
		return EngineXDP
	}
	return EngineTProxy
}

// Steer returns what the kernel's rules must do.
func (e *TProxy) Steer() Steer {
	var s Steer
	for _, w := range e.workers {
		s.Ports = append(s.Ports, w.port)
	}
	return s
}

// SetWait sets the longest time for which a worker lets a batch form: less CPU for more delay. 0: none. Values outside
// 0 to MaxWait are cut.
func (e *TProxy) SetWait(d time.Duration) { e.wait.Store(int64(max(0, min(d, MaxWait)))) }

// Wait returns what SetWait set.
func (e *TProxy) Wait() time.Duration { return time.Duration(e.wait.Load()) }

// worker of a local port.
func (e *TProxy) worker(port uint16) *worker {
	return e.workers[int(port>>1)&(len(e.workers)-1)]
}

// classes is the number of kinds of port pairs; both legs of a stream need pairs of the same kind.
func (e *TProxy) classes() int { return len(e.workers) }

// Probe sends a datagram to a free port of each worker on an address and waits for the worker to see it, so that rules
// which do not work are found before a call is lost. lo and hi are the port range.
func (e *TProxy) Probe(addr netip.Addr, lo, hi uint16) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		return fmt.Errorf("probe of the media rules: %w", err)
	}
	defer conn.Close()
	for _, w := range e.workers {
		if err := w.probe(conn, addr, lo, hi); err != nil {
			return err
		}
	}
	return nil
}

// packets counts those of all workers.
func (e *TProxy) packets() (n uint64) {
	for _, w := range e.workers {
		w.mu.Lock()
		n += w.count.Packets
		w.mu.Unlock()
	}
	return n
}

// Open registers the ports of a stream. A port that another program holds, or an address that no interface has, is a
// *BindError.
func (e *TProxy) Open(spec EngineSpec) (EngineStream, error) {
	w := e.worker(spec.Local[Inside].Port())
	if w != e.worker(spec.Local[Outside].Port()) {
		return nil, fmt.Errorf("media ports %d and %d belong to different workers", spec.Local[Inside].Port(), spec.Local[Outside].Port())
	}
	s := &tproxyStream{
		relay: *newRelay(spec, time.Now), engine: e, worker: w, class: spec.Marking.class(spec.Media), keep: spec.Marking.Set && spec.Marking.Keep,
	}
	s.mu = &w.mu
	now := time.Now()
	for side := Inside; side <= Outside; side++ {
		s.legs[side].crypt = w.crypt
		for p := portRTP; p <= portRTCP; p++ {
			if err := e.held.check(s.localPort(side, p), now); err != nil {
				return nil, err
			}
			s.ends[side][p] = portEnd{stream: s, side: side, port: p}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.closed.Load() {
		return nil, ErrClosed
	}
	for side := Inside; side <= Outside; side++ {
		for p := portRTP; p <= portRTCP; p++ {
			if w.table.find(s.localPort(side, p)) != nil {
				at := s.localPort(side, p)
				return nil, &BindError{Addr: at, Hint: bindHint(unix.EADDRINUSE, at.Addr()), Err: unix.EADDRINUSE}
			}
		}
	}
	for side := Inside; side <= Outside; side++ {
		for p := portRTP; p <= portRTCP; p++ {
			w.table.set(s.localPort(side, p), &s.ends[side][p])
		}
	}
	return s, nil
}

// bindable tells whether a port could be bound: packets for a port that another program uses are taken from it by the
// rules. None of the three calls can wait: the scheduler is not told of them.
func bindable(a netip.AddrPort) error {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errno == 0 {
		port := a.Port()
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8, Addr: a.Addr().As4()}
		_, _, errno = unix.RawSyscall(unix.SYS_BIND, fd, uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet4)
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	if errno != 0 {
		return &BindError{Addr: a, Hint: bindHint(errno, a.Addr()), Err: errno}
	}
	return nil
}

// Close ends the workers and closes the sockets. Streams that are still open pass nothing more.
func (e *TProxy) Close() error {
	e.tapMu.Lock() // no tap is opened from now on
	done := e.closed.Swap(true)
	e.tapMu.Unlock()
	if done {
		return nil
	}
	var errs []error
	for _, w := range e.workers {
		if w.started {
			w.wake()
		}
	}
	close(e.processors.stop)
	e.running.Wait()
	for _, w := range e.workers {
		errs = append(errs, w.close())
	}
	errs = append(errs, e.hops.close())
	return errors.Join(errs...)
}

// EngineCounters are those that an engine keeps for all its streams.
type EngineCounters struct {
	Workers     int    `json:"workers"`
	WaitUS      int64  `json:"wait_us"`
	Packets     uint64 `json:"packets"`      // received
	Batches     uint64 `json:"batches"`      // in so many system calls
	KernelDrops uint64 `json:"kernel_drops"` // overload: the newest packets, when the receive buffer is full, and those that waited for longer than 20 ms in one that is half full
	Taps        int    `json:"taps"`         // links that packets are read from, of each worker
	NoStream    uint64 `json:"no_stream"`    // for ports that no stream has
	Flooded     uint64 `json:"flooded"`      // for ports that get more than a stream sends
	Malformed   uint64 `json:"malformed"`    // in a ring, with lengths or a checksum that are wrong
	SentDirect  uint64 `json:"sent_direct"`  // frames to the neighbour's hardware address
	SentXDP     uint64 `json:"sent_xdp"`     // of these through AF_XDP
	SentRouted  uint64 `json:"sent_routed"`  // packets that the kernel routes
	Fragmented  uint64 `json:"fragmented"`   // longer than the link allows
	SendErrors  uint64 `json:"send_errors"`
	Nice        int    `json:"nice"`        // of the worker that stands back furthest: WorkerNice, or the daemon's own
	NiceDenied  bool   `json:"nice_denied"` // a worker may not come forward to WorkerNice
	Stalls      Stalls `json:"stalls"`
}

// Counters returns the sum over the workers.
func (e *TProxy) Counters() EngineCounters {
	c := EngineCounters{Workers: len(e.workers), WaitUS: e.Wait().Microseconds(), Nice: -20}
	for _, w := range e.workers {
		w.mu.Lock()
		n := w.count
		c.Taps = len(w.taps)
		w.mu.Unlock()
		c.Packets += n.Packets
		c.Batches += n.Batches
		c.NoStream += n.NoStream
		c.Flooded += n.Flooded
		c.Malformed += n.Malformed
		c.SentDirect += n.SentDirect
		c.SentXDP += n.SentXDP
		c.SentRouted += n.SentRouted
		c.Fragmented += n.Fragmented
		c.SendErrors += n.SendErrors
		c.Stalls.add(n.Stalls)
		c.NiceDenied = c.NiceDenied || w.place.stuck.Load()
		c.Nice = max(c.Nice, int(w.place.shown.Load()))
		c.KernelDrops += n.KernelDrops + w.kernelDrops()
	}
	return c
}

// tproxyStream is one stream: entries in its worker's table. The worker's mutex guards what is not fixed.
//
// What a packet needs of it begins cache lines, see leg: the line of class and relay, the two legs, and an entry. The first of these is where the
// stream begins, as that is what the check reads that Go makes before it takes the address of a field: a line that no packet needs would be waited
// for there. The size is one that the memory manager has, and no power of two: of streams that are 2,048 bytes apart the same line has its place in one
// of two sets of the nearest cache, which do not hold those of a batch, and those of 1,000 streams have a thirty-second of the next one.
type tproxyStream struct {
	class  byte
	keep   bool // the class of each packet
	engine *TProxy
	worker *worker
	_      uint64
	relay

	once sync.Once
	_    [12]byte
	ends [2][2]portEnd
}

func (s *tproxyStream) localPort(side Side, p port) netip.AddrPort {
	a := s.legs[side].local
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(p))
}

// way finds the hop towards an address. The caller holds the worker's mutex.
func (s *tproxyStream) way(side Side, p port, to netip.Addr) *hop {
	l := &s.legs[side]
	at := l.hopOf(p)
	if h := *at; h == nil || h.dst != to {
		s.engine.hops.release(h)
		*at = s.engine.hops.get(l.local.Addr(), to)
	}
	return *at
}

func (s *tproxyStream) SetRemote(side Side, r Remote) error { return s.setRemote(side, r) }

func (s *tproxyStream) Withhold(side Side, on bool) { s.withhold(side, on) }

func (s *tproxyStream) Heard(side Side) (from netip.AddrPort, sent uint64, open bool) {
	return s.heard(side)
}

func (s *tproxyStream) SetCrypto(side Side, local, remote *Key) error {
	return s.setCrypto(side, local, remote)
}

func (s *tproxyStream) SetClockRate(pt uint8, hz uint32) { s.setClockRate(pt, hz) }

func (s *tproxyStream) Stats() Stats {
	in, out := s.stats()
	return Stats{Engine: s.engine.Name(), Inside: in, Outside: out}
}

func (s *tproxyStream) Close() {
	s.once.Do(func() {
		w := s.worker
		w.mu.Lock()
		for side := Inside; side <= Outside; side++ {
			for p := portRTP; p <= portRTCP; p++ {
				w.table.set(s.localPort(side, p), nil)
				at := s.legs[side].hopOf(p)
				s.engine.hops.release(*at)
				*at = nil
			}
		}
		w.mu.Unlock()
		s.wipe()
	})
}

// portEnd is a local port of a stream.
type portEnd struct {
	stream *tproxyStream
	// friend is where the last packet came from that was let through. What others send must not use its share up.
	friend netip.AddrPort
	slice  uint32    // of time, see flooded
	came   [2]uint32 // in the slice
	side   Side
	port   port
	seen   chan struct{} // of a probe, which has no stream
}

// portTable finds the endpoint of a local address and port: few addresses, and pages of ports that exist when one of
// them is used. The worker's mutex guards it.
type portTable struct {
	addrs []addrPorts
}

type addrPorts struct {
	addr  [4]byte
	pages [256]*[256]*portEnd
}

func (t *portTable) find(a netip.AddrPort) *portEnd { return t.at(a.Addr().As4(), a.Port()) }

func (t *portTable) at(addr [4]byte, port uint16) *portEnd {
	for i := range t.addrs {
		if t.addrs[i].addr == addr {
			if page := t.addrs[i].pages[port>>8]; page != nil {
				return page[port&0xff]
			}
			return nil
		}
	}
	return nil
}

// set with nil forgets; pages stay, there are at most 256 of 2 KiB an address.
func (t *portTable) set(a netip.AddrPort, e *portEnd) {
	addr, port := a.Addr().As4(), a.Port()
	for i := range t.addrs {
		if t.addrs[i].addr != addr {
			continue
		}
		page := &t.addrs[i].pages[port>>8]
		if *page == nil {
			*page = new([256]*portEnd)
		}
		(*page)[port&0xff] = e
		return
	}
	t.addrs = append(t.addrs, addrPorts{addr: addr})
	t.set(a, e)
}
