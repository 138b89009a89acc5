package uplink

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate makes one, by itself or by a CA, in the form of a server's and of a file's.
func certificate(t *testing.T, x x509.Certificate, ca *tls.Certificate) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x.SerialNumber, x.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: "peer server"}
	if x.NotBefore.IsZero() {
		x.NotBefore, x.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	x.BasicConstraintsValid = true
	signer, by := any(key), &x
	if ca != nil {
		signer, by = ca.PrivateKey, ca.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, &x, by, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "trust.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, file
}

// Who is taken for the peer server on an encrypted connection.
func TestTheServersCertificate(t *testing.T) {
	self, selfFile := certificate(t, x509.Certificate{}, nil)
	ca, caFile := certificate(t, x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	_, strangers := certificate(t, x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	named, _ := certificate(t, x509.Certificate{DNSNames: []string{"ime.a.example"}}, &ca)
	addressed, _ := certificate(t, x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, &ca)
	expired, expiredFile := certificate(t, x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}, nil)
	for name, x := range map[string]struct {
		server tls.Certificate
		lines  string
		ok     bool
	}{
		"self-signed, in the file":   {self, " certificate " + selfFile + "\n", true},
		"self-signed, another":       {self, " certificate " + strangers + "\n", false},
		"by the CA, with the name":   {named, " certificate " + caFile + "\n certificate-name ime.a.example\n", true},
		"by the CA, another name":    {named, " certificate " + caFile + "\n certificate-name ime.c.example\n", false},
		"by the CA, no such address": {named, " certificate " + caFile + "\n", false},
		"by the CA, the address":     {addressed, " certificate " + caFile + "\n", true},
		"by another CA":              {addressed, " certificate " + strangers + "\n", false},
		"in the file and expired":    {expired, " certificate " + expiredFile + "\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeerServer(t, "127.0.0.1")
			p.tls = &tls.Config{Certificates: []tls.Certificate{x.server}}
			p.start()
			a := newAgent(t, t.TempDir())
			a.apply(parse(t, activated, p.block("one", " security-mode encrypted\n"+x.lines)))
			if x.ok {
				until(t, "it is registered", func() bool { return a.l.Health() == Healthy })
				if s := a.l.Status()[0]; s.Mode != "encrypted" {
					t.Errorf("%+v", s)
				}
				return
			}
			until(t, "the certificate is refused", func() bool { return a.standing(AlertTLS) != "" && a.standing(AlertStatus) != "" })
			if p.srv.Stats().Registrations != 0 {
				t.Error("registered")
			}
		})
	}
}

func TestACertificateFileThatWillNotDo(t *testing.T) {
	p := newPeerServer(t, "127.0.0.1")
	a := newAgent(t, t.TempDir())
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{empty: "has 0 certificates", "/nowhere/x.pem": "no such file"} {
		err := a.l.Apply(parse(t, activated, p.block("one", " security-mode encrypted\n certificate "+file+"\n")))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ime-server one") || len(a.l.Status()) != 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
}
