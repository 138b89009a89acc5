package mediaterm

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// rfc1071 is the sum of 16-bit words, as that document has it.
func rfc1071(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range parts { // of even lengths, but for the last
		for i, b := range p {
			sum += uint32(b) << (8 * (1 - i%2))
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum>>16 + sum)
}

// The sum of all lengths, whose parts are added in different ways, with the bytes that carry most.
func TestUDPSum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := udpLen; n < 400; n++ {
		for _, full := range []bool{false, true} {
			ip, udp := make([]byte, ipLen), make([]byte, n)
			for _, p := range [][]byte{ip, udp} {
				for i := range p {
					if p[i] = 0xff; !full {
						p[i] = byte(r.Uint32())
					}
				}
			}
			pseudo := append(append([]byte{}, ip[12:20]...), 0, protocolUDP, byte(n>>8), byte(n))
			want := rfc1071(pseudo, udp)
			if got := udpSum(ip, udp); got<<8|got>>8 != want { // of words as this machine reads them
				t.Fatalf("%d bytes, all 0xff is %v: %04x, want %04x", n, full, got<<8|got>>8, want)
			}
		}
	}
}

// A frame's checksums are right whatever the addresses, ports and length.
func TestHeadersAreRight(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		frame := make([]byte, headroom+n)
		for i := range frame {
			frame[i] = byte(r.Uint32())
		}
		addr := func() netip.AddrPort {
			v := r.Uint64()
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}), uint16(v>>32))
		}
		src, dst := addr(), addr()
		putHeaders(frame, src, dst, 0xb8, uint16(n))
		ip := frame[etherLen:]
		if rfc1071(ip[:ipLen]) != 0xffff {
			t.Fatalf("%d bytes from %s to %s: IP header %x", n, src, dst, ip[:ipLen])
		}
		udp := ip[ipLen:]
		if rfc1071(ip[12:20], []byte{0, protocolUDP, byte(len(udp) >> 8), byte(len(udp))}, udp) != 0xffff {
			t.Fatalf("%d bytes from %s to %s: UDP checksum of %x", n, src, dst, udp)
		}
		from, to, payload, ok := tappedDatagram(ip, false)
		if !ok || from != src || to != dst || len(payload) != n {
			t.Fatalf("%d bytes from %s to %s are read as %d from %s to %s", n, src, dst, len(payload), from, to)
		}
	}
}
