package mediaterm

import (
	"encoding/binary"

	"github.com/pion/rtcp"
)

// Sizes of the fixed parts, RFC 3550 sections 5.1 and 6.4.
const (
	rtpHeaderLen  = 12
	rtcpHeaderLen = 8
)

// packetKind is what a datagram claims to be by its first bytes.
type packetKind int

const (
	kindRTP packetKind = iota
	kindRTCP
	kindSTUN      // RFC 7983: first byte 0-3
	kindDTLS      // RFC 7983: first byte 20-63
	kindUnknown   // any other version
	kindTooShort  // too short for the header that it begins
	kindMalformed // the header's own lengths do not fit
)

// classify tells RTP from RTCP by the second byte (RFC 5761 section 4: 192-223 is RTCP,
// that is payload types 64-95) and checks that an RTP header lies within the datagram.
// It looks at nothing that SRTP encrypts.
func classify(p []byte) packetKind {
	if len(p) == 0 {
		return kindTooShort
	}
	if p[0]>>6 != 2 {
		switch {
		case p[0] <= 3:
			return kindSTUN
		case p[0] >= 20 && p[0] <= 63:
			return kindDTLS
		}
		return kindUnknown
	}
	if len(p) < rtcpHeaderLen {
		return kindTooShort
	}
	if p[1] >= 192 && p[1] <= 223 {
		return kindRTCP
	}
	return classifyRTP(p)
}

func classifyRTP(p []byte) packetKind {
	if len(p) < rtpHeaderLen {
		return kindTooShort
	}
	n := rtpHeaderLen + 4*int(p[0]&0x0f)
	if p[0]&0x10 == 0 {
		if len(p) < n {
			return kindMalformed
		}
		return kindRTP
	}
	if len(p) < n+4 {
		return kindMalformed
	}
	// RFC 9335 profiles mean an encrypted extension: never signalled by us, and pion
	// would refuse it with an error that looks like any other.
	if profile := binary.BigEndian.Uint16(p[n:]); profile == 0xC0DE || profile == 0xC2DE {
		return kindMalformed
	}
	if n += 4 + 4*int(binary.BigEndian.Uint16(p[n+2:])); len(p) < n {
		return kindMalformed
	}
	return kindRTP
}

// rtpHeader holds the fields of the fixed header that the relay uses.
type rtpHeader struct {
	ssrc, timestamp uint32
	seq             uint16
	payloadType     uint8
}

// rtpHeaderSize is the length of the whole header of a packet that classify took for RTP.
func rtpHeaderSize(p []byte) int {
	n := rtpHeaderLen + 4*int(p[0]&0x0f)
	if p[0]&0x10 != 0 {
		n += 4 + 4*int(binary.BigEndian.Uint16(p[n+2:]))
	}
	return n
}

// parseRTP reads the fixed header of a packet that classify took for RTP.
func parseRTP(p []byte) rtpHeader {
	return rtpHeader{
		payloadType: p[1] & 0x7f,
		seq:         binary.BigEndian.Uint16(p[2:]),
		timestamp:   binary.BigEndian.Uint32(p[4:]),
		ssrc:        binary.BigEndian.Uint32(p[8:]),
	}
}

// rtcpSSRC is the sender of a compound packet (its first packet's SSRC).
func rtcpSSRC(p []byte) uint32 { return binary.BigEndian.Uint32(p[4:]) }

// validCompound walks the headers of a compound RTCP packet: every packet of version 2
// and of RTCP's type range, the lengths adding up to the datagram exactly. Bodies are
// not looked into, so that report blocks unknown to us pass. Reduced-size packets
// (RFC 5506), which need not begin with a report, pass too.
func validCompound(p []byte) bool {
	if len(p) < rtcpHeaderLen {
		return false
	}
	for len(p) > 0 {
		var h rtcp.Header
		if err := h.Unmarshal(p); err != nil || h.Type < 192 || h.Type > 223 {
			return false
		}
		n := 4 * (int(h.Length) + 1)
		if n > len(p) || h.Padding && n != len(p) {
			return false
		}
		p = p[n:]
	}
	return true
}
