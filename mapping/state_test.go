package mapping

import (
	"errors"
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
