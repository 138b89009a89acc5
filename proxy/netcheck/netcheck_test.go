package netcheck

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// far is the other end of the card net0, in a namespace of its own: the gateway 192.0.2.1, the name server 192.0.2.53, time servers on both.
type far struct {
	t    *testing.T
	do   chan func()
	link netlink.Link
}

// newFar makes it, and takes it down with the test. What is given to in runs there.
func newFar(t *testing.T) *far {
	t.Helper()
	if cannot != "" {
		t.Skip(cannot)
	}
	f := &far{t: t, do: make(chan func())}
	ns, ended := make(chan *os.File), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			t.Error(err)
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		ns <- file
		for do := range f.do {
			do()
		}
	}()
	file := <-ns
	t.Cleanup(func() { close(f.do); <-ended; _ = file.Close() })
	if t.Failed() {
		t.FailNow()
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net0", MTU: 1500}, PeerName: "far0"}
	must(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { _ = netlink.LinkDel(veth) })
	peer, err := netlink.LinkByName("far0")
	must(t, err)
	must(t, netlink.LinkSetNsFd(peer, int(file.Fd())))
	f.in(func() {
		f.link, err = netlink.LinkByName("far0")
		must(t, err)
		for _, a := range []string{"192.0.2.1/24", "192.0.2.53/24"} {
			addr, err := netlink.ParseAddr(a)
			must(t, err)
			must(t, netlink.AddrAdd(f.link, addr))
		}
		must(t, netlink.LinkSetUp(f.link))
	})
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// in does something in the other namespace.
func (f *far) in(what func()) {
	done := make(chan struct{})
	f.do <- func() { defer close(done); what() }
	<-done
}

// serve answers each packet to an address there.
func (f *far) serve(at string, answer func([]byte) []byte) {
	f.t.Helper()
	var c net.PacketConn
	f.in(func() {
		var err error
		c, err = net.ListenPacket("udp4", at)
		must(f.t, err)
	})
	ended := make(chan struct{})
	f.t.Cleanup(func() { _ = c.Close(); <-ended })
	go func() {
		defer close(ended)
		for b := make([]byte, 1500); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(answer(b[:n]), from)
		}
	}()
}

// names is a name server for a few names.
func names(t *testing.T, forward map[string]string, reverse map[string]string) func([]byte) []byte {
	return func(q []byte) []byte {
		var p dnsmessage.Parser
		h, err := p.Start(q)
		must(t, err)
		question, err := p.Question()
		must(t, err)
		b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true})
		name := strings.TrimSuffix(question.Name.String(), ".")
		address, known := forward[name]
		ptr, is := reverse[strings.TrimSuffix(name, ".in-addr.arpa")]
		if !known && !is {
			b = dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, RCode: dnsmessage.RCodeNameError})
		}
		must(t, b.StartQuestions())
		must(t, b.Question(question))
		must(t, b.StartAnswers())
		head := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 1}
		switch {
		case known && question.Type == dnsmessage.TypeA:
			must(t, b.AResource(head, dnsmessage.AResource{A: netip.MustParseAddr(address).As4()}))
		case is && question.Type == dnsmessage.TypePTR:
			must(t, b.PTRResource(head, dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(ptr + ".")}))
		}
		out, err := b.Finish()
		must(t, err)
		return out
	}
}

// clock is a time server of a stratum.
func clock(stratum byte) func([]byte) []byte {
	return func(q []byte) []byte {
		if len(q) < 48 {
			return nil
		}
		stamp := func(b []byte, at time.Time) {
			binary.BigEndian.PutUint32(b, uint32(at.Unix()+2208988800))
		}
		b := make([]byte, 48)
		b[0], b[1], b[2], b[3] = 0x24, stratum, 6, 0xec
		now := time.Now()
		stamp(b[16:], now.Add(-time.Second))
		copy(b[24:32], q[40:48])
		stamp(b[32:], now)
		stamp(b[40:], now)
		return b
	}
}

// good is a plan that works in the far network.
func good() Plan {
	return Plan{
		Name: "edge-a.a.example", Cards: []Card{{Device: "net0", Address: netip.MustParsePrefix("192.0.2.10/24"), MTU: 1400}}, Gateway: netip.MustParseAddr("192.0.2.1"),
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, NTP: []string{"192.0.2.1", "time.example"},
	}
}

func goodServers(f *far) {
	f.serve("192.0.2.53:53", names(f.t, map[string]string{"edge-a.a.example": "192.0.2.10", "other.a.example": "192.0.2.77", "time.example": "192.0.2.53"},
		map[string]string{"10.2.0.192": "edge-a.a.example", "11.2.0.192": "printer.a.example"}))
	f.serve("192.0.2.1:123", clock(3))
	f.serve("192.0.2.53:123", clock(2))
}

// state is what a check must leave as it was.
func state(t *testing.T) string {
	t.Helper()
	link, err := netlink.LinkByName("net0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	must(t, err)
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	must(t, err)
	return fmt.Sprint(link.Attrs().MTU, link.Attrs().Flags&net.FlagUp, addrs, routes)
}

func TestGoodNetwork(t *testing.T) {
	f := newFar(t)
	goodServers(f)
	before := state(t)
	found, err := Run(context.Background(), good())
	if err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
	if after := state(t); after != before {
		t.Errorf("before: %s, after: %s", before, after)
	}
}

func TestProblems(t *testing.T) {
	f := newFar(t)
	goodServers(f)
	before := state(t)
	for name, c := range map[string]struct {
		change func(p *Plan)
		narrow bool
		want   []string // a problem each
	}{
		"address of another": {
			func(p *Plan) { p.Cards[0].Address = netip.MustParsePrefix("192.0.2.53/24"); p.DNS, p.NTP = nil, nil }, false,
			[]string{"192.0.2.53 on net0 belongs to another host, ", "gateway 192.0.2.1 cannot be tried"},
		},
		"no gateway":   {func(p *Plan) { p.Gateway = netip.MustParseAddr("192.0.2.9") }, false, []string{"gateway 192.0.2.9 does not answer on net0"}},
		"far gateway":  {func(p *Plan) { p.Gateway = netip.MustParseAddr("10.0.0.1"); p.DNS, p.NTP = nil, nil }, false, []string{"gateway 10.0.0.1 is in no network"}},
		"narrow link":  {func(p *Plan) { p.Cards[0].MTU = 1500 }, true, []string{"packets of 1500 bytes, the MTU of net0, do not reach the gateway"}},
		"no such card": {func(p *Plan) { *p = Plan{Cards: []Card{{Device: "eth9", Address: p.Cards[0].Address}}} }, false, []string{"no card eth9: it has net0"}},
		"large MTU":    {func(p *Plan) { p.Cards[0].MTU = 70000; p.Gateway, p.DNS, p.NTP = netip.Addr{}, nil, nil }, false, []string{"net0 takes no MTU of 70000 bytes"}},
		"unknown name": {
			func(p *Plan) { p.Name = "edge-b.a.example"; p.NTP = nil }, false,
			[]string{"edge-b.a.example is not in the DNS", `192.0.2.10 is "edge-a.a.example" in the DNS`},
		},
		"name of another": {func(p *Plan) { p.Name = "other.a.example"; p.NTP = nil }, false, []string{"other.a.example is 192.0.2.77 in the DNS", "and not other.a.example"}},
		"no reverse":      {func(p *Plan) { p.Cards[0].Address = netip.MustParsePrefix("192.0.2.12/24"); p.NTP = nil }, false, []string{"no address of this machine", "192.0.2.12 has no name"}},
		"no name server":  {func(p *Plan) { p.DNS[0], p.NTP = netip.MustParseAddr("192.0.2.1"), []string{"time.example"} }, false, []string{"name server 192.0.2.1 does not answer", "no name server gives its address"}},
		"unknown time":    {func(p *Plan) { p.NTP = []string{"clock.example"} }, false, []string{"its name is not in the DNS"}},
		"one of two servers": {func(p *Plan) {
			p.DNS = append(p.DNS, netip.MustParseAddr("192.0.2.99"))
			p.NTP = []string{"192.0.2.98"}
		}, false, []string{"name server 192.0.2.99 does not answer", "time server 192.0.2.98: "}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.narrow {
				f.in(func() { must(t, netlink.LinkSetMTU(f.link, 1000)) })
				defer f.in(func() { must(t, netlink.LinkSetMTU(f.link, 1500)) })
			}
			p := good()
			c.change(&p)
			found, err := Run(context.Background(), p)
			if err != nil || len(found) != len(c.want) {
				t.Fatalf("%v, %v, want %d", found, err, len(c.want))
			}
			for _, want := range c.want {
				if !strings.Contains(fmt.Sprint(found), want) {
					t.Errorf("%v lacks %q", found, want)
				}
			}
			if after := state(t); after != before {
				t.Errorf("before: %s, after: %s", before, after)
			}
		})
	}
}

func TestWorstStratumAndNoLink(t *testing.T) {
	f := newFar(t)
	f.serve("192.0.2.1:123", clock(10))
	p := good()
	p.DNS, p.NTP = nil, []string{"192.0.2.1"}
	if found, err := Run(context.Background(), p); err != nil || len(found) != 1 || !strings.Contains(found[0].Text, "stratum 10") {
		t.Errorf("%v, %v", found, err)
	}
	f.in(func() { must(t, netlink.LinkSetDown(f.link)) })
	p.NTP, p.Gateway = nil, netip.Addr{}
	if found, err := Run(context.Background(), p); err != nil || len(found) != 1 || found[0] != (Problem{Link, "card net0 has no link: is it connected?"}) {
		t.Errorf("%v, %v", found, err)
	}
}

// What is wrong twice is told in the same words, so that it can be ignored once.
func TestSameWords(t *testing.T) {
	newFar(t)
	p := good()
	p.DNS, p.NTP = []netip.Addr{netip.MustParseAddr("192.0.2.1")}, []string{"192.0.2.1"}
	first, err := Run(context.Background(), p)
	must(t, err)
	second, err := Run(context.Background(), p)
	must(t, err)
	if len(first) != 2 || fmt.Sprint(first) != fmt.Sprint(second) || !strings.Contains(fmt.Sprint(first), "does not answer: connection refused") {
		t.Errorf("%v, then %v", first, second)
	}
}

func TestARP(t *testing.T) {
	a := arp{reply: true, senderMAC: [6]byte{1, 2, 3, 4, 5, 6}, askedAs: [6]byte{6, 5, 4, 3, 2, 1}, sender: netip.MustParseAddr("192.0.2.1"), target: netip.MustParseAddr("192.0.2.2")}
	if got, ok := decodeARP(append(a.encode(), make([]byte, 18)...)); !ok || got != a {
		t.Errorf("%+v, %t", got, ok)
	}
	for _, bad := range [][]byte{nil, a.encode()[:27], append([]byte{0, 6}, a.encode()[2:]...), append([]byte{0, 1, 8, 0, 6, 4, 0, 3}, a.encode()[8:]...)} {
		if _, ok := decodeARP(bad); ok {
			t.Errorf("%x was taken", bad)
		}
	}
}

func FuzzARP(f *testing.F) {
	f.Add(arp{sender: netip.MustParseAddr("192.0.2.1"), target: netip.MustParseAddr("192.0.2.2")}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := decodeARP(b); ok && string(a.encode()) != string(b[:arpSize]) {
			t.Errorf("%x becomes %x", b, a.encode())
		}
	})
}
