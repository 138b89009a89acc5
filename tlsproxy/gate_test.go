package tlsproxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gateConn notes that the gate closed it.
type gateConn struct {
	net.Conn
	closed atomic.Bool
}

func (c *gateConn) Close() error { c.closed.Store(true); return nil }

func enter(t *testing.T, g *HandshakeGate, src string) (*gateConn, func(bool)) {
	t.Helper()
	c := &gateConn{}
	leave, ok := g.Enter(c, netip.MustParseAddr(src))
	if !ok {
		t.Fatalf("%s was turned away", src)
	}
	return c, leave
}

func TestGateDisplacesTheFlood(t *testing.T) {
	g := NewHandshakeGate(0, nil)
	honest, _ := enter(t, g, "192.0.2.1")
	flood := make([]*gateConn, DefaultHalfOpen-1)
	for i := range flood {
		flood[i], _ = enter(t, g, "203.0.113.9")
	}
	if s := g.Stats(); s.HalfOpen != DefaultHalfOpen || s.Displaced != 0 {
		t.Fatalf("one source may fill the gate while there is room: %+v", s)
	}
	newcomer, _ := enter(t, g, "192.0.2.2")
	if !flood[0].closed.Load() || flood[1].closed.Load() || honest.closed.Load() {
		t.Error("the oldest handshake of the flood should be closed, no other")
	}
	for range 3 * DefaultHalfOpen {
		enter(t, g, "203.0.113.9")
	}
	if honest.closed.Load() || newcomer.closed.Load() {
		t.Error("the flood displaced others")
	}
	if s := g.Stats(); s.HalfOpen != DefaultHalfOpen || s.MostUsed != DefaultHalfOpen || s.Displaced != 3*DefaultHalfOpen+1 {
		t.Errorf("stats %+v", s)
	}
}

func TestGateKeepsKnownSources(t *testing.T) {
	now := time.Now()
	g := NewHandshakeGate(100, func() time.Time { return now })
	_, leave := enter(t, g, "192.0.2.1")
	leave(true)
	leave(true)
	if s := g.Stats(); s.HalfOpen != 0 || s.Known != 1 {
		t.Fatalf("after a verified handshake: %+v", s)
	}
	known := make([]*gateConn, 0, 50)
	fill := func(n int, src string) {
		for range n {
			c, _ := enter(t, g, src)
			known = append(known, c)
		}
	}
	fill(reservedShare, "192.0.2.1")
	// A flood from many sources, one handshake each: more than the known source has from any of them.
	for i := range 1000 {
		enter(t, g, fmt.Sprintf("198.51.%d.%d", i/250, i%250))
	}
	for i, c := range known {
		if c.closed.Load() {
			t.Fatalf("handshake %d of the known source was displaced within its share", i)
		}
	}
	fill(1, "192.0.2.1")
	if known[reservedShare].closed.Load() {
		t.Error("the known source did not get in over its share while strangers were inside")
	}
	now = now.Add(knownFor)
	enter(t, g, "192.0.2.77")
	if !known[0].closed.Load() && !known[1].closed.Load() {
		// After an hour the source counts as all others; its many handshakes are then the most.
		fill(1, "192.0.2.1")
		if !known[0].closed.Load() {
			t.Error("a source is still known an hour after its handshake")
		}
	}
}

func TestGateFullOfKnownSources(t *testing.T) {
	g := NewHandshakeGate(4, nil)
	var inside []*gateConn
	for i := range 2 {
		src := fmt.Sprintf("192.0.2.%d", i)
		g.Known(netip.MustParseAddr(src))
		for range 2 {
			c, _ := enter(t, g, src)
			inside = append(inside, c)
		}
	}
	if leave, ok := g.Enter(&gateConn{}, netip.MustParseAddr("203.0.113.1")); ok || leave != nil {
		t.Error("a stranger got in although all room is reserved")
	}
	if s := g.Stats(); s.Refused != 1 || s.HalfOpen != 4 {
		t.Errorf("stats %+v", s)
	}
	g.Known(netip.MustParseAddr("192.0.2.9"))
	enter(t, g, "192.0.2.9")
	if !inside[0].closed.Load() || inside[1].closed.Load() {
		t.Error("the oldest handshake of the largest known source gives way to another known source")
	}
}

func TestGateCountsIPv6ByNetwork(t *testing.T) {
	g := NewHandshakeGate(3, nil)
	first, _ := enter(t, g, "2001:db8::1")
	second, _ := enter(t, g, "192.0.2.1")
	enter(t, g, "2001:db8::2")
	enter(t, g, "2001:db8::3")
	if !first.closed.Load() || second.closed.Load() {
		t.Error("addresses of one /64 are one source")
	}
	g.Known(netip.MustParseAddr("::ffff:192.0.2.5"))
	g.Known(netip.MustParseAddr("192.0.2.5"))
	if n := g.Stats().Known; n != 1 {
		t.Errorf("%d known sources, a mapped address is the same source", n)
	}
}

func TestGateForgetsTheOldestKnown(t *testing.T) {
	now := time.Now()
	g := NewHandshakeGate(1, func() time.Time { now = now.Add(time.Millisecond); return now })
	first := netip.MustParseAddr("10.0.0.0")
	addr := first
	for range maxKnown + 1 {
		g.Known(addr)
		addr = addr.Next()
	}
	if n := g.Stats().Known; n != maxKnown {
		t.Errorf("%d known sources, want the cap %d", n, maxKnown)
	}
	if g.isKnown(first) || !g.isKnown(first.Next()) {
		t.Error("the source verified longest ago should be forgotten, no other")
	}
}

func TestGateConcurrently(t *testing.T) {
	g := NewHandshakeGate(50, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			var leaves []func(bool)
			for range 2000 {
				src := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(6))})
				if leave, ok := g.Enter(&gateConn{}, src); ok {
					leaves = append(leaves, leave)
				}
				if len(leaves) > rng.IntN(20) {
					leaves[0](rng.IntN(2) == 0)
					leaves = leaves[1:]
				}
			}
			for _, leave := range leaves {
				leave(false)
			}
		})
	}
	wg.Wait()
	if s := g.Stats(); s.HalfOpen != 0 || s.MostUsed > 50 {
		t.Errorf("stats at the end %+v, want nobody inside and never more than 50", s)
	}
	if len(g.sources) != 0 || len(g.order) != 0 {
		t.Errorf("%d sources and %d in order are left", len(g.sources), len(g.order))
	}
}

func TestLimiter(t *testing.T) {
	l := NewLimiter(2)
	got := []bool{l.Acquire(), l.Acquire(), l.Acquire()}
	if got[0] != true || got[1] != true || got[2] != false {
		t.Errorf("three sessions at limit 2: %v", got)
	}
	l.SetMax(1)
	l.Release()
	if l.Acquire() {
		t.Error("a session over the lowered limit")
	}
	l.Release()
	l.Release()
	if !l.Acquire() || l.Acquire() {
		t.Error("one Release too many let more in than the limit")
	}
	if l.InUse() != 1 || l.MostUsed() != 2 || l.Refused() != 3 || l.Max() != 1 {
		t.Errorf("in use %d, most %d, refused %d, max %d", l.InUse(), l.MostUsed(), l.Refused(), l.Max())
	}
	l = NewLimiter(10)
	var wg sync.WaitGroup
	var inside atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if l.Acquire() {
					if inside.Add(1) > 10 {
						t.Error("more than the limit inside")
					}
					inside.Add(-1)
					l.Release()
				}
			}
		})
	}
	wg.Wait()
	if l.InUse() != 0 {
		t.Errorf("%d in use at the end", l.InUse())
	}
}
