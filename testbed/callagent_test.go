package testbed

import (
	"testing"
)

// Two enterprises whose PBXs have no IME client: a call without a route goes over the PSTN and becomes a record; one with a route
// goes over the Internet and moves to the PSTN when that turns bad, while its phones talk.
func TestCallAgent(t *testing.T) {
	lab := Start(t, Options{PSTN: true, NoCallAgents: true, A: Side{Config: FastFallback}, B: Side{Config: FastFallback}})
	lab.JoinPSTN(t)
	r, problems := FallbackJob(t, lab, t.Logf)
	for _, p := range problems {
		t.Error(p)
	}
	t.Logf("%+v", r.Sound)
}
