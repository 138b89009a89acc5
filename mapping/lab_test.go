package mapping

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The lab: call agent and a phone on the inside, the box, a host of a DMZ, a remote host on the outside; one network namespace each. Namespaces
// have no name and end with the test.
const (
	linkIn, linkOut = "mapin", "mapout"
	linkDMZ         = "mapdmz" // level 50, in no translation
	boxDMZ          = "10.1.1.1"
	dmzHost         = "10.1.1.2"
	caReal          = "192.168.10.30"
	phoneReal       = "192.168.10.40"
	caMapped        = "209.165.200.227"
	patMapped       = "209.165.200.229"
	boxIn           = "192.168.10.1"
	boxOut          = "209.165.200.225"
	mediaIn         = "192.168.10.3"
	mediaOut        = "209.165.200.228"
	remoteAddr      = "209.165.200.230"
	outboundPort    = 15060
	inboundPort     = 15061
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func labSpec() Spec {
	return Spec{
		Interfaces: []Interface{
			{Link: linkIn, Name: "inside", Level: 100, Address: netip.MustParsePrefix(boxIn + "/24")},
			{Link: linkOut, Name: "outside", Level: 0, Address: netip.MustParsePrefix(boxOut + "/27")},
			{Link: linkDMZ, Name: "dmz", Level: 50, Address: netip.MustParsePrefix(boxDMZ + "/24")},
		},
		Routes:    []Route{{Link: linkOut, Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: addr(remoteAddr)}},
		Addresses: []Address{{linkIn, addr(mediaIn)}, {linkOut, addr(mediaOut)}, {linkOut, addr(caMapped)}},
		Intercepts: []Intercept{
			{Outbound: true, InLinks: []string{linkIn}, Src: hostPrefix(addr(caReal)), PortLo: 5000, PortHi: 6000, ListenPort: outboundPort},
			{InLinks: []string{linkOut}, Dst: hostPrefix(addr(caMapped)), PortLo: 5070, PortHi: 5070, ListenPort: inboundPort},
		},
		Statics: []StaticNAT{
			{RealLink: linkIn, MappedLink: linkOut, Real: addr(caReal), Mapped: addr(caMapped)},
			{RealLink: linkIn, MappedLink: linkOut, Real: addr(phoneReal), Mapped: addr(patMapped), RealPort: 80, MappedPort: 8080, Proto: "tcp"},
		},
		Dynamics: []DynamicNAT{{RealLink: linkIn, MappedLink: linkOut, Real: netip.MustParsePrefix("192.168.10.0/24"), Mapped: addr(patMapped)}},
		Groups: []AccessGroup{{Link: linkOut, Direction: "in", Rules: []Rule{
			{Permit: true, Proto: "tcp", Dst: hostPrefix(addr(caReal)), DstLo: 8000, DstHi: 8010},
			{Permit: true, Proto: "tcp", Dst: hostPrefix(addr(caReal)), DstLo: 5070, DstHi: 5070},
			{Permit: true, Proto: "tcp", Dst: hostPrefix(addr(phoneReal)), DstLo: 80, DstHi: 80},
		}}},
		Media: []MediaRange{{addr(mediaIn), 16384, 32767}, {addr(mediaOut), 16384, 32767}},
		Open:  []OpenPort{{Link: linkOut, Proto: "tcp", Port: 2222}},
	}
}

type lab struct {
	t                            *testing.T
	ca, phone, box, outside, dmz netns.NsHandle
	state                        string
	log                          *syncBuffer
}

// syncBuffer holds what the package logged.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newLab makes the namespaces and wires; the box's own end gets its addresses from the spec.
func newLab(t *testing.T) *lab {
	t.Helper()
	if cannot != "" {
		t.Skip(cannot)
	}
	t.Parallel() // namespaces are the test's own, and most of its time it waits for what must not come
	l := &lab{t: t, state: t.TempDir(), log: &syncBuffer{}}
	for _, ns := range []*netns.NsHandle{&l.ca, &l.phone, &l.box, &l.outside, &l.dmz} {
		*ns = newNamespace(t)
	}
	l.in(l.box, func() error {
		// Debian's defaults are off; a stricter system must come out the same.
		for _, name := range []string{"all", "default"} {
			if err := writeSysctl(sysctl{confName(name, "rp_filter"), "1"}); err != nil {
				return err
			}
		}
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: linkIn}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		for _, end := range []struct {
			box, peer string
			ns        netns.NsHandle
		}{{"p-ca", "eth0", l.ca}, {"p-phone", "eth0", l.phone}, {linkOut, "eth0", l.outside}, {linkDMZ, "eth0", l.dmz}} {
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: end.box}, PeerName: end.peer, PeerNamespace: netlink.NsFd(end.ns)}
			if err := netlink.LinkAdd(veth); err != nil {
				return fmt.Errorf("veth %s: %w", end.box, err)
			}
			if strings.HasPrefix(end.box, "p-") {
				if err := netlink.LinkSetMaster(veth, br); err != nil {
					return err
				}
				if err := netlink.LinkSetUp(veth); err != nil {
					return err
				}
			}
		}
		return nil
	})
	l.host(l.ca, caReal+"/24", boxIn)
	l.host(l.phone, phoneReal+"/24", boxIn)
	l.host(l.outside, remoteAddr+"/27", boxOut)
	l.host(l.dmz, dmzHost+"/24", boxDMZ)
	return l
}

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	var h netns.NsHandle
	var err error
	onOwnThread(func() {
		if h, err = netns.New(); err != nil {
			return
		}
		var lo netlink.Link
		if lo, err = netlink.LinkByName("lo"); err == nil {
			err = netlink.LinkSetUp(lo)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func (l *lab) host(ns netns.NsHandle, prefix, gateway string) {
	l.t.Helper()
	l.run(ns, "ip", "addr", "add", prefix, "dev", "eth0")
	l.run(ns, "ip", "link", "set", "eth0", "up")
	l.run(ns, "ip", "route", "add", "default", "via", gateway)
}

// onOwnThread runs f on a thread that ends with it.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends, and no other goroutine gets its namespace
		f()
	}()
	<-done
}

// try runs f in the namespace.
func try(ns netns.NsHandle, f func() error) (err error) {
	onOwnThread(func() {
		if err = netns.Set(ns); err == nil {
			err = f()
		}
	})
	return err
}

func (l *lab) in(ns netns.NsHandle, f func() error) {
	l.t.Helper()
	if err := try(ns, f); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) run(ns netns.NsHandle, name string, args ...string) string {
	l.t.Helper()
	var out []byte
	err := try(ns, func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *lab) apply(spec Spec) *Kernel {
	l.t.Helper()
	var k *Kernel
	l.in(l.box, func() (err error) {
		k, err = Apply(spec, l.state, slog.New(slog.NewTextHandler(l.log, nil)))
		return err
	})
	l.t.Cleanup(func() { _ = try(l.box, k.Remove) })
	l.warm(l.ca)
	l.warm(l.phone)
	return k
}

// warm waits until the box's bridge carries packets of the host: a port that nobody serves refuses.
func (l *lab) warm(ns netns.NsHandle) {
	l.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err := open(ns, "", boxIn+":1"); errors.Is(err, unix.ECONNREFUSED) {
			return
		}
	}
	l.t.Fatal("the lab's inside network does not come up")
}

// snapshot is all that the package may change in the box, as text.
func (l *lab) snapshot() string {
	l.t.Helper()
	var b strings.Builder
	for _, c := range [][]string{
		{"nft", "list", "ruleset"},
		{"ip", "-4", "-o", "addr", "show"},
		{"ip", "rule", "show"},
		{"ip", "-4", "route", "show", "table", "all"},
		{"sh", "-c", `ip -o link show | sed -n 's/^[0-9]*: \([^:@]*\)[^<]*<\([^>]*\)>.*/\1 \2/p' | sed 's/,LOWER_UP//; s/NO-CARRIER,//'`},
		{"sh", "-c", "cd /proc/sys/net/ipv4 && grep . ip_forward tcp_fwmark_accept fwmark_reflect conf/*/forwarding conf/*/rp_filter"},
	} {
		fmt.Fprintf(&b, "# %s\n%s", strings.Join(c, " "), l.run(l.box, c[0], c[1:]...))
	}
	return b.String()
}

func transparent(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}

// serve listens in the namespace and answers each connection with "LOCAL REMOTE\n" as the server sees them.
func (l *lab) serve(ns netns.NsHandle, address string) net.Listener {
	l.t.Helper()
	var ln net.Listener
	l.in(ns, func() (err error) {
		lc := net.ListenConfig{}
		if strings.HasPrefix(address, "127.") {
			lc.Control = transparent
		}
		ln, err = lc.Listen(context.Background(), "tcp4", address)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%v %v\n", c.LocalAddr(), c.RemoteAddr())
			_ = c.Close()
		}
	}()
	l.t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln
}

// dialTimeout is how long a connection that must not come about is waited for: one SYN and its first retransmission.
const dialTimeout = 1400 * time.Millisecond

// open dials from the namespace; local may be empty or an address (with port 0) to bind to transparently.
func open(ns netns.NsHandle, local, remote string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if local != "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))
		d.Control = transparent
	}
	var c net.Conn
	err := try(ns, func() (err error) {
		c, err = d.Dial("tcp4", remote)
		return err
	})
	return c, err
}

// ask dials and returns what the server saw as its own address and as the client's.
func ask(ns netns.NsHandle, local, remote string) (server, client netip.AddrPort, err error) {
	c, err := open(ns, local, remote)
	if err != nil {
		return server, client, err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	var a, b string
	if _, err := fmt.Fscan(c, &a, &b); err != nil {
		return server, client, err
	}
	return netip.MustParseAddrPort(a), netip.MustParseAddrPort(b), nil
}

// reach asserts that the connection comes about and what the server saw; clientAddr is without port.
func (l *lab) reach(what string, ns netns.NsHandle, local, remote, server, clientAddr string) {
	l.t.Helper()
	s, c, err := ask(ns, local, remote)
	if err != nil {
		l.t.Errorf("%s: %v", what, err)
		return
	}
	if s.String() != server || c.Addr().String() != clientAddr {
		l.t.Errorf("%s: the server sees itself as %v and the client as %v, want %s and %s", what, s, c, server, clientAddr)
	}
}

// unreachable asserts that nothing answers from the namespace; the connections are tried side by side.
func (l *lab) unreachable(ns netns.NsHandle, targets map[string]string) {
	l.t.Helper()
	var wg sync.WaitGroup
	for what, remote := range targets {
		wg.Go(func() {
			if s, c, err := ask(ns, "", remote); err == nil {
				l.t.Errorf("%s: connected as %v to %v, must not", what, c, s)
			}
		})
	}
	wg.Wait()
}

// update gives the kernel a changed lab spec.
func (l *lab) update(k *Kernel, spec Spec) {
	l.t.Helper()
	l.in(l.box, func() error { return k.Update(spec) })
}

// packetConn opens a UDP socket in the namespace.
func (l *lab) packetConn(ns netns.NsHandle, local string) *net.UDPConn {
	l.t.Helper()
	var c *net.UDPConn
	l.in(ns, func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local)))
		return err
	})
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// sends tells whether a datagram from one socket reaches the other by the given address, and from where it seems to come.
func sends(t *testing.T, from, at *net.UDPConn, to string) (netip.AddrPort, bool) {
	t.Helper()
	text := fmt.Sprintf("to %s at %d", to, time.Now().UnixNano())
	if _, err := from.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		return netip.AddrPort{}, false
	}
	buf := make([]byte, 200)
	_ = at.SetReadDeadline(time.Now().Add(600 * time.Millisecond))
	for {
		n, src, err := at.ReadFromUDPAddrPort(buf)
		if err != nil {
			return netip.AddrPort{}, false
		}
		if string(buf[:n]) == text {
			return src, true
		}
	}
}
