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
}

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
	tried   bool // by a peer that was reached
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
	case v.Role != Originating || !v.Called.Valid() || v.Caller != "" && !v.Caller.Valid() || v.Stop.Before(v.Start) || v.Start.After(now.Add(time.Hour)):
		e.Counters.Invalid++
		return 0, ErrInvalid
	case !trust.AllowsNumber(v.Called):
		e.Counters.Untrusted++
		e.Counters.ValidationsBlocked++
		return 0, fmt.Errorf("%w: %s", ErrUntrusted, v.Called)
	}
	if last, ok := e.last[v.Called]; ok && v.Start.Sub(last).Abs() < e.cfg.Interval {
		e.Counters.TooSoon++
		e.Counters.ValidationsBlocked++
		return 0, ErrTooSoon
	}
	if len(e.waiting) >= e.cfg.MaxPending {
		e.Counters.Refused++
		e.Counters.ValidationsBlocked++
		return 0, ErrPending
	}
	e.remember(v.Called, v.Start)
	delay := e.cfg.DelayMin
	if spread := int64(e.cfg.DelayMax - e.cfg.DelayMin); spread > 0 && e.cfg.Random != nil {
		delay += time.Duration(e.cfg.Random(spread))
	}
	e.next++
	e.waiting[e.next] = &waiting{Task: Task{ID: e.next, Service: service, VCR: v}, Due: now.Add(delay)}
	e.Counters.Added++
	e.dirty.vcrs[e.next] = true
	return e.next, nil
}

// remember keeps the start of a number's call. The oldest gives way, which by then is long past the interval.
func (e *Engine) remember(n Number, start time.Time) {
	if _, ok := e.last[n]; !ok && len(e.last) >= e.cfg.MaxNumbers {
		var oldest Number
		for m, t := range e.last {
			if o := e.last[oldest]; oldest == "" || t.Before(o) || t.Equal(o) && m < oldest {
				oldest = m
			}
		}
		delete(e.last, oldest)
		e.dirty.numbers[oldest] = true
		e.Counters.NumbersEvicted++
	}
	if start.After(e.last[n]) {
		e.last[n] = start
		e.dirty.numbers[n] = true
	}
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
		case !w.Due.After(now):
			due = append(due, w)
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
		w.running = true
		e.Counters.ValidationAttempts++
		out = append(out, w.Task)
	}
	return out
}

// Next is when Due has something again; zero: nothing waits.
func (e *Engine) Next() (at time.Time) {
	for _, w := range e.waiting {
		if !w.running && (at.IsZero() || w.Due.Before(at)) {
			at = w.Due
		}
	}
	return at
}

// Pending is how many VCRs wait or are being validated.
func (e *Engine) Pending() int { return len(e.waiting) }

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
		return nil
	case Failed:
		e.Counters.Failed++
		w.tried = true
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
	var routes []Route
	for _, n := range r.Numbers {
		if n.Valid() && trust.Allows(r.Domain, n) {
			routes = append(routes, Route{Number: n, Domain: r.Domain, URIs: r.URIs, Ticket: r.Ticket, Peer: r.Peer, Learned: now, Expires: now.Add(RouteLife)})
		}
	}
	if len(routes) == 0 {
		e.Counters.Untrusted++
		e.Counters.ValidationsBlocked++
		return nil
	}
	e.Counters.Succeeded++
	released, dropped := e.pool(now, r.Peer).add(called, Validated{Service: w.Service, Value: r.Value, Routes: routes}, e.cfg.Threshold)
	e.Counters.ResultsEvicted += uint64(dropped)
	if released == nil {
		return nil
	}
	e.Counters.Released++
	out := latest(released)
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

// Finish ends a task. claimed says that some peer claimed the number. A VCR that no peer was reached for is tried again later.
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
	if w.Tries++; w.proven || w.tried || w.Tries >= e.cfg.Tries {
		delete(e.waiting, id)
		return
	}
	w.Due = now.Add(e.cfg.RetryAfter)
}
