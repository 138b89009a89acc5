package enroll

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fuzzWorld is an authority and a member with a license, without a server.
func fuzzWorld(f *testing.F) (*Authority, *Member) {
	f.Helper()
	dir := f.TempDir()
	if err := InitAuthority(dir, "Fuzz", Clock{}); err != nil {
		f.Fatal(err)
	}
	a, err := OpenAuthority(dir, Clock{})
	if err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, TrustFile))
	if err != nil {
		f.Fatal(err)
	}
	trust, err := ParseTrust(text)
	if err != nil {
		f.Fatal(err)
	}
	m, err := OpenMember(MemberConfig{Dir: f.TempDir(), Trust: trust, Interfaces: func() ([]net.HardwareAddr, error) { return nil, nil }})
	if err != nil {
		f.Fatal(err)
	}
	license, err := IssueLicense(a.licenseKey, LicenseSpec{PeerCount: 2, HostID: "ANY", Now: a.clock.Now()})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := m.InstallLicense("f.lic", license); err != nil {
		f.Fatal(err)
	}
	return a, m
}

// FuzzRequest: whatever a body holds, it is refused with a reason or has the license's certificate for its answer.
func FuzzRequest(f *testing.F) {
	a, m := fuzzWorld(f)
	s, err := NewServer(a, []string{"enroll.example"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	l := m.License()
	good, _ := json.Marshal(Request{l.Tag.String(), l.PeerCount, l.Bootstrap, hex.EncodeToString(l.Signature), string(block("CERTIFICATE REQUEST", der))})
	f.Add(string(good))
	f.Add(`{"tag":"","peercount":1e9}`)
	f.Add(strings.Replace(string(good), "BEGIN", "END", 1))
	f.Fuzz(func(t *testing.T, body string) {
		answer, err := s.answer(httptest.NewRecorder(), httptest.NewRequest("POST", PathCertificate, strings.NewReader(body)))
		var no *Refusal
		if err != nil && (!errors.As(err, &no) || no.Status < 400 || no.Status > 499) {
			t.Fatalf("%v", err)
		}
		if err == nil {
			b, _ := pem.Decode([]byte(answer.Certificate))
			cert, err := x509.ParseCertificate(b.Bytes)
			if err != nil || len(cert.URIs) != l.PeerCount || !key.PublicKey.Equal(cert.PublicKey) {
				t.Fatalf("%v: %+v", err, cert)
			}
		}
	})
}

// FuzzAuthority: whatever a false authority answers, a member installs no certificate and no list.
func FuzzAuthority(f *testing.F) {
	_, m := fuzzWorld(f)
	other, _ := fuzzWorld(f)
	key, err := m.pendingKey()
	if err != nil {
		f.Fatal(err)
	}
	list, err := other.List()
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	b, _ := json.Marshal(Answer{Certificate: string(block("CERTIFICATE", other.ca.Raw))})
	f.Add(200, b)
	f.Add(409, []byte(`{"error":"no"}`))
	f.Add(200, list)
	f.Add(200, der)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if a, err := parseAnswer(status, body); err != nil {
			_ = err.Error()
		} else if m.install(m.License(), key, []byte(a.Certificate)) == nil {
			t.Fatal("installed")
		}
		if m.takeList(body) == nil {
			t.Fatal("list taken")
		}
	})
}
