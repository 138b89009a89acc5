package tlsproxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
)

// GenerateKey makes a key pair: algorithm "rsa" with 2048 to 8192 bits (0 = 2048) or "ecdsa" with 256, 384 or 521 (0 = 256).
// Without overwrite an existing label is refused with [ErrKeyExists]. A trustpoint that has its certificate keeps the key that the certificate was made for.
func (s *Store) GenerateKey(label, algorithm string, bits int, overwrite bool) error {
	if err := checkName("key label", label); err != nil {
		return err
	}
	exists := fmt.Errorf("%w: %q; choose another label or remove it first", ErrKeyExists, label)
	if !overwrite && s.HasKey(label) {
		return exists
	}
	// Outside the lock: an RSA key of 8192 bits takes many seconds, and handshakes must not wait for it.
	key, err := generateKey(algorithm, bits)
	if err != nil {
		return fmt.Errorf("key pair %q: %w", label, err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return fmt.Errorf("key pair %q: %w", label, err)
	}
	return s.change(func(tx *change) error {
		if !overwrite && s.HasKey(label) {
			return exists
		}
		tx.write(s.dir.keyFile(label), data)
		return nil
	})
}

// HasKey says whether the store holds a key pair with that label.
func (s *Store) HasKey(label string) bool {
	if checkName("key label", label) != nil {
		return false
	}
	_, err := os.Stat(s.dir.path(s.dir.keyFile(label)))
	return err == nil
}

// RemoveKey deletes a key pair (crypto key zeroize). Trustpoints that have their certificate keep working: they hold the key themselves.
func (s *Store) RemoveKey(label string) error {
	if !s.HasKey(label) {
		return fmt.Errorf("%w: %q", ErrNoKey, label)
	}
	return s.change(func(tx *change) error {
		tx.remove(s.dir.keyFile(label))
		return nil
	})
}

// KeyInfo describes a key pair without the key.
type KeyInfo struct {
	Label     string `json:"label"`
	Algorithm string `json:"algorithm"`         // "rsa", "ecdsa" or "ed25519"
	Bits      int    `json:"bits"`              // modulus or curve size
	Problem   string `json:"problem,omitempty"` // why the file cannot be used, empty when it can
}

// Keys lists the key pairs by label.
func (s *Store) Keys() []KeyInfo {
	entries, err := os.ReadDir(s.dir.path("keys"))
	if err != nil {
		return nil
	}
	var out []KeyInfo
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".pem")
		label, known := nameOfFile(base)
		if !ok || !known {
			continue
		}
		info := KeyInfo{Label: label}
		if key, err := s.loadKey(label); err != nil {
			info.Problem = err.Error()
		} else {
			info.Algorithm, info.Bits = keySize(key.Public())
		}
		out = append(out, info)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Label < out[j].Label })
	return out
}

func (s *Store) loadKey(label string) (crypto.Signer, error) {
	if err := checkName("key label", label); err != nil {
		return nil, err
	}
	data, err := s.dir.read(s.dir.keyFile(label))
	if err != nil {
		return nil, fmt.Errorf("key pair %q: %w", label, err)
	}
	if data == nil {
		return nil, fmt.Errorf("%w: %q; make it first (crypto key generate rsa label %s modulus 2048, or imeproxy crypto generate --label %s)", ErrNoKey, label, label, label)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("key pair %q: %w: not PEM", label, ErrMalformed)
	}
	key, err := parseKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key pair %q: %w", label, err)
	}
	return key, nil
}

func generateKey(algorithm string, bits int) (crypto.Signer, error) {
	switch algorithm {
	case "rsa":
		if bits == 0 {
			bits = minRSABits
		}
		if bits < minRSABits {
			return nil, fmt.Errorf("%w: RSA with %d bits; %d are the least", ErrWeakKey, bits, minRSABits)
		}
		if bits > maxRSABits {
			return nil, fmt.Errorf("%w: RSA with %d bits; %d are the most", ErrAlgorithm, bits, maxRSABits)
		}
		return rsa.GenerateKey(rand.Reader, bits)
	case "ecdsa":
		switch bits {
		case 0, 256:
			return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		case 384:
			return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		case 521:
			return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		}
		if bits < minECDSABits {
			return nil, fmt.Errorf("%w: ECDSA with %d bits; 256, 384 and 521 exist", ErrWeakKey, bits)
		}
		return nil, fmt.Errorf("%w: ECDSA with %d bits; 256, 384 and 521 exist", ErrAlgorithm, bits)
	}
	return nil, fmt.Errorf("%w: %q; rsa and ecdsa exist", ErrAlgorithm, algorithm)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseKey reads PKCS#8 and checks the strength. Parser errors are not passed on: none of them may ever quote key material.
func parseKey(der []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: the private key cannot be read", ErrMalformed)
	}
	return usableKey(parsed)
}

func usableKey(parsed any) (crypto.Signer, error) {
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: the private key cannot sign", ErrAlgorithm)
	}
	if err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	if r, ok := key.(*rsa.PrivateKey); ok && r.Validate() != nil {
		return nil, errors.Join(ErrMalformed, errors.New("the RSA key is damaged"))
	}
	return key, nil
}

func keySize(pub crypto.PublicKey) (algorithm string, bits int) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return "rsa", k.N.BitLen()
	case *ecdsa.PublicKey:
		return "ecdsa", k.Curve.Params().BitSize
	case ed25519.PublicKey:
		return "ed25519", 256
	}
	return "unknown", 0
}
