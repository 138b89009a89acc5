package mediaterm

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// quietTime is how long no packet comes before the workers' processors are given back.
const quietTime = 5 * time.Second

// processors of the scheduler (GOMAXPROCS) are added for the workers while packets flow: a worker keeps its own while it waits in the kernel, and the
// rest of the program must not lack it. While none flow the workers wait as all goroutines do, and processors that nobody needs would cost what they
// make the scheduler do: with each message another thread wakes up, to look for work that the first one is doing.
type processors struct {
	n       int             // of the workers
	packets func() uint64   // counts what the workers got
	group   *sync.WaitGroup // that the workers belong to
	quiet   time.Duration   // quietTime, but in tests
	stop    chan struct{}

	asked atomic.Bool // watch runs
	held  atomic.Bool // they are there
}

func newProcessors(n int, packets func() uint64, group *sync.WaitGroup) *processors {
	return &processors{n: n, packets: packets, group: group, quiet: quietTime, stop: make(chan struct{})}
}

// want has the processors added soon: a worker calls it after a batch. It does not wait, as adding them may, for the end of a garbage collection;
// until held is set a worker waits so that the scheduler knows of it.
func (p *processors) want() {
	if !p.asked.Load() && !p.asked.Swap(true) {
		p.group.Go(p.watch)
	}
}

// watch holds the processors until no packet has come for a while.
func (p *processors) watch() {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + p.n)
	p.held.Store(true)
	defer func() {
		p.held.Store(false)
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)-p.n))
		p.asked.Store(false)
	}()
	tick := time.NewTicker(p.quiet)
	defer tick.Stop()
	for last := p.packets(); ; {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		now := p.packets()
		if now == last {
			return
		}
		last = now
	}
}
