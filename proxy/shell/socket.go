package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// DefaultSocket is where the daemon listens and `imeproxy shell` looks unless told otherwise.
const DefaultSocket = "/run/imeproxy/control.sock"

// maxSocketPath is the length of sun_path less its closing zero byte (unix(7)).
const maxSocketPath = 107

// listener is a Unix listener that removes its file at the end only while the file is still its own.
type listener struct {
	*net.UnixListener
	path string
	file os.FileInfo
}

// listen makes the socket with mode 0600, and its directory with mode 0700 where that is missing. A file left by a dead daemon is removed;
// one that another process answers on is not, nor is a file that is no socket.
func listen(path string) (*listener, error) {
	_, unlock, err := prepare(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	// Between bind and chmod the mode follows the umask; whoever gets in there is still refused by his credentials.
	err = os.Chmod(path, 0o600)
	var info os.FileInfo
	if err == nil {
		info, err = os.Lstat(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return &listener{UnixListener: l, path: path, file: info}, nil
}

// CheckSocket says what would keep Serve from listening on a path: a daemon asks it before it touches anything else, so that a second one on the
// same socket does not get as far as the kernel. A file that a dead daemon left is removed, and a directory that is missing is made, as those above
// it, with mode 0700. made is its name then, for the log.
func CheckSocket(path string) (made string, err error) {
	made, unlock, err := prepare(path)
	if err != nil {
		return made, err
	}
	unlock()
	return made, nil
}

// socketDirectoryMode is that of a directory which is made for the socket: nobody but root and the daemon's own user may use the socket in it.
const socketDirectoryMode = 0o700

// prepare makes the way free for a socket and keeps others of us out of its directory, which is told when it was missing, until unlock.
func prepare(path string) (made string, unlock func(), err error) {
	if len(path) > maxSocketPath {
		return "", nil, fmt.Errorf("control socket %s: path is longer than %d bytes", path, maxSocketPath)
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		made = dir
	}
	if err := os.MkdirAll(dir, socketDirectoryMode); err != nil {
		return "", nil, fmt.Errorf("control socket: %w", err)
	}
	if err := checkDirectory(dir); err != nil {
		return made, nil, err
	}
	if unlock, err = lockDirectory(dir); err != nil {
		return made, nil, err
	}
	if err := removeStale(path); err != nil {
		unlock()
		return made, nil, err
	}
	return made, unlock, nil
}

// Close stops listening and removes the socket's file.
func (l *listener) Close() error {
	err := l.UnixListener.Close()
	if now, e := os.Lstat(l.path); e == nil && os.SameFile(now, l.file) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}

// checkDirectory refuses a directory in which another user could put a socket of his own in our place.
func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return fmt.Errorf("control socket: %s is not a directory", dir)
	}
	if st.Uid != 0 && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("control socket: directory %s belongs to user %d, must be root's or the daemon's own", dir, st.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("control socket: directory %s can be written by others (mode %04o), remove that right", dir, info.Mode().Perm())
	}
	return nil
}

// lockDirectory keeps two daemons that start at once from removing each other's new socket as stale.
func lockDirectory(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: directory %s is locked by another daemon that starts: %w", dir, err), f.Close())
	}
	return func() {
		// Not by the closing alone: a process that is being forked has a copy of the descriptor until its exec.
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		f.Close()
	}, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("control socket: %s exists and is not a socket, it is left alone", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s: %w", path, ErrInUse), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("control socket %s: cannot tell whether a daemon answers on it: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// callerOf asks the kernel who is at the other end (SO_PEERCRED).
func callerOf(c *net.UnixConn) (Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *syscall.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", err)
	}
	if inner != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", inner)
	}
	return Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

// allowed lets root and the daemon's own user in.
func allowed(c Caller, own int) bool { return c.UID == 0 || int64(c.UID) == int64(own) }
