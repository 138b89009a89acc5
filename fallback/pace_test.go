package fallback

import (
	"math/rand/v2"
	"testing"
	"time"
)

// However events come, no second holds more than the rate, and none is refused that would fit.
func TestPace(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		rate := 1 + rnd.IntN(30)
		var p Pace
		var taken []time.Duration
		for at := time.Duration(0); at < 20*time.Second; at += time.Duration(rnd.IntN(60)) * time.Millisecond {
			within := 0
			for _, x := range taken {
				if at-x < time.Second {
					within++
				}
			}
			if got := p.Take(at, rate); got != (within < rate) {
				t.Fatalf("seed %d, rate %d at %v: %v after %d within a second", seed, rate, at, got, within)
			} else if got {
				taken = append(taken, at)
			}
		}
	}
	var p Pace
	for range 2 * MaxRate {
		p.Take(0, 1<<30)
	}
	if len(p.times) != MaxRate {
		t.Errorf("%d kept", len(p.times))
	}
}
