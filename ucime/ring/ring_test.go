package ring

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// quick lets real members notice each other within a test's time.
var quick = Pace{
	Probe: 300 * time.Millisecond, ProbeTimeout: 200 * time.Millisecond, Gossip: 50 * time.Millisecond, PushPull: 2 * time.Second,
	Token: 2 * time.Second, Rejoin: time.Second,
}

type bench struct {
	t testing.TB
	a *authority
	// boot is the address of the first bootstrap server.
	boot string
}

func (b *bench) start(id *testIdentity, edit func(*Config)) *Ring {
	b.t.Helper()
	tick := make(chan time.Time)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				select {
				case tick <- now:
				case <-stop:
					return
				}
			case <-stop:
				return
			}
		}
	}()
	cfg := Config{Identity: id, Listen: "127.0.0.1:0", Validator: "127.0.0.1:8470", Pace: quick, Software: 10, Tick: tick}
	if b.boot != "" {
		cfg.Bootstraps = []string{b.boot}
	}
	if edit != nil {
		edit(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		r.Close()
		close(stop)
		<-done
	})
	return r
}

func newBench(t testing.TB) (*bench, *Ring) {
	b := &bench{t: t, a: newAuthority(t)}
	boot := b.start(b.a.identity(t, true, peer("boot")), func(c *Config) { c.Bootstrap, c.Settings = true, cheapSettings() })
	b.boot = boot.Addr().String()
	return b, boot
}

// await returns once ok holds; it looks again whenever the member's state changes.
func await(t testing.TB, r *Ring, what string, ok func(Status) bool) Status {
	t.Helper()
	limit := time.After(60 * time.Second)
	look := time.NewTicker(200 * time.Millisecond) // states that time alone changes, such as health
	defer look.Stop()
	for {
		changed := r.n.watch()
		s := r.Status()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-look.C:
		case <-limit:
			t.Fatalf("%s: not within a minute; status %+v", what, s)
		}
	}
}

func members(k int) func(Status) bool { return func(s Status) bool { return s.Members == k } }
func placed(k int) func(Status) bool  { return func(s Status) bool { return s.Placed == k } }

func numbers(from, n int) (list []learn.Number) {
	for i := range n {
		list = append(list, learn.Number(fmt.Sprintf("+1408%07d", from+i)))
	}
	return list
}

func claimants(t testing.TB, r *Ring, x learn.Number) []learn.PeerID {
	t.Helper()
	claims, err := r.Lookup(context.Background(), x)
	if err != nil {
		t.Fatalf("look up %s: %v", x, err)
	}
	var ids []learn.PeerID
	for _, c := range claims {
		ids = append(ids, c.Peer)
	}
	return ids
}

func TestEightMembersOverTLS(t *testing.T) {
	b, boot := newBench(t)
	all := []*Ring{boot}
	for i := range 7 {
		all = append(all, b.start(b.a.identity(t, false, peer("m%d", i), peer("m%d'", i)), func(c *Config) { c.Validator = fmt.Sprintf("127.0.0.1:%d", 8470+i) }))
	}
	for _, r := range all {
		await(t, r, "all members known", members(8))
	}
	owner := all[3]
	mine := numbers(0, 40)
	if err := owner.Publish(mine); err != nil {
		t.Fatal(err)
	}
	await(t, owner, "numbers placed", placed(40))

	for _, r := range all {
		claims, err := r.Lookup(context.Background(), mine[7])
		if err != nil || len(claims) != 1 {
			t.Fatalf("look-up: %v, %v", claims, err)
		}
		if c := claims[0]; c.Address != "127.0.0.1:8472" || len(c.Holders) != 3 || c.Peer != peer("m2") && c.Peer != peer("m2'") {
			t.Errorf("claim %+v", c)
		}
	}
	if got := claimants(t, boot, "+14085559999"); len(got) != 0 {
		t.Errorf("a number that nobody published is claimed by %v", got)
	}
	s := await(t, owner, "health green", func(s Status) bool { return s.Health == Green })
	if s.NodeCount != 15 || s.Quota != 2000 || s.QuotaUsed != 40 || len(s.Bootstraps) != 1 || s.Bootstraps[0].Name != peer("boot") || s.TokensReceived == 0 {
		t.Errorf("status %+v", s)
	}

	// Two members stop without a word; every number is found, and lies with three again.
	stopped := []*Ring{all[5], all[6]}
	for _, r := range stopped {
		r.w.shut()
		r.cancel()
		r.g.Shutdown()
	}
	for _, x := range mine {
		if got := claimants(t, all[1], x); len(got) != 1 {
			t.Errorf("after the loss of two members %s is claimed by %v", x, got)
		}
	}
	await(t, owner, "the loss noticed", members(6))
	await(t, owner, "numbers placed anew", placed(40))
	claims, err := owner.Lookup(context.Background(), mine[0])
	if err != nil || len(claims) != 1 || len(claims[0].Holders) != 3 {
		t.Errorf("after the loss: %+v, %v", claims, err)
	}

	// One more comes, and a number that is withdrawn goes.
	late := b.start(b.a.identity(t, false, peer("late")), nil)
	await(t, late, "late member", members(7))
	owner.Unpublish(mine[:1])
	await(t, owner, "withdrawn", func(s Status) bool {
		owner.n.mu.Lock()
		defer owner.n.mu.Unlock()
		return s.QuotaUsed == 39 && len(owner.n.removals) == 0
	})
	deadline, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for len(claimants(t, late, mine[0])) > 0 {
		select {
		case <-late.n.watch():
		case <-deadline.Done():
			t.Fatal("a withdrawn number is still claimed")
		}
	}
}

func TestBootstrapServersRule(t *testing.T) {
	b, boot := newBench(t)
	badID := b.a.identity(t, false, peer("bad"))
	good := b.start(b.a.identity(t, false, peer("good")), nil)
	bad := b.start(badID, nil)
	var kept []uint64
	second := b.start(b.a.identity(t, true, peer("boot2")), func(c *Config) {
		c.Bootstrap = true
		c.OnSettings = func(s *Settings) { kept = append(kept, s.Sequence) } // read after Close alone
	})
	for _, r := range []*Ring{boot, good, bad, second} {
		await(t, r, "all members known", members(4))
	}
	await(t, good, "the second bootstrap server listed", func(s Status) bool { return len(s.Bootstraps) == 2 && s.Health == Green })

	if err := good.Change(func(s *Settings) { s.StorageQuota = 5 }); !errors.Is(err, ErrNotBootstrap) {
		t.Errorf("a member changes the settings: %v", err)
	}
	if err := second.Change(func(s *Settings) {
		s.StorageQuota, s.MOTD, s.RequiredVersion = 5, "maintenance on Sunday", 11
	}); err != nil {
		t.Fatal(err)
	}
	s := await(t, good, "settings spread", func(s Status) bool { return s.MOTD == "maintenance on Sunday" })
	if !s.Update || s.Quota != 5 {
		t.Errorf("status after the change: %+v", s)
	}
	var over *QuotaError
	if err := good.Publish(numbers(0, 7)); !errors.As(err, &over) || over.Quota != 5 || over.Asked != 7 {
		t.Errorf("publish above the quota: %v", err)
	}
	if s := await(t, good, "what fits is placed", placed(5)); !s.OverQuota || s.QuotaUsed != 7 {
		t.Errorf("over quota: %+v", s)
	}
	await(t, boot, "settings spread", func(s Status) bool { return s.MOTD == "maintenance on Sunday" })
	if err := boot.Change(func(s *Settings) { s.StorageQuota = 9; s.RequiredVersion = 0 }); err != nil {
		t.Fatal(err)
	}
	await(t, good, "the rest is placed once the quota grows", placed(7))

	if err := bad.Publish(numbers(100, 3)); err != nil {
		t.Fatal(err)
	}
	await(t, bad, "the bad member's numbers", placed(3))
	if err := boot.Change(func(s *Settings) { s.Banned = append(s.Banned, peer("bad")) }); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Ring{boot, good, second} {
		await(t, r, "the banned member gone", members(3))
		if got := claimants(t, r, numbers(100, 1)[0]); len(got) != 0 {
			t.Errorf("a banned member's number is still claimed by %v", got)
		}
	}
	s = await(t, bad, "the banned member knows", func(s Status) bool { return s.Banned })
	if s.Health != Red || !strings.Contains(s.Reason, "banned") {
		t.Errorf("status of the banned: %v, %s", s.Health, s.Reason)
	}
	if _, err := good.q.askAdmission(context.Background(), bad.Addr().String()); err == nil {
		t.Error("a banned member, which is no bootstrap server either, admits")
	}
	bad.Close()
	again := b.start(badID, nil)
	await(t, again, "the banned member is told when it comes again", func(s Status) bool { return s.Health == Red && !s.Admitted })

	second.Close()
	if len(kept) == 0 || kept[len(kept)-1] <= kept[0] {
		t.Errorf("settings kept: %v", kept)
	}
}

func TestRevokedAndForeignCertificatesStayOut(t *testing.T) {
	b, boot := newBench(t)
	revoked := b.a.identity(t, false, peer("revoked"))
	b.a.gone[revoked.cert.Leaf.SerialNumber.String()] = true
	foreign := newAuthority(t).identity(t, false, peer("foreign"))
	foreign.a.pool = b.a.pool // it believes our authority, we do not believe its
	for name, id := range map[string]*testIdentity{"revoked": revoked, "of another authority": foreign} {
		r := b.start(id, nil)
		before := boot.Status().HandshakesRefused
		s := await(t, r, name, func(s Status) bool {
			return strings.Contains(s.Reason, "for admission: ") && boot.Status().HandshakesRefused > before
		})
		if s.Admitted || s.Health != Red || boot.Status().Members != 1 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	noPeers := b.a.identity(t, false)
	if _, err := New(Config{Identity: noPeers, Listen: "127.0.0.1:0", Bootstraps: []string{b.boot}}); err == nil || !strings.Contains(err.Error(), "0 peer IDs") {
		t.Errorf("a certificate without peer IDs: %v", err)
	}
	if _, err := New(Config{Identity: revoked, Listen: "127.0.0.1:0", Bootstrap: true, Settings: cheapSettings()}); err == nil {
		t.Error("a certificate without the bootstrap URI makes a bootstrap server")
	}
}
