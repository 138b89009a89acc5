package pvp

import (
	"container/list"
	"slices"
	"sync"

	"imeproxy/ucime/learn"
)

// budget counts the runs that each VCR has been in without being proven. A run is charged before the other side sees
// anything that depends on the VCR, so that cutting the connection saves nobody a guess.
type budget struct {
	perPeer, total, cap int

	mu      sync.Mutex // guards what follows
	m       map[uint64]*list.Element
	order   *list.List // of *spent, first charged first
	evicted uint64
	refused uint64 // times a VCR was no candidate because it had no guesses left
}

// spent has at most total peers, for each has one guess at least.
type spent struct {
	id    uint64
	total int
	peers []peerGuesses
}

type peerGuesses struct {
	peer learn.PeerID
	n    int
}

func newBudget(perPeer, total, entries int) *budget {
	return &budget{perPeer: perPeer, total: total, cap: entries, m: map[uint64]*list.Element{}, order: list.New()}
}

// spend charges one run of peer against VCR id and reports whether it had one left.
func (b *budget) spend(id uint64, peer learn.PeerID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.m[id]
	if e == nil {
		if b.order.Len() >= b.cap {
			oldest := b.order.Front()
			delete(b.m, oldest.Value.(*spent).id)
			b.order.Remove(oldest)
			b.evicted++
		}
		e = b.order.PushBack(&spent{id: id})
		b.m[id] = e
	}
	s := e.Value.(*spent)
	if s.total >= b.total {
		b.refused++
		return false
	}
	for i := range s.peers {
		if s.peers[i].peer == peer {
			if s.peers[i].n >= b.perPeer {
				b.refused++
				return false
			}
			s.peers[i].n++
			s.total++
			return true
		}
	}
	s.peers = append(s.peers, peerGuesses{peer, 1})
	s.total++
	return true
}

// restore adds what a peer spent in an earlier life of the process.
func (b *budget) restore(id uint64, peer learn.PeerID, runs int) {
	for range min(runs, b.perPeer) {
		b.spend(id, peer)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.evicted, b.refused = 0, 0 // nobody was refused yet
}

// left reports whether peer may run against VCR id, and counts a refusal. It charges nothing.
func (b *budget) left(id uint64, peer learn.PeerID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.m[id]
	if e == nil {
		return true
	}
	s := e.Value.(*spent)
	if s.total >= b.total || slices.ContainsFunc(s.peers, func(p peerGuesses) bool { return p.peer == peer && p.n >= b.perPeer }) {
		b.refused++
		return false
	}
	return true
}

// giveBack returns one run of peer, after it has proven a VCR of the same OFFER.
func (b *budget) giveBack(id uint64, peer learn.PeerID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.m[id]
	if e == nil {
		return
	}
	s := e.Value.(*spent)
	for i := range s.peers {
		if s.peers[i].peer == peer && s.peers[i].n > 0 {
			s.peers[i].n--
			s.total--
			if s.peers[i].n == 0 {
				s.peers = append(s.peers[:i], s.peers[i+1:]...)
			}
			break
		}
	}
	if s.total == 0 {
		b.order.Remove(e)
		delete(b.m, id)
	}
}

// forget drops a VCR that has been proven: it is no candidate any more.
func (b *budget) forget(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.m[id]; e != nil {
		b.order.Remove(e)
		delete(b.m, id)
	}
}
