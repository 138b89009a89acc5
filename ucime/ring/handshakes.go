package ring

import (
	"container/list"
	"io"
	"net/netip"
	"sync"
)

// handshakes are the accepted connections that have not finished TLS. When there is no room for another, the oldest one of a source that has never finished one gives
// way: whoever opens connections and says nothing drives out its like, and no member.
type handshakes struct {
	mu    sync.Mutex // guards what follows
	open  *list.List // of *handshake, oldest first
	of    map[netip.Addr]int
	known map[netip.Addr]*list.Element
	order *list.List // of netip.Addr, the one that finished longest ago first; at most maxMembers
}

type handshake struct {
	c      io.Closer
	source netip.Addr
	known  bool
	at     *list.Element
}

func newHandshakes() *handshakes {
	return &handshakes{open: list.New(), of: map[netip.Addr]int{}, known: map[netip.Addr]*list.Element{}, order: list.New()}
}

// begin takes a connection in, nil where there is no room for it; victim is one to close in its place. Each that was taken in has to end.
func (s *handshakes) begin(c io.Closer, source netip.Addr) (h *handshake, victim io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[source] >= maxOfAddress {
		return nil, nil
	}
	if s.open.Len() >= maxHandshakes {
		e := s.open.Front()
		for e != nil && e.Value.(*handshake).known {
			e = e.Next()
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
