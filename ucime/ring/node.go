package ring

import (
	"context"
	"crypto"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

const (
	contestEvery = 30 * time.Second // how often a member is asked that gossip calls dead
	maxContested = 1024             // at once; beyond, gossip is believed
)

// caller sends a request to a member and returns the body of its answer; a refusal of the whole request is a [Code].
type caller func(ctx context.Context, to *Member, kind uint8, body []byte) ([]byte, error)

// node is a member of the ring as plain state: no sockets, no clock, no goroutines that outlive a call. Safe for concurrent use.
type node struct {
	id         Identity
	now        func() time.Time
	validator  string
	software   uint32
	tokenEvery time.Duration
	addr       netip.AddrPort // that others know us by

	mu        sync.Mutex // guards all below; never held during a call of a caller or of memberlist
	self      *party
	signer    crypto.Signer
	certEnds  time.Time
	admission *admission
	admitter  string // public key of the bootstrap server whose admission it is
	desc      *description
	descRaw   []byte
	members   []*Member // ascending by name; ourselves too once admitted
	contested map[learn.PeerID]time.Time
	hadOthers bool
	trusted   map[learn.PeerID]trusted
	settings  *Settings
	raw       []byte    // of settings
	settledAt time.Time // when they came
	authority bool      // we are a bootstrap server
	tokens    map[learn.PeerID]*lastToken
	last      *lastToken
	banned    bool
	pubs      map[learn.Number]*publication
	left      map[learn.Number]bool // numbers to publish that the quota has no room for
	slots     map[learn.PeerID]map[uint32]bool
	removals  map[learn.PeerID][]removal // by holder's name
	store     storage
	storing   buckets
	reading   buckets
	asking    buckets
	forging   buckets // what members pass on and does not verify
	changing  buckets // descriptions of members that differ from those before
	vetted    vetted
	count     Counters
	watchers  chan struct{}
}

type lastToken struct {
	t  *token
	at time.Time
}

// Counters grow from start to end of a Ring.
type Counters struct {
	Reads              uint64 // look-ups that we made (IMEDistributedCacheReads)
	ReadsFound         uint64
	Stores             uint64 // numbers that we stored or tried to (IMEDistributedCacheStores)
	StoresFailed       uint64
	TokensReceived     uint64
	SettingsRefused    uint64 // settings and tokens that did not verify
	MembersVerified    uint64 // descriptions whose signatures were looked at
	MembersRefused     uint64 // descriptions that were not taken
	FalseDeaths        uint64 // members that gossip called dead and that answered
	StoreResults       [codes]uint64
	ReadsServed        uint64
	ReadsFailed        uint64 // served without a result
	ReadsThrottled     uint64
	ClaimsRefused      uint64 // in answers to our look-ups
	HandshakesRefused  uint64
	ConnectionsRefused uint64
	PacketsDropped     uint64 // of gossip, in either direction
	BytesIn, BytesOut  uint64 // on 6084, inside TLS
}

func newNode(id Identity, validator string, software uint32, maxRecords int, now func() time.Time) (*node, error) {
	self, key, leaf, err := own(id)
	if err != nil {
		return nil, err
	}
	return &node{
		id: id, now: now, validator: validator, software: software, self: self, signer: key, certEnds: leaf.NotAfter,
		contested: map[learn.PeerID]time.Time{}, trusted: map[learn.PeerID]trusted{}, tokens: map[learn.PeerID]*lastToken{},
		pubs: map[learn.Number]*publication{}, left: map[learn.Number]bool{}, slots: map[learn.PeerID]map[uint32]bool{}, removals: map[learn.PeerID][]removal{},
		store: newStorage(maxRecords), watchers: make(chan struct{}), tokenEvery: time.Minute,
	}, nil
}

// changed wakes whoever waits in watch. The lock is held.
func (n *node) changed() {
	close(n.watchers)
	n.watchers = make(chan struct{})
}

// watch returns a channel that closes at the next change of state.
func (n *node) watch() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.watchers
}

func findMember(list []*Member, name learn.PeerID) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(m *Member, name learn.PeerID) int { return comparePeers(m.Name, name) })
}

func (n *node) member(name learn.PeerID) *Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, ok := findMember(n.members, name); ok {
		return n.members[i]
	}
	return nil
}

// join puts a verified member into the list and hands it the numbers that are now its to hold.
func (n *node) join(m *Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.settings.bans(m.Peers) {
		return
	}
	delete(n.contested, m.Name)
	i, known := findMember(n.members, m.Name)
	if known && n.members[i] == m {
		return
	}
	same := false
	if known {
		same = slices.Equal(n.members[i].Peers, m.Peers)
		n.members[i] = m
	} else {
		if len(n.members) >= maxMembers {
			return
		}
		n.members = slices.Insert(n.members, i, m)
	}
	if m.Name != n.self.name {
		n.hadOthers = true
	}
	for _, p := range n.pubs {
		switch {
		case !p.hashed:
		case same: // to look at all members for each number would let one that describes itself anew cost a core
			reseat(p.seats, m)
		case known && seated(p.seats, m.Name):
			p.seats = best(n.members, p.sec.hash, copies)
		default:
			p.seats, _ = insertSeat(p.seats, seat{scoreOf(m.Peers, p.sec.hash), m}, copies)
		}
	}
	n.changed()
}

// leave takes a member out of the list; its places go to the next in order.
func (n *node) leave(name learn.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leaveLocked(name)
}

func (n *node) leaveLocked(name learn.PeerID) {
	delete(n.contested, name)
	i, known := findMember(n.members, name)
	if !known || name == n.self.name {
		return
	}
	n.members = slices.Delete(slices.Clone(n.members), i, i+1)
	delete(n.removals, name)
	for _, p := range n.pubs {
		delete(p.at, name) // should it come back, it may have lost what it held
		if p.hashed && seated(p.seats, name) {
			p.seats = best(n.members, p.sec.hash, copies)
		}
	}
	n.changed()
}

// contest notes that gossip calls a member dead: it will be asked itself before it loses its places.
func (n *node) contest(name learn.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := findMember(n.members, name); !known || name == n.self.name {
		return
	}
	if len(n.contested) >= maxContested {
		n.leaveLocked(name)
		return
	}
	if _, asked := n.contested[name]; !asked {
		n.contested[name] = time.Time{}
	}
	n.changed()
}

// doubted returns the contested members whose turn it is to be asked.
func (n *node) doubted() []*Member {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []*Member
	for name, next := range n.contested {
		if len(list) >= 2*askedAtOnce {
			break // the others the next time
		}
		if i, ok := findMember(n.members, name); ok && !now.Before(next) {
			n.contested[name] = now.Add(contestEvery)
			list = append(list, n.members[i])
		}
	}
	return list
}

// heard says how a contested member answered.
func (n *node) heard(m *Member, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, still := n.contested[m.Name]; !still {
		return
	}
	if err != nil {
		n.leaveLocked(m.Name)
		return
	}
	n.count.FalseDeaths++
}

// upkeep drops what time has ended: records, admissions of members, and notices a new certificate of our own.
func (n *node) upkeep() (renewed bool) {
	now := n.now()
	self, key, leaf, err := own(n.id)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.store.dropIf(func(h *held) bool { return !h.rec.expires.After(now) })
	for _, m := range slices.Clone(n.members) {
		if now.After(m.expires) {
			n.leaveLocked(m.Name)
		}
	}
	if err != nil || self.print == n.self.print {
		return false
	}
	n.self, n.certEnds, n.admission = self, leaf.NotAfter, nil
	if n.authority {
		n.hand(self)
	}
	n.signer = key
	for _, p := range n.pubs {
		p.raw = nil // sign anew: readers get the certificate that the holder has
	}
	return true
}

// admitted makes a bootstrap server's admission ours and describes us to the others under a new serial.
func (n *node) admitted(a *admission, addr netip.AddrPort) error {
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if string(a.spki) != n.self.spki || !slices.Equal(a.peers, n.self.peers) {
		return fmt.Errorf("admission for another certificate")
	}
	d := &description{serial: now.Truncate(time.Millisecond), addr: addr, software: n.software, admission: a}
	if n.desc != nil && !d.serial.After(n.desc.serial) {
		d.serial = n.desc.serial.Add(time.Millisecond)
	}
	var err error
	if d.signature, err = sign(n.signer, "member", d.signed()); err != nil {
		return err
	}
	m, err := d.check(n.trusted, now.Add(clockSkew/2))
	if err != nil {
		return err
	}
	n.admission, n.admitter, n.desc, n.descRaw = a, n.trusted[a.bootstrap].spki, d, d.encode()
	i, known := findMember(n.members, m.Name)
	if known {
		n.members[i] = m
	} else {
		n.members = slices.Insert(n.members, i, m)
	}
	for _, p := range n.pubs {
		if p.hashed {
			p.seats = best(n.members, p.sec.hash, copies)
		}
	}
	n.changed()
	return nil
}
