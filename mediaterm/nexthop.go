package mediaterm

import (
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// How often all ways are looked up again although nothing was told, and the least time between two such rounds.
const (
	refreshEvery = 30 * time.Second
	refreshLeast = 100 * time.Millisecond
)

// defaultMTU until the way to a destination is known.
const defaultMTU = 1500

// linkState is how packets to a destination leave. It is never changed, only replaced.
type linkState struct {
	direct bool // ether and index are known and the way is an ordinary one
	index  int32
	ether  [etherLen]byte
	mtu    int
	via    netip.Addr // the neighbour; invalid when there is none
	shaped bool       // the link has a queueing discipline that must not be gone round
}

// unknownWay leaves everything to the kernel.
var unknownWay = &linkState{mtu: defaultMTU}

// hop is the way from one of our addresses to a destination, shared by all streams that go there.
type hop struct {
	src, dst netip.Addr
	link     atomic.Pointer[linkState] // never nil
	users    int                       // guarded by resolver.mu
	stale    bool                      // to be looked up; guarded by resolver.mu
}

// resolver keeps the ways to all destinations in use as the kernel's routes and neighbours say. What is not plainly an
// Ethernet neighbour (local, tunnelled, encrypted, not resolved yet, failed) is left to the kernel, packet by packet.
type resolver struct {
	log  *slog.Logger
	told func() // called when links or routes have changed
	kick chan struct{}
	stop chan struct{}
	done sync.WaitGroup

	requests *netlinkConn // of the goroutine run
	events   *netlinkConn // of the goroutine listen

	mu   sync.Mutex // guards everything that follows; never held over a system call
	hops map[hopKey]*hop
	all  bool // every hop is stale
}

type hopKey struct{ src, dst netip.Addr }

func newResolver(log *slog.Logger, told func()) (*resolver, error) {
	r := &resolver{log: log, told: told, kick: make(chan struct{}, 1), stop: make(chan struct{}), hops: map[hopKey]*hop{}}
	var err error
	if r.requests, err = openNetlink(0); err != nil {
		return nil, err
	}
	if r.events, err = openNetlink(eventGroups); err != nil {
		_ = r.requests.close()
		return nil, err
	}
	r.done.Go(r.run)
	r.done.Go(r.listen)
	return r, nil
}

// get returns the hop between two addresses and counts its user.
func (r *resolver) get(src, dst netip.Addr) *hop {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := hopKey{src, dst}
	h := r.hops[key]
	if h == nil {
		h = &hop{src: src, dst: dst, stale: true}
		h.link.Store(unknownWay)
		r.hops[key] = h
		r.poke()
	}
	h.users++
	return h
}

// release takes a user off; nil is allowed.
func (r *resolver) release(h *hop) {
	if h == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(r.hops, hopKey{h.src, h.dst})
	}
}

func (r *resolver) poke() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// run looks up what is stale.
func (r *resolver) run() {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			r.expire()
		case <-r.kick:
		}
		list, all := r.work()
		if all {
			r.requests.forgetLinks()
			r.told()
		}
		for _, h := range list {
			h.link.Store(r.requests.lookup(h.src, h.dst))
		}
		if !all {
			continue
		}
		select { // a storm of changes must not cost more than one round in refreshLeast
		case <-r.stop:
			return
		case <-time.After(refreshLeast):
		}
	}
}

func (r *resolver) expire() {
	r.mu.Lock()
	r.all = true
	r.mu.Unlock()
}

// work takes the list of what is to be looked up.
func (r *resolver) work() (list []*hop, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all = r.all
	r.all = false
	for _, h := range r.hops {
		if all || h.stale {
			h.stale = false
			list = append(list, h)
		}
	}
	return list, all
}

// listen marks as stale what the kernel tells of.
func (r *resolver) listen() {
	for {
		neighbours, all, err := r.events.read()
		if err != nil {
			select {
			case <-r.stop:
			default:
				r.log.Error("changes of neighbours and routes are no longer told; they are looked for every 30 s", "error", err)
			}
			return
		}
		r.mark(neighbours, all)
	}
}

func (r *resolver) mark(neighbours []netip.Addr, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := all
	r.all = r.all || all
	for _, n := range neighbours {
		for _, h := range r.hops {
			if h.link.Load().via == n {
				h.stale, found = true, true
			}
		}
	}
	if found {
		r.poke()
	}
}

func (r *resolver) close() error {
	close(r.stop)
	err := r.events.close() // ends listen
	r.done.Wait()
	if e := r.requests.close(); err == nil {
		err = e
	}
	return err
}
