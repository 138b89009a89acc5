package mediaterm

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ways of transmit.
const (
	viaLink   = iota // frames to a neighbour, by a packet socket
	viaKernel        // packets that the kernel routes
	viaXDP           // frames to a neighbour, by the link's xsk
	ways
)

// queue puts the departure of a slot on the list of its way.
func (w *worker) queue(s *slot, st *tproxyStream) {
	out := &s.out
	base := s.rx
	switch &out.data[0] {
	case &s.plain[headroom]:
		base = s.plain
	case &s.sealed[headroom]:
		base = s.sealed
	case &s.rx[headroom]:
	default: // in the ring of a tap, which has no room for headers, and which the kernel gets back
		out.data = s.rx[headroom : headroom+copy(s.rx[headroom:], out.data)]
	}
	s.stream, s.failed = st, false
	s.frame = base[:headroom+len(out.data)]
	w.id++
	class := st.class
	if st.keep {
		class = s.class & codePoint
	}
	putHeaders(s.frame, st.localPort(out.side, out.port), out.to, class, w.id)
	link := st.way(out.side, out.port, out.to.Addr()).link.Load()
	if mtu := link.mtu; len(s.frame)-etherLen > mtu {
		w.count.Fragmented++
		fragment(s.frame, w.part, mtu, func(part []byte) { s.failed = !w.sendPart(link, part, out.to) || s.failed })
		st.account(out.side, out.kind, len(out.data), !s.failed)
		return
	}
	way := viaKernel
	if link.direct {
		copy(s.frame, link.ether[:])
		way = viaLink
	}
	if len(w.outs) > 0 && w.offer(s, link) {
		way = viaXDP
	}
	n := w.txN[way]
	s.turn = w.txN[viaLink] + w.txN[viaKernel] + w.txN[viaXDP]
	w.txN[way]++
	w.txSlot[way][n] = s
	if way == viaXDP {
		return
	}
	h := &w.tx[way][n].hdr
	h.Iov = &s.txVec
	if way == viaLink {
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

// sendAll transmits what the batch has queued. Where frames of one stream may be on more than one list, as when a neighbour has just become
// known or a capture has begun, all go in the order in which they came.
func (w *worker) sendAll() {
	if !w.mixed {
		for _, x := range w.outs {
			if x.left() > 0 {
				w.hand(x, x.pushed, true)
			}
		}
	}
	if w.mixed || w.txN[viaLink] > 0 && w.txN[viaKernel] > 0 {
		w.sendInTurn()
	} else {
		w.send(viaLink, w.direct, 0, w.txN[viaLink])
		w.send(viaKernel, w.routed, 0, w.txN[viaKernel])
	}
	w.dropBroken()
}

// sendInTurn sends one run of frames of the same way after the other.
func (w *worker) sendInTurn() {
	var at [ways]int
	if w.mixed {
		w.sendEarlier()
	} else {
		at[viaXDP] = w.txN[viaXDP]
	}
	for {
		way, until := -1, batchSize
		for i := range at {
			if at[i] == w.txN[i] {
				continue
			}
			switch turn := w.txSlot[i][at[i]].turn; {
			case way < 0:
				way = i
			case turn < w.txSlot[way][at[way]].turn:
				way, until = i, w.txSlot[way][at[way]].turn
			default:
				until = min(until, turn)
			}
		}
		if way < 0 {
			return
		}
		begin := at[way]
		for at[way] < w.txN[way] && w.txSlot[way][at[way]].turn < until {
			at[way]++
		}
		switch way {
		case viaXDP:
			w.handRun(w.txSlot[way][begin:at[way]])
		case viaLink:
			w.send(way, w.direct, begin, at[way])
		default:
			w.send(way, w.routed, begin, at[way])
		}
	}
}

// send transmits a part of one way's list. A packet that the system refuses is counted and passed over.
func (w *worker) send(way, fd, at, end int) {
	for at < end {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&w.tx[way][at])), uintptr(end-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			at += int(n)
		case errno != unix.EINTR:
			w.txSlot[way][at].failed = true
			at++
		}
	}
}

// account counts what sendAll did.
func (w *worker) account() {
	for way := range w.txN {
		for _, s := range w.txSlot[way][:w.txN[way]] {
			s.stream.account(s.out.side, s.out.kind, len(s.out.data), !s.failed)
			switch {
			case s.failed:
				w.count.SendErrors++
			case way == viaKernel:
				w.count.SentRouted++
			case way == viaXDP:
				w.count.SentXDP++
				fallthrough
			default:
				w.count.SentDirect++
			}
			s.stream, s.xsk = nil, nil
		}
		w.txN[way] = 0
	}
	w.count.SendErrors += w.late
	w.mixed, w.spilled, w.late = false, false, 0
	for _, x := range w.outs {
		x.others = false
	}
}
