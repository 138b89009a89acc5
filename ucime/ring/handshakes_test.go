package ring

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"

	"imeproxy/ucime/source"
)

type closer struct{ closed bool }

func (c *closer) Close() error { c.closed = true; return nil }

// A stranger with many addresses that never says a word takes all places of handshakes: members still come in.
func TestSilentStrangersKeepNobodyOut(t *testing.T) {
	b, boot := newBench(t)
	for i := range maxHandshakes/maxOfAddress + 1 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}}
		for range maxOfAddress {
			c, err := d.Dial("tcp", b.boot)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
	id := b.a.identity(t, false, peer("m"))
	tlsOfMember := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*id.cert}, NextProtos: []string{alpnRing}, MinVersion: tls.VersionTLS13}
	c, err := (&tls.Dialer{Config: tlsOfMember}).DialContext(t.Context(), "tcp", b.boot)
	if err != nil {
		t.Fatalf("a member is kept out: %v", err)
	}
	defer c.Close()
	if _, err := exchange(t.Context(), c, typeAdmit, putU32(10)); err != nil {
		t.Errorf("a member is not admitted: %v", err)
	}
	if s := boot.Status(); s.ConnectionsRefused < maxOfAddress {
		t.Errorf("%d connections gave way", s.ConnectionsRefused)
	}
}

func TestHandshakesThatGiveWay(t *testing.T) {
	s := newHandshakes()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}) }
	first, _ := s.begin(&closer{}, at(1), epoch)
	s.end(first, true)
	mine := &closer{}
	if h, victim := s.begin(mine, at(1), epoch); h == nil || !h.known || victim != nil {
		t.Fatalf("a source that has finished one before: %+v %v", h, victim)
	}
	var all []*handshake
	oldest := &closer{}
	for i := range maxHandshakes - 1 {
		c := &closer{}
		if i == 0 {
			c = oldest
		}
		h, victim := s.begin(c, at(1000+i), epoch)
		if h == nil || victim != nil {
			t.Fatalf("%d: %v", i, victim)
		}
		all = append(all, h)
	}
	if h, victim := s.begin(&closer{}, at(1), epoch); h == nil || victim != oldest {
		t.Errorf("at the limit: victim %v, want the oldest of a source that is not known", victim)
	}
	for _, h := range all {
		s.end(h, false)
	}
	if n := len(s.of); n != 1 {
		t.Errorf("%d sources are counted, want one", n)
	}
	if s.open.Len() != 2 {
		t.Errorf("%d are open, want 2", s.open.Len())
	}
	a, _ := s.begin(&closer{}, source.Of(netip.MustParseAddr("2001:db8::1")), epoch)
	for i := range maxOfAddress - 1 {
		if h, _ := s.begin(&closer{}, source.Of(netip.MustParseAddr("2001:db8::ffff")), epoch); h == nil {
			t.Fatal(i)
		}
	}
	if h, _ := s.begin(&closer{}, source.Of(netip.MustParseAddr("2001:db8::2")), epoch); h != nil {
		t.Error("a /64 has more than one address may have")
	}
	s.end(a, true)
	if h, _ := s.begin(&closer{}, source.Of(netip.MustParseAddr("2001:db8::2")), epoch); h == nil || !h.known {
		t.Error("one that ended takes up room")
	}
	for i := range maxMembers + 5 {
		h, _ := s.begin(&closer{}, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), epoch.Add(time.Duration(i)*time.Second))
		s.end(h, true)
	}
	if len(s.known) != maxMembers || s.order.Len() != maxMembers {
		t.Errorf("%d sources are remembered, want %d", len(s.known), maxMembers)
	}
}

// Sources that have finished one before share the places with others that have.
func TestHandshakesOfKnownSourcesGiveWay(t *testing.T) {
	s := newHandshakes()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	sources := maxHandshakes / maxOfAddress
	for i := range sources + 1 {
		h, _ := s.begin(&closer{}, at(i), epoch)
		s.end(h, true)
	}
	oldest := &closer{}
	for i := range maxHandshakes {
		c := &closer{}
		if i == 0 {
			c = oldest
		}
		if h, victim := s.begin(c, at(i/maxOfAddress), epoch); h == nil || victim != nil {
			t.Fatalf("no room for %d", i)
		}
	}
	if h, victim := s.begin(&closer{}, at(sources), epoch); h == nil || victim != oldest {
		t.Errorf("%v gives way, want the oldest of a source that has %d", victim, maxOfAddress)
	}
}

// A handshake costs a signature: a source that begins one after the other has its share of them, and no more.
func TestHandshakesOfOneSourceAreLimited(t *testing.T) {
	s := newHandshakes()
	now := epoch
	try := func(a netip.Addr, n int) (ok int) {
		for range n {
			if h, _ := s.begin(&closer{}, a, now); h != nil {
				s.end(h, true)
				ok++
			}
		}
		return ok
	}
	busy, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	if got := try(busy, 2*handshakesBurst); got != handshakesBurst {
		t.Errorf("%d handshakes at once, want %d", got, handshakesBurst)
	}
	if try(other, 1) != 1 {
		t.Error("another source pays for it")
	}
	now = now.Add(time.Second)
	if got := try(busy, 2*handshakesBurst); got != handshakesRate {
		t.Errorf("%d handshakes a second later, want %d", got, handshakesRate)
	}
	// Sources without end share one budget, until the first are full again.
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	s = newHandshakes()
	for i := range maxMembers {
		try(at(i), 1)
	}
	got := 0
	for i := range 2 * handshakesBurst {
		got += try(at(maxMembers+i), 1)
	}
	if got != handshakesBurst || len(s.rates) != maxMembers {
		t.Errorf("%d handshakes of sources beyond the table, want %d; %d budgets", got, handshakesBurst, len(s.rates))
	}
	now = now.Add(time.Minute)
	if try(at(5*maxMembers), 1) != 1 || len(s.rates) > 2 {
		t.Errorf("%d budgets are kept that are full again", len(s.rates))
	}
}
