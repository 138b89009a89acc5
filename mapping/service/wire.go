package service

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Method is the private STUN method of a mapping request.
const Method = 0x00F

// Message classes (RFC 8489 section 5).
const (
	classRequest    = 0x000
	classSuccess    = 0x100
	classError      = 0x110
	classBits       = 0x110
	headerSize      = 20
	magicCookie     = 0x2112A442
	fingerprintXOR  = 0x5354554E
	maxMessage      = 1024 // the length field, without the header
	familyIPv4      = 1
	familyIPv6      = 2
	comprehensionOK = 0x8000 // attributes from here on may be unknown
)

// Attributes (RFC 8489 section 14, RFC 8656 section 18).
const (
	attrErrorCode         = 0x0009
	attrUnknownAttributes = 0x000A
	attrLifetime          = 0x000D
	attrXORPeerAddress    = 0x0012
	attrXORMappedAddress  = 0x0020
	attrFingerprint       = 0x8028
)

// Code is the number of an error response.
type Code int

// Error codes (RFC 8489 section 14.8, RFC 8656 section 19).
const (
	CodeMalformed        Code = 400
	CodeForbidden        Code = 403
	CodeUnknownAttribute Code = 420
	CodeFamily           Code = 440
	CodeQuota            Code = 486
	CodeInternal         Code = 500
	CodeNoPort           Code = 508
)

// Codes lists all error codes.
func Codes() []Code {
	return []Code{CodeMalformed, CodeForbidden, CodeUnknownAttribute, CodeFamily, CodeQuota, CodeInternal, CodeNoPort}
}

// Phrase is the reason phrase of an error response, and its name in counters.
func (c Code) Phrase() string {
	switch c {
	case CodeMalformed:
		return "Bad Request"
	case CodeForbidden:
		return "Forbidden"
	case CodeUnknownAttribute:
		return "Unknown Attribute"
	case CodeFamily:
		return "Address Family not Supported"
	case CodeQuota:
		return "Mapping Quota Reached"
	case CodeNoPort:
		return "Insufficient Capacity"
	}
	return "Server Error"
}

// message is one whole frame, decoded.
type message struct {
	typ         uint16
	id          [12]byte
	fingerprint bool           // it carried one, right or wrong
	target      netip.AddrPort // of a good request
	code        Code           // of a bad one; 0 = good
	unknown     []uint16       // with CodeUnknownAttribute
}

func (m *message) isRequest() bool { return m.typ&classBits == classRequest }

// badFrame tells whether the bytes that have come cannot begin a message of this protocol. It judges each field as soon as it is there.
func badFrame(b []byte) bool {
	if len(b) > 0 && b[0]&0xC0 != 0 {
		return true
	}
	if len(b) >= 4 {
		if n := binary.BigEndian.Uint16(b[2:]); n%4 != 0 || n > maxMessage {
			return true
		}
	}
	cookie := [4]byte{0x21, 0x12, 0xA4, 0x42}
	for i, c := range cookie {
		if len(b) > 4+i && b[4+i] != c {
			return true
		}
	}
	return false
}

// frameSize is the size of the message that b begins with; false when b is too short to tell.
func frameSize(b []byte) (int, bool) {
	if len(b) < headerSize {
		return 0, false
	}
	return headerSize + int(binary.BigEndian.Uint16(b[2:])), true
}

// decode reads one whole frame that badFrame has passed. What is wrong with a request is in its code.
func decode(b []byte) message {
	m := message{typ: binary.BigEndian.Uint16(b)}
	copy(m.id[:], b[8:headerSize])
	if !m.isRequest() {
		return m
	}
	var peer []byte
	hasPeer := false
	for at := headerSize; at < len(b); {
		// The length is a multiple of 4 and so is every step: a header always fits.
		typ, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		begin := at
		at += 4
		if n > len(b)-at {
			m.code = CodeMalformed
			return m
		}
		value := b[at : at+n]
		at += (n + 3) &^ 3
		switch {
		case typ == attrFingerprint:
			m.fingerprint = true
			if n != 4 || at != len(b) || binary.BigEndian.Uint32(value) != fingerprint(b[:begin]) {
				m.code = CodeMalformed
				return m
			}
		case typ == attrXORPeerAddress:
			if !hasPeer { // RFC 8489 section 14: only the first counts
				peer, hasPeer = value, true
			}
		case typ < comprehensionOK && !known(typ) && !contains(m.unknown, typ):
			m.unknown = append(m.unknown, typ)
		}
	}
	switch {
	case m.typ != Method:
		m.code = CodeMalformed
	case len(m.unknown) > 0:
		m.code = CodeUnknownAttribute
	case !hasPeer:
		m.code = CodeMalformed
	default:
		m.target, m.code = peerAddress(peer)
	}
	return m
}

// known lists the comprehension-required attributes of the protocol. Those that have no business in a request are ignored, as RFC 8489
// section 6.3 says of known but unexpected ones.
func known(typ uint16) bool {
	switch typ {
	case attrErrorCode, attrUnknownAttributes, attrLifetime, attrXORPeerAddress, attrXORMappedAddress:
		return true
	}
	return false
}

func contains(list []uint16, v uint16) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// peerAddress reads XOR-PEER-ADDRESS (RFC 8656 section 18.3). Of an IPv6 address the masked transaction ID is of no interest.
func peerAddress(v []byte) (netip.AddrPort, Code) {
	if len(v) < 4 {
		return netip.AddrPort{}, CodeMalformed
	}
	port := binary.BigEndian.Uint16(v[2:]) ^ magicCookie>>16
	switch {
	case v[1] == familyIPv6 && len(v) == 20 && port != 0:
		return netip.AddrPort{}, CodeFamily
	case v[1] != familyIPv4 || len(v) != 8 || port == 0:
		return netip.AddrPort{}, CodeMalformed
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(v[4:])^magicCookie)
	return netip.AddrPortFrom(netip.AddrFrom4(a), port), 0
}

func fingerprint(b []byte) uint32 { return crc32.ChecksumIEEE(b) ^ fingerprintXOR }

// begin starts an answer to m.
func (m *message) begin(class uint16) []byte {
	b := make([]byte, headerSize, 96)
	binary.BigEndian.PutUint16(b, m.typ|class)
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	copy(b[8:], m.id[:])
	return b
}

// attribute appends one attribute with its padding.
func attribute(b []byte, typ uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// finish sets the length and, where the request had one, appends FINGERPRINT.
func (m *message) finish(b []byte) []byte {
	n := len(b) - headerSize
	if m.fingerprint {
		// The checksum covers a header whose length holds the attribute already (RFC 8489 section 14.7).
		binary.BigEndian.PutUint16(b[2:], uint16(n+8))
		return attribute(b, attrFingerprint, binary.BigEndian.AppendUint32(nil, fingerprint(b)))
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	return b
}

// success builds the answer with a mapped address and its lifetime in seconds.
func (m *message) success(mapped netip.AddrPort, lifetime uint32) []byte {
	a := mapped.Addr().As4()
	value := []byte{0, familyIPv4, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(value[2:], mapped.Port()^magicCookie>>16)
	binary.BigEndian.PutUint32(value[4:], binary.BigEndian.Uint32(a[:])^magicCookie)
	b := attribute(m.begin(classSuccess), attrXORMappedAddress, value)
	return m.finish(attribute(b, attrLifetime, binary.BigEndian.AppendUint32(nil, lifetime)))
}

// failure builds the error response of the request's own method.
func (m *message) failure(code Code) []byte {
	value := append([]byte{0, 0, byte(code / 100), byte(code % 100)}, code.Phrase()...)
	b := attribute(m.begin(classError), attrErrorCode, value)
	if code == CodeUnknownAttribute {
		var list []byte
		for _, t := range m.unknown {
			list = binary.BigEndian.AppendUint16(list, t)
		}
		b = attribute(b, attrUnknownAttributes, list)
	}
	return m.finish(b)
}
