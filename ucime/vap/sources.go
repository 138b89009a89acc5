package vap

import (
	"net/netip"
	"time"
)

const (
	maxSources  = 1024
	sourceTries = 10 // wrong integrities within sourceTime
	sourceTime  = 60 * time.Second
)

// sources remembers who proved a password wrongly.
type sources map[netip.Addr]*guesses

type guesses struct {
	first time.Time // of the failures that count
	count int
	until time.Time // refused until then
}

// refused reports whether connections of a source are not wanted now.
func (s sources) refused(a netip.Addr, now time.Time) bool {
	e := s[a]
	return e != nil && now.Before(e.until)
}

// failed counts a wrong integrity. Where the table is full the entry that began first gives way.
func (s sources) failed(a netip.Addr, now time.Time) {
	e := s[a]
	if e == nil {
		if len(s) >= maxSources {
			var oldest netip.Addr
			for k, o := range s {
				if first := s[oldest]; first == nil || o.first.Before(first.first) {
					oldest = k
				}
			}
			delete(s, oldest)
		}
		e = &guesses{first: now}
		s[a] = e
	}
	if now.Sub(e.first) > sourceTime {
		e.first, e.count = now, 0
	}
	if e.count++; e.count >= sourceTries {
		e.until = now.Add(sourceTime)
		e.first, e.count = now, 0
	}
}
