package ring

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// both waits until two members find each other's numbers.
func both(t testing.TB, a, b *Ring, ofA, ofB learn.Number) {
	t.Helper()
	for _, x := range []struct {
		r *Ring
		n learn.Number
	}{{a, ofB}, {b, ofA}} {
		await(t, x.r, "number "+string(x.n)+" is found", func(Status) bool {
			c, err := x.r.Lookup(context.Background(), x.n)
			return err == nil && len(c) == 1
		})
	}
}

// A member that is revoked loses the connections that stand, in either direction, as soon as a member learns of it; nobody else does.
func TestRevokedMemberLosesItsConnections(t *testing.T) {
	b, boot := newBench(t)
	badID := b.a.identity(t, false, peer("bad"))
	bad, good := b.start(badID, nil), b.start(b.a.identity(t, false, peer("good")), nil)
	for _, r := range []*Ring{boot, bad, good} {
		await(t, r, "three members", members(3))
	}
	open := func(r *Ring) net.Conn {
		c, _, err := r.w.dial(t.Context(), b.boot, alpnRing, learn.PeerID{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := exchange(t.Context(), c, typeHello, r.n.descRaw); err != nil {
			t.Fatal(err)
		}
		return c
	}
	ofBad, ofGood := open(bad), open(good)
	if _, err := boot.q.call(t.Context(), boot.n.member(badID.party(t).name), typePing, nil); err != nil {
		t.Fatal(err)
	}
	await(t, boot, "the bootstrap server gossips to both", func(Status) bool { return len(boot.g.dialled()) == 2 })
	b.a.revoke(badID)
	boot.Recheck()
	if err := ofBad.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := ofBad.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the revoked member's connection stands: %v", err)
	}
	if _, err := exchange(t.Context(), ofGood, typePing, nil); err != nil {
		t.Errorf("the other member's connection: %v", err)
	}
	for _, c := range append(boot.q.kept(), boot.g.dialled()...) {
		s, _ := tlsOf(c)
		if p, err := describe(badID, s.PeerCertificates[0]); err == nil && p.name == badID.party(t).name {
			if _, err := c.Write([]byte{0}); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("a connection to the revoked member stands: %v", err)
			}
		}
	}
	good.Recheck()
	for _, r := range []*Ring{boot, good} {
		await(t, r, "two members", members(2))
	}
}

// A member whose TLS fails for a while, towards everybody, is lost; when it is well again it is found, and numbers are found both ways, without anybody's doing.
func TestMemberComesBackAfterTLSFailed(t *testing.T) {
	b, boot := newBench(t)
	id := b.a.identity(t, false, peer("one"))
	one, other := b.start(id, nil), b.start(b.a.identity(t, false, peer("two")), nil)
	for i, r := range []*Ring{one, other} {
		if err := r.Publish(numbers(10*i, 1)); err != nil {
			t.Fatal(err)
		}
		await(t, r, "its number lies with all three", func(s Status) bool { return s.Members == 3 && s.Placed == 1 })
	}
	both(t, one, other, numbers(0, 1)[0], numbers(10, 1)[0])
	id.setBlind(true)
	one.Recheck()
	for _, r := range []*Ring{boot, other} {
		await(t, r, "the member is lost", members(2))
	}
	await(t, one, "it has lost all others", func(s Status) bool { return s.Members == 1 && s.Health == Red })
	id.setBlind(false)
	for _, r := range []*Ring{boot, one, other} {
		await(t, r, "all are back", members(3))
	}
	await(t, one, "it is well again", func(s Status) bool { return s.Health == Green })
	both(t, one, other, numbers(0, 1)[0], numbers(10, 1)[0])
}

// A member, and a bootstrap server, that renews its certificate with another key stays in the ring, and who joins then sees everybody.
func TestRenewalKeepsTheRing(t *testing.T) {
	a := newAuthority(t)
	b := &bench{t: t, a: a}
	bootID := a.identity(t, true, peer("boot"))
	boot := b.start(bootID, func(c *Config) { c.Bootstrap, c.Settings = true, cheapSettings() })
	b.boot = boot.Addr().String()
	id := a.identity(t, false, peer("one"))
	one, other := b.start(id, nil), b.start(a.identity(t, false, peer("two")), nil)
	for i, r := range []*Ring{one, other} {
		if err := r.Publish(numbers(10*i, 1)); err != nil {
			t.Fatal(err)
		}
		await(t, r, "its number lies with all three", func(s Status) bool { return s.Members == 3 && s.Placed == 1 })
	}
	for name, x := range map[string]struct {
		id *testIdentity
		r  *Ring
	}{"a member": {id, one}, "the bootstrap server": {bootID, boot}} {
		x.id.renew(t)
		if !x.r.n.upkeep() { // which is done each minute
			t.Fatalf("%s does not notice its new certificate", name)
		}
		x.r.renewed()
		await(t, x.r, name+" is admitted again", func(s Status) bool { return s.Admitted })
		both(t, one, other, numbers(0, 1)[0], numbers(10, 1)[0])
	}
	late := b.start(a.identity(t, false, peer("late")), nil)
	for _, r := range []*Ring{boot, one, other, late} {
		await(t, r, "all four are there and well", func(s Status) bool { return s.Members == 4 && s.Health == Green })
	}
}

// Who knows one bootstrap server alone joins by it, also when another one, which is away, has signed the settings.
func TestJoiningByTheOtherBootstrapServer(t *testing.T) {
	b, boot := newBench(t)
	second := b.start(b.a.identity(t, true, peer("second")), func(c *Config) { c.Bootstrap = true })
	await(t, second, "it is a bootstrap server too", func(s Status) bool { return len(s.Bootstraps) == 2 && s.Members == 2 })
	if s, _ := second.Settings(); s.Bootstrap != peer("boot") {
		t.Fatalf("the settings are signed by %v", s.Bootstrap)
	}
	boot.Close()
	late := b.start(b.a.identity(t, false, peer("late")), func(c *Config) { c.Bootstraps = []string{second.Addr().String()} })
	await(t, late, "it is a member", func(s Status) bool { return s.Admitted && s.Members == 2 })
	if err := late.Publish(numbers(0, 1)); err != nil {
		t.Fatal(err)
	}
	await(t, late, "its number lies with both", placed(1))
}

// A holder that has not heard yet that the quota grew refuses numbers for it; they are not kept back for long then, as they are when it refuses them for good.
func TestHolderThatKnowsTheFormerQuota(t *testing.T) {
	c := &clock{t: epoch}
	n, err := newNode(newAuthority(t).identity(t, true, peer("boot")), "192.0.2.1:8470", 1, 100, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.govern(cheapSettings()); err != nil {
		t.Fatal(err)
	}
	holder := peer("holder")
	for _, x := range []struct {
		passed time.Duration
		code   Code
		want   time.Duration
	}{{time.Second, CodeSlot, retryAfter}, {time.Second, CodeQuota, retryAfter}, {time.Second, CodeOld, refusedAfter}, {time.Hour, CodeSlot, refusedAfter}} {
		c.add(x.passed)
		at := &copyAt{next: c.now().Add(retryAfter)}
		p := &publication{at: map[learn.PeerID]*copyAt{holder: at}}
		n.done(job{to: &Member{Name: holder}, kind: typeStore, pubs: []*publication{p}, sent: []time.Time{c.now()}, ends: []time.Time{c.now()}}, []byte{0, 1, uint8(x.code)}, nil)
		if got := at.next.Sub(c.now()); got != x.want {
			t.Errorf("%v after the settings: refused with %v, tried again in %v, want %v", x.passed, x.code, got, x.want)
		}
	}
}

// A member may be banned by any peer ID that its certificate names, though only the lowest eight take part in the ring.
func TestBanOfAPeerIDThatTakesNoPart(t *testing.T) {
	b, boot := newBench(t)
	var ids []learn.PeerID
	for i := range maxPeers + 2 {
		ids = append(ids, peer("villain %d", i))
	}
	sorted(ids)
	id := b.a.identity(t, false, ids...)
	m := b.start(id, nil)
	await(t, m, "joined", members(2))
	if err := boot.Change(func(s *Settings) { s.Banned = ids[len(ids)-1:] }); err != nil {
		t.Fatal(err)
	}
	await(t, m, "told that it is banned", func(s Status) bool { return s.Banned })
	c, _, err := m.w.dial(t.Context(), b.boot, alpnRing, learn.PeerID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := exchange(t.Context(), c, typeAdmit, putU32(10)); !errors.Is(err, CodeBanned) {
		t.Errorf("admission: %v, want banned", err)
	}
}

// A member cannot keep a bootstrap server at work: each admission costs two signatures, made while all else waits.
func TestRequestsOfOneMemberAreLimited(t *testing.T) {
	b, boot := newBench(t)
	id := b.a.identity(t, false, peer("greedy"))
	m := b.start(id, nil)
	await(t, m, "joined", members(2))
	c, _, err := m.w.dial(t.Context(), b.boot, alpnRing, learn.PeerID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var began time.Time
	for err == nil { // the budget is spent in between, and comes back
		for boot.n.mayAsk(id.party(t), typePing) {
		}
		began = time.Now()
		_, err = exchange(t.Context(), c, typeAdmit, putU32(10))
	}
	if !errors.Is(err, CodeThrottled) {
		t.Fatalf("admission: %v, want throttled", err)
	}
	if took := time.Since(began); took < throttled {
		t.Errorf("it is refused after %s: whoever asks on and on is refused as fast as it likes", took)
	}
	if boot.Status().LimitRefused == 0 {
		t.Error("nothing is counted as refused")
	}
}

func TestBudgetOfRequests(t *testing.T) {
	s := newSimulation(t, 2, 1, nil)
	n, p := s.nodes[0], s.nodes[1].p
	some := func(kind uint8) (k int) {
		for n.mayAsk(p, kind) {
			k++
		}
		return k
	}
	if k := some(typeAdmit); k != requestsBurst/dearRequest {
		t.Errorf("%d admissions at once", k)
	}
	s.clock.add(time.Second)
	if k := some(typeRead); k != requestsRate {
		t.Errorf("%d requests in a second", k)
	}
	if !n.mayAsk(n.self, typeRead) {
		t.Error("another member has nothing left")
	}
}

// Many members that are called dead, and do not say a word when they are asked, keep a member from its other work no longer than a few of them would.
func TestSilentMembersAreAskedTogether(t *testing.T) {
	_, boot := newBench(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	for i := range 24 { // 5 s each
		p := peer("silent %d", i)
		boot.n.join(&Member{Name: p, Peers: []learn.PeerID{p}, Addr: at, expires: time.Now().Add(time.Hour)})
		boot.n.contest(p)
	}
	await(t, boot, "all are gone", members(1))
}

func TestFewAreAskedAtOnce(t *testing.T) {
	n := newSimulation(t, 3*askedAtOnce, 1, nil).nodes[0]
	for _, m := range n.members {
		n.contest(m.Name)
	}
	asked := 0
	for _, most := range []int{2 * askedAtOnce, askedAtOnce - 1, 0} {
		list := n.doubted()
		if asked += len(list); len(list) != most {
			t.Errorf("%d are asked, want %d", len(list), most)
		}
	}
	if asked != len(n.members)-1 {
		t.Errorf("%d of %d were asked", asked, len(n.members)-1)
	}
}
