package pvp

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imeproxy/ucime/learn"
)

// cpu is what this process has used, of all its threads.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkValidation is a whole validation over loopback, both sides in this process: TCP, TLS 1.3 with P-256
// certificates, one run, ticket and answer. cpu-us/op is the CPU of both sides.
func BenchmarkValidation(b *testing.B) {
	w := newWorld(b, func(c *ServerConfig) { c.Limits.SourceBurst = 1 << 30 })
	c := w.client(peerA)
	id := uint64(0)
	before := cpu(b)
	for b.Loop() {
		id++
		w.add(id, seenBy(callOf(), 0, 0))
		if r := w.validate(c, callOf(), WithCaller); r.Outcome != Success {
			b.Fatalf("%+v", r)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// BenchmarkFailedValidation is what a peer without the call costs: three runs.
func BenchmarkFailedValidation(b *testing.B) {
	w := newWorld(b, func(c *ServerConfig) { c.Limits.SourceBurst, c.Limits.PeerBurst = 1<<30, 1<<30 })
	c := w.client(peerA)
	before := cpu(b)
	for b.Loop() {
		if r := w.validate(c, callOf(), WithCaller); r.Outcome != FailedProof {
			b.Fatalf("%+v", r)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// BenchmarkOffer is the terminator's part of a run, which a certified peer can make it do. Whether there are calls to prove
// must not show in its time.
func BenchmarkOffer(b *testing.B) {
	for _, calls := range []int{0, 1, 16, 100} {
		b.Run(fmt.Sprintf("calls=%d", calls), func(b *testing.B) {
			w := newWorld(b, func(c *ServerConfig) { c.Limits.Guesses, c.Limits.GuessesPerPeer = 1<<40, 1<<40 })
			for i := range calls {
				w.add(uint64(i), seenBy(callOf(), 0, time.Duration(i)*time.Minute))
			}
			v := &session{server: w.server, peer: peerA}
			st := &start{method: WithCaller, selector: Selector(callOf().Called)}
			st.public = newShare([]byte("x"), nil, nil).public
			b.ReportAllocs()
			for b.Loop() {
				v.offer(st, make([]byte, 33))
			}
		})
	}
}

// BenchmarkSearch is the originator's part of a run whose OFFER does not match.
func BenchmarkSearch(b *testing.B) {
	w := newWorld(b, nil)
	v := &session{server: w.server, peer: peerA}
	st := &start{method: WithCaller}
	sid := make([]byte, 33)
	sh := newShare([]byte("x"), st.ci(), sid)
	st.public = sh.public
	offer := v.offer(st, sid)
	b.ReportAllocs()
	for b.Loop() {
		points, err := decodePoints(offer)
		if err != nil {
			b.Fatal(err)
		}
		if at, _ := search(st, sid, sh, offer, points); at >= 0 {
			b.Fatal("a match")
		}
	}
}

// BenchmarkHandshake is TCP and TLS alone, both sides.
func BenchmarkHandshake(b *testing.B) {
	w := newWorld(b, func(c *ServerConfig) { c.Limits.SourceBurst = 1 << 30 })
	c := w.client(peerA)
	before := cpu(b)
	for b.Loop() {
		conn, err := c.connect(context.Background(), w.addr, peerB)
		if err != nil {
			b.Fatal(err)
		}
		_ = conn.Close()
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// BenchmarkIndex fills the index with 100,000 VCRs of 10,000 numbers, in the order of their ends.
func BenchmarkIndex(b *testing.B) {
	calls := make([]learn.VCR, 100_000)
	for i := range calls {
		calls[i] = seenBy(callOf(), 0, time.Duration(i)*time.Second)
		calls[i].Called = learn.Number(fmt.Sprintf("+4930%07d", i%10_000))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var x *Index
	for b.Loop() {
		x = NewIndex(len(calls), nil)
		for i, v := range calls {
			if _, _, err := x.Add(uint64(i), v); err != nil {
				b.Fatal(err)
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(x.Len()), "bytes/VCR")
}
