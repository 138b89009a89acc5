package tlsproxy

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func poolOf(as ...*authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, a := range as {
		p.AddCert(a.cert)
	}
	return p
}

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
}

func notYet(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
}

func onlyUsage(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

// withKey puts a key pair into the store, as crypto key generate would.
func withKey(t testing.TB, s *Store, label string, key crypto.Signer) {
	t.Helper()
	must(t, s.change(func(tx *change) error { tx.write(s.dir.keyFile(label), keyPEM(t, key)); return nil }))
}

func TestImportCertificateRefusals(t *testing.T) {
	ca := newAuthority(t, "CA")
	key := ecKey(t, elliptic.P256())
	good := ca.issueFor(key, "a.example")
	stranger := newAuthority(t, "Stranger")
	goodPEM := encodeCertificates(good.cert)
	tests := []struct {
		name string
		pem  []byte
		want error
		text string
	}{
		{"other key", encodeCertificates(ca.issue("a.example").cert), ErrKeyMismatch, "enroll again"},
		{"expired", encodeCertificates(ca.issueFor(key, "a.example", expired).cert), ErrExpired, "last moment"},
		{"not yet valid", encodeCertificates(ca.issueFor(key, "a.example", notYet).cert), ErrNotYetValid, "clock"},
		{"weak rsa", encodeCertificates(ca.issueFor(rsaKey(t, 1024), "a.example").cert), ErrWeakKey, "2048"},
		{"weak ecdsa", encodeCertificates(ca.issueFor(ecKey(t, elliptic.P224()), "a.example").cert), ErrWeakKey, "256"},
		{"sha1", weakSignature(t), ErrWeakSignature, "SHA-256"},
		{"usage of mail", encodeCertificates(ca.issueFor(key, "a.example", onlyUsage(x509.ExtKeyUsageEmailProtection)).cert), ErrUsage, "TLS"},
		{"ca usage alone", encodeCertificates(ca.issueFor(key, "a.example", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }).cert), ErrUsage, "digital signature"},
		{"empty", nil, ErrMalformed, "empty"},
		{"text", []byte("hello, this is no certificate"), ErrMalformed, "BEGIN CERTIFICATE"},
		{"garbage in PEM", pemBlock("CERTIFICATE", []byte("garbage")), ErrMalformed, "certificate 1"},
		{"cut off", goodPEM[:len(goodPEM)-30], ErrMalformed, "cut off"},
		{"second one cut off", append(bytes.Clone(goodPEM), ca.pem()[:100]...), ErrMalformed, "cut off"},
		{"private key", keyPEM(t, key), ErrMalformed, "private key"},
		{"key and certificate", append(keyPEM(t, key), goodPEM...), ErrMalformed, "PKCS#12"},
		{"request", pemBlock("CERTIFICATE REQUEST", []byte{0x30, 0}), ErrMalformed, "certificate request"},
		{"pkcs7", pemBlock("PKCS7", []byte{0x30, 0}), ErrMalformed, "pkcs7"},
		{"foreign chain", append(bytes.Clone(goodPEM), stranger.pem()...), ErrChain, "leave it out"},
		{"too large", bytes.Repeat([]byte{'x'}, maxPEM+1), ErrTooLarge, ""},
		{"too many", bytes.Repeat(goodPEM, maxCertificates+1), ErrTooLarge, "256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t)
			withKey(t, s, "key", key)
			err := s.ImportCertificate(TrustpointSpec{Name: "tp", KeyPair: "key"}, tt.pem)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("ImportCertificate = %v, want %v with %q", err, tt.want, tt.text)
			}
			if err != nil && (strings.Contains(err.Error(), "PRIVATE KEY--") || !strings.Contains(err.Error(), `"tp"`)) {
				t.Errorf("the message shows a key or does not name the trustpoint: %v", err)
			}
			if names := s.Trustpoints(); len(names) != 0 {
				t.Errorf("the refused import left %v", names)
			}
		})
	}
}

// weakSignature is a certificate with an sha1WithRSAEncryption algorithm identifier; its signature is never looked at.
func weakSignature(t *testing.T) []byte {
	a := &authority{t: t, key: rsaKey(t, 2048)}
	good := a.issueFor(a.key, "a.example")
	sha256WithRSA := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}
	sha1WithRSA := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05}
	return pemBlock("CERTIFICATE", bytes.ReplaceAll(good.cert.Raw, sha256WithRSA, sha1WithRSA))
}

func TestImportCertificateFindsItsKey(t *testing.T) {
	ca := newAuthority(t, "CA")
	key := ecKey(t, elliptic.P256())
	cert := encodeCertificates(ca.issueFor(key, "a.example").cert)
	tests := []struct {
		name  string
		setUp func(*Store)
		spec  TrustpointSpec
		want  error
	}{
		{"named", func(s *Store) { withKey(t, s, "key", key) }, TrustpointSpec{Name: "tp", KeyPair: "key"}, nil},
		{"labelled like the trustpoint", func(s *Store) { withKey(t, s, "tp", key) }, TrustpointSpec{Name: "tp"}, nil},
		{"remembered from enrolment", func(s *Store) {
			withKey(t, s, "key", key)
			_, err := s.Enroll(TrustpointSpec{Name: "tp", KeyPair: "key", SubjectName: "cn=a.example"})
			must(t, err)
		}, TrustpointSpec{Name: "tp"}, nil},
		{"configuration names another", func(s *Store) {
			withKey(t, s, "key", ecKey(t, elliptic.P256()))
			withKey(t, s, "tp", key)
		}, TrustpointSpec{Name: "tp", KeyPair: "key"}, nil},
		{"none", func(*Store) {}, TrustpointSpec{Name: "tp"}, ErrNoKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t)
			tt.setUp(s)
			err := s.ImportCertificate(tt.spec, cert)
			if !errors.Is(err, tt.want) {
				t.Fatalf("ImportCertificate = %v, want %v", err, tt.want)
			}
			if _, err := s.Identity("tp"); tt.want == nil && err != nil {
				t.Errorf("Identity = %v", err)
			}
		})
	}
}

func TestCertificateForms(t *testing.T) {
	ca := newAuthority(t, "CA")
	der := ca.cert.Raw
	text := base64.StdEncoding.EncodeToString(der)
	lines := strings.Join(slices.Collect(chunks(text, 64)), "\n")
	for name, data := range map[string][]byte{
		"DER": der, "PEM": ca.pem(), "PEM with text around": []byte("subject=CA\n" + string(ca.pem()) + "\ntrailer\n"),
		"base64 as an ASA prints it": []byte(lines), "base64 closed by quit": []byte(lines + "\nquit\n"),
		"CRLF": bytes.ReplaceAll(ca.pem(), []byte("\n"), []byte("\r\n")),
	} {
		s := openStore(t)
		if err := s.Authenticate("ca", data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !s.Authorities().Equal(poolOf(ca)) {
			t.Errorf("%s: the authority is not trusted", name)
		}
	}
}

func chunks(s string, n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(s) > 0 {
			k := min(n, len(s))
			if !yield(s[:k]) {
				return
			}
			s = s[k:]
		}
	}
}

func TestAuthenticateRefusals(t *testing.T) {
	weak := &authority{t: t, key: rsaKey(t, 1024)}
	tests := []struct {
		name string
		pem  []byte
		want error
	}{
		{"expired", newAuthority(t, "CA", expired).pem(), ErrExpired},
		{"not yet valid", newAuthority(t, "CA", notYet).pem(), ErrNotYetValid},
		{"weak", encodeCertificates(weak.issueFor(weak.key, "CA").cert), ErrWeakKey},
		{"one of two expired", append(newAuthority(t, "A").pem(), newAuthority(t, "B", expired).pem()...), ErrExpired},
		{"garbage", []byte("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"), ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t)
			if err := s.Authenticate("ca", tt.pem); !errors.Is(err, tt.want) {
				t.Errorf("Authenticate = %v, want %v", err, tt.want)
			}
			if !s.Authorities().Equal(poolOf()) {
				t.Error("the refused certificate is trusted")
			}
		})
	}
	if err := openStore(t).Authenticate("", newAuthority(t, "A").pem()); !errors.Is(err, ErrName) {
		t.Errorf("no name: %v", err)
	}
}

func TestAuthenticateReplaces(t *testing.T) {
	s := openStore(t)
	first, second := newAuthority(t, "A"), newAuthority(t, "B")
	must(t, s.Authenticate("ca", first.pem()))
	must(t, s.Authenticate("ca", append(second.pem(), first.pem()...)))
	if !s.Authorities().Equal(poolOf(first, second)) {
		t.Error("both certificates of one input should be trusted")
	}
	must(t, s.Authenticate("ca", second.pem()))
	if !s.Authorities().Equal(poolOf(second)) {
		t.Error("the replaced authority should no longer be trusted")
	}
}

func TestIdentityErrors(t *testing.T) {
	ca := newAuthority(t, "CA")
	now := time.Now()
	s, err := OpenStoreWithClock(t.TempDir(), func() time.Time { return now })
	must(t, err)
	must(t, s.Authenticate("ca", ca.pem()))
	must(t, s.ImportPKCS12("tp", ca.issue("a.example").p12(t, "pw"), "pw"))
	check := func(name string, want error) {
		t.Helper()
		if _, err := s.Identity(name); !errors.Is(err, want) {
			t.Errorf("Identity(%s) at %s = %v, want %v", name, now, err, want)
		}
	}
	check("nowhere", ErrNoTrustpoint)
	check("ca", ErrNoCertificate)
	check("tp", nil)
	now = now.Add(25 * time.Hour)
	check("tp", ErrExpired)
	now = now.Add(-48 * time.Hour)
	check("tp", ErrNotYetValid)
	if _, err := s.ExportIdentity("tp"); err != nil {
		t.Errorf("an expired certificate can still be exported: %v", err)
	}
	if _, err := s.ExportIdentity("ca"); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("export without identity = %v", err)
	}
}

func TestCertificatesListsEverything(t *testing.T) {
	ca := newAuthority(t, "CA")
	sub := ca.intermediate("Sub")
	s := openStore(t)
	p := sub.issue("a.example")
	p.chain = []*x509.Certificate{sub.cert}
	must(t, s.ImportPKCS12("local", p.p12(t, "pw", ca.cert), "pw"))
	pin := selfSignedPair(t, "b.example")
	must(t, s.Authenticate("remote", encodeCertificates(pin.cert)))
	var got []string
	for _, c := range s.Certificates() {
		got = append(got, strings.Join([]string{c.Trustpoint, c.Kind, c.Subject, c.Status, c.KeyPair}, "|"))
	}
	want := []string{
		"local|identity|CN=a.example|available|local", "local|intermediate|CN=Sub|available|",
		"local|ca|CN=Sub|available|", "local|ca|CN=CA|available|", "remote|pinned|CN=b.example|available|",
	}
	if !slices.Equal(got, want) {
		t.Errorf("Certificates:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	exported, err := s.ExportIdentity("local")
	must(t, err)
	if b, rest := pem.Decode(exported); !bytes.Equal(b.Bytes, p.cert.Raw) || len(rest) != 0 {
		t.Error("ExportIdentity is not the certificate alone")
	}
}

func TestSeveralTrustpointsWithTheSameIdentity(t *testing.T) {
	ca := newAuthority(t, "CA")
	p := ca.issue("a.example")
	s := storeWith(t, p, ca)
	must(t, s.ImportPKCS12("second", p.p12(t, "pw"), "pw"))
	for _, name := range []string{"local-ent", "second"} {
		if id, err := s.Identity(name); err != nil || !id.Certificate.Leaf.Equal(p.cert) {
			t.Errorf("Identity(%s): %v", name, err)
		}
	}
}

func TestDescribeEmptySubject(t *testing.T) {
	ca := newAuthority(t, "CA")
	p := ca.issue("", func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{}, []string{"a.example"} })
	if got := describe(p.cert); !strings.Contains(got, "subject (empty), issuer CN=CA") {
		t.Errorf("describe = %q", got)
	}
}
