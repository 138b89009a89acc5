package mediaterm

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/pion/rtcp"
)

// Four combinations of RTCP on one port or two, converted between the legs: reports
// come whole, at the address and from the port that the far end expects.
func TestMuxCombinations(t *testing.T) {
	for _, c := range []struct {
		name           string
		inMux, outMux  bool
		toPhone, toFar port // our port that the RTCP leaves from
	}{
		{name: "two ports to two ports", toPhone: portRTCP, toFar: portRTCP},
		{name: "two ports to one", outMux: true, toPhone: portRTCP, toFar: portRTP},
		{name: "one port to two", inMux: true, toPhone: portRTP, toFar: portRTCP},
		{name: "one port to one", inMux: true, outMux: true, toPhone: portRTP, toFar: portRTP},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
			r.setCrypto(Outside, local, remote)
			in, out := r.phone.remote(), r.far.remote()
			in.Mux, out.Mux = c.inMux, c.outMux
			r.setRemote(Inside, in)
			r.setRemote(Outside, out)
			far := newPeer(t, *remote, *local)
			phoneSock, farSock := r.phone.rtcp, r.far.rtcp
			if c.inMux {
				phoneSock = r.phone.rtp
			}
			if c.outMux {
				farSock = r.far.rtp
			}

			report := senderReport(1)
			send(t, phoneSock, r.our(Inside, c.toPhone), report)
			wire, from := recv(t, farSock)
			if got := far.one('U', wire); !bytes.Equal(got, report) || from != r.our(Outside, c.toFar) {
				t.Errorf("far end got %x from %s", got, from)
			}
			back := senderReport(2)
			send(t, farSock, r.our(Outside, c.toFar), far.one('P', back))
			got, from := recv(t, phoneSock)
			if !bytes.Equal(got, back) || from != r.our(Inside, c.toPhone) {
				t.Errorf("phone got %x from %s", got, from)
			}
			pkts, err := rtcp.Unmarshal(got)
			if err != nil || len(pkts) != 3 {
				t.Errorf("report does not hold its three packets: %v %v", pkts, err)
			}
			// RTP beside it, on the same ports.
			send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 1))
			wire, _ = recv(t, r.far.rtp)
			if got := far.one('u', wire); !bytes.Equal(got, rtpPacket(1, 1)) {
				t.Errorf("RTP beside RTCP came as %x", got)
			}
		})
	}
}

// What a packet is decides its payload type, not the port that it came to.
func TestDemuxOnEveryPort(t *testing.T) {
	r := newRig(t, nil)
	r.setCrypto(Outside, nil, nil)
	send(t, r.phone.rtp, r.our(Inside, portRTCP), rtpPacket(1, 1))
	expect(t, r.far.rtp, rtpPacket(1, 1))
	send(t, r.phone.rtp, r.our(Inside, portRTP), senderReport(1))
	expect(t, r.far.rtcp, senderReport(1))
}

// Without an address for it, RTCP goes to the port after RTP's; behind the last port
// there is none.
func TestDefaultRTCPAddress(t *testing.T) {
	for rtp, want := range map[string]string{"127.0.0.30:6000": "127.0.0.30:6001", "127.0.0.30:65535": "invalid AddrPort"} {
		n, err := Remote{RTP: netip.MustParseAddrPort(rtp)}.normal(ourOutside)
		if err != nil || n.RTCP.String() != want {
			t.Errorf("RTP %s: RTCP %s, %v; want %s", rtp, n.RTCP, err, want)
		}
	}
}

func TestNoRTCP(t *testing.T) {
	r := newRig(t, func(c *Config) { c.NoRTCP = true })
	local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
	r.setCrypto(Outside, local, remote)
	far := newPeer(t, *remote, *local)
	send(t, r.phone.rtp, r.our(Inside, portRTP), senderReport(1))
	send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 1))
	recv(t, r.far.rtp)
	send(t, r.far.rtp, r.our(Outside, portRTP), far.one('P', senderReport(2)))
	send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', rtpPacket(2, 1)))
	expect(t, r.phone.rtp, rtpPacket(2, 1))
	st := r.stream.Stats()
	if st.Inside.Drops.RTCPOff != 1 || st.Outside.Drops.RTCPOff != 1 || st.Inside.TxRTCPPackets+st.Outside.TxRTCPPackets != 0 {
		t.Errorf("RTCP passed: %+v", st)
	}
}

// What is not RTP or RTCP goes nowhere and is counted by what it is; the packet after
// it passes.
func TestGarbageIsCounted(t *testing.T) {
	broken := senderReport(1)
	cut := broken[:len(broken)-4]
	long := rtpPayload(1, 1, 0, maxDatagram)
	csrc := rtpPacket(1, 1)[:20]
	csrc[0] |= 15
	for _, c := range []struct {
		name string
		pkt  []byte
		want Drops
	}{
		{"STUN binding request", append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...), Drops{STUN: 1}},
		{"DTLS hello", append([]byte{22, 254, 253}, make([]byte, 40)...), Drops{DTLS: 1}},
		{"TURN channel data", append([]byte{0x40, 0, 0, 4}, make([]byte, 40)...), Drops{Unknown: 1}},
		{"RTP version 3", append([]byte{0xC0, 0}, make([]byte, 40)...), Drops{Unknown: 1}},
		{"text", []byte("INVITE sip:someone@example.net SIP/2.0"), Drops{Unknown: 1}},
		{"RTP cut in its header", rtpPacket(1, 1)[:11], Drops{TooShort: 1}},
		{"RTP of one byte", []byte{0x80}, Drops{TooShort: 1}},
		{"empty", nil, Drops{TooShort: 1}},
		{"CSRC list beyond the end", csrc, Drops{Malformed: 1}},
		{"compound cut", cut, Drops{Malformed: 1}},
		{"RTCP then something else", append(senderReport(1), rtpPacket(1, 1)[:12]...), Drops{Malformed: 1}},
		{"jumbo", long, Drops{TooLong: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.setCrypto(Outside, nil, nil)
			send(t, r.phone.rtp, r.our(Inside, portRTP), c.pkt)
			send(t, r.phone.rtp, r.our(Inside, portRTP), rtpPacket(1, 7))
			expect(t, r.far.rtp, rtpPacket(1, 7))
			if d := r.drops(Inside); d != c.want {
				t.Errorf("counted %+v, want %+v", d, c.want)
			}
		})
	}
}

// A sealed report that is not whole inside is not passed on either.
func TestSealedGarbageReport(t *testing.T) {
	r := newRig(t, nil)
	local, remote := mustKey(t, SuiteGCM128), mustKey(t, SuiteGCM128)
	r.setCrypto(Outside, local, remote)
	far := newPeer(t, *remote, *local)
	cut := senderReport(2)
	send(t, r.far.rtcp, r.our(Outside, portRTCP), far.one('P', cut[:len(cut)-4]))
	send(t, r.far.rtcp, r.our(Outside, portRTCP), far.one('P', senderReport(3)))
	expect(t, r.phone.rtcp, senderReport(3))
	if d := r.drops(Outside); d.Malformed != 1 {
		t.Errorf("drops %+v", d)
	}
}
