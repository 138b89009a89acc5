package testbed

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// addresses lists what an interface of a host has.
func (h *Host) addresses(t T, dev string) []string {
	t.Helper()
	var out []string
	for _, line := range nonEmptyLines(h.MustRun(t, "ip", "-4", "-o", "addr", "show", "dev", dev)) {
		if f := strings.Fields(line); len(f) > 3 {
			out = append(out, f[3])
		}
	}
	return out
}

// hasMedia tells whether the media-termination addresses are on their interfaces.
func (s *StubLab) hasMedia(t T) (in, out bool) {
	t.Helper()
	return slices.Contains(s.A.EdgeHost.addresses(t, "ein"), s.A.MediaIn.String()+"/32"),
		slices.Contains(s.A.EdgeHost.addresses(t, "eout"), s.A.MediaOut.String()+"/32")
}

const (
	portLine    = " rtp-min-port 16384 rtp-maxport 32767\n"
	smallRange  = " rtp-min-port 20001 rtp-maxport 20010\n" // pairs 20002 to 20008
	smallLowest = 20002
	smallPairs  = 4
)

// Ports come by pairs from the configured range and rest when they are
// freed; media addresses are there while the proxy runs.
func TestMediaPorts(t *testing.T) {
	s := StartStubs(t, func(o *Options) {
		o.A.Config = func(text string) string { return replaceOnce(text, portLine, smallRange) }
	})
	if in, out := s.hasMedia(t); !in || !out {
		t.Errorf("media addresses added: inside %v, outside %v", in, out)
	}
	t.Run("range", func(t *testing.T) { portRange(t, s) })
	t.Run("addresses", func(t *testing.T) { mediaAddresses(t, s) })
	t.Run("global", func(t *testing.T) { globalMedia(t, s) })
}

// portRange uses every pair of the range up.
func portRange(t *testing.T, s *StubLab) {
	var calls []*talk
	used := map[netip.AddrPort]bool{}
	for i := range smallPairs {
		k := s.talk(t, i%2 == 0, srtpSuites[0])
		calls = append(calls, k)
		for _, a := range []addrPort{k.in, k.out} {
			if a.Port()%2 != 0 || a.Port() < smallLowest || a.Port() >= smallLowest+2*smallPairs || used[a] {
				t.Errorf("call %d got %v; used: %v", i, a, used)
			}
			used[a] = true
		}
	}
	for _, k := range calls {
		k.bothWays(t, 3)
		k.reports(t, false)
	}
	refused := func(what string) {
		t.Helper()
		before := s.counters(t)
		f := s.Inbound(s.FarDial(t))
		inv := f.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
		f.AckFailure(t, inv, f.AwaitStatus(t, inv, 503))
		a := s.Outbound(s.AgentDial(t))
		inv = a.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
		a.AckFailure(t, inv, a.AwaitStatus(t, inv, 503))
		if got := s.counters(t).since(before); got["no_media_port"] != 2 {
			t.Errorf("%s: counters grew by %v", what, got)
		}
		s.Agent.NoneOf(t, InCall(f.CallID, ReqIs("INVITE")))
		s.Far.NoneOf(t, InCall(a.CallID, ReqIs("INVITE")))
	}
	refused("all pairs in use")
	// A line more is refused too; the call goes on as it was.
	k := calls[0]
	inv := k.leg(true).Request(t, "INVITE", sdp(withVideo(k.descr(true), 21000, &k.farKey)))
	k.leg(true).AckFailure(t, inv, k.leg(true).AwaitStatus(t, inv, 503))
	k.bothWays(t, 3)
	last := k.out
	k.end(t)
	Until(t, wait, "the call's stream is gone", func() bool { return s.Streams(t) == smallPairs-1 })
	// The freed pair rests: what is still on its way to the old call must not be heard in a new one.
	refused("one pair resting")
	k.far.Send(t, last, 2)
	calls[1].bothWays(t, 3)
	for _, k := range calls[1:] {
		k.end(t)
	}
	Until(t, wait, "no stream is left", func() bool { return s.Streams(t) == 0 })
	refused("all pairs resting")
}

// mediaAddresses: what the proxy added it takes away, what was there it leaves.
func mediaAddresses(t *testing.T, s *StubLab) {
	s.Proxy.Stop(t)
	if in, out := s.hasMedia(t); in || out {
		t.Errorf("media addresses left after the stop: inside %v, outside %v", in, out)
	}
	if err := s.A.EdgeHost.ip(fmt.Sprintf("addr add %s/32 dev eout", s.A.MediaOut)); err != nil {
		t.Fatal(err)
	}
	s.Proxy.WriteConfig(t, s.edit(t, portLine, smallRange))
	s.Proxy.Start(t)
	// A pair that another program holds is passed over.
	held, err := s.A.EdgeHost.ListenUDP(netip.AddrPortFrom(s.A.MediaOut, smallLowest+1).String())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for range smallPairs - 1 {
		k := s.talk(t, true, srtpSuites[0])
		if k.out.Port() == smallLowest {
			t.Errorf("a call got port %d, whose neighbour is in use", smallLowest)
		}
		k.bothWays(t, 3)
		k.reports(t, false)
		k.end(t)
	}
	s.Proxy.Stop(t)
	if in, out := s.hasMedia(t); in || !out {
		t.Errorf("after the stop of a proxy that found one address there: inside %v, outside %v", in, out)
	}
}

// globalMedia: one address for both legs (guide: media-termination without an interface).
func globalMedia(t *testing.T, s *StubLab) {
	s.Proxy.WriteConfig(t, s.edit(t, fmt.Sprintf(" address %s interface outside\n address %s interface inside\n", s.A.MediaOut, s.A.MediaIn),
		fmt.Sprintf(" address %s\n", s.A.MediaOut)))
	s.Proxy.Start(t)
	for _, out := range []bool{true, false} {
		k := s.talk(t, out, srtpSuites[0])
		if k.in.Addr() != s.A.MediaOut || k.out.Addr() != s.A.MediaOut || k.in == k.out {
			t.Fatalf("media at %v and %v, want both on %v", k.in, k.out, s.A.MediaOut)
		}
		k.bothWays(t, 5)
		k.reports(t, false)
		v := k.video(t, srtpSuites[2])
		v.bothWays(t, 3)
		k.bothWays(t, 3)
		// The plain leg can be reached from the Internet now; its source lock holds.
		open := stranger(t, s.Outsider, s.OutsiderIP)
		before := k.shown(t).Inside.Rx
		open.Send(t, k.in, 3)
		k.bothWays(t, 3)
		if got := k.shown(t).Inside.Rx; got != before+3 {
			t.Errorf("%d packets were taken on the inside leg, the phone sent 3", got-before)
		}
		k.spoofedPhone(t)
		k.end(t)
	}
}

// spoofedPhone: somebody on the Internet sends in the phone's name to the plain
// leg on an address that the Internet reaches.
func (k *talk) spoofedPhone(t *testing.T) {
	t.Helper()
	s := k.s
	if out, err := s.Outsider.Run("ip", "addr", "replace", s.A.PhoneIP.String()+"/32", "dev", "lo"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wire := s.Capture(t, s.A.EdgeHost, "eout")
	twin := NewMediaStub(t, s.Outsider, k.phone.Addr)
	twin.SSRC = 0x66666666
	twin.Send(t, k.in, 3)
	twin.SendReport(t, next(k.in), false, 7)
	Until(t, wait, "the packets have reached the outside interface", func() bool {
		n := 0
		for _, p := range wire.Packets(t) {
			if p.Src == twin.Addr || p.Src == next(twin.Addr) {
				n++
			}
		}
		return n == 4
	})
	wire.Stop(t)
	k.bothWays(t, 3) // and nothing else
	if got, _ := k.far.Reports(); len(got) > 1 {
		t.Errorf("%d reports came to the far end", len(got))
	}
}
