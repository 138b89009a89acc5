package ticket

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sizes and ranges of the format.
const (
	// Version is the only version there is.
	Version = 1
	// MaxEncoded is the longest ticket accepted, in characters of base64.
	MaxEncoded = 4096
	// MaxNumbers is the largest number of numbers in a ticket.
	MaxNumbers = 64
	// DefaultLifetime is the lifetime where the issuer names none.
	DefaultLifetime = 365 * 24 * time.Hour
	// maxDomain is the longest domain in bytes.
	maxDomain = 253
)

// TLV types.
const (
	typeVersion         = 0x0001
	typeID              = 0x0002
	typeSalt            = 0x0003
	typeNotBefore       = 0x0004
	typeNotAfter        = 0x0005
	typeNumber          = 0x0006
	typeGrantingNode    = 0x0007
	typeGrantingDomain  = 0x0008
	typeGrantedToDomain = 0x0009
	typeEpoch           = 0x000a
	typeIntegrity       = 0x00ff
	typeExtension       = 0x0100 // the first of them
)

// Ticket has the fields of a ticket. What Parse returns has passed every rule
// of the layout and nothing else: before Verifier.Verify says ok it is a claim.
type Ticket struct {
	Version  uint8
	ID, Salt [16]byte
	// NotBefore and NotAfter are Unix seconds, as on the wire: a forged value
	// beyond the range of time.Time must not wrap into a valid one.
	NotBefore, NotAfter uint64
	// Numbers are "+" and 2 to 15 digits each, in the ticket's order.
	Numbers []string
	// GrantingNode is the peer ID of the issuing node.
	GrantingNode [16]byte
	// GrantingDomain and GrantedToDomain are in lower case.
	GrantingDomain, GrantedToDomain string
	// Epoch is 1 to 255.
	Epoch uint8
	// Extensions have types from 0x0100 on and no meaning here.
	Extensions []Extension
	Integrity  [32]byte

	// signed are the bytes under the integrity, as they came.
	signed []byte
}

// Extension is a TLV that the integrity covers and that is otherwise ignored.
type Extension struct {
	Type  uint16 // 0x0100 and above
	Value []byte
}

// IssueParams are the fields of a new ticket. Domains are folded to lower case
// and may end in one dot; numbers may hold visual separators.
type IssueParams struct {
	// GrantingDomain is the issuer's own domain.
	GrantingDomain, GrantedToDomain string
	Numbers                         []string
	GrantingNode                    [16]byte
	NotBefore                       time.Time
	// Lifetime counts from NotBefore, in whole seconds; 0 means
	// DefaultLifetime.
	Lifetime time.Duration
	// ID and Salt are drawn at random where they are zero.
	ID, Salt   [16]byte
	Extensions []Extension
}

// Issue makes a ticket under k, whose epoch it carries, in base64.
func Issue(k Key, p IssueParams) (string, error) {
	t, err := p.ticket(k.epoch)
	if err != nil {
		return "", fmt.Errorf("issue ticket: %w", err)
	}
	t.signed = t.body()
	t.Integrity = k.integrity(t.Salt, t.signed)
	s := base64.StdEncoding.EncodeToString(t.Marshal())
	if len(s) > MaxEncoded {
		return "", fmt.Errorf("issue ticket: %d characters, at most %d are allowed", len(s), MaxEncoded)
	}
	return s, nil
}

func (p IssueParams) ticket(epoch uint8) (*Ticket, error) {
	t := &Ticket{Version: Version, ID: p.ID, Salt: p.Salt, GrantingNode: p.GrantingNode, Epoch: epoch, Extensions: p.Extensions}
	if epoch == 0 {
		return nil, errors.New("epoch 0: use a key made by DeriveKey")
	}
	var err error
	if t.GrantingDomain, err = NormalizeDomain(p.GrantingDomain); err != nil {
		return nil, fmt.Errorf("granting domain: %w", err)
	}
	if t.GrantedToDomain, err = NormalizeDomain(p.GrantedToDomain); err != nil {
		return nil, fmt.Errorf("granted-to domain: %w", err)
	}
	if t.Numbers, err = issueNumbers(p.Numbers); err != nil {
		return nil, err
	}
	last := uint16(typeExtension)
	for _, e := range p.Extensions {
		if e.Type < last || len(e.Value) > 0xffff {
			return nil, fmt.Errorf("extension 0x%04x: types start at 0x0100 and ascend, values have at most 65535 bytes", e.Type)
		}
		last = e.Type
	}
	life := p.Lifetime
	if life == 0 {
		life = DefaultLifetime
	}
	if life < time.Second || p.NotBefore.Unix() < 0 {
		return nil, fmt.Errorf("lifetime %v from %v: at least 1 s, and not before 1970", life, p.NotBefore)
	}
	t.NotBefore = uint64(p.NotBefore.Unix())
	t.NotAfter = t.NotBefore + uint64(life/time.Second)
	if t.ID == [16]byte{} {
		rand.Read(t.ID[:])
		t.ID[6] = t.ID[6]&0x0f | 0x40 // RFC 9562 section 5.4: random UUID
		t.ID[8] = t.ID[8]&0x3f | 0x80
	}
	if t.Salt == [16]byte{} {
		rand.Read(t.Salt[:])
	}
	return t, nil
}

func issueNumbers(in []string) ([]string, error) {
	if len(in) < 1 || len(in) > MaxNumbers {
		return nil, fmt.Errorf("%d numbers: 1 to %d are allowed", len(in), MaxNumbers)
	}
	var out []string
	seen := map[string]bool{}
	for _, n := range in {
		s := stripSeparators(n)
		if !validNumber(s) {
			return nil, fmt.Errorf("number %q: want + and 2 to 15 digits", n)
		}
		if seen[s] {
			return nil, fmt.Errorf("number %q stands twice", n)
		}
		seen[s] = true
		out = append(out, s)
	}
	return out, nil
}

// Marshal returns the bytes of the ticket. Of a parsed ticket they are those
// that came.
func (t *Ticket) Marshal() []byte {
	b := t.signed
	if b == nil {
		b = t.body()
	}
	return appendTLV(b[:len(b):len(b)], typeIntegrity, t.Integrity[:])
}

// body is all that stands before the integrity.
func (t *Ticket) body() []byte {
	b := appendTLV(nil, typeVersion, []byte{t.Version})
	b = appendTLV(b, typeID, t.ID[:])
	b = appendTLV(b, typeSalt, t.Salt[:])
	b = appendTLV(b, typeNotBefore, binary.BigEndian.AppendUint64(nil, t.NotBefore))
	b = appendTLV(b, typeNotAfter, binary.BigEndian.AppendUint64(nil, t.NotAfter))
	for _, n := range t.Numbers {
		b = appendTLV(b, typeNumber, []byte(n))
	}
	b = appendTLV(b, typeGrantingNode, t.GrantingNode[:])
	b = appendTLV(b, typeGrantingDomain, []byte(t.GrantingDomain))
	b = appendTLV(b, typeGrantedToDomain, []byte(t.GrantedToDomain))
	b = appendTLV(b, typeEpoch, []byte{t.Epoch})
	for _, e := range t.Extensions {
		b = appendTLV(b, e.Type, e.Value)
	}
	return b
}

func appendTLV(b []byte, kind uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// validNumber wants "+" and 2 to 15 digits.
func validNumber(s string) bool {
	digits, ok := strings.CutPrefix(s, "+")
	return ok && len(digits) >= 2 && len(digits) <= 15 && strings.Trim(digits, "0123456789") == ""
}

// NormalizeDomain folds a domain to the form of a ticket: lower case, without
// the final dot. Names that are not ASCII must come as A-labels (RFC 5890).
func NormalizeDomain(s string) (string, error) {
	d := lower(strings.TrimSuffix(s, "."))
	if reason := domainFault(d); reason != "" {
		return "", fmt.Errorf("%q: %s", s, reason)
	}
	return d, nil
}

// domainFault says what is wrong with a domain in a ticket, "" for nothing.
func domainFault(d string) string {
	if len(d) < 1 || len(d) > maxDomain {
		return fmt.Sprintf("length %d, want 1 to %d", len(d), maxDomain)
	}
	for label := range strings.SplitSeq(d, ".") {
		if len(label) < 1 || len(label) > 63 {
			return "labels have 1 to 63 characters"
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "a label begins or ends with a hyphen"
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "only lower-case letters, digits, hyphens and dots are allowed"
		}
	}
	return ""
}

// lower folds ASCII alone: Unicode folding would make U+212A a "k".
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
