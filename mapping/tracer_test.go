package mapping

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink hears datagrams in all namespaces of the lab, each of which carries its number.
type sink struct {
	mu  sync.Mutex
	got map[string]arrival
	n   int
}

type arrival struct{ at, from netip.AddrPort }

func (s *sink) hear(c *net.UDPConn) {
	b := make([]byte, 100)
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.got[string(b[:n])] = arrival{at, from}
		s.n++
		s.mu.Unlock()
	}
}

// What the tracer says of a datagram is what the kernel does with it, for datagrams between all hosts, to all addresses, under different access lists.
func TestTracerAgreesWithTheKernel(t *testing.T) {
	host := func(s string) netip.Prefix { return hostPrefix(addr(s)) }
	for name, change := range map[string]func(*Spec){
		"lists of the lab": func(*Spec) {},
		"levels alone":     func(s *Spec) { s.Groups = nil },
		"lists both ways": func(s *Spec) {
			s.Groups = []AccessGroup{
				{Link: linkOut, Direction: "in", Rules: []Rule{
					{Proto: "udp", Dst: host(caReal), DstLo: 8005, DstHi: 8005, ID: "no"}, {Permit: true, Proto: "udp", Dst: host(caReal), ID: "yes"}, {Permit: true, Proto: "ip", Dst: host(dmzHost), SrcLo: 0},
				}},
				{Link: linkDMZ, Direction: "out", Rules: []Rule{{Permit: true, Proto: "udp", DstLo: 50, DstHi: 60}}},
				{Link: linkIn, Direction: "in", Rules: []Rule{{Proto: "udp", DstLo: 53, DstHi: 53, Dst: host(remoteAddr)}, {Permit: true, Proto: "ip"}}},
			}
		},
		"translation of ports": func(s *Spec) {
			s.Statics = append(s.Statics, StaticNAT{RealLink: linkDMZ, MappedLink: linkOut, Real: addr(dmzHost), Mapped: addr(patMapped), RealPort: 53, MappedPort: 5353, Proto: "udp"},
				StaticNAT{RealLink: linkIn, MappedLink: linkDMZ, Real: addr(phoneReal), Mapped: addr(phoneReal)})
			s.Groups = []AccessGroup{{Link: linkOut, Direction: "in", Rules: []Rule{{Permit: true, Proto: "udp"}}}}
		},
		"many translations": func(s *Spec) {
			for n := range 10 {
				port := uint16(n)
				s.Statics = append(
					s.Statics,
					StaticNAT{RealLink: linkDMZ, MappedLink: linkOut, Real: addr(dmzHost), Mapped: addr(patMapped), RealPort: 80 + port, MappedPort: 80 + port, Proto: "udp"},
					StaticNAT{RealLink: linkDMZ, MappedLink: linkOut, Real: addr(dmzHost), Mapped: addr(boxOut), RealPort: 5353 + port, MappedPort: 53 + port},
					StaticNAT{RealLink: linkIn, MappedLink: linkDMZ, Real: netip.AddrFrom4([4]byte{192, 168, 11, byte(n)}), Mapped: netip.AddrFrom4([4]byte{10, 1, 1, byte(200 + n)})},
				)
			}
			s.Statics = append(s.Statics, StaticNAT{RealLink: linkIn, MappedLink: linkDMZ, Real: addr(phoneReal), Mapped: addr("10.1.1.210")})
			s.Groups = []AccessGroup{{Link: linkOut, Direction: "in", Rules: []Rule{{Permit: true, Proto: "udp"}}}}
		},
		"long lists": func(s *Spec) {
			s.Groups = []AccessGroup{
				{Link: linkOut, Direction: "in", Rules: entries(1, 120)},
				{Link: linkDMZ, Direction: "out", Rules: append(entries(2, 60), Rule{Permit: true, Proto: "udp"})},
				{Link: linkIn, Direction: "in", Rules: append(entries(3, 200), Rule{Permit: true, Proto: "ip"})},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			spec := labSpec()
			change(&spec)
			k := l.apply(spec)
			l.run(l.outside, "ip", "route", "replace", "default", "via", boxOut)
			agreesWithTheKernel(t, l, k)
		})
	}
}

// entries are lines about the hosts of the lab that overlap each other in many ways.
func entries(seed uint64, n int) []Rule {
	r := rand.New(rand.NewPCG(seed, 9))
	where := func() netip.Prefix {
		a := addr([]string{caReal, phoneReal, dmzHost, remoteAddr, "192.0.2.1"}[r.IntN(5)])
		return netip.PrefixFrom(a, []int{32, 32, 32, 24, 16, 0}[r.IntN(6)]).Masked()
	}
	var out []Rule
	for range n {
		x := Rule{Permit: r.IntN(3) > 0, Proto: "udp", Src: where(), Dst: where(), Log: r.IntN(8) == 0, ID: fmt.Sprint("line ", len(out))}
		switch r.IntN(8) {
		case 0:
			x.Proto = "ip"
		case 1:
			x.DstLo, x.DstHi = 60, 8005
		case 2:
			x.SrcLo, x.SrcHi = 20000, 20000+uint16(r.IntN(300))
		default:
			x.DstLo = []uint16{53, 80, 8005, 5353}[r.IntN(4)]
			x.DstHi = x.DstLo
		}
		out = append(out, x)
	}
	return out
}

func agreesWithTheKernel(t *testing.T, l *lab, k *Kernel) {
	heard := &sink{got: map[string]arrival{}}
	ports := []uint16{53, 80, 8005, 5353}
	for h, ns := range map[string]func(string) *net.UDPConn{
		caReal: func(a string) *net.UDPConn { return l.packetConn(l.ca, a) }, dmzHost: func(a string) *net.UDPConn { return l.packetConn(l.dmz, a) },
		remoteAddr: func(a string) *net.UDPConn { return l.packetConn(l.outside, a) }, phoneReal: func(a string) *net.UDPConn { return l.packetConn(l.phone, a) },
	} {
		for _, p := range ports {
			go heard.hear(ns(netip.AddrPortFrom(addr(h), p).String()))
		}
	}
	type probe struct {
		Packet
		text string
	}
	var sent []probe
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		from := []struct {
			host, link string
			open       func(string) *net.UDPConn
		}{
			{caReal, linkIn, func(a string) *net.UDPConn { return l.packetConn(l.ca, a) }},
			{phoneReal, linkIn, func(a string) *net.UDPConn { return l.packetConn(l.phone, a) }},
			{dmzHost, linkDMZ, func(a string) *net.UDPConn { return l.packetConn(l.dmz, a) }},
			{remoteAddr, linkOut, func(a string) *net.UDPConn { return l.packetConn(l.outside, a) }},
		}[r.IntN(4)]
		to := []string{caReal, phoneReal, dmzHost, remoteAddr, caMapped, patMapped, boxOut}[r.IntN(7)]
		p := probe{text: fmt.Sprint("probe ", i), Packet: Packet{Link: from.link, Proto: "udp", Src: addr(from.host), SrcPort: uint16(20000 + i), Dst: addr(to), DstPort: ports[r.IntN(len(ports))]}}
		if own, _ := netip.ParsePrefix("192.168.10.0/24"); from.link == linkIn && own.Contains(p.Dst) || from.host == to {
			continue // does not come to the box
		}
		c := from.open(netip.AddrPortFrom(p.Src, p.SrcPort).String())
		_, _ = c.WriteToUDPAddrPort([]byte(p.text), netip.AddrPortFrom(p.Dst, p.DstPort)) // refused by the host itself where it has no route
		sent = append(sent, p)
	}
	quiet(heard)
	passed := 0
	for _, p := range sent {
		var w Way
		l.in(l.box, func() (err error) {
			w, err = k.Trace(p.Packet)
			return err
		})
		a, arrived := heard.got[p.text]
		if arrived {
			passed++
		}
		if want := w.Allowed && !w.Local; arrived != want {
			t.Errorf("%+v: arrived %t, the tracer says %+v", p.Packet, arrived, w)
		}
		if arrived && (a.at != w.Dst || a.from.Addr() != w.Src.Addr()) {
			t.Errorf("%+v: came to %v from %v, the tracer says %+v", p.Packet, a.at, a.from, w)
		}
	}
	if passed < 20 || passed > len(sent)-20 {
		t.Errorf("%d of %d passed: this proves little", passed, len(sent))
	}
}

// quiet waits until nothing has come for a while.
func quiet(s *sink) {
	for last := -1; ; {
		s.mu.Lock()
		n := s.n
		s.mu.Unlock()
		if n == last {
			return
		}
		last = n
		time.Sleep(300 * time.Millisecond)
	}
}

// The tracer knows what is taken by a class and what is for the appliance itself.
func TestTracerOfLocalPackets(t *testing.T) {
	spec := labSpec()
	spec.Intercepts[1].ID = "class"
	local := map[netip.Addr]bool{}
	for _, a := range wantedAddresses(spec) {
		local[a.Prefix.Addr()] = true
	}
	route := func(a netip.Addr) (string, bool) {
		if local[a] {
			return "lo", true
		}
		for _, i := range spec.Interfaces {
			if i.Address.Contains(a) {
				return i.Link, false
			}
		}
		return "", false
	}
	for _, c := range []struct {
		name    string
		p       Packet
		allowed bool
		proxied bool
		said    string
	}{
		{"into the class", Packet{Link: linkOut, Proto: "tcp", Src: addr(remoteAddr), Dst: addr(caMapped), DstPort: 5070}, true, true, "takes"},
		{"not of the class", Packet{Link: linkOut, Proto: "tcp", Src: addr(remoteAddr), Dst: addr(caMapped), DstPort: 5071}, false, false, "no entry"},
		{"out of the class", Packet{Link: linkIn, Proto: "tcp", Src: addr(caReal), Dst: addr(remoteAddr), DstPort: 5070}, true, true, "takes"},
		{"from another host", Packet{Link: linkIn, Proto: "tcp", Src: addr(phoneReal), Dst: addr(remoteAddr), DstPort: 5070}, true, false, "level 100 to 0"},
		{"to the box itself", Packet{Link: linkIn, Proto: "tcp", Src: addr(caReal), Dst: addr(boxIn), DstPort: 5070}, true, false, "trusted"},
		{"open port", Packet{Link: linkOut, Proto: "tcp", Src: addr(remoteAddr), Dst: addr(boxOut), DstPort: 2222}, true, false, "open to"},
		{"closed port", Packet{Link: linkOut, Proto: "tcp", Src: addr(remoteAddr), Dst: addr(boxOut), DstPort: 22}, false, false, "nothing there"},
		{"media", Packet{Link: linkOut, Proto: "udp", Src: addr(remoteAddr), Dst: addr(mediaOut), DstPort: 20000}, true, false, "media termination"},
		{"forged media", Packet{Link: linkOut, Proto: "udp", Src: addr(phoneReal), Dst: addr(mediaOut), DstPort: 20000}, false, false, "forged"},
		{"media of the inside", Packet{Link: linkOut, Proto: "udp", Src: addr(remoteAddr), Dst: addr(mediaIn), DstPort: 20000}, false, false, "nothing there"},
		{"ping", Packet{Link: linkOut, Proto: "icmp", Src: addr(remoteAddr), Dst: addr(boxOut)}, true, false, "echo"},
		{"nowhere", Packet{Link: linkIn, Proto: "udp", Src: addr(phoneReal), Dst: addr("8.8.8.8"), DstPort: 53}, false, false, "no route"},
		{"unknown link", Packet{Link: "eth9", Proto: "udp", Src: addr(phoneReal), Dst: addr(remoteAddr)}, false, false, "not configured"},
	} {
		w := spec.trace(c.p, route)
		said := ""
		for _, p := range w.Phases {
			said += p.Text + "\n"
		}
		if w.Allowed != c.allowed || w.Proxied != c.proxied || !strings.Contains(said, c.said) {
			t.Errorf("%s: %+v", c.name, w)
		}
	}
}

// Entries count the connections that they decide on, and go on counting when the rules are replaced.
func TestHits(t *testing.T) {
	l := newLab(t)
	spec := labSpec()
	for i := range spec.Groups[0].Rules {
		spec.Groups[0].Rules[i].ID = fmt.Sprint("rule ", i)
	}
	spec.Intercepts[1].ID = "class"
	k := l.apply(spec)
	l.serve(l.ca, caReal+":8000")
	hits := func() map[string]Hit {
		var h map[string]Hit
		l.in(l.box, func() (err error) {
			h, err = k.Hits()
			return err
		})
		return h
	}
	want := func(when string, zero, one, class uint64) {
		t.Helper()
		h := hits()
		if h["rule 0"].Packets != zero || h["rule 1"].Packets != one || h["class"].Packets != class {
			t.Errorf("%s: %v", when, h)
		}
	}
	want("at first", 0, 0, 0)
	for range 3 {
		l.reach("the list permits", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
	}
	want("after three connections", 3, 0, 0)
	_, _, _ = ask(l.outside, "", caMapped+":5070") // nobody listens in this lab: the class has it all the same
	if h := hits(); h["class"].Packets == 0 {
		t.Errorf("the class counts nothing: %v", h)
	}
	class := hits()["class"].Packets
	// Another entry before it, and the list on another interface: what it had counted stays with it.
	changed := labSpec()
	changed.Groups[0].Rules = append([]Rule{{Proto: "udp", ID: "new"}}, spec.Groups[0].Rules...)
	changed.Intercepts[1].ID = "class"
	l.update(k, changed)
	if h := hits(); h["rule 0"].Packets != 3 || h["rule 0"].Bytes == 0 || h["new"].Packets != 0 || h["class"].Packets < class {
		t.Errorf("after a change: %v", h)
	}
	l.reach("the list permits", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
	if h := hits(); h["rule 0"].Packets != 4 {
		t.Errorf("it does not go on counting: %v", h)
	}
}

// What an element of a verdict map has counted stays with its entry as well, when it becomes a rule of its own and when it comes back.
func TestHitsOfLongLists(t *testing.T) {
	l := newLab(t)
	spec := labSpec()
	short := spec.Groups[0].Rules
	for i := range short {
		short[i].ID = fmt.Sprint("rule ", i)
	}
	list := func(more int) Spec {
		s := labSpec()
		s.Groups[0].Rules = nil
		for n := range more {
			s.Groups[0].Rules = append(s.Groups[0].Rules, Rule{Permit: true, Proto: "tcp", Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 9, byte(n)}), 32), DstLo: 8000, DstHi: 8000})
		}
		s.Groups[0].Rules = append(s.Groups[0].Rules, short...)
		return s
	}
	k := l.apply(list(0))
	l.serve(l.ca, caReal+":8000")
	for n, more := range []int{0, 40, 0, 40, 41} {
		l.update(k, list(more))
		l.reach("the list permits", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
		var h map[string]Hit
		l.in(l.box, func() (err error) {
			h, err = k.Hits()
			return err
		})
		if h["rule 0"].Packets != uint64(n+1) || h["rule 0"].Bytes == 0 || h["rule 1"].Packets != 0 {
			t.Errorf("with %d more entries, after %d connections: %v", more, n+1, h)
		}
	}
}

func TestTranslations(t *testing.T) {
	l := newLab(t)
	spec := labSpec()
	k := l.apply(spec)
	l.serve(l.ca, caReal+":8000")
	l.serve(l.outside, remoteAddr+":80")
	in, err := open(l.outside, "", caMapped+":8000")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := open(l.phone, "", remoteAddr+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var all []Translation
	l.in(l.box, func() (err error) {
		all, err = k.Translations()
		return err
	})
	var dst, src bool
	for _, x := range all {
		dst = dst || x.Proto == "TCP" && x.DestNAT && !x.SourceNAT && x.RealDst.String() == caReal+":8000" && x.MappedDst.String() == caMapped+":8000"
		src = src || x.Proto == "TCP" && x.SourceNAT && !x.DestNAT && x.RealSrc.Addr().String() == phoneReal && x.MappedSrc.Addr().String() == patMapped
	}
	if !dst || !src {
		t.Errorf("the translations are %+v", all)
	}
}
