package proxy

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"imeproxy/fallback"
	"imeproxy/mediaterm"
	"imeproxy/mediaterm/prefetch"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/sipalg/sdp"
)

// lanes is the number of groups into which calls are dealt: they are sampled one after the other, so that thousands of calls do not take a
// core from the media workers all at once.
const lanes = 10

// shortestTick is the least time between two groups, wantedTick what it is where the interval is long enough: each wakes the appliance up,
// which costs as much as many samples.
const (
	shortestTick = 10 * time.Millisecond
	wantedTick   = 20 * time.Millisecond
)

// sampledAtOnce calls take a tenth of a millisecond: where a tick would have fewer, one is made of several.
const sampledAtOnce = 256

// quality watches the audio of all calls and tells call agents when one should fall back to the PSTN (shared protocol "fallback").
type quality struct {
	a     *Appliance
	table atomic.Pointer[fallback.Table]

	mu    sync.Mutex // guards everything that follows
	lanes [lanes][]*callQuality
	next  int                     // lane of the next call
	asked map[string]*callQuality // by the Call-ID of a REFER that has no final answer yet
	turns []*callQuality          // calls that are to be told, in the order in which they became due
	pace  fallback.Pace
	told  map[netip.Addr]uint64 // REFERs by call agent
	file  string                // the sensitivity file in force; "" is none
	stamp fileStamp             // of the file when it was read last
	stats observe.FallbackStatistics
}

// fileStamp tells that a file has changed.
type fileStamp struct {
	size int64
	at   time.Time
}

// callQuality is what is watched of one call. A sample of a call without loss needs the first 64 bytes, and as many twice from monitor on, which
// are three cache lines since the whole takes 512.
type callQuality struct {
	// Guarded by quality.mu.
	queued bool  // in quality.turns
	again  bool  // for another REFER than the first
	told   bool  // a REFER has gone out
	place  int32 // in its lane; -1: not watched any more
	seen   qualitySeen

	q         *quality
	call      *call
	direction string // "inbound" or "outbound": who called
	monitor   fallback.Monitor

	// Guarded by quality.mu.
	notifier fallback.Notifier
	callID   string // of the REFER that waits for its answer
	reported []reported
	reportAt time.Duration // the next report to the far end; 0: none was planned
	lane     int
	silence  time.Duration // the first sample that found nothing although something should come; 0: none, -1: it was told
	_        [5]uint64
}

// qualitySeen is what the samples of a call have shown so far, for the show commands and the call record. Guarded by quality.mu.
type qualitySeen struct {
	// These are all that a steady sample changes, see fallback.Result.
	samples     uint64
	last        time.Duration
	interval    time.Duration // longest between two samples
	pdv, pdvLow time.Duration // highest and lowest
	pdvSum      time.Duration
	eventsAt    time.Duration // when the events of the last 8 s were added

	unmeasured  uint64 // samples
	bad         uint64
	begun       time.Duration
	loss        float64       // highest, percent
	burst       time.Duration // highest
	mos         float64       // lowest
	events      int           // most in 8 s
	totalEvents uint64
	lost        uint64 // when it was looked at last
	concealed   uint64 // seconds in which packets were found lost
	concealedAt int64
	decided     bool
}

// measured is the number of samples that found something to judge.
func (s *qualitySeen) measured() uint64 { return s.samples - s.unmeasured }

// add takes one sample, and tells whether it is the end of another 8 s, which no earlier one counted.
func (s *qualitySeen) add(at time.Duration, r *fallback.Result) (whole bool) {
	if s.samples == 0 {
		s.begun, s.eventsAt, s.lost, s.concealedAt = at, at, r.Lost, -1
	} else {
		s.interval = max(s.interval, at-s.last)
	}
	if !r.Steady {
		s.compare(at, r)
	}
	s.samples, s.last = s.samples+1, at
	f := &r.Figures
	if !r.Sampled || !f.Measured {
		s.unmeasured++
		return false
	}
	s.pdv, s.pdvLow, s.pdvSum = max(s.pdv, f.PDV), min(s.pdvLow, f.PDV), s.pdvSum+f.PDV
	if at-s.eventsAt >= 8*time.Second {
		s.totalEvents, s.eventsAt = s.totalEvents+uint64(f.Events), at
		return true
	}
	return false
}

// silenceTold is how long nothing must come from the Internet since the answer for the log to say so.
const silenceTold = 5 * time.Second

// stillSilent tells, once, that no sample has found anything for silenceTold. The caller holds quality.mu.
func (c *callQuality) stillSilent(at time.Duration) bool {
	switch {
	case c.silence < 0 || c.seen.measured() > 0:
		return false
	case c.silence == 0:
		c.silence = at
	}
	if at-c.silence < silenceTold {
		return false
	}
	c.silence = -1
	return true
}

// compare takes what a sample may show that is not like the one before.
func (s *qualitySeen) compare(at time.Duration, r *fallback.Result) {
	if second := int64(at / time.Second); r.Lost > s.lost && second != s.concealedAt {
		s.concealed, s.concealedAt = s.concealed+1, second
	}
	s.lost = r.Lost
	if r.Bad {
		s.bad++
	}
	f := &r.Figures
	if !r.Sampled || !f.Measured {
		return
	}
	if s.measured() == 0 {
		s.pdvLow, s.mos = f.PDV, f.MOS
	}
	s.loss, s.burst, s.events, s.mos = max(s.loss, f.Loss()), max(s.burst, f.Burst), max(s.events, f.Events), min(s.mos, f.MOS)
}

func newQuality(a *Appliance) *quality {
	q := &quality{a: a, asked: make(map[string]*callQuality), told: make(map[netip.Addr]uint64)}
	t := fallback.Builtin()
	q.table.Store(&t)
	return q
}

// run samples all calls every `fallback monitoring timer` until the appliance stops.
func (q *quality) run() {
	next := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for lane := 0; ; {
		select {
		case <-q.a.ctx.Done():
			return
		case <-timer.C:
		}
		tick, n := steps(q.interval(), q.watchedCalls())
		now := time.Now()
		for range n {
			for _, d := range q.sample(lane, mediaterm.Instant(now), q.rate()) {
				q.notify(d.c, d.r)
			}
			for _, r := range q.toReport(lane, mediaterm.Instant(now)) {
				r.report(now)
			}
			lane = (lane + 1) % lanes
		}
		// By the plan, not by the clock: a late timer must not make the interval longer.
		if next = next.Add(tick); time.Until(next) < -tick {
			next = now
		}
		timer.Reset(onePoll(time.Until(next)))
	}
}

// onePoll makes a wait a little shorter, by less than a millisecond, so that one sleep is enough for it. The runtime sleeps whole milliseconds: for
// 19.6 it wakes up after 19, and once more for the rest, which costs as much as fifty samples. pollMargin is what it takes to go to sleep, less
// than the system lets sleeps be late.
func onePoll(d time.Duration) time.Duration {
	const pollMargin = 30 * time.Microsecond
	if d < time.Millisecond {
		return max(d, 0)
	}
	return min(d, d.Truncate(time.Millisecond)+pollMargin)
}

// steps divides an interval into ticks, at each of which n lanes are sampled; n divides their number, so that each lane has the whole
// interval between two samples.
func steps(interval time.Duration, calls int) (tick time.Duration, n int) {
	for n = 1; n < lanes && (lanes%n != 0 || interval*time.Duration(n)/lanes < wantedTick); n++ {
		continue
	}
	for more := n + 1; more <= lanes; more++ {
		if lanes%more == 0 && calls*more/lanes <= sampledAtOnce {
			n = more
		}
	}
	return interval * time.Duration(n) / lanes, n
}

// watchedCalls counts them.
func (q *quality) watchedCalls() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, lane := range q.lanes {
		n += len(lane)
	}
	return n
}

func (q *quality) interval() time.Duration {
	if p := q.a.plan.Load(); p.proxying() {
		return p.UCIME.MonitoringTimer
	}
	return fallback.DefaultMonitoring
}

// rate is how many calls may be told to fall back in any second.
func (q *quality) rate() int {
	if p := q.a.plan.Load(); p.proxying() {
		return p.UCIME.NotificationRate
	}
	return fallback.DefaultRate
}

// due is a call that is to be told.
type due struct {
	c *callQuality
	r fallback.Result
}

// ahead is how many samples before its own a call's memory begins to be fetched: a call that is not in the cache takes as long to come as several
// take to be sampled. What it refers to follows a third of that later, and what this refers to another third.
const ahead = 9

// fetchAhead fetches what the samples of the calls behind some place of a list need.
func fetchAhead(list []*callQuality, i int) {
	if i := i + ahead; i < len(list) {
		// Anything but arithmetic would wait for the call to be there.
		p := unsafe.Pointer(list[i])
		prefetch.Lines(p, 1)
		prefetch.Lines(unsafe.Add(p, unsafe.Offsetof(callQuality{}.monitor)), fallback.MonitorLines)
	}
	if i := i + ahead*2/3; i >= 0 && i < len(list) {
		list[i].monitor.PrefetchSample(0)
	}
	if i := i + ahead/3; i >= 0 && i < len(list) {
		list[i].monitor.PrefetchSample(1)
	}
}

// sample takes one sample of each call of a lane, and returns the calls of any lane whose turn it is to be told.
func (q *quality) sample(lane int, at time.Duration, rate int) []due {
	table := q.table.Load()
	var r fallback.Result
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.lanes[lane]
	for i := -ahead; i < len(list); i++ {
		fetchAhead(list, i)
		if i < 0 {
			continue
		}
		c := list[i]
		c.monitor.SampleTo(&r, at, table)
		if c.seen.add(at, &r) && q.a.metrics != nil {
			f := &r.Figures
			q.a.metrics.Window(c.direction, observe.Window{LossRatio: f.Loss() / 100, Burst: f.Burst.Seconds(), PDV: f.PDV.Seconds(), MOS: f.MOS})
		}
		if r.Bad && q.a.trace.Wants(trace.Fallback) {
			q.a.trace.Event(trace.Fallback, c.call.d.ID, c.call.domain, "bad sample at level %s: %s", r.Level, r.Figures.Quality(r.Level))
		}
		if silent(&r) && c.stillSilent(at) {
			q.tellSilence(c)
		}
		if c.told {
			q.remind(c, at, r.Bad)
		}
		if (r.Due || c.again) && !c.queued {
			c.queued = true
			q.turns = append(q.turns, c)
		}
	}
	return q.turn(at, rate)
}

// tellSilence says that a call is heard on one side at most: a firewall that lets SIP pass and no UDP is the usual reason, and nothing else shows it.
func (q *quality) tellSilence(c *callQuality) {
	observe.WithCall(q.a.log, c.call.d.ID).Warn(silenceMessage, "event", "no_audio_from_internet", "peer", c.call.domain, "direction", c.direction, "seconds", int(silenceTold/time.Second),
		"what_to_do", "see show uc-ime media-sessions detail for its address and port, and that UDP gets there: a firewall on either side, or the far end sends nothing")
}

// remind sees whether a call that was told is to be told again. The caller holds mu.
func (q *quality) remind(c *callQuality, at time.Duration, bad bool) {
	if outcome, expired := c.notifier.Expired(at); expired {
		q.stats.Unanswered++
		q.settle(c, outcome)
	}
	c.again = c.again || c.notifier.Due(at, bad)
}

// watch begins to judge a call. The call is locked, or nobody else knows it yet.
func (q *quality) watch(c *call) *callQuality {
	p := q.a.plan.Load()
	hold := fallback.DefaultHoldDown
	if p.UCIME != nil {
		hold = p.UCIME.HoldDownTimer
	}
	w := &callQuality{q: q, call: c, direction: c.rec.Direction, notifier: fallback.Notifier{HoldDown: hold}}
	w.monitor.Begin(fallback.DefaultLevel, hold)
	q.mu.Lock()
	defer q.mu.Unlock()
	w.lane, w.place = q.next, int32(len(q.lanes[q.next]))
	q.next = (q.next + 1) % lanes
	q.lanes[w.lane] = append(q.lanes[w.lane], w)
	return w
}

// forget ends that.
func (q *quality) forget(c *callQuality) {
	if c == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if lane := q.lanes[c.lane]; c.place >= 0 {
		last := len(lane) - 1
		lane[c.place], lane[last].place = lane[last], c.place
		lane[last] = nil
		q.lanes[c.lane], c.place = lane[:last], -1
	}
	delete(q.asked, c.callID)
	if i := slices.Index(q.turns, c); i >= 0 {
		q.turns = slices.Delete(q.turns, i, i+1)
	}
}

// watchedStream gives a stream what passes through the media termination.
type watchedStream struct{ *fallback.Stream }

// Watch is for mediaterm.Watcher.
func (w watchedStream) Watch(at time.Duration, p mediaterm.WatchedPacket) {
	w.Packet(fallback.Packet{
		At: at, SSRC: p.SSRC, Timestamp: p.Timestamp, Seq: p.Seq, PayloadType: p.PayloadType, PayloadLength: p.PayloadLength,
	})
}

// watchAnswer takes the descriptions in force: what may come, and which streams are on hold. The call is locked.
func (m *media) watchAnswer(x *exchange, ans *sdp.Session) {
	if m.watched == nil {
		return
	}
	near, far := x.offer, ans
	if x.from == dialog.Outside {
		near, far = ans, x.offer
	}
	at := mediaterm.Instant(time.Now())
	var streams []*fallback.Stream
	var told []reported
	for i, l := range m.lines {
		if l.stream == nil || l.quality == nil || i >= len(near.Media) || i >= len(far.Media) {
			continue
		}
		n, f := near.Media[i], far.Media[i]
		formats := formatsOf(n)
		for _, f := range append(formatsOf(f), formats...) { // where the ends number them differently, what comes from the Internet counts
			if f.ClockRate > 0 {
				l.stream.SetClockRate(f.PayloadType, f.ClockRate)
			}
		}
		l.quality.SetFormats(formats, time.Duration(n.Ptime)*time.Millisecond)
		l.quality.SetHold(at, fallback.OnHold(sideOf(f), sideOf(n)))
		streams = append(streams, l.quality)
		told = append(told, reported{stream: l.stream, quality: l.quality, codec: l.codec})
	}
	m.watched.monitor.SetStreams(streams)
	m.watched.tell(told)
}

func sideOf(ml *sdp.Media) fallback.Side {
	return fallback.Side{Direction: ml.Direction, Unspecified: ml.Hold, Port: ml.Port}
}

func formatsOf(ml *sdp.Media) (out []fallback.Format) {
	for _, pt := range ml.Formats {
		if f, ok := fallback.ParseFormat(pt, ml.Rtpmap[pt]); ok {
			out = append(out, f)
		}
	}
	return out
}

// sensitivity takes the level that a call agent asks for with a message of the call. The call is locked.
func (c *call) sensitivity(m *sipalg.Message) {
	if c.media.watched == nil || m.Count(sipalg.HeaderFallback) != 1 {
		return
	}
	_, method := m.CSeq()
	switch {
	case m.IsRequest() && (method == "INVITE" || method == "UPDATE"):
	case !m.IsRequest() && method == "INVITE" && m.Status > 100 && m.Status < 300:
	default:
		return
	}
	level, err := fallback.ParseSensitivity(m.Get(sipalg.HeaderFallback))
	if err != nil {
		c.log().Warn("sensitivity level not understood", "err", err)
		return
	}
	c.media.watched.monitor.SetLevel(level)
}

// statistics gives the counters behind `show uc-ime fallback-notification statistics`.
func (q *quality) statistics() observe.FallbackStatistics {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.stats
	out.Waiting, out.Queued, out.Rate = len(q.asked), len(q.turns), q.rate()
	for addr, n := range q.told {
		out.Agents = append(out.Agents, observe.FallbackAgent{Address: addr.String(), Sent: n})
	}
	slices.SortFunc(out.Agents, func(x, y observe.FallbackAgent) int { return strings.Compare(x.Address, y.Address) })
	for _, lane := range q.lanes {
		out.Monitored += len(lane)
		for _, c := range lane {
			switch c.monitor.Last().State {
			case fallback.Suspect:
				out.Suspect++
			case fallback.Notified:
				out.Notified++
			}
		}
	}
	return out
}

// clear sets the counters to zero.
func (q *quality) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stats = observe.FallbackStatistics{}
	clear(q.told)
}

// seen is what the samples of a line's call have shown; ok is false for a line that is not watched. The call is locked.
func (m *media) seen(l *mediaLine) (s qualitySeen, ok bool) {
	if m.watched == nil || l.quality == nil {
		return s, false
	}
	m.watched.q.mu.Lock()
	defer m.watched.q.mu.Unlock()
	return m.watched.seen, true
}

// block gives the monitoring block of a media session; nil for a line that is not watched. The call is locked.
func (m *media) block(l *mediaLine) *observe.Monitor {
	s, ok := m.seen(l)
	if !ok {
		return nil
	}
	t := l.quality.Totals()
	out := &observe.Monitor{
		FailoverState: int(m.watched.monitor.Last().State), SumAllPackets: t.Packets, MaxLossPctX100: int(s.loss*100 + 0.5), MaxEvents8s: s.events,
		MaxBurstMS: int(s.burst / time.Millisecond), MaxPDVUsec: s.pdv.Microseconds(), MinPDVUsec: s.pdvLow.Microseconds(), TotalEvents: s.totalEvents,
		TotalSeconds: uint64((s.last - s.begun) / time.Second), ConcealedSeconds: s.concealed, SeverelyConcealed: s.totalEvents,
		MaxCallIntervalMS: int(s.interval / time.Millisecond), SequenceResets: t.Resets,
	}
	if n := s.measured(); n > 0 {
		out.AvgPDVUsec = (s.pdvSum / time.Duration(n)).Microseconds()
	}
	if n, err := strconv.Atoi(l.pt); err == nil {
		out.PayloadType = n
	}
	out.PtimeMS = int(l.quality.PacketTime() / time.Millisecond)
	return out
}

// qualityRecord is what the call record says of an audio line; nil when nothing was measured. The call is locked.
func (m *media) qualityRecord(l *mediaLine) *observe.QualityRecord {
	s, ok := m.seen(l)
	if !ok || s.measured() == 0 {
		return nil
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	round := func(v float64) float64 { return math.Round(v*100) / 100 }
	return &observe.QualityRecord{
		Samples: s.samples, BadSamples: s.bad, MaxLoss: round(s.loss), MaxEvents: s.events, MaxBurstMS: ms(s.burst), MaxPDVMS: round(ms(s.pdv)),
		MinMOS: round(s.mos), Notified: s.decided,
	}
}
