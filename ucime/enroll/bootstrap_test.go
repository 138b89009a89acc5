package enroll

import (
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// A bootstrap server is one by its license alone: its certificate says so, nobody else's does, and the license of another cannot be made into one.
func TestBootstrapServersByTheirLicense(t *testing.T) {
	w := newWorld(t)
	text := w.license(LicenseSpec{PeerCount: 2, Bootstrap: true})
	boot := w.enrolled(filepath.Join(t.TempDir(), "boot"), text)
	if c, err := boot.Certificate(); err != nil || !IsBootstrap(c.Leaf) || len(boot.OwnPeerIDs()) != 2 {
		t.Errorf("certificate %v, peer IDs %v", err, boot.OwnPeerIDs())
	}
	if err := boot.Enroll(t.Context()); err != nil {
		t.Errorf("renewal: %v", err)
	}
	plain := w.license(LicenseSpec{PeerCount: 2})
	member := w.enrolled(filepath.Join(t.TempDir(), "member"), plain)
	if c, err := member.Certificate(); err != nil || IsBootstrap(c.Leaf) {
		t.Errorf("a member is a bootstrap server: %v", err)
	}

	edited := strings.Replace(string(plain), "</tag>", "</tag>"+bootstrapElement, 1)
	if _, err := ParseLicense("x.lic", []byte(edited), w.trust.LicenseKey); err == nil {
		t.Error("a license that was edited into that of a bootstrap server is good")
	}
	for name, text := range map[string][]byte{"claimed": plain, "denied": text} {
		l, err := ParseLicense("x.lic", text, w.trust.LicenseKey)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.authority.Enroll(Request{Tag: l.Tag.String(), PeerCount: l.PeerCount, Bootstrap: !l.Bootstrap, Signature: hex.EncodeToString(l.Signature)}, nil)
		if refusal := new(Refusal); !errors.As(err, &refusal) || refusal.Status != 403 {
			t.Errorf("bootstrap %s against the license: %v", name, err)
		}
	}
}
