package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// CA is a certificate authority of the lab.
type CA struct {
	Cert *x509.Certificate
	// File is the certificate in PEM.
	File string

	key *ecdsa.PrivateKey
	dir string
}

// CertSpec says what an edge's certificate is made of.
type CertSpec struct {
	Domain              string // the CN, and a DNS name unless Names is set
	Names               []string
	SIPDomains          []string // SAN URI sip:DOMAIN
	NotBefore, NotAfter time.Time
	Usage               []x509.ExtKeyUsage
	// Issuer signs instead of the lab's own CA.
	Issuer *CA
	// RSABits makes an RSA key; 0 is ECDSA P-256.
	RSABits int
}

// NewCA makes an authority; its certificate is written to NAME.pem in dir.
func NewCA(dir, name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 30),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca := &CA{key: key, dir: dir, File: filepath.Join(dir, name+".pem")}
	if ca.Cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return ca, writePEM(ca.File, "CERTIFICATE", der)
}

// serial makes a random certificate number.
func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

// Identity is a certificate with its key on disk, ready for programs.
type Identity struct {
	CertFile, KeyFile, P12File string
	TLS                        tls.Certificate
}

// Issue makes an identity; files are named after name.
func (ca *CA) Issue(name string, s CertSpec) (*Identity, error) {
	if s.Issuer != nil {
		ca = &CA{Cert: s.Issuer.Cert, key: s.Issuer.key, dir: ca.dir, File: s.Issuer.File}
	}
	key, public, err := newKey(s.RSABits)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: s.Domain}, DNSNames: s.Names,
		NotBefore: s.NotBefore, NotAfter: s.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: s.Usage,
	}
	for _, d := range s.SIPDomains {
		tmpl.URIs = append(tmpl.URIs, &url.URL{Scheme: "sip", Opaque: d})
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, public, ca.key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	id := &Identity{
		CertFile: filepath.Join(ca.dir, name+".crt"), KeyFile: filepath.Join(ca.dir, name+".key"),
		P12File: filepath.Join(ca.dir, name+".p12"),
		TLS:     tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
	if err := writePEM(id.CertFile, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	if err := writePEM(id.KeyFile, "PRIVATE KEY", pkcs8); err != nil {
		return nil, err
	}
	// OpenSSL makes the container, so that the import meets a foreign one.
	_, err = run(exec.CommandContext, "openssl", "pkcs12", "-export", "-in", id.CertFile, "-inkey", id.KeyFile,
		"-certfile", ca.File, "-out", id.P12File, "-passout", "pass:"+P12Pass)
	return id, err
}

// Sign gives the certificate, in PEM, for a PKCS#10 request in PEM: its names and its key, for 20 days, both ends of TLS.
func (ca *CA) Sign(request []byte) ([]byte, error) {
	block, _ := pem.Decode(request)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	s := EdgeCert("")
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), Subject: r.Subject, DNSNames: r.DNSNames, URIs: r.URIs, NotBefore: s.NotBefore, NotAfter: s.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: s.Usage,
	}, ca.Cert, r.PublicKey, ca.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// newKey makes a private key and gives its public half.
func newKey(rsaBits int) (private, public any, err error) {
	if rsaBits > 0 {
		k, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, nil, err
		}
		return k, k.Public(), nil
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return k, k.Public(), nil
}

// EdgeCert is the specification of a good certificate for a domain.
func EdgeCert(domain string) CertSpec {
	return CertSpec{
		Domain: domain, Names: []string{domain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 20),
		Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, RSABits: 2048,
	}
}

// TLSConfig is a client configuration with this identity that trusts the CA
// and checks the server's name when one is given.
func (ca *CA) TLSConfig(id *Identity, serverName string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	c := &tls.Config{RootCAs: pool, ServerName: serverName, MinVersion: tls.VersionTLS12}
	if id != nil {
		c.Certificates = []tls.Certificate{id.TLS}
	}
	return c
}

// certificates makes the authority and an identity for each edge.
func (l *Lab) certificates() {
	var err error
	if l.CA, err = NewCA(l.Dir, "lab-ca"); err != nil {
		l.T.Fatalf("certificate authority: %v", err)
	}
	for _, e := range l.Enterprises() {
		spec := EdgeCert(e.Domain)
		if e.side.Cert != nil {
			e.side.Cert(&spec)
		}
		id, err := l.CA.Issue("edge-"+e.Letter, spec)
		if err != nil {
			l.T.Fatalf("certificate of %s: %v", e.Domain, err)
		}
		e.CertFile, e.KeyFile, e.P12File = id.CertFile, id.KeyFile, id.P12File
	}
}

// writePEM writes one PEM block.
func writePEM(path, kind string, der []byte) error {
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", kind, err)
	}
	return nil
}
