package observe

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// LimitLog passes at most perSecond records a second of each of the given messages, so that strangers cannot fill a disk by being
// refused. The first record that passes after others were left out has their number as "left_out". Other messages pass as they are.
func LimitLog(h slog.Handler, perSecond int, now func() time.Time, messages ...string) slog.Handler {
	l := &logLimit{perSecond: perSecond, now: now, seen: make(map[string]*logCount, len(messages))}
	for _, m := range messages {
		l.seen[m] = &logCount{}
	}
	return limitedHandler{h, l}
}

type logLimit struct {
	perSecond int
	now       func() time.Time
	seen      map[string]*logCount // its keys are fixed

	mu sync.Mutex // guards the counts
}

type logCount struct {
	second  int64
	n       int
	leftOut int
}

// pass tells whether a record may pass, and how many of its message were left out since one did.
func (l *logLimit) pass(c *logCount) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if second := l.now().Unix(); second != c.second {
		c.second, c.n = second, 0
	}
	if c.n >= l.perSecond {
		c.leftOut++
		return 0, false
	}
	c.n++
	leftOut, c.leftOut = c.leftOut, 0
	return leftOut, true
}

type limitedHandler struct {
	slog.Handler
	limit *logLimit
}

// Handle passes a record on or counts it.
func (h limitedHandler) Handle(ctx context.Context, r slog.Record) error {
	if c := h.limit.seen[r.Message]; c != nil {
		leftOut, ok := h.limit.pass(c)
		if !ok {
			return nil
		}
		if leftOut > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("left_out", leftOut))
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the limit.
func (h limitedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limitedHandler{h.Handler.WithAttrs(attrs), h.limit}
}

// WithGroup keeps the limit.
func (h limitedHandler) WithGroup(name string) slog.Handler {
	return limitedHandler{h.Handler.WithGroup(name), h.limit}
}
