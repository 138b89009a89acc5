package mediaterm

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stalledWorker has a stallWatch that reads the time of waiting for the core from a file of ours.
func stalledWorker(t *testing.T) (w *worker, waited func(time.Duration)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "schedstat")
	waited = func(d time.Duration) {
		if err := os.WriteFile(file, fmt.Appendf(nil, "123456789 %d 42\n", d.Nanoseconds()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	waited(0)
	w = new(worker)
	w.place.denied = unix.EPERM // the place is no concern of this
	var err error
	if w.stall.schedstat, err = unix.Open(file, unix.O_RDONLY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.stall.close)
	return w, waited
}

// Times for which a worker did not come to its packets are counted, those apart in which it waited for its core; the time for which no packets came
// is none of them.
func TestStalls(t *testing.T) {
	w, waited := stalledWorker(t)
	w.now = time.Unix(1000, 0)
	turn := func(d time.Duration, packets bool) {
		w.now = w.now.Add(d)
		w.turn()
		if packets {
			w.stall.came()
		}
	}
	turn(0, true)
	for range 300 {
		turn(time.Millisecond, true)
	}
	turn(stallLimit, false)
	turn(time.Hour, true)
	if w.count.Stalls != (Stalls{}) {
		t.Fatalf("stalls where none was: %+v", w.count.Stalls)
	}
	waited(9 * time.Millisecond)
	turn(10*time.Millisecond, true)
	if want := (Stalls{Number: 1, ForCore: 1, Longest: 10 * time.Millisecond}); w.count.Stalls != want {
		t.Errorf("%+v, want %+v", w.count.Stalls, want)
	}
	turn(8*time.Millisecond, true) // for something else: the 9 ms above do not count again
	turn(time.Millisecond, true)
	waited(11 * time.Millisecond)
	turn(30*time.Millisecond, true) // of which it waited for 2
	if want := (Stalls{Number: 3, ForCore: 1, Longest: 30 * time.Millisecond}); w.count.Stalls != want {
		t.Errorf("%+v, want %+v", w.count.Stalls, want)
	}
	sum := Stalls{Number: 1, ForCore: 1, Longest: time.Second}
	sum.add(w.count.Stalls)
	if want := (Stalls{Number: 4, ForCore: 2, Longest: time.Second}); sum != want {
		t.Errorf("of two workers %+v, want %+v", sum, want)
	}
}

// Where the system does not tell how long a thread waited for its core, stalls are counted all the same.
func TestStallsWithoutSchedstat(t *testing.T) {
	s := stallWatch{schedstat: -1}
	now := time.Unix(1000, 0)
	s.look(now)
	s.came()
	if d, forCore := s.look(now.Add(time.Second)); d != time.Second || forCore {
		t.Errorf("%v, %v", d, forCore)
	}
}

// The system's own figures can be read.
func TestSchedstat(t *testing.T) {
	var s stallWatch
	s.open()
	defer s.close()
	if s.schedstat < 0 {
		t.Skip("this kernel keeps no schedstat")
	}
	var text [100]byte
	n, err := unix.Pread(s.schedstat, text[:], 0)
	var ran, waited, times int64
	if _, scan := fmt.Sscan(string(text[:n]), &ran, &waited, &times); err != nil || scan != nil || ran <= 0 {
		t.Errorf("%q: %v, %v", text[:n], err, scan)
	}
	if d := s.waited(); d < time.Duration(waited) || d > time.Duration(waited)+time.Minute {
		t.Errorf("read as %v, the system says %d ns", d, waited)
	}
}
