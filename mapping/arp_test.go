package mapping

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestProbeARP(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	var remoteMAC net.HardwareAddr
	l.in(l.outside, func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			remoteMAC = i.HardwareAddr
		}
		return err
	})
	for _, c := range []struct {
		name string
		addr string
		want bool
	}{
		{"used by the remote", remoteAddr, true},
		{"used by nobody", "209.165.200.241", false},
		{"our own", caMapped, false},
	} {
		l.in(l.box, func() error {
			start := time.Now()
			inUse, mac, err := ProbeARP(linkOut, addr(c.addr), 600*time.Millisecond)
			if err != nil {
				return err
			}
			if inUse != c.want || c.want && !bytes.Equal(mac, remoteMAC) {
				t.Errorf("%s: in use %v by %v", c.name, inUse, mac)
			}
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("%s: took %v", c.name, d)
			}
			return nil
		})
	}
	l.in(l.box, func() error {
		for link, a := range map[string]string{"lo": "10.0.0.1", "mapnone": "10.0.0.1", linkOut: "fe80::1"} {
			if _, _, err := ProbeARP(link, addr(a), time.Second); err == nil {
				t.Errorf("probe of %s on %s succeeds", a, link)
			}
		}
		return nil
	})
	l.run(l.box, "ip", "link", "set", linkDMZ, "down")
	l.in(l.box, func() error {
		if _, _, err := ProbeARP(linkDMZ, addr(dmzHost), time.Second); !errors.Is(err, unix.ENETDOWN) {
			t.Errorf("probe on a link that is down: %v", err)
		}
		return nil
	})
}

// Neighbours learn of an added address at once: one that knew another owner of it replaces the entry.
func TestAnnouncement(t *testing.T) {
	l := newLab(t)
	k := l.apply(plainSpec())
	l.run(l.outside, "ip", "neigh", "replace", caMapped, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
	spec := plainSpec()
	spec.Addresses = []Address{{linkOut, addr(caMapped)}}
	l.update(k, spec)
	var boxMAC string
	l.in(l.box, func() error {
		i, err := net.InterfaceByName(linkOut)
		if err == nil {
			boxMAC = i.HardwareAddr.String()
		}
		return err
	})
	if got := l.run(l.outside, "ip", "neigh", "show", caMapped); !bytes.Contains([]byte(got), []byte(boxMAC)) {
		t.Errorf("the neighbour still has %s, want %s", got, boxMAC)
	}
}

func TestARPConflicts(t *testing.T) {
	target, other := addr("10.0.0.1").As4(), addr("10.0.0.2").As4()
	theirs, ours := [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 2}
	own := func(m [6]byte) bool { return m == ours }
	for _, c := range []struct {
		name string
		p    arpPacket
		want bool
	}{
		{"reply", arpPacket{op: arpReply, senderMAC: theirs, sender: target}, true},
		{"request from the address", arpPacket{op: arpRequest, senderMAC: theirs, sender: target, target: other}, true},
		{"another's probe for it", arpPacket{op: arpRequest, senderMAC: theirs, target: target}, true},
		{"our own probe", arpPacket{op: arpRequest, senderMAC: ours, target: target}, false},
		{"our own reply", arpPacket{op: arpReply, senderMAC: ours, sender: target}, false},
		{"request for it by a neighbour", arpPacket{op: arpRequest, senderMAC: theirs, sender: other, target: target}, false},
		{"reply of another address", arpPacket{op: arpReply, senderMAC: theirs, sender: other, target: target}, false},
	} {
		if got := c.p.conflicts(target, own); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzParseARP(f *testing.F) {
	f.Add(arpPacket{op: arpRequest, senderMAC: [6]byte{2}, target: netip.MustParseAddr("10.0.0.1").As4()}.marshal())
	f.Add(append(arpPacket{op: arpReply, sender: [4]byte{10, 0, 0, 1}}.marshal(), make([]byte, 18)...)) // padded to 46
	f.Add(make([]byte, arpLen))
	f.Add([]byte{0, 1, 8, 0, 6, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseARP(b)
		if !ok {
			return
		}
		if !bytes.Equal(p.marshal(), b[:arpLen]) {
			t.Errorf("%x parses to %x", b[:arpLen], p.marshal())
		}
	})
}
