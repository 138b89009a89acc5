package ring

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// BenchmarkDerive is the price of one guess at a number, at the cost that new rings have.
func BenchmarkDerive(b *testing.B) {
	s := DefaultSettings()
	for b.Loop() {
		if _, err := derive("+14085551212", s.Key, s.HashCost); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBest is who holds a number, in a ring of 10,000 members with 5 peer IDs each.
func BenchmarkBest(b *testing.B) {
	list := crowd(10000, 5)
	b.ReportAllocs()
	for b.Loop() {
		best(list, Hash{1}, copies)
	}
}

func crowd(n, peers int) []*Member {
	list := make([]*Member, n)
	for i := range list {
		m := &Member{}
		for k := range peers {
			m.Peers = append(m.Peers, peer("crowd %d %d", i, k))
		}
		m.Name = m.Peers[0]
		list[i] = m
	}
	return list
}

// BenchmarkHold is what a holder spends on a new record, all checks included but the look at all members (BenchmarkBest).
func BenchmarkHold(b *testing.B) {
	s := newSimulation(b, 3, 1, func(g *Settings) { g.StorageQuota = maxQuota })
	v, holder := &villain{s.nodes[0], s}, s.nodes[1]
	var raws [][]byte
	for i := range 4096 {
		raws = append(raws, v.record(func(r *record) { r.slot = uint32(i) }))
	}
	i := 0
	b.ReportMetric(float64(len(raws[0])), "bytes/record")
	for b.Loop() {
		if i == len(raws) {
			holder.store, i = newStorage(defaultRecords), 0
		}
		if c := holder.store.put(raws[i], v.p, bounds{now: s.clock.now(), quota: maxQuota, limit: maxQuota, inPlace: func(Hash) bool { return true }}); c != CodeOK {
			b.Fatal(c)
		}
		i++
	}
}

// BenchmarkIssue is what an owner spends to sign a record.
func BenchmarkIssue(b *testing.B) {
	s := newSimulation(b, 1, 1, nil)
	n := s.nodes[0]
	p := &publication{number: "+14085551212"}
	for b.Loop() {
		if err := n.issue(p, s.clock.now()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWeigh is what a reader spends on the three answers about a number, certificates included.
func BenchmarkWeigh(b *testing.B) {
	s := newSimulation(b, 4, 1, nil)
	x := numbers(0, 1)
	if err := s.nodes[0].publish(x); err != nil {
		b.Fatal(err)
	}
	s.settle()
	for b.Loop() {
		if c, err := s.nodes[1].lookup(context.Background(), x[0], s.caller(s.nodes[1])); err != nil || len(c) != 1 {
			b.Fatal(c, err)
		}
	}
}

// BenchmarkCall is a request over a connection that is open, BenchmarkConnect one that has to be opened; both sides.
func BenchmarkCall(b *testing.B) { benchCall(b, false) }

func BenchmarkConnect(b *testing.B) { benchCall(b, true) }

func benchCall(b *testing.B, anew bool) {
	bench, boot := newBench(b)
	m := bench.start(bench.a.identity(b, false, peer("m")), nil)
	await(b, m, "joined", members(2))
	await(b, boot, "joined", members(2))
	to := m.n.member(peer("boot"))
	if _, err := m.q.call(context.Background(), to, typePing, nil); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		if anew {
			m.q.close()
		}
		if _, err := m.q.call(context.Background(), to, typePing, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDay runs a ring of 200 members with 30 numbers each through three days, and says what a number and a member cost in one of the
// last two, when refreshes have spread over the day.
func BenchmarkDay(b *testing.B) {
	const size, per, days = 200, 30, 2
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := newSimulation(b, size, 5, nil)
		s.publish(per)
		s.settle()
		runtime.GC()
		runtime.ReadMemStats(&after)
		records := 0
		for _, n := range s.nodes {
			records += n.store.n
		}
		s.pass(24*time.Hour, time.Hour)
		s.calls, s.bytes, s.records = [256]int{}, [256]int{}, 0
		s.pass(days*24*time.Hour, time.Hour)
		all := float64(size * per * days)
		b.ReportMetric(float64(s.records)/all, "stores/number/day")
		b.ReportMetric(float64(s.calls[typeStore])/all, "requests/number/day")
		b.ReportMetric(float64(s.bytes[typeStore])/all, "B/number/day")
		b.ReportMetric(float64(s.bytes[typeStore])/size/86400/days, "storeB/member/s")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(records), "heapB/record")
		runtime.KeepAlive(s)
	}
}

// BenchmarkChurn says what one member that comes and one that goes cost the owners in all, for each number in the ring.
func BenchmarkChurn(b *testing.B) {
	const size, per = 300, 30
	for range b.N {
		s := newSimulation(b, size, 5, nil)
		s.publish(per)
		s.settle()
		s.calls, s.bytes = [256]int{}, [256]int{}
		s.everybodyKnows(s.add(5000, 5))
		s.settle()
		come := s.bytes[typeStore]
		s.kill(s.nodes[7])
		s.settle()
		b.ReportMetric(float64(come)/(size*per), "B/number/join")
		b.ReportMetric(float64(s.bytes[typeStore]-come)/(size*per), "B/number/loss")
	}
}

// BenchmarkGossip runs 40 real members over TLS at the pace of the Internet and says what membership alone costs each.
func BenchmarkGossip(b *testing.B) {
	const size = 40
	for range b.N {
		bench, _ := newBench(b)
		var all []*Ring
		for i := range size {
			all = append(all, bench.start(bench.a.identity(b, false, peer("g%d", i)), func(c *Config) { c.Pace = Pace{Token: time.Minute} }))
		}
		for _, r := range all {
			await(b, r, "all joined", members(size+1))
		}
		var in uint64
		for _, r := range all {
			in -= r.Status().BytesIn
		}
		const d = 60 * time.Second
		time.Sleep(d) // a measurement, not a wait for a state
		for _, r := range all {
			in += r.Status().BytesIn
		}
		b.ReportMetric(float64(in)/size/d.Seconds(), "B/member/s")
	}
}
