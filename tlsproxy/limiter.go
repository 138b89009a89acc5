package tlsproxy

import "sync"

// Limiter counts sessions against a limit that may change at run time (tls-proxy maximum-sessions). The zero value refuses everything; use [NewLimiter].
// Safe for concurrent use. It never waits: at the limit a call is refused at once.
type Limiter struct {
	mu                        sync.Mutex // guards everything that follows
	max, inUse, most, refused int
}

// NewLimiter makes a limiter of max sessions.
func NewLimiter(max int) *Limiter { return &Limiter{max: max} }

// Acquire takes a session; false at the limit. Each success needs one Release.
func (l *Limiter) Acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inUse >= l.max {
		l.refused++
		return false
	}
	l.inUse++
	l.most = max(l.most, l.inUse)
	return true
}

// Full tells whether Acquire would fail now. It is no promise: another caller may take the last session in between.
func (l *Limiter) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inUse >= l.max
}

// Release gives a session back. One Release too many is ignored: the count must not wrap to let more in.
func (l *Limiter) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inUse > 0 {
		l.inUse--
	}
}

// SetMax changes the limit. Sessions over a lower limit stay; new ones are refused until enough have ended.
func (l *Limiter) SetMax(max int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max = max
}

// Max is the limit.
func (l *Limiter) Max() int { return l.get(&l.max) }

// InUse is the number of sessions now.
func (l *Limiter) InUse() int { return l.get(&l.inUse) }

// MostUsed is the highest number of sessions so far.
func (l *Limiter) MostUsed() int { return l.get(&l.most) }

// Refused counts the refusals so far.
func (l *Limiter) Refused() int { return l.get(&l.refused) }

func (l *Limiter) get(v *int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *v
}
