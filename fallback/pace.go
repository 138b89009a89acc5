package fallback

import "time"

// Limits of a Pace's rate, and what holds where none is configured: PSTN trunks take some ten calls a second.
const (
	DefaultRate = 10
	MaxRate     = 1000
)

// Pace lets at most so many events happen in any second: when an Internet access fails, all calls of a site are due at once, and what they
// would fall back to has a limit of its own. The zero value is ready. It belongs to one goroutine, or to who holds the caller's lock.
type Pace struct {
	times []time.Duration // of the last second, oldest first
}

// Take tells whether one more event fits in at an instant, and counts it then. Instants do not go back.
func (p *Pace) Take(at time.Duration, rate int) bool {
	gone := 0
	for gone < len(p.times) && at-p.times[gone] >= time.Second {
		gone++
	}
	p.times = p.times[:copy(p.times, p.times[gone:])]
	if len(p.times) >= min(rate, MaxRate) {
		return false
	}
	p.times = append(p.times, at)
	return true
}
