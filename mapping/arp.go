package mapping

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	arpLen     = 28 // RFC 826 packet for Ethernet and IPv4
	arpRequest = 1
	arpReply   = 2
	arpProbes  = 3 // RFC 5227 PROBE_NUM
)

// arpPacket is an ARP packet for Ethernet and IPv4.
type arpPacket struct {
	op                   uint16
	senderMAC, targetMAC [6]byte
	sender, target       [4]byte
}

func (p arpPacket) marshal() []byte {
	b := make([]byte, 0, arpLen)
	b = binary.BigEndian.AppendUint16(b, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, p.op)
	b = append(b, p.senderMAC[:]...)
	b = append(b, p.sender[:]...)
	b = append(b, p.targetMAC[:]...)
	return append(b, p.target[:]...)
}

// parseARP reads a packet as it comes from the wire; padding behind it is ignored.
func parseARP(b []byte) (p arpPacket, ok bool) {
	if len(b) < arpLen || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != unix.ETH_P_IP || b[4] != 6 || b[5] != 4 {
		return p, false
	}
	p.op = binary.BigEndian.Uint16(b[6:])
	copy(p.senderMAC[:], b[8:])
	copy(p.sender[:], b[14:])
	copy(p.targetMAC[:], b[18:])
	copy(p.target[:], b[24:])
	return p, p.op == arpRequest || p.op == arpReply
}

// conflicts tells whether the packet shows another user of addr (RFC 5227 section 2.1.1): one that sends from it, or one that
// probes for it at the same time.
func (p arpPacket) conflicts(addr [4]byte, own func([6]byte) bool) bool {
	if own(p.senderMAC) {
		return false
	}
	probe := p.op == arpRequest && p.sender == [4]byte{} && p.target == addr
	return p.sender == addr || probe
}

// ProbeARP asks three times within timeout, as RFC 5227 has it, whether someone on the link has the address, and returns who.
// The sender address of the probes is 0.0.0.0, so that no neighbour learns anything from them. Answers of this machine's own
// interfaces do not count. It needs CAP_NET_RAW; a link that is down or knows no ARP is an error.
func ProbeARP(link string, addr netip.Addr, timeout time.Duration) (inUse bool, mac net.HardwareAddr, err error) {
	if !addr.Is4() {
		return false, nil, fmt.Errorf("probe %v: not an IPv4 address", addr)
	}
	s, err := openARP(link)
	if err != nil {
		return false, nil, err
	}
	defer s.close()
	own, err := ownMACs()
	if err != nil {
		return false, nil, err
	}
	probe := arpPacket{op: arpRequest, senderMAC: s.mac, target: addr.As4()}
	end := time.Now().Add(timeout)
	for n := range arpProbes {
		if err := s.send(probe); err != nil {
			return false, nil, err
		}
		wait := time.Until(end) / time.Duration(arpProbes-n)
		p, found, err := s.receive(time.Now().Add(wait), func(p arpPacket) bool { return p.conflicts(probe.target, own) })
		if err != nil || found {
			return found, p.senderMAC[:], err
		}
	}
	return false, nil, nil
}

// announceARP is the announcement of RFC 5227 section 2.3: neighbours replace what they have in their caches. Links without
// ARP are passed over.
func announceARP(link string, addr netip.Addr) error {
	s, err := openARP(link)
	if errors.Is(err, errNoARP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	return s.send(arpPacket{op: arpRequest, senderMAC: s.mac, sender: addr.As4(), target: addr.As4()})
}

var errNoARP = errors.New("the link knows no ARP")

// ownMACs tells the hardware addresses of this namespace.
func ownMACs() (func([6]byte) bool, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	own := map[[6]byte]bool{}
	for _, i := range ifaces {
		if len(i.HardwareAddr) == 6 {
			own[[6]byte(i.HardwareAddr)] = true
		}
	}
	return func(m [6]byte) bool { return own[m] }, nil
}

// arpSocket is a packet socket for ARP on one link.
type arpSocket struct {
	fd    int
	index int
	mac   [6]byte
}

func openARP(link string) (*arpSocket, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", link, err)
	}
	if len(i.HardwareAddr) != 6 || i.Flags&net.FlagLoopback != 0 {
		return nil, fmt.Errorf("interface %s: %w", link, errNoARP)
	}
	// Protocol 0 until the bind: no packet of another link comes in between.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("ARP on %s: %w", link, ErrRawCapability)
	}
	if err != nil {
		return nil, fmt.Errorf("ARP on %s: %w", link, os.NewSyscallError("socket", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: i.Index}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("ARP on %s: %w", link, os.NewSyscallError("bind", err))
	}
	return &arpSocket{fd: fd, index: i.Index, mac: [6]byte(i.HardwareAddr)}, nil
}

// htons gives a protocol number the byte order that packet sockets want.
func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

func (s *arpSocket) close() { _ = unix.Close(s.fd) }

func (s *arpSocket) send(p arpPacket) error {
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: s.index, Halen: 6}
	copy(to.Addr[:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	if err := unix.Sendto(s.fd, p.marshal(), 0, to); err != nil {
		return fmt.Errorf("send ARP: %w", err)
	}
	return nil
}

// receive waits until end for a packet that the predicate takes.
func (s *arpSocket) receive(end time.Time, take func(arpPacket) bool) (arpPacket, bool, error) {
	buf := make([]byte, 128)
	for {
		left := time.Until(end)
		if left <= 0 {
			return arpPacket{}, false, nil
		}
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return arpPacket{}, false, fmt.Errorf("wait for ARP: %w", err)
		}
		n, from, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return arpPacket{}, false, fmt.Errorf("receive ARP: %w", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if p, ok := parseARP(buf[:n]); ok && take(p) {
			return p, true, nil
		}
	}
}
