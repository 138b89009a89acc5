package proxy

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unsafe"

	"imeproxy/fallback"
	"imeproxy/mediaterm"
	"imeproxy/sipalg/dialog"
)

// Every interval of the configuration samples each lane once in it, whatever the ticks are.
func TestSteps(t *testing.T) {
	for ms := 10; ms <= 600; ms++ {
		for _, calls := range []int{0, 1, 300, 600, 5000, 50000} {
			interval := time.Duration(ms) * time.Millisecond
			tick, n := steps(interval, calls)
			if n < 1 || n > lanes || lanes%n != 0 || tick < shortestTick || tick*lanes != interval*time.Duration(n) {
				t.Fatalf("%v, %d calls: %d lanes every %v", interval, calls, n, tick)
			}
			if _, least := steps(interval, 1<<30); n > least && calls*n/lanes > sampledAtOnce {
				t.Errorf("%v, %d calls: %d of them at once", interval, calls, calls*n/lanes)
			}
		}
	}
}

// crowd is calls that are watched, and how their sound comes.
type crowd struct {
	q     *quality
	calls []*callQuality
	in    []watchedStream
	seq   uint16
	at    time.Duration
	spent time.Duration // by the samples
}

func newCrowd(t testing.TB, n int) *crowd {
	t.Helper()
	a := &Appliance{}
	a.plan.Store(testPlan(t, edgeConfig))
	a.quality = newQuality(a)
	c := &crowd{q: a.quality, at: time.Hour}
	for range n {
		w := a.quality.watch(&call{})
		st := fallback.NewStream([]fallback.Format{{PayloadType: 0}}, 0)
		w.monitor.SetStreams([]*fallback.Stream{st})
		c.calls, c.in = append(c.calls, w), append(c.in, watchedStream{st})
	}
	return c
}

// run lets the calls go on: packets of 20 ms, one in lose of a bad call lost, a lane sampled every 10 ms. It returns when each call was told.
func (c *crowd) run(d time.Duration, rate, lose int, bad func(call int) bool) map[*callQuality]time.Duration {
	told := make(map[*callQuality]time.Duration)
	for end := c.at + d; c.at < end; c.at += 10 * time.Millisecond {
		if c.at%(20*time.Millisecond) == 0 {
			c.seq++
			for i, w := range c.in {
				if !bad(i) || int(c.seq)%lose != 0 {
					w.Watch(c.at, mediaterm.WatchedPacket{SSRC: uint32(i), Seq: c.seq, Timestamp: 160 * uint32(c.seq), PayloadLength: 160})
				}
			}
		}
		begin := time.Now()
		due := c.q.sample(int(c.at/(10*time.Millisecond))%lanes, c.at, rate)
		c.spent += time.Since(begin)
		for _, d := range due {
			if _, again := told[d.c]; again || !d.r.Bad || d.r.State != fallback.Notified {
				panic("told twice, or without need")
			}
			told[d.c] = c.at
		}
	}
	return told
}

// 500 calls turn bad at one moment: each is told, none before its hold-down has run, and no second sees more of them than the rate.
func TestManyCallsAtOnce(t *testing.T) {
	const rate = 25
	c := newCrowd(t, 500)
	begin := c.at
	told := c.run(42*time.Second, rate, 5, func(int) bool { return true })
	if len(told) != 500 {
		t.Errorf("%d calls told", len(told))
	}
	seconds := make(map[time.Duration]int) // calls in the second that begins at a multiple of 10 ms
	first, last := time.Duration(1<<62), time.Duration(0)
	for _, at := range told {
		first, last = min(first, at), max(last, at)
		for k := range time.Duration(100) {
			seconds[at-k*10*time.Millisecond]++
		}
	}
	for from, n := range seconds {
		if n > rate {
			t.Errorf("%d calls told in the second from %v on", n, from-begin)
		}
	}
	if first-begin < fallback.DefaultHoldDown || first-begin > fallback.DefaultHoldDown+time.Second {
		t.Errorf("the first is told after %v", first-begin)
	}
	if took := last - first; took < 18*time.Second || took > 20*time.Second { // 500 at 25 a second
		t.Errorf("they are told in %v", took)
	}
	if s := c.q.statistics(); s.Queued != 0 || s.Notified != 500 {
		t.Errorf("%+v", s)
	}
}

// A call that becomes good while it waits its turn goes on over the Internet, one that ends leaves the queue, and the others move up.
func TestWaitingForATurn(t *testing.T) {
	c := newCrowd(t, 30)
	told := c.run(21*time.Second, 1, 5, func(int) bool { return true })
	if n := len(told); n < 1 || n > 2 {
		t.Fatalf("%d told", n)
	}
	recovered := func(i int) bool { return i%3 != 0 }
	var gone *callQuality
	for i, w := range c.calls {
		if _, ok := told[w]; !ok && recovered(i) {
			gone = w
			break
		}
	}
	c.q.forget(gone)
	c.run(17*time.Second, 0, 5, recovered) // nobody is told; 8 s of window and 8 s without a bad sample
	later := c.run(40*time.Second, 1, 5, recovered)
	for i, w := range c.calls {
		_, before := told[w]
		_, then := later[w]
		if want := recovered(i) && !before && w != gone; then != want {
			t.Errorf("call %d told: %v", i, then)
		}
	}
	if s := c.q.statistics(); s.Queued != 0 {
		t.Errorf("%+v", s)
	}
}

// A call to which nothing comes from the Internet is told of once, after 5 s, and stands first among those that sound bad; one that is heard is not.
func TestSilentCalls(t *testing.T) {
	c := newCrowd(t, 3)
	var log bytes.Buffer
	a := c.q.a
	a.log = slog.New(slog.NewTextHandler(&log, nil))
	for i, w := range c.calls {
		w.call.d, w.call.media, w.direction = &dialog.Call{ID: fmt.Sprint("call-", i)}, &media{}, "inbound"
	}
	silent := c.in[1]
	c.in = []watchedStream{c.in[0], c.in[2]} // packets come to these alone
	good := func(int) bool { return false }
	c.run(4*time.Second, 1, 50, good)
	if log.Len() > 0 {
		t.Errorf("too soon: %s", &log)
	}
	c.run(4*time.Second, 1, 50, good)
	if n := strings.Count(log.String(), silenceMessage); n != 1 || !strings.Contains(log.String(), "call_id=call-1 ") {
		t.Errorf("told %d times: %s", n, &log)
	}
	list := a.Quality().Calls
	if len(list) != 3 || list[0].CallID != "call-1" || list[0].State != "silent" || list[1].State != "good" || list[2].State != "good" {
		t.Errorf("the list is %+v", list)
	}
	c.in = append(c.in, silent)
	c.run(time.Second, 1, 50, good)
	for _, x := range a.Quality().Calls {
		if x.State != "good" {
			t.Errorf("%s is %s though it is heard", x.CallID, x.State)
		}
	}
	log.Reset()
	c.in = nil
	c.run(time.Minute, 0, 50, good)
	if strings.Contains(log.String(), silenceMessage) { // that is what the fallback is for
		t.Errorf("calls that were heard are told of: %s", &log)
	}
}

// Far ends are told every 5 s on average, never sooner than after half of that nor later than after half as much again, where the configuration says so.
func TestReportsAreSpread(t *testing.T) {
	c := newCrowd(t, 50)
	for _, w := range c.calls {
		w.tell([]reported{{quality: fallback.NewStream(nil, 0)}})
	}
	last, n := make(map[*fallback.Stream]time.Duration), 0
	run := func(d time.Duration) {
		for end := c.at + d; c.at < end; c.at += 10 * time.Millisecond {
			for _, r := range c.q.toReport(int(c.at/(10*time.Millisecond))%lanes, c.at) {
				if before, again := last[r.quality]; again && (c.at-before < reportEvery/2 || c.at-before > reportEvery*3/2+100*time.Millisecond) {
					t.Fatalf("after %v", c.at-before)
				}
				last[r.quality] = c.at
				n++
			}
		}
	}
	run(time.Minute)
	if n > 0 {
		t.Errorf("%d reports, and none were asked for", n)
	}
	p := *c.q.a.plan.Load()
	ime := *p.UCIME
	ime.ReportXR = true
	p.UCIME = &ime
	c.q.a.plan.Store(&p)
	run(time.Minute)
	if len(last) != 50 || n < 50*10 || n > 50*14 {
		t.Errorf("%d reports on %d lines in a minute", n, len(last))
	}
}

// The cache lines that samples are to touch of a call are those that it is laid out for.
func TestLinesOfACall(t *testing.T) {
	c := newCrowd(t, 1).calls[0]
	if n := unsafe.Sizeof(*c); n != 512 { // a size that the allocator aligns
		t.Errorf("%d bytes", n)
	}
	if first, monitor, rest := uintptr(unsafe.Pointer(c)), uintptr(unsafe.Pointer(&c.monitor)), unsafe.Offsetof(c.seen)+unsafe.Offsetof(c.seen.unmeasured); first%64 != 0 || monitor%64 != 0 || rest > 64 {
		t.Errorf("a call begins at %#x, its monitor at %#x, what steady samples change ends at %d", first, monitor, rest)
	}
}

// What it costs to sample 5,000 calls every 100 ms, in percent of one core. Half of them lose packets. Their packets, which come in between,
// are not counted.
func BenchmarkWatched5000Calls(b *testing.B) {
	c := newCrowd(b, 5000)
	some := func(call int) bool { return call%2 == 0 }
	c.run(10*time.Second, 1, 50, some)
	c.spent = 0
	for b.Loop() {
		c.run(100*time.Millisecond, 1, 50, some)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(c.spent.Microseconds())/float64(b.N)/1000, "%core")
}

// What it costs to sample calls that no cache has room for, in ns a sample: calls without loss, whose packets are not counted, calls whose far ends
// have gone silent, and calls that nothing has come to.
func BenchmarkSampleOf5000Calls(b *testing.B) {
	none := func(int) bool { return false }
	for _, x := range []struct {
		name            string
		before, between int // packets of a call: before, and between two samples
	}{{"WithoutLoss", 500, 5}, {"Dead", 500, 0}, {"Idle", 0, 0}} {
		b.Run(x.name, func(b *testing.B) {
			c := newCrowd(b, 5000)
			all := c.in
			if x.before == 0 {
				c.in = nil
			}
			c.run(time.Duration(x.before)*20*time.Millisecond, 1, 50, none)
			if x.between == 0 {
				c.in = nil
			}
			c.run(40*time.Second, 5000, 50, none) // until the dead have been told of
			c.spent = 0
			for b.Loop() {
				c.run(100*time.Millisecond, 1, 50, none)
			}
			c.in = all
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(c.spent.Nanoseconds())/float64(b.N)/5000, "ns/sample")
		})
	}
}

// The runtime sleeps whole milliseconds and then again for the rest: a wait must have next to none, and not be longer than was asked for.
func TestOnePoll(t *testing.T) {
	for d := -time.Millisecond; d < 25*time.Millisecond; d += 7 * time.Microsecond {
		got := onePoll(d)
		if d <= 0 {
			if got != 0 {
				t.Fatalf("%v becomes %v", d, got)
			}
			continue
		}
		if rest := got % time.Millisecond; got > d || d-got >= time.Millisecond || d >= time.Millisecond && rest > 50*time.Microsecond {
			t.Fatalf("%v becomes %v", d, got)
		}
	}
}
