package mediaterm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The memory of an xsk: chunks that take the frame of any packet that a link of the usual MTU takes whole. A worker sends batchSize
// packets at most before they are handed to the kernel; what is in the queue of a card beyond that has room for three batches more.
const (
	xskChunk  = 2048
	xskChunks = 4 * batchSize // a power of two, as the rings' sizes must be
)

// Frames do not all begin at the beginning of their chunk: those of chunks that are multiples of 2,048 apart would push each other out of the
// nearest cache.
const (
	xskStagger  = 64
	xskStaggers = 8
)

// xskTries bounds the calls that bring the kernel to take nothing. What is left over is tried again with the next batch, or a millisecond later
// where none comes; after xskPatience it goes by the packet socket.
const (
	xskTries    = 4
	xskPatience = 5 * time.Millisecond
)

// xsk sends frames on one link through a ring that it shares with the kernel (AF_XDP, Documentation/networking/af_xdp.rst): of a packet socket's
// work for each packet the kernel is spared the message, the address and the look at the headers. It uses the mode in which the kernel copies the
// frame, which every driver has, and which leaves the link's receiving alone. One worker uses it, under its mutex.
//
// A frame that the kernel has taken is with the driver, or lost there as any that a driver drops: nothing waits between. The ring for completions
// has a place for each chunk, so that it never is what stops the kernel.
//
// Like PACKET_QDISC_BYPASS it leaves out what is between a program and the driver: queueing disciplines, and packet sockets that want to see
// what is sent.
type xsk struct {
	index  int32
	fd     int
	memory []byte // the chunks
	rings  [2][]byte

	tx          xskRing
	descriptors []unix.XDPDesc
	pushed      uint32 // by put; the kernel knows of them after send
	consumed    uint32 // by the kernel, at the last look

	kick   func() unix.Errno // has the kernel look at the ring
	since  time.Time         // when frames were left over; zero: none are
	mark   uint32            // pushed when the batch began, with frames left over
	others bool              // a frame of the batch for the link goes another way
	broken bool              // frames go by the packet socket until it is closed

	done      xskRing
	finished  []uint64 // addresses of chunks
	reclaimed uint32
	chunks    []uint32 // that are free
}

// xskRing is where the kernel and the program tell each other how far they are.
type xskRing struct{ producer, consumer *uint32 }

// openXSK makes one for a queue of a link that nobody else sends through: AF_XDP lets a queue have one owner. The first is the worker's own.
func openXSK(link *net.Interface, worker int) (*xsk, error) {
	n := txQueues(link)
	var err error
	for i := range n {
		var x *xsk
		if x, err = openXSKQueue(link.Index, (worker+i)%n); err == nil {
			return x, nil
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	what := "AF_XDP socket"
	if errors.Is(err, unix.EBUSY) {
		what = "another program sends through each of its queues"
	}
	return nil, fmt.Errorf("interface %s: %s: %w", link.Name, what, err)
}

// txQueues is how many queues a link has for sending.
func txQueues(link *net.Interface) int {
	queues, _ := filepath.Glob("/sys/class/net/" + link.Name + "/queues/tx-*")
	return max(1, len(queues))
}

// xskUsable tells whether the system has what openXSK needs, as far as that can be seen without a link.
func xskUsable() error {
	x := &xsk{fd: -1}
	err := x.allocate()
	return errors.Join(err, x.close())
}

func openXSKQueue(index, queue int) (*xsk, error) {
	x := &xsk{index: int32(index), fd: -1}
	x.kick = x.sendto
	err := x.allocate()
	if err == nil {
		err = x.share()
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(x.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(index), QueueID: uint32(queue)}))
	}
	if err != nil {
		return nil, errors.Join(err, x.close())
	}
	return x, nil
}

// allocate opens the socket and registers the chunks.
func (x *xsk) allocate() (err error) {
	if x.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		x.fd = -1
		return fmt.Errorf("socket (CAP_NET_RAW): %w", err)
	}
	if x.memory, err = unix.Mmap(-1, 0, xskChunks*xskChunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&x.memory[0]))), Len: uint64(len(x.memory)), Size: xskChunk}
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(x.fd), unix.SOL_XDP, unix.XDP_UMEM_REG, uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0); errno != 0 {
		return fmt.Errorf("memory of %d KiB (limit of locked memory): %w", len(x.memory)>>10, errno)
	}
	return nil
}

// share makes the rings. The one for receiving is not used, but the kernel wants it.
func (x *xsk) share() error {
	for _, r := range []struct{ ring, size int }{{unix.XDP_UMEM_FILL_RING, 1}, {unix.XDP_UMEM_COMPLETION_RING, xskChunks}, {unix.XDP_TX_RING, xskChunks}} {
		if err := unix.SetsockoptInt(x.fd, unix.SOL_XDP, r.ring, r.size); err != nil {
			return os.NewSyscallError("ring", err)
		}
	}
	_ = unix.SetsockoptInt(x.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, batchSize) // kernels that do not know it take 32 packets at a call
	setBuffer(x.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	var at unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(at))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(x.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS, uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return os.NewSyscallError("XDP_MMAP_OFFSETS", errno)
	}
	var err error
	if x.rings[0], err = unix.Mmap(x.fd, unix.XDP_PGOFF_TX_RING, int(at.Tx.Desc)+xskChunks*int(unsafe.Sizeof(unix.XDPDesc{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if x.rings[1], err = unix.Mmap(x.fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, int(at.Cr.Desc)+xskChunks*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	word := func(ring []byte, at uint64) *uint32 { return (*uint32)(unsafe.Pointer(&ring[at])) }
	x.tx = xskRing{word(x.rings[0], at.Tx.Producer), word(x.rings[0], at.Tx.Consumer)}
	x.done = xskRing{word(x.rings[1], at.Cr.Producer), word(x.rings[1], at.Cr.Consumer)}
	x.descriptors = unsafe.Slice((*unix.XDPDesc)(unsafe.Pointer(&x.rings[0][at.Tx.Desc])), xskChunks)
	x.finished = unsafe.Slice((*uint64)(unsafe.Pointer(&x.rings[1][at.Cr.Desc])), xskChunks)
	for i := range uint32(xskChunks) {
		x.chunks = append(x.chunks, i)
	}
	return nil
}

func (x *xsk) close() error {
	var errs []error
	if x.fd >= 0 {
		errs = append(errs, os.NewSyscallError("close", unix.Close(x.fd)))
		x.fd = -1
	}
	for _, m := range append([][]byte{x.memory}, x.rings[:]...) {
		if m != nil {
			errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(m)))
		}
	}
	x.memory, x.rings = nil, [2][]byte{}
	return errors.Join(errs...)
}

// put copies a frame into a free chunk. False: there is none, or the frame is too long.
func (x *xsk) put(frame []byte) bool {
	if len(frame) > xskChunk {
		return false
	}
	if len(x.chunks) == 0 {
		if x.reclaim(); len(x.chunks) == 0 {
			return false
		}
	}
	n := x.chunks[len(x.chunks)-1]
	x.chunks = x.chunks[:len(x.chunks)-1]
	at := n * xskChunk
	if len(frame) <= xskChunk-xskStagger*(xskStaggers-1) {
		at += n % xskStaggers * xskStagger
	}
	copy(x.memory[at:], frame)
	x.descriptors[x.pushed%xskChunks] = unix.XDPDesc{Addr: uint64(at), Len: uint32(len(frame))}
	x.pushed++
	return true
}

// reclaim takes back the chunks of frames that have left.
func (x *xsk) reclaim() {
	for end := atomic.LoadUint32(x.done.producer); x.reclaimed != end; x.reclaimed++ {
		x.chunks = append(x.chunks, uint32(x.finished[x.reclaimed%xskChunks]/xskChunk))
	}
	atomic.StoreUint32(x.done.consumer, x.reclaimed)
}

// left is the number of frames that put has queued and the kernel has not taken.
func (x *xsk) left() uint32 { return x.pushed - x.consumed }

// queued iterates over the numbers and contents of the frames that the kernel has not taken, the oldest first.
func (x *xsk) queued(yield func(uint32, []byte) bool) {
	for n := x.consumed; n != x.pushed; n++ {
		d := &x.descriptors[n%xskChunks]
		if !yield(n+1, x.memory[d.Addr:][:d.Len]) {
			return
		}
	}
}

// sendto keeps the thread's processor: it does not block.
func (x *xsk) sendto() unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(x.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// send hands over what put has queued, up to a number of frames. The kernel may leave some, as while the device's own queue is full. With an
// error it never takes any again, and the xsk is of no use any more. What left then counts none of has gone, and nothing that it counts.
func (x *xsk) send(to uint32) error {
	atomic.StoreUint32(x.tx.producer, to)
	for tries := 0; tries < xskTries; {
		errno := x.kick()
		now := atomic.LoadUint32(x.tx.consumer)
		if now == x.consumed {
			tries++
		}
		x.consumed = now
		switch {
		case now == to:
			return nil
		case errno == 0, errno == unix.EAGAIN, errno == unix.EBUSY, errno == unix.ENOBUFS, errno == unix.EINTR:
		default:
			return errno
		}
	}
	return nil
}
