package netcheck

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An ARP question is repeated so often, with so much time for an answer to each.
const (
	arpTries = 3
	arpWait  = 200 * time.Millisecond
)

// arp is an ARP message for Ethernet and IPv4 (RFC 826).
type arp struct {
	reply              bool
	senderMAC, askedAs [6]byte // askedAs is the target's hardware address, zeros in a question
	sender, target     netip.Addr
}

const arpSize = 28

var arpHead = []byte{0, 1, 8, 0, 6, 4, 0}

// encode gives the message.
func (a arp) encode() []byte {
	op := byte(1)
	if a.reply {
		op = 2
	}
	b := append(bytes.Clone(arpHead), op)
	s, t := a.sender.As4(), a.target.As4()
	b = append(append(b, a.senderMAC[:]...), s[:]...)
	return append(append(b, a.askedAs[:]...), t[:]...)
}

// decodeARP reads a message; ok is false for what is none, or not for Ethernet and IPv4. What follows it is padding.
func decodeARP(b []byte) (a arp, ok bool) {
	if len(b) < arpSize || !bytes.Equal(b[:7], arpHead) || (b[7] != 1 && b[7] != 2) {
		return a, false
	}
	a.reply = b[7] == 2
	copy(a.senderMAC[:], b[8:])
	copy(a.askedAs[:], b[18:])
	a.sender, a.target = netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	return a, true
}

// probeAddress asks who has an address, without having one. nil: nobody, as far as anybody says.
func probeAddress(ctx context.Context, link *netlink.LinkAttrs, address netip.Addr) (owner net.HardwareAddr, err error) {
	return ask(ctx, link, netip.IPv4Unspecified(), address, func(a arp) bool {
		// Its owner, or somebody who is about to take it (RFC 5227 section 2.1.1).
		return a.sender == address || !a.reply && a.sender.IsUnspecified() && a.target == address
	})
}

// resolve asks for the hardware address of a neighbour. nil: it does not answer.
func resolve(ctx context.Context, link *netlink.LinkAttrs, own, neighbour netip.Addr) (owner net.HardwareAddr, err error) {
	return ask(ctx, link, own, neighbour, func(a arp) bool { return a.sender == neighbour })
}

// ask sends questions until a message of another host answers.
func ask(ctx context.Context, link *netlink.LinkAttrs, own, target netip.Addr, answers func(arp) bool) (net.HardwareAddr, error) {
	if len(link.HardwareAddr) != 6 {
		return nil, nil // no Ethernet: nobody to ask
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(bigEndian(unix.ETH_P_ARP)))
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	here := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ARP), Ifindex: link.Index}
	if err := unix.Bind(fd, here); err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", link.Name, err)
	}
	all := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ARP), Ifindex: link.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	question := arp{senderMAC: [6]byte(link.HardwareAddr), sender: own, target: target}.encode()
	buf := make([]byte, 256)
	for range arpTries {
		if err := unix.Sendto(fd, question, 0, all); err != nil {
			return nil, fmt.Errorf("question on %s: %w", link.Name, err)
		}
		for end := time.Now().Add(arpWait); ; {
			left := time.Until(end)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if left <= 0 {
				break
			}
			wait := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds())
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
				return nil, err
			}
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("answers on %s: %w", link.Name, err)
			}
			if a, ok := decodeARP(buf[:n]); ok && a.senderMAC != [6]byte(link.HardwareAddr) && answers(a) {
				return net.HardwareAddr(a.senderMAC[:]), nil
			}
		}
	}
	return nil, nil
}

// bigEndian is a number in the order of the network, as the kernel wants a protocol here.
func bigEndian(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
