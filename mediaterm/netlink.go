package mediaterm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// eventGroups are the changes that a way depends on.
const eventGroups = unix.RTMGRP_NEIGH | unix.RTMGRP_LINK | unix.RTMGRP_TC | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV4_IFADDR | 1<<(unix.RTNLGRP_IPV4_RULE-1)

// Neighbour states in which the hardware address may be used.
const neighbourUsable = unix.NUD_REACHABLE | unix.NUD_PERMANENT | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE

// netlinkTimeout bounds the wait for an answer of the kernel.
const netlinkTimeout = time.Second

// netlinkConn asks the kernel for routes, links and neighbours, or listens to their changes. Not for concurrent use.
type netlinkConn struct {
	file  *os.File
	seq   uint32
	buf   []byte
	links map[int32]linkInfo
}

// plainQueues are the queueing disciplines that links have when nobody has asked for any.
var plainQueues = []string{"noqueue", "noop", "mq", "pfifo_fast", "fq_codel", "fq"}

type linkInfo struct {
	ok     bool // up, Ethernet, with ARP
	mac    [6]byte
	mtu    int
	shaped bool
}

func openNetlink(groups uint32) (*netlinkConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	if groups != 0 {
		setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, 1<<20)
	}
	return &netlinkConn{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10), links: map[int32]linkInfo{}}, nil
}

func (c *netlinkConn) close() error { return c.file.Close() }

func (c *netlinkConn) forgetLinks() { clear(c.links) }

// message begins a request: netlink header, then the family's fixed part. finish fills in the length.
func message(typ, flags uint16, seq uint32, fixed []byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, 128)
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return append(b, fixed...)
}

func attribute(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// ask sends a request and returns the kernel's one answer; for an acknowledgement it is empty.
func (c *netlinkConn) ask(typ, flags uint16, fixed []byte, with func(b []byte) []byte) ([]byte, error) {
	c.seq++
	b := with(message(typ, flags|unix.NLM_F_REQUEST, c.seq, fixed))
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	if _, err := c.file.Write(b); err != nil {
		return nil, fmt.Errorf("netlink request: %w", err)
	}
	if err := c.file.SetReadDeadline(time.Now().Add(netlinkTimeout)); err != nil {
		return nil, fmt.Errorf("netlink answer: %w", err)
	}
	for {
		n, err := c.file.Read(c.buf)
		if err != nil {
			return nil, fmt.Errorf("netlink answer: %w", err)
		}
		for h, body := range netlinkMessages(c.buf[:n]) {
			switch {
			case h.seq != c.seq: // late, of a request that was given up
			case h.typ == unix.NLMSG_ERROR && len(body) >= 4:
				if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return nil, unix.Errno(-code)
				}
				return nil, nil
			default:
				return body, nil
			}
		}
	}
}

// netlinkMessages iterates over type, sequence number and body.
func netlinkMessages(b []byte) iter.Seq2[netlinkHeader, []byte] {
	return func(yield func(netlinkHeader, []byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) {
				return
			}
			h := netlinkHeader{typ: binary.NativeEndian.Uint16(b[4:]), seq: binary.NativeEndian.Uint32(b[8:])}
			if !yield(h, b[unix.SizeofNlMsghdr:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

type netlinkHeader struct {
	typ uint16
	seq uint32
}

// attributes iterates over the attributes that follow a message's fixed part.
func attributes(body []byte, fixed int) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for b := body[min(len(body), fixed):]; len(b) >= 4; {
			n := int(binary.NativeEndian.Uint16(b))
			if n < 4 || n > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n]) {
				return
			}
			b = b[min(len(b), (n+3)&^3):]
		}
	}
}

// lookup finds the way from one of our addresses to a destination.
func (c *netlinkConn) lookup(src, dst netip.Addr) *linkState {
	fixed := make([]byte, unix.SizeofRtMsg)
	fixed[0], fixed[1], fixed[2] = unix.AF_INET, 32, 32
	body, err := c.ask(unix.RTM_GETROUTE, 0, fixed, func(b []byte) []byte {
		return attribute(attribute(b, unix.RTA_DST, dst.AsSlice()), unix.RTA_SRC, src.AsSlice())
	})
	if err != nil || len(body) < unix.SizeofRtMsg {
		return unknownWay
	}
	way := linkState{mtu: defaultMTU, via: dst}
	plain, mtu := body[7] == unix.RTN_UNICAST, 0
	for typ, v := range attributes(body, unix.SizeofRtMsg) {
		switch {
		case typ == unix.RTA_OIF && len(v) == 4:
			way.index = int32(binary.NativeEndian.Uint32(v))
		case typ == unix.RTA_GATEWAY && len(v) == 4:
			way.via = netip.AddrFrom4([4]byte(v))
		case typ == unix.RTA_VIA, typ == unix.RTA_ENCAP, typ == unix.RTA_ENCAP_TYPE, typ == unix.RTA_MULTIPATH:
			plain = false
		case typ == unix.RTA_METRICS:
			for metric, m := range attributes(v, 0) {
				if metric == unix.RTAX_MTU && len(m) == 4 {
					mtu = int(binary.NativeEndian.Uint32(m))
				}
			}
		}
	}
	link := c.link(way.index)
	way.shaped = link.shaped
	if link.mtu > ipLen+8 {
		way.mtu = link.mtu
	}
	if mtu > ipLen+8 {
		way.mtu = min(way.mtu, mtu)
	}
	if !plain || !link.ok {
		return &way
	}
	mac, usable := c.neighbour(way.index, way.via)
	if usable {
		way.direct = true
		copy(way.ether[:], mac[:])
		copy(way.ether[6:], link.mac[:])
		binary.BigEndian.PutUint16(way.ether[12:], unix.ETH_P_IP)
	}
	return &way
}

// link describes an interface, from memory where it can.
func (c *netlinkConn) link(index int32) linkInfo {
	if l, ok := c.links[index]; ok {
		return l
	}
	fixed := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	body, err := c.ask(unix.RTM_GETLINK, 0, fixed, func(b []byte) []byte { return b })
	if err != nil || len(body) < unix.SizeofIfInfomsg {
		return linkInfo{}
	}
	const up = unix.IFF_UP | unix.IFF_RUNNING
	flags := binary.NativeEndian.Uint32(body[8:])
	ethernet := binary.NativeEndian.Uint16(body[2:]) == unix.ARPHRD_ETHER
	l := linkInfo{ok: flags&up == up && flags&unix.IFF_NOARP == 0 && ethernet}
	hasMAC := false
	for typ, v := range attributes(body, unix.SizeofIfInfomsg) {
		switch {
		case typ == unix.IFLA_ADDRESS && len(v) == 6:
			l.mac, hasMAC = [6]byte(v), true
		case typ == unix.IFLA_MTU && len(v) == 4:
			l.mtu = int(binary.NativeEndian.Uint32(v))
		case typ == unix.IFLA_QDISC:
			l.shaped = !slices.Contains(plainQueues, string(bytes.TrimRight(v, "\x00")))
		}
	}
	l.ok = l.ok && hasMAC
	c.links[index] = l
	return l
}

// neighbour returns the hardware address of a neighbour that may be used. A stale one is used, and the kernel is told
// so, which makes it ask the neighbour again: else nobody would, as the kernel sees none of our packets.
func (c *netlinkConn) neighbour(index int32, via netip.Addr) (mac [6]byte, usable bool) {
	fixed := make([]byte, unix.SizeofNdMsg)
	fixed[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	dst := func(b []byte) []byte { return attribute(b, unix.NDA_DST, via.AsSlice()) }
	body, err := c.ask(unix.RTM_GETNEIGH, 0, fixed, dst)
	if err != nil || len(body) < unix.SizeofNdMsg {
		return mac, false
	}
	for typ, v := range attributes(body, unix.SizeofNdMsg) {
		if typ == unix.NDA_LLADDR && len(v) == 6 {
			mac, usable = [6]byte(v), true
		}
	}
	state := binary.NativeEndian.Uint16(body[8:])
	if !usable || state&neighbourUsable == 0 {
		return mac, false
	}
	if state&unix.NUD_STALE != 0 {
		fixed[10] = unix.NTF_USE
		if _, err := c.ask(unix.RTM_NEWNEIGH, unix.NLM_F_ACK, fixed, dst); err != nil {
			return mac, false // without CAP_NET_ADMIN: packets by the kernel's way make it ask
		}
	}
	return mac, true
}

// read waits for changes: the neighbours that changed, or all when anything else did or changes were lost.
func (c *netlinkConn) read() (neighbours []netip.Addr, all bool, err error) {
	n, err := c.file.Read(c.buf)
	if errors.Is(err, unix.ENOBUFS) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("netlink events: %w", err)
	}
	for h, body := range netlinkMessages(c.buf[:n]) {
		if h.typ != unix.RTM_NEWNEIGH && h.typ != unix.RTM_DELNEIGH {
			all = true
			continue
		}
		for typ, v := range attributes(body, unix.SizeofNdMsg) {
			if typ == unix.NDA_DST && len(v) == 4 {
				neighbours = append(neighbours, netip.AddrFrom4([4]byte(v)))
			}
		}
	}
	return neighbours, all, nil
}
