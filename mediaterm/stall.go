package mediaterm

import (
	"bytes"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stallLimit is how long a worker may not look for packets while they come. It sleeps for MaxWait at most by itself; what is more it had to wait
// for, mostly for its core, and the rings have to hold what comes meanwhile.
const stallLimit = 5 * time.Millisecond

// stallBase is how old the reading may be that the time of waiting for a core is counted from: what the thread waited within it before the stall
// counts as if it were of the stall, which is exact enough for telling why.
const stallBase = 100 * time.Millisecond

// Stalls are the times for which workers did not look for packets although some came, of those longer than 5 ms.
type Stalls struct {
	Number  uint64        `json:"number"`
	ForCore uint64        `json:"for_core"` // of these the ones spent for the most part runnable, with the core busy with something else
	Longest time.Duration `json:"longest"`
}

// add takes in those of another worker.
func (s *Stalls) add(o Stalls) {
	s.Number += o.Number
	s.ForCore += o.ForCore
	s.Longest = max(s.Longest, o.Longest)
}

// stallWatch finds them. It is of the worker's thread alone.
type stallWatch struct {
	schedstat int // /proc/thread-self/schedstat; -1: it cannot be read
	last      time.Time
	busy      bool // packets came in the turn before
	based     time.Time
	base      time.Duration // for which the thread had waited for its core by then
}

// open is for the thread that is to be watched.
func (s *stallWatch) open() {
	var err error
	if s.schedstat, err = unix.Open("/proc/thread-self/schedstat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		s.schedstat = -1
	}
}

func (s *stallWatch) close() {
	if s.schedstat >= 0 {
		_ = unix.Close(s.schedstat)
		s.schedstat = -1
	}
}

// waited is how long the thread was runnable and did not run, in all (Documentation/scheduler/sched-stats.rst: the second number). 0 where the
// system does not tell.
func (s *stallWatch) waited() time.Duration {
	if s.schedstat < 0 {
		return 0
	}
	var text [64]byte
	n, err := unix.Pread(s.schedstat, text[:], 0)
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text[:n], []byte(" "))
	number, _, _ := bytes.Cut(rest, []byte(" "))
	ns, _ := strconv.ParseInt(string(number), 10, 64)
	return time.Duration(ns)
}

// look is for each turn of the worker, which begins now. The stall that has just ended, if there was one: how long it was, and whether it was for
// want of the core.
func (s *stallWatch) look(now time.Time) (stall time.Duration, forCore bool) {
	if gap := now.Sub(s.last); s.busy && gap > stallLimit {
		stall, forCore = gap, s.waited()-s.base > gap/2
		s.based = time.Time{}
	}
	s.last, s.busy = now, false
	if now.Sub(s.based) > stallBase {
		s.based, s.base = now, s.waited()
	}
	return stall, forCore
}

// came notes that packets came in this turn.
func (s *stallWatch) came() { s.busy = true }
