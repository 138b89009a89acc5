package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Times of an authority.
const (
	CertificateLife = 365 * 24 * time.Hour
	authorityLife   = 20 * 365 * 24 * time.Hour
	serverLife      = 90 * 24 * time.Hour
	skew            = 5 * time.Minute // certificates begin that much before they are made
	ListLife        = 7 * 24 * time.Hour
	listAge         = time.Hour // a list of revoked certificates is made anew after that
	dailyLimit      = 10        // certificates a license and day
)

// Names of the files of an authority's directory.
const (
	caFile      = "ca.pem" // key and certificate
	licenseFile = "license-key.pem"
	TrustFile   = "authority.pem"
	journalFile = "journal"
)

// Authority gives certificates to the holders of licenses, and revokes them. Its methods may be called from any goroutine.
type Authority struct {
	dir        string
	clock      Clock
	ca         *x509.Certificate
	key        crypto.Signer
	licenseKey ed25519.PrivateKey
	trust      []byte

	mu       sync.Mutex // guards everything that follows
	journal  *journal
	list     []byte // of revoked certificates
	listAt   time.Time
	listSeen int   // entries of the journal that are in it
	listNo   int64 // its number: the time in milliseconds, and always more than the one before
	server   *serverCertificate
}

// InitAuthority makes a new authority in a directory, which must not have one.
func InitAuthority(dir, name string, clock Clock) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, caFile)); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s has an authority already", dir)
	}
	now := clock.orReal().Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	spec := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, key.Public(), key)
	if err != nil {
		return fmt.Errorf("authority's certificate: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	caKey, err1 := x509.MarshalPKCS8PrivateKey(key)
	licKey, err2 := x509.MarshalPKCS8PrivateKey(private)
	licPub, err3 := x509.MarshalPKIXPublicKey(public)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	cert := block("CERTIFICATE", der)
	// The CA's file is the last: without it there is no authority, and a failed start can be repeated.
	for _, f := range []struct {
		name string
		text []byte
	}{
		{licenseFile, block("PRIVATE KEY", licKey)},
		{TrustFile, append(append([]byte{}, cert...), block("PUBLIC KEY", licPub)...)},
		{caFile, append(block("PRIVATE KEY", caKey), cert...)},
	} {
		if err := writeFile(filepath.Join(dir, f.name), f.text); err != nil {
			return err
		}
	}
	return nil
}

func block(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

// serial is 127 random bits, positive.
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// OpenAuthority opens the authority of a directory.
func OpenAuthority(dir string, clock Clock) (*Authority, error) {
	a := &Authority{dir: dir, clock: clock.orReal()}
	text, err := readFile(filepath.Join(dir, caFile), 1<<16)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	key, certs, err := parseKeyAndChain(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, caFile), err)
	}
	a.key, a.ca = key, certs[0]
	if a.licenseKey, err = LicenseKey(dir); err != nil {
		return nil, err
	}
	if a.trust, err = readFile(filepath.Join(dir, TrustFile), 1<<16); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a.journal, err = openJournal(filepath.Join(dir, journalFile))
	return a, err
}

// LicenseKey reads the key that signs an authority's licenses: whoever issues licenses needs it, and nothing else of the authority.
func LicenseKey(dir string) (ed25519.PrivateKey, error) {
	name := filepath.Join(dir, licenseFile)
	text, err := readFile(name, 1<<16)
	if err != nil {
		return nil, fmt.Errorf("license key: %w", err)
	}
	b, _ := pem.Decode(text)
	if b == nil {
		return nil, fmt.Errorf("%s holds no PEM", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if k, ok := key.(ed25519.PrivateKey); ok {
		return k, nil
	}
	return nil, fmt.Errorf("%s holds no Ed25519 key", name)
}

// parseKeyAndChain reads a PRIVATE KEY and the CERTIFICATEs that follow it.
func parseKeyAndChain(text []byte) (crypto.Signer, []*x509.Certificate, error) {
	b, rest := pem.Decode(text)
	if b == nil || b.Type != "PRIVATE KEY" {
		return nil, nil, errors.New("want a PRIVATE KEY first")
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("the key cannot sign")
	}
	var certs []*x509.Certificate
	for b, rest = pem.Decode(rest); b != nil; b, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, nil, errors.New("want a CERTIFICATE after the key")
	}
	public, err1 := fingerprint(signer.Public())
	named, err2 := fingerprint(certs[0].PublicKey)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	if public != named {
		return nil, nil, errors.New("key and certificate do not belong together")
	}
	return signer, certs, nil
}

// Request is what a member sends for a certificate (docs/protocol/enroll.md).
type Request struct {
	Tag       string `json:"tag"`
	PeerCount int    `json:"peercount"`
	Bootstrap bool   `json:"bootstrap,omitempty"`
	Signature string `json:"signature"`
	CSR       string `json:"csr"`
}

// Answer is a certificate.
type Answer struct {
	Certificate string    `json:"certificate"`
	CA          string    `json:"ca"`
	NotAfter    time.Time `json:"not_after"`
}

// Refusal is why a request has no certificate, with the HTTP status of the answer.
type Refusal struct {
	Status int
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

func refuse(status int, format string, args ...any) error {
	return &Refusal{status, fmt.Sprintf(format, args...)}
}

// Enroll checks a request and issues a certificate; with is the certificate that the TLS connection proved, nil for none. The journal has the
// certificate on disk before it is returned. An error of type *Refusal is for the member, any other is the authority's own trouble.
func (a *Authority) Enroll(req Request, with *x509.Certificate) (*Answer, error) {
	tag, csr, err := a.checkRequest(req)
	if err != nil {
		return nil, err
	}
	key, err := fingerprint(csr.PublicKey)
	if err != nil {
		return nil, refuse(400, "%v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.journal.catchUp(); err != nil {
		return nil, err
	}
	now := a.clock.Now()
	if err := a.journal.mayEnroll(tag, key, with, now); err != nil {
		return nil, err
	}
	spec := &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-skew), NotAfter: now.Add(CertificateLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if a.ca.NotAfter.Before(spec.NotAfter) {
		return nil, errors.New("the authority's own certificate ends within a year: a new authority is due")
	}
	for _, id := range PeerIDs(tag, req.PeerCount) {
		spec.URIs = append(spec.URIs, &url.URL{Scheme: "urn", Opaque: peerURN[len("urn:"):] + id.String()})
	}
	if req.Bootstrap {
		spec.URIs = append(spec.URIs, &url.URL{Scheme: "urn", Opaque: bootstrapURN[len("urn:"):]})
	}
	spec.Subject.CommonName = "peer " + PeerIDs(tag, 1)[0].String()
	der, err := x509.CreateCertificate(rand.Reader, spec, a.ca, csr.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if err := a.journal.add(entry{Op: opIssue, At: now, Tag: tag.String(), Serial: spec.SerialNumber.Text(16), Key: key, NotAfter: spec.NotAfter}); err != nil {
		return nil, err
	}
	return &Answer{string(block("CERTIFICATE", der)), string(block("CERTIFICATE", a.ca.Raw)), spec.NotAfter.UTC().Truncate(time.Second)}, nil
}

// checkRequest checks what can be checked without the journal.
func (a *Authority) checkRequest(req Request) (Tag, *x509.CertificateRequest, error) {
	tag, err := ParseTag(req.Tag)
	if err != nil {
		return tag, nil, refuse(400, "%v", err)
	}
	if req.PeerCount < 1 || req.PeerCount > MaxPeers {
		return tag, nil, refuse(400, "peercount %d: want 1 to %d", req.PeerCount, MaxPeers)
	}
	signature, err := hex.DecodeString(req.Signature)
	if err != nil || len(signature) != signatureBytes {
		return tag, nil, refuse(400, "signature: want %d hexadecimal digits", 2*signatureBytes)
	}
	if !ed25519.Verify(a.licenseKey.Public().(ed25519.PublicKey), enrolText(tag, req.PeerCount, req.Bootstrap), signature) {
		return tag, nil, refuse(403, "the license is not of this authority")
	}
	b, rest := pem.Decode([]byte(req.CSR))
	if b == nil || b.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		return tag, nil, refuse(400, "csr: want one CERTIFICATE REQUEST in PEM")
	}
	csr, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return tag, nil, refuse(400, "csr: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return tag, nil, refuse(400, "csr: %v", err)
	}
	if err := checkPublicKey(csr.PublicKey); err != nil {
		return tag, nil, refuse(400, "csr: %v", err)
	}
	return tag, csr, nil
}

// Revoke revokes all certificates of a license, and the license: it gets no certificate any more.
func (a *Authority) Revoke(tag Tag) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.journal.catchUp(); err != nil {
		return err
	}
	if a.journal.revoked[tag.String()] {
		return fmt.Errorf("license %s is revoked already", tag)
	}
	return a.journal.add(entry{Op: opRevoke, At: a.clock.Now(), Tag: tag.String()})
}

// Release revokes all certificates of a license, which then may enrol anew with any key: its holder has lost the key or changed the host.
func (a *Authority) Release(tag Tag) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.journal.catchUp(); err != nil {
		return err
	}
	if len(a.journal.issued[tag.String()]) == 0 {
		return fmt.Errorf("license %s has no certificate", tag)
	}
	return a.journal.add(entry{Op: opRelease, At: a.clock.Now(), Tag: tag.String()})
}

// Issued is a certificate of the journal.
type Issued struct {
	Tag      string    `json:"tag"`
	Serial   string    `json:"serial"`
	At       time.Time `json:"issued"`
	NotAfter time.Time `json:"not_after"`
	State    string    `json:"state"` // valid, expired, revoked
}

// Issued lists all certificates in the order in which they were issued.
func (a *Authority) Issued() ([]Issued, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.journal.catchUp(); err != nil {
		return nil, err
	}
	var list []Issued
	for _, c := range a.journal.order {
		i := Issued{c.Tag, c.Serial, c.At, c.NotAfter, "valid"}
		if !c.revokedAt.IsZero() {
			i.State = "revoked"
		} else if a.clock.Now().After(c.NotAfter) {
			i.State = "expired"
		}
		list = append(list, i)
	}
	return list, nil
}

// List is the list of revoked certificates, DER, at most an hour old and with every revocation in it.
func (a *Authority) List() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.journal.catchUp(); err != nil {
		return nil, err
	}
	now := a.clock.Now()
	if a.list != nil && a.listSeen == a.journal.entries && now.Sub(a.listAt) < listAge {
		return a.list, nil
	}
	spec := &x509.RevocationList{ThisUpdate: now, NextUpdate: now.Add(ListLife), Number: big.NewInt(max(now.UnixMilli(), a.listNo+1))}
	for _, c := range a.journal.order {
		if !c.revokedAt.IsZero() && now.Before(c.NotAfter.Add(24*time.Hour)) {
			n, ok := new(big.Int).SetString(c.Serial, 16)
			if !ok {
				return nil, fmt.Errorf("journal: serial %q", c.Serial)
			}
			spec.RevokedCertificateEntries = append(spec.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: c.revokedAt})
		}
	}
	list, err := x509.CreateRevocationList(rand.Reader, spec, a.ca, a.key)
	if err != nil {
		return nil, fmt.Errorf("list of revoked certificates: %w", err)
	}
	a.list, a.listAt, a.listSeen, a.listNo = list, now, a.journal.entries, spec.Number.Int64()
	return list, nil
}

// serverFor makes the certificate of the authority's own HTTPS server.
func (a *Authority) serverFor(hosts []string) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := a.clock.Now()
	spec := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: hosts[0]}, NotBefore: now.Add(-skew), NotAfter: now.Add(serverLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			spec.IPAddresses = append(spec.IPAddresses, ip)
		} else {
			spec.DNSNames = append(spec.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, a.ca, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("server certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
