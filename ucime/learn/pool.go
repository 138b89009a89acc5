package learn

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	maxNumberBuckets = 64 // of a pool
	maxResults       = 32 // of a bucket
)

// Validated is one successful validation.
type Validated struct {
	Service string // whose call agent gets the routes
	Value   int    // 8 or 12
	Routes  []Route
}

// Bucket collects successes until they are worth the threshold.
type Bucket struct {
	Value   int
	Results []Validated
}

// Pool is what is known of one peer.
type Pool struct {
	Default Bucket
	// Numbers are the number-specific buckets: the penalty box.
	Numbers map[Number]*Bucket
	Used    time.Time
}

// add puts a result into the bucket that it belongs to, and gives what that releases.
func (p *Pool) add(n Number, r Validated, threshold int) (released []Validated, dropped int) {
	b := &p.Default
	if own, ok := p.Numbers[n]; ok {
		b = own
	}
	b.Value += r.Value
	b.Results = append(b.Results, r)
	if b.Value >= threshold {
		released = b.Results
		*b = Bucket{}
		return released, 0
	}
	// A threshold beyond what the bucket holds would never be reached: the value counts on, the oldest route is learned by another call.
	if len(b.Results) > maxResults {
		b.Results = slices.Delete(b.Results, 0, 1)
		dropped = 1
	}
	return nil, dropped
}

// fail empties all buckets and makes one for the number.
func (p *Pool) fail(n Number) (dropped int) {
	p.Default = Bucket{}
	for _, b := range p.Numbers {
		*b = Bucket{}
	}
	if p.Numbers == nil {
		p.Numbers = map[Number]*Bucket{}
	}
	if _, ok := p.Numbers[n]; ok {
		return 0
	}
	if len(p.Numbers) == maxNumberBuckets {
		// All are empty now; which one goes makes no difference but that it must be the same on every run.
		delete(p.Numbers, slices.Min(slices.Collect(maps.Keys(p.Numbers))))
		dropped = 1
	}
	p.Numbers[n] = &Bucket{}
	return dropped
}

// pool finds or makes the pool of a peer.
func (e *Engine) pool(now time.Time, peer PeerID) *Pool {
	e.dirty.peers[peer] = true
	p, ok := e.pools[peer]
	if !ok {
		if len(e.pools) >= e.cfg.MaxPeers {
			e.Counters.PoolsEvicted++
			unused := e.unused()
			delete(e.pools, unused)
			e.dirty.peers[unused] = true
		}
		p = &Pool{}
		e.pools[peer] = p
	}
	p.Used = now
	return p
}

// unused is the peer whose pool gives way: first those that have no penalty, then the one that was used longest ago.
func (e *Engine) unused() PeerID {
	return slices.MinFunc(slices.Collect(maps.Keys(e.pools)), func(a, b PeerID) int {
		x, y := e.pools[a], e.pools[b]
		if c := cmp.Compare(min(1, len(x.Numbers)), min(1, len(y.Numbers))); c != 0 {
			return c
		}
		if c := x.Used.Compare(y.Used); c != 0 {
			return c
		}
		return slices.Compare(a[:], b[:])
	})
}

// Pools gives copies of the pools, for show commands.
func (e *Engine) Pools() map[PeerID]Pool {
	out := make(map[PeerID]Pool, len(e.pools))
	for id, p := range e.pools {
		out[id] = p.clone()
	}
	return out
}

func (p *Pool) clone() Pool {
	c := Pool{Default: p.Default.clone(), Used: p.Used}
	for n, b := range p.Numbers {
		if c.Numbers == nil {
			c.Numbers = map[Number]*Bucket{}
		}
		own := b.clone()
		c.Numbers[n] = &own
	}
	return c
}

func (b Bucket) clone() Bucket {
	b.Results = slices.Clone(b.Results)
	return b
}
