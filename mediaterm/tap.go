package mediaterm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"imeproxy/mediaterm/prefetch"
)

// The ring of a tap: packet(7), Documentation/networking/packet_mmap.rst. A frame has room for the longest datagram that is
// relayed and for what the kernel puts before it.
const (
	tapFrame     = 2304
	tapBlock     = 64 << 10
	tapFrames    = tapBlock / tapFrame // of a block
	tapAllFrames = 8192                // of all workers on a link: 16 ms of 500,000 packets/s, as other threads may take a worker's core for 10
	tapLeast     = 1024                // of one worker
)

// tap is a packet socket whose packets the kernel writes to memory that it shares with us: nothing is copied to the process by a
// system call. The kernel drops what comes while the ring is full. One worker uses it, under its mutex.
type tap struct {
	link  string
	index int // of the link when the tap was opened
	fd    int
	ring  []byte
	next  int // frame
	count int // frames
	drops atomic.Uint64
}

// openTap begins to fill the ring with the packets of a filter.
func openTap(link *net.Interface, frames int, filter []bpf.RawInstruction) (*tap, error) {
	fail := func(what string, err error) error { return fmt.Errorf("interface %s: %s: %w", link.Name, what, err) }
	// Without a protocol it receives nothing before filter and ring are there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fail("packet socket", err)
	}
	t := &tap{link: link.Name, index: link.Index, fd: fd}
	blocks := max(1, frames/tapFrames)
	t.count = blocks * tapFrames
	request := unix.TpacketReq{Block_size: tapBlock, Block_nr: uint32(blocks), Frame_size: tapFrame, Frame_nr: uint32(t.count)}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err == nil {
		err = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request)
	}
	if err == nil {
		t.ring, err = unix.Mmap(fd, 0, blocks*tapBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err == nil {
		err = t.setFilter(filter)
	}
	if err == nil {
		// All protocols, not that of IP alone: those are given their packets before the rules of the link's ingress are asked.
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: link.Index})
	}
	if err != nil {
		return nil, errors.Join(fail("packet ring", err), t.close())
	}
	return t, nil
}

func (t *tap) setFilter(filter []bpf.RawInstruction) error {
	list := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		list[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	return os.NewSyscallError("SO_ATTACH_FILTER", unix.SetsockoptSockFprog(t.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}))
}

func (t *tap) close() error {
	var err error
	if t.ring != nil {
		err = os.NewSyscallError("munmap", unix.Munmap(t.ring))
		t.ring = nil
	}
	if t.fd >= 0 {
		err = errors.Join(err, os.NewSyscallError("close", unix.Close(t.fd)))
		t.fd = -1
	}
	return err
}

// tapped is a packet in the ring. It is the kernel's again after release.
type tapped struct {
	status  *uint32
	ip      []byte // from the IP header on
	at      int64  // when it came, nanoseconds of the wall clock since 1970
	checked bool   // the checksum of UDP need not be
}

// tapAhead is how many frames before its own turn the first cache line of one is fetched, tapReady how many before it all of a packet of audio is,
// if it has come: the kernel has written them on another processor, and each line takes as long as a fifth of the work with a packet.
const (
	tapAhead = 8
	tapReady = 4
	tapLines = 5 // with 172 bytes of RTP
)

// read takes the next packet; ok is false when there is none.
func (t *tap) read() (p tapped, ok bool) {
	frame := t.frame(t.next)
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&frame[0]))
	status := atomic.LoadUint32(&h.Status)
	if status&unix.TP_STATUS_USER == 0 {
		return tapped{}, false
	}
	t.fetch()
	t.next = t.after(t.next, 1)
	begin := min(int(h.Net), tapFrame)
	end := min(begin+int(h.Snaplen), tapFrame)
	return tapped{
		status: &h.Status, ip: frame[begin:end], at: int64(h.Sec)*int64(time.Second) + int64(h.Nsec),
		checked: status&(unix.TP_STATUS_CSUMNOTREADY|unix.TP_STATUS_CSUM_VALID) != 0,
	}, true
}

// ready tells whether read has something.
func (t *tap) ready() bool {
	return atomic.LoadUint32(&(*unix.Tpacket2Hdr)(unsafe.Pointer(&t.frame(t.next)[0])).Status)&unix.TP_STATUS_USER != 0
}

// full tells whether more than half of the ring waits behind the packet that was read last.
func (t *tap) full() bool {
	return atomic.LoadUint32(&(*unix.Tpacket2Hdr)(unsafe.Pointer(&t.frame(t.after(t.next, t.count/2))[0])).Status)&unix.TP_STATUS_USER != 0
}

// frame is the nth of the ring.
func (t *tap) frame(n int) []byte {
	return t.ring[n/tapFrames*tapBlock+n%tapFrames*tapFrame:][:tapFrame]
}

// after is the frame so many behind n, fewer than there are.
func (t *tap) after(n, more int) int {
	if n += more; n >= t.count {
		n -= t.count
	}
	return n
}

// fetch fetches what is to be read soon. What has not come yet is not fetched but for its first line: the kernel would have to take it back.
func (t *tap) fetch() {
	prefetch.Lines(unsafe.Pointer(&t.frame(t.after(t.next, tapAhead))[0]), 1)
	soon := unsafe.Pointer(&t.frame(t.after(t.next, tapReady))[0])
	if atomic.LoadUint32(&(*unix.Tpacket2Hdr)(soon).Status)&unix.TP_STATUS_USER != 0 {
		prefetch.Lines(unsafe.Add(soon, 64), tapLines-1)
	}
}

func (p *tapped) release() {
	if p.status != nil {
		storeRelease(p.status, unix.TP_STATUS_KERNEL)
		p.status = nil
	}
}

// recover takes an error off the socket, such as that its link is down: it would end every poll at once.
func (t *tap) recover() {
	_, _ = unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ERROR)
}

// dropped is the number of packets for which the ring had no room.
func (t *tap) dropped() uint64 {
	if t.fd < 0 {
		return t.drops.Load()
	}
	if st, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		t.drops.Add(uint64(st.Drops)) // the kernel counts from 0 again
	}
	return t.drops.Load()
}
