package mediaterm

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// Freed ports rest; a range that is used up or resting refuses and then recovers.
func TestPortRestAndExhaustion(t *testing.T) {
	c := newClock()
	term := newTerminator(t, Config{
		Addresses: []netip.Addr{ourInside, ourOutside}, MinPort: 21001, MaxPort: 21008, Now: c.now,
	})
	params := StreamParams{Inside: ourInside, Outside: ourOutside}
	var streams []*Stream
	for i := range 3 { // 21002-3, 21004-5, 21006-7; 21008 has no partner
		s, err := term.NewStream(params)
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		if want := uint16(21002 + 2*i); s.Local(Inside).Port() != want || s.Local(Outside).Port() != want {
			t.Errorf("stream %d has ports %s and %s, want %d", i, s.Local(Inside), s.Local(Outside), want)
		}
		streams = append(streams, s)
	}
	if _, err := term.NewStream(params); !errors.Is(err, ErrNoPorts) {
		t.Errorf("fourth stream: %v", err)
	}
	streams[1].Close()
	streams[1].Close()
	c.add(leastRest - time.Nanosecond)
	if _, err := term.NewStream(params); !errors.Is(err, ErrNoPorts) {
		t.Errorf("a resting port was given: %v", err)
	}
	if got := term.Counters(); got.InUse != 4 || got.Resting != 2 || got.MostInUse != 6 || got.PortPairs != 6 || got.RefusedPorts != 2 || got.Streams != 2 {
		t.Errorf("counters %+v", got)
	}
	c.add(time.Nanosecond)
	s, err := term.NewStream(params)
	if err != nil || s.Local(Outside).Port() != 21004 {
		t.Errorf("after the least rest: %v", err)
	}
	streams[2].Close()
	s.Close()
	c.add(DefaultRest - time.Nanosecond)
	if s, err = term.NewStream(params); err != nil || s.Local(Outside).Port() != 21006 {
		t.Errorf("where all others are in use or rest, the one that has rested longest: %v", err)
	}
	c.add(time.Nanosecond)
	if s, err = term.NewStream(params); err != nil || s.Local(Outside).Port() != 21004 {
		t.Errorf("after the rest: %v", err)
	}
}

// Rotation: a port that is free again waits until all others have had their turn.
func TestPortRotation(t *testing.T) {
	pool := newPortPool(ourInside, 1024, 1043, 0) // ten pairs, no rest
	now := time.Now()
	var last uint16
	for i := range 25 {
		got, ok := pool.take(now, 0, 1)
		if !ok {
			t.Fatal("refused")
		}
		if want := uint16(1024 + 2*(i%10)); got != want {
			t.Errorf("turn %d: port %d, want %d", i, got, want)
		}
		last = got
		pool.release(last, now)
	}
	pool.release(last, now) // twice: no harm
	if pool.used != 0 || pool.most != 1 {
		t.Errorf("used %d, most %d", pool.used, pool.most)
	}
}

// The whole range of a pool comes out once, however takes and releases mix.
func TestPortPoolNeverGivesTwice(t *testing.T) {
	pool := newPortPool(ourInside, 60000, 65535, time.Minute)
	now := time.Now()
	held := map[uint16]bool{}
	for i := range 20000 {
		if i%3 != 2 {
			if p, ok := pool.take(now, 0, 1); ok {
				if held[p] || p%2 != 0 || p < 60000 {
					t.Fatalf("port %d given twice or out of range", p)
				}
				held[p] = true
			}
			continue
		}
		for p := range held {
			delete(held, p)
			pool.release(p, now)
			break
		}
		now = now.Add(100 * time.Millisecond)
	}
	if pool.used != len(held) {
		t.Errorf("pool counts %d, %d are held", pool.used, len(held))
	}
}

// A late packet to a freed port is answered by nobody, and the next stream, which has
// other ports, does not hear it.
func TestNewCallDoesNotHearTheOld(t *testing.T) {
	r := newRig(t, nil)
	r.setCrypto(Outside, nil, nil)
	old := r.our(Inside, portRTP)
	r.stream.Close()
	s, err := r.term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside})
	if err != nil {
		t.Fatal(err)
	}
	if s.Local(Inside) == old {
		t.Fatal("the freed port was given at once")
	}
	r.stream = s
	r.setCrypto(Outside, nil, nil)
	r.setRemote(Inside, r.phone.remote())
	r.setRemote(Outside, r.far.remote())
	send(t, r.phone.rtp, old, rtpPacket(1, 1))
	send(t, r.phone.rtp, s.Local(Inside), rtpPacket(3, 1))
	expect(t, r.far.rtp, rtpPacket(3, 1))
}

// Ports that another program holds are passed over and counted.
func TestPortConflict(t *testing.T) {
	c := newClock()
	taken, err := listen(netip.AddrPortFrom(ourOutside, 22001)) // an RTCP port
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if testEngine != nil { // the kernel's list of sockets, which it may have read just before
		testEngine.held.forget()
	}
	term := newTerminator(t, Config{Addresses: []netip.Addr{ourInside, ourOutside}, MinPort: 22000, MaxPort: 22003, Now: c.now})
	s, err := term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside})
	if err != nil {
		t.Fatal(err)
	}
	if s.Local(Outside).Port() != 22002 || term.Counters().PortConflicts != 1 {
		t.Errorf("port %d, %d conflicts", s.Local(Outside).Port(), term.Counters().PortConflicts)
	}
}

// Many pairs in a row that are held, as by the calls of an earlier configuration, cost no call.
func TestPortConflicts(t *testing.T) {
	const held = 300
	cfg := Config{Addresses: []netip.Addr{ourInside, ourOutside}, MinPort: 24000, MaxPort: 24000 + 2*held + 1, Now: newClock().now}
	earlier := newTerminator(t, cfg)
	for range held {
		if _, err := earlier.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := newTerminator(t, cfg).NewStream(StreamParams{Inside: ourInside, Outside: ourOutside})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Local(Inside).Port(); got != 24000+2*held {
		t.Errorf("port %d", got)
	}
}

// One global address for both sides.
func TestGlobalAddress(t *testing.T) {
	term := newTerminator(t, Config{Addresses: []netip.Addr{ourInside}, MinPort: 23000, MaxPort: 23005})
	s, err := term.NewStream(StreamParams{Inside: ourInside, Outside: ourInside})
	if err != nil {
		t.Fatal(err)
	}
	if s.Local(Inside) == s.Local(Outside) {
		t.Errorf("both legs have %s", s.Local(Inside))
	}
	// One pair left, a stream needs two: refused, and the pair is not lost.
	if _, err := term.NewStream(StreamParams{Inside: ourInside, Outside: ourInside}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("error %v", err)
	}
	if c := term.Counters(); c.InUse != 2 || c.Resting != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestAddressErrorsSayWhatToDo(t *testing.T) {
	missing := netip.MustParseAddr("203.0.113.77")
	_, err := New(Config{Addresses: []netip.Addr{ourInside, missing}})
	var bind *BindError
	if !errors.As(err, &bind) || bind.Addr.Addr() != missing {
		t.Fatalf("error %v", err)
	}
	for _, word := range []string{"203.0.113.77", "no interface has this address", "ip address add 203.0.113.77/32"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	for name, cfg := range map[string]Config{
		"none":            {},
		"multicast":       {Addresses: []netip.Addr{netip.MustParseAddr("239.0.0.1")}},
		"unspecified":     {Addresses: []netip.Addr{netip.IPv4Unspecified()}},
		"range too small": {Addresses: []netip.Addr{ourInside}, MinPort: 2001, MaxPort: 2002},
		"range reversed":  {Addresses: []netip.Addr{ourInside}, MinPort: 30000, MaxPort: 20000},
	} {
		if term, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = term.Close()
		}
	}
}

func TestUnknownAddress(t *testing.T) {
	term := newTerminator(t, Config{Addresses: []netip.Addr{ourInside}})
	if _, err := term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside}); !errors.Is(err, ErrUnknownAddress) {
		t.Errorf("error %v", err)
	}
}

func TestIPv6(t *testing.T) {
	if testEngine != nil {
		if term, err := New(Config{Addresses: []netip.Addr{netip.IPv6Loopback()}, Engine: testEngine}); err == nil {
			_ = term.Close()
			t.Error("engine tproxy took an IPv6 address")
		}
		return
	}
	six := netip.IPv6Loopback()
	probe, err := listen(netip.AddrPortFrom(six, 0))
	if err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	}
	probe.Close()
	term := newTerminator(t, Config{Addresses: []netip.Addr{ourInside, six}, MinPort: 24000, MaxPort: 24100})
	s, err := term.NewStream(StreamParams{Inside: ourInside, Outside: six})
	if err != nil {
		t.Fatal(err)
	}
	phone := newEndpoint(t, phoneAddr)
	far, err := listen(netip.AddrPortFrom(six, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for _, err := range []error{
		s.SetCrypto(Outside, nil, nil), s.SetRemote(Inside, phone.remote()), s.SetRemote(Outside, Remote{RTP: addrOf(far)}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	send(t, phone.rtp, s.Local(Inside), rtpPacket(1, 1))
	if got, from := recv(t, far); !bytes.Equal(got, rtpPacket(1, 1)) || from != s.Local(Outside) {
		t.Errorf("got %x from %s", got, from)
	}
	send(t, far, s.Local(Outside), rtpPacket(2, 1))
	expect(t, phone.rtp, rtpPacket(2, 1))
}
