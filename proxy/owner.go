package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ownerLooks bounds the files of a state directory that explainOwner looks at.
const ownerLooks = 1000

// ExplainFile adds to an error of opening a file whose it is, where permission was denied.
func ExplainFile(file string, err error) error {
	var st syscall.Stat_t
	if !errors.Is(err, fs.ErrPermission) || syscall.Stat(file, &st) != nil {
		return err
	}
	return fmt.Errorf("%w; it belongs to user %d with mode %04o, and the daemon runs as user %d: `chown %d %s`", err, st.Uid, st.Mode&0o777, os.Geteuid(), os.Geteuid(), file)
}

// explainOwner adds to an error of the start which file of the state directory belongs to somebody else, where permission was denied: the usual
// reason is a daemon that ran as root once, or a directory that was copied, and the file that the error names is often not the one to change.
func explainOwner(dir string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	looked := 0
	found := ""
	var owner uint32
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, e error) error {
		if looked++; looked > ownerLooks || d == nil {
			return fs.SkipAll
		}
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) == nil && int(st.Uid) != os.Geteuid() {
			found, owner = path, st.Uid
			return fs.SkipAll
		}
		if e != nil {
			return fs.SkipDir
		}
		return nil
	})
	if found == "" {
		return err
	}
	return fmt.Errorf("%w; %s belongs to user %d, and the daemon runs as user %d: `chown -R %d %s`", err, found, owner, os.Geteuid(), os.Geteuid(), dir)
}
