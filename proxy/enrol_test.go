package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/config"
	"imeproxy/tlsproxy"
)

// testAuthority signs requests.
type testAuthority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newTestAuthority(t *testing.T) *testAuthority {
	t.Helper()
	a := &testAuthority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.cert = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Lab CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour),
	}, a.key.Public())
	return a
}

func (a *testAuthority) sign(t *testing.T, c *x509.Certificate, pub any) *x509.Certificate {
	t.Helper()
	c.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<60))
	c.NotAfter = time.Now().Add(24 * time.Hour)
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// answer is the PEM of the certificate that the authority makes of a request.
func (a *testAuthority) answer(t *testing.T, request []byte, from time.Time) string {
	t.Helper()
	block, _ := pem.Decode(request)
	if block == nil {
		t.Fatalf("no request: %q", request)
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	c := a.sign(t, &x509.Certificate{RawSubject: r.RawSubject, DNSNames: r.DNSNames, NotBefore: from}, r.PublicKey)
	return pemText(c)
}

func pemText(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// enrolment is an appliance that has a state directory and a log only.
func enrolment(t *testing.T) (*Appliance, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	store, err := tlsproxy.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &Appliance{store: store, log: slog.New(slog.NewTextHandler(log, nil)), now: time.Now}, log
}

func actions(t *testing.T, a *Appliance, text string) error {
	t.Helper()
	cfg, found := config.Load("f", []byte(text))
	if found.HasErrors() {
		t.Fatal(found.Errors().Error())
	}
	return a.cryptoActions(cfg)
}

const enrolText = `crypto key generate ecdsa label k
crypto ca trustpoint a
 enrollment terminal
 subject-name cn=a.example
 keypair k
crypto ca enroll a
`

// TestEnrolmentFromTheConfiguration goes the guide's way (lines 5127-5227) with a configuration file instead of a terminal: a request is made
// at the start, its answer is imported at the next one, and the certificate lies ready for the peer.
func TestEnrolmentFromTheConfiguration(t *testing.T) {
	a, log := enrolment(t)
	ca := newTestAuthority(t)
	text := enrolText + "crypto ca import a certificate\ncrypto ca authenticate a\ncrypto ca export a identity-certificate\n"
	if err := actions(t, a, text); err != nil {
		t.Fatal(err)
	}
	file := a.store.Request("a")
	request, err := os.ReadFile(file)
	if err != nil || !strings.Contains(log.String(), file) {
		t.Fatalf("the request is not where the log says: %v\n%s", err, log)
	}
	for _, want := range []string{"no usable certificate yet", "nobody is trusted by it", "identity certificate not exported"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	// The answer of the authority stands in the text, behind its command.
	answer := ca.answer(t, request, time.Now().Add(-time.Hour))
	log.Reset()
	full := enrolText + "crypto ca import a certificate\n" + answer + "quit\ncrypto ca authenticate a\n" + pemText(ca.cert) + "quit\ncrypto ca export a identity-certificate\n"
	if err := actions(t, a, full); err != nil {
		t.Fatal(err)
	}
	if id, err := a.store.Identity("a"); err != nil || id.Names[0] != "a.example" || !a.store.Authenticated("a") {
		t.Fatalf("after the import: %v %v", id, err)
	}
	if a.store.Request("a") != "" {
		t.Error("the answered request is still there")
	}
	published, err := a.store.Publish("a")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(published); string(got) != answer || !strings.Contains(log.String(), published) {
		t.Errorf("exported %q, want %q; log:\n%s", got, answer, log)
	}
	// The same text again, and the one without certificates, change nothing and find nothing to warn of.
	for _, again := range []string{full, text} {
		log.Reset()
		if err := actions(t, a, again); err != nil || strings.Contains(log.String(), "WARN") || a.store.Request("a") != "" {
			t.Errorf("again: %v\n%s", err, log)
		}
	}
}

// TestRenewedCertificateStays starts with an old certificate in the text after a later one was imported by imeproxy crypto.
func TestRenewedCertificateStays(t *testing.T) {
	a, log := enrolment(t)
	ca := newTestAuthority(t)
	if err := actions(t, a, enrolText); err != nil {
		t.Fatal(err)
	}
	request, err := os.ReadFile(a.store.Request("a"))
	if err != nil {
		t.Fatal(err)
	}
	text := func(cert string) string { return enrolText + "crypto ca import a certificate\n" + cert + "quit\n" }
	in := func() string {
		t.Helper()
		out, err := a.store.ExportIdentity("a")
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	first, second, third := ca.answer(t, request, time.Now().Add(-3*time.Hour)), ca.answer(t, request, time.Now().Add(-2*time.Hour)), ca.answer(t, request, time.Now().Add(-time.Hour))
	if err := actions(t, a, text(first)); err != nil || in() != first {
		t.Fatalf("first: %v", err)
	}
	if err := a.store.ImportCertificate(tlsproxy.TrustpointSpec{Name: "a"}, []byte(second)); err != nil {
		t.Fatal(err)
	}
	if err := actions(t, a, text(first)); err != nil || in() != second || !strings.Contains(log.String(), "later certificate") {
		t.Errorf("the renewed certificate is lost to the text: %v\n%s", err, log)
	}
	if err := actions(t, a, text(third)); err != nil || in() != third {
		t.Errorf("a later certificate in the text is not taken: %v", err)
	}
}

// TestSelfSignedFollowsItsText changes the subject name: the certificate is made anew, and stays while nothing changes.
func TestSelfSignedFollowsItsText(t *testing.T) {
	a, _ := enrolment(t)
	text := "crypto key generate ecdsa label k\ncrypto ca trustpoint a\n enrollment self\n subject-name cn=a.example\n keypair k\ncrypto ca enroll a\n"
	var seen []string
	for _, x := range []string{text, text, strings.Replace(text, "cn=a.example", "cn=b.example", 1)} {
		if err := actions(t, a, x); err != nil {
			t.Fatal(err)
		}
		out, err := a.store.ExportIdentity("a")
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, string(out))
	}
	if seen[0] != seen[1] || seen[1] == seen[2] {
		t.Errorf("made anew at the second start: %v, kept under another name: %v", seen[0] != seen[1], seen[1] == seen[2])
	}
}

// TestRefusedCertificatesNameTheirLine imports what does not fit.
func TestRefusedCertificatesNameTheirLine(t *testing.T) {
	a, _ := enrolment(t)
	ca := newTestAuthority(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := pemText(ca.sign(t, &x509.Certificate{DNSNames: []string{"a.example"}, NotBefore: time.Now().Add(-time.Hour)}, other.Public()))
	err = actions(t, a, enrolText+"crypto ca import a certificate\n"+foreign+"quit\n")
	if err == nil || !strings.Contains(err.Error(), "line 7:") || !strings.Contains(err.Error(), "does not fit the key pair") {
		t.Errorf("got %v", err)
	}
	if _, err := a.store.Identity("a"); err == nil {
		t.Error("the refused certificate is in use")
	}
	if file := a.store.Request("a"); file == "" {
		t.Error("the request is gone although nothing answers it")
	}
}

// TestCertificateOutOfDateStopsNoStart restarts with a certificate that was good when it was imported: past its last day, or with a clock that
// lost its time. One that is not there stops a start.
func TestCertificateOutOfDateStopsNoStart(t *testing.T) {
	a, _ := enrolment(t)
	now := time.Now()
	var err error
	if a.store, err = tlsproxy.OpenStoreWithClock(t.TempDir(), func() time.Time { return now }); err != nil {
		t.Fatal(err)
	}
	ca := newTestAuthority(t)
	p := testPlan(t, edgeConfig)
	names := p.trustpoints()
	if len(names) == 0 {
		t.Fatal("the configuration has no trustpoint")
	}
	if err := a.checkTrustpoints(p); err == nil {
		t.Fatal("a configuration without certificates may start")
	}
	for _, name := range names {
		text := strings.ReplaceAll(enrolText, "crypto ca trustpoint a\n", "crypto ca trustpoint "+name+"\n")
		text = strings.ReplaceAll(text, "crypto ca enroll a\n", "crypto ca enroll "+name+"\n")
		if err := actions(t, a, text); err != nil {
			t.Fatal(err)
		}
		request, err := os.ReadFile(a.store.Request(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := actions(t, a, text+"crypto ca import "+name+" certificate\n"+ca.answer(t, request, now.Add(-time.Hour))+"quit\n"); err != nil {
			t.Fatal(err)
		}
	}
	for what, at := range map[string]time.Time{"valid": now, "expired": now.AddDate(1, 0, 0), "not yet valid": now.AddDate(-1, 0, 0)} {
		now = at
		if err := a.checkTrustpoints(p); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := a.store.Identity(names[0]); (err != nil) != (what != "valid") {
			t.Errorf("%s: the certificate is presented, or not: %v", what, err)
		}
	}
}
