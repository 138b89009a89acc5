package mediaterm

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

func socketAt(t testing.TB, addr netip.Addr) *net.UDPConn {
	t.Helper()
	return newEndpoint(t, addr).rtp
}

// Inside, without authentication: the signalled address, any port until the first
// packet, then that source alone; media goes to the signalled port.
func TestPlainSourceLock(t *testing.T) {
	r := newRig(t, nil)
	r.setCrypto(Outside, nil, nil)
	thief, asymmetric, second := socketAt(t, thiefAddr), socketAt(t, phoneAddr), socketAt(t, phoneAddr)
	our := r.our(Inside, portRTP)

	send(t, thief, our, rtpPacket(66, 1)) // before the lock
	send(t, asymmetric, our, rtpPacket(1, 1))
	expect(t, r.far.rtp, rtpPacket(1, 1))
	if e := r.event(EventSourceLocked); e.Source != addrOf(asymmetric) || e.Side != Inside || e.Stream != r.stream {
		t.Errorf("event %+v", e)
	}
	send(t, thief, our, rtpPacket(66, 2)) // after it
	send(t, second, our, rtpPacket(66, 3))
	send(t, asymmetric, our, rtpPacket(1, 2))
	expect(t, r.far.rtp, rtpPacket(1, 2))
	if d := r.drops(Inside); d.WrongSource != 3 {
		t.Errorf("wrong source: %d, want 3", d.WrongSource)
	}

	send(t, r.far.rtp, r.our(Outside, portRTP), rtpPacket(2, 1))
	expect(t, r.phone.rtp, rtpPacket(2, 1)) // the signalled port, not the one seen

	r.setRemote(Inside, r.phone.remote()) // re-INVITE: open again
	send(t, thief, our, rtpPacket(66, 4))
	send(t, second, our, rtpPacket(1, 3))
	expect(t, r.far.rtp, rtpPacket(1, 3))
	send(t, asymmetric, our, rtpPacket(1, 4))
	send(t, second, our, rtpPacket(1, 5))
	expect(t, r.far.rtp, rtpPacket(1, 5))
	if st := r.stream.Stats(); st.Inside.Source != addrOf(second).String() || st.Inside.Drops.WrongSource != 5 {
		t.Errorf("source %s, wrong source %d", st.Inside.Source, st.Inside.Drops.WrongSource)
	}
}

// Before the far end was signalled, nobody is heard on a plain leg.
func TestPlainLegUnsignalled(t *testing.T) {
	l := newLoop(t, mustKey(t, SuiteCM80))
	in := &l.tx.legs[Inside]
	in.setRemote(Remote{})
	in.known = Remote{}
	if l.seal(rtpPacket(1, 1)) != nil || in.drops().WrongSource != 1 {
		t.Errorf("a stranger was heard: %+v", in.drops())
	}
}

// Outside, with SRTP: the far end is behind a NAT that signalling knows nothing of.
func TestSecureSourceLock(t *testing.T) {
	r := newRig(t, nil)
	local, remote := mustKey(t, SuiteGCM128), mustKey(t, SuiteGCM128)
	r.setCrypto(Outside, local, remote)
	far := newPeer(t, *remote, *local)
	our := r.our(Outside, portRTP)
	nat, rebound, thief := socketAt(t, natAddr), socketAt(t, natAddr), socketAt(t, thiefAddr)
	toFar := func(seq uint16) {
		t.Helper()
		send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, seq))
	}
	heard := func(c *net.UDPConn, seq uint16) {
		t.Helper()
		wire, from := recv(t, c)
		if got := far.one('u', wire); !bytes.Equal(got, rtpPacket(1, seq)) || from != our {
			t.Errorf("number %d came as %x from %s", seq, got, from)
		}
	}

	toFar(1)
	heard(r.far.rtp, 1) // nothing learned: the signalled address

	forged := rtpPacket(2, 1)
	send(t, thief, our, append(forged, make([]byte, 16)...)) // not authentic: teaches nothing
	send(t, nat, our, far.one('p', rtpPacket(2, 2)))
	expect(t, r.phone.rtp, rtpPacket(2, 2))
	r.event(EventSourceLocked)
	toFar(2)
	heard(nat, 2)
	if d := r.drops(Outside); d.AuthFailures != 1 || d.WrongSource != 0 {
		t.Errorf("before the lock: %+v", d)
	}

	captured := far.one('p', rtpPacket(2, 3))
	send(t, nat, our, captured)
	expect(t, r.phone.rtp, rtpPacket(2, 3))
	send(t, thief, our, captured)                            // a replay
	send(t, thief, our, append(forged, make([]byte, 16)...)) // a forgery
	late := far.one('p', rtpPacket(2, 4))
	send(t, nat, our, far.one('p', rtpPacket(2, 5)))
	expect(t, r.phone.rtp, rtpPacket(2, 5))
	send(t, thief, our, late) // authentic, held back on its way: not newer
	send(t, nat, our, far.one('p', rtpPacket(2, 6)))
	expect(t, r.phone.rtp, rtpPacket(2, 6))
	if d := r.drops(Outside); d.WrongSource != 2 || d.Replays != 1 {
		t.Errorf("after the lock: %+v", d)
	}
	toFar(3)
	heard(nat, 3)

	send(t, rebound, our, far.one('p', rtpPacket(2, 7))) // the NAT forgot its binding
	expect(t, r.phone.rtp, rtpPacket(2, 7))
	if e := r.event(EventSourceChanged); e.Source != addrOf(rebound) {
		t.Errorf("moved to %s", e.Source)
	}
	toFar(4)
	heard(rebound, 4)

	r.setRemote(Outside, r.far.remote()) // re-INVITE, same address: media must not stop at the NAT
	toFar(5)
	heard(rebound, 5)
	moved := newEndpoint(t, peerAddr)
	r.setRemote(Outside, moved.remote()) // re-INVITE, other address
	toFar(6)
	heard(moved.rtp, 6)
}

// Somebody may name an address that is not his. What is withheld goes there once it is heard, with its key, and not before.
func TestWithheldUntilHeard(t *testing.T) {
	for _, first := range []string{"RTP", "RTCP"} {
		r := newRig(t, nil)
		local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
		r.setCrypto(Outside, local, remote)
		far := newPeer(t, *remote, *local)
		say := func(seq uint16) { send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, seq)) }
		said := func(seq uint16) {
			t.Helper()
			wire, _ := recv(t, r.far.rtp)
			if got := far.one('u', wire); !bytes.Equal(got, rtpPacket(1, seq)) {
				t.Errorf("%s: the far end got %x, want packet %d", first, got, seq)
			}
		}
		say(1)
		said(1)
		r.stream.Withhold(Outside, true)
		say(2)
		r.waitFor(func(st Stats) bool { return st.Leg(Outside).Drops.TxHeld == 1 })
		if from, sent, open := r.stream.Heard(Outside); from.IsValid() || sent != 1 || !open {
			t.Errorf("%s: heard from %v, %d sent, open %v", first, from, sent, open)
		}
		send(t, r.far.rtp, r.our(Outside, portRTP), rtpPacket(2, 1)) // whoever, without the key
		r.waitFor(func(st Stats) bool { return st.Leg(Outside).Drops.AuthFailures == 1 })
		say(3)
		r.waitFor(func(st Stats) bool { return st.Leg(Outside).Drops.TxHeld == 2 })
		if first == "RTP" {
			send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', rtpPacket(2, 1)))
		} else {
			send(t, r.far.rtcp, r.our(Outside, portRTCP), far.one('P', senderReport(2)))
		}
		r.waitFor(func(st Stats) bool { return st.Leg(Outside).RxRTPPackets+st.Leg(Outside).RxRTCPPackets == 1 })
		if from, _, _ := r.stream.Heard(Outside); !from.IsValid() {
			t.Errorf("%s: not heard", first)
		}
		r.stream.Withhold(Outside, true) // says nothing about an end that is heard
		say(4)
		said(4)
		r.setRemote(Outside, r.far.remote()) // nor does the same address again
		r.stream.Withhold(Outside, true)
		say(5)
		said(5)
		moved := newEndpoint(t, peerAddr)
		r.setRemote(Outside, moved.remote())
		r.stream.Withhold(Outside, true)
		say(6)
		r.waitFor(func(st Stats) bool { return st.Leg(Outside).Drops.TxHeld == 3 })
		r.stream.Withhold(Outside, false)
		say(7)
		if wire, _ := recv(t, moved.rtp); !bytes.Equal(far.one('u', wire), rtpPacket(1, 7)) {
			t.Errorf("%s: the far end's new address got %x", first, wire)
		}
		r.stream.Close()
		if _, _, open := r.stream.Heard(Outside); open {
			t.Errorf("%s: a stream that is closed is open", first)
		}
	}
}

// A plain outside leg sends to the port that the far end really uses.
func TestPlainOutsideFollowsPort(t *testing.T) {
	r := newRig(t, nil)
	r.setCrypto(Outside, nil, nil)
	other := socketAt(t, peerAddr)
	send(t, other, r.our(Outside, portRTP), rtpPacket(2, 1))
	expect(t, r.phone.rtp, rtpPacket(2, 1))
	send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 1))
	expect(t, other, rtpPacket(1, 1))
}

// Hold: nothing is sent there, everything is kept; what comes is still relayed.
func TestHoldAndResume(t *testing.T) {
	zero := netip.AddrPortFrom(netip.IPv4Unspecified(), 4000)
	for name, hold := range map[string]Remote{
		"none": {}, "c=0.0.0.0": {RTP: zero}, "port 0": {RTP: netip.AddrPortFrom(peerAddr, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
			r.setCrypto(Outside, local, remote)
			far := newPeer(t, *remote, *local)
			for _, seq := range []uint16{65535, 0} { // a rollover before the hold
				send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, seq))
				wire, _ := recv(t, r.far.rtp)
				far.one('u', wire)
				send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', rtpPacket(2, seq)))
				expect(t, r.phone.rtp, rtpPacket(2, seq))
			}
			r.setRemote(Outside, hold)
			send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 1))
			send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', rtpPacket(2, 1))) // music on hold
			expect(t, r.phone.rtp, rtpPacket(2, 1))
			// The two directions have readers of their own: the phone's packet may not have been looked at yet.
			r.waitFor(func(st Stats) bool { return st.Leg(Outside).Drops.TxHeld == 1 })

			r.setRemote(Outside, r.far.remote())
			send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 2))
			wire, _ := recv(t, r.far.rtp)
			if got := far.one('u', wire); !bytes.Equal(got, rtpPacket(1, 2)) {
				t.Errorf("after the hold came %x", got)
			}
			if d := r.drops(Outside); d.TxHeld != 1 {
				t.Errorf("held: %d", d.TxHeld)
			}
		})
	}
}

// On hold, a plain leg still hears the address it knew, and no other.
func TestHoldKeepsPlainSource(t *testing.T) {
	r := newRig(t, nil)
	r.setCrypto(Outside, nil, nil)
	r.setRemote(Inside, Remote{})
	send(t, socketAt(t, thiefAddr), r.our(Inside, portRTP), rtpPacket(66, 1))
	send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 1))
	expect(t, r.far.rtp, rtpPacket(1, 1))
}

func TestRemoteRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, a := range []string{"239.1.2.3:4000", "255.255.255.255:4000", "[2001:db8::1]:4000"} {
		if err := r.stream.SetRemote(Outside, Remote{RTP: netip.MustParseAddrPort(a)}); err == nil {
			t.Errorf("%s was taken", a)
		}
	}
	if st := r.stream.Stats(); st.Outside.Remote != r.far.remote().RTP.String() {
		t.Errorf("a refused remote changed the leg: %s", st.Outside.Remote)
	}
}

// RTCP has a NAT binding of its own when it has a port of its own, and shares RTP's when
// muxed, even while the far end sends no RTP (it only listens).
func TestReportsFollowTheirSource(t *testing.T) {
	for name, mux := range map[string]bool{"two ports": false, "one port": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
			r.setCrypto(Outside, local, remote)
			far, nat := newPeer(t, *remote, *local), socketAt(t, natAddr)
			rem := r.far.remote()
			rem.Mux = mux
			r.setRemote(Outside, rem)
			our := r.our(Outside, portRTCP)
			if mux {
				our = r.our(Outside, portRTP)
			}
			send(t, nat, our, far.one('P', senderReport(2)))
			expect(t, r.phone.rtcp, senderReport(2))

			send(t, r.phone.rtcp, r.our(Inside, portRTCP), senderReport(1))
			wire, _ := recv(t, nat)
			if got := far.one('U', wire); !bytes.Equal(got, senderReport(1)) {
				t.Errorf("report came as %x", got)
			}
			rtpSock := r.far.rtp // RTP goes where it was signalled, unless the port is shared
			if mux {
				rtpSock = nat
			}
			send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 1))
			wire, _ = recv(t, rtpSock)
			if got := far.one('u', wire); !bytes.Equal(got, rtpPacket(1, 1)) {
				t.Errorf("RTP came as %x", got)
			}
		})
	}
}

// A secure phone inside is sent to where it was signalled, although it sends from
// another port; seen at another address, it is behind a NAT and media follows.
func TestSecureInsideTarget(t *testing.T) {
	r := newRig(t, nil)
	local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
	r.setCrypto(Inside, local, remote)
	r.setCrypto(Outside, nil, nil)
	phone, asymmetric, nat := newPeer(t, *remote, *local), socketAt(t, phoneAddr), socketAt(t, natAddr)
	for seq, c := range []struct{ from, to *net.UDPConn }{{asymmetric, r.phone.rtp}, {nat, nat}} {
		pkt := rtpPacket(1, uint16(seq))
		send(t, c.from, r.our(Inside, portRTP), phone.one('p', pkt))
		expect(t, r.far.rtp, pkt)
		send(t, r.far.rtp, r.our(Outside, portRTP), pkt)
		wire, _ := recv(t, c.to)
		if got := phone.one('u', wire); !bytes.Equal(got, pkt) {
			t.Errorf("phone got %x", got)
		}
	}
}
