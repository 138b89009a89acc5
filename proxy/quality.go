package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/fallback"
	"imeproxy/mediaterm"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/sipalg/sdp"
)

// lanes is the number of groups into which calls are dealt: they are sampled one after the other, so that thousands of calls do not take a
// core from the media workers all at once.
const lanes = 10

// shortestTick is the least time between two groups.
const shortestTick = 10 * time.Millisecond

// quality watches the audio of all calls and tells call agents when one should fall back to the PSTN (shared protocol "fallback").
type quality struct {
	a     *Appliance
	table atomic.Pointer[fallback.Table]

	mu    sync.Mutex // guards everything that follows
	lanes [lanes]map[*callQuality]struct{}
	next  int                     // lane of the next call
	asked map[string]*callQuality // by the Call-ID of a REFER that has no final answer yet
	file  string                  // the sensitivity file in force; "" is none
	stamp fileStamp               // of the file when it was read last
	stats observe.FallbackStatistics
}

// fileStamp tells that a file has changed.
type fileStamp struct {
	size int64
	at   time.Time
}

// callQuality is what is watched of one call.
type callQuality struct {
	q       *quality
	call    *call
	lane    int
	monitor *fallback.Monitor

	// Guarded by quality.mu.
	notifier fallback.Notifier
	callID   string // of the REFER that waits for its answer
	seen     qualitySeen
}

// qualitySeen is what the samples of a call have shown so far, for the show commands and the call record. Guarded by quality.mu.
type qualitySeen struct {
	samples, bad   uint64
	begun, last    time.Duration
	interval       time.Duration // longest between two samples
	loss           float64       // highest, percent
	burst, pdv     time.Duration // highest
	pdvLow, pdvSum time.Duration
	measured       uint64
	mos            float64 // lowest
	events         int     // most in 8 s
	totalEvents    uint64
	eventsAt       time.Duration // when those of the last 8 s were added
	lost           uint64        // when it was looked at last
	concealed      uint64        // seconds in which packets were found lost
	concealedAt    int64
	latest         fallback.Figures
	decided        bool
}

// add takes one sample.
func (s *qualitySeen) add(at time.Duration, r fallback.Result, lost uint64) {
	if s.samples == 0 {
		s.begun, s.eventsAt, s.lost, s.concealedAt = at, at, lost, -1
	} else {
		s.interval = max(s.interval, at-s.last)
	}
	s.samples, s.last, s.latest = s.samples+1, at, r.Figures
	s.decided = s.decided || r.Decided
	if second := int64(at / time.Second); lost > s.lost && second != s.concealedAt {
		s.concealed, s.concealedAt = s.concealed+1, second
	}
	s.lost = lost
	f := &r.Figures
	if r.Bad {
		s.bad++
	}
	if !r.Sampled || !f.Measured {
		return
	}
	if s.measured == 0 {
		s.pdvLow, s.mos = f.PDV, f.MOS
	}
	s.measured++
	s.loss, s.burst, s.pdv, s.events = max(s.loss, f.Loss()), max(s.burst, f.Burst), max(s.pdv, f.PDV), max(s.events, f.Events)
	s.pdvLow, s.mos, s.pdvSum = min(s.pdvLow, f.PDV), min(s.mos, f.MOS), s.pdvSum+f.PDV
	if at-s.eventsAt >= 8*time.Second {
		s.totalEvents, s.eventsAt = s.totalEvents+uint64(f.Events), at
	}
}

func newQuality(a *Appliance) *quality {
	q := &quality{a: a, asked: make(map[string]*callQuality)}
	for i := range q.lanes {
		q.lanes[i] = make(map[*callQuality]struct{})
	}
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
		tick, n := steps(q.interval())
		now := time.Now()
		for range n {
			q.sample(lane, mediaterm.Instant(now))
			lane = (lane + 1) % lanes
		}
		// By the plan, not by the clock: a late timer must not make the interval longer.
		if next = next.Add(tick); time.Until(next) < -tick {
			next = now
		}
		timer.Reset(max(time.Until(next), 0))
	}
}

// steps divides an interval into ticks, at each of which n lanes are sampled; n divides their number, so that each lane has the whole
// interval between two samples.
func steps(interval time.Duration) (tick time.Duration, n int) {
	for n = 1; n < lanes && (lanes%n != 0 || interval*time.Duration(n)/lanes < shortestTick); n++ {
		continue
	}
	return interval * time.Duration(n) / lanes, n
}

func (q *quality) interval() time.Duration {
	if p := q.a.plan.Load(); p.proxying() {
		return p.UCIME.MonitoringTimer
	}
	return fallback.DefaultMonitoring
}

// due is a call that is to be told.
type due struct {
	c *callQuality
	r fallback.Result
}

// sample takes one sample of each call of a lane.
func (q *quality) sample(lane int, at time.Duration) {
	table := q.table.Load()
	var tell []due
	q.mu.Lock()
	for c := range q.lanes[lane] {
		r := c.monitor.Sample(at, table)
		c.seen.add(at, r, c.monitor.Lost())
		if r.Bad && q.a.trace.Wants(trace.Fallback) {
			q.a.trace.Event(trace.Fallback, c.call.d.ID, c.call.domain, "bad sample at level %s: %s", r.Level, r.Figures.Quality(r.Level))
		}
		if outcome, expired := c.notifier.Expired(at); expired {
			q.stats.Unanswered++
			q.settle(c, outcome)
		}
		if r.Decided || c.notifier.Due(at, r.Bad) {
			tell = append(tell, due{c, r})
		}
	}
	q.mu.Unlock()
	for _, d := range tell {
		q.notify(d.c, d.r)
	}
}

// settle counts what came of a REFER. The caller holds mu.
func (q *quality) settle(c *callQuality, o fallback.Outcome) {
	delete(q.asked, c.callID)
	switch o {
	case fallback.Done:
		q.stats.Accepted++
	case fallback.Again:
		q.stats.Deferred++
	default:
		q.stats.Failed++
	}
}

// notify sends the REFER of a call that is bad, over the connection of its call agent, or a new one.
func (q *quality) notify(c *callQuality, r fallback.Result) {
	var b [16]byte
	_, _ = rand.Read(b[:])
	id := hex.EncodeToString(b[:])
	q.mu.Lock()
	if _, watched := q.lanes[c.lane][c]; !watched {
		q.mu.Unlock()
		return
	}
	c.callID = referCallID(id)
	c.notifier.Sent(mediaterm.Instant(time.Now()))
	q.asked[c.callID] = c
	q.stats.Sent++
	n := c.notifier.Referrals()
	q.mu.Unlock()
	q.a.trace.Event(trace.Fallback, c.call.d.ID, c.call.domain, "to fall back to the PSTN: level %s, quality %s, notification %d", r.Level, r.Figures.Quality(r.Level), n)
	c.call.log.Warn("call is to fall back to the PSTN", "level", r.Level.String(), "quality", r.Figures.Quality(r.Level), "notification", n)
	q.send(c.call, id, r)
}

func referCallID(id string) string { return id + "@ime" }

// send queues the REFER on a connection to the call agent, a new one where none stands. One that cannot be sent has no answer in the end,
// and counts so.
func (q *quality) send(c *call, id string, r fallback.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.someDialog()
	if d == nil {
		return
	}
	refer := func(s *session) {
		m, err := q.refer(c, s, d, id, r)
		if err != nil {
			q.a.trace.Event(trace.Fallback, c.d.ID, c.domain, "the call agent cannot be told: %v", err)
			c.log.Warn("the call agent cannot be told to fall back", "err", err)
			return
		}
		if k := s.conn(dialog.Inside); k != nil {
			k.send(m.Bytes())
		}
	}
	if s, k := q.a.carrier(c, dialog.Inside); k != nil {
		refer(s)
		return
	}
	q.a.anew(c, d, dialog.Inside, "REFER", refer)
}

// someDialog is the dialog that a call's media belongs to: the confirmed one, else one that rings. The call is locked.
func (c *call) someDialog() *dialog.Dialog {
	if d := c.d.Confirmed(); d != nil {
		return d
	}
	for _, d := range c.d.Dialogs() {
		return d
	}
	return nil
}

// refer builds the notification. The call is locked.
func (q *quality) refer(c *call, s *session, d *dialog.Dialog, id string, r fallback.Result) (*sipalg.Message, error) {
	end := d.Ends[dialog.Inside]
	local, remote := sipalg.TagOf(end.Party), sipalg.TagOf(end.Peer)
	if local == "" || remote == "" {
		return nil, errors.New("the call's dialog has no tags yet")
	}
	p := q.a.plan.Load()
	agent := fmt.Sprintf("sip:%s:%d", s.agent.real, s.agentPort)
	self := "sip:uc-ime@" + p.hostname()
	if p.Inside != nil {
		self = "sip:uc-ime@" + p.Inside.Address.Addr().String()
	}
	return sipalg.BuildRequest("REFER", agent, s.ownVia(dialog.Inside), fmt.Sprintf("<%s>;tag=%s", self, id[:16]), "<"+agent+">", referCallID(id), 1, nil,
		sipalg.Header{Name: "Contact", Value: "<" + self + ">"},
		sipalg.Header{Name: "Target-Dialog", Value: fmt.Sprintf("%s;local-tag=%s;remote-tag=%s", c.d.ID, local, remote)},
		sipalg.Header{Name: "Refer-To", Value: fallback.ReferTo},
		sipalg.Header{Name: "Refer-Sub", Value: "false"},
		sipalg.Header{Name: "Supported", Value: "tdialog, norefersub"},
		sipalg.Header{Name: "X-Cisco-UC-IME-Quality", Value: r.Figures.Quality(r.Level)},
	), nil
}

// response takes a call agent's response to a REFER of ours; false: it is none.
func (q *quality) response(m *sipalg.Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.asked[m.CallID()]
	if c == nil {
		return false
	}
	if m.Status < 200 {
		return true
	}
	after := time.Duration(-1)
	if v := m.Get("Retry-After"); v != "" {
		if n, err := strconv.Atoi(strings.TrimSpace(strings.FieldsFunc(v+" ", func(r rune) bool { return r == ';' || r == '(' })[0])); err == nil && n >= 0 && n <= 1<<20 {
			after = time.Duration(n) * time.Second
		}
	}
	o := c.notifier.Answer(mediaterm.Instant(time.Now()), m.Status, after)
	q.settle(c, o)
	q.a.trace.Event(trace.Fallback, c.call.d.ID, c.call.domain, "the call agent answered the notification with %d", m.Status)
	c.call.log.Info("the call agent answered the fallback notification", "status", m.Status, "again", o == fallback.Again)
	return true
}

// watch begins to judge a call. The call is locked, or nobody else knows it yet.
func (q *quality) watch(c *call) *callQuality {
	p := q.a.plan.Load()
	hold := fallback.DefaultHoldDown
	if p.UCIME != nil {
		hold = p.UCIME.HoldDownTimer
	}
	w := &callQuality{q: q, call: c, monitor: fallback.NewMonitor(fallback.DefaultLevel, hold), notifier: fallback.Notifier{HoldDown: hold}}
	q.mu.Lock()
	defer q.mu.Unlock()
	w.lane = q.next
	q.next = (q.next + 1) % lanes
	q.lanes[w.lane][w] = struct{}{}
	return w
}

// forget ends that.
func (q *quality) forget(c *callQuality) {
	if c == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.lanes[c.lane], c)
	delete(q.asked, c.callID)
}

// watchedStream gives a stream what passes through the media termination.
type watchedStream struct{ *fallback.Stream }

// Watch is for mediaterm.Watcher.
func (w watchedStream) Watch(at time.Duration, p mediaterm.WatchedPacket) {
	w.Packet(fallback.Packet{
		At: at, SSRC: p.SSRC, Timestamp: p.Timestamp, Seq: p.Seq, PayloadType: p.PayloadType, Authentic: true, PayloadLength: p.PayloadLength,
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
	for i, l := range m.lines {
		if l.stream == nil || l.quality == nil || i >= len(near.Media) || i >= len(far.Media) {
			continue
		}
		n, f := near.Media[i], far.Media[i]
		l.quality.SetFormats(formatsOf(n), time.Duration(n.Ptime)*time.Millisecond)
		l.quality.SetHold(at, fallback.OnHold(sideOf(f), sideOf(n)))
		streams = append(streams, l.quality)
	}
	m.watched.monitor.SetStreams(streams)
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
		c.log.Warn("sensitivity level not understood", "err", err)
		return
	}
	c.media.watched.monitor.SetLevel(level)
}

// loadTable reads the sensitivity file of a plan when it is another one or has changed. What cannot be read leaves the running values.
func (q *quality) loadTable(p *plan) {
	name := ""
	if p.UCIME != nil {
		name = strings.TrimPrefix(p.UCIME.SensitivityFile, "disk0:")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if name == "" {
		if q.file != "" {
			t := fallback.Builtin()
			q.table.Store(&t)
			q.a.log.Info("sensitivity file is not configured any more: the built-in values are in force")
		}
		q.file, q.stamp = "", fileStamp{}
		return
	}
	path := filepath.Join(q.a.opt.StateDir, filepath.Base(strings.TrimLeft(name, "/")))
	info, err := os.Stat(path)
	stamp := fileStamp{}
	if err == nil {
		stamp = fileStamp{info.Size(), info.ModTime()}
	}
	if q.file == path && q.stamp == stamp {
		return
	}
	q.file, q.stamp = path, stamp
	q.readTable(path, info, err)
}

func (q *quality) readTable(path string, info fs.FileInfo, err error) {
	var text []byte
	switch {
	case err != nil:
	case info.Size() > fallback.MaxFile:
		err = fmt.Errorf("it has more than %d bytes", fallback.MaxFile)
	default:
		text, err = os.ReadFile(path)
	}
	var t fallback.Table
	if err == nil {
		t, err = fallback.ParseFile(text)
	}
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			q.a.log.Error("sensitivity file refused, the running values stay", "file", path, "err", line)
		}
		q.a.health.Raise(observe.Problem{
			Code: "sensitivity_file", Object: path, Severity: observe.Warning, Since: q.a.now(), Impact: "quality is judged by the values that were in force before",
			WhatToDo: "put it right in the state directory; it is read again when it changes: " + strings.ReplaceAll(err.Error(), "\n", "; "),
		})
		return
	}
	q.table.Store(&t)
	q.a.health.Clear("sensitivity_file", path)
	q.a.log.Info("sensitivity file read", "file", path)
}

// statistics gives the counters behind `show uc-ime fallback-notification statistics`.
func (q *quality) statistics() observe.FallbackStatistics {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.stats
	out.Waiting = len(q.asked)
	for _, lane := range q.lanes {
		out.Monitored += len(lane)
		for c := range lane {
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
	if s.measured > 0 {
		out.AvgPDVUsec = (s.pdvSum / time.Duration(s.measured)).Microseconds()
	}
	if n, err := strconv.Atoi(l.pt); err == nil {
		out.PayloadType = n
	}
	out.PtimeMS = int(s.latest.PacketTime / time.Millisecond)
	return out
}

// qualityRecord is what the call record says of an audio line; nil when nothing was measured. The call is locked.
func (m *media) qualityRecord(l *mediaLine) *observe.QualityRecord {
	s, ok := m.seen(l)
	if !ok || s.measured == 0 {
		return nil
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	round := func(v float64) float64 { return math.Round(v*100) / 100 }
	return &observe.QualityRecord{
		Samples: s.samples, BadSamples: s.bad, MaxLoss: round(s.loss), MaxEvents: s.events, MaxBurstMS: ms(s.burst), MaxPDVMS: round(ms(s.pdv)),
		MinMOS: round(s.mos), Notified: s.decided,
	}
}
