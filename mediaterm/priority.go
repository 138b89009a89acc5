package mediaterm

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// WorkerNice is a worker's place among the programs of its core (nice(2), -20 to 19, 0 is usual): what else runs there, such as a backup or the
// installation of a package, must not break up the voices of those who talk. With three busy programs beside it on its core a worker of the usual
// place lost three of four packets of 5,000 calls, and one of this place one in 800 at most.
const WorkerNice = -15

// A worker that takes its core whole is too slow for what comes, as in a flood. Before all others it would leave next to nothing of the core to them,
// and to the signalling of its own daemon, so it stands in line with them for standBack then. Its own time counts, not how long it has not slept: beside
// other programs it may need all that is left to it, and would lose what it has its place for.
const (
	wholeCore = 0.95 // of saturatedFor
	standBack = time.Second

	saturatedFor = 200 * time.Millisecond
)

// niceOf is the place of the calling thread, setNice gives it another. To come forward takes CAP_SYS_NICE or a limit (RLIMIT_NICE, of a unit:
// LimitNICE).
func niceOf() (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return 20 - n, err // the bare system call adds 20 and turns the sign, as it has to return no negative number
}

func setNice(nice int) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, nice) }

// ownTime is for how long the calling thread has had a core.
func ownTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// priority is the place of a worker's thread. Its methods are for that thread alone, but for what is atomic.
type priority struct {
	set   func(nice int) error
	spent func() time.Duration // of a core
	plain int                  // of the threads of the daemon
	shown atomic.Int32         // the place it has
	stuck atomic.Bool          // denied is set

	denied  error     // why it has to stay where it is; nil: it can come forward
	forward bool      // it has
	since   time.Time // of the time in which its share of the core is counted
	by      time.Duration
	back    time.Time // when it stood back last
}

// begin brings the calling thread forward, where the system allows that.
func (p *priority) begin() {
	p.set, p.spent = setNice, ownTime
	plain, err := niceOf()
	if err != nil {
		p.deny(fmt.Errorf("getpriority: %w", err))
		return
	}
	p.plain = plain
	p.shown.Store(int32(plain))
	p.comeForward()
}

func (p *priority) comeForward() {
	if p.plain <= WorkerNice {
		return // the whole daemon stands there
	}
	if err := p.set(WorkerNice); err != nil {
		p.deny(fmt.Errorf("setpriority (CAP_SYS_NICE, or LimitNICE=%d of the unit): %w", WorkerNice, err))
		return
	}
	p.forward = true
	p.shown.Store(WorkerNice)
}

func (p *priority) deny(why error) {
	p.denied = why
	p.stuck.Store(true)
}

// retreat always works.
func (p *priority) retreat(now time.Time) {
	p.back = now
	if p.forward {
		_ = p.set(p.plain)
		p.forward = false
		p.shown.Store(int32(p.plain))
	}
}

// look is for each turn of the worker, which begins now.
func (p *priority) look(now time.Time) {
	switch {
	case p.denied != nil:
	case !p.forward:
		if now.Sub(p.back) > standBack {
			p.comeForward()
			p.since = time.Time{}
		}
	case p.since.IsZero():
		p.since, p.by = now, p.spent()
	case now.Sub(p.since) > saturatedFor:
		spent, passed := p.spent(), now.Sub(p.since)
		if float64(spent-p.by) > wholeCore*float64(passed) {
			p.retreat(now)
		}
		p.since, p.by = now, spent
	}
}

// end gives the thread back as it was.
func (p *priority) end() { p.retreat(time.Time{}) }
