package pvp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

func TestRatesAtTheirCap(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRates[int](2, 1, 3)
	for k := range 3 {
		if n := granted(r, k, now); n != 2 {
			t.Fatalf("key %d: %d of three taken, the burst is 2", k, n)
		}
	}
	// No room and none refilled: all newcomers together have one bucket.
	got := 0
	for k := 3; k < 100; k++ {
		if r.take(k, now) {
			got++
		}
	}
	if got != 2 || r.size() != 3 || r.shared != 97 {
		t.Fatalf("newcomers got %d, %d entries, %d shared", got, r.size(), r.shared)
	}
	// After two seconds the old entries are full again and give way.
	now = now.Add(2 * time.Second)
	if !r.take(200, now) || r.size() != 1 {
		t.Fatalf("%d entries", r.size())
	}
	r.take(200, now)
	r.giveBack(200, 5, now)
	if n := granted(r, 200, now); n != 2 {
		t.Fatalf("giving back went beyond the burst: %d of three taken", n)
	}
}

// granted says how many of three tokens there were.
func granted(r *rates[int], key int, now time.Time) (n int) {
	for range 3 {
		if r.take(key, now) {
			n++
		}
	}
	return n
}

type fakeCloser struct{ closed bool }

func (f *fakeCloser) Close() error { f.closed = true; return nil }

func TestPendingGivesWay(t *testing.T) {
	p := newPending(4, 2)
	known, flood := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	e, _, _ := p.add(&fakeCloser{}, known)
	p.remove(e, known, true)
	mine := &fakeCloser{}
	if _, _, ok := p.add(mine, known); !ok {
		t.Fatal("no room in an empty table")
	}
	var oldest io.Closer
	for i := range 100 {
		c := &fakeCloser{}
		if i == 0 {
			oldest = c
		}
		_, victim, ok := p.add(c, flood)
		if !ok || victim == mine {
			t.Fatalf("connection %d: ok %v, victim is the known source's: %v", i, ok, victim == mine)
		}
		if i == 3 && victim != oldest {
			t.Fatal("not the oldest gave way")
		}
	}
	if p.size() != 4 {
		t.Fatalf("%d pending", p.size())
	}
	// A known source holds a quarter of the table as such, and not all of it.
	for i := range 100 {
		if _, _, ok := p.add(&fakeCloser{}, known); !ok && i < 3 {
			t.Fatalf("known source refused at %d", i)
		}
	}
	if _, _, ok := p.add(&fakeCloser{}, flood); !ok {
		t.Fatal("one known source keeps all others out")
	}
	for i := range 10 {
		a := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		e, _, ok := p.add(&fakeCloser{}, a)
		if !ok {
			t.Fatal("refused")
		}
		p.remove(e, a, true)
	}
	if len(p.known) != 2 || p.order.Len() != 2 {
		t.Fatalf("%d known sources, cap is 2", len(p.known))
	}
}

func TestBudgetAtItsCap(t *testing.T) {
	b := newBudget(2, 5, 3)
	peer := func(i int) learn.PeerID { return learn.PeerID{byte(i)} }
	for i, spend := range []struct {
		peer int
		want bool
	}{{1, true}, {1, true}, {1, false}, {2, true}, {2, true}, {3, true}, {3, false}, {4, false}} { // 2 of one peer, 5 in all
		if got := b.spend(1, peer(spend.peer)); got != spend.want {
			t.Fatalf("guess %d, of peer %d: %v", i, spend.peer, got)
		}
	}
	b.giveBack(1, peer(3))
	if !b.spend(1, peer(4)) || b.spend(1, peer(5)) || b.refused != 4 {
		t.Fatalf("giving back one did not free one; refused %d", b.refused)
	}
	b.giveBack(1, peer(9)) // it has spent nothing
	if b.spend(1, peer(5)) {
		t.Fatal("a guess was given back that was never spent")
	}
	for id := uint64(2); id < 10; id++ {
		b.spend(id, peer(1))
	}
	if len(b.m) != 3 || b.order.Len() != 3 || b.evicted != 6 {
		t.Fatalf("%d entries, %d evicted", len(b.m), b.evicted)
	}
	b.spend(9, peer(1))
	b.giveBack(9, peer(1))
	b.giveBack(9, peer(1))
	b.forget(8)
	if len(b.m) != 1 || b.order.Len() != 1 {
		t.Fatalf("%d entries are left of one that has spent something", len(b.m))
	}
}

func TestLimitsThatMakeNoSense(t *testing.T) {
	if _, err := (Limits{Pending: -1}).withDefaults(); err == nil {
		t.Error("a negative limit was accepted")
	}
	if _, err := (Limits{Frame: -1}).withDefaults(); err == nil {
		t.Error("a negative time was accepted")
	}
}

// A peer that proves nothing is turned away, and nobody else is; its time comes again.
func TestPeerOfWrongGuesses(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.PeerBurst = 4 })
	guesser, honest := w.client(peerC), w.client(peerA)
	if r := w.validate(guesser, callOf(), WithCaller); r.Outcome != FailedProof || r.Runs != 3 {
		t.Fatalf("first: %+v", r)
	}
	r := w.validate(guesser, callOf(), WithCaller)
	if r.Outcome != FailedProof || r.Runs != 1 || !errors.Is(r.Err, ErrBusy) {
		t.Fatalf("second: %+v", r)
	}
	r = w.validate(guesser, callOf(), WithCaller)
	if r.Outcome != Unreachable || !errors.Is(r.Err, ErrBusy) {
		t.Fatalf("third: %+v", r)
	}
	until(t, "the limit counted", func() bool { return w.counters.PeerLimited.Load() == 2 })
	w.add(1, seenBy(callOf(), 0, 0))
	if r := w.validate(honest, callOf(), WithCaller); r.Outcome != Success {
		t.Fatalf("another peer: %+v", r)
	}
	w.pass(20 * time.Minute) // 12 runs an hour
	w.add(2, seenBy(callOf(), 0, 0))
	if r := w.validate(guesser, callOf(), WithCaller); r.Outcome != Success {
		t.Fatalf("the peer, later: %+v", r)
	}
}

// A certificate with several peer IDs is one peer.
func TestPeerIDsShareALimit(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.PeerBurst = 3 })
	m := w.ring.member(t, peerC, peerA)
	for i, own := range []learn.PeerID{peerA, peerC} {
		c, err := NewClient(ClientConfig{Identity: m, Own: own, Domain: "a.example"})
		if err != nil {
			t.Fatal(err)
		}
		want := []Outcome{FailedProof, Unreachable}[i]
		if r := w.validate(c, callOf(), WithCaller); r.Outcome != want {
			t.Errorf("under %v: %+v, want %v", own, r, want)
		}
	}
}

// holdRun opens a validation that occupies a place until its connection is closed.
func holdRun(w *world, m *member, own learn.PeerID) *tls.Conn {
	conn := w.dialTLS(m)
	sh := newShare([]byte("x"), nil, nil)
	st := &start{method: WithCaller, originator: own, terminator: peerB, public: sh.public}
	if err := writeFrame(conn, frameStart, st.encode()); err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := readFrame(conn, frameOffer); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

func TestConcurrentTerminating(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.Terminating = 2 })
	one, two := holdRun(w, w.ring.member(t, peerA), peerA), holdRun(w, w.ring.member(t, peerC), peerC)
	r := w.validate(w.client(peerA), callOf(), WithCaller)
	if r.Outcome != Unreachable || !errors.Is(r.Err, ErrBusy) || w.counters.BlockedValidationTermTLSLimit.Load() != 1 {
		t.Fatalf("%+v, BlockedValidationTermTLSLimit %d", r, w.counters.BlockedValidationTermTLSLimit.Load())
	}
	_, _ = one.Close(), two.Close()
	until(t, "the places free", func() bool { return w.counters.Terminating.Load() == 0 })
	w.add(1, seenBy(callOf(), 0, 0))
	if r := w.validate(w.client(peerA), callOf(), WithCaller); r.Outcome != Success {
		t.Fatalf("afterwards: %+v", r)
	}
}

func TestConcurrentOfOnePeer(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.PerPeer = 1 })
	holdRun(w, w.ring.member(t, peerC), peerC)
	w.add(1, seenBy(callOf(), 0, 0))
	if r := w.validate(w.client(peerC), callOf(), WithCaller); r.Outcome != Unreachable || !errors.Is(r.Err, ErrBusy) {
		t.Fatalf("the same peer: %+v", r)
	}
	if r := w.validate(w.client(peerA), callOf(), WithCaller); r.Outcome != Success {
		t.Fatalf("another one: %+v", r)
	}
}

func TestConcurrentOriginating(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	w := newWorld(t, nil)
	c, err := NewClient(ClientConfig{Identity: w.ring.member(t, peerA), Own: peerA, Domain: "a.example", Limits: Limits{Originating: 3, PerPeer: 2}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan Result)
	hold := func(peer learn.PeerID) {
		before := c.Counters.Originating.Load()
		go func() { done <- c.Validate(ctx, ln.Addr().String(), peer, callOf(), WithCaller) }()
		until(t, "one more under way", func() bool { return c.Counters.Originating.Load() == before+1 })
	}
	w.add(1, seenBy(callOf(), 0, 0))
	hold(peerC)
	hold(peerC)
	for i, want := range []error{ErrLimit, nil, ErrLimit} {
		peer, addr := peerC, ln.Addr().String() // a third with the same peer
		switch i {
		case 1: // another peer
			peer, addr = peerB, w.addr
		case 2: // a fourth at a time
			hold(peerA)
			peer, addr = peerB, w.addr
		}
		r := c.Validate(context.Background(), addr, peer, callOf(), WithCaller)
		if (r.Outcome == Success) != (want == nil) || !errors.Is(r.Err, want) {
			t.Errorf("validation %d: %+v, want %v", i, r, want)
		}
	}
	if n := c.Counters.BlockedValidationOrigTLSLimit.Load(); n != 2 {
		t.Errorf("BlockedValidationOrigTLSLimit %d", n)
	}
	cancel()
	for range 3 {
		<-done
	}
	if len(c.slots) != 0 || len(c.running.m) != 0 {
		t.Error("places are not given back")
	}
}

// Half-open connections drive out each other, and a source that has finished a handshake still gets in.
func TestHalfOpenConnections(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.Pending, c.Limits.SourceBurst = 4, 1000 })
	var held []net.Conn
	for range 12 {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		defer func() { _ = conn.Close() }()
	}
	_ = held[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := held[0].Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the oldest half-open connection was not closed: %v", err)
	}
	until(t, "eight driven out", func() bool { return w.counters.PendingEvicted.Load() == 8 && w.counters.Pending.Load() == 4 })
	if n := w.counters.BlockedValidationTermTLSLimit.Load(); n != 8 {
		t.Errorf("BlockedValidationTermTLSLimit %d", n)
	}
	w.add(1, seenBy(callOf(), 0, 0))
	if r := w.validate(w.client(peerA), callOf(), WithCaller); r.Outcome != Success {
		t.Fatalf("%+v", r)
	}
}

func TestConnectionsOfOneSource(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.SourceBurst, c.Limits.SourcePerMinute = 3, 60 })
	c := w.client(peerA)
	for range 3 {
		if r := w.validate(c, callOf(), WithCaller); r.Outcome != FailedProof {
			t.Fatalf("%+v", r)
		}
	}
	if r := w.validate(c, callOf(), WithCaller); r.Outcome != Unreachable || w.counters.SourceLimited.Load() != 1 {
		t.Fatalf("%+v, %d limited", r, w.counters.SourceLimited.Load())
	}
	w.pass(time.Second)
	if r := w.validate(c, callOf(), WithCaller); r.Outcome != FailedProof {
		t.Fatalf("a second later: %+v", r)
	}
}

func TestMoreRunsThanAllowed(t *testing.T) {
	w := newWorld(t, nil)
	conn := holdRun(w, w.ring.member(t, peerA), peerA)
	sh := newShare([]byte("x"), nil, nil)
	st := &start{method: WithCaller, originator: peerA, terminator: peerB, public: sh.public}
	for run := 1; run <= maxRuns; run++ {
		if err := writeFrame(conn, frameStart, st.encode()); err != nil {
			t.Fatal(err)
		}
		_, _, err := readFrame(conn, frameOffer)
		if (err != nil) != (run == maxRuns) {
			t.Fatalf("run %d: %v", run+1, err)
		}
	}
	if w.counters.Malformed.Load() != 1 {
		t.Error("not counted")
	}
}

func TestIndexAtItsCap(t *testing.T) {
	x := NewIndex(3, nil)
	v := seenBy(callOf(), 0, 0)
	at := func(i int) learn.VCR {
		v := v
		v.Stop = v.Stop.Add(time.Duration(i) * time.Minute)
		return v
	}
	for i := 1; i <= 3; i++ {
		if _, was, err := x.Add(uint64(i), at(i)); was || err != nil {
			t.Fatal(was, err)
		}
	}
	if _, _, err := x.Add(9, at(0)); !errors.Is(err, ErrIndexFull) {
		t.Fatalf("an older one at the cap: %v", err)
	}
	if id, was, err := x.Add(4, at(4)); id != 1 || !was || err != nil {
		t.Fatalf("a newer one at the cap: evicted %d %v, %v", id, was, err)
	}
	var ids []uint64
	for _, c := range x.Candidates(Selector(v.Called), 2) {
		ids = append(ids, c.ID)
	}
	if fmt.Sprint(ids) != "[4 3]" || len(x.Candidates(Selector(v.Called)+1, 2)) != 0 {
		t.Fatalf("candidates %v, want the two newest", ids)
	}
	if first, err := x.Prove(4, peerA); !first || err != nil {
		t.Fatal(first, err)
	}
	if first, err := x.Prove(4, peerA); first || err != nil {
		t.Fatalf("proven twice: %v %v", first, err)
	}
	if n := x.Expire(at(2).Stop.Add(time.Second)); n != 1 || x.Len() != 1 {
		t.Fatalf("expired %d, left %d", n, x.Len())
	}
	x.Remove(3)
	if x.Len() != 0 || len(x.lines) != 0 {
		t.Fatal("something is left")
	}
	if _, _, err := x.Add(5, callOf()); err == nil {
		t.Fatal("an originating VCR was indexed")
	}
}

// Removals and expiry in whatever order leave no entry behind.
func TestIndexForgetsAll(t *testing.T) {
	x := NewIndex(1000, nil)
	v := seenBy(callOf(), 0, 0)
	for i := range 1000 {
		c := v
		c.Stop = v.Stop.Add(time.Duration(i*7919%1000) * time.Second)
		if _, _, err := x.Add(uint64(i), c); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < 1000; i += 2 {
		x.Remove(uint64(i))
	}
	if n := x.Expire(v.Stop.Add(time.Hour)); n != 500 || x.Len() != 0 || len(x.lines) != 0 || len(x.stops) != 0 {
		t.Fatalf("expired %d, left %d, %d lines, %d stops", n, x.Len(), len(x.lines), len(x.stops))
	}
}

// A peer says itself where it is: whoever claims numbers at somebody else's address does not have us knock there for each call, and nobody else suffers for it.
func TestConnectionsToOneHostAreLimited(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(peerA)
	now := w.clock()
	c.Now = func() time.Time { return now }
	dialled := map[string]int{}
	c.Dial = func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled[addr]++
		return nil, errors.New("refused")
	}
	knock := func(addr string, n int) (last error) {
		for range n {
			r := c.Validate(t.Context(), addr, peerB, callOf(), WithCaller)
			if r.Outcome != Unreachable {
				t.Fatalf("%s: %+v", addr, r)
			}
			last = r.Err
		}
		return last
	}
	if err := knock("192.0.2.9:8470", 20); !errors.Is(err, ErrTarget) || dialled["192.0.2.9:8470"] != 16 {
		t.Errorf("%d connections to one host, want 16; last %v", dialled["192.0.2.9:8470"], err)
	}
	if knock("192.0.2.9:2000", 1); dialled["192.0.2.9:2000"] != 0 {
		t.Error("another port of the same host is tried")
	}
	if knock("192.0.2.10:8470", 1); dialled["192.0.2.10:8470"] != 1 {
		t.Error("another host is not tried")
	}
	if err := knock("victim.example:8470", 1); err == nil || len(dialled) != 2 {
		t.Errorf("a name is resolved for a peer: %v, %v", dialled, err)
	}
	if got := c.Counters.TargetLimited.Load(); got != 5 {
		t.Errorf("%d are counted, want 5", got)
	}
	now = now.Add(time.Minute)
	if knock("192.0.2.9:8470", 1); dialled["192.0.2.9:8470"] != 17 {
		t.Error("a host that was tried in vain is not tried a minute later")
	}
	// Where the peer is, no limit is reached.
	c.Dial = (&net.Dialer{}).DialContext
	for i := range 20 {
		if r := c.Validate(t.Context(), w.addr, peerB, callOf(), WithCaller); errors.Is(r.Err, ErrTarget) { // BUSY comes in the end: it has proven nothing
			t.Fatalf("validation %d with the peer itself: %v", i, r.Err)
		}
	}
}

// noted are guesses kept in a test's memory.
type noted struct {
	spent map[uint64]int
	calls int
	err   error
}

func (n *noted) Spend(vcrs []uint64, _ learn.PeerID) error {
	n.calls++
	for _, id := range vcrs {
		n.spent[id]++
	}
	return n.err
}

func (n *noted) GiveBack(vcrs []uint64, _ learn.PeerID) error {
	for _, id := range vcrs {
		n.spent[id]--
	}
	return nil
}

func (n *noted) EachSpent(f func(uint64, learn.PeerID, int) error) error {
	for id, runs := range n.spent {
		if err := f(id, peerA, runs); err != nil {
			return err
		}
	}
	return n.err
}

// Guesses are durable before an OFFER is sent, whether there was anything to guess at or not, and those of a good proof are given back.
func TestGuessesAreStored(t *testing.T) {
	n := &noted{spent: map[uint64]int{}}
	w := newWorld(t, func(c *ServerConfig) { c.Guesses = n })
	w.add(1, seenBy(callOf(), 0, 0))
	w.add(2, seenBy(callOf(), time.Hour, time.Hour))
	other := callOf()
	other.Caller = "+13105550199"
	nothing := callOf()
	nothing.Called = "+14085559999"
	for _, step := range []struct {
		v       learn.VCR
		want    Outcome
		runs    int
		one, to int
	}{
		{other, FailedProof, 3, 3, 3},
		{nothing, FailedProof, 6, 3, 3},
		{callOf(), Success, 7, 3, 3},
	} {
		if r := w.validate(w.client(peerA), step.v, WithCaller); r.Outcome != step.want {
			t.Fatalf("%+v, want %v", r, step.want)
		}
		if n.calls != step.runs || n.spent[1] != step.one || n.spent[2] != step.to {
			t.Errorf("%d runs were stored and %v is spent, want %d and %d, %d", n.calls, n.spent, step.runs, step.one, step.to)
		}
	}
	// Another server of the same store: what is spent stays so.
	n.spent = map[uint64]int{1: 8, 2: 7}
	w = newWorld(t, func(c *ServerConfig) { c.Guesses = n })
	w.add(1, seenBy(callOf(), 0, 0))
	if r := w.validate(w.client(peerA), callOf(), WithCaller); r.Outcome != FailedProof {
		t.Errorf("a call is proven that has no guesses left: %+v", r)
	}
	if w.server.budget.left(1, peerA) || !w.server.budget.left(2, peerA) || !w.server.budget.left(1, peerC) {
		t.Error("what is left is not what was not spent")
	}
}

// Without room for them nobody may guess: it would be for nothing.
func TestGuessesThatCannotBeStored(t *testing.T) {
	n := &noted{spent: map[uint64]int{}}
	w := newWorld(t, func(c *ServerConfig) { c.Guesses = n })
	w.add(1, seenBy(callOf(), 0, 0))
	n.err = errors.New("disk full")
	if r := w.validate(w.client(peerA), callOf(), WithCaller); r.Outcome != Unreachable || w.counters.Unavailable.Load() != 1 {
		t.Errorf("%+v, want that the peer is told to come later", r)
	}
	if _, err := NewServer(ServerConfig{Identity: w.ring.member(t, peerB), Records: w.index, Trust: trustAll{}, Issuer: w.server.Issuer, Guesses: n}); err == nil {
		t.Error("a server starts without knowing what was spent")
	}
}
