package observe

import (
	"io"
	"sync"
	"time"
)

// Limits of a Gatherer.
const (
	gatherTime = 100 * time.Millisecond
	gatherFrom = 4        // lines within that time make it busy
	maxGather  = 64 << 10 // bytes
)

// Gatherer passes lines on to a writer: at once while there are few, and those of 100 ms together while more than four come in such a time. A
// busy log costs one system call for all of them. Flush must be called before the program ends. Safe for concurrent use.
type Gatherer struct {
	mu    sync.Mutex // guards everything that follows, and the order of writes
	to    io.Writer
	lines []byte
	timer *time.Timer
	armed bool // the time runs
	count int  // writes in it
	busy  bool // there were many in the time before
}

// NewGatherer makes one that writes to w.
func NewGatherer(w io.Writer) *Gatherer { return &Gatherer{to: w} }

// Write takes whole lines. An error of an earlier write is not told.
func (g *Gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.count++; !g.armed {
		g.arm()
	}
	if !g.busy && g.count <= gatherFrom {
		return g.to.Write(p)
	}
	g.lines = append(g.lines, p...)
	if len(g.lines) > maxGather {
		g.flush()
	}
	return len(p), nil
}

// Flush writes what waits.
func (g *Gatherer) Flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flush()
}

func (g *Gatherer) flush() {
	if len(g.lines) > 0 {
		_, _ = g.to.Write(g.lines)
		g.lines = g.lines[:0]
	}
}

func (g *Gatherer) arm() {
	g.armed = true
	if g.timer == nil {
		g.timer = time.AfterFunc(ToBeat(), g.due)
		return
	}
	g.timer.Reset(ToBeat())
}

// begun is from when beats count.
var begun = time.Now()

// ToBeat is the time to the next beat, of which there are ten a second: what is done every so often while much goes on is done at one, so that
// it all wakes the program up together.
func ToBeat() time.Duration {
	since := time.Since(begun) % gatherTime
	if since < 0 { // a test's clock
		since += gatherTime
	}
	return gatherTime - since
}

// due ends a time, and begins another while lines come.
func (g *Gatherer) due() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flush()
	g.busy, g.armed = g.count > gatherFrom, g.count > 0
	if g.count = 0; g.armed {
		g.arm()
	}
}
