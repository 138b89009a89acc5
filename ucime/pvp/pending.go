package pvp

import (
	"container/list"
	"io"
	"net/netip"
	"sync"
)

// pending holds the connections that have not finished the TLS handshake. When it is full, the oldest one of a source that
// has never finished one gives way, so that half-open connections keep no known peer out.
type pending struct {
	cap, knownCap int

	mu    sync.Mutex // guards what follows
	open  *list.List // of *halfOpen, oldest first
	known map[netip.Addr]*list.Element
	order *list.List // of netip.Addr, least recently known first
}

type halfOpen struct {
	conn   io.Closer
	source netip.Addr
	known  bool
}

func newPending(capacity, knownCap int) *pending {
	return &pending{cap: capacity, knownCap: knownCap, open: list.New(), known: map[netip.Addr]*list.Element{}, order: list.New()}
}

// add takes conn in. victim is a connection to close for it; ok is false where conn itself has to be closed.
func (p *pending) add(conn io.Closer, source netip.Addr) (entry *list.Element, victim io.Closer, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open.Len() >= p.cap {
		for e := p.open.Front(); e != nil; e = e.Next() {
			if h := e.Value.(*halfOpen); !h.known {
				p.open.Remove(e)
				victim = h.conn
				break
			}
		}
		if victim == nil {
			if victim = p.surplus(source); victim == nil {
				return nil, nil, false
			}
		}
	}
	_, known := p.known[source]
	if known { // one known source may not fill the table for good
		n := 0
		for e := p.open.Front(); e != nil; e = e.Next() {
			if e.Value.(*halfOpen).source == source {
				n++
			}
		}
		known = n < max(1, p.cap/4)
	}
	return p.open.PushBack(&halfOpen{conn, source, known}), victim, true
}

// surplus takes out the oldest of the source that has the most, nil where none has more than the newcomer's would then have: a few sources that are known may not
// keep all others out.
func (p *pending) surplus(newcomer netip.Addr) io.Closer {
	of := map[netip.Addr]int{newcomer: 1}
	for e := p.open.Front(); e != nil; e = e.Next() {
		of[e.Value.(*halfOpen).source]++
	}
	most := newcomer
	var oldest *list.Element
	for e := p.open.Front(); e != nil; e = e.Next() {
		if h := e.Value.(*halfOpen); of[h.source] > of[most] {
			most, oldest = h.source, e
		}
	}
	if oldest == nil {
		return nil
	}
	p.open.Remove(oldest)
	return oldest.Value.(*halfOpen).conn
}

// remove forgets an entry; finished says that its handshake was good.
func (p *pending) remove(entry *list.Element, source netip.Addr, finished bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open.Remove(entry) // of one that has given way already it does nothing
	if !finished {
		return
	}
	if e := p.known[source]; e != nil {
		p.order.MoveToBack(e)
		return
	}
	if p.order.Len() >= p.knownCap {
		oldest := p.order.Front()
		delete(p.known, oldest.Value.(netip.Addr))
		p.order.Remove(oldest)
	}
	p.known[source] = p.order.PushBack(source)
}

func (p *pending) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open.Len()
}
