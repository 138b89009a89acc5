package proxy

import (
	"net/netip"
	"slices"
	"testing"

	"imeproxy/mapping"
)

// What a former range had stays open but for what is open already, so that no two rules cover one port.
func TestBesides(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	r := func(at netip.Addr, lo, hi uint16) mapping.MediaRange {
		return mapping.MediaRange{Addr: at, Lo: lo, Hi: hi}
	}
	for name, x := range map[string]struct{ others, want []mapping.MediaRange }{
		"nothing else":    {nil, []mapping.MediaRange{r(a, 100, 200)}},
		"another address": {[]mapping.MediaRange{r(b, 100, 200)}, []mapping.MediaRange{r(a, 100, 200)}},
		"beside":          {[]mapping.MediaRange{r(a, 50, 99), r(a, 201, 65535)}, []mapping.MediaRange{r(a, 100, 200)}},
		"the same":        {[]mapping.MediaRange{r(a, 100, 200)}, nil},
		"around":          {[]mapping.MediaRange{r(a, 1, 65535)}, nil},
		"within":          {[]mapping.MediaRange{r(a, 120, 130)}, []mapping.MediaRange{r(a, 100, 119), r(a, 131, 200)}},
		"two within":      {[]mapping.MediaRange{r(a, 120, 130), r(a, 140, 150)}, []mapping.MediaRange{r(a, 100, 119), r(a, 131, 139), r(a, 151, 200)}},
		"over the end":    {[]mapping.MediaRange{r(a, 200, 300)}, []mapping.MediaRange{r(a, 100, 199)}},
		"over the start":  {[]mapping.MediaRange{r(a, 50, 100)}, []mapping.MediaRange{r(a, 101, 200)}},
	} {
		if got := besides(r(a, 100, 200), x.others); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}
