package peerserver

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/ring"
	"imeproxy/ucime/store"
	"imeproxy/ucime/ticket"
	"imeproxy/ucime/vap"
)

var aKey = vap.Key{User: "ucm", Service: vap.ServiceID{1}}

// idle is a server that nobody runs, on a store at path.
func idle(t *testing.T, path string, limits store.Limits, change func(*Config)) *Server {
	t.Helper()
	st, err := store.Open(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Store: st, Identity: newAuthority(t).member(t, learn.PeerID{1}), Own: learn.PeerID{1}, Domain: "a.example", Directory: &claims{},
		Issuer: &pvp.TicketIssuer{Key: ticket.DeriveKey("password1", 1), Domain: "a.example", Routes: []string{"sip:a.example"}},
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)), Learn: learn.Config{Threshold: 8},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.vap.Close(); _ = s.cfg.Store.Close() })
	return s
}

func publication(key vap.Key, trust vap.Trust, patterns ...vap.Pattern) vap.Publication {
	return vap.Publication{Key: key, Service: vap.Service{ID: key.Service, Trust: trust}, Numbers: vap.NewNumbers(patterns, nil)}
}

func outgoing(to learn.Number, at time.Time) learn.VCR {
	return learn.VCR{Role: learn.Originating, Called: to, Caller: "+13105550100", Start: at.Add(-time.Minute), Stop: at}
}

// due uploads a call and begins its validation.
func (s *Server) due(t *testing.T, to learn.Number) learn.Task {
	t.Helper()
	now := s.cfg.Now()
	if err := (handler{s}).StoreVCRs(t.Context(), aKey, []learn.VCR{outgoing(to, now)}); err != nil {
		t.Fatal(err)
	}
	tasks := s.engine.Due(now.Add(time.Hour), 1)
	if len(tasks) != 1 {
		t.Fatalf("due is %+v", tasks)
	}
	return tasks[0]
}

func success(to learn.Number) pvp.Result {
	return pvp.Result{Outcome: pvp.Success, Method: pvp.WithCaller, Grant: &pvp.Grant{
		Numbers: []learn.Number{to}, Domain: "b.example", Routes: []string{"sip:b.example"}, Ticket: "AAAA",
	}}
}

// While the store fails nothing that a validation has brought is lost, none is done twice, and nobody is asked.
func TestStoreThatFailsDuringValidations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	s := idle(t, path, store.Limits{}, nil)
	_ = (handler{s}).Published(t.Context(), publication(aKey, vap.Trust{}))
	bob, liar := learn.PeerID{2}, learn.PeerID{3}
	one, two := s.due(t, "+1"), s.due(t, "+2")
	if !s.ask(one, liar) || !s.ask(one, bob) {
		t.Fatal("nobody may be asked")
	}
	_ = s.cfg.Store.Close()
	s.report(one, nil, liar, pvp.Result{Outcome: pvp.FailedProof})
	s.report(one, nil, bob, success("+1"))
	s.finish(one, true)
	if s.ask(two, bob) {
		t.Error("a peer is asked although that is not on the disk")
	}
	s.finish(two, true)
	if err := (handler{s}).StoreVCRs(t.Context(), aKey, []learn.VCR{outgoing("+3", s.cfg.Now())}); err == nil {
		t.Error("a record is acknowledged that is not stored")
	}
	if again := s.engine.Due(s.cfg.Now().Add(time.Minute), 10); len(again) != 0 {
		t.Errorf("validated again: %+v", again)
	}

	var err error
	if s.cfg.Store, err = store.Open(path, store.Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := (handler{s}).StoreVCRs(t.Context(), aKey, []learn.VCR{outgoing("+3", s.cfg.Now())}); err != nil {
		t.Error(err)
	}
	state, err := s.cfg.Store.State()
	if err != nil {
		t.Fatal(err)
	}
	if len(state.Waiting) != 2 || state.Waiting[0].VCR.Called != "+2" || state.Waiting[1].VCR.Called != "+3" {
		t.Errorf("waiting are %+v, want the calls of +2 and +3", state.Waiting)
	}
	if state.Pools[liar].Numbers["+1"] == nil {
		t.Errorf("the penalty is lost: %+v", state.Pools)
	}
	routes, err := s.cfg.Store.Routes(serviceName(aKey))
	if err != nil || len(routes) != 1 || routes[0].Number != "+1" {
		t.Errorf("routes %+v, %v", routes, err)
	}
}

// When the table of routes is full, a route is forgotten, and nothing else: the call is used up, and its peer is not asked again and has not failed.
func TestRoutesWithoutRoom(t *testing.T) {
	s := idle(t, filepath.Join(t.TempDir(), "ime.db"), store.Limits{Routes: 1}, nil)
	_ = (handler{s}).Published(t.Context(), publication(aKey, vap.Trust{}))
	for _, n := range []learn.Number{"+1", "+2"} {
		task := s.due(t, n)
		s.ask(task, learn.PeerID{2})
		s.report(task, nil, learn.PeerID{2}, success(n))
		s.finish(task, true)
		if _, pools := s.Learning(); s.engine.Pending() != 0 || len(pools[learn.PeerID{2}].Numbers) != 0 {
			t.Errorf("%s: %d calls wait, pools %+v", n, s.engine.Pending(), pools)
		}
	}
	routes, err := s.cfg.Store.Routes(serviceName(aKey))
	if err != nil || len(routes) != 1 || routes[0].Number != "+1" || len(s.unsaved) != 0 {
		t.Errorf("routes %+v, %v; unsaved %v", routes, err, s.unsaved)
	}
}

// Records that nobody can prove, or that are older than all of a full index, keep neither other records out nor the server from starting.
func TestRecordsThatCannotBeProven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	now := time.Now()
	in := func(to learn.Number, at time.Time) learn.VCR {
		return learn.VCR{Role: learn.Terminating, Called: to, Start: at, Stop: at.Add(time.Second)}
	}
	st, err := store.Open(path, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []learn.VCR{in("+1", time.Unix(-5, 0)), in("+2", now.Add(-time.Hour)), in("+3", now.Add(-time.Hour+time.Second)), in("+4", now.Add(-2*time.Hour))} {
		if _, _, err := st.AddIncoming(now, []store.Upload{{Service: "s", VCR: v}}); err != nil {
			t.Fatal(err)
		}
	}
	_ = st.Close()
	s := idle(t, path, store.Limits{}, func(c *Config) { c.Incoming = 2 })
	if _, n := s.Awaiting(); n != 2 {
		t.Errorf("%d records can be proven, want the newest two", n)
	}
	if err := (handler{s}).StoreVCRs(t.Context(), aKey, []learn.VCR{
		in("+5", time.Unix(-5, 0)), in("+6", now.Add(-100*time.Hour)), in("+7", now.Add(24*time.Hour)), in("+8", now.Add(-3*time.Hour)), in("+9", now.Add(-time.Minute)),
	}); err != nil {
		t.Errorf("a record that cannot be used is refused for ever: %v", err)
	}
	if c := s.index.Candidates(pvp.Selector("+9"), 1); len(c) != 1 {
		t.Error("a good record behind bad ones cannot be proven")
	}
	n := 0
	if err := s.cfg.Store.EachIncoming(func(store.Incoming) error { n++; return nil }); err != nil || n != 6 {
		t.Errorf("%d records are stored (%v), want 6: those of calls that are too old or have not ended are not kept", n, err)
	}
}

// A call waits until its service is published again, for until then its trust group is not known; then the group counts.
func TestServiceThatGoesAndComes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ime.db")
	s := idle(t, path, store.Limits{}, nil)
	h := handler{s}
	black := publication(aKey, vap.Trust{Domains: []string{"b.example"}})
	_ = h.Published(t.Context(), black)
	if err := h.StoreVCRs(t.Context(), aKey, []learn.VCR{outgoing("+1", time.Now())}); err != nil {
		t.Fatal(err)
	}
	_ = s.cfg.Store.Close()
	s = idle(t, path, store.Limits{}, nil)
	h = handler{s}
	if due := s.engine.Due(time.Now().Add(time.Hour), 1); len(due) != 0 {
		t.Fatalf("validated while nobody knows what is trusted: %+v", due)
	}
	_ = h.Published(t.Context(), black)
	due := s.engine.Due(time.Now().Add(time.Hour), 1)
	if len(due) != 1 {
		t.Fatalf("due is %+v", due)
	}
	group, _ := s.group(due[0].Service)
	h.Unpublished(t.Context(), aKey)
	s.report(due[0], group, learn.PeerID{2}, success("+1"))
	if routes, _ := s.cfg.Store.Routes(serviceName(aKey)); len(routes) != 0 {
		t.Errorf("a domain that is not trusted is learned: %+v", routes)
	}
}

// Where two services publish a number, each of them may refuse a domain, whichever is looked at first.
func TestNumberOfTwoServices(t *testing.T) {
	s := idle(t, filepath.Join(t.TempDir(), "ime.db"), store.Limits{}, nil)
	h := handler{s}
	_ = h.Published(t.Context(), publication(aKey, vap.Trust{}, "+1310555010X"))
	_ = h.Published(t.Context(), publication(vap.Key{User: "other", Service: vap.ServiceID{1}}, vap.Trust{Domains: []string{"bad.example"}}, "+13105550105"))
	call := func(to learn.Number) learn.VCR { return learn.VCR{Called: to, Caller: "+14085551112"} }
	for range 50 {
		if (trust{s}).Trusted("bad.example", call("+13105550105")) {
			t.Fatal("a domain gets a ticket that one of the services refuses")
		}
	}
	if !(trust{s}).Trusted("bad.example", call("+13105550106")) || !(trust{s}).Trusted("b.example", call("+13105550105")) {
		t.Error("a good domain is refused")
	}
}

// Prefixes of a trust group are those of the other side's number: on the called side the caller's. Our own number would let everybody in, or nobody.
func TestPrefixesOnTheCalledSide(t *testing.T) {
	s := idle(t, filepath.Join(t.TempDir(), "ime.db"), store.Limits{}, nil)
	for _, x := range []struct {
		trust  vap.Trust
		caller learn.Number
		want   bool
	}{
		{vap.Trust{Trusted: true, Prefixes: []string{"+1310"}}, "+4930555012", false}, // our own number has the prefix
		{vap.Trust{Trusted: true, Prefixes: []string{"+4930"}}, "+4930555012", true},
		{vap.Trust{Trusted: true, Prefixes: []string{"+4930"}}, "", false},
		{vap.Trust{Trusted: true, Prefixes: []string{"+4930"}, Domains: []string{"b.example"}}, "", true},
		{vap.Trust{Prefixes: []string{"+1310"}}, "+4930555012", true},
		{vap.Trust{Prefixes: []string{"+4930"}}, "+4930555012", false},
	} {
		_ = (handler{s}).Published(t.Context(), publication(aKey, x.trust, "+1310555010X"))
		if got := (trust{s}).Trusted("b.example", learn.VCR{Called: "+13105550105", Caller: x.caller}); got != x.want {
			t.Errorf("%+v, caller %q: %v, want %v", x.trust, x.caller, got, x.want)
		}
	}
}

// A crowd of liars that are all named before the owner of a number does not keep the owner from being asked: the ring gives up to 32 claims.
func TestOwnerBehindACrowdOfLiars(t *testing.T) {
	a, dir := newAuthority(t), &claims{all: map[learn.Number][]Claim{}}
	const number = learn.Number("+14085551112")
	var crowd []learn.PeerID
	for i := range byte(MaxClaims + 2) {
		crowd = append(crowd, learn.PeerID{100 + i})
	}
	me := a.member(t, crowd[0])
	for _, id := range crowd[1:] {
		me.cert.Leaf.URIs = append(me.cert.Leaf.URIs, ring.PeerURI(id))
	}
	me = a.member(t, crowd[0], me.cert.Leaf.URIs[1:]...)
	liars, err := pvp.NewServer(pvp.ServerConfig{
		Identity: me, Records: pvp.NewIndex(1, nil), Trust: trust{}, Issuer: &pvp.TicketIssuer{}, Limits: pvp.Limits{PeerBurst: 1000, SourceBurst: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- liars.Serve(ctx, ln) }()
	defer func() { cancel(); <-done }()
	for _, id := range crowd {
		dir.add(number, Claim{id, ln.Addr().String()})
	}
	alice := newEnterprise(t, a, dir, "", 1, "a.example", "+1310555010X")
	bob := newEnterprise(t, a, dir, "", 2, "b.example", "+14085551112")
	eventually(t, "the owner claims its number too", func() bool {
		c, _ := dir.Lookup(t.Context(), number)
		return len(c) == len(crowd)+1
	})
	alice.server.mu.Lock()
	alice.server.engine = learn.Restore(learn.Config{DelayMin: time.Millisecond, RetryAfter: time.Millisecond, Ready: alice.server.cfg.Learn.Ready}, alice.server.engine.State())
	alice.server.mu.Unlock()
	alice.call(bob, number, time.Now().Add(-3*time.Hour))
	alice.validated(1)
	c, pools := alice.server.Learning()
	if pools[bob.id].Default.Value != 12 || c.Failed != uint64(len(crowd)) {
		t.Errorf("the owner's pool is %+v; counters %+v", pools[bob.id], c)
	}
	// From now on those that have failed for the number come last, in whatever order the directory names them, and we ourselves never.
	alice.server.own[learn.PeerID{8}] = true
	all, _ := dir.Lookup(t.Context(), number)
	all = append(all, Claim{learn.PeerID{8}, "x"}, Claim{alice.id, "x"}, all[0], Claim{learn.PeerID{9}, "x"})
	ranked := alice.server.rank(learn.Task{VCR: learn.VCR{Called: number}}, all)
	if len(ranked) != len(crowd)+2 || ranked[0].Peer != bob.id || ranked[1].Peer != (learn.PeerID{9}) {
		t.Errorf("asked in the order %v", ranked)
	}
}

// Numbers that were published when the quota had no room for all of them are withdrawn like others.
func TestNumbersBeyondTheQuotaAreWithdrawn(t *testing.T) {
	settings := ring.DefaultSettings()
	settings.HashCost, settings.StorageQuota = 10, 2
	r, err := ring.New(ring.Config{
		Identity: newAuthority(t).member(t, learn.PeerID{9}, ring.BootstrapURI()), Listen: "127.0.0.1:0", Validator: "127.0.0.1:1", Bootstrap: true, Settings: &settings,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := []vap.Publication{publication(aKey, vap.Trust{}, "+1310555010X")}
	published, err := (Ring{r}).Publish(nil, all)
	if err == nil || !r.Status().OverQuota {
		t.Errorf("ten numbers in a quota of two: %v", err)
	}
	if _, err = (Ring{r}).Publish(published, []vap.Publication{publication(aKey, vap.Trust{}, "+13105550100")}); err != nil || r.Status().QuotaUsed != 1 {
		t.Errorf("%v; %d numbers are published, want the one that is left", err, r.Status().QuotaUsed)
	}
}

// After a restart a call that came in is not used up by who proves it before the call agent is back: the validator is not to be reached until then.
func TestValidatorWaitsForTheCallAgent(t *testing.T) {
	a := newAuthority(t)
	path := filepath.Join(t.TempDir(), "ime.db")
	at := time.Now().Add(-time.Hour)
	in := learn.VCR{Role: learn.Terminating, Called: "+13105550105", Caller: "+14085551112", Start: at, Stop: at.Add(time.Minute)}
	st, err := store.Open(path, store.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := st.AddIncoming(time.Now(), []store.Upload{{Service: serviceName(aKey), VCR: in}}); err != nil {
		t.Fatal(err)
	}
	_ = st.Close()
	s := idle(t, path, store.Limits{}, func(c *Config) { c.Identity = a.member(t, c.Own) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	peer := learn.PeerID{2}
	client := func(handshake time.Duration) *pvp.Client {
		c, err := pvp.NewClient(pvp.ClientConfig{Identity: a.member(t, peer), Own: peer, Domain: "b.example", Limits: pvp.Limits{Handshake: handshake}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	out := in
	out.Role = learn.Originating
	if r := client(300*time.Millisecond).Validate(t.Context(), ln.Addr().String(), s.cfg.Own, out, pvp.WithCaller); r.Outcome != pvp.Unreachable {
		t.Errorf("before the call agent is back: %+v", r)
	}
	if err := (handler{s}).Published(t.Context(), publication(aKey, vap.Trust{}, "+1310555010X")); err != nil {
		t.Fatal(err)
	}
	if r := client(0).Validate(t.Context(), ln.Addr().String(), s.cfg.Own, out, pvp.WithCaller); r.Outcome != pvp.Success {
		t.Errorf("with the call agent: %+v", r)
	}
}
