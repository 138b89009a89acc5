package testbed

import (
	"time"
)

// T is the part of *testing.T that the lab needs. The demo, which is no test,
// brings its own. Fatalf must not return.
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
	Failed() bool
}

// pollEvery is how often conditions are looked at: short against every signal
// that a test waits for, long against what a look costs.
const pollEvery = 20 * time.Millisecond

// Until returns when cond is true and ends the test when it is not within the
// limit. What names the condition in the error.
func Until(t T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	if !eventually(limit, cond) {
		t.Fatalf("not within %v: %s", limit, what)
	}
}

// eventually reports whether cond became true within the limit.
func eventually(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	for {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pollEvery)
	}
}
