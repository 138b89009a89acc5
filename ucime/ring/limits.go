package ring

import (
	"math"
	"time"

	"imeproxy/ucime/learn"
)

const (
	maxMembers = 20000
	// Requests that a member may make at a holder, a second and at once; one for which signatures are made or verified counts as many.
	requestsRate  = 200
	requestsBurst = 2000
	dearRequest   = 20
)

// throttled is how long whoever has spent its budget waits for the next refusal: to refuse at once would cost as much as to serve.
const throttled = 50 * time.Millisecond

// bucket is what a member may still do at once.
type bucket struct {
	level, most float64
	rate        float64 // per second
	at          time.Time
}

// buckets are the budgets of members, one each, at most maxMembers: those that are full again are forgotten first, and
// when none is, new members have to wait. Not for concurrent use.
type buckets struct {
	m       map[learn.PeerID]*bucket
	refused uint64
}

// of returns the bucket of a member as it stands now, nil when there is no room for one. The limits may change with the ring.
func (b *buckets) of(name learn.PeerID, now time.Time, most, rate float64) *bucket {
	k, ok := b.m[name]
	if !ok {
		if b.m == nil {
			b.m = map[learn.PeerID]*bucket{}
		}
		if len(b.m) >= maxMembers {
			b.forget(now)
		}
		if len(b.m) >= maxMembers {
			b.refused++
			return nil
		}
		k = &bucket{level: most, at: now}
		b.m[name] = k
	}
	k.fill(now)
	k.most, k.rate = most, rate
	k.level = min(k.level, most)
	return k
}

func (k *bucket) fill(now time.Time) {
	if gone := now.Sub(k.at).Seconds(); gone > 0 {
		k.level = min(k.most, k.level+gone*k.rate)
		k.at = now
	}
}

func (b *buckets) forget(now time.Time) {
	for name, k := range b.m {
		if k.fill(now); k.level >= k.most {
			delete(b.m, name)
		}
	}
}

// take spends n, or counts a refusal.
func (b *buckets) take(name learn.PeerID, now time.Time, most, rate, n float64) bool {
	k := b.of(name, now, most, rate)
	if k == nil {
		return false
	}
	if k.level < n {
		b.refused++
		return false
	}
	k.level -= n
	return true
}

// giveBack returns n that a member has taken in advance.
func (b *buckets) giveBack(name learn.PeerID, n float64) {
	if k := b.m[name]; k != nil {
		k.level = min(k.most, k.level+n)
	}
}

// mayAsk spends a member's budget for a request that came over a connection.
func (n *node) mayAsk(p *party, kind uint8) bool {
	cost := 1.0
	if kind == typeAdmit || kind == typeHello {
		cost = dearRequest
	}
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asking.take(p.name, now, requestsBurst, requestsRate, cost)
}

// holderLimit is how many records of one peer ID a holder keeps. The records of an owner fall on holders by chance, so that
// a holder sees 3 quota/members of them on average; four standard deviations and four more leave an honest owner alone
// (worst case of the Poisson distribution: less than one refusal in 10,000 holders, and that one is asked again later).
func holderLimit(quota uint32, members int) int {
	if members <= copies {
		return int(quota)
	}
	m := copies * float64(quota) / float64(members)
	return min(int(quota), int(math.Ceil(m+4*math.Sqrt(m)+4)))
}

// readLimit is how many look-ups without a result a holder answers to a member in an hour: its share of the ring's.
func readLimit(failed uint32, peers, members int) float64 {
	return max(20, float64(failed)*float64(peers)*copies/float64(max(members, copies)))
}
