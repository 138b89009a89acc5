package mediaterm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// places notes what a thread's place is set to.
type places []int

func (p *places) set(nice int) error {
	*p = append(*p, nice)
	return nil
}

func newPriority(set func(int) error, spent func() time.Duration) *priority {
	p := &priority{set: set, spent: spent}
	p.comeForward()
	return p
}

func (p *places) want(t *testing.T, when string, nice ...int) {
	t.Helper()
	if fmt.Sprint(*p) != fmt.Sprint(places(nice)) {
		t.Errorf("%s: set to %v, want %v", when, *p, nice)
	}
	*p = nil
}

// A worker keeps its place before others while it leaves some of its core; one that takes it whole leaves them their share, and tries again a second
// later.
func TestSaturatedWorkerStandsBack(t *testing.T) {
	var set places
	var spent time.Duration
	now := time.Unix(1000, 0)
	p := newPriority(set.set, func() time.Duration { return spent })
	turn := func(d time.Duration, percent int) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(time.Millisecond)
			spent += time.Millisecond * time.Duration(percent) / 100
			p.look(now)
		}
	}
	set.want(t, "begin", WorkerNice)
	turn(10*time.Second, 94)
	set.want(t, "it leaves some of its core")
	whole := func() {
		begin := now
		for len(set) == 0 && now.Sub(begin) < time.Minute {
			turn(time.Millisecond, 100)
		}
		if d := now.Sub(begin); d > 2*saturatedFor+5*time.Millisecond { // what came before in the time that is counted may have been less
			t.Errorf("it stood back after %v", d)
		}
		set.want(t, "it takes its core whole", 0)
	}
	whole()
	if n := p.shown.Load(); n != 0 {
		t.Errorf("shown: %d", n)
	}
	for range 2 {
		turn(standBack-5*time.Millisecond, 50)
		set.want(t, "it stands in line")
		turn(10*time.Millisecond, 50)
		set.want(t, "a second later", WorkerNice)
		whole()
	}
	turn(standBack+5*time.Millisecond, 50)
	set.want(t, "a second later", WorkerNice)
	now = now.Add(time.Hour) // no packet
	p.look(now)
	set.want(t, "after an hour without packets")
	turn(time.Second, 80)
	set.want(t, "packets again")
	p.end()
	set.want(t, "end", 0)
}

// One that looks for packets without sleeping takes its core whole, and must not do that before all others.
func TestLingeringWorkerStandsBack(t *testing.T) {
	var set places
	now := time.Unix(1000, 0)
	p := newPriority(set.set, func() time.Duration { return 0 })
	set.want(t, "begin", WorkerNice)
	for range 5000 {
		p.look(now)
		p.retreat(now)
		now = now.Add(time.Millisecond)
	}
	set.want(t, "it lingers for five seconds", 0)
	for range 1100 {
		p.look(now)
		now = now.Add(time.Millisecond)
	}
	set.want(t, "it sleeps again", WorkerNice)
}

func TestPlaceDenied(t *testing.T) {
	calls := 0
	p := newPriority(func(int) error { calls++; return unix.EPERM }, ownTime)
	for now := time.Unix(0, 0); now.Before(time.Unix(10, 0)); now = now.Add(10 * time.Millisecond) {
		p.look(now)
	}
	p.end()
	if calls != 1 || !p.stuck.Load() || !errors.Is(p.denied, unix.EACCES) && !errors.Is(p.denied, unix.EPERM) || !strings.Contains(p.denied.Error(), "LimitNICE=-15") {
		t.Errorf("%d calls, %v", calls, p.denied)
	}
}

// niceThreads counts the threads of this program that have a place among others (proc(5), stat).
func niceThreads(t *testing.T, nice int) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil || len(files) == 0 {
		t.Errorf("threads of this program: %v, %v", files, err)
	}
	for _, f := range files {
		text, _ := os.ReadFile(f) // a thread may have ended
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 16 && fields[16] == strconv.Itoa(nice) {
			n++
		}
	}
	return n
}

// The thread really comes forward, alone of the program, and is given back as it was.
func TestPlaceOfAThread(t *testing.T) {
	var p priority
	var own, forward, back int
	before := niceThreads(t, WorkerNice) // workers of the engine that the other tests use
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with it, should giving it back fail
		p.begin()
		own, _ = niceOf()
		forward = niceThreads(t, WorkerNice)
		p.end()
		back, _ = niceOf()
	}()
	<-done
	if p.denied != nil {
		t.Skipf("not allowed here: %v", p.denied)
	}
	if own != WorkerNice || forward != before+1 || back != p.plain {
		t.Errorf("nice %d, so that %d threads have %d and %d had before; given back with %d, was %d", own, forward, WorkerNice, before, back, p.plain)
	}
}
