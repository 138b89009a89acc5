package fallback

import (
	"testing"
	"time"
)

func BenchmarkPacket(b *testing.B) {
	s := NewStream([]Format{{PayloadType: 0}}, 0)
	p := Packet{SSRC: 1, PayloadLength: 160}
	b.ReportAllocs()
	for b.Loop() {
		s.Packet(p)
		p.Seq++
		p.Timestamp += 160
		p.At += 20 * time.Millisecond
	}
}

// A sample of a call whose stream loses packets, with its 8 s of window.
func BenchmarkSample(b *testing.B) {
	table := Builtin()
	s := NewStream([]Format{{PayloadType: 0}}, 0)
	feed(s, 0, 400, 1, func(i int) bool { return i%10 == 5 })
	m := NewMonitor(Nominal, DefaultHoldDown)
	m.SetStreams([]*Stream{s})
	b.ReportAllocs()
	for b.Loop() {
		m.Sample(8*time.Second, &table)
	}
}

// What 5,000 calls of 20 ms packets cost that go on, which no cache has room for: a packet in ns, with those of all calls in turn, and a
// sample of all every 100 ms, in percent of one core. Half of the calls lose packets, half of the others have jitter.
func Benchmark5000Calls(b *testing.B) {
	table := Builtin()
	type call struct {
		stream  *Stream
		monitor *Monitor
	}
	var calls []call
	for range 5000 {
		c := call{NewStream([]Format{{PayloadType: 0}}, 0), NewMonitor(Nominal, DefaultHoldDown)}
		c.monitor.SetStreams([]*Stream{c.stream})
		calls = append(calls, c)
	}
	var packets, samples time.Duration
	sent := 0
	round := func() {
		begin := time.Now()
		for range 5 {
			for c := range calls {
				at := time.Duration(sent) * 20 * time.Millisecond
				if c%4 == 1 {
					at += time.Duration((sent*7919+c*31)%401) * 50 * time.Microsecond
				}
				if c%2 == 1 || sent%50 != c%50 {
					calls[c].stream.Packet(Packet{At: at, SSRC: 1, Seq: uint16(sent), Timestamp: 160 * uint32(sent), PayloadLength: 160})
				}
			}
			sent++
		}
		now := time.Now()
		packets += now.Sub(begin)
		for _, c := range calls {
			c.monitor.Sample(time.Duration(sent)*20*time.Millisecond, &table)
		}
		samples += time.Since(now)
	}
	for range 100 { // until the windows are full
		round()
	}
	packets, samples = 0, 0
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(packets.Nanoseconds())/float64(b.N)/25000, "ns/packet")
	b.ReportMetric(float64(samples.Microseconds())/float64(b.N)/1000, "%core") // of 100 ms
}

// What the window of a call takes.
func TestMemoryOfAWindow(t *testing.T) {
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			NewStream([]Format{{PayloadType: 0}}, 0)
		}
	})
	t.Logf("%d bytes", r.AllocedBytesPerOp())
	if n := r.AllocedBytesPerOp(); n > 3500 {
		t.Errorf("%d bytes", n)
	}
}
