package tlsproxy

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestGenerateKeyRefusesWeakAndUnknown(t *testing.T) {
	s := openStore(t)
	tests := []struct {
		label, algorithm string
		bits             int
		want             error
	}{
		{"k", "rsa", 1024, ErrWeakKey},
		{"k", "rsa", 2047, ErrWeakKey},
		{"k", "rsa", 8193, ErrAlgorithm},
		{"k", "ecdsa", 224, ErrWeakKey},
		{"k", "ecdsa", 300, ErrAlgorithm},
		{"k", "dsa", 2048, ErrAlgorithm},
		{"", "rsa", 2048, ErrName},
		{strings.Repeat("x", 129), "rsa", 2048, ErrName},
		{"a\nb", "rsa", 2048, ErrName},
	}
	for _, tt := range tests {
		if err := s.GenerateKey(tt.label, tt.algorithm, tt.bits, false); !errors.Is(err, tt.want) {
			t.Errorf("GenerateKey(%q, %s, %d) = %v, want %v", tt.label, tt.algorithm, tt.bits, err, tt.want)
		}
	}
	if keys := s.Keys(); len(keys) != 0 {
		t.Errorf("refused keys were kept: %v", keys)
	}
}

func TestGenerateKeyKinds(t *testing.T) {
	s := openStore(t)
	for _, k := range []KeyInfo{
		{Label: "a-rsa", Algorithm: "rsa", Bits: 2048},
		{Label: "b-256", Algorithm: "ecdsa", Bits: 256},
		{Label: "c-384", Algorithm: "ecdsa", Bits: 384},
		{Label: "d-521", Algorithm: "ecdsa", Bits: 521},
	} {
		must(t, s.GenerateKey(k.Label, k.Algorithm, k.Bits, false))
		if !s.HasKey(k.Label) {
			t.Errorf("HasKey(%q) is false after GenerateKey", k.Label)
		}
		keys := s.Keys()
		if got := keys[len(keys)-1]; got != k {
			t.Errorf("Keys() ends with %+v, want %+v", got, k)
		}
	}
	err := s.GenerateKey("b-256", "ecdsa", 256, false)
	if !errors.Is(err, ErrKeyExists) {
		t.Errorf("second key of a label: %v, want ErrKeyExists", err)
	}
	before, _ := os.ReadFile(s.dir.path("keys", "b-256.pem"))
	must(t, s.GenerateKey("b-256", "ecdsa", 256, true))
	if after, _ := os.ReadFile(s.dir.path("keys", "b-256.pem")); bytes.Equal(before, after) {
		t.Error("overwrite kept the old key")
	}
	must(t, s.RemoveKey("b-256"))
	if s.HasKey("b-256") {
		t.Error("the removed key pair is still there")
	}
	if err := s.RemoveKey("b-256"); !errors.Is(err, ErrNoKey) {
		t.Errorf("removing it again: %v, want ErrNoKey", err)
	}
}

func TestNamesStayInsideTheDirectory(t *testing.T) {
	ca := newAuthority(t, "CA")
	names := []string{
		"../../escape", "/etc/passwd", "..", ".", ".hidden", "a/b", "=x", "Größe", "Ent-local-domain-name**",
		"a b", "CASE", "case", strings.Repeat("/", 128), strings.Repeat("n", 128), "%2e%2e",
	}
	s := openStore(t)
	for _, name := range names {
		must(t, s.Authenticate(name, ca.pem()))
		must(t, s.GenerateKey(name, "ecdsa", 256, false))
	}
	reopened, err := OpenStore(string(s.dir))
	must(t, err)
	if got := reopened.Trustpoints(); len(got) != len(names) {
		t.Errorf("%d names gave %d trustpoints: %q", len(names), len(got), got)
	}
	for _, name := range names {
		if !reopened.HasKey(name) {
			t.Errorf("no key pair %q after reopening", name)
		}
	}
	outside, err := os.ReadDir(filepath.Dir(string(s.dir)))
	must(t, err)
	if len(outside) != 1 {
		t.Errorf("files beside the state directory: %v", outside)
	}
}

func TestFileModes(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	s := openStore(t)
	ca := newAuthority(t, "CA")
	must(t, s.ImportPKCS12("tp", ca.issue("a.example").p12(t, "pw", ca.cert), "pw"))
	must(t, s.GenerateKey("k", "ecdsa", 256, false))
	must(t, s.Authenticate("tp", ca.pem()))
	files := 0
	must(t, filepath.WalkDir(string(s.dir), func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		return nil
	}))
	if files < 6 {
		t.Errorf("only %d files; key, identity, authorities, bundle, meta and generation are due", files)
	}
}

func TestLeftOverTemporaryFilesAreIgnoredAndSwept(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	// What a process that was killed in the middle of a write leaves behind.
	left := writeFile(t, s.dir.path(".crypto", "tmp"), "new-123", []byte("-----BEGIN PRIVATE KEY-----\nhalf"))
	must(t, os.MkdirAll(s.dir.path(".crypto", "tmp", "gone-1", "it"), 0o700))
	writeFile(t, s.dir.path("trustpoints"), "stray", []byte("x"))
	writeFile(t, s.dir.path("keys"), "new.tmp", []byte("x"))
	must(t, os.MkdirAll(s.dir.path("trustpoints", "empty"), 0o700))
	again, err := OpenStore(string(s.dir))
	must(t, err)
	if err := again.LastReloadError(); err != nil {
		t.Errorf("left-over files are reported as damage: %v", err)
	}
	if _, err := again.Identity("local-ent"); err != nil {
		t.Errorf("Identity: %v", err)
	}
	if n := len(again.Keys()); n != 1 {
		t.Errorf("%d key pairs, want the one of the PKCS#12 file", n)
	}
	must(t, again.GenerateKey("k", "ecdsa", 256, false))
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file is still there after a write: %v", err)
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	ca := newAuthority(t, "CA")
	first := ca.issue("a.example")
	s := storeWith(t, first, ca)
	// The folder for temporary files is gone and cannot come back: every write fails before its rename.
	must(t, os.RemoveAll(s.dir.path(".crypto", "tmp")))
	writeFile(t, s.dir.path(".crypto"), "tmp", nil)
	if err := s.ImportPKCS12("local-ent", ca.issue("b.example").p12(t, "pw"), "pw"); err == nil {
		t.Fatal("import without a place to write succeeded")
	}
	for name, store := range map[string]*Store{"running": s, "reopened": reopen(t, s)} {
		id, err := store.Identity("local-ent")
		if err != nil || !id.Certificate.Leaf.Equal(first.cert) {
			t.Errorf("%s: identity after the failed import: %v", name, err)
		}
	}
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	must(t, os.RemoveAll(s.dir.path(".crypto", "tmp")))
	again, err := OpenStore(string(s.dir))
	must(t, err)
	return again
}

func TestAnotherProcessChangesTheStore(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	now := time.Now()
	daemon, err := OpenStoreWithClock(string(s.dir), func() time.Time { return now })
	must(t, err)
	names := func() string {
		id, err := daemon.Identity("local-ent")
		must(t, err)
		return strings.Join(id.Names, ",")
	}
	if got := names(); got != "a.example" {
		t.Fatalf("domains %q", got)
	}
	must(t, s.ImportPKCS12("local-ent", ca.issue("b.example").p12(t, "pw"), "pw"))
	if got := names(); got != "a.example" {
		t.Errorf("the directory was looked at twice within a second: %q", got)
	}
	now = now.Add(time.Second)
	if got := names(); got != "b.example" {
		t.Errorf("after a second the daemon presents %q, want b.example", got)
	}
	must(t, s.ImportPKCS12("local-ent", ca.issue("c.example").p12(t, "pw"), "pw"))
	must(t, daemon.Reload())
	if got := names(); got != "c.example" {
		t.Errorf("after Reload the daemon presents %q, want c.example", got)
	}
}

func TestDamageKeepsWhatWasInUse(t *testing.T) {
	ca := newAuthority(t, "CA")
	first := ca.issue("a.example")
	s := storeWith(t, first, ca)
	writeFile(t, s.dir.path("trustpoints", "local-ent"), "identity.pem", []byte("garbage"))
	writeFile(t, s.dir.path("trustpoints", "remote-CA"), "ca.pem", []byte("garbage"))
	err := s.Reload()
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "local-ent") || !strings.Contains(err.Error(), "remote-CA") {
		t.Errorf("Reload = %v, want both damaged files named", err)
	}
	if id, err := s.Identity("local-ent"); err != nil || !id.Certificate.Leaf.Equal(first.cert) {
		t.Errorf("the identity in use is gone: %v", err)
	}
	if got := s.snap.Load().anchors.all; !got.Equal(poolOf(ca)) {
		t.Error("the authority in use is gone")
	}
	again, err := OpenStore(string(s.dir))
	must(t, err)
	if _, err := again.Identity("local-ent"); !errors.Is(err, ErrMalformed) {
		t.Errorf("Identity of a damaged file = %v, want ErrMalformed", err)
	}
	must(t, again.ImportPKCS12("local-ent", first.p12(t, "pw"), "pw"))
	if _, err := again.Identity("local-ent"); err != nil {
		t.Errorf("import did not repair it: %v", err)
	}
}

func TestForeignKeyInIdentityFileIsRefused(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	mixed := append(keyPEM(t, ecKey(t, elliptic.P256())), encodeCertificates(ca.issue("a.example").cert)...)
	writeFile(t, s.dir.path("trustpoints", "local-ent"), "identity.pem", mixed)
	again, err := OpenStore(string(s.dir))
	must(t, err)
	if _, err := again.Identity("local-ent"); !errors.Is(err, ErrKeyMismatch) {
		t.Errorf("Identity = %v, want ErrKeyMismatch", err)
	}
}

func TestStoresOfTwoProcessesDoNotCollide(t *testing.T) {
	a := openStore(t)
	b, err := OpenStore(string(a.dir))
	must(t, err)
	ca := newAuthority(t, "CA")
	var wg sync.WaitGroup
	for i, s := range []*Store{a, b, a, b} {
		wg.Go(func() {
			for j := range 10 {
				if err := s.Authenticate(string(rune('a'+i))+string(rune('0'+j)), ca.pem()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, a.Reload())
	if n := len(a.Trustpoints()); n != 40 {
		t.Errorf("%d trustpoints, want 40", n)
	}
}

func TestRemoveTrustpoint(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := storeWith(t, ca.issue("a.example"), ca)
	must(t, s.RemoveTrustpoint("remote-CA"))
	if !s.Authorities().Equal(poolOf()) {
		t.Error("the removed trustpoint's authority is still trusted")
	}
	if err := s.RemoveTrustpoint("remote-CA"); !errors.Is(err, ErrNoTrustpoint) {
		t.Errorf("removing it again: %v, want ErrNoTrustpoint", err)
	}
}

func TestOpenStoreRefusals(t *testing.T) {
	if _, err := OpenStore(""); err == nil {
		t.Error("no directory: no error")
	}
	file := writeFile(t, t.TempDir(), "file", nil)
	if _, err := OpenStore(file); err == nil {
		t.Error("a file in place of the directory: no error")
	}
}

func TestBusyStateDirectory(t *testing.T) {
	s := openStore(t)
	unlock, err := s.dir.lock(unix.LOCK_EX, 0)
	must(t, err)
	if _, err := s.dir.lock(unix.LOCK_SH, 0); !errors.Is(err, ErrBusy) {
		t.Errorf("second lock = %v, want ErrBusy", err)
	}
	unlock()
	unlock, err = s.dir.lock(unix.LOCK_SH, 0)
	must(t, err)
	unlock()
}
