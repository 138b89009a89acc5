package mediaterm

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is the number of datagrams of one system call. While at least half of it comes, no batch is waited for.
	batchSize = 128
	// tproxyBuffer bounds the receive queue in bytes of kernel memory: a datagram of audio takes under 1 KiB of it, so
	// that it fills within 20 ms of what a worker can do. The kernel drops what comes then.
	tproxyBuffer = 4 << 20
	// sendBuffer of the transmitting sockets: several batches.
	sendBuffer = 4 << 20
	// controlLen has room for the original destination and the time of arrival.
	controlLen = 96
)

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// slot is the memory of one datagram's way through a worker.
type slot struct {
	rx, plain, sealed []byte // frames: payloads begin at headroom
	scratch           scratch
	from              unix.RawSockaddrInet4
	control           [controlLen]byte
	rxVec, txVec      unix.Iovec
	link              unix.RawSockaddrLinklayer
	to                unix.RawSockaddrInet4

	end    *portEnd
	at     time.Time
	stream *tproxyStream
	out    departure
	frame  []byte
	failed bool
}

// worker receives, transforms and sends on a thread of its own.
type worker struct {
	engine *TProxy
	number int
	port   uint16
	crypt  *crypt

	in     int // UDP, IP_TRANSPARENT on 127.0.0.1
	direct int // AF_PACKET
	routed int // raw IP with headers of ours
	event  int // eventfd: ends poll

	slots   [batchSize]slot
	rx      [batchSize]mmsghdr
	tx      [2][batchSize]mmsghdr // direct, routed
	txSlot  [2][batchSize]*slot
	txN     [2]int
	id      uint16
	part    []byte // of a fragmented packet
	started bool

	mu    sync.Mutex // guards everything that follows and all streams of the worker; held for a batch, never over a system call
	table portTable
	count EngineCounters

	touched uint64 // keeps the loads of touch from being left out
}

// Ways of transmit.
const (
	viaLink = iota
	viaKernel
)

func newWorker(e *TProxy, number int, c *crypt) (*worker, error) {
	w := &worker{engine: e, number: number, crypt: c, in: -1, direct: -1, routed: -1, event: -1, part: make([]byte, headroom+maxDatagram)}
	if err := w.openSockets(); err != nil {
		_ = w.close()
		return nil, err
	}
	const room = headroom + maxDatagram
	memory := make([]byte, 3*room*batchSize)
	for i := range w.slots {
		s := &w.slots[i]
		at := memory[3*room*i:]
		s.rx, s.plain, s.sealed = at[:room:room], at[room:2*room:2*room], at[2*room:3*room:3*room]
		s.scratch.plain, s.scratch.sealed = s.plain[headroom:], s.sealed[headroom:]
		s.rxVec.Base = &s.rx[headroom]
		s.rxVec.SetLen(maxDatagram)
		h := &w.rx[i].hdr
		h.Name, h.Iov, h.Control = (*byte)(unsafe.Pointer(&s.from)), &s.rxVec, &s.control[0]
		h.SetIovlen(1)
		h.Namelen = unix.SizeofSockaddrInet4
		h.SetControllen(controlLen)
		s.link = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: networkOrder(unix.ETH_P_IP), Halen: 6}
		s.to.Family = unix.AF_INET
		for way := range w.tx {
			w.tx[way][i].hdr.SetIovlen(1)
		}
	}
	return w, nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

func (w *worker) openSockets() (err error) {
	fail := func(what string, err error) error {
		return fmt.Errorf("media engine %s: %s: %w", EngineTProxy, what, err)
	}
	if w.in, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return fail("UDP socket", err)
	}
	for _, o := range []struct{ level, name int }{
		{unix.SOL_IP, unix.IP_TRANSPARENT}, {unix.SOL_IP, unix.IP_RECVORIGDSTADDR}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS},
	} {
		if err = unix.SetsockoptInt(w.in, o.level, o.name, 1); err != nil {
			return fail("transparent UDP socket (CAP_NET_RAW)", err)
		}
	}
	setBuffer(w.in, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, tproxyBuffer/2) // the kernel doubles it
	if err = unix.Bind(w.in, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fail("bind to the loopback address", err)
	}
	name, err := unix.Getsockname(w.in)
	if err != nil {
		return fail("getsockname", err)
	}
	w.port = uint16(name.(*unix.SockaddrInet4).Port)
	if w.direct, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fail("packet socket (CAP_NET_RAW)", err)
	}
	setBuffer(w.direct, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	if w.routed, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return fail("raw IP socket (CAP_NET_RAW)", err)
	}
	setBuffer(w.routed, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	if w.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fail("eventfd", err)
	}
	return nil
}

// setBuffer without the privilege of the first user namespace is limited by net.core.rmem_max: smaller, but it works.
func setBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

func (w *worker) close() error {
	var errs []error
	for _, fd := range []*int{&w.in, &w.direct, &w.routed, &w.event} {
		if *fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(*fd)))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// wake ends a poll.
func (w *worker) wake() {
	_, _ = unix.Write(w.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// kernelDrops of the receiving socket.
func (w *worker) kernelDrops() uint64 {
	const skMeminfoDrops, skMeminfoVars = 8, 9
	var mem [skMeminfoVars]uint32
	n := uint32(unsafe.Sizeof(mem))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(w.in), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(mem[skMeminfoDrops])
}

// run relays until the engine is closed.
func (w *worker) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	failures := 0
	for !w.engine.closed.Load() {
		n, errno := w.receive()
		switch {
		case n > 0:
			failures = 0
			w.relay(n)
			w.rest(n)
		case errno == unix.EAGAIN || errno == unix.EINTR:
			w.poll()
		default:
			// Such as ENOBUFS: memory is short. It must not spin, nor end what all calls depend on.
			if failures++; failures%readErrors == 1 {
				w.engine.log.Error("media cannot be received", "worker", w.number, "error", errno, "failures", failures)
			}
			time.Sleep(readPause)
		}
	}
}

// rest lets the next batch form. With batches half full or more there is no time for that.
func (w *worker) rest(n int) {
	if n >= batchSize/2 {
		return
	}
	if d := w.engine.wait.Load(); d > 0 {
		// The raw call keeps the thread's processor, which OpenTProxy has added for it: given away and taken back every time, it would cost
		// more than the packets. A signal, such as that of a garbage collection, makes the sleep shorter: no harm.
		t := unix.NsecToTimespec(d)
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
		return
	}
	w.poll()
}

// poll waits for a datagram or for wake.
func (w *worker) poll() {
	fds := [2]unix.PollFd{{Fd: int32(w.in), Events: unix.POLLIN}, {Fd: int32(w.event), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds[:], -1)
}

// receive fills slots. The raw call keeps the thread's processor: it does not block.
func (w *worker) receive() (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(w.in), uintptr(unsafe.Pointer(&w.rx[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// relay takes n datagrams to their streams and sends what comes of them.
func (w *worker) relay(n int) {
	w.mu.Lock()
	w.count.Packets += uint64(n)
	w.count.Batches++
	for i := range n {
		w.find(&w.slots[i], &w.rx[i])
	}
	w.touch(n)
	for i := range n {
		w.one(&w.slots[i], int(w.rx[i].n))
	}
	w.mu.Unlock()
	if w.txN == [2]int{} {
		return
	}
	w.send(viaLink, w.direct)
	w.send(viaKernel, w.routed)
	w.mu.Lock()
	w.account()
	w.mu.Unlock()
}

// find looks for the port that a datagram came to.
func (w *worker) find(s *slot, m *mmsghdr) {
	dst, port, at, ok := ancillary(s.control[:int(m.hdr.Controllen)])
	m.hdr.Namelen = unix.SizeofSockaddrInet4
	m.hdr.SetControllen(controlLen)
	s.end, s.at = nil, at
	if ok {
		s.end = w.table.at(dst, port)
	}
	if s.end == nil {
		w.count.NoStream++
	}
}

// touch reads a word of what the streams of a batch are about to need. The loads of different streams do not wait for each other,
// so that the cache is filled for many at once; done stream by stream, each would wait for its own.
func (w *worker) touch(n int) {
	var sum uint64
	for i := range n {
		if e := w.slots[i].end; e != nil && e.stream != nil {
			sum += e.stream.touch(e.side)
		}
	}
	w.touched = sum
}

// one takes a datagram of n bytes to its stream.
func (w *worker) one(s *slot, n int) {
	end := s.end
	if end == nil {
		return
	}
	if end.stream == nil {
		select {
		case end.seen <- struct{}{}:
		default:
		}
		return
	}
	pkt := s.rx[headroom : headroom+n]
	src := netip.AddrPortFrom(netip.AddrFrom4(s.from.Addr), networkOrder(s.from.Port))
	st := end.stream
	out, ok := st.take(end.side, end.port, src, pkt, classify(pkt), s.at, &s.scratch)
	if ok {
		w.queue(s, st, out)
	}
}

// ancillary reads the original destination and the time of arrival.
func ancillary(b []byte) (addr [4]byte, port uint16, at time.Time, ok bool) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			return addr, port, at, ok
		}
		data := b[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_ORIGDSTADDR && len(data) >= unix.SizeofSockaddrInet4:
			sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&data[0]))
			addr, port, ok = sa.Addr, networkOrder(sa.Port), true
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
			ts := (*unix.Timespec)(unsafe.Pointer(&data[0]))
			at = time.Unix(ts.Unix())
		}
		b = b[min(len(b), unix.CmsgSpace(n-unix.CmsgLen(0))):]
	}
	if at.IsZero() {
		at = time.Now()
	}
	return addr, port, at, ok
}

// queue puts a departure on the list of its way.
func (w *worker) queue(s *slot, st *tproxyStream, out departure) {
	base := s.rx
	switch &out.data[0] {
	case &s.plain[headroom]:
		base = s.plain
	case &s.sealed[headroom]:
		base = s.sealed
	}
	s.stream, s.out, s.failed = st, out, false
	s.frame = base[:headroom+len(out.data)]
	w.id++
	putHeaders(s.frame, st.localPort(out.side, out.port), out.to, st.class, w.id)
	link := st.way(out.side, out.port, out.to.Addr()).link.Load()
	if mtu := link.mtu; len(s.frame)-etherLen > mtu {
		w.count.Fragmented++
		fragment(s.frame, w.part, mtu, func(part []byte) { s.failed = !w.sendPart(link, part, out.to) || s.failed })
		st.account(out.side, out.kind, len(out.data), !s.failed)
		return
	}
	way := viaKernel
	if link.direct {
		way = viaLink
	}
	n := w.txN[way]
	w.txN[way]++
	w.txSlot[way][n] = s
	h := &w.tx[way][n].hdr
	h.Iov = &s.txVec
	if link.direct {
		copy(s.frame, link.ether[:])
		s.link.Ifindex = link.index
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.link)), unix.SizeofSockaddrLinklayer
		s.txVec.Base = &s.frame[0]
		s.txVec.SetLen(len(s.frame))
		return
	}
	s.to.Addr = out.to.Addr().As4()
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.to)), unix.SizeofSockaddrInet4
	s.txVec.Base = &s.frame[etherLen]
	s.txVec.SetLen(len(s.frame) - etherLen)
}

// sendPart sends one fragment at once: packets longer than the link allows are rare.
func (w *worker) sendPart(link *linkState, part []byte, to netip.AddrPort) bool {
	if link.direct {
		copy(part, link.ether[:])
		sa := unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: int(link.index), Halen: 6}
		return unix.Sendto(w.direct, part, unix.MSG_DONTWAIT, &sa) == nil
	}
	return unix.Sendto(w.routed, part[etherLen:], unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.Addr().As4()}) == nil
}

// send transmits one way's list. A packet that the system refuses is counted and passed over.
func (w *worker) send(way, fd int) {
	for at := 0; at < w.txN[way]; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&w.tx[way][at])), uintptr(w.txN[way]-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			at += int(n)
		case errno != unix.EINTR:
			w.txSlot[way][at].failed = true
			at++
		}
	}
}

// account counts what send did.
func (w *worker) account() {
	for way := range w.txN {
		for _, s := range w.txSlot[way][:w.txN[way]] {
			s.stream.account(s.out.side, s.out.kind, len(s.out.data), !s.failed)
			switch {
			case s.failed:
				w.count.SendErrors++
			case way == viaLink:
				w.count.SentDirect++
			default:
				w.count.SentRouted++
			}
			s.stream = nil
		}
		w.txN[way] = 0
	}
}

// probe sends to a port of this worker's kind that no stream has, and waits until it was seen here.
func (w *worker) probe(conn *net.UDPConn, addr netip.Addr, lo, hi uint16) error {
	e := &portEnd{seen: make(chan struct{}, 1)}
	at := uint16(0)
	w.mu.Lock()
	for p := uint32(lo); p <= uint32(hi) && at == 0; p++ {
		if w.engine.worker(uint16(p)) == w && w.table.at(addr.As4(), uint16(p)) == nil {
			at = uint16(p)
			w.table.set(netip.AddrPortFrom(addr, at), e)
		}
	}
	w.mu.Unlock()
	if at == 0 {
		return nil // all ports are in use, so that the rules work
	}
	defer func() {
		w.mu.Lock()
		w.table.set(netip.AddrPortFrom(addr, at), nil)
		w.mu.Unlock()
	}()
	if _, err := conn.WriteToUDPAddrPort([]byte("imeproxy"), netip.AddrPortFrom(addr, at)); err != nil {
		return fmt.Errorf("probe of the media rules: %w", err)
	}
	select {
	case <-e.seen:
		return nil
	case <-time.After(probeTime):
		return fmt.Errorf("a packet to the media address %s, port %d, did not come through the kernel's rules", addr, at)
	}
}
