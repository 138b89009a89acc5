package pvp

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"errors"

	ristretto "github.com/bwesterb/go-ristretto"
	"github.com/cloudflare/circl/group"
)

// CPace over ristretto255 and SHA-512 (draft-irtf-cfrg-cpace-21 section 7.3), initiator-responder setting.
const (
	cpaceDSI   = "CPaceRistretto255"
	pointSize  = 32
	hashBlock  = 128 // SHA-512's, s_in_bytes of the draft
	keySize    = 32
	macLabel   = "CPaceMac"
	labelOther = "imeproxy pvp "
)

var errPoint = errors.New("no valid group element")

// prependLen appends the LEB128 length of part and part to b.
func prependLen(b []byte, part []byte) []byte {
	n := len(part)
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	b = append(b, byte(n))
	return append(b, part...)
}

// lv is lv_cat of the draft.
func lv(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = prependLen(b, p)
	}
	return b
}

// generatorString fills the first hash block with the password alone, so that what is hashed per session does not depend
// on the password's length.
func generatorString(prs, ci, sid []byte) []byte {
	dsi := []byte(cpaceDSI)
	pad := max(0, hashBlock-1-len(prependLen(nil, prs))-len(prependLen(nil, dsi)))
	return lv(dsi, prs, make([]byte, pad), ci, sid)
}

// generator maps the password to the group. circl does not export the element derivation of RFC 9496 section 4.3.4 without
// the hash of RFC 9380 before it; the library below circl does.
func generator(prs, ci, sid []byte) group.Element {
	var p ristretto.Point
	p.DeriveDalek(generatorString(prs, ci, sid))
	g := group.Ristretto255.NewElement()
	if err := g.UnmarshalBinary(p.Bytes()); err != nil {
		panic("pvp: an encoded element does not decode: " + err.Error())
	}
	return g
}

// share is one side's part of a run: the secret scalar and the public point.
type share struct {
	scalar group.Scalar
	public [pointSize]byte
}

func newShare(prs, ci, sid []byte) share {
	return shareOf(group.Ristretto255.RandomNonZeroScalar(rand.Reader), prs, ci, sid)
}

func shareOf(scalar group.Scalar, prs, ci, sid []byte) share {
	g := generator(prs, ci, sid)
	return share{scalar, encode(g.Mul(g, scalar))}
}

func encode(e group.Element) [pointSize]byte {
	b, err := e.MarshalBinary()
	if err != nil {
		panic("pvp: encode element: " + err.Error()) // of a ristretto255 element it cannot fail
	}
	return [pointSize]byte(b)
}

// decodePoint refuses what is no canonical encoding, and the neutral element, whose product would be known to all.
func decodePoint(b []byte) (group.Element, error) {
	e := group.Ristretto255.NewElement()
	if len(b) != pointSize || e.UnmarshalBinary(b) != nil || e.IsIdentity() {
		return nil, errPoint
	}
	return e, nil
}

// secret is the product with the other side's point, which decodePoint has checked: in a group of prime order neither
// factor is neutral, so the product is not.
func (s share) secret(other group.Element) [pointSize]byte {
	return encode(group.Ristretto255.NewElement().Mul(other, s.scalar))
}

// runKeys are what a run yields.
type runKeys struct {
	isk [sha512.Size]byte
	mac [sha512.Size]byte
}

// deriveKeys hashes the transcript of both shares (initiator's first) into the keys.
func deriveKeys(sid []byte, k, ya [pointSize]byte, ada []byte, yb [pointSize]byte, adb []byte) runKeys {
	h := sha512.New()
	h.Write(lv([]byte(cpaceDSI+"_ISK"), sid, k[:]))
	h.Write(lv(ya[:], ada))
	h.Write(lv(yb[:], adb))
	var keys runKeys
	h.Sum(keys.isk[:0])
	h.Reset()
	h.Write([]byte(macLabel))
	h.Write(sid)
	h.Write(keys.isk[:])
	h.Sum(keys.mac[:0])
	return keys
}

// tag is the key confirmation of the side that sent the share with its associated data.
func (k *runKeys) tag(public [pointSize]byte, ad []byte) [sha512.Size]byte {
	m := hmac.New(sha512.New, k.mac[:])
	m.Write(lv(public[:], ad))
	var out [sha512.Size]byte
	m.Sum(out[:0])
	return out
}

// key derives the key of one direction of the exchange after the proof.
func (k *runKeys) key(name string) []byte {
	key, err := hkdf.Expand(sha512.New, k.isk[:], labelOther+name, keySize)
	if err != nil {
		panic("pvp: derive key: " + err.Error()) // only a length above 255 blocks can fail
	}
	return key
}
