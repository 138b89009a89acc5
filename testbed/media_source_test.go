package testbed

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/pion/rtp"
)

// stranger is a media end of somebody who is no part of the call.
func stranger(t T, h *Host, addr netip.Addr) *MediaStub {
	t.Helper()
	m := NewMediaStub(t, h, netip.AddrPortFrom(addr, 30000+2*uint16(mediaPorts.Add(1))))
	m.SSRC = 0x66600000 + uint32(m.Addr.Port())
	return m
}

// refusedPackets demands that what act sends is counted by one of the legs as
// refused, that none of it comes out at the other side, and that the call's
// own packets go where they went before.
func (k *talk) refusedPackets(t *testing.T, what string, n int, act func()) {
	t.Helper()
	refused := func() int {
		m := k.shown(t)
		return m.Outside.Auth + m.Outside.WrongSource + m.Outside.Replays + m.Outside.Dropped + m.Inside.Auth + m.Inside.WrongSource + m.Inside.Replays + m.Inside.Dropped
	}
	before := refused()
	act()
	Until(t, wait, what+": refused and counted", func() bool { return refused() >= before+n })
	k.bothWays(t, 3) // also that nothing else has come
	if got := refused(); got != before+n {
		t.Errorf("%s: %d packets refused instead of %d", what, got-before, n)
	}
}

// Whoever is not the far end of a call is not heard in it, and does not get
// what is said in it (wanted feature 11: "RTP bleed").
func TestMediaSource(t *testing.T) {
	s := StartStubs(t)
	t.Run("attacks from the Internet", func(t *testing.T) { sourceAttacks(t, s) })
	t.Run("the far end moves", func(t *testing.T) { sourceMoves(t, s) })
	t.Run("inside", func(t *testing.T) { sourceInside(t, s) })
	t.Run("in the phone's name from the Internet", func(t *testing.T) { sourceSpoofed(t, s) })
}

func sourceAttacks(t *testing.T, s *StubLab) {
	for _, locked := range []bool{false, true} {
		for _, out := range []bool{true, false} {
			k := s.talk(t, out, srtpSuites[0])
			old := k.far.Packet()
			caught := k.far.Seal(t, old)
			if locked {
				k.far.SendRaw(t, k.out, caught)
				arrives(t, k.phone, []*rtp.Packet{old})
				k.bothWays(t, 5)
			}
			thief := stranger(t, s.Outsider, s.OutsiderIP)
			wrong := stranger(t, s.Outsider, s.OutsiderIP)
			wrong.SetKeys(t, NewStubCrypto(1, srtpSuites[0]), NewStubCrypto(1, srtpSuites[0]))
			forger := &MediaStub{SSRC: k.far.SSRC, Seq: k.far.Seq + 1000}
			forger.SetKeys(t, NewStubCrypto(1, srtpSuites[0]), k.ourKey)
			name := fmt.Sprintf("locked %v, outbound %v: ", locked, out)
			k.refusedPackets(t, name+"plain RTP", 3, func() { thief.Send(t, k.out, 3) })
			k.refusedPackets(t, name+"a wrong key", 3, func() { wrong.Send(t, k.out, 3) })
			k.refusedPackets(t, name+"a wrong key from the far end's address", 3, func() {
				for range 3 {
					k.far.SendRaw(t, k.out, forger.Seal(t, forger.Packet()))
				}
			})
			k.refusedPackets(t, name+"plain RTCP", 1, func() { thief.SendReport(t, next(k.out), false, 1) })
			k.refusedPackets(t, name+"noise", 4, func() {
				for _, b := range []string{"x", "\x00\x01\x00\x00\x21\x12\xa4\x42............", "\x16\xfe\xff", string(make([]byte, 1400))} {
					thief.SendRaw(t, k.out, []byte(b))
				}
			})
			if locked {
				k.refusedPackets(t, name+"a packet that was caught", 2, func() {
					thief.SendRaw(t, k.out, caught)
					thief.SendRaw(t, k.out, caught)
				})
			}
			k.reports(t, false)
			for _, m := range []*MediaStub{thief, wrong} {
				if reports, _ := m.Reports(); len(m.Got())+len(reports)+len(m.Bad()) > 0 {
					t.Errorf("%ssomething came to the stranger %v", name, m.Addr)
				}
			}
			k.end(t)
		}
	}
}

// sourceMoves: only a packet that authenticates and is newer than all before
// moves the source; then the sound follows it. A re-INVITE opens the lock anew.
func sourceMoves(t *testing.T, s *StubLab) {
	k := s.talk(t, false, srtpSuites[0])
	// Behind a NAT: the first packet comes from another port than signalled.
	nat := stranger(t, s.B.EdgeHost, s.B.MediaOut)
	nat.takeKeys(k.far)
	signalled := k.far
	k.far = nat
	k.toPhone(t, 3)
	k.toFar(t, 3)
	if got := signalled.Got(); len(got) > 0 {
		t.Errorf("%d packets went to the signalled port although the far end sends from another", len(got))
	}
	late := k.far.Packet()
	held := k.far.Seal(t, late)
	k.bothWays(t, 3)
	// The NAT gives it another address.
	moved := stranger(t, s.Outsider, s.OutsiderIP)
	moved.takeKeys(k.far)
	// An older packet, though it was never seen, moves nothing.
	k.refusedPackets(t, "an older packet from elsewhere", 1, func() { moved.SendRaw(t, k.out, held) })
	moved.takeKeys(k.far)
	was := k.far
	k.far = moved
	k.toPhone(t, 3)
	k.toFar(t, 3)
	if got := was.Got(); len(got) > 0 {
		t.Errorf("%d packets still went to the old source", len(got))
	}
	// Told where it is now, the proxy believes it again.
	_, k.far = k.newEnds(t)
	k.far.takeKeys(moved)
	k.again(t, true, nil, nil)
	k.toFar(t, 3)
	k.bothWays(t, 3)
	if got := moved.Got(); len(got) > 0 {
		t.Errorf("%d packets went to where the far end was before its re-INVITE", len(got))
	}
	k.end(t)
}

// sourceInside: nothing authenticates plain RTP, so its address must be the
// signalled one, and its port that of the first packet.
func sourceInside(t *testing.T, s *StubLab) {
	k := s.talk(t, true, srtpSuites[0])
	k.toPhone(t, 1)
	other := stranger(t, s.A.UCMHost, s.A.UCMIP)
	send := func(m *MediaStub) func() { return func() { m.Send(t, k.in, 3) } }
	// Before the phone has said anything.
	before := k.shown(t).Inside.WrongSource
	send(other)()
	Until(t, wait, "another inside host is refused", func() bool { return k.shown(t).Inside.WrongSource == before+3 })
	k.toPhone(t, 1)
	k.bothWays(t, 3)
	k.refusedPackets(t, "another inside host", 3, send(other))
	second := stranger(t, s.A.PhoneHost, s.A.PhoneIP)
	k.refusedPackets(t, "another port of the phone", 3, send(second))
	k.refusedPackets(t, "reports of another inside host", 1, func() { other.SendReport(t, next(k.in), false, 1) })
	// After a re-INVITE the phone may send from another port than it receives on.
	seen, back := k.again(t, false, nil, nil)
	k.learnFrom(t, false, seen, back)
	second.SSRC, second.Seq = k.phone.SSRC, k.phone.Seq
	arrives(t, k.far, second.Send(t, k.in, 3))
	k.toPhone(t, 3)
	if got := second.Got(); len(got) > 0 {
		t.Errorf("%d packets went to a port that was not signalled", len(got))
	}
	k.end(t)
}

// sourceSpoofed: the plain leg is not reachable from the Internet, not even for
// packets that claim to come from the phone.
func sourceSpoofed(t *testing.T, s *StubLab) {
	if err := s.Internet.ip(fmt.Sprintf("route add %s via %s", s.A.Inside.Masked(), s.A.OutsideIP)); err != nil {
		t.Fatal(err)
	}
	if err := s.Outsider.ip(fmt.Sprintf("addr add %s/32 dev lo", s.A.PhoneIP)); err != nil {
		t.Fatal(err)
	}
	k := s.talk(t, true, srtpSuites[0])
	wire := s.Capture(t, s.A.EdgeHost, "eout")
	twin := NewMediaStub(t, s.Outsider, k.phone.Addr)
	open := stranger(t, s.Outsider, s.OutsiderIP)
	twin.Send(t, k.in, 3)
	open.Send(t, k.in, 3)
	Until(t, wait, "the attack has reached the outside interface", func() bool {
		n := 0
		for _, p := range wire.Packets(t) {
			if p.Dst == k.in {
				n++
			}
		}
		return n == 6
	})
	k.bothWays(t, 5)
	if m := k.shown(t); m.Inside.Rx != 5 || m.Inside.WrongSource != 0 {
		t.Errorf("packets of the Internet came to the inside leg: %+v", m.Inside)
	}
	wire.Stop(t)
	k.end(t)
}
