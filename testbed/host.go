package testbed

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

// Host is one network namespace with a name: a phone, a call agent, a router.
// Its methods may be called from several goroutines.
type Host struct {
	// Name is the role, for example "phone-a".
	Name string
	// NS is the name of the namespace, as `ip netns exec` takes it.
	NS string

	dir  string // log files of its processes
	keep bool   // processes outlive the lab's own
}

// Command prepares a command inside the namespace.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.NS, name}, args...)...)
}

// Run runs a command inside the namespace to its end, one minute at most, and
// returns its output, standard error included.
func (h *Host) Run(name string, args ...string) (string, error) {
	return run(exec.CommandContext, "ip", append([]string{"netns", "exec", h.NS, name}, args...)...)
}

// MustRun is Run that ends the test on failure.
func (h *Host) MustRun(t T, name string, args ...string) string {
	t.Helper()
	out, err := h.Run(name, args...)
	if err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
	return out
}

// run executes a command for at most one minute.
func run(mk func(context.Context, string, ...string) *exec.Cmd, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := mk(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(out), 2000))
	}
	return string(out), nil
}

// Do calls f on a thread that stands in the namespace: sockets that f opens
// belong to it for good. f must not hand work to other goroutines that open
// sockets.
func (h *Host) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- h.onThisThread(f)
	}()
	return <-done
}

// onThisThread runs f in the namespace and puts the thread back. A thread
// that could not be put back stays locked and dies with its goroutine.
func (h *Host) onThisThread(f func() error) error {
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("own namespace: %w", err)
	}
	defer home.Close()
	there, err := netns.GetFromName(h.NS)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", h.NS, err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return fmt.Errorf("enter namespace %s: %w", h.NS, err)
	}
	err = f()
	// The thread must not die: children are killed with the thread that
	// started them (Pdeathsig), and that may have been this one.
	if back := netns.Set(home); back != nil {
		return fmt.Errorf("leave namespace %s: %w", h.NS, back)
	}
	runtime.UnlockOSThread()
	return err
}

// Dial opens a connection from inside the namespace; address is an IP literal
// with a port. local may be empty, or an address with or without port 0.
func (h *Host) Dial(network, local, address string, limit time.Duration) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: limit}
	if local != "" {
		if d.LocalAddr, err = localAddr(network, local); err != nil {
			return nil, err
		}
	}
	err = h.Do(func() error {
		conn, err = d.Dial(network, address)
		return err
	})
	return conn, err
}

// localAddr resolves the source address of a dial.
func localAddr(network, local string) (net.Addr, error) {
	if _, _, err := net.SplitHostPort(local); err != nil {
		local = net.JoinHostPort(local, "0")
	}
	if strings.HasPrefix(network, "udp") {
		return net.ResolveUDPAddr(network, local)
	}
	return net.ResolveTCPAddr(network, local)
}

// Listen opens a TCP listener inside the namespace.
func (h *Host) Listen(address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// ListenUDP opens a UDP socket inside the namespace.
func (h *Host) ListenUDP(address string) (c *net.UDPConn, err error) {
	err = h.Do(func() error {
		a, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return err
		}
		c, err = net.ListenUDP("udp", a)
		return err
	})
	return c, err
}

// Sysctl writes a value below /proc/sys of the namespace; key with slashes.
func (h *Host) Sysctl(key, value string) error {
	return h.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
	})
}

// KillTCP aborts the established TCP connections of the namespace that match
// an ss filter, for example "dport = :5070": the far end sees a reset. It
// returns how many it found.
func (h *Host) KillTCP(filter string) (int, error) {
	args := append([]string{"-K", "-H", "-t", "-n", "state", "established"}, strings.Fields(filter)...)
	out, err := h.Run("ss", args...)
	if err != nil {
		return 0, err
	}
	return len(nonEmptyLines(out)), nil
}

// TCPConns counts the established TCP connections that match an ss filter.
func (h *Host) TCPConns(filter string) (int, error) {
	args := append([]string{"-H", "-t", "-n", "state", "established"}, strings.Fields(filter)...)
	out, err := h.Run("ss", args...)
	if err != nil {
		return 0, err
	}
	return len(nonEmptyLines(out)), nil
}

// nonEmptyLines splits text into its lines that hold something.
func nonEmptyLines(s string) []string {
	var lines []string
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// tail returns the last n bytes of s.
func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}

// killNamespace kills every process of a namespace and removes its name.
func killNamespace(ns string) error {
	killed := make(map[int]bool)
	// A process may fork while it is being looked at: look again until
	// nobody is left.
	eventually(5*time.Second, func() bool {
		out, err := run(exec.CommandContext, "ip", "netns", "pids", ns)
		if err != nil {
			return true
		}
		pids := nonEmptyLines(out)
		for _, p := range pids {
			if pid, err := strconv.Atoi(p); err == nil && !killed[pid] {
				killed[pid] = true
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return len(pids) == 0
	})
	_, err := run(exec.CommandContext, "ip", "netns", "del", ns)
	return err
}
