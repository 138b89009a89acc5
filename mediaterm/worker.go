package mediaterm

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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

	// Of the datagram as it came.
	pkt    []byte
	src    netip.AddrPort
	at     time.Duration // see Instant
	class  byte          // with which it came
	end    *portEnd
	tapped tapped // memory of pkt when it came by a tap

	sum    *sumJob // made beforehand for opening it
	leaves bool    // out is to be queued
	stream *tproxyStream
	out    departure
	frame  []byte
	turn   int // within the batch
	xsk    *xsk
	number uint32 // how many frames the xsk has had with this one
	failed bool
}

// A port gets no more than portLimit packets in a slice: 10,000 a second are more than any stream of audio or video has, and what a flood
// of one port costs the others is little then.
const (
	floodSlice = 20 * time.Millisecond
	portLimit  = 200
)

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
	tx      [2][batchSize]mmsghdr // viaLink, viaKernel
	txSlot  [ways][batchSize]*slot
	txN     [ways]int
	mixed   bool   // frames of the batch for one link may take two ways
	spilled bool   // a frame of the batch found no chunk
	late    uint64 // frames of earlier batches that the system refused in the end
	id      uint16
	part    []byte // of a fragmented packet
	started bool

	now    time.Time // of the batch: before it was received
	polls  []unix.PollFd
	tapped atomic.Bool   // there are taps
	last   time.Time     // batch
	gap    time.Duration // between batches, of late
	asked  time.Time     // when the socket was asked last
	more   bool          // it had packets then, or a poll has told of some since
	place  priority
	stall  stallWatch

	outs    []*xsk // of the worker's own thread alone
	list    captureList
	looked  time.Time
	seen    []int32  // links on which somebody captured packets then, 0: on all
	without []string // links for which it was told that there is no xsk; of the goroutine that changes the taps

	mu    sync.Mutex // guards everything that follows and all streams of the worker; held for a batch, never over a system call
	table portTable
	taps  []*tap
	count EngineCounters

	wanted []*xsk // what outs is to become

	tapDrops uint64                 // of taps that are closed
	keys     [2 * batchSize]*keyUse // of a batch, see touch
	watchers [batchSize]Watcher     // of a batch, see touch

	opened, sealed sumList // of a batch
}

func newWorker(e *TProxy, number int, c *crypt) (*worker, error) {
	w := &worker{engine: e, number: number, crypt: c, in: -1, direct: -1, routed: -1, event: -1, list: captureList{fd: -1}, part: make([]byte, headroom+maxDatagram)}
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
		{unix.SOL_IP, unix.IP_TRANSPARENT}, {unix.SOL_IP, unix.IP_RECVORIGDSTADDR}, {unix.SOL_IP, unix.IP_RECVTOS}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS},
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
	if w.engine.xdp {
		if w.list, err = openCaptureList(); err != nil {
			return fail("list of packet sockets", err)
		}
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
	for _, fd := range []*int{&w.in, &w.direct, &w.routed, &w.event, &w.list.fd} {
		if *fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(*fd)))
			*fd = -1
		}
	}
	for _, t := range w.taps {
		errs = append(errs, t.close())
	}
	w.taps = nil
	for _, x := range append(w.outs, w.wanted...) {
		errs = append(errs, x.close()) // a second time does nothing
	}
	w.outs, w.wanted = nil, nil
	return errors.Join(errs...)
}

// wake ends a poll.
func (w *worker) wake() {
	_, _ = unix.Write(w.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// kernelDrops are packets for which the socket and the rings had no room.
func (w *worker) kernelDrops() uint64 {
	w.mu.Lock()
	n := w.tapDrops
	for _, t := range w.taps {
		n += t.dropped()
	}
	w.mu.Unlock()
	return n + w.socketDrops()
}

func (w *worker) socketDrops() uint64 {
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
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0)
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default again
	w.place.begin()
	defer w.place.end()
	if err := w.place.denied; err != nil && w.number == 0 {
		w.engine.log.Info("media has no place before other programs: busy ones may break up voices", "error", err)
	}
	w.stall.open()
	defer w.stall.close()
	failures := 0
	for !w.engine.closed.Load() {
		w.now = time.Now()
		w.turn()
		n, errno := w.receive()
		switch {
		case errno == 0 || errno == unix.EAGAIN || errno == unix.EINTR:
			failures = 0
		default:
			// Such as ENOBUFS: memory is short. It must not spin, nor end what all calls depend on.
			if failures++; failures%readErrors == 1 {
				w.engine.log.Error("media cannot be received", "worker", w.number, "error", errno, "failures", failures)
			}
			time.Sleep(readPause)
		}
		if n = w.relay(n); n > 0 {
			w.engine.processors.want()
			w.stall.came()
			w.pace()
			w.rest(n)
		} else {
			w.poll()
		}
	}
	w.leave()
}

// turn is what a turn of the worker begins with: the worker's place among others, and whether it had to wait for its turn.
func (w *worker) turn() {
	w.place.look(w.now)
	if d, forCore := w.stall.look(w.now); d > 0 {
		one := Stalls{Number: 1, Longest: d}
		if forCore {
			one.ForCore = 1
		}
		w.mu.Lock()
		w.count.Stalls.add(one)
		w.mu.Unlock()
	}
}

// timerSlack is how late a worker's sleeps may end: the system's 50 microseconds would be a tenth of DefaultWait.
const timerSlack = 5 * time.Microsecond

// rest lets the next batch form. With batches half full or more there is no time for that.
func (w *worker) rest(n int) {
	if n >= batchSize/2 {
		return
	}
	held := w.engine.processors.held.Load()
	if d := w.engine.wait.Load(); d > 0 {
		// The raw call keeps the thread's processor, once one has been added for it: given away and taken back every time, it would cost
		// more than the packets. A signal, such as that of a garbage collection, makes the sleep shorter: no harm.
		t := unix.NsecToTimespec(d)
		if !held {
			_ = unix.Nanosleep(&t, nil)
			return
		}
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
		return
	}
	if held && w.linger() {
		w.place.retreat(w.now) // it takes its core whole
		return
	}
	// More will come soon, and must not wait until the scheduler has a processor free. When nothing does, poll follows.
	w.watch()
	if held {
		w.pollKeeping(MaxWait)
	} else {
		t := unix.NsecToTimespec(int64(MaxWait))
		_, _ = unix.Ppoll(w.polls, &t, nil)
	}
	w.woken()
}

// Packets that come less than lingerGap apart are looked for without sleeping when none may wait: to sleep and to be woken takes longer than
// most gaps. lingerFor is how long.
const (
	lingerGap = 100 * time.Microsecond
	lingerFor = 2 * lingerGap
)

// pace notes how far apart batches come. A pause counts as ten gaps that are too long, so that it is soon forgotten.
func (w *worker) pace() {
	w.gap += (min(w.now.Sub(w.last), 10*lingerGap) - w.gap) / 8
	w.last = w.now
}

// linger looks for the next packet of the taps until there is one; false: it was not tried, or in vain.
func (w *worker) linger() bool {
	if w.gap > lingerGap || w.more || !w.tapped.Load() { // what the socket brings it would not see
		return false
	}
	for begin, looked := time.Now(), time.Duration(0); looked < lingerFor; {
		w.mu.Lock()
		found := slices.ContainsFunc(w.taps, (*tap).ready)
		w.mu.Unlock()
		if found {
			return true
		}
		// Not at once again: who waits for the mutex, as streams that come and go do, would hardly ever find it free.
		for next := looked + time.Microsecond; looked < next; {
			looked = time.Since(begin)
		}
	}
	return false
}

// watch lists what may wake the worker.
func (w *worker) watch() {
	w.polls = append(w.polls[:0], unix.PollFd{Fd: int32(w.in), Events: unix.POLLIN}, unix.PollFd{Fd: int32(w.event), Events: unix.POLLIN})
	w.mu.Lock()
	for _, t := range w.taps {
		w.polls = append(w.polls, unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN})
	}
	w.mu.Unlock()
}

// keepFor is how long after a worker's last packet it waits with its processor kept, where one was added for it. The scheduler takes one back that
// is waited with so that it knows of it, after 10 ms, and its watcher then wakes up fifty times within a millisecond: with media that comes all at
// once each 20 ms that cost a quarter of all.
const keepFor = 100 * time.Millisecond

// poll waits for a datagram or for wake.
func (w *worker) poll() {
	w.watch()
	timeout, keep := -1, keepFor
	if w.waiting() {
		timeout, keep = 1, time.Millisecond
	}
	if w.now.Sub(w.last) < keepFor && w.engine.processors.held.Load() {
		w.pollKeeping(keep)
	} else {
		_, _ = unix.Poll(w.polls, timeout)
	}
	w.woken()
}

// pollKeeping waits with the processor kept, for a time at most. A signal, such as the scheduler sends every 10 ms, ends it.
func (w *worker) pollKeeping(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.polls[0])), uintptr(len(w.polls)), uintptr(unsafe.Pointer(&t)), 0, 0, 0)
}

// woken takes off what would end the next poll at once, but for packets.
func (w *worker) woken() {
	if w.polls[1].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(w.event, count[:])
	}
	w.more = w.more || w.polls[0].Revents != 0
	for _, p := range w.polls[2:] {
		if p.Revents&^unix.POLLIN != 0 {
			w.mu.Lock()
			for _, t := range w.taps {
				t.recover()
			}
			w.mu.Unlock()
			return
		}
	}
}

// askSocket is how often the socket is asked for packets while taps bring them and it had none: few come by it then, such as fragments, and a call
// that brings nothing costs as much as half a packet.
const askSocket = 2 * time.Millisecond

// receive fills slots from the socket: half of them where taps bring most packets. The raw call keeps the thread's processor: it does not
// block.
func (w *worker) receive() (int, unix.Errno) {
	most := batchSize
	if w.tapped.Load() {
		if !w.more && w.now.Sub(w.asked) < askSocket {
			return 0, 0
		}
		most /= 2
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(w.in), uintptr(unsafe.Pointer(&w.rx[0])), uintptr(most), unix.MSG_DONTWAIT, 0, 0)
	w.asked, w.more = w.now, errno == 0
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// relay takes n datagrams of the socket, and those of the taps, to their streams, sends what comes of them, and tells how many they were.
func (w *worker) relay(n int) int {
	w.begin()
	w.mu.Lock()
	for i := range n {
		w.fromSocket(&w.slots[i], &w.rx[i])
	}
	n = w.fromTaps(n)
	if n == 0 {
		w.mu.Unlock()
		return 0
	}
	w.count.Packets += uint64(n)
	w.count.Batches++
	w.batch(n)
	w.mu.Unlock()
	if w.txN == [ways]int{} {
		return n
	}
	w.sendAll()
	w.mu.Lock()
	w.account()
	w.mu.Unlock()
	return n
}

// fromSocket describes a datagram that recvmmsg brought.
func (w *worker) fromSocket(s *slot, m *mmsghdr) {
	var c ancillary
	c.read(s.control[:int(m.hdr.Controllen)])
	m.hdr.Namelen = unix.SizeofSockaddrInet4
	m.hdr.SetControllen(controlLen)
	s.pkt = s.rx[headroom : headroom+int(m.n)]
	s.src = netip.AddrPortFrom(netip.AddrFrom4(s.from.Addr), networkOrder(s.from.Port))
	s.at, s.class, s.end = Instant(w.now)-age(w.now.UnixNano(), c.at.UnixNano()), c.class, nil
	if c.addressed {
		s.end = w.table.at(c.addr, c.port)
	}
}

// longestInTap is how long a packet may wait while more than half of the ring does behind it: what a core that is too slow for all that comes would
// relay later than that helps nobody, and keeps what has just come from being in time. A ring with less holds what came while the worker did not
// have its core, which is as good as any.
const longestInTap = 20 * time.Millisecond

// fromTaps fills the slots from n on with packets of the taps, some of each in turn, and returns how many slots are full.
func (w *worker) fromTaps(n int) int {
	const turn = 32
	now, wall := Instant(w.now), w.now.UnixNano()
	for came := true; came && n < batchSize; {
		came = false
		for _, t := range w.taps {
			for end := min(n+turn, batchSize); n < end; {
				p, ok := t.read()
				if !ok {
					break
				}
				came = true
				age := age(wall, p.at)
				if age > longestInTap && t.full() {
					w.count.KernelDrops++
					p.release()
					continue
				}
				s := &w.slots[n]
				src, dst, payload, ok := tappedDatagram(p.ip, p.checked)
				if !ok {
					w.count.Malformed++
					p.release()
					continue
				}
				s.src, s.pkt, s.at, s.class, s.tapped = src, payload, now-age, p.ip[1], p
				s.end = w.table.at(dst.Addr().As4(), dst.Port())
				n++
			}
		}
	}
	return n
}

// age is how long ago a packet came, whose time the kernel told by the wall clock, both in nanoseconds since 1970; taken off the reading of the
// monotonic clock it gives the packet's time by that, so that a step of the wall clock does not look like a fault of the network.
func age(wall, at int64) time.Duration {
	age := time.Duration(wall - at)
	if age < 0 || age > time.Second {
		return 0
	}
	return age
}

// flooded tells whether a port has had more packets in this slice of time than a stream sends. The source that the stream has its packets from
// is counted apart: strangers who flood the port do not silence the call.
func (e *portEnd) flooded(at time.Duration, src netip.AddrPort, limit int) bool {
	if slice := sliceOf(at); slice != e.slice {
		e.slice, e.came = slice, [2]uint32{}
	}
	who := 0
	if src == e.friend {
		who = 1
	}
	e.came[who]++
	return int(e.came[who]) > limit
}

func sliceOf(at time.Duration) uint32 { return uint32(at / floodSlice) }

// one takes a datagram to its stream.
func (w *worker) one(s *slot) {
	end := s.end
	s.leaves = false
	switch {
	case end == nil:
		w.count.NoStream++
	case end.flooded(s.at, s.src, w.engine.portLimit):
		w.count.Flooded++
	case end.stream == nil:
		select {
		case end.seen <- struct{}{}:
		default:
		}
	default:
		w.crypt.ready = s.sum
		if s.leaves = end.stream.take(&s.out, end.side, end.port, s.src, s.pkt, classify(s.pkt), s.at, &s.scratch); s.leaves {
			end.friend = s.src
		} else {
			s.out.data = nil // a ring's memory must not be held
		}
		w.crypt.ready = nil
	}
}
