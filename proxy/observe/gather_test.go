package observe

import (
	"bytes"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes notes each write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(p))
	return len(p), nil
}

func TestGatherer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(writes)
		g := NewGatherer(w, nil)
		line := func(s string) {
			if n, err := g.Write([]byte(s)); n != len(s) || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
		}
		want := func(all ...string) {
			t.Helper()
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.all) != len(all) {
				t.Fatalf("%d writes %q, want %d", len(w.all), w.all, len(all))
			}
			for i := range all {
				if w.all[i] != all[i] {
					t.Errorf("write %d is %q, want %q", i, w.all[i], all[i])
				}
			}
		}
		first := []string{"1\n", "2\n", "3\n", "4\n"}
		for _, s := range first {
			line(s)
		}
		want(first...) // a few wait for nothing
		line("5\n")
		line("6\n")
		want(first...)
		time.Sleep(gatherTime)
		all := append(first, "5\n6\n")
		want(all...)
		line("7\n") // it is a busy time
		want(all...)
		time.Sleep(gatherTime)
		all = append(all, "7\n")
		want(all...)
		line("8\n") // and is no more
		all = append(all, "8\n")
		want(all...)
		for range gatherFrom {
			line("9\n")
		}
		all = append(all, "9\n", "9\n", "9\n")
		want(all...)
		g.Flush()
		all = append(all, "9\n")
		want(all...)
		long := string(bytes.Repeat([]byte{'x'}, maxGather)) + "\n"
		line(long) // what waits is bounded
		all = append(all, long)
		want(all...)
		time.Sleep(3 * gatherTime)
	})
}
