package mapping

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that some other goroutine forks has copies of all descriptors until its exec.
func TestLocksGoWhileAnotherProcessIsForked(t *testing.T) {
	l := newLab(t)
	l.in(l.box, func() error {
		d, err := openState(l.state)
		if err != nil {
			return err
		}
		for _, fd := range []int{int(d.lock.Fd()), d.host} {
			kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = unix.Close(kept) })
		}
		d.close()
		if d, err = openState(l.state); err != nil {
			return err
		}
		d.close()
		return nil
	})
}

func TestNameOfTheLockWithoutAnAppliance(t *testing.T) {
	l := newLab(t)
	l.in(l.box, func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: hostLock}); err != nil {
			return err
		}
		d, err := openState(l.state)
		if err != nil {
			return err
		}
		d.close()
		if err := unix.Listen(fd, 1); err != nil {
			return err
		}
		if _, err := openState(l.state); !errors.Is(err, ErrRunning) {
			t.Errorf("with root listening: %v", err)
		}
		if err := CheckRunning(l.state); !errors.Is(err, ErrRunning) {
			t.Errorf("asked with root listening: %v", err)
		}
		// What the failure took must be free again.
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
			return err
		}
		if d, err = openState(l.state); err == nil {
			d.close()
		}
		return err
	})
}

// Asking changes nothing: the directory is not made, and an appliance that holds it is told as one.
func TestCheckRunning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := CheckRunning(dir); err != nil {
		t.Errorf("nobody was ever there: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if err := CheckRunning(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("another one holds it: %v", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it keeps no lock
		if err := CheckRunning(dir); err != nil {
			t.Errorf("nobody holds it any more: %v", err)
		}
	}
}
