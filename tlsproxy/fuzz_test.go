package tlsproxy

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
)

func FuzzCertificates(f *testing.F) {
	ca := newAuthority(f, "CA")
	f.Add(ca.pem())
	f.Add(ca.cert.Raw)
	f.Add(append(ca.pem(), ca.issue("a.example").cert.Raw...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("MIIBszCCAVmgAwIBAgIQ\nquit\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parseCertificates(data)
		if err != nil {
			return
		}
		if len(certs) == 0 {
			t.Fatal("no certificate and no error")
		}
		again, err := parseCertificates(encodeCertificates(certs...))
		if err != nil || len(again) != len(certs) {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		for _, c := range certs {
			_ = describe(c)
			_ = Domains(c)
			linkChain(c, certs)
		}
	})
}

func FuzzBundle(f *testing.F) {
	ca := newAuthority(f, "CA")
	p := ca.issue("a.example")
	f.Add(p.p12(f, "pw", ca.cert), "pw")
	f.Add(p.p12(f, ""), "")
	f.Add([]byte{0x30, 0x80, 0, 0}, "x")
	f.Fuzz(func(t *testing.T, data []byte, passphrase string) {
		if checkRounds(data, 2000) != nil {
			return // correct, but thousands of times slower than all others
		}
		key, leaf, _, err := decodeBundle(data, passphrase)
		if err == nil && !fitsKey(leaf, key) {
			t.Fatal("certificate and key of a good file do not fit")
		}
	})
}

func FuzzSubject(f *testing.F) {
	for _, s := range []string{"cn=Ent-local-domain-name**", `cn=a., o="Example Corp"`, `o='x, y';cn=\41\ `, "dc=a,ea=b@c", "cn=“a”"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		der, _, err := ParseSubject(text)
		if err != nil {
			return
		}
		var seq pkix.RDNSequence
		if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) != 0 || len(seq) == 0 {
			t.Fatalf("ParseSubject(%q) made DER that cannot be read: %v", text, err)
		}
		if len(der) > 8*maxX500 {
			t.Fatalf("%d bytes of DER", len(der))
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"local-ent", "../x", "=eA", "ä", ".", "a/b\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if checkName("trustpoint", name) != nil {
			return
		}
		file := fileName(name)
		back, ok := nameOfFile(file)
		if !ok || back != name {
			t.Fatalf("name %q, file %q, back %q", name, file, back)
		}
		if file == "." || file == ".." || len(file) > 250 {
			t.Fatalf("file name %q", file)
		}
		for _, c := range file {
			if c == '/' || c == 0 {
				t.Fatalf("file name %q", file)
			}
		}
	})
}
