package testbed

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sort"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"golang.org/x/sys/unix"
)

// The load of the media benchmark: packets of G.711 (172 bytes of RTP, 20 ms) for many streams from one socket, and a socket
// that counts what comes out of the relay. Both work in batches, or they would cost more than what they measure.

const (
	mediaBatch   = 64
	mediaPayload = 160
	mediaHeader  = 12
	mediaFrame   = mediaHeader + mediaPayload + 32 // room for a tag
	sampleCost   = 512                             // of so many packets one gets to the socket while CPU time is measured,
	sampleDelay  = 16                              // and of so many while the delay is
	latencySlots = 1 << 8                          // of the newest packets of a stream
)

type mmsg struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// batchSocket receives many datagrams with one system call.
type batchSocket struct {
	fd      int
	msgs    [mediaBatch]mmsg
	vecs    [mediaBatch]unix.Iovec
	bufs    [mediaBatch][mediaFrame + 64]byte
	control [mediaBatch][64]byte
}

// newBatchSocket opens one that the runtime does not know, which it would wake for each datagram.
func newBatchSocket(t T, h *Host, addr netip.AddrPort) *batchSocket {
	t.Helper()
	b := new(batchSocket)
	for i := range b.msgs {
		b.vecs[i].Base = &b.bufs[i][0]
		b.msgs[i].hdr.Iov = &b.vecs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	err := h.Do(func() (err error) {
		if b.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("socket", err)
		}
		return os.NewSyscallError("bind", unix.Bind(b.fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}))
	})
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	t.Cleanup(func() { unix.Close(b.fd) })
	for opt, v := range map[int]int{unix.SO_RCVBUFFORCE: 32 << 20, unix.SO_TIMESTAMPNS: 1} {
		_ = unix.SetsockoptInt(b.fd, unix.SOL_SOCKET, opt, v) // smaller buffers show as loss
	}
	return b
}

// receive takes the datagrams that have come.
func (b *batchSocket) receive() int {
	for i := range b.msgs {
		b.vecs[i].SetLen(len(b.bufs[i]))
		b.msgs[i].hdr.Control = &b.control[i][0]
		b.msgs[i].hdr.SetControllen(len(b.control[i]))
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.msgs[0])), mediaBatch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// mediaStream is one direction of one call in the generator.
type mediaStream struct {
	to   netip.AddrPort
	ssrc uint32
	seq  uint16
	seal *srtp.Context // nil: plain RTP
	open *srtp.Context // of what comes out, for the first packet; nil: plain RTP
	sent [latencySlots]int64
}

// mediaLoad drives one direction.
type mediaLoad struct {
	out     *frameSocket
	in      *batchSocket
	end     *farEnd // where in is
	streams []*mediaStream
	bySSRC  map[uint32]*mediaStream

	made   []byte // packets for the ring of frames, in their order, where they are made beforehand
	length int    // of each

	sent     int
	received int64        // as the far end counted
	sampled  atomic.Int64 // at the socket
	wrong    atomic.Int64 // that the far end of the stream could not have used
	delays   []int64      // nanoseconds
}

// rate is packets a second; burst sends one packet of every stream each 20 ms, else they are spread evenly.
type mediaRun struct {
	rate  int
	burst bool
	time  time.Duration
}

// sharpTimer makes sleeps of the calling goroutine's thread end on time, to which it is bound until the function is called that it returns. The
// thread must not end with its goroutine: it may have started programs of the lab, which would be killed with it.
func sharpTimer() (undo func()) {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	return func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default again
		runtime.UnlockOSThread()
	}
}

// nap keeps the thread's processor of the scheduler: to give it away and take it back a hundred times a millisecond would be most of the load.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// run sends for a time and returns when nothing more comes.
func (l *mediaLoad) run(t T, r mediaRun) {
	t.Helper()
	settle := l.begin(t)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		defer sharpTimer()()
		l.send(r)
	}()
	<-sent
	settle()
}

// begin counts what comes, until the function is called that it returns and nothing more comes.
func (l *mediaLoad) begin(t T) (settle func()) {
	t.Helper()
	before := l.end.came(t)
	l.sent, l.delays = 0, l.delays[:0]
	l.sampled.Store(0)
	l.wrong.Store(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go l.count(stop, done)
	return func() {
		t.Helper()
		last := int64(-1)
		for now := l.end.came(t); now != last; now = l.end.came(t) {
			last = now
			time.Sleep(60 * time.Millisecond)
		}
		l.received = last - before
		close(stop)
		<-done
	}
}

// mostBehind is how far a load may be behind its pace and still make up for it.
const mostBehind = 5 * time.Millisecond

func (l *mediaLoad) send(r mediaRun) {
	step := 100 * time.Microsecond
	if r.burst {
		step = 20 * time.Millisecond
	}
	begin, late := time.Now(), time.Duration(0)
	next := 0
	for {
		passed := time.Since(begin)
		if passed >= r.time {
			return
		}
		due := int(int64(r.rate) * int64((passed-late).Truncate(step)+step) / int64(time.Second))
		// A load that was held up goes on from there: made up for at once, a tenth of a second would be a burst that no telephones send.
		if behind := due - l.sent - int(int64(r.rate)*int64(mostBehind)/int64(time.Second)); behind > 0 && !r.burst {
			late += time.Duration(int64(behind) * int64(time.Second) / int64(r.rate))
			due -= behind
		}
		for l.sent < due {
			n := 0
			for ; n < mediaBatch && l.sent < due; n++ {
				s := l.streams[next]
				next = (next + 1) % len(l.streams)
				s.packet(l.out, n)
				l.sent++
			}
			l.out.send(n)
		}
		if rest := passed.Truncate(step) + step - time.Since(begin); rest > 0 {
			nap(rest)
		}
	}
}

// packet puts the stream's next packet into a slot.
func (s *mediaStream) packet(b *frameSocket, i int) {
	s.sent[s.seq%latencySlots] = time.Now().UnixNano()
	b.finish(i, s.write(b, b.payload(i)), s.to.Port())
}

// write puts it into p, which has room for a tag, and tells its length. b lends its memory.
func (s *mediaStream) write(b *frameSocket, p []byte) int {
	p = p[:mediaHeader+mediaPayload]
	p[0], p[1] = 0x80, 0
	binary.BigEndian.PutUint16(p[2:], s.seq)
	binary.BigEndian.PutUint32(p[4:], uint32(s.seq)*160)
	binary.BigEndian.PutUint32(p[8:], s.ssrc)
	s.seq++
	if s.seal != nil {
		out, err := s.seal.EncryptRTP(b.sealed[:0], p, nil)
		if err == nil {
			p = append(p[:0], out...)
		}
	}
	return len(p)
}

// count takes what comes out of the relay.
func (l *mediaLoad) count(stop, done chan struct{}) {
	defer close(done)
	defer sharpTimer()()
	for {
		n := l.in.receive()
		if n == 0 {
			select {
			case <-stop:
				return
			default:
				// Not poll: who delivers to a sleeping receiver pays for waking it, and that is the relay.
				nap(200 * time.Microsecond)
				continue
			}
		}
		for i := range n {
			l.take(l.in.bufs[i][:l.in.msgs[i].n], l.in.control[i][:l.in.msgs[i].hdr.Controllen])
		}
	}
}

func (l *mediaLoad) take(p, control []byte) {
	if len(p) < mediaHeader {
		l.wrong.Add(1)
		return
	}
	s := l.bySSRC[binary.BigEndian.Uint32(p[8:])]
	if s == nil {
		l.wrong.Add(1)
		return
	}
	l.sampled.Add(1)
	seq := binary.BigEndian.Uint16(p[2:])
	if seq%16 == 0 {
		l.check(s, p)
	}
	if at := arrival(control); at > 0 {
		l.delays = append(l.delays, at-s.sent[seq%latencySlots])
	}
}

// check proves that the packet is what the far end of the stream can use.
func (l *mediaLoad) check(s *mediaStream, p []byte) {
	if s.open != nil {
		var h rtp.Header
		plain, err := s.open.DecryptRTP(nil, p, &h)
		if err != nil {
			l.wrong.Add(1)
			return
		}
		p = plain
	}
	if len(p) != mediaHeader+mediaPayload {
		l.wrong.Add(1)
	}
}

// arrival is the kernel's time of a datagram in nanoseconds, 0 when it gave none.
func arrival(control []byte) int64 {
	msgs, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:]))
		}
	}
	return 0
}

// percentile of the delays in microseconds.
func (l *mediaLoad) percentile(p float64) float64 {
	if len(l.delays) == 0 {
		return 0
	}
	sort.Slice(l.delays, func(i, j int) bool { return l.delays[i] < l.delays[j] })
	return float64(l.delays[int(p*float64(len(l.delays)-1))]) / 1000
}

func (l *mediaLoad) String() string {
	return fmt.Sprintf("%d sent, %d received, %d wrong", l.sent, l.received, l.wrong.Load())
}
