package learn

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// RouteLife is how long a route and its ticket are valid (guide line 219).
const RouteLife = 365 * 24 * time.Hour

// Config of an Engine. The zero value of a field means its default.
type Config struct {
	Threshold int           // of a bucket, `set ime validator local bucketentropy`: 24
	Interval  time.Duration // between two validated calls of one called number: an hour
	// DelayMin and DelayMax bound the random wait before a validation: 1 and 5 minutes.
	DelayMin, DelayMax time.Duration
	Tries              int           // of a VCR whose peers are unreachable: 3
	RetryAfter         time.Duration // between them: 10 minutes
	Keep               time.Duration // a VCR that could not be validated is forgotten: a day
	MaxPending         int           // VCRs: 10,000
	MaxPeers           int           // pools: 10,000
	MaxNumbers         int           // called numbers whose last validated call is remembered: 100,000
	// Random gives a number from 0 up to n, n not included.
	Random func(n int64) int64
	// Ready says whether calls of a service may be validated now: those of others wait, for the trust group of a service that has not been published
	// since the start is not known. Nil: all may.
	Ready func(service string) bool
}

// maxAhead is how far a call's start may be ahead of our clock. What was remembered from further ahead comes of a clock that has been set back.
const maxAhead = time.Hour

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Threshold, 24)
	def(&c.Tries, 3)
	def(&c.MaxPending, 10_000)
	def(&c.MaxPeers, 10_000)
	def(&c.MaxNumbers, 100_000)
	defTime(&c.Interval, time.Hour)
	defTime(&c.DelayMin, time.Minute)
	defTime(&c.DelayMax, 5*time.Minute)
	defTime(&c.RetryAfter, 10*time.Minute)
	defTime(&c.Keep, 24*time.Hour)
	return c
}

// Reasons for which a VCR is not validated.
var (
	ErrInvalid   = errors.New("the record does not describe a call")
	ErrNotOurs   = errors.New("the call came in: the other side validates it")
	ErrTooSoon   = errors.New("another call of that number is validated within the interval")
	ErrUntrusted = errors.New("the trust group refuses the number")
	ErrPending   = errors.New("too many records wait for their validation")
)

// Counters of an Engine, those of the guide's table 36 under their names there.
type Counters struct {
	ValidationAttempts, ValidationsBlocked                       uint64
	Added, Invalid, TooSoon, Untrusted, Refused, Expired         uint64 // VCRs
	Succeeded, Failed, Unreachable, RefusedByPeer, Unclaimed     uint64 // validations
	Learned, Released                                            uint64 // routes, buckets
	PoolsEvicted, BucketsEvicted, ResultsEvicted, NumbersEvicted uint64
}

// Task is a VCR to be validated now, against each peer that claims its called number.
type Task struct {
	ID      uint64
	Service string
	VCR     VCR
	// Asked are the peers that have been asked for this call: no peer is asked twice, unless it was not reached.
	Asked []PeerID
}

// Outcome of a validation with one peer.
type Outcome uint8

// Outcomes. Only Failed is a failure in the sense of the pools.
const (
	Unreachable Outcome = iota
	Failed
	Refused
	Succeeded
)

// Result of a validation with one peer.
type Result struct {
	Peer    PeerID
	Outcome Outcome
	Value   int // 8 or 12, of Succeeded
	// Domain, Numbers, URIs and Ticket are what the peer granted.
	Domain  string
	Numbers []Number
	URIs    []string
	Ticket  string
	Until   time.Time // end of the ticket; zero: not known
}

// Learned is a route for the call agents of a service.
type Learned struct {
	Service string
	Route   Route
}

// waiting is a VCR on its way.
type waiting struct {
	Task
	Due     time.Time
	Tries   int
	running bool
	proven  bool // by one peer: it proves nothing more
	again   bool // a peer that claims the number has not been reached, or not been asked yet
}

// Engine is the state machine. It is not safe for concurrent use.
type Engine struct {
	Counters Counters

	cfg     Config
	next    uint64
	waiting map[uint64]*waiting
	last    map[Number]time.Time // start of the last call that is, or will be, validated
	pools   map[PeerID]*Pool
	dirty   dirty
}

// New makes an Engine that knows nothing.
func New(cfg Config) *Engine {
	return &Engine{cfg: cfg.withDefaults(), waiting: map[uint64]*waiting{}, last: map[Number]time.Time{}, pools: map[PeerID]*Pool{}, dirty: newDirty()}
}

// Add takes the VCR of a finished call, uploaded by a call agent of a service with a trust group. The error says why it will not be validated;
// nothing else is wrong then.
func (e *Engine) Add(now time.Time, service string, trust *TrustGroup, v VCR) (id uint64, err error) {
	switch {
	case v.Role == Terminating:
		return 0, ErrNotOurs
	case v.Role != Originating || !v.Called.Valid() || v.Caller != "" && !v.Caller.Valid() || v.Stop.Before(v.Start) || v.Start.After(now.Add(maxAhead)):
		e.Counters.Invalid++
		return 0, ErrInvalid
	case !trust.AllowsNumber(v.Called):
		e.Counters.Untrusted++
		e.Counters.ValidationsBlocked++
		return 0, fmt.Errorf("%w: %s", ErrUntrusted, v.Called)
	}
	// A call that began before the last one is refused however long before: the one before that is not remembered.
	if last, ok := e.last[v.Called]; ok && !last.After(now.Add(maxAhead)) && v.Start.Before(last.Add(e.cfg.Interval)) {
		e.Counters.TooSoon++
		e.Counters.ValidationsBlocked++
		return 0, ErrTooSoon
	}
	if len(e.waiting) >= e.cfg.MaxPending || !e.remember(now, v.Called, v.Start) {
		e.Counters.Refused++
		e.Counters.ValidationsBlocked++
		return 0, ErrPending
	}
	e.next++
	e.waiting[e.next] = &waiting{Task: Task{ID: e.next, Service: service, VCR: v}, Due: now.Add(e.delay())}
	e.Counters.Added++
	e.dirty.vcrs[e.next] = true
	return e.next, nil
}

func (e *Engine) delay() time.Duration {
	d := e.cfg.DelayMin
	if spread := int64(e.cfg.DelayMax - e.cfg.DelayMin); spread > 0 && e.cfg.Random != nil {
		d += time.Duration(e.cfg.Random(spread))
	}
	return d
}

// remember keeps the start of a number's call. The oldest gives way; false: all are within the interval, and to forget one would break the rule.
func (e *Engine) remember(now time.Time, n Number, start time.Time) bool {
	if _, ok := e.last[n]; !ok && len(e.last) >= e.cfg.MaxNumbers {
		var oldest Number
		for m, t := range e.last {
			if o := e.last[oldest]; oldest == "" || t.Before(o) || t.Equal(o) && m < oldest {
				oldest = m
			}
		}
		if e.last[oldest].After(now.Add(-e.cfg.Interval)) {
			return false
		}
		delete(e.last, oldest)
		e.dirty.numbers[oldest] = true
		e.Counters.NumbersEvicted++
	}
	e.last[n] = start
	e.dirty.numbers[n] = true
	return true
}

// Due gives the VCRs to be validated now, at most limit, those that wait longest first. Each must be ended by Finish.
func (e *Engine) Due(now time.Time, limit int) []Task {
	var due []*waiting
	for id, w := range e.waiting {
		switch {
		case w.running:
		case now.Sub(w.VCR.Stop) > e.cfg.Keep:
			delete(e.waiting, id)
			e.dirty.vcrs[id] = true
			e.Counters.Expired++
		case e.cfg.Ready != nil && !e.cfg.Ready(w.Service):
		case !w.Due.After(now):
			due = append(due, w)
		case w.Due.Sub(now) > max(e.cfg.DelayMax, e.cfg.RetryAfter): // the clock was set back
			w.Due = now.Add(e.delay())
			e.dirty.vcrs[id] = true
		}
	}
	slices.SortFunc(due, func(a, b *waiting) int {
		if c := a.Due.Compare(b.Due); c != 0 {
			return c
		}
		return int(a.ID) - int(b.ID)
	})
	var out []Task
	for _, w := range due[:min(limit, len(due))] {
		w.running, w.again = true, false
		e.Counters.ValidationAttempts++
		t := w.Task
		t.Asked = slices.Clone(t.Asked)
		out = append(out, t)
	}
	return out
}

// Next is when Due has something again; zero: nothing waits.
func (e *Engine) Next() (at time.Time) {
	for _, w := range e.waiting {
		if !w.running && (at.IsZero() || w.Due.Before(at)) && (e.cfg.Ready == nil || e.cfg.Ready(w.Service)) {
			at = w.Due
		}
	}
	return at
}

// Pending is how many VCRs wait or are being validated.
func (e *Engine) Pending() int { return len(e.waiting) }

// Ask notes that a peer is going to be asked, to be stored before it is: who has had its guesses, or has used up its own record of the
// call, is not asked again after a crash. False: it has been asked before, or the call proves nothing more.
func (e *Engine) Ask(id uint64, peer PeerID) bool {
	w, ok := e.waiting[id]
	if !ok || !w.running || w.proven || slices.Contains(w.Asked, peer) {
		return false
	}
	w.Asked = append(w.Asked, peer)
	e.dirty.vcrs[id] = true
	return true
}

// Again says that some peer which claims the number of a task has not had its say: unless another proves the call, it is tried again.
func (e *Engine) Again(id uint64) {
	if w, ok := e.waiting[id]; ok && w.running {
		w.again = true
	}
}

// Boxed says whether a number is in the penalty box of a peer.
func (e *Engine) Boxed(peer PeerID, n Number) bool {
	p, ok := e.pools[peer]
	return ok && p.Numbers[n] != nil
}

// Report takes the outcome with one peer and gives the routes that are learned by it. What comes behind a success of the same VCR, or for one
// that has ended, changes nothing: a VCR proves once.
func (e *Engine) Report(now time.Time, id uint64, trust *TrustGroup, r Result) []Learned {
	w, ok := e.waiting[id]
	if !ok || !w.running || w.proven {
		return nil
	}
	e.dirty.vcrs[id] = true
	called := w.VCR.Called
	switch r.Outcome {
	case Unreachable:
		e.Counters.Unreachable++
		w.Asked = slices.DeleteFunc(w.Asked, func(p PeerID) bool { return p == r.Peer })
		w.again = true
		return nil
	case Failed:
		e.Counters.Failed++
		if !slices.Contains(w.Asked, r.Peer) {
			w.Asked = append(w.Asked, r.Peer)
		}
		e.Counters.BucketsEvicted += uint64(e.pool(now, r.Peer).fail(called))
		return nil
	case Refused:
		e.Counters.RefusedByPeer++
		w.proven = true
		return nil
	case Succeeded:
	default:
		return nil
	}
	w.proven = true
	if r.Value != 8 && r.Value != 12 || !slices.Contains(r.Numbers, called) {
		e.Counters.RefusedByPeer++
		return nil
	}
	// The peer may name more numbers than the called one. Nothing is proven of those: whoever owns one number would be given any other.
	if !trust.Allows(r.Domain, called) {
		e.Counters.Untrusted++
		e.Counters.ValidationsBlocked++
		return nil
	}
	route := Route{Number: called, Domain: r.Domain, URIs: r.URIs, Ticket: r.Ticket, Peer: r.Peer, Learned: now, Expires: now.Add(RouteLife)}
	if !r.Until.IsZero() && r.Until.Before(route.Expires) {
		route.Expires = r.Until
	}
	e.Counters.Succeeded++
	released, dropped := e.pool(now, r.Peer).add(called, Validated{Service: w.Service, Value: r.Value, Routes: []Route{route}}, e.cfg.Threshold)
	e.Counters.ResultsEvicted += uint64(dropped)
	if released == nil {
		return nil
	}
	e.Counters.Released++
	// What has waited in a bucket may have ended there, or the service may trust its domain no more.
	out := slices.DeleteFunc(latest(released), func(l Learned) bool {
		return !l.Route.Expires.After(now) || l.Service == w.Service && !trust.Allows(l.Route.Domain, l.Route.Number)
	})
	e.Counters.Learned += uint64(len(out))
	return out
}

// latest gives each route of some results once for each service, as the last of them has it, in the order of the first.
func latest(results []Validated) (out []Learned) {
	for _, v := range results {
		for _, r := range v.Routes {
			l := Learned{Service: v.Service, Route: r}
			if i := slices.IndexFunc(out, func(x Learned) bool { return x.Service == l.Service && x.Route.Number == r.Number }); i >= 0 {
				out[i] = l
			} else {
				out = append(out, l)
			}
		}
	}
	return out
}

// Finish ends a task. claimed says that some peer claimed the number. A VCR that nobody has proven is tried again later, a bounded number of
// times, when a peer that claims the number was not reached or not asked, or when none was.
func (e *Engine) Finish(now time.Time, id uint64, claimed bool) {
	w, ok := e.waiting[id]
	if !ok || !w.running {
		return
	}
	w.running = false
	e.dirty.vcrs[id] = true
	if !claimed {
		e.Counters.Unclaimed++
		delete(e.waiting, id)
		return
	}
	if w.Tries++; w.proven || !w.again && len(w.Asked) > 0 || w.Tries >= e.cfg.Tries {
		delete(e.waiting, id)
		return
	}
	w.Due = now.Add(e.cfg.RetryAfter)
}
