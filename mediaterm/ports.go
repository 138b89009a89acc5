package mediaterm

import (
	"net/netip"
	"time"
)

// portState of a pair.
type portState uint8

const (
	pairFree portState = iota
	pairUsed
	pairResting
)

// portPool hands out the port pairs of one address in rotation: the pair given is the
// next free one after the last given, so that a port comes back as late as possible.
// A freed pair rests, with its sockets closed, so that a new call does not hear packets
// still on their way to the old one: for the whole rest while others are free, else for leastRest, since a call
// refused is worse than a stray packet. Not for concurrent use.
type portPool struct {
	addr  netip.Addr
	first uint16 // RTP port of pair 0, even
	state []portState
	next  int
	used  int
	most  int
	rest  time.Duration
	queue []resting // in order of the time when they are free again
}

type resting struct {
	pair int
	till time.Time
}

// newPortPool covers the pairs that lie wholly within lo-hi.
func newPortPool(addr netip.Addr, lo, hi uint16, rest time.Duration) *portPool {
	first := int(lo) + int(lo&1)
	return &portPool{addr: addr, first: uint16(first), rest: rest, state: make([]portState, max(0, (int(hi)-first+1)/2))}
}

// take returns the RTP port of a free pair of a class; ok is false when there is none.
func (p *portPool) take(now time.Time, class, classes int) (rtp uint16, ok bool) {
	p.wake(now)
	if p.used+len(p.queue) >= len(p.state) {
		return p.takeResting(now, class, classes)
	}
	for i := range p.state {
		pair := (p.next + i) % len(p.state)
		if p.state[pair] != pairFree || p.classOf(pair, classes) != class {
			continue
		}
		p.next = (pair + 1) % len(p.state)
		p.state[pair] = pairUsed
		p.used++
		p.most = max(p.most, p.used)
		return p.port(pair), true
	}
	return p.takeResting(now, class, classes)
}

// leastRest is how long a freed pair rests in any case.
const leastRest = 5 * time.Second

// takeResting takes the pair of a class that has rested longest.
func (p *portPool) takeResting(now time.Time, class, classes int) (rtp uint16, ok bool) {
	for i, r := range p.queue {
		if p.rest-r.till.Sub(now) < leastRest {
			break
		}
		if p.classOf(r.pair, classes) != class {
			continue
		}
		copy(p.queue[1:i+1], p.queue[:i])
		p.queue = p.queue[1:]
		p.state[r.pair] = pairUsed
		p.used++
		p.most = max(p.most, p.used)
		return p.port(r.pair), true
	}
	return 0, false
}

// class of the pair that would be taken next if it were free.
func (p *portPool) class(classes int) int { return p.classOf(p.next, classes) }

// classOf deals pairs out by their port, as the kernel's rules do (TProxy.Steer).
func (p *portPool) classOf(pair, classes int) int { return int(p.port(pair)>>1) % classes }

func (p *portPool) port(pair int) uint16 { return p.first + uint16(2*pair) }

// release lets a pair that take returned rest.
func (p *portPool) release(rtp uint16, now time.Time) {
	pair := int(rtp-p.first) / 2
	if p.state[pair] != pairUsed {
		return
	}
	p.used--
	p.state[pair] = pairResting
	p.queue = append(p.queue, resting{pair, now.Add(p.rest)})
	p.wake(now)
}

// wake frees the pairs that have rested.
func (p *portPool) wake(now time.Time) {
	n := 0
	for n < len(p.queue) && !p.queue[n].till.After(now) {
		p.state[p.queue[n].pair] = pairFree
		n++
	}
	p.queue = p.queue[n:]
}

// untake gives back a pair that was never bound: it need not rest.
func (p *portPool) untake(rtp uint16) {
	p.used--
	p.state[int(rtp-p.first)/2] = pairFree
}
