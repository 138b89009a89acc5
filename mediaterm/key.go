package mediaterm

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	"github.com/pion/srtp/v3"
)

// Suite is an SRTP crypto suite by its SDES name (RFC 4568 section 6.2, RFC 7714
// section 14.2).
type Suite string

// The suites that streams can use. SuiteCM32 shortens the tag of SRTP alone: SRTCP
// keeps 80 bits (RFC 4568 section 6.2.2).
const (
	SuiteCM80   Suite = "AES_CM_128_HMAC_SHA1_80"
	SuiteCM32   Suite = "AES_CM_128_HMAC_SHA1_32"
	SuiteGCM128 Suite = "AEAD_AES_128_GCM"
	SuiteGCM256 Suite = "AEAD_AES_256_GCM"
)

// Lifetimes of RFC 3711 section 9.2, in packets under one master key, and the longest
// MKI of RFC 4568 section 6.1 in bytes.
const (
	maxLifetimeRTP  = 1 << 48
	maxLifetimeRTCP = 1<<31 - 1
	maxMKI          = 128
)

// Suites returns the suites in the order in which they are offered.
func Suites() []Suite { return []Suite{SuiteCM80, SuiteCM32, SuiteGCM128, SuiteGCM256} }

// KeyLen returns the sizes in bytes of the suite's master key and master salt; 0, 0 for
// an unknown suite.
func (s Suite) KeyLen() (key, salt int) {
	switch s {
	case SuiteCM80, SuiteCM32:
		return 16, 14
	case SuiteGCM128:
		return 16, 12
	case SuiteGCM256:
		return 32, 12
	}
	return 0, 0
}

func (s Suite) profile() srtp.ProtectionProfile {
	switch s {
	case SuiteCM32:
		return srtp.ProtectionProfileAes128CmHmacSha1_32
	case SuiteGCM128:
		return srtp.ProtectionProfileAeadAes128Gcm
	case SuiteGCM256:
		return srtp.ProtectionProfileAeadAes256Gcm
	default:
		return srtp.ProtectionProfileAes128CmHmacSha1_80
	}
}

func (s Suite) aead() bool { return s == SuiteGCM128 || s == SuiteGCM256 }

// Key is one direction's SRTP master key as SDES carries it. It prints as its suite
// with the material masked, in every verb, in slog and in JSON.
type Key struct {
	Suite    Suite
	Master   []byte // Suite.KeyLen bytes
	Salt     []byte // Suite.KeyLen bytes
	MKI      []byte // sent with, and expected on, every packet; empty: none; at most 128 bytes
	Lifetime uint64 // packets under this key, SRTP and SRTCP each; 0: 2^48 and 2^31-1
}

// NewKey makes a random key for the suite, without MKI and with the default lifetime.
func NewKey(s Suite) (Key, error) {
	k, n := s.KeyLen()
	if k == 0 {
		return Key{}, fmt.Errorf("%w: unknown suite %q", ErrBadKey, string(s))
	}
	material := make([]byte, k+n)
	if _, err := rand.Read(material); err != nil {
		return Key{}, fmt.Errorf("random SRTP key: %w", err)
	}
	return Key{Suite: s, Master: material[:k:k], Salt: material[k:]}, nil
}

// Check tells whether the sizes fit the suite. The error wraps ErrBadKey.
func (k Key) Check() error {
	m, s := k.Suite.KeyLen()
	switch {
	case m == 0:
		return fmt.Errorf("%w: unknown suite %q", ErrBadKey, string(k.Suite))
	case len(k.Master) != m:
		return fmt.Errorf("%w: %s wants a master key of %d bytes, not %d", ErrBadKey, k.Suite, m, len(k.Master))
	case len(k.Salt) != s:
		return fmt.Errorf("%w: %s wants a master salt of %d bytes, not %d", ErrBadKey, k.Suite, s, len(k.Salt))
	case len(k.MKI) > maxMKI:
		return fmt.Errorf("%w: MKI of %d bytes, at most %d", ErrBadKey, len(k.MKI), maxMKI)
	}
	return nil
}

// String is the suite with the material masked.
func (k Key) String() string {
	if k.Suite == "" {
		return "no key"
	}
	return string(k.Suite) + " *****"
}

// Format masks the material for every verb: the default for %d would print it.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue masks the material for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalJSON masks the material.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// sameMaterial: keys that derive the same session keys, whatever else differs. The
// derivation of RFC 3711 section 4.3 knows master key and salt alone, so that indices
// used under one are used under the other too.
func (k Key) sameMaterial(o Key) bool {
	return bytes.Equal(k.Master, o.Master) && bytes.Equal(k.Salt, o.Salt)
}

// sameOnWire: packets under both keys look the same, so that a context can go on.
func (k Key) sameOnWire(o Key) bool {
	return k.Suite == o.Suite && k.sameMaterial(o) && bytes.Equal(k.MKI, o.MKI)
}

// clone: the caller may wipe or reuse its slices.
func (k Key) clone() Key {
	m, s := len(k.Master), len(k.Master)+len(k.Salt)
	b := slices.Concat(k.Master, k.Salt, k.MKI)
	k.Master, k.Salt, k.MKI = b[:m:m], b[m:s:s], b[s:]
	return k
}

func (k Key) lifetimeRTP() uint64 {
	if k.Lifetime == 0 || k.Lifetime > maxLifetimeRTP {
		return maxLifetimeRTP
	}
	return k.Lifetime
}

func (k Key) lifetimeRTCP() uint64 {
	if k.Lifetime == 0 || k.Lifetime > maxLifetimeRTCP {
		return maxLifetimeRTCP
	}
	return k.Lifetime
}
