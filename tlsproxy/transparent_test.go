package tlsproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and IP_TRANSPARENT")
	}
}

// inNamespace runs f in a network namespace of its own; the thread is given up afterwards, so that nothing else ever runs there.
func inNamespace(t *testing.T, f func(here netns.NsHandle) error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		here, err := netns.New()
		if err != nil {
			done <- fmt.Errorf("new namespace: %w", err)
			return
		}
		defer here.Close()
		done <- f(here)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func sockopt(t *testing.T, conn syscall.Conn, level, opt int) int {
	t.Helper()
	rc, err := conn.SyscallConn()
	must(t, err)
	var v int
	must(t, rc.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, opt) }))
	must(t, err)
	return v
}

func checkOptions(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	c := conn.(*net.TCPConn)
	for _, o := range []struct {
		name             string
		level, opt, want int
	}{
		{"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20000},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
	} {
		if got := sockopt(t, c, o.level, o.opt); got != o.want {
			t.Errorf("%s: %s is %d, want %d", what, o.name, got, o.want)
		}
	}
}

// run is a set-up command in the calling thread's namespace.
func run(stdin string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func runAll(lines string) error {
	for line := range strings.Lines(lines) {
		if err := run("", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// A call agent (192.168.10.30) behind the box connects to a remote address that exists nowhere. The box intercepts it and dials on
// from the call agent's mapped address, which is not one of its own, back to a listener on the call agent's side.
func TestTransparentInterception(t *testing.T) {
	needRoot(t)
	var listener net.Listener
	var box netns.NsHandle
	inNamespace(t, func(here netns.NsHandle) (err error) {
		if box, err = netns.GetFromPath("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if err := runAll("ip link add tlsproxy-b type veth peer name tlsproxy-a\nip link set lo up\nip address add 192.168.10.1/24 dev tlsproxy-b\n" +
			"ip link set tlsproxy-b up\nsysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tlsproxy-b.rp_filter=0\n" +
			"ip rule add fwmark 0x1e lookup 30\nip route add local 0.0.0.0/0 dev lo table 30\n"); err != nil {
			return err
		}
		if err := run(`table ip imeproxy_intercept { chain divert { type filter hook prerouting priority mangle; policy accept;
			meta l4proto tcp socket transparent 1 meta mark set 0x1e accept
			iifname "tlsproxy-b" tcp dport 5000-6000 fib daddr type != local tproxy to 127.0.0.1:15060 meta mark set 0x1e accept
		}
		}`, "nft", "-f", "-"); err != nil {
			return err
		}
		listener, err = ListenTransparent(context.Background(), netip.MustParseAddrPort("127.0.0.1:15060"))
		return err
	})
	defer box.Close()
	defer listener.Close()

	inNamespace(t, func(here netns.NsHandle) error {
		if err := moveLink(box, here, "tlsproxy-a"); err != nil {
			return err
		}
		if err := runAll("ip link set lo up\nip address add 192.168.10.30/24 dev tlsproxy-a\nip link set tlsproxy-a up\nip route add default via 192.168.10.1\n"); err != nil {
			return err
		}
		agent, err := net.Listen("tcp", "192.168.10.30:5060")
		if err != nil {
			return err
		}
		defer agent.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := (&net.Dialer{}).DialContext(ctx, "tcp", "203.0.113.7:5070")
		if err != nil {
			return fmt.Errorf("the intercepted connection: %w", err)
		}
		defer out.Close()
		in, err := listener.Accept()
		if err != nil {
			return err
		}
		defer in.Close()
		if got := in.LocalAddr().String(); got != "203.0.113.7:5070" {
			t.Errorf("original destination %s", got)
		}
		if got := in.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String(); got != "192.168.10.30" {
			t.Errorf("source %s", got)
		}
		checkOptions(t, "accepted", in)

		// Towards the call agent, from the remote's own address.
		dialled := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			if err := netns.Set(box); err != nil {
				dialled <- err
				return
			}
			conn, err := DialTransparent(ctx, netip.AddrPortFrom(netip.MustParseAddr("203.0.113.7"), 0), netip.MustParseAddrPort("192.168.10.30:5060"), 0x1f)
			if err == nil {
				checkOptions(t, "dialled", conn)
				if got := sockopt(t, conn.(*net.TCPConn), unix.SOL_SOCKET, unix.SO_MARK); got != 0x1f {
					t.Errorf("mark %#x, want 0x1f", got)
				}
				err = ping(conn)
				conn.Close()
			}
			dialled <- err
		}()
		got, err := agent.Accept()
		if err != nil {
			return err
		}
		defer got.Close()
		if src := got.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String(); src != "203.0.113.7" {
			t.Errorf("the call agent sees %s, want the remote's address", src)
		}
		buf := make([]byte, 4)
		if _, err := got.Read(buf); err != nil {
			return err
		}
		if _, err := got.Write(buf); err != nil {
			return err
		}
		return <-dialled
	})
}

func moveLink(from, to netns.NsHandle, name string) error {
	h, err := netlink.NewHandleAt(from)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetNsFd(link, int(to))
}

// TestDialTransparentWithoutFreePorts: the kernel's range has two ports, both taken by connections to the same destination.
func TestDialTransparentWithoutFreePorts(t *testing.T) {
	needRoot(t)
	inNamespace(t, func(netns.NsHandle) error {
		if err := errors.Join(run("", "ip", "link", "set", "lo", "up"), run("", "ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo"),
			run("", "sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=40000 40001")); err != nil {
			return err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		to := l.Addr().(*net.TCPAddr).AddrPort()
		ports := map[uint16]bool{}
		for i := range 6 {
			conn, err := DialTransparent(context.Background(), netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), 0), to, 0)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			defer conn.Close()
			ports[conn.LocalAddr().(*net.TCPAddr).AddrPort().Port()] = true
		}
		if len(ports) != 6 {
			t.Errorf("%d source ports for 6 connections: %v", len(ports), ports)
		}
		// A port that is asked for, and then is not free any more.
		for i := range 2 {
			conn, err := DialTransparent(context.Background(), netip.MustParseAddrPort("198.51.100.1:777"), to, 0)
			if err != nil {
				return fmt.Errorf("connection with a port of our choice: %w", err)
			}
			defer conn.Close()
			if got := conn.LocalAddr().(*net.TCPAddr).Port; (got == 777) != (i == 0) {
				t.Errorf("connection %d comes from port %d", i, got)
			}
		}
		return nil
	})
}

func TestDialTransparentErrors(t *testing.T) {
	needRoot(t)
	inNamespace(t, func(netns.NsHandle) error {
		if err := run("", "ip", "link", "set", "lo", "up"); err != nil {
			return err
		}
		local := netip.MustParseAddrPort("127.0.0.1:0")
		_, err := DialTransparent(context.Background(), local, netip.MustParseAddrPort("127.0.0.1:9"), 0)
		if !errors.Is(err, unix.ECONNREFUSED) || !strings.Contains(err.Error(), "connect from 127.0.0.1 to 127.0.0.1:9") {
			t.Errorf("nobody listens: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := DialTransparent(ctx, local, netip.MustParseAddrPort("127.0.0.1:9"), 0); !errors.Is(err, context.Canceled) && !strings.Contains(fmt.Sprint(err), "canceled") {
			t.Errorf("context ended: %v", err)
		}
		l, err := ListenTransparent(context.Background(), netip.MustParseAddrPort("[::1]:0"))
		if err != nil {
			return fmt.Errorf("IPv6: %w", err)
		}
		defer l.Close()
		if _, err := ListenTransparent(context.Background(), l.Addr().(*net.TCPAddr).AddrPort()); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("listening twice: %v", err)
		}
		conn, err := DialTransparent(context.Background(), netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), 0), l.Addr().(*net.TCPAddr).AddrPort(), 0)
		if err == nil {
			conn.Close()
			t.Error("a connection from an address without a way back came about")
		} else if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("IPv6 from a foreign address: %v", err)
		}
		conn, err = DialTransparent(context.Background(), netip.AddrPortFrom(netip.MustParseAddr("::1"), 0), l.Addr().(*net.TCPAddr).AddrPort(), 0)
		if err != nil {
			return fmt.Errorf("IPv6: %w", err)
		}
		conn.Close()
		return nil
	})
}
