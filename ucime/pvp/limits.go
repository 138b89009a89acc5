package pvp

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Limits bound what outsiders can make a Server or Client do. The zero value of a field means its default
// (docs/protocol/pvp.md, Limits).
type Limits struct {
	// Pending is how many connections may be in the TLS handshake (64).
	Pending int
	// Terminating and Originating are how many validations may run at a time (64, 32): the guide's TLSValidationThreshold.
	Terminating, Originating int
	// PerPeer is how many validations may run with one peer at a time, on either side (4).
	PerPeer int
	// SourceBurst and SourcePerMinute bound new connections of one source (60, 60).
	SourceBurst, SourcePerMinute int
	// PeerBurst and PeerPerHour bound the unsuccessful runs of one peer (24, 12).
	PeerBurst, PeerPerHour int
	// GuessesPerPeer and Guesses bound the unsuccessful runs against one VCR, by one peer and by all (8, 48).
	GuessesPerPeer, Guesses int
	// TargetBurst and TargetPerHour bound our connections to one host (IPv4 address, IPv6 /64) that lead to no peer (16, 60).
	TargetBurst, TargetPerHour int
	// Workers is how many runs are computed at a time (half the processors, at least 1).
	Workers int
	// Handshake, Frame and Connection bound the TLS handshake, the wait for one frame, and all of it (10 s, 10 s, 30 s).
	Handshake, Frame, Connection time.Duration
	// TableEntries caps the tables of sources and of peers (16,384), BudgetEntries that of VCRs with guesses spent (200,000).
	TableEntries, BudgetEntries int
}

// withDefaults fills in what is zero and refuses what is negative.
func (l Limits) withDefaults() (Limits, error) {
	for _, f := range []struct {
		v    *int
		name string
		def  int
	}{
		{&l.Pending, "pending connections", 64},
		{&l.Terminating, "terminating validations", 64},
		{&l.Originating, "originating validations", 32},
		{&l.PerPeer, "validations of one peer", 4},
		{&l.SourceBurst, "burst of connections", 60},
		{&l.SourcePerMinute, "connections a minute", 60},
		{&l.PeerBurst, "burst of runs", 24},
		{&l.PeerPerHour, "runs an hour", 12},
		{&l.GuessesPerPeer, "guesses of one peer", 8},
		{&l.Guesses, "guesses", 48},
		{&l.TargetBurst, "burst of connections to a host", 16},
		{&l.TargetPerHour, "connections to a host an hour", 60},
		{&l.Workers, "workers", max(1, runtime.GOMAXPROCS(0)/2)},
		{&l.TableEntries, "table entries", 16384},
		{&l.BudgetEntries, "budget entries", 200_000},
	} {
		if *f.v < 0 {
			return l, fmt.Errorf("limit of %s is %d, want 1 or more", f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&l.Handshake, 10 * time.Second}, {&l.Frame, 10 * time.Second}, {&l.Connection, 30 * time.Second}} {
		if *f.v < 0 {
			return l, errors.New("a time limit is negative")
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	return l, nil
}

// rates is a table of token buckets with a cap. Full buckets say nothing and are dropped when room is needed; when none is
// full, newcomers share one bucket, so that a flood of names buys nothing.
type rates[K comparable] struct {
	burst, perSecond float64
	cap              int

	mu       sync.Mutex // guards what follows
	m        map[K]*tokens
	overflow tokens
	pruned   time.Time
	shared   uint64 // takes from overflow
}

type tokens struct {
	n  float64
	at time.Time
}

func newRates[K comparable](burst int, perSecond float64, entries int) *rates[K] {
	return &rates[K]{burst: float64(burst), perSecond: perSecond, cap: entries, m: map[K]*tokens{}, overflow: tokens{n: float64(burst)}}
}

// take takes one token of key and reports whether there was one.
func (r *rates[K]) take(key K, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.bucket(key, now)
	r.refill(b, now)
	if b.n < 1 {
		return false
	}
	b.n--
	return true
}

// giveBack returns n tokens, never above the burst.
func (r *rates[K]) giveBack(key K, n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.m[key]; b != nil {
		r.refill(b, now)
		b.n = min(r.burst, b.n+float64(n))
	}
}

func (r *rates[K]) refill(b *tokens, now time.Time) {
	if now.After(b.at) {
		if !b.at.IsZero() {
			b.n = min(r.burst, b.n+now.Sub(b.at).Seconds()*r.perSecond)
		}
		b.at = now
	}
}

func (r *rates[K]) bucket(key K, now time.Time) *tokens {
	if b := r.m[key]; b != nil {
		return b
	}
	if len(r.m) >= r.cap && now.Sub(r.pruned) >= time.Second { // a walk at most once a second
		r.pruned = now
		for k, b := range r.m {
			if r.refill(b, now); b.n >= r.burst {
				delete(r.m, k)
			}
		}
	}
	if len(r.m) >= r.cap {
		r.shared++
		return &r.overflow
	}
	b := &tokens{n: r.burst, at: now}
	r.m[key] = b
	return b
}

func (r *rates[K]) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.m)
}

// counted bounds how many validations each peer runs at a time. It has an entry only for peers that run one, so the
// limit of validations at a time is its cap.
type counted[K comparable] struct {
	mu sync.Mutex // guards m
	m  map[K]int
}

func (c *counted[K]) enter(key K, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[K]int{}
	}
	if c.m[key] >= limit {
		return false
	}
	c.m[key]++
	return true
}

func (c *counted[K]) leave(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m[key]--; c.m[key] <= 0 {
		delete(c.m, key)
	}
}
