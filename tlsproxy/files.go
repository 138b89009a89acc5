package tlsproxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
	// lockPatience bounds how long a handshake or a command waits for another process that writes.
	lockPatience = 5 * time.Second
	maxStateFile = 8 << 20
)

// stateDir knows where things lie in the state directory and how they are written.
type stateDir string

func (d stateDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d stateDir) keyFile(label string) string { return filepath.Join("keys", fileName(label)+".pem") }

func (d stateDir) trustpointFile(name, file string) string {
	return filepath.Join("trustpoints", fileName(name), file)
}

func (d stateDir) create() error {
	if err := os.MkdirAll(string(d), dirMode); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	for _, sub := range []string{"keys", "trustpoints", ".crypto", filepath.Join(".crypto", "tmp")} {
		if err := d.mkdir(sub); err != nil {
			return fmt.Errorf("create state directory: %w", err)
		}
	}
	return nil
}

// mkdir makes a directory below the state directory, with those between them.
func (d stateDir) mkdir(rel string) error {
	if rel == "." {
		return nil
	}
	if err := d.mkdir(filepath.Dir(rel)); err != nil {
		return err
	}
	if err := os.Mkdir(d.path(rel), dirMode); err == nil {
		return d.give(d.path(rel))
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// give makes what root has made the property of the state directory's owner: a daemon that is not root could not read
// the keys that an administrator imports for it.
func (d stateDir) give(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(string(d), &st); err != nil {
		return err
	}
	if st.Uid == 0 {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// lock takes the lock between processes (and between stores of one process: each call opens the file anew).
func (d stateDir) lock(how int, patience time.Duration) (unlock func(), err error) {
	f, err := os.OpenFile(d.path(".crypto", "lock"), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	if err := d.give(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	deadline := time.Now().Add(patience)
	for {
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { unlockFile(f) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock state directory: %w", err)
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("%w: another imeproxy has held %s for %s; try again", ErrBusy, d.path(".crypto", "lock"), patience)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// unlockFile gives a lock back, and not by the closing of the file alone: a process that is being forked at this moment has a copy
// of the descriptor until its exec, and with that the lock would live on.
func unlockFile(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	f.Close()
}

// write replaces one file as a whole: a reader, or the next start after a power cut, sees the old content or the new, never a part.
func (d stateDir) write(rel string, data []byte) (err error) {
	target := d.path(rel)
	dir := filepath.Dir(target)
	if err := d.mkdir(filepath.Dir(rel)); err != nil {
		return fmt.Errorf("write %s: %w", rel, err)
	}
	f, err := os.CreateTemp(d.path(".crypto", "tmp"), "new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", rel, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", rel, err)
		}
	}()
	if err := f.Chmod(fileMode); err != nil {
		return err
	}
	if err := d.give(f.Name()); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	// Some file systems cannot sync a directory; there the rename is as durable as it gets.
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// remove deletes a file or a folder of the store; one that is not there is no error. The rename takes a whole folder away at once:
// a crash must not leave a trustpoint's authorities trusted while its other files are gone.
func (d stateDir) remove(rel string) error {
	gone, err := os.MkdirTemp(d.path(".crypto", "tmp"), "gone-*")
	if err != nil {
		return fmt.Errorf("remove %s: %w", rel, err)
	}
	if err := os.Rename(d.path(rel), filepath.Join(gone, "it")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", rel, err)
	}
	if err := syncDir(filepath.Dir(d.path(rel))); err != nil {
		return fmt.Errorf("remove %s: %w", rel, err)
	}
	return os.RemoveAll(gone)
}

// sweep removes temporary files of a process that died while it wrote. Call it with the exclusive lock: nobody else writes then.
func (d stateDir) sweep() {
	left, err := os.ReadDir(d.path(".crypto", "tmp"))
	if err != nil {
		return
	}
	for _, e := range left {
		os.RemoveAll(d.path(".crypto", "tmp", e.Name()))
	}
}

// read returns nil without error for a file that is not there.
func (d stateDir) read(rel string) ([]byte, error) {
	f, err := os.Open(d.path(rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxStateFile {
		return nil, fmt.Errorf("%w: %s", ErrTooLarge, rel)
	}
	return data, nil
}

// stamp identifies one state of the store; the rename that makes a new generation changes the inode.
type stamp struct {
	inode       uint64
	sec, nsec   int64
	initialized bool
}

func (d stateDir) stamp() stamp {
	var st unix.Stat_t
	if unix.Stat(d.path(".crypto", "generation"), &st) != nil {
		return stamp{initialized: true}
	}
	return stamp{inode: st.Ino, sec: int64(st.Mtim.Sec), nsec: int64(st.Mtim.Nsec), initialized: true}
}

// bump marks the store as changed, so that a running daemon sees it with one stat.
func (d stateDir) bump() error {
	var id [16]byte
	rand.Read(id[:])
	return d.write(filepath.Join(".crypto", "generation"), []byte(hex.EncodeToString(id[:])+"\n"))
}
