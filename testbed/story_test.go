package testbed

import "testing"

// From nothing to a route: see StoryJob, which the demo tells too.
func TestStory(t *testing.T) {
	lab := Start(t, Options{
		PSTN: true, NoCallAgents: true,
		A: Side{Config: FastFallback, AgentConfig: WithPeerServer("192.168.10.1")}, B: Side{Config: FastFallback, AgentConfig: WithPeerServer("192.168.20.1")},
	})
	r, _, problems := StoryJob(t, lab, t.Logf)
	for _, p := range problems {
		t.Error(p)
	}
	t.Logf("%+v", r)
}
