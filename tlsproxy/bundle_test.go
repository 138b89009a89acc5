package tlsproxy

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"
)

func TestPKCS12FromOpenssl(t *testing.T) {
	needOpenssl(t)
	ca := newAuthority(t, "CA")
	sub := ca.intermediate("Sub")
	dir := t.TempDir()
	chain := writeFile(t, dir, "chain.pem", encodeCertificates(sub.cert, ca.cert))
	for name, key := range map[string]pair{
		"rsa": sub.issueFor(rsaKey(t, 2048), "a.example"), "ecdsa": sub.issue("a.example"),
	} {
		file := key.file(t, dir, name+".pem")
		for _, variant := range [][]string{{}, {"-legacy"}, {"-legacy", "-certpbe", "PBE-SHA1-3DES"}, {"-macalg", "sha512"}} {
			args := append([]string{"pkcs12", "-export", "-in", file, "-certfile", chain, "-passout", "pass:geheim ü1"}, variant...)
			data := openssl(t, nil, args...)
			s := openStore(t)
			if err := s.ImportPKCS12("local-ent", data, "geheim ü1"); err != nil {
				t.Errorf("%s %v: %v", name, variant, err)
				continue
			}
			id, err := s.Identity("local-ent")
			must(t, err)
			if !id.Certificate.Leaf.Equal(key.cert) || len(id.Certificate.Certificate) != 2 || id.Names[0] != "a.example" {
				t.Errorf("%s %v: wrong identity, %d certificates are sent (want leaf and intermediate)", name, variant, len(id.Certificate.Certificate))
			}
			if !s.Authorities().Equal(poolOf(sub, ca)) {
				t.Errorf("%s %v: the authorities of the file are not trusted", name, variant)
			}
			if !s.HasKey("local-ent") {
				t.Errorf("%s %v: no key pair labelled like the trustpoint", name, variant)
			}
			for _, wrong := range []string{"", "wrong", "geheim ü"} {
				if err := s.ImportPKCS12("other", data, wrong); !errors.Is(err, ErrPassphrase) {
					t.Errorf("%s %v: passphrase %q gives %v, want ErrPassphrase", name, variant, wrong, err)
				}
			}
		}
	}
}

// TestPKCS12AsText imports what an ASA prints and takes: base64 lines, with and without the lines around them.
func TestPKCS12AsText(t *testing.T) {
	good := newAuthority(t, "CA").issue("a.example")
	data := good.p12(t, "secret-word")
	lines := strings.SplitAfter(string(pem.EncodeToMemory(&pem.Block{Type: "PKCS12", Bytes: data})), "\n")
	bare := strings.Join(lines[1:len(lines)-2], "")
	for name, text := range map[string]string{
		"PEM": strings.Join(lines, ""), "PEM and quit": strings.Join(lines, "") + "quit\n", "bare": bare, "bare and quit": bare + "quit",
		"one line": strings.ReplaceAll(bare, "\n", ""), "CRLF": strings.ReplaceAll(bare, "\n", "\r\n") + "quit\r\n", "indented": "  " + strings.ReplaceAll(bare, "\n", "\n  "),
	} {
		s := openStore(t)
		if err := s.ImportPKCS12("tp", []byte(text), "secret-word"); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id, err := s.Identity("tp"); err != nil || !id.Certificate.Leaf.Equal(good.cert) {
			t.Errorf("%s: Identity: %v", name, err)
		}
	}
	for text, want := range map[string]string{
		"-----BEGIN PKCS12-----\nMIIB\n":                    "cut off or damaged",
		string(encodeCertificates(good.cert)):               "openssl pkcs12 -export",
		"hello, this is no file of key material":            "neither binary nor in base64",
		"aGVsbG8sIHdvcmxkISBoZWxsbywgd29ybGQhCg==":          "neither binary nor in base64",
		strings.ReplaceAll(bare, "\n", "")[:400] + "\nquit": "not a PKCS#12 file that holds",
	} {
		if err := openStore(t).ImportPKCS12("tp", []byte(text), "secret-word"); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %s", text, err, want)
		}
	}
}

func TestPKCS12Export(t *testing.T) {
	needOpenssl(t)
	ca := newAuthority(t, "CA")
	p := ca.issue("a.example")
	s := openStore(t)
	must(t, s.ImportPKCS12("tp", p.p12(t, "first", ca.cert), "first"))
	data, err := s.ExportPKCS12("tp", "second-one")
	must(t, err)
	shown := string(openssl(t, data, "pkcs12", "-info", "-nodes", "-passin", "pass:second-one"))
	if strings.Count(shown, "BEGIN CERTIFICATE") != 2 || !strings.Contains(shown, "BEGIN PRIVATE KEY") {
		t.Errorf("openssl finds in the exported file:\n%s", strings.ReplaceAll(shown, "PRIVATE", "..."))
	}
	again := openStore(t)
	must(t, again.ImportPKCS12("tp", data, "second-one"))
	if !again.Authorities().Equal(poolOf(ca)) {
		t.Error("the exported file lost the authority")
	}
	if _, err := s.ExportPKCS12("tp", "short"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("export with a short passphrase = %v, want ErrPassphrase", err)
	}
	if _, err := s.ExportPKCS12("nowhere", "second-one"); !errors.Is(err, ErrNoTrustpoint) {
		t.Errorf("export of an unknown trustpoint = %v", err)
	}
}

func TestImportPKCS12Refusals(t *testing.T) {
	ca := newAuthority(t, "CA")
	good := ca.issue("a.example")
	encode := func(p pair, others ...*x509.Certificate) []byte { return p.p12(t, "secret-word", others...) }
	mismatch := good
	mismatch.key = ecKey(t, elliptic.P256())
	trustStore, err := pkcs12.Modern2023.EncodeTrustStore([]*x509.Certificate{ca.cert}, "secret-word")
	must(t, err)
	data := encode(good)
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{"foreign certificate", encode(mismatch), ErrKeyMismatch},
		{"expired", encode(ca.issue("a.example", expired)), ErrExpired},
		{"not yet valid", encode(ca.issue("a.example", notYet)), ErrNotYetValid},
		{"weak", encode(ca.issueFor(rsaKey(t, 1024), "a.example")), ErrWeakKey},
		{"weak curve", encode(ca.issueFor(ecKey(t, elliptic.P224()), "a.example")), ErrWeakKey},
		{"no key", trustStore, ErrMalformed},
		{"empty", nil, ErrMalformed},
		{"PEM", ca.pem(), ErrMalformed},
		{"half", data[:len(data)/2], ErrMalformed},
		{"BER", append([]byte{0x30, 0x80}, data[2:]...), ErrMalformed},
		{"too large", make([]byte, maxBundle+1), ErrTooLarge},
		{"endless rounds", bytes.Replace(data, []byte{0x02, 0x01, 0x0a}, []byte{0x02, 0x01, 0x00}, -1), ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t)
			err := s.ImportPKCS12("tp", tt.data, "secret-word")
			if !errors.Is(err, tt.want) {
				t.Errorf("ImportPKCS12 = %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret-word") {
				t.Errorf("the message shows the passphrase: %v", err)
			}
			if len(s.Trustpoints())+len(s.Keys()) != 0 {
				t.Error("the refused import left something")
			}
		})
	}
}

func TestPKCS12LeafIsTheOneThatFitsTheKey(t *testing.T) {
	ca := newAuthority(t, "CA")
	p := ca.issue("a.example")
	// Some tools write the authority first.
	data, err := pkcs12.Modern2023.Encode(p.key, ca.cert, []*x509.Certificate{p.cert}, "pw")
	must(t, err)
	s := openStore(t)
	must(t, s.ImportPKCS12("tp", data, "pw"))
	if id, err := s.Identity("tp"); err != nil || !id.Certificate.Leaf.Equal(p.cert) {
		t.Errorf("Identity: %v", err)
	}
}

func TestPKCS12KeyPairLabel(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := openStore(t)
	must(t, s.GenerateKey("tp", "ecdsa", 256, false))
	csr, err := s.Enroll(TrustpointSpec{Name: "tp", SubjectName: "cn=a.example"})
	must(t, err)
	pending, err := s.loadKey("tp")
	must(t, err)
	must(t, s.ImportPKCS12("tp", ca.issue("b.example").p12(t, "pw"), "pw"))
	if id, err := s.Identity("tp"); err != nil || id.Names[0] != "b.example" {
		t.Fatalf("Identity after the import: %v", err)
	}
	if now, err := s.loadKey("tp"); err != nil || !now.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(pending.Public()) {
		t.Errorf("the key pair of a pending request was overwritten (%v)", err)
	}
	// The answer to the pending request still fits.
	must(t, s.ImportCertificate(TrustpointSpec{Name: "tp"}, answer(t, ca, csr)))
	if id, err := s.Identity("tp"); err != nil || id.Names[0] != "a.example" {
		t.Errorf("Identity after the request's answer: %v", err)
	}
	// A renewal by PKCS#12 takes the label with it.
	fresh := openStore(t)
	must(t, fresh.ImportPKCS12("tp", ca.issue("a.example").p12(t, "pw", ca.cert), "pw"))
	second := ca.issue("a.example")
	must(t, fresh.ImportPKCS12("tp", second.p12(t, "pw"), "pw"))
	if key, err := fresh.loadKey("tp"); err != nil || !fitsKey(second.cert, key) {
		t.Errorf("the label kept the old key (%v)", err)
	}
	if !fresh.Authorities().Equal(poolOf()) {
		t.Error("the first file's authority is still trusted after a second import without it")
	}
}
