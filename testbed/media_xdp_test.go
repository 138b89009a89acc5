package testbed

import (
	"testing"
)

// byXDP waits until packets of a call leave through AF_XDP, or until they do not.
func (k *talk) byXDP(t *testing.T, want bool, why string) {
	t.Helper()
	Until(t, wait, why, func() bool {
		before := k.s.engine(t)
		k.heard(t)
		after := k.s.engine(t)
		sent := after.XDP - before.XDP
		return after.Direct >= before.Direct+2 && (sent >= 2) == want && (want || sent == 0)
	})
	k.phone.Forget()
	k.far.Forget()
}

// mediaXDP: what goes by AF_XDP nobody on the machine sees, and no queueing discipline holds up; so it does not while somebody
// looks, nor where a discipline was set.
func mediaXDP(t *testing.T, s *StubLab, k *talk) {
	k.byXDP(t, true, "media leaves through AF_XDP")
	c := s.Capture(t, s.A.EdgeHost, "eout")
	k.byXDP(t, false, "media is seen while somebody captures")
	before := len(c.Packets(t))
	k.bothWays(t, 20)
	Until(t, wait, "the capture has both directions", func() bool { return len(c.Packets(t)) >= before+40 })
	from, to := 0, 0
	for _, p := range c.Packets(t)[before:] {
		switch {
		case p.Src.Addr() == s.A.MediaOut:
			from++
		case p.Dst.Addr() == s.A.MediaOut:
			to++
		}
	}
	if from != 20 || to != 20 {
		t.Errorf("the capture has %d packets to the Internet and %d from it, want 20 and 20", from, to)
	}
	c.Stop(t)
	k.byXDP(t, true, "media leaves through AF_XDP when nobody captures any more")
	for _, link := range []string{"eout", "ein"} {
		s.A.EdgeHost.MustRun(t, "tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", "100mbit", "burst", "64kb", "latency", "50ms")
	}
	k.byXDP(t, false, "media keeps to the queueing disciplines")
	for _, link := range []string{"eout", "ein"} {
		s.A.EdgeHost.MustRun(t, "tc", "qdisc", "del", "dev", link, "root")
	}
	k.byXDP(t, true, "media leaves through AF_XDP when the disciplines are gone")
	k.bothWays(t, 20)
}
