package testbed

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtp"
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
	c, inside := s.Capture(t, s.A.EdgeHost, "eout"), s.Capture(t, s.A.EdgeHost, "ein")
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
	inside.Stop(t)
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

// mediaCaptures: captures that begin and end under traffic, and so the changes between AF_XDP and the packet socket, cost no packet; none comes
// twice, and none overtakes another.
func mediaCaptures(t *testing.T, s *StubLab, k *talk) {
	k.byXDP(t, true, "media leaves through AF_XDP")
	random := rand.New(rand.NewPCG(3, 4))
	before := s.engine(t)
	var toPhone, toFar []*rtp.Packet
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	captures := map[string]*Capture{}
	next := 0
	for i := range 6000 {
		<-tick.C
		if i == next {
			next += 1 + random.IntN(80)
			link := []string{"ein", "eout"}[random.IntN(2)]
			if c := captures[link]; c != nil {
				c.Stop(t)
				delete(captures, link)
			} else {
				captures[link] = s.Capture(t, s.A.EdgeHost, link)
			}
		}
		n := 1 + random.IntN(6)
		toFar = append(toFar, k.phone.Send(t, k.in, n)...)
		toPhone = append(toPhone, k.far.Send(t, k.out, n)...)
	}
	for _, c := range captures {
		c.Stop(t)
	}
	for _, end := range []struct {
		name string
		stub *MediaStub
		sent []*rtp.Packet
	}{{"the phone", k.phone, toPhone}, {"the far end", k.far, toFar}} {
		if !eventually(wait, func() bool { return len(end.stub.Got()) >= len(end.sent) }) {
			t.Errorf("%s has %d packets of %d", end.name, len(end.stub.Got()), len(end.sent))
		}
		for i, p := range end.stub.Got() {
			if i >= len(end.sent) || p.SequenceNumber != end.sent[i].SequenceNumber {
				t.Errorf("%s has packet %d in place %d of %d", end.name, p.SequenceNumber-end.sent[0].SequenceNumber, i, len(end.sent))
				break
			}
		}
	}
	after := s.engine(t)
	xdp, all := after.XDP-before.XDP, after.Direct-before.Direct
	t.Logf("%d packets, %d of them through AF_XDP", all, xdp)
	if xdp < 1000 || all-xdp < 1000 {
		t.Error("the captures did not change how packets leave")
	}
	k.phone.Forget()
	k.far.Forget()
}
