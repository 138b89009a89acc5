package mediaterm

import (
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// costRig opens streams of engine tproxy without kernel rules: what a stream takes does not depend on them.
func costRig(tb testing.TB) *Terminator {
	tb.Helper()
	e, err := OpenTProxy(TProxyConfig{Workers: 1})
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
	term := costRig(t)
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
	term := costRig(b)
	keys := [2]*Key{mustKey(b, SuiteCM80), mustKey(b, SuiteCM80)}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n++; n%10000 == 0 { // freed ports rest for a minute
			b.StopTimer()
			term = costRig(b)
			b.StartTimer()
		}
		callStream(b, term, keys).Close()
	}
}

// BenchmarkBatch takes packets of 1,000 calls in turn through a worker's own code, in batches as they come at 50,000 packets a second: the state
// of a call has left the cache when its next packet comes.
func BenchmarkBatch(b *testing.B) {
	const calls, batch = 1000, 32
	for _, from := range []Side{Inside, Outside} {
		b.Run("from "+from.String(), func(b *testing.B) {
			keys := [2]*Key{mustKey(b, SuiteCM80), mustKey(b, SuiteCM80)}
			term := costRig(b)
			far := newLoop(b, keys[1])
			var streams []*tproxyStream
			for range calls {
				streams = append(streams, callStream(b, term, keys).eng.(*tproxyStream))
			}
			w := streams[0].worker
			w.mu.Lock()
			defer w.mu.Unlock()
			seq, next, wire := uint16(0), 0, []byte(nil)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += batch {
				for i := range batch {
					if next%calls == 0 {
						if wire = rtpPacket(1, seq); from == Outside {
							wire = far.seal(wire)
						}
						seq++
						w.now = w.now.Add(20 * time.Millisecond)
					}
					s := &w.slots[i]
					s.src, s.at = loopFar, w.now
					s.pkt = append(s.rx[:headroom], wire...)[headroom:]
					at := streams[next%calls].localPort(from, portRTP)
					s.end = w.table.at(at.Addr().As4(), at.Port())
					next++
				}
				w.touch(batch)
				for i := range batch {
					w.one(&w.slots[i])
				}
				if sent := w.txN[viaLink] + w.txN[viaKernel]; sent != batch {
					b.Fatalf("%d of %d packets passed", sent, batch)
				}
				w.account()
			}
		})
	}
}
