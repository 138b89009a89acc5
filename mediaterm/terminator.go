package mediaterm

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Defaults of Config.
const (
	DefaultMinPort    = 16384
	DefaultMaxPort    = 32767
	DefaultRest       = 60 * time.Second
	DefaultMaxStreams = 20000
)

// portTries bounds the pairs tried for one stream when others hold ports of the range:
// another program, or the calls of an earlier configuration, one beside the other. A
// try takes some microseconds, and a pair found held is left alone for a while.
const portTries = 2048

// closers is the number of goroutines that Close uses: a stream waits for its readers,
// and one after the other ten thousand streams would take over a second.
const closers = 32

// Config of a Terminator.
type Config struct {
	Addresses  []netip.Addr     // ours; each must be on an interface when New is called
	MinPort    uint16           // 0: 16384
	MaxPort    uint16           // 0: 32767; included
	NoRTCP     bool             // drop RTCP in both directions (`no rtcp`)
	Rest       time.Duration    // of freed ports; 0: 60 s; negative: none
	MaxStreams int              // 0: 20000
	Log        *slog.Logger     // nil: discarded
	Now        func() time.Time // nil: time.Now
	// OnEvent is called from one goroutine, in order. It may close the stream, not the
	// terminator. nil: events are dropped.
	OnEvent func(Event)
	// Engine moves the packets; whoever opened it closes it, after the terminator. nil: engine sockets.
	Engine Engine
}

// Terminator owns the media-termination addresses. Safe for concurrent use.
type Terminator struct {
	cfg     Config
	engine  Engine
	classes int // of port pairs; the legs of a stream need pairs of one class
	events  *dispatcher

	mu      sync.Mutex // guards everything that follows; never held over a bind
	pools   map[netip.Addr]*portPool
	streams map[*Stream]struct{}
	opening int // streams between their check against the limit and their entry in streams
	closed  bool
	count   Counters
}

// Counters of a Terminator. A port counted is a pair (RTP and RTCP); a stream takes two.
type Counters struct {
	Engine         string `json:"engine"`
	Streams        int    `json:"streams"`
	MostStreams    int    `json:"most_streams"`
	MaxStreams     int    `json:"max_streams"`
	StreamsOpened  uint64 `json:"streams_opened"`
	PortPairs      int    `json:"port_pairs"` // configured, all addresses
	InUse          int    `json:"in_use"`
	MostInUse      int    `json:"most_in_use"`
	Resting        int    `json:"resting"`
	RefusedPorts   uint64 `json:"refused_ports"`   // streams refused: no pair free
	RefusedStreams uint64 `json:"refused_streams"` // streams refused: MaxStreams
	PortConflicts  uint64 `json:"port_conflicts"`  // pairs that another program held
	EventsDropped  uint64 `json:"events_dropped"`

	EngineCounters EngineCounters `json:"engine_counters,omitzero"` // of engine tproxy
}

// StreamParams name a stream and say which of our addresses its legs use.
type StreamParams struct {
	Inside, Outside netip.Addr // of Config.Addresses; may be the same (global address)
	CallID          string     // for logs and Stats
	Media           string     // "audio", "video", ...
	// Watcher, when not nil, is told of each authentic RTP packet from the outside.
	Watcher Watcher
	// Marking of what leaves on both sides.
	Marking Marking
}

// New checks the configuration and that every address can be bound, so that a missing
// address is told at start and not by the first call. The error is then a *BindError.
func New(cfg Config) (*Terminator, error) {
	if cfg.MinPort == 0 {
		cfg.MinPort = DefaultMinPort
	}
	if cfg.MaxPort == 0 {
		cfg.MaxPort = DefaultMaxPort
	}
	if cfg.Rest == 0 {
		cfg.Rest = DefaultRest
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = DefaultMaxStreams
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("no media-termination address")
	}
	t := &Terminator{cfg: cfg, pools: map[netip.Addr]*portPool{}, streams: map[*Stream]struct{}{}}
	for _, a := range cfg.Addresses {
		a = a.Unmap()
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("media-termination address %s: not a unicast address", a)
		}
		probe, err := listen(netip.AddrPortFrom(a, 0))
		if err != nil {
			return nil, err
		}
		_ = probe.Close()
		pool := newPortPool(a, cfg.MinPort, cfg.MaxPort, cfg.Rest)
		if len(pool.state) == 0 {
			return nil, fmt.Errorf("media ports %d-%d: no pair of an even port and the next lies within", cfg.MinPort, cfg.MaxPort)
		}
		t.pools[a] = pool
	}
	if t.engine = cfg.Engine; t.engine == nil {
		t.engine = newSocketEngine(cfg)
	}
	if t.engine.Name() != EngineSockets && slices.ContainsFunc(cfg.Addresses, func(a netip.Addr) bool { return !a.Unmap().Is4() }) {
		return nil, fmt.Errorf("media engine %s: IPv4 addresses only", t.engine.Name())
	}
	t.classes = 1
	if e, ok := t.engine.(interface{ classes() int }); ok {
		t.classes = e.classes()
	}
	if cfg.OnEvent != nil {
		t.events = newDispatcher(cfg.OnEvent)
	}
	return t, nil
}

// NewStream takes a port pair on each address and starts to relay. The inside leg is
// plain and the outside leg closed until SetCrypto; nothing is sent before SetRemote.
// Errors: ErrNoPorts, ErrStreamLimit, ErrUnknownAddress, ErrClosed, *BindError.
func (t *Terminator) NewStream(p StreamParams) (*Stream, error) {
	p.Inside, p.Outside = p.Inside.Unmap(), p.Outside.Unmap()
	if err := t.reserve(p); err != nil {
		return nil, err
	}
	s, err := t.open(p)
	t.mu.Lock()
	t.opening--
	if err == nil && !t.closed {
		t.streams[s] = struct{}{}
		t.count.StreamsOpened++
		t.count.MostStreams = max(t.count.MostStreams, len(t.streams))
		t.mu.Unlock()
		return s, nil
	}
	if errors.Is(err, ErrNoPorts) {
		t.count.RefusedPorts++
	}
	t.mu.Unlock()
	if err == nil {
		s.Close()
		return nil, ErrClosed
	}
	return nil, err
}

func (t *Terminator) reserve(p StreamParams) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	for _, a := range []netip.Addr{p.Inside, p.Outside} {
		if t.pools[a] == nil {
			return fmt.Errorf("%w: %s", ErrUnknownAddress, a)
		}
	}
	if len(t.streams)+t.opening >= t.cfg.MaxStreams {
		t.count.RefusedStreams++
		return fmt.Errorf("%w: %d", ErrStreamLimit, t.cfg.MaxStreams)
	}
	t.opening++
	return nil
}

// open tries pairs until the engine can bind them. A pair that another program holds
// rests like a freed one, so that it is not tried again at once.
func (t *Terminator) open(p StreamParams) (*Stream, error) {
	s := &Stream{term: t, params: p, opened: t.cfg.Now()}
	for n := range portTries {
		local, err := t.takePorts(p)
		if err != nil {
			return nil, err
		}
		s.local = local
		s.eng, err = t.engine.Open(EngineSpec{Local: local, Media: p.Media, NoRTCP: t.cfg.NoRTCP, Emit: func(e Event) { t.emit(s, e) }, Watcher: p.Watcher, Marking: p.Marking})
		if err == nil {
			if n > 0 {
				t.cfg.Log.Warn("media port pairs skipped that others hold", "call_id", p.CallID, "pairs", n)
			}
			return s, nil
		}
		t.releasePorts(local)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("open media stream: %w", err)
		}
		t.mu.Lock()
		t.count.PortConflicts++
		t.mu.Unlock()
		t.cfg.Log.Debug("media port pair skipped", "call_id", p.CallID, "error", err)
	}
	return nil, fmt.Errorf("%w: %d pairs in a row are held by other programs", ErrNoPorts, portTries)
}

func (t *Terminator) takePorts(p StreamParams) (local [2]netip.AddrPort, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	inside, outside := t.pools[p.Inside], t.pools[p.Outside]
	first := inside.class(t.classes)
	for i := range t.classes {
		class := (first + i) % t.classes
		in, ok := inside.take(now, class, t.classes)
		if !ok {
			err = fmt.Errorf("%w on %s", ErrNoPorts, p.Inside)
			continue
		}
		out, ok := outside.take(now, class, t.classes)
		if !ok {
			inside.untake(in)
			err = fmt.Errorf("%w on %s", ErrNoPorts, p.Outside)
			continue
		}
		t.count.MostInUse = max(t.count.MostInUse, t.inUse())
		return [2]netip.AddrPort{netip.AddrPortFrom(p.Inside, in), netip.AddrPortFrom(p.Outside, out)}, nil
	}
	return local, err
}

func (t *Terminator) inUse() int {
	n := 0
	for _, p := range t.pools {
		n += p.used
	}
	return n
}

func (t *Terminator) releasePorts(local [2]netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	for _, a := range local {
		t.pools[a.Addr()].release(a.Port(), now)
	}
}

func (t *Terminator) emit(s *Stream, e Event) {
	if t.events != nil {
		e.Stream = s
		t.events.emit(e)
	}
}

// forget is called once by a closing stream, after its sockets are closed.
func (t *Terminator) forget(s *Stream) {
	t.mu.Lock()
	delete(t.streams, s)
	t.mu.Unlock()
	t.releasePorts(s.local)
}

// Streams returns the streams that exist, oldest first.
func (t *Terminator) Streams() []*Stream {
	t.mu.Lock()
	list := make([]*Stream, 0, len(t.streams))
	for s := range t.streams {
		list = append(list, s)
	}
	t.mu.Unlock()
	slices.SortFunc(list, func(a, b *Stream) int {
		if c := a.opened.Compare(b.opened); c != 0 {
			return c
		}
		return a.local[Outside].Compare(b.local[Outside])
	})
	return list
}

// Counters returns a snapshot.
func (t *Terminator) Counters() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.count
	c.Engine, c.Streams, c.MaxStreams = t.engine.Name(), len(t.streams), t.cfg.MaxStreams
	if e, ok := t.engine.(interface{ Counters() EngineCounters }); ok {
		c.EngineCounters = e.Counters()
	}
	now := t.cfg.Now()
	for _, p := range t.pools {
		p.wake(now)
		c.PortPairs += len(p.state)
		c.InUse += p.used
		c.Resting += len(p.queue)
	}
	if t.events != nil {
		c.EventsDropped = t.events.dropped.Load()
	}
	return c
}

// Close closes every stream and ends all goroutines before it returns, within a second.
// Further NewStream calls give ErrClosed. Calling it again does nothing.
func (t *Terminator) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.mu.Unlock()
	var closing sync.WaitGroup
	streams := t.Streams()
	for part := range slices.Chunk(streams, len(streams)/closers+1) {
		closing.Go(func() {
			for _, s := range part {
				s.Close()
			}
		})
	}
	closing.Wait()
	if t.events != nil {
		t.events.close()
	}
	if t.cfg.Engine != nil {
		return nil
	}
	if err := t.engine.Close(); err != nil {
		return fmt.Errorf("close media engine: %w", err)
	}
	return nil
}
