package fallback

import (
	"slices"
	"sync"
	"time"
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
	// Steady says that nothing but PDV and the count of received numbers differs from the sample before, and that both found nothing lost.
	Steady  bool
	State   State
	Level   Level
	Lost    uint64  // numbers that the streams have lost since they were made
	Figures Figures // of the worst stream, bad ones first
}

// Monitor judges a call by its streams: states, hold-down and decision. Safe for concurrent use. A stream belongs to one monitor.
//
// The fields stand in the order in which samples need them: those of one stream without loss lie in the first MonitorLines of 64 bytes.
type Monitor struct {
	mu       sync.Mutex // guards everything that follows
	level    Level
	streams  []*Stream
	one      [1]*Stream // what streams has where there is one
	state    State
	due      bool
	holdDown time.Duration
	last     Result
	since    time.Duration // the bad sample that made it suspect
	lastBad  time.Duration
	counted  int // samples since then
	bad      int // bad ones among them
}

// MonitorLines is how many cache lines of a monitor a sample of a call without loss needs.
const MonitorLines = 2

// NewMonitor returns the monitor of a call without streams.
func NewMonitor(level Level, holdDown time.Duration) *Monitor {
	m := &Monitor{}
	m.Begin(level, holdDown)
	return m
}

// Begin makes a zero Monitor, which may be part of something else, what NewMonitor returns.
func (m *Monitor) Begin(level Level, holdDown time.Duration) { m.level, m.holdDown = level, holdDown }

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
	for _, s := range list {
		if !slices.Contains(m.streams, s) {
			s.overlook()
		}
	}
	m.streams = append(m.one[:0], list...)
	if len(list) != 1 {
		m.one[0] = nil
	}
}

// PrefetchSample fetches into the cache what a sample needs of the monitor's first stream, in step 0, and of what that refers to, in step 1. Each step
// needs what the one before has fetched, step 0 the first MonitorLines of the monitor, but waits for nothing, not even for the mutex: it may fetch in
// vain.
//
//go:norace
func (m *Monitor) PrefetchSample(step int) {
	if s := m.one[0]; s != nil {
		s.prefetchSample(step)
	}
}

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
func (m *Monitor) Sample(at time.Duration, table *Table) (r Result) {
	m.SampleTo(&r, at, table)
	return r
}

// SampleTo is Sample, with the result in r.
func (m *Monitor) SampleTo(r *Result, at time.Duration, table *Table) {
	*r = Result{}
	m.mu.Lock()
	m.sample(r, at, table)
	m.mu.Unlock()
}

// sample fills in a zero result.
func (m *Monitor) sample(r *Result, at time.Duration, table *Table) {
	var other Figures
	for _, s := range m.streams {
		f := &r.Figures
		if r.Sampled {
			f, other = &other, Figures{}
		}
		stopped, lost := s.sampleMore(at, f)
		r.Lost += lost
		if stopped {
			m.clear()
		}
		if f.Held {
			*f = Figures{}
			continue
		}
		bad := table.Bad(m.level, f)
		if f == &other && (bad && !r.Bad || bad == r.Bad && f.worse(&r.Figures)) {
			r.Figures = other
		}
		r.Sampled, r.Bad = true, r.Bad || bad
	}
	r.Level = m.level
	if m.steady(r) {
		r.State, r.Steady = m.state, true
		m.last.Steady, m.last.Figures.PDV, m.last.Figures.Received = true, r.Figures.PDV, r.Figures.Received
		return
	}
	if r.Sampled {
		r.Due = m.judge(at, r.Bad)
	}
	r.State = m.state
	m.last = *r
}

// steady tells whether a result is what Result.Steady says, and a good one after a good one, which moves no state: neither of a good call nor of one that
// the call agent was told of, which may go on for long where that leaves it as it is.
func (m *Monitor) steady(r *Result) bool {
	f, l := &r.Figures, &m.last
	return m.state == l.State && (m.state == Good || m.state == Notified) && r.Sampled && l.Sampled && !r.Bad && !l.Bad && r.Level == l.Level && r.Lost == l.Lost && f.Lost|l.Figures.Lost == 0 &&
		!f.Dead && !l.Figures.Dead && f.Measured == l.Figures.Measured && f.MOS == l.Figures.MOS && f.SSRC == l.Figures.SSRC
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
