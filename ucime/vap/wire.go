package vap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Class says what a message is to its transaction.
type Class uint16

// The classes; 0x0010 does not exist.
const (
	Request Class = 0x0000
	Success Class = 0x0100
	Failure Class = 0x0110
)

// Method says what a transaction does (docs/protocol/vap.md, section 2).
type Method uint16

// The methods.
const (
	Register       Method = 0x1
	Unregister     Method = 0x2
	RegisterRevoke Method = 0x3
	Publish        Method = 0x4
	Unpublish      Method = 0x5
	PublishRevoke  Method = 0x6
	Subscribe      Method = 0x7
	Unsubscribe    Method = 0x8
	Withdraw       Method = 0x9
	Notify         Method = 0xa
	Keepalive      Method = 0xb
	UploadVCR      Method = 0xc
)

var methodNames = map[Method]string{
	Register: "Register", Unregister: "Unregister", RegisterRevoke: "RegisterRevoke", Publish: "Publish", Unpublish: "Unpublish",
	PublishRevoke: "PublishRevoke", Subscribe: "Subscribe", Unsubscribe: "Unsubscribe", Withdraw: "Withdraw", Notify: "Notify",
	Keepalive: "Keepalive", UploadVCR: "UploadVCR",
}

func (m Method) String() string {
	if n, ok := methodNames[m]; ok {
		return n
	}
	return fmt.Sprintf("method 0x%03x", uint16(m))
}

// The attribute types.
const (
	attrUsername       uint16 = 0x0006
	attrIntegrity      uint16 = 0x0008
	attrErrorCode      uint16 = 0x0009
	attrUnknown        uint16 = 0x000a
	attrRealm          uint16 = 0x0014
	attrNonce          uint16 = 0x0015
	attrClientName     uint16 = 0x1001
	attrClientHandle   uint16 = 0x1002
	attrVersion        uint16 = 0x1003
	attrPageSize       uint16 = 0x1004
	attrKeepalive      uint16 = 0x1006
	attrIdentity       uint16 = 0x1007
	attrServiceVersion uint16 = 0x100b
	attrServiceData    uint16 = 0x100c
	attrSubscription   uint16 = 0x100e
	attrRemovedReason  uint16 = 0x100f
	attrClientNonce    uint16 = 0x1012
	attrSequence       uint16 = 0x1013
	attrNotification   uint16 = 0x1014
	attrQuota          uint16 = 0x1015
)

const (
	cookie        = 0x7f5a9bc7
	headerLen     = 20
	maxBody       = 65532
	maxBodyBefore = 1024 // before registration
	maxData       = 65000
	integrityLen  = 4 + 32
)

// realm is the only one there is; the quotes belong to it.
const realm = `"VAP"`

type attr struct {
	typ   uint16
	value []byte
}

// message is one frame. Its attributes are those of section 3 with lengths and values as the table says; unknown ones that may be
// skipped are not in it.
type message struct {
	class   Class
	method  Method
	id      [12]byte
	attrs   []attr
	unknown []uint16 // attribute types below 0x8000 that no table has
	raw     []byte   // as received: what the integrity is computed over
	signed  int      // where Message-Integrity stands in raw; 0: there is none
}

// errFraming is what closes a connection without an answer.
var errFraming = errors.New("broken framing")

// readFrame reads one frame of at most limit bytes after its header; begun is called after the first byte.
func readFrame(r *bufio.Reader, limit int, begun func()) ([]byte, error) {
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	begun()
	head, err := r.Peek(headerLen)
	if err != nil {
		return nil, err
	}
	n, err := frameLen(head, limit)
	if err != nil {
		return nil, err
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	return frame, nil
}

// frameLen reads a header: the bytes of the whole message, or errFraming.
func frameLen(head []byte, limit int) (int, error) {
	typ, length := binary.BigEndian.Uint16(head), int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case typ&0xc000 != 0:
		return 0, fmt.Errorf("%w: type 0x%04x", errFraming, typ)
	case typ&0x0110 == 0x0010:
		return 0, fmt.Errorf("%w: class 0x0010", errFraming)
	case binary.BigEndian.Uint32(head[4:]) != cookie:
		return 0, fmt.Errorf("%w: wrong cookie", errFraming)
	case length%4 != 0:
		return 0, fmt.Errorf("%w: length %d is no multiple of 4", errFraming, length)
	case length > limit:
		return 0, fmt.Errorf("%w: length %d is over %d", errFraming, length, limit)
	}
	return headerLen + length, nil
}

// parse reads a frame as readFrame gives it. With an error of type *Error the message has its class, method and transaction ID, enough to
// be answered; any other error is errFraming.
func parse(frame []byte) (*message, error) {
	if len(frame) < headerLen {
		return nil, fmt.Errorf("%w: %d bytes", errFraming, len(frame))
	}
	if n, err := frameLen(frame, maxBody); err != nil {
		return nil, err
	} else if n != len(frame) {
		return nil, fmt.Errorf("%w: %d bytes, header says %d", errFraming, len(frame), n)
	}
	typ := binary.BigEndian.Uint16(frame)
	m := &message{class: Class(typ & 0x0110), method: Method(typ & 0x3eef), raw: frame}
	copy(m.id[:], frame[8:])
	// Where Message-Integrity stands follows from its fixed size alone, so that a message with a bad attribute can still be authentic.
	if at := len(frame) - integrityLen; at >= headerLen && binary.BigEndian.Uint32(frame[at:]) == uint32(attrIntegrity)<<16|32 {
		m.signed = at
	}
	var wrong error
	for at := headerLen; at < len(frame); {
		if len(frame)-at < 4 {
			return m, bad("attribute header at byte %d runs over the end", at)
		}
		typ, n := binary.BigEndian.Uint16(frame[at:]), int(binary.BigEndian.Uint16(frame[at+2:]))
		if n > len(frame)-at-4 {
			return m, bad("attribute 0x%04x at byte %d runs over the end", typ, at)
		}
		if err := m.read(typ, frame[at+4:at+4+n], at); err != nil && wrong == nil {
			wrong = err
		}
		at += 4 + (n+3)&^3
	}
	return m, wrong
}

// read takes one attribute, which stands at offset at.
func (m *message) read(typ uint16, value []byte, at int) error {
	check, known := checks[typ]
	switch {
	case !known:
		if typ < 0x8000 && len(m.unknown) < 16 && !slices.Contains(m.unknown, typ) {
			m.unknown = append(m.unknown, typ)
		}
		return nil
	case m.get(typ) != nil:
		return bad("attribute 0x%04x stands twice", typ)
	case !check(value) || typ == attrIntegrity && at != m.signed:
		return bad("attribute 0x%04x has no right value or place", typ)
	}
	m.attrs = append(m.attrs, attr{typ, value})
	return nil
}

// encode gives the message's bytes; with a key it ends in Message-Integrity. Values are the caller's to keep in their limits: one that
// makes the message too long is an error.
func (m *message) encode(key []byte) ([]byte, error) {
	b := make([]byte, headerLen, 256)
	for _, a := range m.attrs {
		if len(a.value) > maxData {
			return nil, fmt.Errorf("attribute 0x%04x of %d bytes is over %d", a.typ, len(a.value), maxData)
		}
		b = binary.BigEndian.AppendUint16(b, a.typ)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.value)))
		b = append(b, a.value...)
		b = append(b, make([]byte, (4-len(a.value)%4)%4)...)
	}
	length := len(b) - headerLen
	if key != nil {
		length += integrityLen
	}
	if length > maxBody {
		return nil, fmt.Errorf("%s of %d bytes is over %d", m.method, length, maxBody)
	}
	binary.BigEndian.PutUint16(b, uint16(m.class)|uint16(m.method))
	binary.BigEndian.PutUint16(b[2:], uint16(length))
	binary.BigEndian.PutUint32(b[4:], cookie)
	copy(b[8:], m.id[:])
	if key != nil {
		mac := integrity(key, b)
		b = binary.BigEndian.AppendUint16(b, attrIntegrity)
		b = binary.BigEndian.AppendUint16(b, uint16(len(mac)))
		b = append(b, mac...)
	}
	return b, nil
}

// get returns an attribute's value; nil when it is not there. Values have at least one byte (checks).
func (m *message) get(typ uint16) []byte {
	for _, a := range m.attrs {
		if a.typ == typ {
			return a.value
		}
	}
	return nil
}

// need reports the first mandatory attribute that is not there.
func (m *message) need(types ...uint16) error {
	for _, t := range types {
		if m.get(t) == nil {
			return bad("attribute 0x%04x is missing", t)
		}
	}
	return nil
}

func (m *message) text(typ uint16) string { return string(m.get(typ)) }

// u32 is 0 when the attribute is not there.
func (m *message) u32(typ uint16) uint32 {
	if v := m.get(typ); len(v) == 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (m *message) u64(typ uint16) uint64 {
	if v := m.get(typ); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (m *message) put(typ uint16, value []byte) *message {
	m.attrs = append(m.attrs, attr{typ, value})
	return m
}

func (m *message) putU32(typ uint16, v uint32) *message {
	return m.put(typ, binary.BigEndian.AppendUint32(nil, v))
}

func (m *message) putU64(typ uint16, v uint64) *message {
	return m.put(typ, binary.BigEndian.AppendUint64(nil, v))
}

// answer starts the success of a request.
func (m *message) answer() *message { return &message{class: Success, method: m.method, id: m.id} }

// checks are section 3's lengths and values of single attributes.
var checks = map[uint16]func([]byte) bool{
	attrUsername:       func(v []byte) bool { return len(v) <= 64 && len(v) > 0 && graphic(v) },
	attrIntegrity:      size(32),
	attrErrorCode:      goodErrorCode,
	attrUnknown:        func(v []byte) bool { return len(v) > 0 && len(v)%2 == 0 && len(v) <= 32 },
	attrRealm:          func(v []byte) bool { return string(v) == realm },
	attrNonce:          size(nonceLen),
	attrClientName:     func(v []byte) bool { return len(v) > 0 && len(v) <= 64 && printable(string(v)) },
	attrClientHandle:   nonZero(4),
	attrVersion:        size(4),
	attrPageSize:       nonZero(4),
	attrKeepalive:      goodKeepalive,
	attrIdentity:       size(20),
	attrServiceVersion: nonZero(4),
	attrServiceData:    func(v []byte) bool { return len(v) > 0 && len(v) <= maxData },
	attrSubscription:   nonZero(4),
	attrRemovedReason:  size(4),
	attrClientNonce:    size(nonceLen),
	attrSequence:       nonZero(8),
	attrNotification:   nonZero(8),
	attrQuota:          size(8),
}

func size(n int) func([]byte) bool { return func(v []byte) bool { return len(v) == n } }

func nonZero(n int) func([]byte) bool {
	return func(v []byte) bool {
		return len(v) == n && slices.ContainsFunc(v, func(b byte) bool { return b != 0 })
	}
}

func goodErrorCode(v []byte) bool {
	return len(v) >= 4 && len(v) <= 4+255 && v[0] == 0 && v[1] == 0 && v[2] >= 3 && v[2] <= 5 && v[3] <= 99 && utf8.Valid(v[4:])
}

func goodKeepalive(v []byte) bool {
	if len(v) != 4 {
		return false
	}
	s := binary.BigEndian.Uint32(v)
	return s >= 5 && s <= 3600
}

// graphic reports whether all bytes are 0x21 to 0x7e.
func graphic[T string | []byte](v T) bool {
	for i := range len(v) {
		if v[i] < 0x21 || v[i] > 0x7e {
			return false
		}
	}
	return true
}

// printable reports whether s is UTF-8 without control characters.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}
