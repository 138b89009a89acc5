package mediaterm

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// costRig opens streams of engine tproxy without kernel rules: what a stream takes does not depend on them.
func costRig(tb testing.TB, workers int) *Terminator {
	tb.Helper()
	e, err := OpenTProxy(TProxyConfig{Workers: workers})
	if err != nil {
		tb.Skipf("engine %s cannot be opened here: %v", EngineTProxy, err)
	}
	tb.Cleanup(func() { _ = e.Close() })
	return newTerminator(tb, Config{Addresses: ourAddresses(), MinPort: 20000, MaxPort: 65535, Engine: e, MaxStreams: 1 << 20})
}

// callStream is a stream as a call sets it up.
func callStream(tb testing.TB, term *Terminator, keys [2]*Key) *Stream {
	tb.Helper()
	s, err := term.NewStream(StreamParams{Inside: ourInside, Outside: ourOutside, CallID: "call-1", Media: "audio"})
	if err == nil {
		err = s.SetCrypto(Outside, keys[0], keys[1])
	}
	for _, side := range []Side{Inside, Outside} {
		if err == nil {
			err = s.SetRemote(side, Remote{RTP: loopFar, RTCP: netip.AddrPortFrom(loopFar.Addr(), loopFar.Port()+1)})
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// The heap that a stream takes while media flows both ways: the target is 8 KB a call, of which what judges its quality has 3.5.
func TestMemoryOfAStream(t *testing.T) {
	const streams = 2000
	term := costRig(t, 1)
	keys := [2]*Key{mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)}
	far := newLoop(t, keys[1])
	sc := newScratch()
	wire := far.seal(rtpPacket(9, 1))
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var list []*Stream
	before := used()
	for range streams {
		s := callStream(t, term, keys)
		e := s.eng.(*tproxyStream)
		_, out := e.receive(Inside, portRTP, loopFar, rtpPacket(1, 1), sc)
		_, in := e.receive(Outside, portRTP, loopFar, wire, sc)
		if !in || !out {
			t.Fatalf("media does not pass: %v %v, %+v", in, out, s.Stats())
		}
		list = append(list, s)
	}
	each := (used() - before) / streams
	t.Logf("%d bytes a stream", each)
	if each > 4700 {
		t.Errorf("a stream takes %d bytes", each)
	}
	runtime.KeepAlive(list)
}

// BenchmarkStreams sets up and ends a stream with all that a call tells of it.
func BenchmarkStreams(b *testing.B) {
	term := costRig(b, 1)
	keys := [2]*Key{mustKey(b, SuiteCM80), mustKey(b, SuiteCM80)}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; n%10000 == 0 { // freed ports rest for a minute
			b.StopTimer()
			term = costRig(b, 1)
			b.StartTimer()
		}
		callStream(b, term, keys).Close()
	}
}

// batches are packets of many calls in turn, from one side, that a worker's own code takes as they come at 50,000 packets a second: the state of a
// call has left the cache when its next packet comes.
type batches struct {
	w       *worker
	streams []*tproxyStream
	from    Side
	far     *loop
	wire    []byte
	now     time.Time
	seq     uint16
	next    int
}

const batchPackets = 32

func newBatches(tb testing.TB, streams []*tproxyStream, from Side, key *Key) *batches {
	tb.Helper()
	return &batches{w: streams[0].worker, streams: streams, from: from, far: newLoop(tb, key), now: time.Now()}
}

// one takes a batch, with the mutex as relay takes it.
func (l *batches) one(tb testing.TB) {
	w := l.w
	w.mu.Lock()
	for i := range batchPackets {
		if l.next%len(l.streams) == 0 {
			if l.wire = rtpPacket(1, l.seq); l.from == Outside {
				l.wire = l.far.seal(l.wire)
			}
			l.seq++
			l.now = l.now.Add(20 * time.Millisecond)
		}
		s := &w.slots[i]
		s.src, s.at = loopFar, Instant(l.now)
		s.pkt = append(s.rx[:headroom], l.wire...)[headroom:]
		at := l.streams[l.next%len(l.streams)].localPort(l.from, portRTP)
		s.end = w.table.at(at.Addr().As4(), at.Port())
		l.next++
	}
	w.batch(batchPackets)
	w.mu.Unlock()
	if sent := w.txN[viaLink] + w.txN[viaKernel]; sent != batchPackets {
		tb.Errorf("%d of %d packets passed", sent, batchPackets)
	}
	w.mu.Lock()
	w.account()
	w.mu.Unlock()
}

// BenchmarkBatch takes packets of 1,000 calls through a worker, all but receiving and sending them.
func BenchmarkBatch(b *testing.B) {
	for _, from := range []Side{Inside, Outside} {
		b.Run("from "+from.String(), func(b *testing.B) {
			keys := [2]*Key{mustKey(b, SuiteCM80), mustKey(b, SuiteCM80)}
			term := costRig(b, 1)
			var streams []*tproxyStream
			for range 1000 {
				streams = append(streams, callStream(b, term, keys).eng.(*tproxyStream))
			}
			load := newBatches(b, streams, from, keys[1])
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += batchPackets {
				load.one(b)
			}
		})
	}
}

// BenchmarkTwoWorkers takes packets of 1,000 calls a worker through one worker alone and through two at a time, and compares the processor time
// that a packet takes: what two workers shared would make it dearer. 2.0 times is what two cores can be at most.
func BenchmarkTwoWorkers(b *testing.B) {
	if runtime.NumCPU() < 2 {
		b.Skip("one processor")
	}
	keys := [2]*Key{mustKey(b, SuiteCM80), mustKey(b, SuiteCM80)}
	term := costRig(b, 2)
	streams := map[*worker][]*tproxyStream{}
	for range 2000 {
		s := callStream(b, term, keys).eng.(*tproxyStream)
		streams[s.worker] = append(streams[s.worker], s)
	}
	var loads []*batches
	for _, list := range streams {
		loads = append(loads, newBatches(b, list, Outside, keys[1]))
	}
	if len(loads) != 2 || len(loads[0].streams) != len(loads[1].streams) {
		b.Fatalf("%d workers have streams", len(loads))
	}
	// run gives the processor time that a packet took, in nanoseconds.
	run := func(loads ...*batches) float64 {
		var sum atomic.Int64
		var all sync.WaitGroup
		for _, l := range loads {
			all.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				begin := threadTime(b)
				for range 1000 {
					l.one(b)
				}
				sum.Add(threadTime(b) - begin)
			})
		}
		all.Wait()
		return float64(sum.Load()) / float64(len(loads)*1000*batchPackets)
	}
	var alone, both float64
	n := 0.0
	for b.Loop() {
		alone += (run(loads[0]) + run(loads[1])) / 2
		both += run(loads...)
		n++
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(alone/n, "ns/packet-alone")
	b.ReportMetric(both/n, "ns/packet-both")
	b.ReportMetric(2*alone/both, "times")
}

// threadTime is the processor time of the calling thread in nanoseconds.
func threadTime(tb testing.TB) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		tb.Error(err)
	}
	return ts.Nano()
}
