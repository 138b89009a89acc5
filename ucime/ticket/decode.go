package ticket

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// DecodeError says where and why a ticket cannot be read.
type DecodeError struct {
	// Offset counts bytes of the ticket from 0 or, where Text is set,
	// characters of the base64.
	Offset int
	Text   bool
	Reason string
}

// Error has the offset first, as a person would look for it.
func (e *DecodeError) Error() string {
	unit := "byte"
	if e.Text {
		unit = "character"
	}
	return fmt.Sprintf("ticket decode failed at %s %d: %s", unit, e.Offset, e.Reason)
}

// Decode reads a ticket in base64: the standard alphabet, padded, no white
// space, at most MaxEncoded characters. Errors are *DecodeError.
func Decode(s string) (*Ticket, error) {
	if len(s) > MaxEncoded {
		return nil, &DecodeError{MaxEncoded, true, fmt.Sprintf("%d characters, at most %d are allowed", len(s), MaxEncoded)}
	}
	// The decoder skips line ends by itself, so they are looked for first.
	if i := strings.IndexAny(s, "\r\n"); i >= 0 {
		return nil, &DecodeError{i, true, "line end in base64"}
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		offset := len(s)
		var at base64.CorruptInputError
		if errors.As(err, &at) {
			offset = int(at)
		}
		return nil, &DecodeError{offset, true, "not padded base64 of the standard alphabet"}
	}
	return Parse(raw)
}

// typeNames are for people who read an error.
var typeNames = map[int]string{
	typeVersion: "version", typeID: "ticket id", typeSalt: "salt",
	typeNotBefore: "not before", typeNotAfter: "not after", typeNumber: "number",
	typeGrantingNode: "granting node", typeGrantingDomain: "granting domain",
	typeGrantedToDomain: "granted-to domain", typeEpoch: "epoch", typeIntegrity: "integrity",
}

func typeName(kind int) string {
	if n, ok := typeNames[kind]; ok {
		return fmt.Sprintf("type 0x%04x (%s)", kind, n)
	}
	return fmt.Sprintf("type 0x%04x", kind)
}

// decoder walks over the TLVs.
type decoder struct {
	raw []byte
	at  int // of the TLV to come
	t   *Ticket
}

// Parse reads the bytes of a ticket and applies every rule of the layout.
// Errors are *DecodeError. The ticket keeps no reference to raw.
func Parse(raw []byte) (*Ticket, error) {
	d := decoder{raw: append([]byte(nil), raw...), t: &Ticket{}}
	if err := d.fields(); err != nil {
		return nil, err
	}
	for d.peek() >= typeExtension {
		kind := uint16(d.peek())
		at := d.at
		value, err := d.next(int(kind), -1)
		if err != nil {
			return nil, err
		}
		if n := len(d.t.Extensions); n > 0 && kind < d.t.Extensions[n-1].Type {
			return nil, &DecodeError{at, false, fmt.Sprintf("type 0x%04x is out of order", kind)}
		}
		d.t.Extensions = append(d.t.Extensions, Extension{kind, value})
	}
	d.t.signed = d.raw[:d.at:d.at]
	mac, err := d.next(typeIntegrity, 32)
	if err != nil {
		return nil, err
	}
	copy(d.t.Integrity[:], mac)
	if d.at != len(d.raw) {
		return nil, &DecodeError{d.at, false, fmt.Sprintf("%d bytes after the integrity", len(d.raw)-d.at)}
	}
	return d.t, nil
}

// fields reads the mandatory TLVs but for the integrity.
func (d *decoder) fields() error {
	t := d.t
	v, err := d.next(typeVersion, 1)
	if err != nil {
		return err
	}
	if t.Version = v[0]; t.Version != Version {
		return d.fault(v, "version %d is not known", t.Version)
	}
	if err := d.copyTo(typeID, t.ID[:]); err != nil {
		return err
	}
	if err := d.copyTo(typeSalt, t.Salt[:]); err != nil {
		return err
	}
	if t.NotBefore, err = d.seconds(typeNotBefore); err != nil {
		return err
	}
	if t.NotAfter, err = d.seconds(typeNotAfter); err != nil {
		return err
	}
	if err := d.numbers(); err != nil {
		return err
	}
	if err := d.copyTo(typeGrantingNode, t.GrantingNode[:]); err != nil {
		return err
	}
	if t.GrantingDomain, err = d.domain(typeGrantingDomain); err != nil {
		return err
	}
	if t.GrantedToDomain, err = d.domain(typeGrantedToDomain); err != nil {
		return err
	}
	if v, err = d.next(typeEpoch, 1); err != nil {
		return err
	}
	if t.Epoch = v[0]; t.Epoch == 0 {
		return d.fault(v, "epoch 0, want 1 to 255")
	}
	return nil
}

// peek is the type of the TLV to come, -1 at the end.
func (d *decoder) peek() int {
	if len(d.raw)-d.at < 4 {
		return -1
	}
	return int(binary.BigEndian.Uint16(d.raw[d.at:]))
}

// next reads the TLV to come, which must be of the given type and, unless size
// is negative, of that size.
func (d *decoder) next(kind, size int) ([]byte, error) {
	got := d.peek()
	if got < 0 {
		return nil, &DecodeError{d.at, false, fmt.Sprintf("the ticket ends where %s should be", typeName(kind))}
	}
	if got != kind {
		return nil, &DecodeError{d.at, false, fmt.Sprintf("%s where %s should be", typeName(got), typeName(kind))}
	}
	n := int(binary.BigEndian.Uint16(d.raw[d.at+2:]))
	if size >= 0 && n != size {
		return nil, &DecodeError{d.at + 2, false, fmt.Sprintf("%s has length %d, want %d", typeName(kind), n, size)}
	}
	if n > len(d.raw)-d.at-4 {
		return nil, &DecodeError{d.at + 2, false, fmt.Sprintf("%s has length %d, only %d bytes follow", typeName(kind), n, len(d.raw)-d.at-4)}
	}
	value := d.raw[d.at+4 : d.at+4+n : d.at+4+n]
	d.at += 4 + n
	return value, nil
}

// fault is an error at the value that was read last.
func (d *decoder) fault(value []byte, format string, args ...any) error {
	return &DecodeError{d.at - len(value), false, fmt.Sprintf(format, args...)}
}

func (d *decoder) copyTo(kind int, to []byte) error {
	v, err := d.next(kind, len(to))
	copy(to, v)
	return err
}

func (d *decoder) seconds(kind int) (uint64, error) {
	v, err := d.next(kind, 8)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

func (d *decoder) numbers() error {
	for first := true; first || d.peek() == typeNumber; first = false {
		at := d.at
		v, err := d.next(typeNumber, -1)
		if err != nil {
			return err
		}
		if len(d.t.Numbers) == MaxNumbers {
			return &DecodeError{at, false, fmt.Sprintf("more than %d numbers", MaxNumbers)}
		}
		if !validNumber(string(v)) {
			return d.fault(v, "number %q, want + and 2 to 15 digits", v)
		}
		d.t.Numbers = append(d.t.Numbers, string(v))
	}
	return nil
}

func (d *decoder) domain(kind int) (string, error) {
	v, err := d.next(kind, -1)
	if err != nil {
		return "", err
	}
	if reason := domainFault(string(v)); reason != "" {
		return "", d.fault(v, "domain %q: %s", v, reason)
	}
	return string(v), nil
}
