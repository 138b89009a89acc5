package ring

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/ucime/learn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// authority issues certificates of the ring.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	mu   sync.Mutex
	gone map[string]bool // serial numbers revoked
	last int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ring authority"}, NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool(), gone: map[string]bool{}, last: 1}
	a.pool.AddCert(cert)
	return a
}

// peer makes a peer ID from a name: what comes first in the alphabet need not come first as peer ID.
func peer(format string, args ...any) (p learn.PeerID) {
	sum := sha256.Sum256([]byte(fmt.Sprintf(format, args...)))
	copy(p[:], sum[:])
	return p
}

// testIdentity is what enrolment would be.
type testIdentity struct {
	a     *authority
	mu    sync.Mutex
	cert  *tls.Certificate
	blind bool // it admits nobody, as without a list of revoked certificates
}

func (id *testIdentity) Certificate() (*tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.cert, nil
}
func (id *testIdentity) Roots() *x509.CertPool                               { return id.a.pool }
func (id *testIdentity) PeerIDs(c *x509.Certificate) ([]learn.PeerID, error) { return PeerIDs(c) }
func (id *testIdentity) Admitted(c *x509.Certificate) error {
	id.mu.Lock()
	blind := id.blind
	id.mu.Unlock()
	if blind {
		return errors.New("there is no list of revoked certificates")
	}
	id.a.mu.Lock()
	defer id.a.mu.Unlock()
	if id.a.gone[c.SerialNumber.String()] {
		return errors.New("certificate is revoked")
	}
	return nil
}

func (a *authority) identity(t testing.TB, bootstrap bool, peers ...learn.PeerID) *testIdentity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.last++
	serial := a.last
	a.mu.Unlock()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "member"}, NotBefore: epoch.AddDate(-1, 0, 0), NotAfter: epoch.AddDate(15, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, p := range peers {
		tmpl.URIs = append(tmpl.URIs, PeerURI(p))
	}
	if bootstrap {
		tmpl.URIs = append(tmpl.URIs, BootstrapURI())
	}
	tmpl.URIs = append(tmpl.URIs, &url.URL{Scheme: "urn", Opaque: "other:thing"}) // ignored
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testIdentity{a: a, cert: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}
}

func (id *testIdentity) setBlind(b bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.blind = b
}

// renew gives the identity another certificate with another key.
func (id *testIdentity) renew(t testing.TB) {
	t.Helper()
	old, _ := id.Certificate()
	peers, err := PeerIDs(old.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	next := id.a.identity(t, IsBootstrap(old.Leaf), peers...)
	id.mu.Lock()
	defer id.mu.Unlock()
	id.cert = next.cert
}

func (a *authority) revoke(id *testIdentity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone[id.cert.Leaf.SerialNumber.String()] = true
}

func (id *testIdentity) party(t testing.TB) *party {
	t.Helper()
	p, _, _, err := own(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func cheapSettings() *Settings {
	s := DefaultSettings()
	s.HashCost = 1
	return &s
}
