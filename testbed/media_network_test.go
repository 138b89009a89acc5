package testbed

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// heard lets each end send a packet and tells whether both arrive soon: while the network changes, packets may be lost.
func (k *talk) heard(t T) bool {
	t.Helper()
	k.phone.Send(t, k.in, 1)
	k.far.Send(t, k.out, 1)
	limit := time.Now().Add(200 * time.Millisecond)
	for len(k.phone.Got()) == 0 || len(k.far.Got()) == 0 {
		if time.Now().After(limit) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// settles waits until media passes again, and demands from then on all of it, by the direct way.
func (k *talk) settles(t T, what string) {
	t.Helper()
	Until(t, 20*time.Second, "media passes again after "+what, func() bool { return k.heard(t) })
	Until(t, wait, "packets go out directly again after "+what, func() bool {
		before := k.s.engine(t).Direct
		k.heard(t)
		return k.s.engine(t).Direct >= before+2
	})
	k.phone.Forget()
	k.far.Forget()
	k.bothWays(t, 20)
}

// What changes in the network about the appliance must not end a call's media for longer than the change itself.
func TestMediaNetwork(t *testing.T) {
	s := StartStubs(t)
	k := s.talk(t, true, srtpSuites[0])
	k.bothWays(t, 5)
	t.Run("a flood for one port", func(t *testing.T) { mediaFlood(t, s) })
	t.Run("another card in the gateway", func(t *testing.T) {
		newCard(t, s.Internet.Host, "ea", "02:00:00:00:aa:01")
		k.settles(t, "a change of the gateway's link address")
	})
	t.Run("another card in the phone", func(t *testing.T) {
		newCard(t, s.A.PhoneHost, "eth0", "02:00:00:00:aa:02")
		s.A.PhoneHost.MustRun(t, "ip", "route", "replace", "default", "via", s.A.InsideIP.String())
		k.settles(t, "a change of the phone's link address")
	})
	t.Run("cables pulled", func(t *testing.T) {
		for _, end := range []struct {
			host *Host
			link string
		}{{s.Internet.Host, "ea"}, {s.lan, "ea"}} {
			end.host.MustRun(t, "ip", "link", "set", end.link, "down")
			if k.heard(t) {
				t.Fatalf("%s %s is down, and media passes", end.host.Name, end.link)
			}
			end.host.MustRun(t, "ip", "link", "set", end.link, "up")
			k.settles(t, "the cable of "+end.host.Name+" was pulled")
		}
	})
	t.Run("interface shut and opened", func(t *testing.T) {
		s.A.EdgeHost.MustRun(t, "ip", "link", "set", "ein", "down")
		if k.heard(t) {
			t.Fatal("the inside interface is down, and media passes")
		}
		s.A.EdgeHost.MustRun(t, "ip", "link", "set", "ein", "up")
		k.settles(t, "the inside interface was down")
	})
	t.Run("AF_XDP", func(t *testing.T) { mediaXDP(t, s, k) })
	t.Run("captures begin and end", func(t *testing.T) { mediaCaptures(t, s, k) })
	t.Run("small MTU", func(t *testing.T) { mediaFragments(t, s, k) })
	t.Run("traffic class", func(t *testing.T) { mediaClass(t, s, k) })
	k.end(t)
}

// newCard changes a host's link address and lets it tell its neighbours, as a host does that has a new card.
func newCard(t T, h *Host, link, address string) {
	t.Helper()
	if err := h.Sysctl("net/ipv4/conf/"+link+"/arp_notify", "1"); err != nil {
		t.Fatalf("%v", err)
	}
	h.MustRun(t, "ip", "link", "set", link, "address", address)
}

// mediaFlood: what somebody sends to the port of one call costs the others no packet.
func mediaFlood(t *testing.T, s *StubLab) {
	victim, other := s.talk(t, true, srtpSuites[0]), s.talk(t, true, srtpSuites[0])
	victim.bothWays(t, 3)
	other.bothWays(t, 3)
	c, err := s.B.EdgeHost.Dial("udp", "", victim.out.String(), wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		pkt := (&MediaStub{SSRC: 9, Seq: 1}).Packet()
		b, _ := pkt.Marshal()
		n := 0
		for {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			if _, err := c.Write(b); err == nil {
				n++
			}
		}
	}()
	Until(t, wait, "the flood is seen", func() bool { return s.engine(t).Flood > 1000 })
	for range 20 {
		other.bothWays(t, 10)
	}
	close(stop)
	n := <-sent
	// All of it has been counted somewhere: as flood, as lost before the workers, or as refused by the call's own leg.
	var last mediaEngine
	Until(t, wait, "the end of the flood is worked on", func() bool {
		now := s.engine(t)
		same := now.Flood == last.Flood
		last = now
		return same
	})
	if last.Flood < n/2 && last.Overload == 0 {
		t.Errorf("%d packets were sent, the engine tells of %+v", n, last)
	}
	if m := victim.shown(t); m.Outside.WrongSource+m.Outside.Auth == 0 {
		t.Errorf("the call that was flooded: %+v", m)
	}
	victim.bothWays(t, 5)
	victim.end(t)
	other.end(t)
}

// mediaFragments: packets of video that are longer than a link takes arrive whole, both ways.
func mediaFragments(t *testing.T, s *StubLab, k *talk) {
	big := func(p *rtp.Packet) { p.Payload = make([]byte, 1400) }
	for _, end := range []*Host{s.A.EdgeHost, s.B.EdgeHost} {
		end.MustRun(t, "ip", "link", "set", "eout", "mtu", "1000")
	}
	defer func() {
		for _, end := range []*Host{s.A.EdgeHost, s.B.EdgeHost} {
			end.MustRun(t, "ip", "link", "set", "eout", "mtu", "1500")
		}
	}()
	var last uint16
	Until(t, wait, "the engine knows the MTU", func() bool { // until it is told, the link loses what is too long for it
		before := s.engine(t).Fragmented
		last = k.phone.Send(t, k.in, 1, big)[0].SequenceNumber
		return s.engine(t).Fragmented > before
	})
	Until(t, wait, "the last of the packets that may be lost", func() bool {
		got := k.far.Got()
		return len(got) > 0 && got[len(got)-1].SequenceNumber == last
	})
	k.far.ForgetRTP()
	for range 5 {
		arrives(t, k.far, k.phone.Send(t, k.in, 3, big))
		arrives(t, k.phone, k.far.Send(t, k.out, 3, big))
	}
	k.bothWays(t, 5)
}

// mediaClass: audio is marked EF on both sides, whatever it came with.
func mediaClass(t *testing.T, s *StubLab, k *talk) {
	const packets = 10
	counted := func(h *Host, hook string, from netip.Addr, class string) func() int {
		h.MustRun(t, "nft", fmt.Sprintf("add table ip dscp; delete table ip dscp; add table ip dscp; add counter ip dscp n; add chain ip dscp c { type filter hook %s priority 0; }; "+
			"add rule ip dscp c ip saddr %s ip dscp %s counter name n", hook, from, class))
		return func() int {
			m := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(h.MustRun(t, "nft", "list counter ip dscp n"))
			n, _ := strconv.Atoi(m[1])
			return n
		}
	}
	marked := func(k *talk, class string) {
		t.Helper()
		outside := counted(s.Internet.Host, "forward", s.A.MediaOut, class)
		inside := counted(s.A.PhoneHost, "input", s.A.MediaIn, class)
		k.bothWays(t, packets)
		if o, i := outside(), inside(); o != packets || i != packets {
			t.Errorf("of %d packets each way %d outside and %d inside are marked %s", packets, o, i, class)
		}
	}
	marked(k, "ef")
	inspect := regexp.MustCompile(`(?m)^  inspect sip .*$`)
	with := func(value string) *talk {
		t.Helper()
		s.mustReload(t, inspect.ReplaceAllString(s.Proxy.DefaultConfig(t), "$0\n  set dscp audio "+value))
		return s.talk(t, true, srtpSuites[0])
	}
	set := with("af31")
	marked(set, "af31")
	marked(k, "ef") // it was set up before
	set.end(t)
	// Both ends mark what they send, so that there is something to keep.
	for _, h := range []*Host{s.A.PhoneHost, s.B.EdgeHost} {
		h.MustRun(t, "nft", "add table ip marks; add chain ip marks c { type route hook output priority mangle; }; add rule ip marks c udp dport 16384-32767 ip dscp set af21")
	}
	kept := with("keep")
	marked(kept, "af21")
	kept.end(t)
}
