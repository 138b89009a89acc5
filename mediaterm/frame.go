package mediaterm

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// Sizes of the headers that go before a payload.
const (
	etherLen = 14
	ipLen    = 20
	udpLen   = 8
	headroom = etherLen + ipLen + udpLen
)

const (
	protocolUDP = 17
	hopLimit    = 64
)

// putHeaders writes the IP and UDP headers into frame, whose payload begins at headroom. Fragments are allowed (RFC 6864
// wants the identification then): no ICMP error about a path reaches a socket that is bound to another address.
func putHeaders(frame []byte, src, dst netip.AddrPort, class byte, id uint16) {
	ip := frame[etherLen:]
	binary.BigEndian.PutUint64(ip, 0x45<<56|uint64(class)<<48|uint64(len(ip))<<32|uint64(id)<<16)
	binary.BigEndian.PutUint32(ip[8:], hopLimit<<24|protocolUDP<<16)
	from, to := src.Addr().As4(), dst.Addr().As4()
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	addresses := uint64(binary.LittleEndian.Uint32(from[:])) + uint64(binary.LittleEndian.Uint32(to[:]))
	binary.LittleEndian.PutUint16(ip[10:], ^fold(addresses+uint64(binary.LittleEndian.Uint32(ip))+uint64(binary.LittleEndian.Uint32(ip[4:]))+uint64(binary.LittleEndian.Uint16(ip[8:]))))
	udp := ip[ipLen:]
	// The checksum's own place counts as 0.
	binary.BigEndian.PutUint64(udp, uint64(src.Port())<<48|uint64(dst.Port())<<32|uint64(len(udp))<<16)
	sum := ^udpSumOf(addresses, udp) // not those of ip: memory that was written in fours, read in eights at once, is waited for
	if sum == 0 {
		sum = 0xffff // 0 means that there is none, RFC 768
	}
	binary.LittleEndian.PutUint16(udp[6:], sum)
}

// udpSum is the sum that the checksum of RFC 768 is made of: 0xffff over a datagram with a right one. The pseudo header is that of ip.
func udpSum(ip, udp []byte) uint16 {
	return udpSumOf(onesSum(ip[12:20], 0), udp)
}

// udpSumOf is udpSum with the sum of the two addresses.
func udpSumOf(addresses uint64, udp []byte) uint16 {
	pseudo := uint64(protocolUDP<<8) + uint64(bits.ReverseBytes16(uint16(len(udp)))) // as loaded from memory
	return fold(onesSum(udp, addresses+pseudo))
}

func putIPChecksum(ip []byte) {
	ip[10], ip[11] = 0, 0
	binary.LittleEndian.PutUint16(ip[10:], ^fold(onesSum(ip[:ipLen], 0)))
}

// onesSum adds b to a ones' complement sum of little-endian words; the order of bytes does not matter to it (RFC 1071).
func onesSum(b []byte, sum uint64) uint64 {
	whole := b
	for ; len(b) >= 64; b = b[64:] {
		// A chain of carries for each part alone: one that goes on is saved and restored at each end of the loop.
		s, c := bits.Add64(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[32:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[40:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[48:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[56:]), c)
		sum = addHalves(sum, s) + c
	}
	for ; len(b) >= 8; b = b[8:] {
		sum = addHalves(sum, binary.LittleEndian.Uint64(b))
	}
	switch {
	case len(b) == 0:
		return sum
	case len(whole) >= 8: // the last eight bytes without those that are counted: to copy the rest would take as long as the whole sum
		return addHalves(sum, binary.LittleEndian.Uint64(whole[len(whole)-8:])>>(64-8*len(b)))
	}
	var few [8]byte
	copy(few[:], b)
	return addHalves(sum, binary.LittleEndian.Uint64(few[:]))
}

// addHalves adds the two halves of a word, of which no datagram has so many that 64 bits would not hold the sum.
func addHalves(sum, word uint64) uint64 { return sum + word>>32 + word&math.MaxUint32 }

func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// fragment calls send for each part of an IP packet of frame that fits mtu, every part in a frame with the same room
// before it. part is memory for one.
func fragment(frame, part []byte, mtu int, send func(part []byte)) {
	ip := frame[etherLen:]
	size := (mtu - ipLen) &^ 7
	if size <= 0 {
		return
	}
	data := ip[ipLen:]
	for at := 0; at < len(data); at += size {
		n := min(size, len(data)-at)
		p := part[:etherLen+ipLen+n]
		copy(p, frame[:etherLen+ipLen])
		copy(p[etherLen+ipLen:], data[at:at+n])
		head := p[etherLen:]
		binary.BigEndian.PutUint16(head[2:], uint16(ipLen+n))
		flags := uint16(at / 8)
		if at+n < len(data) {
			flags |= 1 << 13 // more fragments
		}
		binary.BigEndian.PutUint16(head[6:], flags)
		putIPChecksum(head)
		send(p)
	}
}
