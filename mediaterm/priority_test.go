package mediaterm

import (
	"errors"
	"fmt"
	"os"
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

func newPriority(set func(int) error) *priority {
	p := &priority{set: set, idle: true}
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

// A worker that rests keeps its place before others; one that does not leaves them their share of the core, and tries again a second later.
func TestSaturatedWorkerStandsBack(t *testing.T) {
	var set places
	now := time.Unix(1000, 0)
	p := newPriority(set.set)
	set.want(t, "begin", WorkerNice)
	for range 1000 {
		now = now.Add(time.Millisecond)
		p.look(now)
		p.slept()
	}
	set.want(t, "it rests each millisecond")
	turn := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(time.Millisecond)
			p.look(now)
		}
	}
	turn(saturatedFor)
	set.want(t, "no rest for a time that is allowed")
	turn(2 * time.Millisecond)
	set.want(t, "no rest for longer", 0)
	if n := p.shown.Load(); n != 0 {
		t.Errorf("shown: %d", n)
	}
	turn(standBack - 10*time.Millisecond)
	set.want(t, "it stands in line")
	turn(20 * time.Millisecond)
	set.want(t, "a second later", WorkerNice)
	turn(saturatedFor + 10*time.Millisecond)
	set.want(t, "still no rest", 0)
	p.slept()
	turn(standBack + 10*time.Millisecond)
	set.want(t, "a second later", WorkerNice)
	p.slept()
	now = now.Add(time.Hour) // no packet
	p.look(now)
	set.want(t, "after an hour without packets")
	p.end()
	set.want(t, "end", 0)
}

// One that looks for packets without sleeping takes its core whole, and must not do that before all others.
func TestLingeringWorkerStandsBack(t *testing.T) {
	var set places
	now := time.Unix(1000, 0)
	p := newPriority(set.set)
	set.want(t, "begin", WorkerNice)
	for range 5000 {
		p.look(now)
		p.retreat(now)
		now = now.Add(time.Millisecond)
	}
	set.want(t, "it lingers for five seconds", 0)
	for range 1100 {
		p.look(now)
		p.slept()
		now = now.Add(time.Millisecond)
	}
	set.want(t, "it sleeps again", WorkerNice)
}

func TestPlaceDenied(t *testing.T) {
	calls := 0
	p := newPriority(func(int) error { calls++; return unix.EPERM })
	for now := time.Unix(0, 0); now.Before(time.Unix(10, 0)); now = now.Add(10 * time.Millisecond) {
		p.look(now)
	}
	p.end()
	if calls != 1 || !p.stuck.Load() || !errors.Is(p.denied, unix.EACCES) && !errors.Is(p.denied, unix.EPERM) || !strings.Contains(p.denied.Error(), "LimitNICE=-15") {
		t.Errorf("%d calls, %v", calls, p.denied)
	}
}

// threadNice is what the system says of a thread of this program (proc(5), stat).
func threadNice(t *testing.T, tid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	_, rest, _ := strings.Cut(string(text)+strings.Repeat(" 0", 20), ") ")
	n, wrong := strconv.Atoi(strings.Fields(rest)[16])
	if err != nil || wrong != nil {
		t.Errorf("%v, %v", err, wrong)
	}
	return n
}

// The thread really comes forward, alone of the program, and is given back as it was.
func TestPlaceOfAThread(t *testing.T) {
	var p priority
	var forward, program, back int
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with it, should giving it back fail
		p.begin()
		forward, program = threadNice(t, unix.Gettid()), threadNice(t, os.Getpid())
		p.end()
		back = threadNice(t, unix.Gettid())
	}()
	<-done
	if p.denied != nil {
		t.Skipf("not allowed here: %v", p.denied)
	}
	if forward != WorkerNice || program != p.plain || back != p.plain {
		t.Errorf("nice %d, the program's %d, given back with %d; want %d, %d, %[5]d", forward, program, back, WorkerNice, p.plain)
	}
}
