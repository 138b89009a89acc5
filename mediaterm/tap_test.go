package mediaterm

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// frameWith is an Ethernet frame with a datagram; mod changes it before its IP checksum is made again.
func frameWith(dst net.HardwareAddr, from, to netip.AddrPort, payload []byte, mod func(ip []byte)) []byte {
	f := make([]byte, headroom, headroom+len(payload))
	copy(f, dst)
	copy(f[6:], []byte{2, 0, 0, 0, 0, 9})
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	f = append(f, payload...)
	putHeaders(f, from, to, 0, 7)
	if mod != nil {
		mod(f[etherLen:])
		putIPChecksum(f[etherLen:])
	}
	return f
}

// vethPair makes two links of which what is written to the second arrives on the first.
func vethPair(t *testing.T, a, b string) (*net.Interface, int) {
	t.Helper()
	for _, args := range [][]string{
		{"link", "add", a, "type", "veth", "peer", "name", b}, {"link", "set", a, "up"}, {"link", "set", b, "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", a).Run() })
	link, err := net.InterfaceByName(a)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.InterfaceByName(b)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0, Ifindex: peer.Index}); err != nil {
		t.Fatal(err)
	}
	return link, fd
}

// await waits for a packet of the tap.
func (t *tap) await(tb testing.TB) tapped {
	tb.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		if p, ok := t.read(); ok {
			return p
		}
		if time.Now().After(deadline) {
			tb.Fatal("no packet came")
		}
	}
}

func inOwnNamespace(t *testing.T) {
	t.Helper()
	if testEngine == nil {
		t.Skip("needs a network namespace of its own: TestEngineTProxy runs it in one")
	}
}

// What is a worker's own comes by the tap, and nothing else does: after each frame that must not come there is one that must.
func TestTapFilter(t *testing.T) {
	inOwnNamespace(t)
	link, wire := vethPair(t, "tapa", "tapb")
	addr, other := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	at := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	source := netip.MustParseAddrPort("203.0.113.9:4000")
	refused := []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("172.16.5.5/32")}
	ranges := []PortRange{{addr, 20000, 20999}, {netip.MustParseAddr("10.9.0.3"), 30000, 30003}}
	filter, err := tapFilter(1, 2, ranges, refused)
	if err != nil {
		t.Fatal(err)
	}
	tap, err := openTap(link, tapLeast, filter)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.close()
	mine := at(addr, 20002)
	plain := func(from, to netip.AddrPort) []byte {
		return frameWith(link.HardwareAddr, from, to, []byte("payload"), nil)
	}
	with := func(mod func(ip []byte)) []byte {
		return frameWith(link.HardwareAddr, source, mine, []byte("payload"), mod)
	}
	tagged := plain(source, mine)
	tagged = append(append(bytes.Clone(tagged[:12]), 0x81, 0, 0, 5), tagged[12:]...)
	for _, c := range []struct {
		name  string
		frame []byte
		comes bool
	}{
		{"first port", plain(source, at(addr, 20002)), true},
		{"its pair", plain(source, at(addr, 20003)), true},
		{"last port", plain(source, at(addr, 20999)), true},
		{"another range", plain(source, at(ranges[1].Addr, 30000)), false}, // pair 15000 is even: worker 0
		{"another range, our pair", plain(source, at(ranges[1].Addr, 30002)), true},
		{"the other worker's port", plain(source, at(addr, 20000)), false},
		{"below", plain(source, at(addr, 19999)), false},
		{"above", plain(source, at(addr, 21002)), false},
		{"another address", plain(source, at(other, 20002)), false},
		{"forged source", plain(netip.MustParseAddrPort("192.168.77.1:4000"), mine), false},
		{"forged host", plain(netip.MustParseAddrPort("172.16.5.5:4000"), mine), false},
		{"neighbour of the forged host", plain(netip.MustParseAddrPort("172.16.5.4:4000"), mine), true},
		{"TCP", with(func(ip []byte) { ip[9] = unix.IPPROTO_TCP }), false},
		{"first fragment", with(func(ip []byte) { ip[6] = 0x20 }), false},
		{"later fragment", with(func(ip []byte) { ip[7] = 8 }), false},
		{"must not be fragmented", with(func(ip []byte) { ip[6] = 0x40 }), true},
		{"tagged for a VLAN", tagged, false},
		{"to all", frameWith(net.HardwareAddr{255, 255, 255, 255, 255, 255}, source, mine, []byte("payload"), nil), false},
		{"to another host", frameWith(net.HardwareAddr{2, 0, 0, 0, 0, 77}, source, mine, []byte("payload"), nil), false},
		{"ARP", append(append(bytes.Clone(link.HardwareAddr), 2, 0, 0, 0, 0, 9, 8, 6), make([]byte, 46)...), false},
	} {
		mark := frameWith(link.HardwareAddr, source, mine, []byte("after "+c.name), nil)
		for _, f := range [][]byte{c.frame, mark} {
			if _, err := unix.Write(wire, f); err != nil {
				t.Fatal(err)
			}
		}
		p := tap.await(t)
		_, to, got, ok := tappedDatagram(p.ip, p.checked)
		if came := ok && string(got) == "payload"; came != c.comes {
			t.Errorf("%s: came is %v (%q, to %s)", c.name, came, got, to)
		}
		if at := time.Unix(0, p.at); ok && !at.Before(time.Now()) || time.Since(at) > time.Minute {
			t.Errorf("%s: came at %s", c.name, at)
		}
		p.release()
		if c.comes {
			p = tap.await(t)
			if _, _, got, _ := tappedDatagram(p.ip, p.checked); string(got) != "after "+c.name {
				t.Errorf("%s came twice: %q", c.name, got)
			}
			p.release()
		}
	}
}

// A full ring drops the newest packets, counts them, and goes on when there is room.
func TestTapOverflow(t *testing.T) {
	inOwnNamespace(t)
	link, wire := vethPair(t, "tapa", "tapb")
	to := netip.MustParseAddrPort("10.9.0.1:20000")
	filter, err := tapFilter(0, 1, []PortRange{{to.Addr(), 20000, 20999}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tap, err := openTap(link, 1, filter) // one block
	if err != nil {
		t.Fatal(err)
	}
	defer tap.close()
	const more = 10
	write := func(n int) {
		f := frameWith(link.HardwareAddr, netip.MustParseAddrPort("203.0.113.9:4000"), to, binary.BigEndian.AppendUint32(nil, uint32(n)), nil)
		if _, err := unix.Write(wire, f); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		for n := range tap.count + more {
			write(1000*round + n)
		}
		for deadline := time.Now().Add(patience); tap.dropped() != uint64(more*(round+1)); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: %d dropped", round, tap.drops.Load())
			}
		}
		for n := range tap.count {
			p := tap.await(t)
			if _, _, got, _ := tappedDatagram(p.ip, p.checked); int(binary.BigEndian.Uint32(got)) != 1000*round+n {
				t.Fatalf("round %d, packet %d: %d", round, n, binary.BigEndian.Uint32(got))
			}
			p.release()
		}
		if _, ok := tap.read(); ok {
			t.Fatal("more came than there is room for")
		}
	}
}

func TestTapSettings(t *testing.T) {
	inOwnNamespace(t)
	vethPair(t, "tapa", "tapb")
	ranges := []PortRange{{netip.MustParseAddr("10.9.0.1"), 20000, 20999}}
	t.Cleanup(func() { _, _ = testEngine.Tap(nil) })
	if links, err := testEngine.Tap([]Tap{{Link: "tapa", Ranges: ranges}, {Link: "tapb", Ranges: ranges}}); err != nil || len(links) != 2 || testEngine.Counters().Taps != 2 {
		t.Errorf("two links: %v, %v, %+v", links, err, testEngine.Counters())
	}
	if links, err := testEngine.Tap([]Tap{{Link: "tapa", Ranges: ranges}, {Link: "lo", Ranges: ranges}}); err != nil || len(links) != 1 || testEngine.Counters().Taps != 1 {
		t.Errorf("the loopback interface is no Ethernet: %v, %v, %+v", links, err, testEngine.Counters())
	}
	if _, err := testEngine.Tap([]Tap{{Link: "tapa", Ranges: ranges}, {Link: "nosuch", Ranges: ranges}}); err == nil || testEngine.Counters().Taps != 0 {
		t.Errorf("a link that is not there: %v, %+v", err, testEngine.Counters())
	}
}

// A link that is removed and made anew is tapped again by itself.
func TestTapOfNewLink(t *testing.T) {
	inOwnNamespace(t)
	vethPair(t, "tapa", "tapb")
	t.Cleanup(func() { _, _ = testEngine.Tap(nil) })
	if _, err := testEngine.Tap([]Tap{{Link: "tapa", Ranges: []PortRange{{netip.MustParseAddr("10.9.0.1"), 20000, 20999}}}}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "del", "tapa").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	link, _ := vethPair(t, "tapa", "tapb")
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		if taps := testEngine.workers[0].openTaps(); len(taps) == 1 && taps[0].index == link.Index {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the new link is not tapped")
		}
	}
}

func FuzzTappedDatagram(f *testing.F) {
	good := frameWith(nil, netip.MustParseAddrPort("203.0.113.9:4000"), netip.MustParseAddrPort("10.9.0.1:20000"), []byte("payload"), nil)[etherLen:]
	f.Add(good, false)
	f.Add(good[:27], true)
	f.Add(append(bytes.Clone(good), 0, 0, 0), false) // padded by the link
	f.Fuzz(func(t *testing.T, ip []byte, checked bool) {
		_, dst, payload, ok := tappedDatagram(ip, checked)
		if !ok {
			return
		}
		if len(payload)+ipLen+udpLen > len(ip) || dst.Port() != binary.BigEndian.Uint16(ip[int(ip[0]&15)*4+2:]) {
			t.Errorf("%x gives %d bytes to %s", ip, len(payload), dst)
		}
	})
}

func TestTappedDatagramRefusesWhatIsBroken(t *testing.T) {
	from, to := netip.MustParseAddrPort("203.0.113.9:4000"), netip.MustParseAddrPort("10.9.0.1:20000")
	good := func() []byte { return frameWith(nil, from, to, []byte("payload"), nil)[etherLen:] }
	if src, dst, payload, ok := tappedDatagram(append(good(), 0, 0), false); !ok || src != from || dst != to || string(payload) != "payload" {
		t.Errorf("padded: %s %s %q %v", src, dst, payload, ok)
	}
	for name, mod := range map[string]func(ip []byte) []byte{
		"payload":      func(ip []byte) []byte { ip[30] ^= 1; return ip },
		"address":      func(ip []byte) []byte { ip[12] ^= 1; putIPChecksum(ip); return ip },
		"IP header":    func(ip []byte) []byte { ip[8] ^= 1; return ip },
		"cut":          func(ip []byte) []byte { return ip[:len(ip)-1] },
		"UDP length":   func(ip []byte) []byte { ip[25] = 200; return ip },
		"short length": func(ip []byte) []byte { ip[25] = 7; return ip },
		"version":      func(ip []byte) []byte { ip[0] = 0x65; putIPChecksum(ip); return ip },
		"header":       func(ip []byte) []byte { ip[0] = 0x44; putIPChecksum(ip); return ip },
		"options":      func(ip []byte) []byte { ip[0] = 0x4f; return ip },
	} {
		if _, _, payload, ok := tappedDatagram(mod(good()), false); ok {
			t.Errorf("%s: %q passes", name, payload)
		}
	}
	none := good()
	none[26], none[27] = 0, 0 // no checksum, RFC 768
	if _, _, _, ok := tappedDatagram(none, false); !ok {
		t.Error("a datagram without checksum is refused")
	}
	bad := good()
	bad[30] ^= 1
	if _, _, _, ok := tappedDatagram(bad, true); !ok {
		t.Error("a checksum that is not made yet is refused") // by a virtual network card, for the next hardware
	}
}

// A VLAN's packets are read from its own interface, not from the one below.
func TestTapOfVLAN(t *testing.T) {
	inOwnNamespace(t)
	link, wire := vethPair(t, "tapa", "tapb")
	if out, err := exec.Command("ip", "link", "add", "link", "tapa", "name", "tapa.5", "type", "vlan", "id", "5").CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("Unknown device type")) {
			t.Skip("this kernel has no VLAN interfaces (8021q)")
		}
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("ip", "link", "set", "tapa.5", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	vlan, err := net.InterfaceByName("tapa.5")
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("10.9.0.1:20000")
	filter, err := tapFilter(0, 1, []PortRange{{to.Addr(), 20000, 20999}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var taps [2]*tap
	for i, l := range []*net.Interface{link, vlan} {
		if taps[i], err = openTap(l, tapLeast, filter); err != nil {
			t.Fatal(err)
		}
		defer taps[i].close()
	}
	for _, payload := range []string{"untagged", "tagged"} {
		f := frameWith(link.HardwareAddr, netip.MustParseAddrPort("203.0.113.9:4000"), to, []byte(payload), nil)
		if payload == "tagged" {
			f = append(append(bytes.Clone(f[:12]), 0x81, 0, 0, 5), f[12:]...)
		}
		if _, err := unix.Write(wire, f); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"untagged", "tagged"} {
		p := taps[i].await(t)
		if _, _, got, ok := tappedDatagram(p.ip, p.checked); !ok || string(got) != want {
			t.Errorf("tap %d: %q, want %q", i, got, want)
		}
		p.release()
		if _, ok := taps[i].read(); ok {
			t.Errorf("tap %d has more", i)
		}
	}
}

// What has waited for longer than overload may delay is dropped and counted while more than half of the ring waits behind it, and what came after it goes on at
// once. A ring with less than that has had a worker without a core, and all of it goes on.
func TestWhatWaitedTooLongIsDropped(t *testing.T) {
	const half, old = tapFrames / 2, 5
	for waiting, want := range map[int]struct{ relayed, dropped int }{
		half:           {half, 0},
		half + 3:       {half + 1, 2},          // behind the third no more than half of the ring waits
		tapFrames:      {tapFrames - old, old}, // the others are young enough
		half + old + 1: {half + 1, old},
	} {
		ring := &tap{ring: make([]byte, tapBlock), count: tapFrames, fd: -1}
		w := &worker{taps: []*tap{ring}, now: time.Now(), in: -1}
		for i := range waiting {
			came := w.now.Add(-longestInTap + time.Millisecond)
			if i < old {
				came = w.now.Add(-longestInTap - time.Millisecond)
			}
			frame := ring.frame(i)
			const at = 128
			ip := frameWith(make(net.HardwareAddr, 6), netip.MustParseAddrPort("203.0.113.9:4000"), netip.MustParseAddrPort("10.9.0.1:20000"), []byte{byte(i)}, nil)[etherLen:]
			copy(frame[at:], ip)
			h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&frame[0]))
			h.Net, h.Snaplen, h.Sec, h.Nsec = at, uint32(len(ip)), uint32(came.Unix()), uint32(came.Nanosecond())
			h.Status = unix.TP_STATUS_USER
		}
		n := w.fromTaps(0)
		if n != want.relayed || w.count.KernelDrops != uint64(want.dropped) || w.count.Malformed != 0 {
			t.Fatalf("%d wait: %d packets, %+v", waiting, n, w.count)
		}
		for i := range n {
			if got := int(w.slots[i].pkt[0]); got != want.dropped+i {
				t.Errorf("%d wait: the packet in place %d is %d", waiting, i, got)
			}
		}
		for i := range want.dropped {
			if got := (*unix.Tpacket2Hdr)(unsafe.Pointer(&ring.frame(i)[0])).Status; got != unix.TP_STATUS_KERNEL {
				t.Errorf("%d wait: frame %d is not the kernel's again", waiting, i)
			}
		}
	}
}
