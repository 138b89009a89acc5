package mapping

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	stateFile = "kernel.json"
	lockFile  = "kernel.lock"
	// hostLock is the name of an abstract socket, of which each network namespace has its own. The kernel frees it with its process.
	hostLock = "@imeproxy"
)

// record is what was added to the kernel. It is on disk before the first change is made, so that a killed daemon's
// successor can undo all of it.
type record struct {
	BootID    string     `json:"boot_id"` // another boot or network namespace has none of this
	NetNS     uint64     `json:"net_namespace"`
	Links     []string   `json:"links_set_up,omitempty"`
	Addresses []linkAddr `json:"addresses,omitempty"`
	Routes    []Route    `json:"routes,omitempty"`
	Rule      bool       `json:"rule,omitempty"`
	Local     bool       `json:"local_route,omitempty"`
	Sysctls   []sysctl   `json:"sysctls,omitempty"` // with the values before
}

// linkAddr is an address on a link.
type linkAddr struct {
	Link   string       `json:"link"`
	Prefix netip.Prefix `json:"prefix"`
}

// sysctl is a file below /proc/sys and a value.
type sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// stateDir is the state directory, locked by one appliance, which has its network namespace for itself as well.
type stateDir struct {
	path string
	lock *os.File
	host int // descriptor of the socket hostLock, -1 without
}

// openState locks the state directory, or fails with ErrRunning.
func openState(path string) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	var owner unix.Stat_t
	if os.Geteuid() == 0 && unix.Stat(path, &owner) == nil {
		// Root tidies up for a daemon that is another user, which must be able to take this lock afterwards.
		_ = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %s: %w", path, ErrRunning)
		}
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	d := &stateDir{path: path, lock: f, host: -1}
	if d.host, err = lockHost(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// close gives the locks back. It does not leave that to the closing of the descriptors: a process that is being forked at this
// moment has copies of them until its exec, and with those the locks would live on.
func (d *stateDir) close() {
	_ = unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)
	_ = d.lock.Close()
	if d.host >= 0 {
		_ = unix.Shutdown(d.host, unix.SHUT_RDWR)
		_ = unix.Close(d.host)
	}
}

// CheckRunning gives ErrRunning while an appliance holds the state directory or the network namespace. It changes nothing, needs no rights, and says
// nothing of what keeps an appliance from running otherwise.
func CheckRunning(path string) error {
	if f, err := os.Open(filepath.Join(path, lockFile)); err == nil {
		defer f.Close()
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("state directory %s: %w", path, ErrRunning)
		} else if err == nil {
			_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return hostHolder(fd, &unix.SockaddrUnix{Name: hostLock})
}

// lockHost takes the network namespace, so that an appliance with another state directory does not remove the rules of the one
// that runs. A name that a user without our rights has taken is no lock: nobody may keep the appliance from its start. Nor is one
// where nobody listens: an appliance that runs does.
func lockHost() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("lock network namespace: %w", err)
	}
	name := &unix.SockaddrUnix{Name: hostLock}
	if err = unix.Bind(fd, name); err == nil {
		if err = unix.Listen(fd, 64); err == nil {
			return fd, nil
		}
	}
	defer unix.Close(fd)
	if !errors.Is(err, unix.EADDRINUSE) {
		return -1, fmt.Errorf("lock network namespace: %w", err)
	}
	return -1, hostHolder(fd, name)
}

// hostHolder gives ErrRunning when an appliance answers on the name. fd is a socket for the question.
func hostHolder(fd int, name *unix.SockaddrUnix) error {
	running := fmt.Errorf("this network namespace: %w", ErrRunning)
	if err := unix.Connect(fd, name); errors.Is(err, unix.ECONNREFUSED) {
		return nil
	} else if err != nil {
		return running
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil:
		return running
	case cred.Uid != 0 && int(cred.Uid) != os.Geteuid():
		return nil
	}
	return fmt.Errorf("this network namespace, process %d: %w", cred.Pid, ErrRunning)
}

// read returns the record of this boot and network namespace; found is false when there is none.
func (d *stateDir) read() (r record, found bool, err error) {
	data, err := os.ReadFile(filepath.Join(d.path, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false, nil
	}
	if err != nil {
		return record{}, false, fmt.Errorf("kernel state: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, false, fmt.Errorf("kernel state %s: %w", filepath.Join(d.path, stateFile), err)
	}
	here, err := newRecord()
	if err != nil {
		return record{}, false, err
	}
	return r, r.BootID == here.BootID && r.NetNS == here.NetNS, nil
}

// write replaces the record as a whole.
func (d *stateDir) write(r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("kernel state: %w", err)
	}
	f, err := os.CreateTemp(d.path, stateFile+".*")
	if err != nil {
		return fmt.Errorf("kernel state: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(d.path, stateFile))
	}
	if err != nil {
		return fmt.Errorf("kernel state: %w", err)
	}
	return nil
}

// forget removes the record.
func (d *stateDir) forget() error {
	err := os.Remove(filepath.Join(d.path, stateFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kernel state: %w", err)
	}
	return nil
}

// newRecord is an empty record of this boot and network namespace.
func newRecord() (record, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return record{}, fmt.Errorf("boot id: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return record{}, fmt.Errorf("network namespace: %w", err)
	}
	return record{BootID: strings.TrimSpace(string(boot)), NetNS: st.Ino}, nil
}
