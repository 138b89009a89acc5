package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"imeproxy/ucime/learn"
)

// peerURN begins the subject alternative names that carry peer IDs.
const peerURN = "urn:imeproxy:peer:"

// bootstrapURN is the subject alternative name of bootstrap servers.
const bootstrapURN = "urn:imeproxy:bootstrap"

// IsBootstrap says whether a certificate makes its holder a bootstrap server. That the certificate is good is another question.
func IsBootstrap(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == bootstrapURN })
}

// CertificatePeerIDs are the peer IDs that a certificate names, in its order: at least one, at most MaxPeers. That the certificate is good
// is another question.
func CertificatePeerIDs(cert *x509.Certificate) ([]learn.PeerID, error) {
	var ids []learn.PeerID
	for _, u := range cert.URIs {
		text, ok := strings.CutPrefix(u.String(), peerURN)
		if !ok {
			continue
		}
		id, err := learn.ParsePeerID(text)
		if err != nil {
			return nil, fmt.Errorf("certificate %x: %w", cert.SerialNumber, err)
		}
		ids = append(ids, id)
	}
	if len(ids) < 1 || len(ids) > MaxPeers {
		return nil, fmt.Errorf("certificate %x names %d peer IDs, want 1 to %d", cert.SerialNumber, len(ids), MaxPeers)
	}
	return ids, nil
}

// checkPublicKey lets through the kinds of keys that members may have.
func checkPublicKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if n := k.Curve.Params().BitSize; n == 256 || n == 384 {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 4096 {
			return nil
		}
	}
	return errors.New("key: want ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits")
}

// fingerprint is the SHA-256 of a public key.
func fingerprint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Trust is what a member has to know of its authority: one file (authority.pem) with a CERTIFICATE and the PUBLIC KEY of licenses.
type Trust struct {
	CA         *x509.Certificate
	LicenseKey ed25519.PublicKey
	pem        []byte
}

// ParseTrust reads authority.pem.
func ParseTrust(text []byte) (*Trust, error) {
	t := &Trust{pem: text}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		var err error
		switch {
		case block.Type == "CERTIFICATE" && t.CA == nil:
			t.CA, err = x509.ParseCertificate(block.Bytes)
		case block.Type == "PUBLIC KEY" && t.LicenseKey == nil:
			var key any
			if key, err = x509.ParsePKIXPublicKey(block.Bytes); err == nil {
				var ok bool
				if t.LicenseKey, ok = key.(ed25519.PublicKey); !ok {
					err = errors.New("want an Ed25519 key")
				}
			}
		default:
			err = errors.New("does not belong there, or stands twice")
		}
		if err != nil {
			return nil, fmt.Errorf("authority file: %s: %w", block.Type, err)
		}
	}
	if t.CA == nil || t.LicenseKey == nil || !t.CA.IsCA {
		return nil, errors.New("authority file: want the authority's CERTIFICATE and the PUBLIC KEY of its licenses")
	}
	return t, nil
}

// Pool is a pool with the authority's certificate alone.
func (t *Trust) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(t.CA)
	return pool
}
