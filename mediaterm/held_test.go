package mediaterm

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forget has the list read anew at the next look.
func (h *heldPorts) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = time.Time{}
}

// What the kernel's list says is what a bind would: for a port on one address, on all, on all of IPv6, on an address that nobody has.
func TestHeldPorts(t *testing.T) {
	for _, by := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0", "[::ffff:127.0.0.1]:0", "127.0.0.2:0"} {
		at := netip.MustParseAddrPort(by)
		family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: at.Addr().As16()})
		if at.Addr().Is4() {
			family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: at.Addr().As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, sa)
		}
		if err != nil {
			t.Logf("%s cannot be tried here: %v", by, err)
			continue
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(0)
		switch x := name.(type) {
		case *unix.SockaddrInet4:
			port = uint16(x.Port)
		case *unix.SockaddrInet6:
			port = uint16(x.Port)
		}
		now := time.Now()
		var h heldPorts
		for _, addr := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
			a := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
			bound := bindable(a)
			if got := h.check(a, now); (got == nil) != (bound == nil) || got != nil && !errors.Is(got, unix.EADDRINUSE) {
				t.Errorf("held by %s: %s: %v; a bind says %v", by, a, got, bound)
			}
		}
		if !h.known {
			t.Fatal("the kernel's list cannot be read")
		}
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
		if err := h.check(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), now.Add(heldFor)); err != nil {
			t.Errorf("let go by %s: %v", by, err)
		}
	}
	var bind *BindError
	var h heldPorts
	if err := h.check(netip.MustParseAddrPort("192.0.2.77:20000"), time.Now()); !errors.As(err, &bind) || !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address that no interface has: %v", err)
	}
}

// The list counts for a moment only, and text that is none is not believed.
func TestHeldPortsAge(t *testing.T) {
	h := heldPorts{at: time.Now(), known: true, own: map[netip.Addr]bool{}, ports: map[uint16][]netip.Addr{20000: {netip.IPv4Unspecified()}}}
	at, now := netip.MustParseAddrPort("127.0.0.1:20000"), h.at
	if h.check(at, now.Add(heldFor-1)) == nil {
		t.Error("a list that is fresh does not count")
	}
	if err := h.check(at, now.Add(heldFor)); err != nil {
		t.Errorf("an old one does: %v", err)
	}
	for _, text := range []string{"head\n 1: 0100007F", "head\n 1: 0100007F:zz 0:0", "head\n x\n", "head\n 1: 01000:1F90 0:0"} {
		if parseHeld(map[uint16][]netip.Addr{}, []byte(text)) {
			t.Errorf("%q is believed", text)
		}
	}
	h.known = false
	if err := h.check(at, now); err != nil {
		t.Errorf("without a list the port is tried: %v", err)
	}
}

func BenchmarkHeldPorts(b *testing.B) {
	for _, way := range []string{"list", "bind"} {
		b.Run(way, func(b *testing.B) {
			var h heldPorts
			a := netip.MustParseAddrPort("127.0.0.1:20000")
			for n := range b.N {
				err := error(nil)
				if a = netip.AddrPortFrom(a.Addr(), uint16(20000+n%1000)); way == "list" {
					err = h.check(a, time.Now())
				} else {
					err = bindable(a)
				}
				if err != nil {
					b.Fatal(fmt.Errorf("%s: %w", a, err))
				}
			}
		})
	}
}
