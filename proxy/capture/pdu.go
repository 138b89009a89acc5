package capture

import (
	"encoding/binary"
	"net/netip"

	"imeproxy/proxy/trace"
)

// Tags of Wireshark's exported PDUs (epan/exported_pdu.h); numbers are in network order.
const (
	tagEnd       = 0
	tagDissector = 12
	tagIPv4Src   = 20
	tagIPv4Dst   = 21
	tagPortType  = 24
	tagSrcPort   = 25
	tagDstPort   = 26
	portTypeTCP  = 2
)

func appendTag(b []byte, tag uint16, value []byte) []byte {
	pad := (4 - len(value)%4) % 4
	b = binary.BigEndian.AppendUint16(b, tag)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)+pad))
	return append(append(b, value...), make([]byte, pad)...)
}

// pdu is a SIP message with the addresses that it went between.
func pdu(e *trace.Event) []byte {
	b := appendTag(nil, tagDissector, []byte("sip"))
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	if e.From.Addr().Is4() && e.To.Addr().Is4() {
		b = appendTag(b, tagIPv4Src, e.From.Addr().AsSlice())
		b = appendTag(b, tagIPv4Dst, e.To.Addr().AsSlice())
	}
	b = appendTag(b, tagPortType, number(portTypeTCP))
	b = appendTag(b, tagSrcPort, number(uint32(e.From.Port())))
	b = appendTag(b, tagDstPort, number(uint32(e.To.Port())))
	b = appendTag(b, tagEnd, nil)
	return append(b, e.Data...)
}

// unpdu reads that back; false: it is cut short.
func unpdu(b []byte) (from, to netip.AddrPort, data []byte, ok bool) {
	var src, dst netip.Addr
	var sport, dport uint16
	for len(b) >= 4 {
		tag, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if b = b[4:]; len(b) < n {
			break
		}
		value := b[:n]
		b = b[n:]
		switch {
		case tag == tagEnd:
			return netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport), b, true
		case tag == tagIPv4Src && n == 4:
			src = netip.AddrFrom4([4]byte(value))
		case tag == tagIPv4Dst && n == 4:
			dst = netip.AddrFrom4([4]byte(value))
		case tag == tagSrcPort && n == 4:
			sport = uint16(binary.BigEndian.Uint32(value))
		case tag == tagDstPort && n == 4:
			dport = uint16(binary.BigEndian.Uint32(value))
		}
	}
	return from, to, nil, false
}
