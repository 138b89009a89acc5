package pvp

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"imeproxy/ucime/learn"
)

// Method says which facts of a call the password holds.
type Method uint8

// The two methods (reference: docs/protocol/pvp.md, Methods).
const (
	WithCaller    Method = 1 // called number, caller, start, stop
	WithoutCaller Method = 2 // called number, start, stop
)

// Value is what a success is worth in a bucket: 12 with the caller, 8 without, 0 of no method (guide line 288).
func (m Method) Value() int {
	switch m {
	case WithCaller:
		return 12
	case WithoutCaller:
		return 8
	}
	return 0
}

// String names the method as logs and show commands do.
func (m Method) String() string {
	switch m {
	case WithCaller:
		return "with caller"
	case WithoutCaller:
		return "without caller"
	}
	return fmt.Sprintf("method %d", uint8(m))
}

const (
	// Unit is the granularity of times in the password.
	Unit = 2 * time.Second
	// CallerDigits is how many of a caller's last digits must agree: what lies before them is rewritten between national and
	// international forms.
	CallerDigits = 7

	selectorLabel = "imeproxy pvp selector 1"
	// passwordsPerVCR are the two nearest indexes of the start with those of the stop.
	passwordsPerVCR = 4
)

// Selector is all that the terminator is told of the called number before a proof. It depends on nothing else, so that
// repeated validations tell no more than one.
func Selector(called learn.Number) uint16 {
	h := sha256.New()
	h.Write([]byte(selectorLabel))
	h.Write([]byte(called))
	return binary.BigEndian.Uint16(h.Sum(nil))
}

// callerTail is the last CallerDigits digits of a caller in whatever form, "" where there are fewer.
func callerTail(caller learn.Number) string {
	var tail []byte
	for i := len(caller) - 1; i >= 0 && len(tail) < CallerDigits; i-- {
		if c := caller[i]; '0' <= c && c <= '9' {
			tail = append(tail, c)
		}
	}
	if len(tail) < CallerDigits {
		return ""
	}
	for i, j := 0, len(tail)-1; i < j; i, j = i+1, j-1 {
		tail[i], tail[j] = tail[j], tail[i]
	}
	return string(tail)
}

// Usable says why v cannot be validated by method m, nil where it can.
func Usable(v learn.VCR, m Method) error {
	switch {
	case m.Value() == 0:
		return fmt.Errorf("%v is not known", m)
	case !v.Called.Valid():
		return errors.New("the called number is no +E.164 number")
	case v.Stop.Before(v.Start):
		return errors.New("the call ended before it started")
	case v.Start.Unix() <= 0:
		return errors.New("the call has no start")
	case m == WithCaller && callerTail(v.Caller) == "":
		return fmt.Errorf("the caller is not known by at least %d digits", CallerDigits)
	}
	return nil
}

// nearest and floor are indexes of Unit; times before 1970 do not come here.
func nearest(t time.Time) uint64 {
	return uint64((t.UnixMilli() + Unit.Milliseconds()/2) / Unit.Milliseconds())
}
func floor(t time.Time) uint64 { return uint64(t.UnixMilli() / Unit.Milliseconds()) }

func password(m Method, v learn.VCR, start, stop uint64) []byte {
	var tail string
	if m == WithCaller {
		tail = callerTail(v.Caller)
	}
	return lv([]byte{byte(m)}, []byte(v.Called), []byte(tail),
		binary.BigEndian.AppendUint64(nil, start), binary.BigEndian.AppendUint64(nil, stop))
}

// originatorPassword is the one password of a run; shift is the supposed difference of the clocks, in Units.
func originatorPassword(m Method, v learn.VCR, shift int) []byte {
	return password(m, v, nearest(v.Start)+uint64(int64(shift)), nearest(v.Stop)+uint64(int64(shift)))
}

// terminatorPasswords are all that one VCR may match.
func terminatorPasswords(m Method, v learn.VCR) [passwordsPerVCR][]byte {
	start, stop := floor(v.Start), floor(v.Stop)
	return [passwordsPerVCR][]byte{
		password(m, v, start, stop), password(m, v, start, stop+1),
		password(m, v, start+1, stop), password(m, v, start+1, stop+1),
	}
}

// decoyPassword matches nothing. It is as long as a real one, so that computing with it takes as long.
func decoyPassword(m Method) []byte {
	v := learn.VCR{Called: "+00000000000", Caller: "+0000000"}
	var b [16]byte
	rand.Read(b[:])
	p := password(m, v, binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]))
	return append(p, 0) // one byte more than any password, so that none can be equal
}
