package proxy

import (
	"testing"
	"time"
)

// Every interval of the configuration samples each lane once in it, whatever the ticks are.
func TestSteps(t *testing.T) {
	for ms := 10; ms <= 600; ms++ {
		interval := time.Duration(ms) * time.Millisecond
		tick, n := steps(interval)
		if n < 1 || n > lanes || lanes%n != 0 || tick < shortestTick || tick*lanes != interval*time.Duration(n) {
			t.Fatalf("%v: %d lanes every %v", interval, n, tick)
		}
	}
}
