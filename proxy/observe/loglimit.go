package observe

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// EventKey is the attribute that says what a log line tells of, in a word of our own: message texts may be worded anew, filters and limits go by
// this. A record has it when strangers can bring the line about.
const EventKey = "event"

// maxLimitedEvents bounds the events that are counted; the code has some twenty. Records of others would pass without a limit, so they share one.
const maxLimitedEvents = 100

// LimitLog passes at most perSecond records a second of each event (EventKey), so that strangers cannot fill a disk by being refused. The first
// record that passes after others were left out has their number as "left_out". Records that have no event pass as they are.
func LimitLog(h slog.Handler, perSecond int, now func() time.Time) slog.Handler {
	return limitedHandler{Handler: h, limit: &logLimit{perSecond: perSecond, now: now, seen: map[string]*logCount{}}}
}

type logLimit struct {
	perSecond int
	now       func() time.Time

	mu   sync.Mutex // guards what follows
	seen map[string]*logCount
}

type logCount struct {
	second  int64
	n       int
	leftOut int
}

// pass tells whether a record of an event may pass, and how many of it were left out since one did.
func (l *logLimit) pass(event string) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.seen[event]
	if c == nil && len(l.seen) >= maxLimitedEvents {
		event = ""
		c = l.seen[event]
	}
	if c == nil {
		c = &logCount{}
		l.seen[event] = c
	}
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
	event string // of a logger that was made for one event
}

// Handle passes a record on or counts it.
func (h limitedHandler) Handle(ctx context.Context, r slog.Record) error {
	event := eventOf(r)
	if event == "" {
		event = h.event
	}
	if event != "" {
		leftOut, ok := h.limit.pass(event)
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

// eventOf is the event that a record tells of; nothing where it has none.
func eventOf(r slog.Record) (event string) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == EventKey {
			event = a.Value.String()
		}
		return event == ""
	})
	return event
}

// WithAttrs keeps the limit.
func (h limitedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	event := h.event
	for _, a := range attrs {
		if a.Key == EventKey {
			event = a.Value.String()
		}
	}
	return limitedHandler{h.Handler.WithAttrs(attrs), h.limit, event}
}

// WithGroup keeps the limit.
func (h limitedHandler) WithGroup(name string) slog.Handler {
	return limitedHandler{h.Handler.WithGroup(name), h.limit, h.event}
}
