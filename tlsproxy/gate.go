package tlsproxy

import (
	"container/heap"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of a [HandshakeGate].
const (
	// DefaultHalfOpen is the number of half-open handshakes in total.
	DefaultHalfOpen = 1024
	// reservedShare half-open handshakes of a known source are never closed for the sake of an unknown one.
	reservedShare = 32
	// knownFor is how long a verified handshake makes its source known.
	knownFor = time.Hour
	// maxKnown bounds the memory for known sources; the one verified longest ago goes first.
	maxKnown = 4096
)

// HandshakeGate bounds half-open handshakes without a limit per source: while there is room everybody enters. When it is full, the oldest half-open
// handshake of the source with the most of them is closed for the newcomer, so that a flood displaces itself. A source that completed a handshake with a verified
// certificate in the last hour has a reserved share that no flood from elsewhere takes away. IPv6 sources count by /64. Safe for concurrent use.
type HandshakeGate struct {
	now func() time.Time

	mu      sync.Mutex // guards everything that follows
	max     int
	total   int
	serial  uint64
	sources map[netip.Addr]*gateSource
	order   gateHeap // sources that have half-open handshakes open to displacement, the next victim first
	known   map[netip.Addr]time.Time
	stats   GateStats
}

// GateStats are the counters of a [HandshakeGate].
type GateStats struct {
	HalfOpen  int    `json:"half_open"`
	MostUsed  int    `json:"most_used"`
	Displaced uint64 `json:"displaced"` // closed for a newcomer
	Refused   uint64 `json:"refused"`   // newcomers turned away, because all room was reserved
	Known     int    `json:"known"`
}

// gateSource holds the half-open handshakes of one source, oldest first.
type gateSource struct {
	key     netip.Addr
	waiting []*gateEntry
	exposed int // handshakes beyond the reserved share
	index   int // in the heap, -1 when outside
}

type gateEntry struct {
	conn   net.Conn
	source *gateSource
	serial uint64
	inside bool
}

// NewHandshakeGate makes a gate for max half-open handshakes (0 = [DefaultHalfOpen]); now is the clock, nil = [time.Now].
func NewHandshakeGate(max int, now func() time.Time) *HandshakeGate {
	if max <= 0 {
		max = DefaultHalfOpen
	}
	if now == nil {
		now = time.Now
	}
	return &HandshakeGate{now: now, max: max, sources: map[netip.Addr]*gateSource{}, known: map[netip.Addr]time.Time{}}
}

// Enter registers a connection whose handshake begins. With ok the caller runs the handshake (with a deadline of its own, 10 s)
// and then calls leave once, verified telling whether it ended with a verified certificate; later calls do nothing. Without ok the caller closes the connection and leave is nil.
// The gate closes conn when it must make room.
func (g *HandshakeGate) Enter(conn net.Conn, src netip.Addr) (leave func(verified bool), ok bool) {
	entry, victim := g.enter(conn, sourceKey(src))
	if victim != nil {
		// Outside the lock: closing may enter the kernel for long.
		victim.Close()
	}
	if entry == nil {
		return nil, false
	}
	var once sync.Once
	return func(verified bool) { once.Do(func() { g.leave(entry, verified) }) }, true
}

// Known makes a source known from now on, as a verified handshake does: call it when a long verified connection ends, so that its peer gets back in.
func (g *HandshakeGate) Known(src netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remember(sourceKey(src))
}

// Stats returns the counters.
func (g *HandshakeGate) Stats() GateStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.HalfOpen, s.Known = g.total, len(g.known)
	return s
}

func sourceKey(src netip.Addr) netip.Addr {
	src = src.Unmap().WithZone("")
	if src.Is6() {
		return netip.PrefixFrom(src, 64).Masked().Addr()
	}
	return src
}

func (g *HandshakeGate) enter(conn net.Conn, key netip.Addr) (entry *gateEntry, victim net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.max {
		old := g.victimFor(key)
		if old == nil {
			g.stats.Refused++
			return nil, nil
		}
		g.stats.Displaced++
		victim = old.conn
		g.drop(old)
	}
	s := g.sources[key]
	if s == nil {
		s = &gateSource{key: key, index: -1}
		g.sources[key] = s
	}
	g.serial++
	entry = &gateEntry{conn: conn, source: s, serial: g.serial, inside: true}
	s.waiting = append(s.waiting, entry)
	g.total++
	g.stats.MostUsed = max(g.stats.MostUsed, g.total)
	g.place(s)
	return entry, victim
}

// victimFor names the handshake that makes room for a newcomer from key; nil when everything is reserved and the newcomer is unknown.
func (g *HandshakeGate) victimFor(key netip.Addr) *gateEntry {
	if len(g.order) > 0 {
		return g.order[0].waiting[0]
	}
	if !g.isKnown(key) {
		return nil
	}
	// Only known sources are inside, each within its share: among equals the one with the most gives way.
	var most *gateSource
	for _, s := range g.sources {
		if most == nil || len(s.waiting) > len(most.waiting) || len(s.waiting) == len(most.waiting) && s.waiting[0].serial < most.waiting[0].serial {
			most = s
		}
	}
	return most.waiting[0]
}

func (g *HandshakeGate) leave(e *gateEntry, verified bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if verified {
		g.remember(e.source.key)
	}
	if e.inside {
		g.drop(e)
	}
}

func (g *HandshakeGate) drop(e *gateEntry) {
	s := e.source
	e.inside = false
	for i, w := range s.waiting {
		if w == e {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			break
		}
	}
	g.total--
	if len(s.waiting) == 0 {
		delete(g.sources, s.key)
	}
	g.place(s)
}

// place brings a source to its place in the order of victims.
func (g *HandshakeGate) place(s *gateSource) {
	s.exposed = len(s.waiting)
	if s.exposed > 0 && g.isKnown(s.key) {
		s.exposed = max(0, s.exposed-reservedShare)
	}
	switch {
	case s.exposed == 0 && s.index >= 0:
		heap.Remove(&g.order, s.index)
	case s.exposed > 0 && s.index >= 0:
		heap.Fix(&g.order, s.index)
	case s.exposed > 0:
		heap.Push(&g.order, s)
	}
}

func (g *HandshakeGate) isKnown(key netip.Addr) bool {
	at, ok := g.known[key]
	return ok && g.now().Sub(at) < knownFor
}

func (g *HandshakeGate) remember(key netip.Addr) {
	now := g.now()
	if _, ok := g.known[key]; !ok && len(g.known) >= maxKnown {
		var oldest netip.Addr
		for k, at := range g.known {
			if !oldest.IsValid() || at.Before(g.known[oldest]) {
				oldest = k
			}
		}
		delete(g.known, oldest)
	}
	g.known[key] = now
	if s := g.sources[key]; s != nil {
		g.place(s)
	}
}

// gateHeap orders sources by the number of exposed handshakes, most first, then by the age of the oldest.
type gateHeap []*gateSource

func (h gateHeap) Len() int { return len(h) }

func (h gateHeap) Less(i, j int) bool {
	if h[i].exposed != h[j].exposed {
		return h[i].exposed > h[j].exposed
	}
	return h[i].waiting[0].serial < h[j].waiting[0].serial
}

func (h gateHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *gateHeap) Push(x any) {
	s := x.(*gateSource)
	s.index = len(*h)
	*h = append(*h, s)
}

func (h *gateHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	s.index = -1
	*h = old[:len(old)-1]
	return s
}
