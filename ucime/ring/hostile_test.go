package ring

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// villain is a member in good standing that sends what it likes.
type villain struct {
	*simNode
	s *simulation
}

// record signs whatever is asked for with the villain's key.
func (v *villain) record(edit func(*record)) []byte {
	v.s.t.Helper()
	var h Hash
	rand.Read(h[:])
	now := v.s.clock.now()
	r := &record{owner: v.p.peers[0], hash: h, issued: now, expires: now.Add(lifetime), cert: v.p.print}
	edit(r)
	if r.sealed == nil {
		if err := r.sealClaim([32]byte{}, "203.0.113.66:8470"); err != nil {
			v.s.t.Fatal(err)
		}
	}
	var err error
	if r.signature, err = sign(v.signer, "record", r.signed()); err != nil {
		v.s.t.Fatal(err)
	}
	return r.encode()
}

func (v *villain) store(to *simNode, raw ...[]byte) []Code {
	v.s.t.Helper()
	kind, answer := to.serve(&session{p: v.p, hello: true}, typeStore, putList(raw))
	if kind == typeError {
		return []Code{Code(answer[0])}
	}
	var codes []Code
	for _, c := range answer[2:] {
		codes = append(codes, Code(c))
	}
	return codes
}

func TestForgedRecordsAreRefused(t *testing.T) {
	s := newSimulation(t, 5, 1, nil)
	v := &villain{s.nodes[0], s}
	honest, holder := s.nodes[1], s.nodes[2]
	now := s.clock.now()
	old := v.record(func(r *record) {
		r.hash = Hash{1}
		r.slot = 1
		r.issued = now.Add(-time.Minute)
		r.expires = now.Add(time.Hour)
	})
	newer := v.record(func(r *record) { r.hash = Hash{1}; r.slot = 1 })
	stolen := func() []byte { // an honest record, taken from a holder that the villain is
		r := &record{owner: honest.p.peers[0], hash: Hash{2}, issued: now, expires: now.Add(lifetime), cert: honest.p.print}
		if err := r.sealClaim([32]byte{}, "203.0.113.1:8470"); err != nil {
			t.Fatal(err)
		}
		r.signature, _ = sign(honest.signer, "record", r.signed())
		return r.encode()
	}()
	broken := v.record(func(r *record) {})
	broken[len(broken)-10] ^= 1
	long := v.record(func(r *record) { r.sealed = make([]byte, 600) })
	for _, c := range []struct {
		what string
		raw  []byte
		want Code
	}{
		{"a sound one", newer, CodeOK},
		{"the same again", newer, CodeOK},
		{"an older one, replayed", old, CodeOld},
		{"another's peer ID", v.record(func(r *record) { r.owner = honest.p.peers[0] }), CodeNotOwner},
		{"another's record", stolen, CodeNotOwner},
		{"a broken signature", broken, CodeSignature},
		{"another's certificate", v.record(func(r *record) { r.cert = honest.p.print }), CodeSignature},
		{"expired", v.record(func(r *record) { r.issued, r.expires = now.Add(-time.Hour), now }), CodeTime},
		{"for two days", v.record(func(r *record) { r.expires = now.Add(2 * lifetime) }), CodeTime},
		{"from tomorrow", v.record(func(r *record) { r.issued, r.expires = now.Add(lifetime), now.Add(2*lifetime) }), CodeTime},
		{"a slot beyond the quota", v.record(func(r *record) { r.slot = s.settings.StorageQuota }), CodeSlot},
		{"a taken slot, not newer", v.record(func(r *record) { r.slot = 1 }), CodeSlot},
		{"oversize", long, CodeMalformed},
		{"truncated", newer[:len(newer)-1], CodeMalformed},
		{"longer than it says", append(slices.Clone(newer), 0), CodeMalformed},
		{"empty", nil, CodeMalformed},
	} {
		before := holder.store.n
		if got := v.store(holder, c.raw); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
		if after := holder.store.n; c.want != CodeOK && after != before {
			t.Errorf("%s: refused, and the holder has %d records where it had %d", c.what, after, before)
		}
	}
	// Who is not described yet gets nothing at all.
	for kind := range 256 {
		if k, answer := holder.serve(&session{p: v.p}, uint8(kind), nil); k != typeError || Code(answer[0]) != CodeNotAdmitted && Code(answer[0]) != CodeMalformed {
			t.Errorf("request %d without HELLO: answer %d % x", kind, k, answer)
		}
	}
}

// A holder that answers look-ups with what it likes convinces nobody.
func TestLyingHolder(t *testing.T) {
	s := newSimulation(t, 3, 1, nil)
	owner, v, reader := s.nodes[0], &villain{s.nodes[1], s}, s.nodes[2]
	x := numbers(0, 1)[0]
	if err := owner.publish([]learn.Number{x}); err != nil {
		t.Fatal(err)
	}
	s.settle()
	sec, err := derive(x, s.settings.Key, s.settings.HashCost)
	if err != nil {
		t.Fatal(err)
	}
	first := owner.store.read(sec.hash, s.clock.now())
	s.clock.add(14 * time.Hour) // a refresh comes after 10.8 to 13.2 hours
	s.settle()                  // refreshed: `first` is old now
	now := s.clock.now()

	foreign := newAuthority(t).identity(t, false, owner.p.peers[0])
	fp, key, _, err := own(foreign)
	if err != nil {
		t.Fatal(err)
	}
	forge := &record{owner: owner.p.peers[0], hash: sec.hash, issued: now, expires: now.Add(lifetime), cert: fp.print}
	if err := forge.sealClaim(sec.seal, "203.0.113.66:8470"); err != nil {
		t.Fatal(err)
	}
	forge.signature, _ = sign(key, "record", forge.signed())

	asOwner := v.record(func(r *record) {
		r.owner, r.hash = owner.p.peers[0], sec.hash
		r.sealClaim(sec.seal, "203.0.113.66:8470")
	})
	moved := v.record(func(r *record) { r.hash = sec.hash }) // sealed for another number
	for what, answer := range map[string]found{
		"a record of the same peer ID under another authority": {[][]byte{fp.cert}, [][]byte{forge.encode()}},
		"another's peer ID under its own certificate":          {[][]byte{v.p.cert}, [][]byte{asOwner}},
		"sealed for another number":                            {[][]byte{v.p.cert}, [][]byte{moved}},
		"an unknown certificate":                               {nil, first.records},
		"garbage":                                              {[][]byte{{1, 2, 3}}, [][]byte{{1}, nil}},
		"nothing":                                              {},
	} {
		call := func(ctx context.Context, to *Member, kind uint8, body []byte) ([]byte, error) {
			if to.Name == v.m.Name {
				return answer.encode(), nil
			}
			return s.caller(reader)(ctx, to, kind, body)
		}
		claims, err := reader.lookup(context.Background(), x, call)
		if err != nil || len(claims) != 1 || claims[0].Address != owner.validator || slices.Contains(claims[0].Holders, v.m.Name) {
			t.Errorf("%s: %+v, %v", what, claims, err)
		}
	}
	// An old record of the owner loses to the newer one of the others.
	call := func(ctx context.Context, to *Member, kind uint8, body []byte) ([]byte, error) {
		if to.Name == v.m.Name {
			return first.encode(), nil
		}
		return s.caller(reader)(ctx, to, kind, body)
	}
	claims, err := reader.lookup(context.Background(), x, call)
	if err != nil || len(claims) != 1 || !claims[0].Issued.After(epoch.Add(12*time.Hour)) {
		t.Errorf("an old record counts: %+v, %v", claims, err)
	}
	if _, err := reader.lookup(context.Background(), x, func(context.Context, *Member, uint8, []byte) ([]byte, error) { return nil, errUnreachable }); err == nil {
		t.Error("no holder answers, and that is told as: nobody claims it")
	}
}

// A flood ends at the limit of its own budget; others find room, and the budget is bounded in all.
func TestFloodsOfStores(t *testing.T) {
	s := newSimulation(t, 60, 1, func(g *Settings) { g.StorageQuota = 200 })
	v, holder, honest := &villain{s.nodes[0], s}, s.nodes[1], s.nodes[2]
	limit := holderLimit(200, 60) // mean of 10: some 27
	if limit < 10 || limit > 40 {
		t.Fatalf("limit %d", limit)
	}
	place := func(x *simNode, edit func(*record)) []byte { // a record that holder is in place for
		for {
			raw := (&villain{x, s}).record(edit)
			r, err := decodeRecord(raw)
			if err != nil {
				t.Fatal(err)
			}
			if holder.inPlace(r.hash) {
				return raw
			}
		}
	}
	got := map[Code]int{}
	for i := range 150 {
		for _, c := range v.store(holder, place(v.simNode, func(r *record) { r.slot = uint32(i) })) {
			got[c]++
		}
	}
	if got[CodeOK] != limit || got[CodeQuota] == 0 || got[CodeThrottled] == 0 || holder.store.n != limit {
		t.Errorf("flood: %v, %d records held, want %d", got, holder.store.n, limit)
	}
	if c := (&villain{honest, s}).store(holder, place(honest, func(*record) {})); c[0] != CodeOK {
		t.Errorf("an honest member after the flood: %v", c)
	}
	outOfPlace := v.record(func(r *record) {
		for r.slot = 199; holder.inPlace(r.hash); {
			rand.Read(r.hash[:])
		}
	})
	s.clock.add(10 * time.Minute)
	if c := v.store(holder, outOfPlace); c[0] != CodePlace {
		t.Errorf("a record that belongs elsewhere: %v", c)
	}

	// One number, claimed by very many.
	crowd := newSimulation(t, 40, 1, nil)
	to := crowd.nodes[39]
	h := Hash{9}
	to.members = to.members[:3] // so that it is in place whatever the hash
	ok := 0
	for _, x := range crowd.nodes[:39] {
		if c := (&villain{x, crowd}).store(to, (&villain{x, crowd}).record(func(r *record) { r.hash = h })); c[0] == CodeOK {
			ok++
		} else if c[0] != CodeFull {
			t.Errorf("crowd: %v", c)
		}
	}
	if ok != maxClaims {
		t.Errorf("%d claims for one number were taken, want %d", ok, maxClaims)
	}
	if f := to.store.read(h, crowd.clock.now()); len(f.encode()) > maxBody || len(f.records) == 0 {
		t.Errorf("the answer about a crowded number has %d bytes and %d records", len(f.encode()), len(f.records))
	}

	// A holder that is full says so.
	small := newSimulation(t, 3, 1, nil)
	small.nodes[1].store.most = 10
	w := &villain{small.nodes[0], small}
	for i := range 12 {
		want := CodeOK
		if i >= 10 {
			want = CodeFull
		}
		if c := w.store(small.nodes[1], w.record(func(r *record) { r.slot = uint32(i) })); c[0] != want {
			t.Errorf("record %d of a full holder: %v", i, c)
		}
	}
}

func TestFailedReadsAreLimited(t *testing.T) {
	s := newSimulation(t, 3, 1, func(g *Settings) { g.FailedReads = 50 })
	v, holder, owner := s.nodes[0], s.nodes[1], s.nodes[2]
	if err := owner.publish(numbers(0, 1)); err != nil {
		t.Fatal(err)
	}
	s.settle()
	known := owner.pubs[numbers(0, 1)[0]].sec.hash
	read := func(h Hash) Code {
		kind, answer := holder.serve(&session{p: v.p, hello: true}, typeRead, h[:])
		if kind == typeError {
			return Code(answer[0])
		}
		return CodeOK
	}
	served := 0
	for i := range 200 {
		if read(known) == CodeThrottled && served < 50 {
			t.Fatalf("a read with a result was throttled after %d without", served)
		}
		if read(Hash{byte(i), 1}) == CodeOK {
			served++
		}
	}
	if served != 50 {
		t.Errorf("%d failed reads were served, want 50", served)
	}
	if read(known) != CodeThrottled {
		t.Error("who guesses numbers may go on at once")
	}
	s.clock.add(time.Hour)
	if read(known) != CodeOK {
		t.Error("an hour later the budget is still empty")
	}
	if kind, _ := holder.serve(&session{p: s.nodes[2].p, hello: true}, typeRead, make([]byte, 32)); kind == typeError {
		t.Error("another member pays for it")
	}
}

func TestBudgetsAreBounded(t *testing.T) {
	var b buckets
	now := epoch
	for i := range maxMembers + 100 {
		b.take(peer("p%d", i), now, 10, 1, 10)
	}
	if len(b.m) > maxMembers {
		t.Fatalf("%d budgets", len(b.m))
	}
	if b.take(peer("one more"), now, 10, 1, 1) {
		t.Error("a member beyond the limit got a budget while none was free")
	}
	if !b.take(peer("one more"), now.Add(time.Minute), 10, 1, 1) {
		t.Error("budgets that are full again made no room")
	}
}

// Somebody who may speak gossip invents members, moves others, and replays descriptions.
func TestInventedMembersStayOut(t *testing.T) {
	a := newAuthority(t)
	var c clock
	c.t = epoch
	boot, err := newNode(a.identity(t, true, peer("boot")), "", 1, 10, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := boot.govern(cheapSettings()); err != nil {
		t.Fatal(err)
	}
	member, err := newNode(a.identity(t, false, peer("member"), peer("second")), "", 1, 10, c.now)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort("192.0.2.7:6084")
	boot.trustParty(boot.self)
	member.trustParty(boot.self)
	adm, err := boot.admit(member.self.peers, member.self.spki, c.now())
	if err != nil {
		t.Fatal(err)
	}
	if err := member.admitted(adm, addr); err != nil {
		t.Fatal(err)
	}
	first := slices.Clone(member.descRaw)
	m, err := boot.judge(first, peer("somebody"))
	if err != nil {
		t.Fatal(err)
	}
	boot.join(m)

	change := func(edit func(d *description, signAs *node)) []byte {
		d, err := decodeDescription(first)
		if err != nil {
			t.Fatal(err)
		}
		d.serial = d.serial.Add(time.Second)
		edit(d, member)
		return d.encode()
	}
	for what, raw := range map[string][]byte{
		"another address, not signed anew": change(func(d *description, _ *node) { d.addr = netip.MustParseAddrPort("203.0.113.66:6084") }),
		"an admission that it wrote itself": change(func(d *description, n *node) {
			d.admission.bootstrap = n.self.name
			d.admission.signature, _ = sign(n.signer, "admission", d.admission.signed())
			d.signature, _ = sign(n.signer, "member", d.signed())
		}),
		"one more peer ID": change(func(d *description, n *node) {
			d.admission.peers = sorted(append(d.admission.peers, peer("third")))
			d.signature, _ = sign(n.signer, "member", d.signed())
		}),
		"a longer admission": change(func(d *description, n *node) {
			d.admission.issued = d.admission.issued.Add(time.Hour)
			d.admission.expires = d.admission.expires.Add(time.Hour)
			d.signature, _ = sign(n.signer, "member", d.signed())
		}),
		"garbage": {1, 2, 3},
	} {
		if _, err := boot.judge(raw, peer("somebody")); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	c.add(time.Second)
	if err := member.admitted(adm, netip.MustParseAddrPort("192.0.2.8:6084")); err != nil {
		t.Fatal(err)
	}
	m, err = boot.judge(member.descRaw, peer("somebody"))
	if err != nil {
		t.Fatalf("a member that moves: %v", err)
	}
	boot.join(m)
	if _, err := boot.judge(first, peer("somebody")); err == nil {
		t.Error("an old description brings a member back to its old address")
	}
	c.add(8 * 24 * time.Hour)
	fresh, err := newNode(a.identity(t, false, peer("fresh")), "", 1, 10, c.now)
	if err != nil {
		t.Fatal(err)
	}
	fresh.trustParty(boot.self)
	if _, err := fresh.judge(member.descRaw, peer("somebody")); err == nil {
		t.Error("an admission that ended counts")
	}
	if boot.upkeep(); len(boot.members) != 0 {
		t.Errorf("%d members are listed whose admissions ended", len(boot.members))
	}

	full := newSimulation(t, 2, 1, nil).nodes[0]
	for i := range maxMembers + 10 {
		p := peer("invented %d", i)
		full.join(&Member{Name: p, Peers: []learn.PeerID{p}})
	}
	if len(full.members) != maxMembers {
		t.Errorf("%d members are listed", len(full.members))
	}
	for i := range maxContested + 10 {
		full.contest(peer("invented %d", i))
	}
	if len(full.contested) > maxContested {
		t.Errorf("%d members are contested at once", len(full.contested))
	}
}

func TestOldAndForgedSettingsAreRefused(t *testing.T) {
	a := newAuthority(t)
	var c clock
	c.t = epoch
	make := func(boot bool, name string) *node {
		n, err := newNode(a.identity(t, boot, peer("%s", name)), "", 1, 10, c.now)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	boot, member := make(true, "boot"), make(false, "member")
	if err := boot.govern(cheapSettings()); err != nil {
		t.Fatal(err)
	}
	first := slices.Clone(boot.raw)
	if err := member.learnSettings(first, nil); err == nil {
		t.Error("settings of a stranger are taken")
	}
	if err := member.learnSettings(first, boot.self); err != nil {
		t.Fatalf("settings of a bootstrap server: %v", err)
	}
	second, err := boot.change(func(s *Settings) { s.StorageQuota = 7 })
	if err != nil {
		t.Fatal(err)
	}
	if err := member.learnSettings(second, nil); err != nil {
		t.Fatalf("newer settings, passed on by anybody: %v", err)
	}
	if err := member.learnSettings(first, boot.self); err == nil || member.settings.StorageQuota != 7 {
		t.Errorf("older settings are taken: %v, quota %d", err, member.settings.StorageQuota)
	}
	forged := member.settings.clone()
	forged.Sequence += 1000
	forged.StorageQuota = maxQuota
	forged.Bootstrap = member.self.name
	forged.signature, _ = sign(member.signer, "settings", forged.signed())
	if err := boot.learnSettings(forged.encode(), member.self); err == nil {
		t.Error("a member's own settings are taken")
	}
	forged.Bootstrap = boot.self.name
	if err := boot.learnSettings(forged.encode(), member.self); err == nil {
		t.Error("settings with a wrong signature are taken")
	}
	beat, err := boot.beat()
	if err != nil {
		t.Fatal(err)
	}
	if err := member.learnToken(beat); err != nil {
		t.Fatalf("token: %v", err)
	}
	if err := member.learnToken(beat); err == nil {
		t.Error("a token counts twice")
	}
	ahead := slices.Clone(beat)
	binary.BigEndian.PutUint64(ahead[17:], 1<<40)
	if err := member.learnToken(ahead); err == nil {
		t.Error("a token that was changed on its way counts")
	}
	if s := member.status(); s.TokensReceived != 1 || s.SettingsRefused == 0 {
		t.Errorf("status %+v", s)
	}
}

// Two bootstrap servers change the settings in one second, neither knowing of the other's change: all end with the same.
func TestChangesOfOneSecondEndAlike(t *testing.T) {
	a := newAuthority(t)
	var c clock
	c.t = epoch
	kept := cheapSettings()
	var boots []*node
	for i := range 2 {
		n, err := newNode(a.identity(t, true, peer("boot%d", i)), "", 1, 10, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.govern(kept); err != nil {
			t.Fatal(err)
		}
		boots = append(boots, n)
	}
	for i, n := range boots {
		n.trustParty(boots[1-i].self)
	}
	first, second := slices.Clone(boots[0].raw), slices.Clone(boots[1].raw)
	boots[0].learnSettings(second, boots[1].self)
	boots[1].learnSettings(first, boots[0].self)
	if !slices.Equal(boots[0].raw, boots[1].raw) {
		t.Error("the two keep their own")
	}
	if got, want := boots[0].settings.Bootstrap.String(), max(boots[0].self.name.String(), boots[1].self.name.String()); got != want {
		t.Errorf("settings of %s are in force, want those of %s", got, want)
	}
}

func TestHealthFollowsTheBootstrapServers(t *testing.T) {
	a := newAuthority(t)
	var c clock
	c.t = epoch
	boot, err := newNode(a.identity(t, true, peer("boot")), "", 1, 10, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := boot.govern(cheapSettings()); err != nil {
		t.Fatal(err)
	}
	n, err := newNode(a.identity(t, false, peer("member")), "", 1, 10, c.now)
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, h Health) {
		t.Helper()
		if s := n.status(); s.Health != h {
			t.Errorf("%s: %v (%s), want %v", what, s.Health, s.Reason, h)
		}
	}
	beat := func(peers int) {
		t.Helper()
		boot.mu.Lock()
		tok := &token{bootstrap: boot.self.name, sequence: uint64(c.now().Unix()), made: c.now().Add(-2 * time.Second), peers: uint32(peers)}
		tok.signature, _ = sign(boot.signer, "token", tok.signed())
		boot.mu.Unlock()
		if err := n.learnToken(tok.encode()); err != nil {
			t.Fatal(err)
		}
	}
	want("at the start", Red)
	n.trustParty(boot.self)
	if err := n.learnSettings(boot.raw, boot.self); err != nil {
		t.Fatal(err)
	}
	adm, err := boot.admit(n.self.peers, n.self.spki, c.now())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.admitted(adm, netip.MustParseAddrPort("192.0.2.7:6084")); err != nil {
		t.Fatal(err)
	}
	want("admitted, no token yet", Red)
	beat(1)
	want("in touch", Green)
	c.add(48 * time.Second)
	if s := n.status(); fmt.Sprint(s.Bootstraps[0].LastContact, s.Bootstraps[0].Delay, s.Bootstraps[0].Distance) != "48s 2s 0" {
		t.Errorf("bootstrap status %+v", s.Bootstraps[0])
	}
	c.add(3 * time.Minute)
	want("silent for three intervals", Yellow)
	c.add(7 * time.Minute)
	want("silent for ten", Red)
	c.add(time.Second)
	beat(40)
	want("the bootstrap server counts forty", Yellow)
	if s := n.status(); s.Bootstraps[0].Distance != 39 {
		t.Errorf("distance %d, want 39", s.Bootstraps[0].Distance)
	}
	other := newSimulation(t, 1, 1, nil).nodes[0].m
	n.join(other)
	c.add(time.Second)
	beat(2)
	want("two members", Green)
	n.leave(other.Name)
	want("the other is gone", Red)
}
