package tlsproxy

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// ImportCertificate answers crypto ca import NAME certificate: the certificate that an authority returned for an enrolled key, its chain may follow
// in the same input (leaf first). The key pair is the one that tp names, else the one remembered from Enroll, else the one labelled like the trustpoint,
// else the one of the present certificate. Errors: [ErrMalformed], [ErrKeyMismatch], [ErrNoKey], [ErrWeakKey], [ErrWeakSignature], [ErrExpired],
// [ErrNotYetValid], [ErrUsage], [ErrChain]; the store is unchanged then. The same certificate again changes nothing.
func (s *Store) ImportCertificate(tp TrustpointSpec, pem []byte) error {
	if err := checkName("trustpoint", tp.Name); err != nil {
		return err
	}
	certs, err := parseCertificates(pem)
	if err == nil {
		err = checkIdentity(certs[0], s.now())
	}
	if err == nil {
		err = checkExtras(certs[0], certs[1:])
	}
	if err == nil {
		err = s.change(func(tx *change) error { return s.importCertificate(tx, tp, certs) })
	}
	if err != nil {
		return fmt.Errorf("import certificate of trustpoint %q: %w", tp.Name, err)
	}
	return nil
}

func (s *Store) importCertificate(tx *change, tp TrustpointSpec, certs []*x509.Certificate) error {
	old := tx.snap.trustpoints[tp.Name]
	if old != nil && old.leaf != nil && old.leaf.Equal(certs[0]) && slices.EqualFunc(old.chain, certs[1:], (*x509.Certificate).Equal) {
		return nil
	}
	key, label, err := s.keyFor(old, tp, certs[0])
	if err != nil {
		return err
	}
	data, err := encodeIdentity(key, certs[0], certs[1:])
	if err != nil {
		return err
	}
	m := meta{KeyPair: label, Enrollment: tp.Enrollment, SubjectName: tp.SubjectName, FQDN: tp.FQDN}
	if old != nil {
		m = old.meta
		m.KeyPair = label
	}
	if err := s.writeMeta(tx, tp.Name, m); err != nil {
		return err
	}
	tx.write(s.dir.trustpointFile(tp.Name, "identity.pem"), data)
	if s.Request(tp.Name) != "" {
		tx.remove(s.dir.trustpointFile(tp.Name, requestFile)) // it is answered
	}
	return nil
}

// keyFor finds the key pair that the certificate was made for among those that can be meant.
func (s *Store) keyFor(old *trustpoint, tp TrustpointSpec, leaf *x509.Certificate) (crypto.Signer, string, error) {
	labels := []string{tp.KeyPair}
	if old != nil {
		labels = append(labels, old.meta.KeyPair)
	}
	labels = append(labels, tp.Name)
	var tried []string
	var damage error
	for _, label := range labels {
		if label == "" || slices.Contains(tried, label) || !s.HasKey(label) {
			continue
		}
		key, err := s.loadKey(label)
		if err != nil {
			damage = err
			continue
		}
		if fitsKey(leaf, key) {
			return key, label, nil
		}
		tried = append(tried, label)
	}
	if old != nil && old.key != nil && fitsKey(leaf, old.key) {
		return old.key, old.meta.KeyPair, nil
	}
	switch {
	case damage != nil:
		return nil, "", damage
	case len(tried) == 0:
		return nil, "", fmt.Errorf("%w for this trustpoint; enroll it first, or import key and certificate together as PKCS#12", ErrNoKey)
	}
	return nil, "", fmt.Errorf("%s: %w %q; give the certificate that was made for this trustpoint's request, or enroll again", describe(leaf), ErrKeyMismatch, tried)
}

// Authenticate answers crypto ca authenticate: from the next handshake on, peers are trusted whose chain ends at one of these certificates.
// A certificate of an authority (CA true) vouches for what it issues; any other one for itself alone. It replaces what was authenticated for that trustpoint
// before; authorities out of a PKCS#12 file stay. Refused: malformed, expired, not yet valid and weak ones.
func (s *Store) Authenticate(trustpoint string, pem []byte) error {
	if err := checkName("trustpoint", trustpoint); err != nil {
		return err
	}
	certs, err := parseCertificates(pem)
	for _, c := range certs {
		err = errors.Join(err, s.checkAuthority(c))
	}
	if err == nil {
		err = s.change(func(tx *change) error {
			if old := tx.snap.trustpoints[trustpoint]; old != nil && old.caErr == nil && slices.EqualFunc(old.authenticated, certs, (*x509.Certificate).Equal) {
				return nil
			}
			tx.write(s.dir.trustpointFile(trustpoint, "ca.pem"), encodeCertificates(certs...))
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("authenticate trustpoint %q: %w", trustpoint, err)
	}
	return nil
}

func (s *Store) checkAuthority(c *x509.Certificate) error {
	if err := checkKey(c.PublicKey); err != nil {
		return fmt.Errorf("%s: %w", describe(c), err)
	}
	if err := checkDates(c, s.now()); err != nil {
		return fmt.Errorf("%s: %w", describe(c), err)
	}
	return nil
}

// isAuthority: only a certificate that says so vouches for others. One of X.509 version 1 says nothing of its role, and one whose
// key usage lacks certificate signing denies it; both are trusted for themselves alone.
func isAuthority(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0)
}

// ExportIdentity answers crypto ca export NAME identity-certificate: the certificate alone in PEM. An expired one is exported too.
func (s *Store) ExportIdentity(trustpoint string) ([]byte, error) {
	tp, err := s.withIdentity(trustpoint)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return encodeCertificates(tp.leaf), nil
}

func (s *Store) withIdentity(name string) (*trustpoint, error) {
	snap := s.current()
	tp := snap.trustpoints[name]
	if tp == nil || tp.leaf == nil {
		_, err := snap.identity(name, s.now())
		return nil, err
	}
	return tp, nil
}
