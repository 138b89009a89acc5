package ring

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"imeproxy/ucime/learn"
)

const (
	lifetime  = 24 * time.Hour  // of a record, at most
	clockSkew = 5 * time.Minute // how far ahead of us a record may have been issued
	sealedMin = 12 + 16         // nonce and tag
	sealedMax = 512             // bytes
	recordMax = 1024            // bytes, signature included
	signMax   = 80              // bytes of a signature: ECDSA P-256 in ASN.1 takes 72
	numberTag = "imeproxy ring number 1"
)

// Hash stands for a number in the ring: keyed, one way, the same for everybody under one key.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// secrets are what only those can compute who know the number and the ring's key.
type secrets struct {
	hash Hash
	seal [32]byte
}

// derive hashes a number; cost is the rounds of PBKDF2, the price of each guess at a number (about 0.1 us a round).
func derive(n learn.Number, key [32]byte, cost uint32) (secrets, error) {
	secret, err := pbkdf2.Key(sha256.New, string(n), append([]byte(numberTag), key[:]...), int(cost), 32)
	if err != nil {
		return secrets{}, fmt.Errorf("hash the number: %w", err)
	}
	var s secrets
	for label, to := range map[string][]byte{"hash": s.hash[:], "seal": s.seal[:]} {
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(label))
		m.Sum(to[:0])
	}
	return s, nil
}

// record is a claim as it lies with a holder.
type record struct {
	owner           learn.PeerID
	hash            Hash
	slot            uint32
	issued, expires time.Time
	cert            [32]byte // SHA-256 of the certificate whose key signed
	sealed          []byte
	signature       []byte
}

// head is what stands before the sealed claim, and its additional data.
func (r *record) head() []byte {
	b := append(make([]byte, 0, 512), 1)
	b = append(append(b, r.owner[:]...), r.hash[:]...)
	b = binary.BigEndian.AppendUint32(b, r.slot)
	b = putTime(putTime(b, r.issued), r.expires)
	return append(b, r.cert[:]...)
}

func (r *record) signed() []byte { return put16(r.head(), r.sealed) }
func (r *record) encode() []byte { return put8(r.signed(), r.signature) }

func decodeRecord(b []byte) (*record, error) {
	if len(b) > recordMax {
		return nil, fmt.Errorf("record: %w", errSize)
	}
	r := reader{b: b}
	r.version()
	x := &record{owner: r.peer(), hash: r.hash(), slot: r.u32(), issued: r.time(), expires: r.time()}
	copy(x.cert[:], r.take(32))
	x.sealed, x.signature = r.bytes16(), r.bytes8()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if len(x.sealed) < sealedMin || len(x.sealed) > sealedMax || len(x.signature) > signMax {
		return nil, fmt.Errorf("record: %w", errSize)
	}
	return x, nil
}

func aead(key [32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealClaim encrypts the validator's address so that only who knows the number reads it.
func (r *record) sealClaim(key [32]byte, address string) error {
	if len(address) > 255 {
		return fmt.Errorf("validator address of %d bytes, 255 at most", len(address))
	}
	a, err := aead(key)
	if err != nil {
		return err
	}
	r.sealed = a.Seal(nil, nil, put8(nil, []byte(address)), r.head())
	return nil
}

func (r *record) openClaim(key [32]byte) (address string, err error) {
	a, err := aead(key)
	if err != nil {
		return "", err
	}
	plain, err := a.Open(nil, nil, r.sealed, r.head())
	if err != nil {
		return "", errors.New("the claim was sealed for another number or record")
	}
	c := reader{b: plain}
	address = string(c.bytes8())
	return address, c.err
}

func message(what string, b []byte) []byte {
	return append([]byte("imeproxy ring "+what+" 1\x00"), b...)
}

// sign signs as docs/protocol/ring.md says; other keys than Ed25519 and ECDSA P-256 are refused.
func sign(key crypto.Signer, what string, b []byte) ([]byte, error) {
	if err := usableKey(key.Public()); err != nil {
		return nil, err
	}
	m := message(what, b)
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return key.Sign(rand.Reader, m, crypto.Hash(0))
	}
	sum := sha256.Sum256(m)
	return key.Sign(rand.Reader, sum[:], crypto.SHA256)
}

func verify(key crypto.PublicKey, what string, b, signature []byte) bool {
	m := message(what, b)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize && ed25519.Verify(k, m, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(m)
		return ecdsa.VerifyASN1(k, sum[:], signature)
	}
	return false
}

func usableKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return errors.New("the ring takes Ed25519 and ECDSA P-256 keys only")
}
