package tlsproxy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"software.sslmate.com/src/go-pkcs12"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority issues test certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

// rsaKeys are made once each: they are what takes time.
var (
	rsaMu   sync.Mutex
	rsaKeys = map[int]*rsa.PrivateKey{}
)

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	rsaMu.Lock()
	defer rsaMu.Unlock()
	if rsaKeys[bits] == nil {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		rsaKeys[bits] = k
	}
	return rsaKeys[bits]
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t testing.TB, cn string, edit ...func(*x509.Certificate)) *authority {
	t.Helper()
	a := &authority{t: t, key: ecKey(t, elliptic.P256())}
	a.cert = a.sign(a.key.Public(), append([]func(*x509.Certificate){authorityOf(cn)}, edit...))
	return a
}

func authorityOf(cn string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: cn}
		c.IsCA, c.BasicConstraintsValid = true, true
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign, nil
	}
}

// sign makes a certificate; the defaults are those of a good identity certificate of a.example.
func (a *authority) sign(pub crypto.PublicKey, edit []func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, e := range edit {
		e(c)
	}
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// pair is a certificate with its key and intermediates.
type pair struct {
	cert  *x509.Certificate
	key   crypto.Signer
	chain []*x509.Certificate
}

func (a *authority) issue(domain string, edit ...func(*x509.Certificate)) pair {
	return a.issueFor(ecKey(a.t, elliptic.P256()), domain, edit...)
}

func (a *authority) issueFor(key crypto.Signer, domain string, edit ...func(*x509.Certificate)) pair {
	a.t.Helper()
	named := func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: domain}
		c.DNSNames = []string{domain}
	}
	return pair{cert: a.sign(key.Public(), append([]func(*x509.Certificate){named}, edit...)), key: key}
}

// intermediate makes a subordinate authority.
func (a *authority) intermediate(cn string) *authority {
	sub := &authority{t: a.t, key: ecKey(a.t, elliptic.P256())}
	sub.cert = a.sign(sub.key.Public(), []func(*x509.Certificate){authorityOf(cn)})
	return sub
}

func (a *authority) pem() []byte { return encodeCertificates(a.cert) }

func selfSignedPair(t testing.TB, domain string, edit ...func(*x509.Certificate)) pair {
	a := &authority{t: t, key: ecKey(t, elliptic.P256())}
	return a.issueFor(a.key, domain, edit...)
}

func (p pair) tls() tls.Certificate {
	c := tls.Certificate{PrivateKey: p.key, Leaf: p.cert, Certificate: [][]byte{p.cert.Raw}}
	for _, i := range p.chain {
		c.Certificate = append(c.Certificate, i.Raw)
	}
	return c
}

func (p pair) p12(t testing.TB, passphrase string, authorities ...*x509.Certificate) []byte {
	t.Helper()
	data, err := pkcs12.Modern2023.WithIterations(10).Encode(p.key, p.cert, append(p.chain, authorities...), passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	data, err := encodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// files writes key, certificate and chain for openssl; it returns the path of one file with all of them.
func (p pair) file(t testing.TB, dir, name string) string {
	t.Helper()
	data := append(keyPEM(t, p.key), encodeCertificates(append([]*x509.Certificate{p.cert}, p.chain...)...)...)
	return writeFile(t, dir, name, data)
}

func writeFile(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// storeWith has the pair as identity of trustpoint local-ent and trusts the authorities.
func storeWith(t testing.TB, p pair, authorities ...*authority) *Store {
	t.Helper()
	s := openStore(t)
	must(t, s.ImportPKCS12("local-ent", p.p12(t, "passphrase"), "passphrase"))
	for _, a := range authorities {
		must(t, s.Authenticate("remote-"+a.cert.Subject.CommonName, a.pem()))
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sipURI(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	must(t, err)
	return u
}

// openssl runs the other implementation; the machine of the tests has it (Debian package openssl).
func openssl(t testing.TB, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.Bytes()
}

func needOpenssl(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs the openssl command (Debian package openssl)")
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
