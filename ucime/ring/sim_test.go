package ring

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

// simulation runs many nodes in one process: their state is real, the network is a function call, membership news arrive
// when the simulation says so (memberlist's part, tested over TLS), and time is the simulation's.
type simulation struct {
	t        testing.TB
	a        *authority
	clock    clock
	settings *Settings
	raw      []byte
	nodes    []*simNode
	byName   map[learn.PeerID]*simNode
	calls    [256]int // by type
	bytes    [256]int
	records  int // in STORE requests
	mu       sync.Mutex
}

type simNode struct {
	*node
	m    *Member
	p    *party
	side int // of a partition: nodes of different sides do not reach each other
	dead bool
}

var errUnreachable = errors.New("unreachable")

func newSimulation(t testing.TB, members, peers int, edit func(*Settings)) *simulation {
	s := &simulation{t: t, a: newAuthority(t), byName: map[learn.PeerID]*simNode{}}
	s.clock.t = epoch
	set := cheapSettings()
	if edit != nil {
		edit(set)
	}
	set.Sequence = 1
	s.settings, s.raw = set, set.encode()
	var all []*Member
	for i := range members {
		all = append(all, s.add(i, peers).m)
	}
	slices.SortFunc(all, func(a, b *Member) int { return comparePeers(a.Name, b.Name) })
	for _, n := range s.nodes {
		n.members, n.hadOthers = slices.Clone(all), members > 1
	}
	return s
}

// add makes a member that nobody knows yet. It is admitted for ever, by nobody: admission is tested elsewhere.
func (s *simulation) add(i, peers int) *simNode {
	s.t.Helper()
	var ids []learn.PeerID
	for k := range peers {
		ids = append(ids, peer("sim %d %d", i, k))
	}
	id := s.a.identity(s.t, false, ids...)
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	n, err := newNode(id, netip.AddrPortFrom(addr, 8470).String(), 1, defaultRecords, s.clock.now)
	if err != nil {
		s.t.Fatal(err)
	}
	n.addr = netip.AddrPortFrom(addr, Port)
	n.settings, n.raw, n.admission = s.settings, s.raw, &admission{}
	m := &Member{
		Name: n.self.name, Peers: n.self.peers, Addr: n.addr,
		expires: epoch.AddDate(10, 0, 0), key: n.self.key, spki: n.self.spki,
	}
	x := &simNode{node: n, m: m, p: n.self}
	s.nodes = append(s.nodes, x)
	s.byName[m.Name] = x
	return x
}

// everybodyKnows lets all living nodes know these and these know all, within sides.
func (s *simulation) everybodyKnows(list ...*simNode) {
	for _, n := range s.nodes {
		for _, x := range list {
			if !n.dead && !x.dead && n.side == x.side {
				n.join(x.m)
				x.join(n.m)
			}
		}
	}
}

func (s *simulation) kill(list ...*simNode) {
	for _, x := range list {
		x.dead = true
	}
	for _, n := range s.nodes {
		for _, x := range list {
			if !n.dead {
				n.leave(x.m.Name)
			}
		}
	}
}

// caller is the network as one node sees it.
func (s *simulation) caller(from *simNode) caller {
	return func(_ context.Context, to *Member, kind uint8, body []byte) ([]byte, error) {
		x := s.byName[to.Name]
		if x.dead || x.side != from.side {
			return nil, errUnreachable
		}
		answer, code := x.answer(&session{p: from.p, hello: true}, kind, body)
		s.mu.Lock()
		if to.Name != from.m.Name {
			s.calls[kind]++
			s.bytes[kind] += len(body) + len(answer) + 10
			if kind == typeStore && len(answer) > 2 {
				s.records += len(answer) - 2
			}
		}
		s.mu.Unlock()
		if code != CodeOK {
			return nil, code
		}
		return answer, nil
	}
}

// settle lets every living node work until none has anything to send.
func (s *simulation) settle() {
	for busy := true; busy; {
		busy = false
		for _, n := range s.nodes {
			if !n.dead && n.step(context.Background(), s.caller(n), 1) > 0 {
				busy = true
			}
		}
	}
}

// pass lets time go by in strides, with all that is due in between.
func (s *simulation) pass(d, stride time.Duration) {
	for ; d > 0; d -= stride {
		s.clock.add(stride)
		for _, n := range s.nodes {
			if !n.dead {
				n.upkeep()
			}
		}
		s.settle()
	}
}

func (s *simulation) publish(per int) (all []learn.Number) {
	for i, n := range s.nodes {
		list := numbers(i*per, per)
		if err := n.publish(list); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// holders counts who holds a number now, and is its record alive.
func (s *simulation) holders(x learn.Number) (k int) {
	sec, err := derive(x, s.settings.Key, s.settings.HashCost)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range s.nodes {
		if !n.dead && len(n.store.read(sec.hash, s.clock.now()).records) > 0 {
			k++
		}
	}
	return k
}

func (s *simulation) find(from *simNode, x learn.Number) []Claim {
	s.t.Helper()
	claims, err := from.lookup(context.Background(), x, s.caller(from))
	if err != nil {
		s.t.Fatalf("look up %s: %v", x, err)
	}
	return claims
}

// allFound looks every `stride`-th number up from somewhere.
func (s *simulation) allFound(what string, all []learn.Number, stride int, owner func(i int) *simNode) {
	s.t.Helper()
	for i := 0; i < len(all); i += stride {
		x := all[i]
		o := owner(i)
		from := s.nodes[rand.IntN(len(s.nodes))]
		for from.dead || from.side != o.side {
			from = s.nodes[rand.IntN(len(s.nodes))]
		}
		c := s.find(from, x)
		if len(c) != 1 || !slices.Contains(o.p.peers, c[0].Peer) {
			s.t.Fatalf("%s: %s of %s found as %+v", what, x, o.m.Name, c)
		}
	}
}

func TestThousandMembers(t *testing.T) {
	const per = 2
	s := newSimulation(t, 1000, 2, nil)
	all := s.publish(per)
	s.settle()
	owner := func(i int) *simNode { return s.nodes[i/per] }
	s.allFound("after publishing", all, 5, owner)
	for i := 0; i < len(all); i += 97 {
		if k := s.holders(all[i]); k != 3 {
			t.Errorf("%s lies with %d members, want 3", all[i], k)
		}
	}
	most := 0
	for _, n := range s.nodes {
		most = max(most, n.store.n)
	}
	if mean := 3 * per; most > 8*mean { // two peer IDs each: some have more of the space than others
		t.Errorf("the fullest member holds %d records, the mean is %d", most, mean)
	}

	// Fifty leave without a word, then fifty others come.
	s.kill(s.nodes[100:150]...)
	s.settle()
	var fresh []*simNode
	for i := range 50 {
		fresh = append(fresh, s.add(2000+i, 2))
	}
	s.everybodyKnows(fresh...)
	s.settle()
	living := slices.Concat(all[:100*per], all[150*per:])
	livingOwner := func(i int) *simNode {
		if i >= 100*per {
			i += 50 * per
		}
		return owner(i)
	}
	s.allFound("after churn", living, 7, livingOwner)
	for i := 0; i < len(living); i += 97 {
		c := s.find(s.nodes[0], living[i])
		if len(c) != 1 || len(c[0].Holders) != 3 {
			t.Errorf("after churn %s is answered by %+v", living[i], c)
		}
	}

	// Two days later all are still there, refreshed, and those of the dead have ended.
	s.pass(48*time.Hour, 8*time.Hour)
	s.allFound("after two days", living, 7, livingOwner)
	for i := 100 * per; i < 150*per; i += 7 {
		if c := s.find(s.nodes[0], all[i]); len(c) != 0 {
			t.Errorf("a number of a dead member is still claimed after two days: %+v", c)
		}
	}
	total := 0
	for _, n := range s.nodes {
		if !n.dead {
			total += n.store.n
		}
	}
	if total != 3*len(living) {
		t.Errorf("%d records lie in the ring, want three for each of %d numbers", total, len(living))
	}
}

func TestLossOfAnyTwoLosesNothing(t *testing.T) {
	const size, per = 12, 5
	s := newSimulation(t, size, 1, nil)
	all := s.publish(per)
	s.settle()
	for a := range size {
		for b := a + 1; b < size; b++ {
			// Before anybody has noticed: the two just do not answer.
			s.nodes[a].dead, s.nodes[b].dead = true, true
			for i, x := range all {
				from := s.nodes[(max(a, b)+1)%size]
				if from.dead {
					from = s.nodes[(b+2)%size]
				}
				if from.dead {
					from = s.nodes[(b+3)%size]
				}
				c := s.find(from, x)
				if len(c) != 1 || c[0].Peer != s.nodes[i/per].m.Name {
					t.Fatalf("without %d and %d: %s is found as %+v", a, b, x, c)
				}
			}
			s.nodes[a].dead, s.nodes[b].dead = false, false
		}
	}
	// And once it is noticed, the living hold three copies again.
	s.kill(s.nodes[0], s.nodes[1])
	s.settle()
	for _, x := range all[2*per:] {
		if k := s.holders(x); k < 3 {
			t.Errorf("%s lies with %d members after the loss was repaired", x, k)
		}
	}
}

func TestPartitionHeals(t *testing.T) {
	const size, per = 60, 5
	s := newSimulation(t, size, 1, nil)
	all := s.publish(per)
	s.settle()
	owner := func(i int) *simNode { return s.nodes[i/per] }
	half := func(f func(x, y *simNode)) {
		for _, x := range s.nodes {
			for _, y := range s.nodes {
				if x.side != y.side {
					f(x, y)
				}
			}
		}
	}
	for i, n := range s.nodes {
		n.side = i % 2
	}
	half(func(x, y *simNode) { x.leave(y.m.Name) })
	s.settle()
	s.allFound("within a side", all, 1, owner)
	// Each side publishes on.
	extra := numbers(50000, 2)
	for i := range 2 {
		if err := s.nodes[i].publish(extra[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	s.pass(26*time.Hour, 2*time.Hour)
	s.allFound("within a side after a day", all, 1, owner)

	for _, n := range s.nodes {
		n.side = 0
	}
	s.everybodyKnows(s.nodes...)
	s.settle()
	s.allFound("healed", all, 1, owner)
	for i, x := range extra {
		for _, from := range []*simNode{s.nodes[10], s.nodes[11]} {
			if c := s.find(from, x); len(c) != 1 || c[0].Peer != s.nodes[i].m.Name || len(c[0].Holders) != 3 {
				t.Errorf("published on one side, %s is found as %+v", x, c)
			}
		}
	}
}

func TestNewHashKeyMovesEverything(t *testing.T) {
	s := newSimulation(t, 20, 1, nil)
	all := s.publish(5)
	s.settle()
	next := s.settings.clone()
	next.PrevKey, next.Key = next.Key, [32]byte{7}
	next.Sequence = 2
	// The first half learns of it before the others.
	for _, n := range s.nodes[:10] {
		n.mu.Lock()
		n.adopt(next, next.encode(), nil)
		n.mu.Unlock()
	}
	if c := s.find(s.nodes[3], all[99]); len(c) != 1 {
		t.Errorf("a number that lies under the previous key is found as %+v", c)
	}
	for _, n := range s.nodes[10:] {
		n.mu.Lock()
		n.adopt(next, next.encode(), nil)
		n.mu.Unlock()
	}
	s.settings = next
	s.settle()
	for _, x := range all {
		if c := s.find(s.nodes[0], x); len(c) != 1 || len(c[0].Holders) != 3 {
			t.Errorf("under the new key %s is found as %+v", x, c)
		}
	}
}
