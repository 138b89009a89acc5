package proxy

import (
	"sync"
	"time"

	"imeproxy/mapping"
	"imeproxy/proxy/config"
)

// Entries of access lists that say log are told by flow (message 106100): the first packet at once, then at the end of each interval how many came in it;
// a flow without one in a whole interval is forgotten. The kernel counts (mapping.Flows); here is kept what has been told.

const (
	// flowLines bounds the lines a second: what is more waits, and its number grows meanwhile.
	flowLines = 100
	// manyFirsts is the number of first packets in a second from which on the kernel may have left some out, so that its counts are asked for the others.
	manyFirsts = 15
	// flowLook is the least time between two looks at the kernel's counts, which at their most take some milliseconds.
	flowLook = time.Second
	// flowLookShare of the time may go into looks.
	flowLookShare = 20
)

var defaultEntryLog = config.EntryLog{Flows: true, Level: config.DefaultEntryLevel, Interval: config.DefaultEntryInterval}

// toldEntry is an entry that logs its flows.
type toldEntry struct {
	list, id string
	log      config.EntryLog
}

// toldEntries gives the entries that log their flows by their IDs.
func toldEntries(cfg *config.Config, ids map[config.Pos]string) map[string]toldEntry {
	out := map[string]toldEntry{}
	for _, l := range cfg.AccessLists {
		for _, e := range l.Entries {
			if e.Log.Flows && !e.Inactive {
				out[ids[e.Pos]] = toldEntry{l.Name, ids[e.Pos], e.Log}
			}
		}
	}
	return out
}

func (e toldEntry) hash() string { return entryHash(e.id) }

// entryHash is what messages name an entry by, and `show access-list` shows behind it.
func entryHash(id string) string {
	if len(id) < 8 {
		return "0x0"
	}
	return "0x" + id[:8]
}

// way is the links on which a flow comes and goes.
type way struct{ in, out string }

// flowLine is what is told of a flow.
type flowLine struct {
	flow    mapping.Flow
	entry   toldEntry
	way     way
	hits    uint64
	seconds int // of the interval; 0: these are the first
}

// toldFlow is a flow that is followed.
type toldFlow struct {
	entry        toldEntry
	way          way // empty: not asked yet
	added        time.Time
	since        time.Time // the interval's begin
	before, last uint64    // packets up to the interval's begin, and when it was told last
	told         bool      // its first packets are
	look         uint64    // that has seen it last
}

// flowLog keeps what has been told of flows. It holds no more of them than the kernel does, and of denied ones no more than the configuration says. Safe
// for concurrent use; the clock is its caller's.
type flowLog struct {
	wake chan struct{} // there is something to do sooner than next said

	mu      sync.Mutex
	flows   map[mapping.Flow]*toldFlow
	denied  int    // of the flows
	beside  uint64 // packets of denied flows that were given up for want of room
	looks   uint64
	looked  time.Time     // the last look
	gap     time.Duration // to the next
	soon    bool          // a look is to be as soon as it may
	due     time.Time     // or at this time; zero: never
	second  int64         // of the counts that follow
	lines   int
	firsts  int
	alerted map[bool]time.Time // by permitted
}

func newFlowLog() *flowLog {
	return &flowLog{wake: make(chan struct{}, 1), flows: map[mapping.Flow]*toldFlow{}, gap: flowLook, alerted: map[bool]time.Time{}}
}

// tick begins the counts of a second.
func (l *flowLog) tick(now time.Time) {
	if s := now.Unix(); s != l.second {
		l.second, l.lines, l.firsts = s, 0, 0
	}
}

// mayTell takes one of the second's lines.
func (l *flowLog) mayTell(now time.Time) bool {
	l.tick(now)
	if l.lines >= flowLines {
		return false
	}
	l.lines++
	return true
}

func (l *flowLog) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// hurry has the kernel's counts looked at soon.
func (l *flowLog) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hasten()
}

func (l *flowLog) hasten() {
	if !l.soon {
		l.soon = true
		l.rouse()
	}
}

// add begins to follow a flow; false: as many denied ones are followed as may be.
func (l *flowLog) add(now time.Time, f mapping.Flow, e toldEntry, w way, most int) (*toldFlow, bool) {
	if !f.Permitted {
		if l.denied >= most {
			return nil, false
		}
		l.denied++
	}
	x := &toldFlow{entry: e, way: w, added: now, since: now}
	l.flows[f] = x
	if end := now.Add(e.log.Interval); l.due.IsZero() || end.Before(l.due) {
		l.due = end
		l.rouse()
	}
	return x, true
}

func (l *flowLog) drop(f mapping.Flow) {
	delete(l.flows, f)
	if !f.Permitted {
		l.denied--
	}
}

// first takes a flow's first packet: tell says that the line is to be written now, full that there is no room for the flow.
func (l *flowLog) first(now time.Time, f mapping.Flow, e toldEntry, w way, most int) (line flowLine, tell, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick(now)
	if l.firsts++; l.firsts == manyFirsts {
		l.hasten()
	}
	x := l.flows[f]
	if x == nil {
		var room bool
		if x, room = l.add(now, f, e, w, most); !room {
			l.hasten() // the kernel follows it and need not
			return line, false, true
		}
	}
	x.way = w
	switch {
	case !x.told:
	case now.Sub(x.added) < flowLook: // two processors have met its first packets at once
		return line, false, false
	default: // the kernel has begun anew
		*x = toldFlow{entry: e, way: w, added: now, since: now}
	}
	if !l.mayTell(now) {
		l.hasten()
		return line, false, false
	}
	x.told, x.last = true, 1
	return flowLine{flow: f, entry: x.entry, way: w, hits: 1}, true, false
}

// alert says whether it is time to tell again that there is no room.
func (l *flowLog) alert(now time.Time, permitted bool, every time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.alerted[permitted]; ok && now.Sub(last) < every {
		return false
	}
	l.alerted[permitted] = now
	return true
}

// next is when the kernel's counts are to be looked at; false: when something comes.
func (l *flowLog) next() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	soonest := l.looked.Add(l.gap)
	switch {
	case l.soon:
		return soonest, true
	case l.due.IsZero():
		return time.Time{}, false
	case l.due.Before(soonest):
		return soonest, true
	}
	return l.due, true
}

// look is one look at the kernel's counts.
type look struct {
	began time.Time // before the counts were read
	now   time.Time
	most  int                                                    // denied flows
	entry func(mapping.Flow) (e toldEntry, known, changing bool) // that decides on a flow now; changing: ask again later
	way   func(mapping.Flow) way
}

// take compares what the kernel counts with what was told: it gives the lines to write now and the flows that are to be forgotten.
func (l *flowLog) take(c look, counted []mapping.CountedFlow) (lines []flowLine, gone []mapping.CountedFlow, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	l.soon, l.looked = false, c.now
	l.gap = max(flowLook, flowLookShare*c.now.Sub(c.began))
	for _, k := range counted {
		x := l.flows[k.Flow]
		if x == nil {
			e, known, changing := c.entry(k.Flow)
			if changing {
				l.soon = true
				continue
			}
			room := false
			if known {
				if x, room = l.add(c.now, k.Flow, e, way{}, c.most); !room {
					l.beside += k.Packets
					full = true
				}
			}
			if !room {
				gone = append(gone, k)
				continue
			}
		}
		x.look = l.looks
		line, forget := l.judge(c, x, k)
		if line != nil {
			lines = append(lines, *line)
		}
		if forget {
			gone = append(gone, k)
			l.drop(k.Flow)
		}
	}
	l.due = time.Time{}
	for f, x := range l.flows {
		if x.look != l.looks && x.added.Before(c.began) { // its rules are gone
			l.drop(f)
			continue
		}
		if end := x.since.Add(x.entry.log.Interval); l.due.IsZero() || end.Before(l.due) {
			l.due = end
		}
	}
	return lines, gone, full
}

// judge says what is to be told of a flow, and whether to forget it.
func (l *flowLog) judge(c look, x *toldFlow, k mapping.CountedFlow) (line *flowLine, forget bool) {
	if k.Packets < x.last {
		x.before, x.last = 0, 0
	}
	tell := func(hits uint64, seconds int) *flowLine {
		if x.way == (way{}) {
			x.way = c.way(k.Flow)
		}
		x.last = k.Packets
		return &flowLine{flow: k.Flow, entry: x.entry, way: x.way, hits: hits, seconds: seconds}
	}
	interval := x.entry.log.Interval
	passed := c.now.Sub(x.since)
	switch {
	case !x.told:
		if !l.mayTell(c.now) {
			l.soon = true
			return nil, false
		}
		x.told = true
		return tell(k.Packets, 0), false
	case passed < interval:
		return nil, false
	case k.Packets == x.last:
		return nil, true
	case !l.mayTell(c.now):
		l.soon = true
		return nil, false
	}
	if passed < interval+2*flowLook {
		passed = interval
	}
	line = tell(k.Packets-x.before, int(passed.Round(time.Second)/time.Second))
	x.before, x.since = k.Packets, c.now
	e, known, changing := c.entry(k.Flow)
	if known {
		x.entry = e // a level that has changed holds from the next interval on
	}
	return line, !known && !changing
}

// failed puts off what the kernel gave no counts for.
func (l *flowLog) failed(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.soon, l.looked, l.gap = true, now, time.Minute
}

// notFollowed is how many packets of denied flows were given up for want of room.
func (l *flowLog) notFollowed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beside
}

// followFlows tells of flows until the appliance stops.
func (a *Appliance) followFlows() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		at, some := a.flows.next()
		if some {
			timer.Reset(max(0, at.Sub(a.now())))
		}
		select {
		case <-a.ctx.Done():
			return
		case <-a.flows.wake:
			timer.Stop()
		case <-timer.C:
			a.lookAtFlows()
		}
	}
}

// lookAtFlows tells what is due of the flows that the kernel follows.
func (a *Appliance) lookAtFlows() {
	began := a.now()
	counted, err := a.kernel.Flows()
	if err != nil {
		if a.ctx.Err() == nil {
			a.log.Warn("what access lists log is not told", "err", err)
		}
		a.flows.failed(began)
		return
	}
	p := a.plan.Load()
	lines, gone, full := a.flows.take(look{
		began: began, now: a.now(), most: p.cfg.DenyFlows(),
		entry: func(f mapping.Flow) (toldEntry, bool, bool) {
			id := a.kernel.Entry(f)
			e, ok := p.told[id]
			return e, ok, id != "" && !ok
		},
		way: func(f mapping.Flow) way {
			in, out := f.Way()
			return way{in, out}
		},
	}, counted)
	for _, line := range lines {
		a.tellFlow(line)
	}
	if full {
		a.tellFull(false)
	}
	if err := a.kernel.Forget(gone); err != nil && a.ctx.Err() == nil {
		a.log.Warn("flows of access lists stay that are over", "err", err)
	}
}
