package tlsproxy

import (
	"errors"
	"os"
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
