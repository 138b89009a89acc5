package tlsproxy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

const (
	maxPEM          = 1 << 20
	maxCertificates = 256
	minRSABits      = 2048
	maxRSABits      = 8192
	minECDSABits    = 256
)

// parseCertificates reads what an operator pastes: PEM (text around the blocks is skipped), base64 without its
// BEGIN line as an ASA prints it (a closing "quit" allowed), or DER. At least one certificate, in the order given.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("%w: more than %d bytes of certificates", ErrTooLarge, maxPEM)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%w: the input is empty; paste the certificate in PEM form", ErrMalformed)
	}
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		return parseBare(data)
	}
	var certs []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN")) {
				return nil, fmt.Errorf("%w: a PEM block is cut off or damaged; copy it again from its BEGIN line to its END line", ErrMalformed)
			}
			break
		}
		if err := checkBlock(block); err != nil {
			return nil, err
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d of the input: %w", ErrMalformed, len(certs)+1, err)
		}
		if certs = append(certs, c); len(certs) > maxCertificates {
			return nil, fmt.Errorf("%w: more than %d certificates", ErrTooLarge, maxCertificates)
		}
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: the input holds no certificate", ErrMalformed)
	}
	return certs, nil
}

// checkBlock tells the usual wrong files apart, because "malformed" alone sends an operator searching.
func checkBlock(b *pem.Block) error {
	switch {
	case b.Type == "CERTIFICATE" || b.Type == "X509 CERTIFICATE":
		return nil
	case strings.HasSuffix(b.Type, "PRIVATE KEY"):
		return fmt.Errorf("%w: the input holds a private key; give the certificate alone, or key and certificate together as PKCS#12", ErrMalformed)
	case strings.HasSuffix(b.Type, "CERTIFICATE REQUEST"):
		return fmt.Errorf("%w: the input is a certificate request; give the certificate that the authority returned for it", ErrMalformed)
	case b.Type == "PKCS7":
		return fmt.Errorf("%w: the input is PKCS#7; convert it with: openssl pkcs7 -print_certs", ErrMalformed)
	}
	return fmt.Errorf("%w: the input holds a PEM block %q where a CERTIFICATE is due", ErrMalformed, b.Type)
}

func parseBare(data []byte) ([]*x509.Certificate, error) {
	der := data
	if data[0] != 0x30 || !derComplete(data) {
		text := strings.TrimSpace(string(data))
		if i := strings.LastIndexByte(text, '\n'); i >= 0 && strings.TrimSpace(text[i:]) == "quit" {
			text = text[:i]
		}
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return nil, fmt.Errorf("%w: neither PEM nor base64 nor DER; a certificate begins with -----BEGIN CERTIFICATE-----", ErrMalformed)
		}
		der = raw
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: not an X.509 certificate: %w", ErrMalformed, err)
	}
	return []*x509.Certificate{c}, nil
}

// derComplete says whether the outer DER length is the input's, since base64 text may begin with 0x30 ('0') as well.
func derComplete(b []byte) bool {
	n, head, ok := derLength(b)
	return ok && head+n == len(b)
}

func encodeCertificates(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes()
}

// describe names a certificate in messages.
func describe(c *x509.Certificate) string {
	subject := c.Subject.String()
	if subject == "" {
		subject = "(empty)"
	}
	return fmt.Sprintf("certificate [subject %s, issuer %s, serial %X]", subject, c.Issuer.String(), c.SerialNumber)
}

// checkKey refuses public keys that are too weak for an identity or an authority.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits {
			return fmt.Errorf("%w: RSA with %d bits; %d are the least", ErrWeakKey, n, minRSABits)
		} else if n > maxRSABits {
			return fmt.Errorf("%w: RSA with %d bits; TLS works up to %d", ErrAlgorithm, n, maxRSABits)
		}
	case *ecdsa.PublicKey:
		if n := k.Curve.Params().BitSize; n < minECDSABits {
			return fmt.Errorf("%w: ECDSA with %d bits; %d are the least", ErrWeakKey, n, minECDSABits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("%w: keys of type %T cannot be used in TLS", ErrWeakKey, pub)
	}
	return nil
}

func checkSignature(c *x509.Certificate) error {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return fmt.Errorf("%w: signed with %s; ask the authority for SHA-256 or better", ErrWeakSignature, c.SignatureAlgorithm)
	}
	return nil
}

func checkDates(c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return fmt.Errorf("%w: its last moment was %s (now %s)", ErrExpired, stampText(c.NotAfter), stampText(now))
	}
	if now.Before(c.NotBefore) {
		return fmt.Errorf("%w: its first moment is %s (now %s); is the clock right?", ErrNotYetValid, stampText(c.NotBefore), stampText(now))
	}
	return nil
}

func stampText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkIdentity is the gate for every certificate that the appliance would present.
func checkIdentity(c *x509.Certificate, now time.Time) error {
	if err := checkKey(c.PublicKey); err != nil {
		return fmt.Errorf("%s: %w", describe(c), err)
	}
	if err := checkSignature(c); err != nil {
		return fmt.Errorf("%s: %w", describe(c), err)
	}
	if err := checkDates(c, now); err != nil {
		return fmt.Errorf("%s: %w", describe(c), err)
	}
	if c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment) == 0 {
		return fmt.Errorf("%s: %w: an identity certificate needs digital signature or key encipherment", describe(c), ErrUsage)
	}
	if !hasExtUsage(c, x509.ExtKeyUsageServerAuth) && !hasExtUsage(c, x509.ExtKeyUsageClientAuth) {
		return fmt.Errorf("%s: %w: its extended key usage names neither TLS server nor TLS client", describe(c), ErrUsage)
	}
	return nil
}

// hasExtUsage: a certificate without extended key usage may be used for everything (RFC 5280 section 4.2.1.12).
func hasExtUsage(c *x509.Certificate, want x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == want || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func fitsKey(c *x509.Certificate, key crypto.Signer) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(c.PublicKey)
}

// linkChain orders the issuers of leaf found among pool, leaf's own issuer first, without the self-signed root: the peer has that or does not trust it.
func linkChain(leaf *x509.Certificate, pool []*x509.Certificate) []*x509.Certificate {
	var chain []*x509.Certificate
	seen := map[string]bool{string(leaf.Raw): true}
	for at := leaf; !bytes.Equal(at.RawIssuer, at.RawSubject); {
		var next *x509.Certificate
		for _, c := range pool {
			if !seen[string(c.Raw)] && c.IsCA && bytes.Equal(c.RawSubject, at.RawIssuer) && at.CheckSignatureFrom(c) == nil {
				next = c
				break
			}
		}
		if next == nil || bytes.Equal(next.RawIssuer, next.RawSubject) {
			break
		}
		seen[string(next.Raw)] = true
		chain = append(chain, next)
		at = next
	}
	return chain
}

// checkExtras refuses certificates that follow an identity certificate but issued nothing in its chain.
func checkExtras(leaf *x509.Certificate, extras []*x509.Certificate) error {
	issuers := map[string]bool{string(leaf.RawIssuer): true}
	for range extras {
		for _, c := range extras {
			if issuers[string(c.RawSubject)] {
				issuers[string(c.RawIssuer)] = true
			}
		}
	}
	for _, c := range extras {
		if !issuers[string(c.RawSubject)] {
			return fmt.Errorf("%s: %w of %s; leave it out, or give it to authenticate if peers are to be checked against it", describe(c), ErrChain, describe(leaf))
		}
	}
	return nil
}
