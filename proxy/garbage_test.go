package proxy

import "testing"

func TestGarbagePercent(t *testing.T) {
	const mb = 1 << 20
	for _, x := range []struct {
		what string
		live uint64
		rate float64
		want int
	}{
		{"an idle appliance", 10 * mb, 0, 200},
		{"a thousand calls, few new ones", 32 * mb, 5 * mb, 100},
		{"a thousand calls, a hundred new ones a second", 40 * mb, 20 * mb, 200},
		{"few calls that stand, a thousand new ones a second", 30 * mb, 45 * mb, 400},
		{"ten thousand calls, hardly a new one", 200 * mb, mb, 25},
		{"ten thousand calls, a thousand new ones a second", 200 * mb, 50 * mb, 100},
		{"nothing is known yet", 0, 0, 200},
	} {
		if got := garbagePercent(x.live, x.rate); got != x.want {
			t.Errorf("%s: %d %%, want %d %%", x.what, got, x.want)
		}
	}
}

func TestLessGarbageWaitsForACollection(t *testing.T) {
	const mb = 1 << 20
	for _, x := range []struct {
		live, heap uint64
		percent    int
		want       bool
	}{
		{100 * mb, 105 * mb, 25, true},
		{100 * mb, 120 * mb, 25, false},
		{100 * mb, 180 * mb, 25, false},
		{100 * mb, 130 * mb, 100, true},
		{0, 10 * mb, 100, false},
	} {
		if got := garbageFits(x.live, x.heap, x.percent); got != x.want {
			t.Errorf("%d of %d MB live, %d %%: %v", x.live/mb, x.heap/mb, x.percent, got)
		}
	}
}
