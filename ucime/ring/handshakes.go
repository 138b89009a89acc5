package ring

import (
	"container/list"
	"io"
	"net/netip"
	"sync"
	"time"
)

// handshakes are the accepted connections that have not finished TLS. When there is no room for another, the oldest one of a source that has never finished one gives
// way, and where there is none, the oldest of the source that has the most: whoever opens connections and says nothing drives out its like, and no member.
type handshakes struct {
	mu    sync.Mutex // guards what follows
	open  *list.List // of *handshake, oldest first
	of    map[netip.Addr]int
	known map[netip.Addr]*list.Element
	order *list.List // of netip.Addr, the one that finished longest ago first; at most maxMembers

	rates  map[netip.Addr]*bucket // of handshakes begun; at most maxMembers
	others bucket                 // of sources beyond
	pruned time.Time
}

type handshake struct {
	c      io.Closer
	source netip.Addr
	known  bool
	at     *list.Element
}

func newHandshakes() *handshakes {
	return &handshakes{open: list.New(), of: map[netip.Addr]int{}, known: map[netip.Addr]*list.Element{}, order: list.New(), rates: map[netip.Addr]*bucket{}}
}

// rate is the budget of a source, or the one that newcomers share when there are too many: those that are full again are forgotten, at most once a second, for it takes a walk.
// The lock is held.
func (s *handshakes) rate(source netip.Addr, now time.Time) *bucket {
	if len(s.rates) >= maxMembers && now.Sub(s.pruned) >= time.Second {
		s.pruned = now
		for a, k := range s.rates {
			if k.fill(now); k.level >= k.most {
				delete(s.rates, a)
			}
		}
	}
	k := s.rates[source]
	switch {
	case k != nil:
	case len(s.rates) >= maxMembers:
		k = &s.others
	default:
		k = &bucket{}
		s.rates[source] = k
	}
	if k.most == 0 {
		*k = bucket{level: handshakesBurst, most: handshakesBurst, rate: handshakesRate, at: now}
	}
	k.fill(now)
	return k
}

// begin takes a connection in, nil where there is no room for it; victim is one to close in its place. Each that was taken in has to end.
func (s *handshakes) begin(c io.Closer, source netip.Addr, now time.Time) (h *handshake, victim io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rate := s.rate(source, now)
	if s.of[source] >= maxOfAddress || rate.level < 1 {
		return nil, nil
	}
	rate.level--
	if s.open.Len() >= maxHandshakes {
		e := s.open.Front()
		for e != nil && e.Value.(*handshake).known {
			e = e.Next()
		}
		if e == nil {
			e = s.surplus(source)
		}
		if e == nil {
			return nil, nil
		}
		victim = e.Value.(*handshake).c
		s.open.Remove(e)
	}
	_, known := s.known[source]
	h = &handshake{c: c, source: source, known: known}
	h.at = s.open.PushBack(h)
	s.of[source]++
	return h, victim
}

// surplus is the oldest of the source that has the most, nil where none has more than the newcomer's would then have. The lock is held.
func (s *handshakes) surplus(newcomer netip.Addr) (oldest *list.Element) {
	of, most := map[netip.Addr]int{}, s.of[newcomer]+1
	for e := s.open.Front(); e != nil; e = e.Next() {
		of[e.Value.(*handshake).source]++
	}
	for e := s.open.Front(); e != nil; e = e.Next() {
		if h := e.Value.(*handshake); h.source != newcomer && of[h.source] > most {
			most, oldest = of[h.source], e
		}
	}
	return oldest
}

// end forgets a connection; finished says that its handshake was good.
func (s *handshakes) end(h *handshake, finished bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open.Remove(h.at) // of one that has given way already it does nothing
	if s.of[h.source]--; s.of[h.source] == 0 {
		delete(s.of, h.source)
	}
	if !finished {
		return
	}
	if e := s.known[h.source]; e != nil {
		s.order.MoveToBack(e)
		return
	}
	if s.order.Len() >= maxMembers {
		oldest := s.order.Front()
		delete(s.known, s.order.Remove(oldest).(netip.Addr))
	}
	s.known[h.source] = s.order.PushBack(h.source)
}
