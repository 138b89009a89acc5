package tlsproxy

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What root imports for a daemon that is not root belongs to the daemon, or it could not read it.
func TestRootWritesForTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const owner = 65534
	dir := t.TempDir()
	if err := os.Chown(dir, owner, owner); err != nil {
		t.Skip("this user namespace knows no second user:", err)
	}
	s, err := OpenStore(dir)
	must(t, err)
	must(t, s.GenerateKey("k", "ecdsa", 256, false))
	if _, err := s.Enroll(TrustpointSpec{Name: "tp", Enrollment: "self", SubjectName: "cn=a.example", KeyPair: "k"}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		if st := info.Sys().(*syscall.Stat_t); st.Uid != owner || st.Gid != owner {
			t.Errorf("%s belongs to %d:%d, want %d", path, st.Uid, st.Gid, owner)
		}
		seen++
		return nil
	})
	must(t, err)
	if seen < 6 {
		t.Errorf("only %d files were made", seen)
	}
}
