package service

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxRest is how long a port rests after its mapping has ended.
	maxRest = time.Minute
	// busyRetry is when a port on which someone else listens is tried again.
	busyRetry = 10 * time.Second
)

// pair is who asked, and for what.
type pair struct {
	client netip.Addr
	target netip.AddrPort
}

// mapping is one port that stands for a target.
type mapping struct {
	pair
	port     uint16
	lifetime time.Duration // the one that its last answer named
	used     time.Time     // last request, or end of the last leg
	saved    time.Time     // what the state file says of used
	legs     int           // that stand
	listener io.Closer
}

func (m *mapping) expired(now time.Time) bool { return m.legs == 0 && now.Sub(m.used) >= m.lifetime }

// resting is a port that goes to no other pair yet; without a client, one that could not be bound.
type resting struct {
	pair
	port  uint16
	until time.Time
}

// table holds the mappings. Its owner locks it.
type table struct {
	open    func(port uint16) (io.Closer, error)
	byPair  map[pair]*mapping
	byPort  map[uint16]*mapping
	clients map[netip.Addr]int
	free    []uint16
	rest    map[uint16]resting
	returns map[pair]uint16 // the resting port that a pair gets back
	low     uint16
	high    uint16
}

func newTable(open func(port uint16) (io.Closer, error)) *table {
	return &table{
		open: open, byPair: make(map[pair]*mapping), byPort: make(map[uint16]*mapping), clients: make(map[netip.Addr]int),
		rest: make(map[uint16]resting), returns: make(map[pair]uint16),
	}
}

// setRange makes the ports of a new range free. Mappings outside of it live on until they end.
func (t *table) setRange(low, high uint16) {
	if low == t.low && high == t.high {
		return
	}
	t.low, t.high = low, high
	t.free = t.free[:0]
	for p := int(low); p <= int(high); p++ {
		t.give(uint16(p))
	}
}

// give makes a port free again unless it is not of the range, or in use.
func (t *table) give(port uint16) {
	if _, rests := t.rest[port]; port >= t.low && port <= t.high && !rests && t.byPort[port] == nil {
		t.free = append(t.free, port)
	}
}

// take removes a port from the free ones.
func (t *table) take(port uint16) {
	if i := slices.Index(t.free, port); i >= 0 {
		t.free[i] = t.free[len(t.free)-1]
		t.free = t.free[:len(t.free)-1]
	}
}

// request gives the mapping of a pair, made when there is none. fresh tells that it was; the error code is 0, quota, no port or internal.
func (t *table) request(p pair, quota int, lifetime time.Duration, now time.Time) (m *mapping, fresh bool, code Code, err error) {
	if m = t.byPair[p]; m != nil {
		m.used, m.lifetime = now, lifetime
		return m, false, 0, nil
	}
	if t.clients[p.client] >= quota {
		return nil, false, CodeQuota, nil
	}
	port, l, err := t.bind(p, now)
	if err != nil {
		if errors.Is(err, errNoPort) {
			return nil, false, CodeNoPort, err
		}
		return nil, false, CodeInternal, err
	}
	m = &mapping{pair: p, port: port, lifetime: lifetime, used: now, listener: l}
	t.put(m)
	return m, true, 0, nil
}

func (t *table) put(m *mapping) {
	t.byPair[m.pair], t.byPort[m.port] = m, m
	t.clients[m.client]++
}

var errNoPort = errors.New("no port of the range is free")

// bind opens a port for a pair: the one that still rests for it, else one of the free ones at random. Ports on which others listen are set
// aside for a while.
func (t *table) bind(p pair, now time.Time) (uint16, io.Closer, error) {
	if port, ok := t.returns[p]; ok && port >= t.low && port <= t.high {
		if l, err := t.open(port); err == nil {
			t.wake(port)
			return port, l, nil
		}
	}
	for len(t.free) > 0 {
		i, last := rand.IntN(len(t.free)), len(t.free)-1
		port := t.free[i]
		t.free[i] = t.free[last]
		t.free = t.free[:last]
		l, err := t.open(port)
		switch {
		case err == nil:
			return port, l, nil
		case errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EACCES):
			t.rest[port] = resting{port: port, until: now.Add(busyRetry)}
		default:
			t.free = append(t.free, port)
			return 0, nil, err
		}
	}
	return 0, nil, errNoPort
}

// wake takes a port out of its rest.
func (t *table) wake(port uint16) {
	if r, ok := t.rest[port]; ok && r.client.IsValid() {
		delete(t.returns, r.pair)
	}
	delete(t.rest, port)
}

// end takes a mapping away at once; its port rests.
func (t *table) end(m *mapping, now time.Time) {
	_ = m.listener.Close()
	delete(t.byPair, m.pair)
	delete(t.byPort, m.port)
	if t.clients[m.client]--; t.clients[m.client] <= 0 {
		delete(t.clients, m.client)
	}
	t.rests(resting{pair: m.pair, port: m.port, until: now.Add(min(maxRest, m.lifetime))})
}

// rests puts a port to rest. A pair gets back one port alone: the last that it had.
func (t *table) rests(r resting) {
	t.rest[r.port] = r
	t.returns[r.pair] = r.port
}

// sweep ends what has lived its time and wakes ports that have rested. It gives the mappings that ended.
func (t *table) sweep(now time.Time) (ended []*mapping) {
	for _, m := range t.byPort {
		if m.expired(now) {
			ended = append(ended, m)
		}
	}
	for _, m := range ended {
		t.end(m, now)
	}
	for port, r := range t.rest {
		if now.Before(r.until) {
			continue
		}
		if r.client.IsValid() && t.returns[r.pair] == port {
			delete(t.returns, r.pair)
		}
		delete(t.rest, port)
		t.give(port)
	}
	return ended
}

// endWhere ends the mappings that a condition meets, and gives them.
func (t *table) endWhere(now time.Time, condition func(pair) bool) (ended []*mapping) {
	for p, m := range t.byPair {
		if condition(p) {
			ended = append(ended, m)
		}
	}
	for _, m := range ended {
		t.end(m, now)
	}
	return ended
}
