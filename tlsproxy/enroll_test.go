package tlsproxy

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// answer is what an authority makes of a request.
func answer(t *testing.T, ca *authority, csr []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(csr)
	req, err := x509.ParseCertificateRequest(block.Bytes)
	must(t, err)
	must(t, req.CheckSignature())
	return encodeCertificates(ca.sign(req.PublicKey, []func(*x509.Certificate){func(c *x509.Certificate) {
		c.RawSubject, c.DNSNames = req.RawSubject, req.DNSNames
	}}))
}

func TestEnrollTerminal(t *testing.T) {
	needOpenssl(t)
	ca := newAuthority(t, "CA")
	for _, kind := range []string{"rsa", "ecdsa"} {
		s := openStore(t)
		must(t, s.GenerateKey("local-ent-key", kind, 0, false))
		spec := TrustpointSpec{
			Name: "local_ent", Enrollment: "terminal", KeyPair: "local-ent-key",
			SubjectName: `cn=Enterprise-A.example, o="Example, Corp"`, FQDN: "box.enterprise-a.example.",
		}
		csr, err := s.Enroll(spec)
		must(t, err)
		shown := string(openssl(t, csr, "req", "-verify", "-noout", "-text", "-nameopt", "RFC2253"))
		for _, want := range []string{
			`CN=Enterprise-A.example,O=Example\, Corp`, "DNS:box.enterprise-a.example, DNS:enterprise-a.example",
			"TLS Web Server Authentication, TLS Web Client Authentication", "Digital Signature",
		} {
			if !strings.Contains(shown, want) {
				t.Errorf("%s: openssl req does not show %q:\n%s", kind, want, shown)
			}
		}
		if got := strings.Contains(shown, "Key Encipherment"); got != (kind == "rsa") {
			t.Errorf("%s: the request asks for key encipherment: %v (RFC 8813)", kind, got)
		}
		if kept, err := os.ReadFile(s.Request("local_ent")); err != nil || string(kept) != string(csr) {
			t.Errorf("%s: the request is not kept: %v", kind, err)
		}
		if _, err := s.Identity("local_ent"); !errors.Is(err, ErrNoCertificate) {
			t.Errorf("%s: before the import Identity = %v, want ErrNoCertificate", kind, err)
		}
		must(t, s.ImportCertificate(spec, append(answer(t, ca, csr), ca.pem()...)))
		id, err := s.Identity("local_ent")
		must(t, err)
		if want := []string{"box.enterprise-a.example", "enterprise-a.example"}; !slices.Equal(id.Names, want) {
			t.Errorf("%s: domains %v, want %v", kind, id.Names, want)
		}
		if s.Request("local_ent") != "" {
			t.Errorf("%s: the answered request is still there", kind)
		}
		if len(id.Certificate.Certificate) != 1 {
			t.Errorf("%s: the self-signed root is sent to peers", kind)
		}
	}
}

func TestEnrollSelf(t *testing.T) {
	needOpenssl(t)
	now := time.Now()
	s, err := OpenStoreWithClock(t.TempDir(), func() time.Time { return now })
	must(t, err)
	must(t, s.GenerateKey("key-local-asa", "rsa", 2048, false))
	spec := TrustpointSpec{Name: "local-asa", Enrollment: "self", KeyPair: "key-local-asa", SubjectName: `cn=Ent-local-domain-name**., o="Example Corp"`}
	csr, err := s.Enroll(spec)
	must(t, err)
	if csr != nil {
		t.Errorf("self enrolment returned a request: %s", csr)
	}
	first, err := s.ExportIdentity("local-asa")
	must(t, err)
	file := writeFile(t, t.TempDir(), "self.pem", first)
	if out := string(openssl(t, first, "verify", "-CAfile", file, "-purpose", "sslclient")); !strings.Contains(out, "OK") {
		t.Errorf("openssl verify: %s", out)
	}
	_, err = s.Enroll(spec)
	must(t, err)
	if again, _ := s.ExportIdentity("local-asa"); string(again) != string(first) {
		t.Error("enrolling again changed the certificate that peers hold")
	}
	changed := spec
	changed.SubjectName = "cn=b.example"
	_, err = s.Enroll(changed)
	must(t, err)
	second, _ := s.ExportIdentity("local-asa")
	if string(second) == string(first) {
		t.Error("another subject name kept the certificate")
	}
	now = now.Add(selfSignedFor - renewBefore + time.Hour)
	_, err = s.Enroll(changed)
	must(t, err)
	if third, _ := s.ExportIdentity("local-asa"); string(third) == string(second) {
		t.Error("a certificate about to expire was not renewed")
	}
}

func TestEnrollRefusals(t *testing.T) {
	s := openStore(t)
	must(t, s.GenerateKey("key", "ecdsa", 256, false))
	writeFile(t, s.dir.path("keys"), "broken.pem", []byte("garbage"))
	writeFile(t, s.dir.path("keys"), "weak.pem", keyPEM(t, rsaKey(t, 1024)))
	tests := []struct {
		name string
		spec TrustpointSpec
		want error
	}{
		{"no key pair", TrustpointSpec{Name: "tp", SubjectName: "cn=a.example"}, ErrNoKey},
		{"unknown key pair", TrustpointSpec{Name: "tp", KeyPair: "none", SubjectName: "cn=a.example"}, ErrNoKey},
		{"broken key pair", TrustpointSpec{Name: "tp", KeyPair: "broken", SubjectName: "cn=a.example"}, ErrMalformed},
		{"weak key pair", TrustpointSpec{Name: "tp", KeyPair: "weak", SubjectName: "cn=a.example"}, ErrWeakKey},
		{"no names", TrustpointSpec{Name: "tp", KeyPair: "key"}, ErrMalformed},
		{"bad subject", TrustpointSpec{Name: "tp", KeyPair: "key", SubjectName: "a.example"}, ErrMalformed},
		{"bad fqdn", TrustpointSpec{Name: "tp", KeyPair: "key", FQDN: "*.a.example"}, ErrMalformed},
		{"bad enrollment", TrustpointSpec{Name: "tp", KeyPair: "key", Enrollment: "url", FQDN: "a.example"}, ErrMalformed},
		{"no name", TrustpointSpec{KeyPair: "key", FQDN: "a.example"}, ErrName},
	}
	for _, tt := range tests {
		for _, enrollment := range []string{"", "self"} {
			if tt.spec.Enrollment == "" {
				tt.spec.Enrollment = enrollment
			}
			csr, err := s.Enroll(tt.spec)
			if !errors.Is(err, tt.want) || len(csr) != 0 {
				t.Errorf("%s: Enroll = %s, %v; want %v", tt.name, csr, err, tt.want)
			}
		}
	}
	if len(s.Trustpoints()) != 0 {
		t.Errorf("refused enrolments left %v", s.Trustpoints())
	}
}
