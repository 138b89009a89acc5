package tlsproxy

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// selfSignedFor is the life of a self-signed certificate; the ASA's was ten years as well.
const selfSignedFor = 10 * 365 * 24 * time.Hour

// renewBefore: a self-signed certificate with less time left is made anew by Enroll.
const renewBefore = 30 * 24 * time.Hour

// Enroll answers crypto ca enroll. With enrollment terminal it returns a PKCS#10 request in PEM for the key pair, keeps it (see [Store.Request]) and
// remembers key pair and names; nothing else changes. With enrollment self it makes the self-signed certificate and returns nil; where the trustpoint has
// one already for the same key, subject and names, with 30 days left or more, that one stays, so that enrolling again does not break peers that hold it.
//
// The request's subject alternative names are the FQDN and the subject's common name, each where it is a domain name: a certificate with
// a SAN is never looked at for its CN (RFC 5922 section 7.1), so the enterprise's domain in the CN must be there too.
func (s *Store) Enroll(tp TrustpointSpec) (csrPEM []byte, err error) {
	if err := checkName("trustpoint", tp.Name); err != nil {
		return nil, err
	}
	if tp.Enrollment != "" && tp.Enrollment != "terminal" && tp.Enrollment != "self" {
		return nil, fmt.Errorf("trustpoint %q: %w: enrollment %q; terminal and self exist", tp.Name, ErrMalformed, tp.Enrollment)
	}
	err = s.change(func(tx *change) error {
		csrPEM, err = s.enroll(tx, tp)
		if err != nil {
			return fmt.Errorf("enroll trustpoint %q: %w", tp.Name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return csrPEM, nil
}

func (s *Store) enroll(tx *change, tp TrustpointSpec) ([]byte, error) {
	label := tp.KeyPair
	if label == "" {
		label = tp.Name
	}
	key, err := s.loadKey(label)
	if err != nil {
		return nil, err
	}
	subject, names, err := subjectAndNames(tp)
	if err != nil {
		return nil, err
	}
	m := meta{KeyPair: label, Enrollment: tp.Enrollment, SubjectName: tp.SubjectName, FQDN: tp.FQDN}
	if tp.Enrollment != "self" {
		if err := s.writeMeta(tx, tp.Name, m); err != nil {
			return nil, err
		}
		request, err := makeRequest(key, subject, names)
		if err != nil {
			return nil, err
		}
		tx.write(s.dir.trustpointFile(tp.Name, requestFile), request)
		return request, nil
	}
	if old := tx.snap.trustpoints[tp.Name]; old != nil && old.leaf != nil && selfSigned(old.leaf) && fitsKey(old.leaf, key) &&
		bytes.Equal(old.leaf.RawSubject, subject) && slices.Equal(old.leaf.DNSNames, names) &&
		checkIdentity(old.leaf, s.now()) == nil && s.now().Add(renewBefore).Before(old.leaf.NotAfter) {
		return nil, nil
	}
	leaf, err := makeSelfSigned(key, subject, names, s.now())
	if err != nil {
		return nil, err
	}
	data, err := encodeIdentity(key, leaf, nil)
	if err != nil {
		return nil, err
	}
	if err := s.writeMeta(tx, tp.Name, m); err != nil {
		return nil, err
	}
	tx.write(s.dir.trustpointFile(tp.Name, "identity.pem"), data)
	return nil, nil
}

func subjectAndNames(tp TrustpointSpec) (subject []byte, names []string, err error) {
	if tp.FQDN != "" {
		d, err := ParseDomain(tp.FQDN)
		if err != nil {
			return nil, nil, fmt.Errorf("fqdn: %w", err)
		}
		names = append(names, d)
	}
	text := tp.SubjectName
	if text == "" {
		if tp.FQDN == "" {
			return nil, nil, fmt.Errorf("%w: neither subject-name nor fqdn is set; set: subject-name cn=YOUR-DOMAIN", ErrMalformed)
		}
		text = "cn=" + names[0]
	}
	subject, cn, err := ParseSubject(text)
	if err != nil {
		return nil, nil, fmt.Errorf("subject-name: %w", err)
	}
	if d, err := ParseDomain(cn); err == nil && !slices.Contains(names, d) {
		names = append(names, d)
	}
	return subject, names, nil
}

func makeRequest(key crypto.Signer, subject []byte, names []string) ([]byte, error) {
	usage, err := usageExtensions(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: subject, DNSNames: names, ExtraExtensions: usage}, key)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// usageExtensions asks the authority for both TLS roles: the appliance is client outbound and server inbound with one certificate.
func usageExtensions(key crypto.Signer) ([]pkix.Extension, error) {
	extended, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}, {1, 3, 6, 1, 5, 5, 7, 3, 2}})
	if err != nil {
		return nil, err
	}
	// digitalSignature and keyEncipherment are bits 0 and 2 (RFC 5280 section 4.2.1.3).
	bits := asn1.BitString{Bytes: []byte{0x80}, BitLength: 1}
	if keyUsage(key)&x509.KeyUsageKeyEncipherment != 0 {
		bits = asn1.BitString{Bytes: []byte{0xa0}, BitLength: 3}
	}
	basic, err := asn1.Marshal(bits)
	if err != nil {
		return nil, err
	}
	return []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: basic},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: extended},
	}, nil
}

// keyUsage: only an RSA key can encipher (RFC 8813 section 3 forbids to say so of an elliptic-curve key).
func keyUsage(key crypto.Signer) x509.KeyUsage {
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		return x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	return x509.KeyUsageDigitalSignature
}

func makeSelfSigned(key crypto.Signer, subject []byte, names []string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), RawSubject: subject, DNSNames: names,
		// An hour back, because the peer's clock may be slow.
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSignedFor),
		KeyUsage:    keyUsage(key),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		// No authority: whoever authenticates this certificate trusts it alone.
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make self-signed certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
