package fallback

import (
	"slices"
	"sync"
	"time"
	"unsafe"
)

// State of a call.
type State uint8

// The states of the protocol file. Notified is not left.
const (
	Good State = iota
	Suspect
	Notified
)

func (s State) String() string {
	switch s {
	case Suspect:
		return "suspect"
	case Notified:
		return "notified"
	}
	return "good"
}

// Result of one sample of a call.
type Result struct {
	Sampled bool // false: all streams are on hold, or there are none
	Bad     bool
	Due     bool // the call is to be notified: see Monitor.Notify
	State   State
	Level   Level
	Lost    uint64  // numbers that the streams have lost since they were made
	Figures Figures // of the worst stream, bad ones first
}

// Monitor judges a call by its streams: states, hold-down and decision. Safe for concurrent use.
type Monitor struct {
	mu       sync.Mutex // guards everything that follows
	level    Level
	holdDown time.Duration
	streams  []monitored
	state    State
	since    time.Duration // the bad sample that made it suspect
	lastBad  time.Duration
	counted  int // samples since then
	bad      int // bad ones among them
	due      bool
	last     Result
}

// monitored is a stream and the holds that it has had.
type monitored struct {
	*Stream
	holds uint64
}

// NewMonitor returns the monitor of a call without streams.
func NewMonitor(level Level, holdDown time.Duration) *Monitor {
	return &Monitor{level: level, holdDown: holdDown}
}

// Worse orders calls by their latest samples: bad ones first, then measured ones, by MOS, loss, burst and pdv.
func (r *Result) Worse(o *Result) bool {
	if r.Bad != o.Bad {
		return r.Bad
	}
	return r.Figures.worse(&o.Figures)
}

// SetLevel takes the call agent's level. It holds from the next sample; Disabled ends suspicion.
func (m *Monitor) SetLevel(l Level) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.level = l
	if l == Disabled {
		m.clear()
	}
}

// Level returns the level in force.
func (m *Monitor) Level() Level {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.level
}

// SetStreams takes the audio streams of the descriptions in force. State and windows go on.
func (m *Monitor) SetStreams(list []*Stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := make([]monitored, 0, len(list))
	for _, s := range list {
		if i := slices.IndexFunc(m.streams, func(x monitored) bool { return x.Stream == s }); i >= 0 {
			now = append(now, m.streams[i])
		} else {
			now = append(now, monitored{Stream: s, holds: s.Totals().Holds})
		}
	}
	m.streams = now
}

// PrefetchSample fetches into the cache what a sample needs of the monitor itself.
func (m *Monitor) PrefetchSample() { prefetch(unsafe.Pointer(m), unsafe.Sizeof(*m)/64) }

// Last returns the result of the latest sample.
func (m *Monitor) Last() Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.last
	r.State, r.Level = m.state, m.level
	return r
}

// clear ends suspicion.
func (m *Monitor) clear() {
	if m.state == Suspect {
		m.state = Good
	}
}

// Sample takes one sample of all streams at an instant, which must not go back.
func (m *Monitor) Sample(at time.Duration, table *Table) Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	var r Result
	for i := range m.streams {
		s := &m.streams[i]
		f, holds, lost := s.sampleMore(at)
		r.Lost += lost
		if holds != s.holds || f.Held {
			s.holds = holds
			m.clear()
		}
		if f.Held {
			continue
		}
		bad := table.Bad(m.level, &f)
		if !r.Sampled || bad && !r.Bad || bad == r.Bad && f.worse(&r.Figures) {
			r.Figures = f
		}
		r.Sampled, r.Bad = true, r.Bad || bad
	}
	if r.Sampled {
		r.Due = m.judge(at, r.Bad)
	}
	r.State, r.Level = m.state, m.level
	m.last = r
	return r
}

// Due tells whether a call is to be notified at this or the next bad sample.
func (m *Monitor) Due() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state == Suspect && m.due
}

// Notify makes a call notified that is due and whose latest sample is bad, and returns that sample; ok once a call. A caller that has too
// many such calls at one time asks later: until then the call is suspect, and 8 s without a bad sample end that as ever.
func (m *Monitor) Notify() (r Result, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != Suspect || !m.due || !m.last.Bad {
		return Result{}, false
	}
	m.state, m.last.State = Notified, Notified
	return m.last, true
}

// judge moves the state on by one sample and tells whether the call is to be notified.
func (m *Monitor) judge(at time.Duration, bad bool) bool {
	if bad {
		m.lastBad = at
	}
	switch {
	case m.state == Notified:
		return false
	case m.state == Good:
		if bad {
			m.state, m.since, m.counted, m.bad, m.due = Suspect, at, 0, 0, false
		}
		return false
	case !bad && at-m.lastBad >= windowLength:
		m.clear()
		return false
	case m.due:
		return bad
	}
	m.counted++
	if bad {
		m.bad++
	}
	if at-m.since < m.holdDown {
		return false
	}
	if 2*m.bad < m.counted {
		m.clear()
		return false
	}
	m.due = true
	return bad
}
