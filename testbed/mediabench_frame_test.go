package testbed

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a frame of the load has before its payload: what the kernel is told of it (struct virtio_net_hdr), Ethernet, IPv4, UDP.
const (
	vnetLen   = 10
	frameHead = vnetLen + 14 + 20 + 8
)

// frameSocket sends many UDP datagrams from one address to one other with one system call, as frames: sockets of UDP need a third of the load's
// core for what is the same for all of them.
type frameSocket struct {
	fd     int
	head   [frameHead]byte
	id     uint16
	msgs   [mediaBatch]mmsg
	vecs   [mediaBatch]unix.Iovec
	bufs   [mediaBatch][frameHead + mediaFrame]byte
	sealed [mediaFrame]byte // of one packet
}

// newFrameSocket opens one to a neighbour on a link, whose Ethernet address a datagram to it brings to light.
func newFrameSocket(t T, h *Host, link string, from netip.AddrPort, to netip.Addr) *frameSocket {
	t.Helper()
	b := new(frameSocket)
	for i := range b.msgs {
		b.vecs[i].Base = &b.bufs[i][0]
		b.msgs[i].hdr.Iov = &b.vecs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	conn, err := h.Dial("udp", "", netip.AddrPortFrom(to, 9).String(), wait)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer conn.Close()
	var neighbour net.HardwareAddr
	Until(t, 5*time.Second, fmt.Sprintf("%s has the Ethernet address of %s", h.Name, to), func() bool {
		_, _ = conn.Write(nil) // a port that refuses it says so at the next call
		var name, mac string
		out, err := h.Run("ip", "neigh", "show", to.String(), "dev", link)
		if err == nil {
			_, _ = fmt.Sscanf(out, "%s lladdr %s", &name, &mac)
			neighbour, err = net.ParseMAC(mac)
		}
		return err == nil
	})
	err = h.Do(func() error {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		b.address(l.HardwareAddr, neighbour, from, to)
		if b.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("packet socket", err)
		}
		return os.NewSyscallError("bind", unix.Bind(b.fd, &unix.SockaddrLinklayer{Ifindex: l.Index}))
	})
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1}, {unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1}, {unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8 << 20},
	} {
		if err == nil {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(b.fd, o.level, o.name, o.value))
		}
	}
	if err != nil {
		t.Fatalf("%s of %s: %v", link, h.Name, err)
	}
	t.Cleanup(func() { unix.Close(b.fd) })
	return b
}

// address writes what all frames have in common. The checksum of UDP is left to the card, as a phone's system does.
func (b *frameSocket) address(own, neighbour net.HardwareAddr, from netip.AddrPort, to netip.Addr) {
	const needsChecksum, udpAt, checksumAt = 1, 14 + 20, 6
	vnet, ether := b.head[:vnetLen], b.head[vnetLen:]
	vnet[0] = needsChecksum
	binary.NativeEndian.PutUint16(vnet[6:], udpAt)
	binary.NativeEndian.PutUint16(vnet[8:], checksumAt)
	copy(ether, neighbour)
	copy(ether[6:], own)
	binary.BigEndian.PutUint16(ether[12:], unix.ETH_P_IP)
	ip := ether[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	src, dst := from.Addr().As4(), to.As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[20:], from.Port())
}

// payload is slot i's.
func (b *frameSocket) payload(i int) []byte { return b.bufs[i][frameHead:] }

// finish makes slot i a datagram of n bytes to a port.
func (b *frameSocket) finish(i, n int, port uint16) {
	frame := b.bufs[i][:frameHead+n]
	copy(frame, b.head[:vnetLen])
	b.complete(frame[vnetLen:], port)
	b.vecs[i].SetLen(len(frame))
}

// complete writes what stands before the payload of a frame, but for the checksum of UDP only what a card needs to make it.
func (b *frameSocket) complete(frame []byte, port uint16) (udp []byte) {
	copy(frame, b.head[vnetLen:])
	ip := frame[14:]
	b.id++
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], b.id)
	binary.BigEndian.PutUint16(ip[10:], ^wordSum(0, ip[:20]))
	udp = ip[20:]
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], wordSum(unix.IPPROTO_UDP+uint32(len(udp)), ip[12:20]))
	return udp
}

// completeChecked is complete with the checksum of UDP, of an even number of bytes.
func (b *frameSocket) completeChecked(frame []byte, port uint16) {
	udp := b.complete(frame, port)
	sum := ^wordSum(0, udp)
	if sum == 0 {
		sum = 0xffff // 0 would be none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}

// wordSum is the ones' complement sum of RFC 1071, of an even number of bytes, a packet's at most.
func wordSum(sum uint32, p []byte) uint16 {
	all := uint64(sum)
	for ; len(p) >= 8; p = p[8:] {
		eight := binary.BigEndian.Uint64(p)
		all += eight>>32 + eight&math.MaxUint32
	}
	for ; len(p) >= 2; p = p[2:] {
		all += uint64(binary.BigEndian.Uint16(p))
	}
	for all > math.MaxUint16 {
		all = all>>16 + all&math.MaxUint16
	}
	return uint16(all)
}

// send panics on what cannot happen on a host of the lab: a load that is not sent must not look like one that is lost.
func (b *frameSocket) send(n int) {
	for at := 0; at < n; {
		m, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.msgs[at])), uintptr(n-at), 0, 0, 0)
		if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR && errno != unix.ENOBUFS {
			panic(fmt.Sprintf("sendmmsg: %v", errno))
		}
		if errno == 0 {
			at += int(m)
		}
	}
}
