package testbed

import (
	"testing"
)

// The appliance's main job, between two proxies and with an edge of other
// make on either side: two ends of our own making would hide shared errors.
func TestMainJob(t *testing.T) {
	for name, o := range map[string]Options{
		"two proxies":            {},
		"foreign edge called":    {B: Side{Edge: EdgeForeign}},
		"foreign edge is caller": {A: Side{Edge: EdgeForeign}},
	} {
		t.Run(name, func(t *testing.T) {
			lab := Start(t, o)
			r := MainJob(t, lab, MainJobOptions{Say: t.Logf})
			for _, p := range r.Problems {
				t.Error(p)
			}
			if len(r.Calls) != 4 {
				t.Errorf("%d directions in the report, want 4", len(r.Calls))
			}
		})
	}
}
