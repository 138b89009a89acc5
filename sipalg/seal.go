package sipalg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"strings"
)

// tokenParam is the URI and Via parameter that carries a token.
const tokenParam = "x-ime"

// maxToken bounds what Open looks at, in characters.
const maxToken = 2048

const sealIV = aes.BlockSize

var tokenEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// Sealer turns a short text into an opaque token and back. It is a synthetic-IV
// scheme (the idea of RFC 5297 with HMAC-SHA-256): the token is authentic, tells
// nothing but the length of the text, and is the same each time, so that two
// messages of a dialog carry the same URI. Safe for concurrent use.
type Sealer struct {
	mac   []byte
	block cipher.Block
}

// NewSealer makes a Sealer; tokens open under the same key alone.
func NewSealer(key [32]byte) *Sealer {
	derive := func(label string) []byte {
		h := hmac.New(sha256.New, key[:])
		h.Write([]byte("imeproxy sip token " + label))
		return h.Sum(nil)
	}
	block, err := aes.NewCipher(derive("encrypt"))
	if err != nil {
		panic(err) // a key of 32 bytes is always legal
	}
	return &Sealer{mac: derive("authenticate"), block: block}
}

func (s *Sealer) iv(plain []byte) []byte {
	h := hmac.New(sha256.New, s.mac)
	h.Write(plain)
	return h.Sum(nil)[:sealIV]
}

// Seal makes the token of a text: digits and lower-case letters.
func (s *Sealer) Seal(plain string) string {
	raw := make([]byte, sealIV+len(plain))
	copy(raw, s.iv([]byte(plain)))
	cipher.NewCTR(s.block, raw[:sealIV]).XORKeyStream(raw[sealIV:], []byte(plain))
	return strings.ToLower(tokenEncoding.EncodeToString(raw))
}

// Open returns the text of a token, and false for what this key did not seal.
func (s *Sealer) Open(token string) (string, bool) {
	if len(token) > maxToken {
		return "", false
	}
	raw, err := tokenEncoding.DecodeString(strings.ToUpper(token))
	if err != nil || len(raw) < sealIV {
		return "", false
	}
	plain := make([]byte, len(raw)-sealIV)
	cipher.NewCTR(s.block, raw[:sealIV]).XORKeyStream(plain, raw[sealIV:])
	if subtle.ConstantTimeCompare(s.iv(plain), raw[:sealIV]) != 1 {
		return "", false
	}
	return string(plain), true
}
