package tlsproxy

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

const (
	maxBundle = 4 << 20
	// maxRounds bounds the password rounds that a file may ask for; tools write 1 to 600,000.
	maxRounds = 2_000_000
)

// ImportPKCS12 answers crypto ca import NAME pkcs12: key, identity certificate and authorities from one file, as openssl pkcs12 -export writes it
// today (AES, SHA-256) or with -legacy (3DES, RC2), binary or in base64 as an ASA exports it (with BEGIN PKCS12 or without, a closing "quit" allowed). The key becomes the key pair labelled like the trustpoint, unless a key pair of that label belongs to something else; the
// certificate uses its own key in any case. Authorities of the file are authenticated with it. A second import replaces the first.
// Errors: those of [Store.ImportCertificate], and [ErrPassphrase]. Neither key nor passphrase is ever part of an error.
func (s *Store) ImportPKCS12(trustpoint string, data []byte, passphrase string) error {
	if err := checkName("trustpoint", trustpoint); err != nil {
		return err
	}
	key, leaf, extras, err := decodeBundle(data, passphrase)
	if err == nil {
		err = checkIdentity(leaf, s.now())
	}
	if err == nil {
		err = s.change(func(tx *change) error { return s.importBundle(tx, trustpoint, key, leaf, extras) })
	}
	if err != nil {
		return fmt.Errorf("import PKCS#12 of trustpoint %q: %w", trustpoint, err)
	}
	return nil
}

func (s *Store) importBundle(tx *change, name string, key crypto.Signer, leaf *x509.Certificate, extras []*x509.Certificate) error {
	identity, err := encodeIdentity(key, leaf, linkChain(leaf, extras))
	if err != nil {
		return err
	}
	var authorities []*x509.Certificate
	for _, c := range extras {
		if isAuthority(c) {
			authorities = append(authorities, c)
		}
	}
	old := tx.snap.trustpoints[name]
	m := meta{Enrollment: "terminal"}
	if old != nil {
		m = old.meta
	}
	if s.mayReplaceKey(name, old) {
		data, err := encodeKey(key)
		if err != nil {
			return err
		}
		tx.write(s.dir.keyFile(name), data)
		m.KeyPair = name
	}
	bundle := s.dir.trustpointFile(name, "bundle.pem")
	if len(authorities) > 0 {
		tx.write(bundle, encodeCertificates(authorities...))
	} else if old != nil && len(old.bundled) > 0 {
		tx.remove(bundle)
	}
	if err := s.writeMeta(tx, name, m); err != nil {
		return err
	}
	// Last, because this write makes the import count: before it the trustpoint works with its old key and certificate.
	tx.write(s.dir.trustpointFile(name, "identity.pem"), identity)
	return nil
}

// mayReplaceKey protects a key pair of the same label whose request may be on its way to an authority.
func (s *Store) mayReplaceKey(label string, old *trustpoint) bool {
	if !s.HasKey(label) {
		return true
	}
	if old == nil || old.leaf == nil {
		return false
	}
	present, err := s.loadKey(label)
	return err != nil || fitsKey(old.leaf, present)
}

// decodeBundle reads a PKCS#12 file and finds the certificate that fits the key; the rest follows in the file's order.
func decodeBundle(data []byte, passphrase string) (key crypto.Signer, leaf *x509.Certificate, extras []*x509.Certificate, err error) {
	if len(data) > maxBundle {
		return nil, nil, nil, fmt.Errorf("%w: more than %d bytes of PKCS#12", ErrTooLarge, maxBundle)
	}
	if data, err = unwrapBundle(data); err != nil {
		return nil, nil, nil, err
	}
	if err := checkRounds(data, maxRounds); err != nil {
		return nil, nil, nil, err
	}
	// The parser is third-party code on a file from outside: damage must not stop the daemon.
	defer func() {
		if recover() != nil {
			key, leaf, extras, err = nil, nil, nil, fmt.Errorf("%w: the PKCS#12 file is damaged", ErrMalformed)
		}
	}()
	private, first, rest, err := pkcs12.DecodeChain(data, passphrase)
	switch {
	case passphrase == "" && (errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption)):
		return nil, nil, nil, fmt.Errorf("%w: this PKCS#12 file opens by its passphrase alone, and none was given", ErrPassphrase)
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return nil, nil, nil, fmt.Errorf("%w for this PKCS#12 file", ErrPassphrase)
	case err != nil:
		return nil, nil, nil, fmt.Errorf("%w: not a PKCS#12 file that holds one key and its certificate: %w", ErrMalformed, err)
	}
	if key, err = usableKey(private); err != nil {
		return nil, nil, nil, err
	}
	certs := append([]*x509.Certificate{first}, rest...)
	if len(certs) > maxCertificates {
		return nil, nil, nil, fmt.Errorf("%w: more than %d certificates", ErrTooLarge, maxCertificates)
	}
	for _, c := range certs {
		if leaf == nil && fitsKey(c, key) {
			leaf = c
		} else {
			extras = append(extras, c)
		}
	}
	if leaf == nil {
		return nil, nil, nil, fmt.Errorf("%w: none of the file's certificates belongs to its private key", ErrKeyMismatch)
	}
	return key, leaf, extras, nil
}

// ExportPKCS12 makes a PKCS#12 file (AES-256, SHA-256) of a trustpoint's key, certificate and the authorities of its own chain.
// The passphrase has at least 8 characters: the file holds the private key.
func (s *Store) ExportPKCS12(trustpoint, passphrase string) ([]byte, error) {
	if len(passphrase) < 8 {
		return nil, fmt.Errorf("export PKCS#12: %w: give a passphrase of at least 8 characters", ErrPassphrase)
	}
	tp, err := s.withIdentity(trustpoint)
	if err != nil {
		return nil, fmt.Errorf("export PKCS#12: %w", err)
	}
	chain := tp.sentChain()
	last := tp.leaf
	if len(chain) > 0 {
		last = chain[len(chain)-1]
	}
	for _, c := range append(append([]*x509.Certificate{}, tp.bundled...), tp.authenticated...) {
		if isAuthority(c) && selfSigned(c) && last.CheckSignatureFrom(c) == nil && !last.Equal(c) {
			chain = append(chain, c)
			break
		}
	}
	data, err := pkcs12.Modern2023.Encode(tp.key, tp.leaf, chain, passphrase)
	if err != nil {
		return nil, fmt.Errorf("export PKCS#12 of trustpoint %q: the key or the passphrase has no PKCS#12 form", trustpoint)
	}
	return data, nil
}

// unwrapBundle gives the binary form of a file that may be base64 text.
func unwrapBundle(data []byte) ([]byte, error) {
	if len(data) == 0 || (data[0] == 0x30 && (len(data) < 2 || data[1] >= 0x80)) { // a DER sequence of 128 bytes or more, or of indefinite length
		return data, nil
	}
	text := strings.TrimSpace(string(data))
	if rest, ok := strings.CutSuffix(text, "quit"); ok {
		text = strings.TrimSpace(rest)
	}
	if strings.Contains(text, "-----BEGIN") {
		block, _ := pem.Decode([]byte(text + "\n"))
		switch {
		case block == nil:
			return nil, fmt.Errorf("%w: a PEM block is cut off or damaged; copy it again from its BEGIN line to its END line", ErrMalformed)
		case block.Type != "PKCS12":
			return nil, fmt.Errorf("%w: the input is PEM (%s), not PKCS#12; a certificate alone is imported as PEM, key and certificate by: openssl pkcs12 -export -inkey KEY -in CERTIFICATE -out FILE", ErrMalformed, block.Type)
		}
		return block.Bytes, nil
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || len(raw) == 0 || raw[0] != 0x30 {
		return nil, fmt.Errorf("%w: not a PKCS#12 file, neither binary nor in base64", ErrMalformed)
	}
	return raw, nil
}

// checkRounds looks through the readable part of the file for password rounds out of all proportion: the parser would compute for hours.
func checkRounds(data []byte, most int64) error {
	if len(data) == 0 {
		return fmt.Errorf("%w: the PKCS#12 file is empty", ErrMalformed)
	}
	if data[0] != 0x30 {
		return fmt.Errorf("%w: not a PKCS#12 file", ErrMalformed)
	}
	if len(data) > 1 && data[1] == 0x80 {
		return fmt.Errorf("%w: PKCS#12 in indefinite-length BER; write it anew with: openssl pkcs12 -in OLD -nodes | openssl pkcs12 -export -out NEW", ErrMalformed)
	}
	return walkDER(data, 0, most)
}

func walkDER(data []byte, depth int, most int64) error {
	salt := false // an OCTET STRING (salt) followed by an INTEGER (rounds) is how each of the formats writes it
	for len(data) > 1 && depth < 32 {
		n, head, ok := derLength(data)
		if !ok || head+n > len(data) {
			return nil
		}
		tag, body := data[0], data[head:head+n]
		switch {
		case tag == 0x02:
			if rounds := new(big.Int).SetBytes(body); salt && len(body) < 64 && (rounds.Cmp(big.NewInt(most)) > 0 || rounds.Sign() == 0) {
				return fmt.Errorf("%w: the PKCS#12 file asks for %s password rounds; at most %d are worked through", ErrTooLarge, rounds, most)
			}
		case tag&0x20 != 0 || tag == 0x04 && len(body) > 0 && body[0] == 0x30 && derComplete(body):
			if err := walkDER(body, depth+1, most); err != nil {
				return err
			}
		}
		salt = tag == 0x04
		data = data[head+n:]
	}
	return nil
}

// derLength reads the definite length of the element at the head of b.
func derLength(b []byte) (n, head int, ok bool) {
	if len(b) < 2 {
		return 0, 0, false
	}
	if b[1] < 0x80 {
		return int(b[1]), 2, true
	}
	size := int(b[1] & 0x7f)
	if size == 0 || size > 4 || len(b) < 2+size {
		return 0, 0, false
	}
	for _, c := range b[2 : 2+size] {
		n = n<<8 | int(c)
	}
	return n, 2 + size, true
}
