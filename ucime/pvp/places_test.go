package pvp

import (
	"net/netip"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// Peers that take all places of the called side and do nothing with them give way to one that has a call to prove.
func TestIdleValidationsKeepNobodyOut(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.Terminating = 2 })
	one, two := w.dialTLS(w.ring.member(t, peerC)), w.dialTLS(w.ring.member(t, learn.PeerID{77}))
	until(t, "both have a place", func() bool { return w.counters.Terminating.Load() == 2 })
	w.add(1, seenBy(callOf(), 0, 0))
	w.pass(placeTime)
	if r := w.validate(w.client(peerA), callOf(), WithCaller); r.Outcome != Success {
		t.Fatalf("%+v", r)
	}
	if n := w.counters.BlockedValidationTermTLSLimit.Load(); n != 1 {
		t.Errorf("%d gave way, want one", n)
	}
	_, _ = one.Close(), two.Close()
	until(t, "the places free", func() bool { return w.counters.Terminating.Load() == 0 })
}

func TestWhoseValidationGivesWay(t *testing.T) {
	now := time.Unix(1000, 0)
	network := func(i int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i), 0}), 24) }
	s := places{most: 4}
	enter := func(peer byte, net int, ago time.Duration) *place {
		t.Helper()
		mine, victim := s.enter(place{peer: learn.PeerID{peer}, network: network(net)}, now.Add(-ago))
		if mine == nil || victim != nil {
			t.Fatalf("no room: %v", victim)
		}
		return mine
	}
	oldest := enter(1, 1, 9*time.Second)
	busy := enter(2, 2, 8*time.Second)
	busier := enter(3, 2, 5*time.Second)
	enter(3, 2, time.Second)
	expect := func(want *place) {
		t.Helper()
		mine, victim := s.enter(place{peer: learn.PeerID{9}, network: network(9)}, now)
		if victim != want || (mine == nil) != (want == nil) {
			t.Errorf("%+v gives way, want %+v", victim, want)
		}
		if mine != nil {
			s.leave(mine)
			s.leave(victim) // as its goroutine does in the end
		}
	}
	expect(busier) // of the busiest network the busiest peer's, and the other of that has not had its time yet
	enter(4, 3, time.Second)
	expect(busy)
	enter(5, 4, time.Second)
	expect(oldest)
	enter(6, 5, time.Second)
	expect(nil)
	if len(s.open) != 4 {
		t.Errorf("%d places are taken", len(s.open))
	}
}

// Sources that have finished a handshake before share the places of half-open connections with others that have.
func TestKnownSourcesGiveWay(t *testing.T) {
	p := newPending(8, 100)
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}) }
	for i := range 5 {
		e, _, _ := p.add(&fakeCloser{}, at(i))
		p.remove(e, at(i), true)
	}
	oldest := &fakeCloser{}
	for i := range 4 {
		for k := range 2 {
			c := &fakeCloser{}
			if i == 0 && k == 0 {
				c = oldest
			}
			if _, victim, ok := p.add(c, at(i)); !ok || victim != nil {
				t.Fatalf("no room for %d %d", i, k)
			}
		}
	}
	if _, victim, ok := p.add(&fakeCloser{}, at(4)); !ok || victim != oldest || p.size() != 8 {
		t.Errorf("ok %t, victim %v, %d pending: want the oldest of a source with two to give way", ok, victim, p.size())
	}
	if _, _, ok := p.add(&fakeCloser{}, at(1)); ok {
		t.Error("a source drives out another that has no more than it")
	}
}
