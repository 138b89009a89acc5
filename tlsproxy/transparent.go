package tlsproxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout ends a connection whose data nobody acknowledges: SIP's own timers run for 32 s, a dead path must be known before them.
const userTimeout = 20 * time.Second

// keepAlive finds a silent peer's death within about half a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// bindRetries bounds the search for a free port of our own choice when the kernel finds none.
const bindRetries = 8

// ListenTransparent listens with IP_TRANSPARENT on an address that the interception rules lead to; LocalAddr of an accepted connection
// is then its original destination. ctx bounds the set-up alone; Close ends the listener. Needs CAP_NET_ADMIN; the error says so. Accepted connections have TCP_NODELAY, keepalive and TCP_USER_TIMEOUT 20 s.
func ListenTransparent(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: keepAlive,
		Control: func(_, _ string, rc syscall.RawConn) error {
			return control(rc, func(fd int) error {
				// The kernel copies both options into accepted sockets.
				return errors.Join(setTransparent(fd, addr.Addr()), setUserTimeout(fd))
			})
		},
	}
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("transparent listener on %s: %w", addr, hint(err))
	}
	return l, nil
}

// DialTransparent connects to remote with local as the source address, which need not be an address of this machine; an invalid local leaves the choice to the kernel.
// The port of local is taken if it is free towards remote; 0, or where it is not free: the kernel chooses one when it knows the destination, so that one source address has 64 k ports for each.
// mark is the firewall mark of the packets, 0 = none. The connection is over ctx's end if that comes first. Needs CAP_NET_ADMIN for a foreign address or a mark.
func DialTransparent(ctx context.Context, local, remote netip.AddrPort, mark uint32) (net.Conn, error) {
	ports := make([]uint16, 0, bindRetries+2)
	if local.Port() != 0 {
		ports = append(ports, local.Port())
	}
	ports = append(ports, 0)
	for range bindRetries {
		// The kernel's port range is used up towards this destination, or a resting connection holds the port that it tried: go outside its range.
		ports = append(ports, uint16(20000+rand.IntN(12000)))
	}
	var err error
	for _, port := range ports {
		var conn net.Conn
		if conn, err = dialOnce(ctx, local.Addr(), port, remote, mark); err == nil {
			return conn, nil
		}
		if !local.IsValid() || ctx.Err() != nil || !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("connect from %s to %s: %w", local.Addr(), remote, hint(err))
}

func dialOnce(ctx context.Context, local netip.Addr, port uint16, remote netip.AddrPort, mark uint32) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: keepAlive,
		ControlContext: func(_ context.Context, _, _ string, rc syscall.RawConn) error {
			return control(rc, func(fd int) error { return prepareDial(fd, local, port, mark) })
		},
	}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, port))
	}
	return d.DialContext(ctx, "tcp", remote.String())
}

func prepareDial(fd int, local netip.Addr, port uint16, mark uint32) error {
	err := errors.Join(setUserTimeout(fd), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if local.IsValid() {
		err = errors.Join(err, setTransparent(fd, local))
		if port == 0 {
			err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
		}
	}
	if mark != 0 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)))
	}
	return err
}

func control(rc syscall.RawConn, set func(fd int) error) error {
	var err error
	if cerr := rc.Control(func(fd uintptr) { err = set(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func setTransparent(fd int, addr netip.Addr) error {
	if addr.Unmap().Is4() {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
}

func setUserTimeout(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
}

// hint adds what an operator can do about the errors that are about this machine.
func hint(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (CAP_NET_ADMIN is needed)", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w (no free port from this address to that destination, or the address cannot be used here)", err)
	}
	return err
}
