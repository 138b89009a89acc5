package pvp

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"imeproxy/ucime/learn"
)

// Candidate is a terminating VCR that may be proven. ID is its owner's and never used for another VCR.
type Candidate struct {
	ID  uint64
	VCR learn.VCR
}

// Records are the terminating VCRs of this enterprise. It is called by several goroutines.
type Records interface {
	// Candidates are the unproven, unexpired VCRs whose called number has this Selector, latest Stop first, at most limit.
	Candidates(selector uint16, limit int) []Candidate
	// Prove marks a VCR as proven by peer and returns once that is durable; false where it is gone or was proven before.
	Prove(id uint64, peer learn.PeerID) (bool, error)
}

// ErrIndexFull is Add's error at the cap when the new VCR is older than all others.
var ErrIndexFull = errors.New("the index of terminating VCRs is full")

// Index implements Records in memory, for a store that keeps the VCRs: it is filled at the start and with every upload.
type Index struct {
	cap     int
	durable func(id uint64, peer learn.PeerID) error

	mu    sync.RWMutex // guards what follows; not held while durable runs
	lines map[uint16][]Candidate
	byID  map[uint64]uint16
	// stops are the VCRs in ascending order of Stop, for expiry.
	stops []stop
}

type stop struct {
	at time.Time
	id uint64
}

// NewIndex makes an empty index for at most capacity VCRs. durable stores the mark of a proven VCR and may be nil.
func NewIndex(capacity int, durable func(id uint64, peer learn.PeerID) error) *Index {
	return &Index{cap: capacity, durable: durable, lines: map[uint16][]Candidate{}, byID: map[uint64]uint16{}}
}

// Add takes an unproven terminating VCR. At the cap the oldest one gives way and is returned as evicted.
func (x *Index) Add(id uint64, v learn.VCR) (evicted uint64, was bool, err error) {
	if v.Role != learn.Terminating {
		return 0, false, errors.New("only terminating VCRs are indexed")
	}
	if err := Usable(v, WithoutCaller); err != nil {
		return 0, false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, there := x.byID[id]; there {
		return 0, false, nil
	}
	if len(x.byID) >= x.cap {
		x.compact()
		if len(x.stops) == 0 || !v.Stop.After(x.stops[0].at) {
			return 0, false, ErrIndexFull
		}
		evicted, was = x.stops[0].id, true
		x.remove(evicted)
	}
	sel := Selector(v.Called)
	line := x.lines[sel]
	at, _ := slices.BinarySearchFunc(line, v.Stop, func(c Candidate, t time.Time) int { return t.Compare(c.VCR.Stop) })
	x.lines[sel] = slices.Insert(line, at, Candidate{id, v})
	x.byID[id] = sel
	at, _ = slices.BinarySearchFunc(x.stops, stop{v.Stop, id}, func(a, b stop) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id)) })
	x.stops = slices.Insert(x.stops, at, stop{v.Stop, id})
	return evicted, was, nil
}

// Remove forgets a VCR.
func (x *Index) Remove(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(id)
}

// Expire forgets the VCRs that ended before t and returns how many.
func (x *Index) Expire(t time.Time) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := len(x.byID)
	for len(x.stops) > 0 && x.stops[0].at.Before(t) {
		id := x.stops[0].id
		x.stops = x.stops[1:] // first, for remove may compact the rest
		x.remove(id)
	}
	return before - len(x.byID)
}

// Len is the number of unproven VCRs.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.byID)
}

// remove leaves the entry in stops, whose place compact or Expire frees.
func (x *Index) remove(id uint64) {
	sel, there := x.byID[id]
	if !there {
		return
	}
	delete(x.byID, id)
	x.lines[sel] = slices.DeleteFunc(x.lines[sel], func(c Candidate) bool { return c.ID == id })
	if len(x.lines[sel]) == 0 {
		delete(x.lines, sel)
	}
	if len(x.stops) > 2*len(x.byID)+64 {
		x.compact()
	}
}

func (x *Index) compact() {
	x.stops = slices.DeleteFunc(x.stops, func(s stop) bool { _, there := x.byID[s.id]; return !there })
}

// Candidates implements Records.
func (x *Index) Candidates(selector uint16, limit int) []Candidate {
	x.mu.RLock()
	defer x.mu.RUnlock()
	line := x.lines[selector]
	return slices.Clone(line[:min(limit, len(line))])
}

// Prove implements Records. Where the mark cannot be stored the VCR is used up all the same: rather a lost proof than two.
func (x *Index) Prove(id uint64, peer learn.PeerID) (bool, error) {
	x.mu.Lock()
	_, there := x.byID[id]
	x.remove(id)
	x.mu.Unlock()
	if !there {
		return false, nil
	}
	if x.durable != nil {
		if err := x.durable(id, peer); err != nil {
			return false, err
		}
	}
	return true, nil
}
