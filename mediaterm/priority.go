package mediaterm

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// WorkerNice is a worker's place among the programs of its core (nice(2), -20 to 19, 0 is usual): what else runs there, such as a backup or the
// installation of a package, must not break up the voices of those who talk. With three busy programs beside it on its core a worker of the usual
// place lost three of four packets of 5,000 calls, and one of this place none.
const WorkerNice = -15

// A worker that finds no time to rest for saturatedFor is too slow for what comes, as in a flood. Before all others it would leave next to nothing
// of the core to them, and to the signalling of its own daemon, so it stands in line with them for standBack then.
const (
	saturatedFor = 200 * time.Millisecond
	standBack    = time.Second
)

// niceOf is the place of the calling thread, setNice gives it another. To come forward takes CAP_SYS_NICE or a limit (RLIMIT_NICE, of a unit:
// LimitNICE).
func niceOf() (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return 20 - n, err // the bare system call adds 20 and turns the sign, as it has to return no negative number
}

func setNice(nice int) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, nice) }

// priority is the place of a worker's thread. Its methods are for that thread alone, but for shown.
type priority struct {
	set   func(nice int) error
	plain int          // of the threads of the daemon
	shown atomic.Int32 // the place it has
	stuck atomic.Bool  // denied is set

	denied  error     // why it has to stay where it is; nil: it can come forward
	forward bool      // it has
	idle    bool      // it has slept since the last look
	rested  time.Time // when it did last
	back    time.Time // when it stood back last
}

// begin brings the calling thread forward, where the system allows that.
func (p *priority) begin() {
	p.set = setNice
	plain, err := niceOf()
	if err != nil {
		p.deny(fmt.Errorf("getpriority: %w", err))
		return
	}
	p.plain = plain
	p.shown.Store(int32(plain))
	p.idle = true
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

// slept notes that the thread has left its core to others.
func (p *priority) slept() { p.idle = true }

// look is for each turn of the worker, which begins now.
func (p *priority) look(now time.Time) {
	if p.idle {
		p.rested, p.idle = now, false
	}
	switch {
	case p.denied != nil:
	case p.forward && now.Sub(p.rested) > saturatedFor:
		p.retreat(now)
	case !p.forward && now.Sub(p.back) > standBack:
		p.rested = now
		p.comeForward()
	}
}

// end gives the thread back as it was.
func (p *priority) end() { p.retreat(time.Time{}) }
