package testbed

import (
	"net/netip"
	"testing"
	"time"
)

// Somebody with a ticket names an address that is not his in many calls: after a minute a few alone go there, until somebody is heard from it.
// A call with an end that answers has its sound throughout.
func TestMediaToSilentEnds(t *testing.T) {
	const calls, allowed = 40, 32
	s := StartStubs(t)
	good := s.talk(t, false, srtpSuites[0])
	good.bothWays(t, 3)
	withheld := func() int {
		var m struct {
			Withheld int `json:"withheld_from_silent_ends"`
		}
		s.Proxy.Show(t, "media-termination", &m)
		return m.Withheld
	}
	var list []*talk
	for range calls {
		k := s.newTalk(t, false, NewStubCrypto(1, srtpSuites[0]))
		k.far = NewMediaStub(t, s.Outsider, netip.AddrPortFrom(s.OutsiderIP, k.far.Addr.Port()))
		inv, seen := k.invite(t, sdp(k.descr(true)))
		k.callee.Respond(t, seen, 200, "OK", sdp(k.descr(false)))
		k.answered(t, seen, k.caller.AwaitStatus(t, inv, 200))
		k.caller.Ack(t)
		k.callee.Expect(t, "ACK")
		k.toFar(t, 3) // early media, an announcement
		list = append(list, k)
	}
	if n := withheld(); n != 0 {
		t.Errorf("%d streams are withheld at once", n)
	}
	Until(t, 90*time.Second, "some are withheld", func() bool { return withheld() == calls-allowed })
	for _, k := range list[:allowed] {
		k.toFar(t, 3)
	}
	late := list[calls-1]
	for _, k := range list[allowed:] {
		k.far.Forget()
		k.phone.Send(t, k.in, 3)
	}
	good.bothWays(t, 3)
	for _, k := range list[allowed:] {
		if n := len(k.far.Got()); n != 0 {
			t.Errorf("an address that never answered gets %d packets of a call that was to wait", n)
		}
	}
	late.toPhone(t, 1)
	late.toFar(t, 3)
	Until(t, wait, "an end that answers has all its calls", func() bool { return withheld() == 0 })
	for _, k := range list {
		k.far.Forget()
		k.toFar(t, 3)
	}
	for _, k := range list {
		k.end(t)
	}
	good.end(t)
}
