package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// runCrypto runs one imeproxy crypto command as main would.
func runCrypto(stdin string, args ...string) (stdout, stderr string, err error) {
	cmd := NewCommand()
	var out, errs bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	err = cmd.Execute()
	return out.String(), errs.String(), err
}

// cryptoLab is a state directory and an authority with files for the command line.
type cryptoLab struct {
	t     *testing.T
	state string
	dir   string
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
}

func newCryptoLab(t *testing.T) *cryptoLab {
	t.Helper()
	l := &cryptoLab{t: t, state: filepath.Join(t.TempDir(), "state"), dir: t.TempDir()}
	l.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	l.ca = l.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Lab CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, &l.key.PublicKey)
	l.file("ca.pem", certPEM(l.ca))
	return l
}

func (l *cryptoLab) sign(c *x509.Certificate, pub any) *x509.Certificate {
	l.t.Helper()
	c.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<60))
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	c.NotBefore = c.NotAfter.Add(-2 * time.Hour)
	parent := l.ca
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *cryptoLab) bundle(name, domain, passphrase string) string {
	l.t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leaf := l.sign(&x509.Certificate{Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain}}, &key.PublicKey)
	data, err := pkcs12.Modern2023.WithIterations(10).Encode(key, leaf, []*x509.Certificate{l.ca}, passphrase)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.file(name, data)
}

func (l *cryptoLab) file(name string, data []byte) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func (l *cryptoLab) path(name string) string { return filepath.Join(l.dir, name) }

// run expects success and returns standard output.
func (l *cryptoLab) run(stdin string, args ...string) string {
	l.t.Helper()
	out, errs, err := runCrypto(stdin, append(args, "--state-dir", l.state)...)
	if err != nil {
		l.t.Fatalf("crypto %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

type cryptoList struct {
	KeyPairs []struct {
		Label, Algorithm string
		Bits             int
	} `json:"key_pairs"`
	Certificates []struct {
		Trustpoint, Kind, Status, Subject string
		Domains                           []string
	} `json:"certificates"`
}

func (l *cryptoLab) list() cryptoList {
	l.t.Helper()
	var list cryptoList
	if err := json.Unmarshal([]byte(l.run("", "list", "--json")), &list); err != nil {
		l.t.Fatal(err)
	}
	return list
}

func TestCryptoImportBeforeAnyConfiguration(t *testing.T) {
	l := newCryptoLab(t)
	file := l.bundle("a.p12", "a.example", "pass word")
	l.run("", "import", "--trustpoint", "local-ent", "--pkcs12", file, "--passphrase", "pass word")
	l.run("", "authenticate", "--trustpoint", "remote-ent", "--pem", l.path("ca.pem"))
	list := l.list()
	if len(list.KeyPairs) != 1 || list.KeyPairs[0].Label != "local-ent" || len(list.Certificates) != 3 {
		t.Fatalf("list: %+v", list)
	}
	if c := list.Certificates[0]; c.Trustpoint != "local-ent" || c.Kind != "identity" || c.Status != "available" || strings.Join(c.Domains, ",") != "a.example" {
		t.Errorf("identity: %+v", c)
	}
	if out := l.run("", "list"); !strings.Contains(out, "local-ent") || !strings.Contains(out, "CN=Lab CA") {
		t.Errorf("list as text:\n%s", out)
	}
	if out := l.run("", "export", "--trustpoint", "local-ent"); !strings.HasPrefix(out, "-----BEGIN CERTIFICATE-----") || strings.Contains(out, "PRIVATE") {
		t.Errorf("export prints:\n%s", out)
	}
	data, _ := os.ReadFile(file)
	l.run(string(data), "import", "--trustpoint", "stdin", "--pkcs12", "-", "--passphrase-file", l.file("pw", []byte("pass word\nignored\n")))
	l.run("pass word\r\n", "import", "--trustpoint", "pw-stdin", "--pkcs12", file, "--passphrase-file", "-")
	l.run(string(certPEM(l.ca)), "authenticate", "--trustpoint", "ca-stdin", "--pem", "-")
	l.run("", "remove", "--trustpoint", "stdin")
	l.run("", "remove", "--label", "stdin")
	for _, c := range l.list().Certificates {
		if c.Trustpoint == "stdin" {
			t.Errorf("removed trustpoint is listed: %+v", c)
		}
	}
}

func TestCryptoEnrollAndImport(t *testing.T) {
	l := newCryptoLab(t)
	l.run("", "generate", "--label", "local-ent-key", "--type", "rsa", "--modulus", "2048")
	csr := l.run("", "enroll", "--trustpoint", "local-ent", "--keypair", "local-ent-key", "--subject-name", `cn=a.example, o="Example Corp"`)
	block, rest := pem.Decode([]byte(csr))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) != 0 {
		t.Fatalf("enroll prints more or less than a request:\n%s", csr)
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || req.CheckSignature() != nil || req.Subject.String() != "CN=a.example,O=Example Corp" || strings.Join(req.DNSNames, ",") != "a.example" {
		t.Fatalf("request for %s, %v (%v)", req.Subject, req.DNSNames, err)
	}
	leaf := l.sign(&x509.Certificate{Subject: req.Subject, DNSNames: req.DNSNames}, req.PublicKey)
	l.run(string(certPEM(leaf)), "import", "--trustpoint", "local-ent", "--pem", "-")
	if c := l.list().Certificates[0]; c.Kind != "identity" || c.Status != "available" {
		t.Errorf("identity: %+v", c)
	}
	out := l.path("out.p12")
	if err := os.WriteFile(out, bytes.Repeat([]byte("x"), 9000), 0o644); err != nil {
		t.Fatal(err)
	}
	l.run("", "export", "--trustpoint", "local-ent", "--pkcs12", out, "--passphrase", "longer-secret")
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("exported file: %v, %v", info.Mode(), err)
	}
	l.run("", "import", "--trustpoint", "copy", "--pkcs12", out, "--passphrase", "longer-secret")

	self := l.run("", "enroll", "--self", "--trustpoint", "local-asa", "--keypair", "local-ent-key", "--subject-name", "cn=inside.example")
	if block, _ := pem.Decode([]byte(self)); block == nil || block.Type != "CERTIFICATE" {
		t.Errorf("enroll --self prints:\n%s", self)
	}
}

func TestCryptoRefusals(t *testing.T) {
	l := newCryptoLab(t)
	good := l.bundle("good.p12", "a.example", "right-secret")
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	old := l.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "a.example"}, NotAfter: time.Now().Add(-time.Hour)}, &key.PublicKey)
	fresh := l.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "a.example"}}, &key.PublicKey)
	l.file("old.pem", certPEM(old))
	l.file("fresh.pem", certPEM(fresh))
	l.file("garbage", []byte("garbage"))
	l.run("", "generate", "--label", "k", "--type", "ecdsa")
	before := l.run("", "list", "--json")
	tests := []struct {
		name string
		args []string
		text string
	}{
		{"wrong passphrase", []string{"import", "--trustpoint", "tp", "--pkcs12", good, "--passphrase", "wrong-secret"}, "wrong passphrase"},
		{"no passphrase", []string{"import", "--trustpoint", "tp", "--pkcs12", good}, "wrong passphrase"},
		{"no PKCS#12", []string{"import", "--trustpoint", "tp", "--pkcs12", l.path("garbage")}, "not a PKCS#12 file"},
		{"no file", []string{"import", "--trustpoint", "tp", "--pkcs12", l.path("none")}, "no such file"},
		{"two kinds", []string{"import", "--trustpoint", "tp", "--pkcs12", good, "--pem", good}, "[pem pkcs12]"},
		{"no kind", []string{"import", "--trustpoint", "tp"}, "pem"},
		{"no trustpoint", []string{"import", "--pkcs12", good}, "trustpoint"},
		{"two passphrases", []string{"import", "--trustpoint", "tp", "--pkcs12", good, "--passphrase", "a", "--passphrase-file", "b"}, "passphrase"},
		{"standard input twice", []string{"import", "--trustpoint", "tp", "--pkcs12", "-", "--passphrase-file", "-"}, "cannot both"},
		{"no enrolled key", []string{"import", "--trustpoint", "tp", "--pem", l.path("fresh.pem")}, "enroll it first"},
		{"other key", []string{"import", "--trustpoint", "k", "--pem", l.path("fresh.pem")}, "does not fit"},
		{"expired", []string{"import", "--trustpoint", "k", "--pem", l.path("old.pem")}, "expired"},
		{"garbage authority", []string{"authenticate", "--trustpoint", "tp", "--pem", l.path("garbage")}, "BEGIN CERTIFICATE"},
		{"expired authority", []string{"authenticate", "--trustpoint", "tp", "--pem", l.path("old.pem")}, "expired"},
		{"weak key", []string{"generate", "--label", "w", "--modulus", "1024"}, "2048 are the least"},
		{"same label", []string{"generate", "--label", "k", "--type", "ecdsa"}, "exists"},
		{"unknown type", []string{"generate", "--label", "w", "--type", "dsa"}, "rsa and ecdsa"},
		{"no key pair", []string{"enroll", "--trustpoint", "tp", "--subject-name", "cn=a.example"}, "make it first"},
		{"bad name", []string{"enroll", "--trustpoint", "tp", "--keypair", "k", "--subject-name", "a.example"}, "KEYWORD=VALUE"},
		{"nothing to export", []string{"export", "--trustpoint", "tp"}, "unknown trustpoint"},
		{"nothing to remove", []string{"remove", "--trustpoint", "tp"}, "unknown trustpoint"},
		{"stray argument", []string{"list", "more"}, "unknown command"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, err := runCrypto("", append(tt.args, "--state-dir", l.state)...)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %q in it", err, tt.text)
			}
			for _, secret := range []string{"right-secret", "wrong-secret", "PRIVATE"} {
				if strings.Contains(out+errs, secret) {
					t.Errorf("the output shows %s", secret)
				}
			}
		})
	}
	if after := l.run("", "list", "--json"); after != before {
		t.Errorf("refused commands changed the store:\n%s", after)
	}
}

func TestCryptoWarnsOfACertificateWithoutDomain(t *testing.T) {
	l := newCryptoLab(t)
	file := l.bundle("w.p12", "*.example", "pw")
	_, errs, err := runCrypto("", "import", "--trustpoint", "tp", "--pkcs12", file, "--passphrase", "pw", "--state-dir", l.state)
	if err != nil || !strings.Contains(errs, "warning: the certificate holds no SIP domain") {
		t.Errorf("%v\n%s", err, errs)
	}
}
