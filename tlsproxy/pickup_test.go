package tlsproxy

import (
	"errors"
	"os"
	"slices"
	"testing"
)

// TestPublishWritesTheCertificateAlone checks that the file for the peer is the export, has no key in it and follows a new certificate.
func TestPublishWritesTheCertificateAlone(t *testing.T) {
	s := openStore(t)
	must(t, s.GenerateKey("k", "ecdsa", 0, false))
	if _, err := s.Publish("a"); !errors.Is(err, ErrNoTrustpoint) {
		t.Errorf("nothing to publish: %v", err)
	}
	var before string
	for _, domain := range []string{"a.example", "b.example"} {
		_, err := s.Enroll(TrustpointSpec{Name: "a", Enrollment: "self", KeyPair: "k", SubjectName: "cn=" + domain})
		must(t, err)
		file, err := s.Publish("a")
		must(t, err)
		got, err := os.ReadFile(file)
		must(t, err)
		want, err := s.ExportIdentity("a")
		must(t, err)
		if string(got) != string(want) || string(got) == before {
			t.Errorf("%s: the file holds %q, want %q", domain, got, want)
		}
		if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		before = string(got)
	}
	if s.Request("../a") != "" || s.Request("") != "" || s.Authenticated("a") {
		t.Error("something is there that nobody put there")
	}
	must(t, s.Authenticate("a", []byte(before)))
	if !s.Authenticated("a") {
		t.Error("the authenticated certificate is not seen")
	}
}

// TestRequestIsListedWhileItWaits checks that a request is seen among the certificates, beside the one that it is to renew, until it is answered.
func TestRequestIsListedWhileItWaits(t *testing.T) {
	s, ca := openStore(t), newAuthority(t, "CA")
	spec := TrustpointSpec{Name: "a", KeyPair: "k", SubjectName: "cn=a.example"}
	must(t, s.GenerateKey("k", "ecdsa", 0, false))
	want := func(kinds ...string) {
		t.Helper()
		var got []string
		for _, c := range s.Certificates() {
			got = append(got, c.Kind+" "+c.Status)
			if c.Kind == "request" && (c.Trustpoint != "a" || c.Subject != "CN=a.example" || !slices.Equal(c.Domains, []string{"a.example"}) || c.KeyAlgorithm != "ecdsa" || c.KeyBits != 256 || c.KeyPair != "k") {
				t.Errorf("the request is %+v", c)
			}
		}
		if !slices.Equal(got, kinds) {
			t.Errorf("listed are %q, want %q", got, kinds)
		}
	}
	want()
	csr, err := s.Enroll(spec)
	must(t, err)
	want("request pending")
	must(t, s.ImportCertificate(spec, answer(t, ca, csr)))
	want("identity available")
	_, err = s.Enroll(spec)
	must(t, err)
	want("identity available", "request pending")
	must(t, os.WriteFile(s.Request("a"), []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"), 0o600))
	must(t, s.Reload())
	want("identity available")
}
