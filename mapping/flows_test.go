package mapping

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestFlows(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	l.serve(l.box, "127.0.0.1:15060")
	l.serve(l.box, "127.0.0.1:15061")
	for _, p := range []string{"5061", "80", "443"} {
		l.serve(l.outside, remoteAddr+":"+p)
	}
	for _, p := range []string{"5070", "8000", "22"} {
		l.serve(l.ca, caReal+":"+p)
	}
	l.serve(l.phone, phoneReal+":80")
	l.serve(l.box, "0.0.0.0:2222")
	l.serve(l.box, "0.0.0.0:3333")

	l.reach("outbound SIP is intercepted", l.ca, "", remoteAddr+":5061", remoteAddr+":5061", caReal)
	l.reach("inbound SIP is intercepted", l.outside, "", caMapped+":5070", caMapped+":5070", remoteAddr)
	l.reach("the proxy reaches the remote as the mapped address", l.box, caMapped+":0", remoteAddr+":5061", remoteAddr+":5061", caMapped)
	l.reach("the proxy reaches the call agent as the remote", l.box, remoteAddr+":0", caReal+":5070", caReal+":5070", remoteAddr)
	l.reach("the call agent's other traffic is translated", l.ca, "", remoteAddr+":80", remoteAddr+":80", caMapped)
	l.reach("the mapped address leads to the call agent", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
	l.reach("port forward", l.outside, "", patMapped+":8080", phoneReal+":80", remoteAddr)
	l.reach("dynamic PAT", l.phone, "", remoteAddr+":443", remoteAddr+":443", patMapped)
	l.reach("a phone's connection in the class's ports is not of the class", l.phone, "", remoteAddr+":5061", remoteAddr+":5061", patMapped)
	l.reach("call agent to a port of the box within the class", l.ca, "", boxIn+":3333", boxIn+":3333", caReal)
	l.reach("open port of the box from outside", l.outside, "", boxOut+":2222", boxOut+":2222", remoteAddr)

	l.unreachable(l.outside, map[string]string{
		"port of the mapped address that no rule permits": caMapped + ":22",
		"real address, permitted port":                    caReal + ":8000",
		"real address, SIP":                               caReal + ":5070",
		"phone's real address":                            phoneReal + ":80",
		"box from outside, port not open":                 boxOut + ":3333",
		"box's inside address from outside":               boxIn + ":3333",
		"listener itself from outside":                    boxOut + ":15061",
	})
}

// A dead daemon: the classes drop, the rest goes on.
func TestNoListener(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	l.serve(l.outside, remoteAddr+":5061")
	l.serve(l.outside, remoteAddr+":80")
	l.serve(l.ca, caReal+":5070")
	l.serve(l.ca, caReal+":8000")
	l.unreachable(l.ca, map[string]string{"outbound SIP": remoteAddr + ":5061"})
	l.unreachable(l.outside, map[string]string{"inbound SIP, although the access list permits it": caMapped + ":5070"})
	l.reach("call agent outwards", l.ca, "", remoteAddr+":80", remoteAddr+":80", caMapped)
	l.reach("inwards", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
}

// Answers within a forwarded connection are no new sessions, even when a port falls into a class.
func TestAnswersAreNotIntercepted(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	l.serve(l.box, "127.0.0.1:15060")
	l.serve(l.box, "127.0.0.1:15061")
	l.serve(l.outside, remoteAddr+":80")
	l.serve(l.ca, caReal+":8000")
	l.reach("source port of the inbound class", l.ca, caReal+":5070", remoteAddr+":80", remoteAddr+":80", caMapped)
	l.reach("source port of the outbound class", l.outside, remoteAddr+":5500", caMapped+":8000", caReal+":8000", remoteAddr)
}

func TestMediaPorts(t *testing.T) {
	l := newLab(t)
	k := l.apply(labSpec())
	remote := l.packetConn(l.outside, remoteAddr+":40000")
	out, in := l.packetConn(l.box, mediaOut+":16384"), l.packetConn(l.box, mediaIn+":16384")
	other := l.packetConn(l.box, mediaOut+":16383")
	phone := l.packetConn(l.phone, phoneReal+":4000")
	for _, c := range []struct {
		what     string
		from, at *net.UDPConn
		to       string
		want     bool
	}{
		{"remote to the outside media address", remote, out, mediaOut + ":16384", true},
		{"media address to the remote", out, remote, remoteAddr + ":40000", true},
		{"phone to the inside media address", phone, in, mediaIn + ":16384", true},
		{"media address to the phone", in, phone, phoneReal + ":4000", true},
		{"port below the range", remote, other, mediaOut + ":16383", false},
		{"inside media address from outside", remote, in, mediaIn + ":16384", false},
	} {
		if _, got := sends(t, c.from, c.at, c.to); got != c.want {
			t.Errorf("%s: arrived %v, want %v", c.what, got, c.want)
		}
	}
	// An outside host that writes the phone's address as its source.
	l.run(l.outside, "ip", "addr", "add", phoneReal+"/32", "dev", "lo")
	twin := l.packetConn(l.outside, phoneReal+":4000")
	if _, got := sends(t, twin, out, mediaOut+":16384"); got {
		t.Error("a packet from outside with an inside source reached a media port")
	}
	if flows := l.run(l.box, "conntrack", "-L", "-p", "udp"); strings.Contains(flows, "port=16384") {
		t.Errorf("media is tracked:\n%s", flows)
	}
	spec := labSpec()
	spec.Media = nil
	l.update(k, spec)
	if _, got := sends(t, remote, out, mediaOut+":16384"); got {
		t.Error("media port stays open after it left the configuration")
	}
}

// The errors of a forwarded flow come back through the translation.
func TestICMPErrorsPass(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	var c net.Conn
	l.in(l.ca, func() (err error) {
		c, err = net.Dial("udp4", remoteAddr+":9")
		return err
	})
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("read: %v, want connection refused", err)
	}
}

func TestPingOfTheBox(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	l.run(l.outside, "ping", "-c", "1", "-W", "2", boxOut)
	// 200 at once from a lower level exceed the limit; an inside host has none.
	count := func(ns netns.NsHandle, to string) string {
		var out []byte
		_ = try(ns, func() (err error) {
			out, err = exec.Command("ping", "-q", "-f", "-c", "200", "-w", "2", to).Output()
			return err
		})
		return string(out)
	}
	if out := count(l.outside, boxOut); strings.Contains(out, " 0% packet loss") || strings.Contains(out, "100% packet loss") {
		t.Errorf("outside is not limited: %s", out)
	}
	if out := count(l.ca, boxIn); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("inside is limited: %s", out)
	}
}

// The appliance has link-local IPv6 addresses although its configuration knows no IPv6.
func TestIPv6FromOutside(t *testing.T) {
	l := newLab(t)
	if !hasIPv6() {
		t.Skip("the kernel has no IPv6")
	}
	l.apply(labSpec())
	l.run(l.box, "ip", "-6", "addr", "add", "fd00:1::1/64", "dev", linkOut, "nodad")
	l.run(l.outside, "ip", "-6", "addr", "add", "fd00:1::2/64", "dev", "eth0", "nodad")
	l.in(l.box, func() error {
		ln, err := net.Listen("tcp6", "[::]:2222")
		if err == nil {
			t.Cleanup(func() { _ = ln.Close() })
		}
		return err
	})
	err := try(l.outside, func() error {
		c, err := net.DialTimeout("tcp6", "[fd00:1::1]:2222", dialTimeout)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	if err == nil {
		t.Error("a port of the box is open over IPv6")
	}
	l.run(l.outside, "ping", "-6", "-c", "1", "-W", "2", "fd00:1::1")
}

// A connection of the proxy that is gone: what the call agent still sends stays here.
func TestLatePacketsStay(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	l.serve(l.ca, caReal+":5070")
	c, err := open(l.box, remoteAddr+":0", caReal+":5070")
	if err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*net.TCPAddr).Port
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()

	var wire, raw int
	l.in(l.outside, func() (err error) {
		wire, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(htons(unix.ETH_P_IP)))
		return err
	})
	defer unix.Close(wire)
	l.in(l.ca, func() (err error) {
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
		return err
	})
	defer unix.Close(raw)
	if err := unix.Sendto(raw, lateSegment(5070, uint16(port)), 0, &unix.SockaddrInet4{Addr: addr(remoteAddr).As4()}); err != nil {
		t.Fatal(err)
	}
	// The datagram follows the segment on the same way; it is translated and arrives.
	marker := l.packetConn(l.ca, caReal+":7777")
	if _, err := marker.WriteToUDPAddrPort([]byte("marker"), netip.MustParseAddrPort(remoteAddr+":9")); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(wire, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3})
	buf := make([]byte, 2000)
	for {
		n, _, err := unix.Recvfrom(wire, buf, 0)
		if err != nil {
			t.Fatalf("the marker did not come: %v", err)
		}
		if n < 28 {
			continue
		}
		if src := netip.AddrFrom4([4]byte(buf[12:16])); src == addr(caReal) || buf[9] == unix.IPPROTO_TCP {
			t.Fatalf("a packet from %v, protocol %d, is on the outside", src, buf[9])
		}
		if buf[9] == unix.IPPROTO_UDP && strings.HasSuffix(string(buf[:n]), "marker") {
			return
		}
	}
}

// lateSegment is a TCP segment with data from the call agent to the remote.
func lateSegment(sport, dport uint16) []byte {
	seg := binary.BigEndian.AppendUint16(nil, sport)
	seg = binary.BigEndian.AppendUint16(seg, dport)
	seg = append(seg, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, 0x18, 1, 0, 0, 0, 0, 0)
	seg = append(seg, "BYE sip:b SIP"...)
	src, dst := addr(caReal).As4(), addr(remoteAddr).As4()
	pseudo := append(append(src[:], dst[:]...), 0, unix.IPPROTO_TCP, 0, byte(len(seg)))
	var sum uint32
	for b := append(pseudo, append(seg, 0)...); len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(seg[16:], ^uint16(sum))
	return seg
}

// The kernel's SIP helper would rewrite the inside address in the body behind our back.
func TestNoSIPHelper(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	ca, remote := l.packetConn(l.ca, caReal+":5060"), l.packetConn(l.outside, remoteAddr+":5060")
	text := "OPTIONS sip:" + remoteAddr + " SIP/2.0\r\nVia: SIP/2.0/UDP " + caReal + ":5060;branch=z9hG4bK1\r\n" +
		"From: <sip:a@" + caReal + ">;tag=1\r\nTo: <sip:b@" + remoteAddr + ">\r\nCall-ID: 1@" + caReal + "\r\n" +
		"CSeq: 1 OPTIONS\r\nContact: <sip:a@" + caReal + ":5060>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
	if _, err := ca.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(remoteAddr+":5060")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	_ = remote.SetReadDeadline(time.Now().Add(2 * time.Second))
	n, src, err := remote.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	if src.Addr().Unmap() != addr(caMapped) || string(buf[:n]) != text {
		t.Errorf("from %v:\n%s", src, buf[:n])
	}
	if flows := l.run(l.box, "conntrack", "-L", "-p", "udp"); strings.Contains(flows, "helper=") {
		t.Errorf("a helper is attached:\n%s", flows)
	}
	if log := l.log.String(); strings.Contains(log, "WARN") {
		t.Errorf("warnings on a clean system:\n%s", log)
	}
}

// A helper that another's rule attaches cannot be taken off again; the operator is told.
func TestForeignSIPHelperIsReported(t *testing.T) {
	l := newLab(t)
	l.run(l.box, "sh", "-c", `nft add table ip other; nft 'add ct helper ip other s { type "sip" protocol udp; }'; nft add counter ip other c`)
	l.apply(labSpec())
	if log := l.log.String(); !strings.Contains(log, "SIP helper") || !strings.Contains(log, "table=other") {
		t.Errorf("log:\n%s", log)
	}
}

// The off-path companion `nat (outside,inside) dynamic interface` hides remotes from the inside, but never those that the
// proxy stands for.
func TestTranslationOfTheOutside(t *testing.T) {
	l := newLab(t)
	spec := labSpec()
	spec.Dynamics = append(spec.Dynamics, DynamicNAT{RealLink: linkOut, MappedLink: linkIn, Real: netip.MustParsePrefix("0.0.0.0/0")})
	l.apply(spec)
	l.serve(l.ca, caReal+":8000")
	l.serve(l.ca, caReal+":5070")
	l.serve(l.outside, remoteAddr+":80")
	l.reach("forwarded", l.outside, "", caMapped+":8000", caReal+":8000", boxIn)
	l.reach("the proxy as the remote", l.box, remoteAddr+":0", caReal+":5070", caReal+":5070", remoteAddr)
	l.reach("outwards", l.ca, "", remoteAddr+":80", remoteAddr+":80", caMapped)
}
