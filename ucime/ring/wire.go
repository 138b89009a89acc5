package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"imeproxy/ucime/learn"
)

// Types of requests; the answer has the type plus answerBit.
const (
	typeHello  = 1
	typeStore  = 2
	typeRemove = 3
	typeRead   = 4
	typeAdmit  = 5
	typePing   = 6
	typeError  = 255
	answerBit  = 128

	maxBody        = 65536
	maxStoreBatch  = 64
	maxRemoveBatch = 256
)

// Code says what a holder did with a record, or why a request failed.
type Code uint8

// The codes of docs/protocol/ring.md.
const (
	CodeOK          Code = 0
	CodeMalformed   Code = 1
	CodeNotOwner    Code = 2
	CodeSignature   Code = 3
	CodeQuota       Code = 4
	CodeTime        Code = 5
	CodeOld         Code = 6
	CodeSlot        Code = 7
	CodeFull        Code = 8
	CodePlace       Code = 9
	CodeBanned      Code = 10
	CodeVersion     Code = 11
	CodeThrottled   Code = 12
	CodeNotAdmitted Code = 13
	codes                = 14
)

var codeNames = [codes]string{"ok", "malformed", "not owner", "signature", "quota", "time", "old", "slot", "full", "place", "banned", "version", "throttled", "not admitted"}

func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error makes a code that came as answer to a whole request an error.
func (c Code) Error() string { return "the other member refuses: " + c.String() }

var (
	errShort    = errors.New("too short")
	errLeftOver = errors.New("bytes left over")
	errVersion  = errors.New("unknown version")
	errSize     = errors.New("too large")
)

// reader takes fields off a message; after the first error every field is zero and err stays.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		if r.err == nil {
			r.err = errShort
		}
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) peer() (p learn.PeerID) {
	copy(p[:], r.take(len(p)))
	return p
}

func (r *reader) hash() (h Hash) {
	copy(h[:], r.take(len(h)))
	return h
}

// time reads milliseconds since 1970 and refuses what lies beyond the year 9999.
func (r *reader) time() time.Time {
	ms := r.u64()
	if ms > 253402300799999 {
		if r.err == nil {
			r.err = errors.New("time out of range")
		}
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

func (r *reader) bytes8() []byte  { return r.take(int(r.u8())) }
func (r *reader) bytes16() []byte { return r.take(int(r.u16())) }

// version takes the leading byte, which is 1 in all of our forms.
func (r *reader) version() {
	if v := r.u8(); v != 1 && r.err == nil {
		r.err = errVersion
	}
}

// end returns the first error, or that something is left.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errLeftOver
	}
	return r.err
}

func put8(b, v []byte) []byte  { return append(append(b, uint8(len(v))), v...) }
func put16(b, v []byte) []byte { return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...) }

func putTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
}

// readFrame reads one request or answer; the body is at most maxBody bytes and allocated as it comes.
func readFrame(r io.Reader) (kind uint8, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxBody {
		return 0, nil, errSize
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	return head[0], body, nil
}

func frame(kind uint8, body []byte) []byte {
	b := append(make([]byte, 0, 5+len(body)), kind)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
}

// putList and takeList: count u16, then each as bytes16.
func putList(items [][]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(items)))
	for _, it := range items {
		b = put16(b, it)
	}
	return b
}

func takeList(body []byte, most int) ([][]byte, error) {
	r := reader{b: body}
	n := int(r.u16())
	if n < 1 || n > most {
		return nil, fmt.Errorf("list of %d", n)
	}
	items := make([][]byte, n)
	for i := range items {
		items[i] = r.bytes16()
	}
	return items, r.end()
}

type removal struct {
	owner learn.PeerID
	hash  Hash
}

func putRemovals(list []removal) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(list)))
	for _, x := range list {
		b = append(append(b, x.owner[:]...), x.hash[:]...)
	}
	return b
}

func takeRemovals(body []byte) ([]removal, error) {
	r := reader{b: body}
	n := int(r.u16())
	if n < 1 || n > maxRemoveBatch {
		return nil, fmt.Errorf("list of %d", n)
	}
	list := make([]removal, n)
	for i := range list {
		list[i] = removal{r.peer(), r.hash()}
	}
	return list, r.end()
}

// found is the answer to READ: records, and the certificates of those who signed them.
type found struct {
	certs, records [][]byte
}

func (f found) encode() []byte {
	b := []byte{uint8(len(f.certs))}
	for _, c := range f.certs {
		b = put16(b, c)
	}
	b = append(b, uint8(len(f.records)))
	for _, x := range f.records {
		b = put16(b, x)
	}
	return b
}

func decodeFound(body []byte) (found, error) {
	var f found
	r := reader{b: body}
	for _, list := range []*[][]byte{&f.certs, &f.records} {
		n := int(r.u8())
		if n > maxClaims {
			return found{}, fmt.Errorf("answer of %d", n)
		}
		for range n {
			*list = append(*list, r.bytes16())
		}
	}
	return f, r.end()
}

func putU32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
