package proxy

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Bounds of what the garbage collector lets grow on top of live data.
const (
	garbageTime  = 4 * time.Second // what is allocated in that time may wait
	garbageLeast = 32 << 20        // bytes
	garbageBelow = 25              // percent of live data, at least
	garbageAbove = 400             // and at most
	garbageIdle  = 200             // at most, where little is allocated
)

// garbage sets the collector's pace once a second. Go's own rule lets as much garbage lie as there is live data: with many standing calls
// and few new ones that is memory for nothing, and with few standing calls and many new ones it collects all the time.
type garbage struct {
	samples []metrics.Sample
	total   uint64
	at      time.Time
	percent int
	off     bool // who has set GOGC wants it so
}

func newGarbage() *garbage {
	return &garbage{
		samples: []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}},
		percent: 100, off: os.Getenv("GOGC") != "",
	}
}

// adjust is for one goroutine.
func (g *garbage) adjust(now time.Time) {
	if g.off {
		return
	}
	metrics.Read(g.samples)
	total, live, heap := g.samples[0].Value.Uint64(), g.samples[1].Value.Uint64(), g.samples[2].Value.Uint64()
	before, since := g.total, now.Sub(g.at)
	g.total, g.at = total, now
	if before == 0 || since <= 0 {
		return
	}
	p := garbagePercent(live, float64(total-before)/since.Seconds())
	if p > g.percent+g.percent/4 || p < g.percent-g.percent/4 && garbageFits(live, heap, p) { // each change stops the world for a moment
		g.percent = p
		debug.SetGCPercent(p)
	}
}

// garbageFits tells whether what lies there is well below what may lie at a percentage. Where it is above, a collection would begin at once in
// which all who allocate must help until it ends, a tenth of a second with ten thousand calls: better wait for the next one.
func garbageFits(live, heap uint64, percent int) bool {
	return float64(heap)-float64(live) < float64(live)*float64(percent)/100/2
}

// garbagePercent works out GOGC for live bytes of the heap and bytes allocated a second.
func garbagePercent(live uint64, rate float64) int {
	percent := func(room float64) float64 { return 100 * room / float64(max(live, 1)) }
	busy := min(percent(rate*garbageTime.Seconds()), garbageAbove)
	return int(max(busy, min(percent(garbageLeast), garbageIdle), garbageBelow))
}
