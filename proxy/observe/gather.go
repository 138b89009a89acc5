package observe

import (
	"io"
	"sync"
	"time"

	"imeproxy/proxy/backlog"
)

// Limits of a Gatherer.
const (
	gatherTime = 100 * time.Millisecond
	gatherFrom = 4        // lines within that time make it busy
	maxGather  = 64 << 10 // bytes; a longer line waits for nothing
)

// Gatherer passes lines on to a writer: at once while there are few, and those of 100 ms together while more than four come in such a time. A
// busy log costs one system call for all of them. What waits survives a crash (package backlog). Close must be called before the program ends. Safe for
// concurrent use.
type Gatherer struct {
	mu     sync.Mutex // guards everything that follows, and the order of writes
	to     io.Writer
	file   *backlog.File
	lines  *backlog.Batch
	timer  *time.Timer
	armed  bool // the time runs
	count  int  // writes in it
	busy   bool // there were many in the time before
	closed bool
}

// NewGatherer makes one that writes to w. Lines wait in the first batch of the file, which the Gatherer closes; nil is one in memory.
func NewGatherer(w io.Writer, file *backlog.File) *Gatherer {
	if file == nil {
		file = backlog.Memory(1, maxGather)
	}
	return &Gatherer{to: w, file: file, lines: file.Batches()[0]}
}

// Write takes whole lines. An error of an earlier write is not told.
func (g *Gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return g.to.Write(p)
	}
	if g.count++; !g.armed {
		g.arm()
	}
	if !g.busy && g.count <= gatherFrom {
		return g.to.Write(p)
	}
	if !g.lines.Append(p) {
		g.flush()
		if !g.lines.Append(p) {
			return g.to.Write(p)
		}
	}
	return len(p), nil
}

// Flush writes what waits.
func (g *Gatherer) Flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flush()
}

// Close writes what waits and closes the file. Lines that come later wait for nothing.
func (g *Gatherer) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.flush()
	g.closed = true
	_ = g.file.Close() // nothing is in it
}

func (g *Gatherer) flush() {
	if g.closed || g.lines.Len() == 0 {
		return
	}
	g.lines.Writing(0, -1)
	_ = backlog.Guard(func() { _, _ = g.to.Write(g.lines.Bytes()) }) // the file tells itself that it is gone
	g.lines.Clear()
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
