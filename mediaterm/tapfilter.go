package mediaterm

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// PortRange is where media arrives: an IPv4 address and its ports.
type PortRange struct {
	Addr   netip.Addr
	Lo, Hi uint16
}

// Tap is a link from which workers read media packets before the network layer.
type Tap struct {
	Link    string
	Ranges  []PortRange    // what may be reached over the link
	Refused []netip.Prefix // IPv4 networks whose addresses cannot be on that link
}

const snapAll = 1 << 18

// tapFilter is the program by which the kernel finds the packets of one worker: whole IPv4 datagrams of UDP for one of the ranges,
// addressed to this host without a VLAN tag (the tagged ones are another link's), from none of the refused networks. What it leaves
// goes the ordinary way. The packet begins with its IP header.
func tapFilter(worker, workers int, ranges []PortRange, refused []netip.Prefix) ([]bpf.RawInstruction, error) {
	leave := bpf.RetConstant{}
	only := func(load bpf.Instruction, cond bpf.JumpTest, val uint32) []bpf.Instruction {
		return []bpf.Instruction{load, bpf.JumpIf{Cond: cond, Val: val, SkipTrue: 1}, leave}
	}
	var p []bpf.Instruction
	p = append(p, only(bpf.LoadExtension{Num: bpf.ExtProto}, bpf.JumpEqual, unix.ETH_P_IP)...)
	p = append(p, only(bpf.LoadExtension{Num: bpf.ExtType}, bpf.JumpEqual, unix.PACKET_HOST)...)
	p = append(p, only(bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}, bpf.JumpEqual, 0)...)
	p = append(p, only(bpf.LoadAbsolute{Off: 9, Size: 1}, bpf.JumpEqual, protocolUDP)...)
	p = append(p, bpf.LoadAbsolute{Off: 6, Size: 2}, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipFalse: 1}, leave)
	p = append(p, bpf.LoadMemShift{Off: 0}, bpf.LoadIndirect{Off: 2, Size: 2}, bpf.StoreScratch{Src: bpf.RegA, N: 0})
	p = append(p, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(workers-1) << 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(worker) << 1, SkipTrue: 1}, leave)
	const rangeLen = 6
	for i, r := range ranges {
		p = append(p,
			bpf.LoadAbsolute{Off: 16, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: addr4(r.Addr), SkipFalse: 4},
			bpf.LoadScratch{Dst: bpf.RegA, N: 0}, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(r.Lo), SkipFalse: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(r.Hi), SkipTrue: 1},
			bpf.Jump{Skip: uint32(rangeLen*(len(ranges)-1-i)) + 1})
	}
	p = append(p, leave)
	for _, n := range refused {
		mask := ^uint32(0)
		if n.Bits() < 32 {
			mask = ^(mask >> n.Bits())
		}
		p = append(p, bpf.LoadAbsolute{Off: 12, Size: 4}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: addr4(n.Masked().Addr()), SkipFalse: 1}, leave)
	}
	p = append(p, bpf.RetConstant{Val: snapAll})
	raw, err := bpf.Assemble(p)
	if err != nil {
		return nil, fmt.Errorf("filter of the media packets: %w", err)
	}
	return raw, nil
}

func addr4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// tappedDatagram takes an IPv4 packet that the filter let through apart; ok is false when its lengths or its checksum are wrong.
// checked tells that the kernel or the sender's own host vouches for the checksum.
func tappedDatagram(ip []byte, checked bool) (src, dst netip.AddrPort, payload []byte, ok bool) {
	if len(ip) < ipLen {
		return src, dst, nil, false
	}
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || header < ipLen || total > len(ip) || total < header+udpLen {
		return src, dst, nil, false
	}
	udp := ip[header:total]
	n := int(binary.BigEndian.Uint16(udp[4:]))
	if n < udpLen || n > len(udp) {
		return src, dst, nil, false
	}
	udp = udp[:n]
	if fold(onesSum(ip[:header], 0)) != 0xffff || !checked && udp[6]|udp[7] != 0 && udpSum(ip, udp) != 0xffff {
		return src, dst, nil, false
	}
	src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(udp))
	dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(udp[2:]))
	return src, dst, udp[udpLen:], true
}
