package mapping

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/vishvananda/netns"
)

// tryPing tells whether an echo request is answered.
func tryPing(ns netns.NsHandle, to string) bool {
	return try(ns, func() error { return exec.Command("ping", "-c", "1", "-W", "1", to).Run() }) == nil
}

// plainSpec is the lab without translation, classes and lists.
func plainSpec() Spec {
	spec := labSpec()
	spec.Intercepts, spec.Statics, spec.Dynamics, spec.Groups, spec.Media, spec.Addresses = nil, nil, nil, nil, nil, nil
	return spec
}

// Without access lists the security levels decide.
func TestSecurityLevels(t *testing.T) {
	l := newLab(t)
	k := l.apply(plainSpec())
	inside, dmz, outside := l.packetConn(l.ca, caReal+":9000"), l.packetConn(l.dmz, dmzHost+":9000"), l.packetConn(l.outside, remoteAddr+":9000")
	l.run(l.outside, "ip", "route", "replace", "default", "via", boxOut)
	flow := func(from, at *net.UDPConn) bool {
		_, ok := sends(t, from, at, at.LocalAddr().String())
		return ok
	}
	check := func(what string, from, at *net.UDPConn, want bool) {
		t.Helper()
		if got := flow(from, at); got != want {
			t.Errorf("%s: passes %v, want %v", what, got, want)
		}
	}
	// Denied ones first: a permitted flow opens its way back.
	check("outside to dmz", outside, dmz, false)
	check("outside to inside", outside, inside, false)
	check("dmz to inside", dmz, inside, false)
	check("inside to dmz", inside, dmz, true)
	check("inside to outside", inside, outside, true)
	check("dmz to outside", dmz, outside, true)
	check("answer of the dmz to the inside", dmz, inside, true)

	same := plainSpec()
	same.Interfaces[2].Level = 100
	same.Groups = []AccessGroup{{Link: linkIn, Direction: "in", Rules: []Rule{{Permit: true, Proto: "ip"}}}}
	l.update(k, same)
	inside, dmz = l.packetConn(l.ca, caReal+":9001"), l.packetConn(l.dmz, dmzHost+":9001")
	check("same level, even when a list permits", inside, dmz, false)
}

func TestAccessLists(t *testing.T) {
	host := func(s string) netip.Prefix { return hostPrefix(addr(s)) }
	type probe struct {
		what string
		run  func(l *lab) bool
		want bool
	}
	udp := func(sport, dport uint16) func(*lab) bool {
		return func(l *lab) bool {
			from := l.packetConn(l.outside, netip.AddrPortFrom(addr(remoteAddr), sport).String())
			at := l.packetConn(l.dmz, netip.AddrPortFrom(addr(dmzHost), dport).String())
			defer from.Close()
			defer at.Close()
			_, ok := sends(l.t, from, at, at.LocalAddr().String())
			return ok
		}
	}
	tcp := func(port string) func(*lab) bool {
		return func(l *lab) bool {
			_, _, err := ask(l.outside, "", dmzHost+":"+port)
			return err == nil
		}
	}
	ping := func(l *lab) bool { return tryPing(l.outside, dmzHost) }
	other := netip.MustParsePrefix("198.51.100.0/24")
	for _, c := range []struct {
		name      string
		direction string
		rules     []Rule
		probes    []probe
	}{
		{"empty list", "in", nil, []probe{{"udp", udp(40000, 53), false}, {"tcp 80", tcp("80"), false}, {"ping", ping, false}}},
		{"permit ip any any", "in", []Rule{{Permit: true, Proto: "ip"}}, []probe{{"udp", udp(40001, 53), true}, {"tcp 80", tcp("80"), true}, {"ping", ping, true}}},
		{"permit ip host host", "in", []Rule{{Permit: true, Proto: "ip", Src: host(remoteAddr), Dst: host(dmzHost)}}, []probe{{"udp", udp(40002, 53), true}}},
		{"permit ip of another source", "in", []Rule{{Permit: true, Proto: "ip", Src: other}}, []probe{{"udp", udp(40003, 53), false}}},
		{"permit ip to another network", "in", []Rule{{Permit: true, Proto: "ip", Dst: other}}, []probe{{"udp", udp(40004, 53), false}}},
		{"permit ip networks", "in", []Rule{{Permit: true, Proto: "ip", Src: netip.MustParsePrefix("209.165.200.224/27"), Dst: netip.MustParsePrefix("10.0.0.0/8")}}, []probe{{"udp", udp(40005, 53), true}}},
		{"permit tcp eq 80", "in", []Rule{{Permit: true, Proto: "tcp", DstLo: 80, DstHi: 80}}, []probe{{"tcp 80", tcp("80"), true}, {"tcp 81", tcp("81"), false}, {"udp 80", udp(40006, 80), false}}},
		{"permit tcp range", "in", []Rule{{Permit: true, Proto: "tcp", DstLo: 81, DstHi: 90}}, []probe{{"tcp 80", tcp("80"), false}, {"tcp 81", tcp("81"), true}}},
		{"permit udp by source port", "in", []Rule{{Permit: true, Proto: "udp", SrcLo: 1000, SrcHi: 1010}}, []probe{{"from 1010", udp(1010, 53), true}, {"from 1011", udp(1011, 53), false}}},
		{"permit icmp", "in", []Rule{{Permit: true, Proto: "icmp"}}, []probe{{"ping", ping, true}, {"udp", udp(40007, 53), false}}},
		{"the first match decides", "in", []Rule{{Proto: "tcp", DstLo: 80, DstHi: 80}, {Permit: true, Proto: "tcp"}}, []probe{{"tcp 80", tcp("80"), false}, {"tcp 81", tcp("81"), true}}},
		{"out list alone opens nothing", "out", []Rule{{Permit: true, Proto: "ip"}}, []probe{{"udp", udp(40008, 53), false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			spec := plainSpec()
			link := linkOut
			if c.direction == "out" {
				link = linkDMZ
			}
			spec.Groups = []AccessGroup{{Link: link, Direction: c.direction, Rules: c.rules}}
			l.apply(spec)
			l.serve(l.dmz, dmzHost+":80")
			l.serve(l.dmz, dmzHost+":81")
			for _, p := range c.probes {
				if got := p.run(l); got != p.want {
					t.Errorf("%s: passes %v, want %v", p.what, got, p.want)
				}
			}
		})
	}
}

// A list on the way out narrows what the levels, or a list on the way in, let through.
func TestOutList(t *testing.T) {
	l := newLab(t)
	spec := plainSpec()
	spec.Groups = []AccessGroup{
		{Link: linkDMZ, Direction: "out", Rules: []Rule{{Permit: true, Proto: "udp", DstLo: 53, DstHi: 54}}},
		{Link: linkOut, Direction: "in", Rules: []Rule{{Permit: true, Proto: "udp", DstLo: 54, DstHi: 55}}},
	}
	l.apply(spec)
	from, outside := l.packetConn(l.ca, caReal+":0"), l.packetConn(l.outside, remoteAddr+":0")
	for _, c := range []struct {
		port            string
		inside, outside bool
	}{{"53", true, false}, {"54", true, true}, {"55", false, false}} {
		at := l.packetConn(l.dmz, dmzHost+":"+c.port)
		if _, got := sends(t, from, at, dmzHost+":"+c.port); got != c.inside {
			t.Errorf("inside to dmz port %s: %v, want %v", c.port, got, c.inside)
		}
		if _, got := sends(t, outside, at, dmzHost+":"+c.port); got != c.outside {
			t.Errorf("outside to dmz port %s: %v, want %v", c.port, got, c.outside)
		}
	}
}

// A list on the inside ends in an implicit deny too.
func TestInsideList(t *testing.T) {
	l := newLab(t)
	spec := labSpec()
	spec.Groups = append(spec.Groups, AccessGroup{Link: linkIn, Direction: "in", Rules: []Rule{{Permit: true, Proto: "tcp", Src: hostPrefix(addr(caReal)), DstLo: 80, DstHi: 80}}})
	l.apply(spec)
	l.serve(l.outside, remoteAddr+":80")
	l.serve(l.outside, remoteAddr+":443")
	l.reach("permitted, by its real address", l.ca, "", remoteAddr+":80", remoteAddr+":80", caMapped)
	l.unreachable(l.ca, map[string]string{"another port": remoteAddr + ":443"})
	l.unreachable(l.phone, map[string]string{"another host": remoteAddr + ":80"})
}

// Interfaces that are not of the configuration are as before: neither opened by ip_forward nor closed by our filter.
func TestOtherInterfacesAreUntouched(t *testing.T) {
	for _, forwarding := range []string{"0", "1"} {
		t.Run("forwarding "+forwarding, func(t *testing.T) {
			l := newLab(t)
			l.run(l.box, "sh", "-c", "echo "+forwarding+" > /proc/sys/net/ipv4/ip_forward")
			l.run(l.box, "sh", "-c", "ip addr add "+boxDMZ+"/24 dev mapdmz; ip link set mapdmz up")
			spec := plainSpec()
			spec.Interfaces = spec.Interfaces[:2]
			l.apply(spec)
			dmz, inside, box := l.packetConn(l.dmz, dmzHost+":9000"), l.packetConn(l.ca, caReal+":9000"), l.packetConn(l.box, boxDMZ+":9000")
			outside := l.packetConn(l.outside, remoteAddr+":9000")
			if _, ok := sends(t, dmz, box, boxDMZ+":9000"); !ok {
				t.Error("a port of the box is closed on an interface that is not ours")
			}
			if _, ok := sends(t, outside, dmz, dmzHost+":9000"); ok {
				t.Error("outside opens a way to an interface that is not ours")
			}
			if _, ok := sends(t, dmz, inside, caReal+":9000"); ok != (forwarding == "1") {
				t.Errorf("an interface that is not ours is forwarded: %v", ok)
			}
		})
	}
}
