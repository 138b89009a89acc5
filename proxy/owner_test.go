package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwnerIsExplained has a file of somebody else in the state directory: the operator is told which, and what to type, when and only when
// permission was denied.
func TestOwnerIsExplained(t *testing.T) {
	dir := t.TempDir()
	denied := fmt.Errorf("call records: %w", fs.ErrPermission)
	if err := explainOwner(dir, denied); err != denied {
		t.Errorf("all is the daemon's own: %v", err)
	}
	file := filepath.Join(dir, "calls.json")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 65534, 65534); err != nil {
		t.Skipf("a file cannot be given to somebody else: %v", err)
	}
	err := explainOwner(dir, denied)
	if want := fmt.Sprintf("%s belongs to user 65534, and the daemon runs as user %d: `chown -R %d %s`", file, os.Geteuid(), os.Geteuid(), dir); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	if err := explainOwner(dir, fs.ErrNotExist); err != fs.ErrNotExist {
		t.Errorf("another error: %v", err)
	}
}

// A configuration that the daemon may not open: whose it is, and what to do.
func TestExplainFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.cfg")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	denied := &fs.PathError{Op: "open", Path: file, Err: fs.ErrPermission}
	want := fmt.Sprintf("it belongs to user %d with mode 0600, and the daemon runs as user %d: `chown %d %s`", os.Getuid(), os.Geteuid(), os.Geteuid(), file)
	if err := ExplainFile(file, denied); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	for _, err := range []error{nil, fs.ErrNotExist} {
		if got := ExplainFile(file, err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
