package mediaterm

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// shapes are RTP packets of every form that a header can take.
func shapes(ssrc uint32) [][]byte {
	csrc := rtpPayload(ssrc, 101, 0, 168)
	csrc[0] |= 2
	extended := rtpPayload(ssrc, 102, 96, 200)
	extended[0] |= 0x10
	copy(extended[12:], []byte{0xBE, 0xDE, 0, 1, 0x10, 0xAA, 0, 0})
	padded := rtpPayload(ssrc, 103, 0, 164)
	padded[0] |= 0x20
	padded[len(padded)-1] = 4
	event := rtpPayload(ssrc, 104, 101, 4) // telephone-event, RFC 4733: digit 5, end
	copy(event[12:], []byte{5, 0x8a, 0x03, 0x20})
	event[1] |= 0x80
	return [][]byte{
		rtpPacket(ssrc, 100), csrc, extended, padded, event,
		rtpPayload(ssrc, 105, 99, 1400), // video
		rtpPayload(ssrc, 106, 13, 0),    // nothing but a header
	}
}

// Every suite, with and without MKI, both ways through the sockets, RTP and RTCP: what
// one end says the other hears, whole, though libsrtp made or read the secure side.
func TestSuitesAgainstLibsrtp(t *testing.T) {
	for _, suite := range Suites() {
		for _, mki := range [][]byte{nil, {0, 0, 0, 7}} {
			name := string(suite)
			if mki != nil {
				name += "+MKI"
			}
			t.Run(name, func(t *testing.T) {
				r := newRig(t, nil)
				local, remote := mustKey(t, suite), mustKey(t, suite)
				local.MKI, remote.MKI = mki, mki
				r.setCrypto(Outside, local, remote)
				far := newPeer(t, *remote, *local)

				for _, pkt := range shapes(0x1001) {
					send(t, r.phone.rtp, r.our(Inside, portRTP), pkt)
					wire, _ := recv(t, r.far.rtp)
					if len(wire) != len(pkt)+local.overhead(kindRTP) {
						t.Errorf("sealed packet of %d bytes has %d", len(pkt), len(wire))
					}
					if len(pkt) > 40 && bytes.Contains(wire, pkt[len(pkt)-20:]) {
						t.Error("payload went out in the clear")
					}
					if got := far.one('u', wire); !bytes.Equal(got, pkt) {
						t.Errorf("far end opened %x, phone sent %x", got, pkt)
					}
				}
				for _, pkt := range shapes(0x2002) {
					send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', pkt))
					expect(t, r.phone.rtp, pkt)
				}
				for range 3 {
					report := senderReport(0x1001)
					send(t, r.phone.rtcp, r.our(Inside, portRTCP), report)
					wire, _ := recv(t, r.far.rtcp)
					if len(wire) != len(report)+local.overhead(kindRTCP) {
						t.Errorf("sealed report of %d bytes has %d", len(report), len(wire))
					}
					if got := openReport(t, far, *local, *remote, wire); !bytes.Equal(got, report) {
						t.Errorf("far end opened %x, phone sent %x", got, report)
					}
					back := senderReport(0x2002)
					send(t, r.far.rtcp, r.our(Outside, portRTCP), far.one('P', back))
					expect(t, r.phone.rtcp, back)
				}
				st := r.stream.Stats()
				if st.Outside.Suite != string(suite) || st.Outside.RxRTPPackets != 7 || st.Inside.RxRTCPPackets != 3 || st.Outside.Drops != (Drops{}) {
					t.Errorf("stats: %+v", st.Outside)
				}
			})
		}
	}
}

// openReport opens SRTCP by libsrtp. libsrtp 2.5 looks for the MKI of an SRTCP packet at
// the length of the SRTP tag, which differs in SuiteCM32 alone; there the MKI (outside
// the authenticated part, RFC 3711 section 3.4) is checked and cut out before.
func openReport(t *testing.T, far *peer, local, remote Key, wire []byte) []byte {
	t.Helper()
	if local.Suite != SuiteCM32 || local.MKI == nil {
		return far.one('U', wire)
	}
	at := len(wire) - 10 - len(local.MKI)
	if !bytes.Equal(wire[at:at+len(local.MKI)], local.MKI) {
		t.Errorf("MKI is not before the tag of 80 bits: %x", wire)
	}
	cut := append(bytes.Clone(wire[:at]), wire[len(wire)-10:]...)
	local.MKI, remote.MKI = nil, nil
	return newPeer(t, remote, local).one('U', cut)
}

// A secure trunk has SRTP inside as well, with its own keys and suite.
func TestSecureBothLegs(t *testing.T) {
	r := newRig(t, nil)
	inLocal, inRemote := mustKey(t, SuiteCM32), mustKey(t, SuiteCM32)
	outLocal, outRemote := mustKey(t, SuiteGCM256), mustKey(t, SuiteGCM256)
	r.setCrypto(Inside, inLocal, inRemote)
	r.setCrypto(Outside, outLocal, outRemote)
	phone, far := newPeer(t, *inRemote, *inLocal), newPeer(t, *outRemote, *outLocal)

	pkt := rtpPacket(1, 500)
	send(t, r.phone.rtp, r.our(Inside, portRTP), phone.one('p', pkt))
	wire, _ := recv(t, r.far.rtp)
	if got := far.one('u', wire); !bytes.Equal(got, pkt) {
		t.Errorf("far end opened %x", got)
	}
	pkt = rtpPacket(2, 900)
	send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', pkt))
	wire, _ = recv(t, r.phone.rtp)
	if got := phone.one('u', wire); !bytes.Equal(got, pkt) {
		t.Errorf("phone opened %x", got)
	}
}

// Both legs plain: not for us to decide, so it works.
func TestPlainBothLegs(t *testing.T) {
	r := newRig(t, nil)
	r.setCrypto(Outside, nil, nil)
	pkt := rtpPacket(1, 1)
	send(t, r.phone.rtp, r.our(Inside, portRTP), pkt)
	expect(t, r.far.rtp, pkt)
	if st := r.stream.Stats(); st.Outside.Secure || st.Outside.Suite != "" {
		t.Errorf("plain leg is shown as secure: %+v", st.Outside)
	}
}

// Video with retransmission: two SSRCs interleaved under one key, each with a wrap of
// its own.
func TestTwoSourcesUnderOneKey(t *testing.T) {
	r := newRig(t, nil)
	local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
	r.setCrypto(Outside, local, remote)
	far := newPeer(t, *remote, *local)
	for i := range uint16(60) {
		for ssrc, first := range map[uint32]uint16{0xA1: 65510, 0xB2: 40000} {
			pkt := rtpPacket(ssrc, first+i)
			send(t, r.phone.rtp, r.our(Inside, portRTP), pkt)
			wire, _ := recv(t, r.far.rtp)
			if got := far.one('u', wire); !bytes.Equal(got, pkt) {
				t.Fatalf("SSRC %x number %d: opened %x", ssrc, first+i, got)
			}
			pkt = rtpPacket(ssrc+1, first+i)
			send(t, r.far.rtp, r.our(Outside, portRTP), far.one('p', pkt))
			expect(t, r.phone.rtp, pkt)
		}
	}
	if st := r.stream.Stats(); st.Inside.Lost != 0 || st.Outside.Lost != 0 {
		t.Errorf("loss counted where none was: %d, %d", st.Inside.Lost, st.Outside.Lost)
	}
}

// More than a whole cycle of sequence numbers each way, starting shortly before a wrap,
// with a re-INVITE (same keys, remote set again) every 8,191 packets and at the wraps, loss of
// every 50th packet, and at each wrap a gap and packets that change places.
func TestRolloverOverReinvites(t *testing.T) {
	const total = 65536 + 4000
	r := newRig(t, nil)
	local, remote := mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)
	r.setCrypto(Outside, local, remote)
	far := newPeer(t, *remote, *local)
	numbers := wrapOrder(63000, total)
	const window = 64
	for start := 0; start < len(numbers); start += window {
		part := numbers[start:min(start+window, len(numbers))]
		if start/window%128 == 127 || part[0] < 64 {
			lc, rc := local.clone(), remote.clone() // parsed anew from the SDP
			r.setCrypto(Outside, &lc, &rc)
			r.setRemote(Outside, r.far.remote())
			r.setRemote(Inside, r.phone.remote())
		}
		out, in := make([][]byte, len(part)), make([][]byte, len(part))
		for i, seq := range part {
			out[i], in[i] = rtpPayload(7, seq, 8, 20), rtpPayload(9, seq, 8, 20)
		}
		for _, pkt := range out {
			send(t, r.phone.rtp, r.our(Inside, portRTP), pkt)
		}
		wire := make([][]byte, len(part))
		for i := range wire {
			wire[i], _ = recv(t, r.far.rtp)
		}
		for i, got := range far.run('u', wire...) {
			if !bytes.Equal(got, out[i]) {
				t.Fatalf("outbound packet %d (number %d): libsrtp opened %x", start+i, part[i], got)
			}
		}
		for _, pkt := range far.run('p', in...) {
			send(t, r.far.rtp, r.our(Outside, portRTP), pkt)
		}
		for i := range in {
			got, _ := recv(t, r.phone.rtp)
			if !bytes.Equal(got, in[i]) {
				t.Fatalf("inbound packet %d (number %d) came as %x", start+i, part[i], got)
			}
		}
	}
	n := uint64(len(numbers))
	r.waitFor(func(s Stats) bool { return s.Outside.TxRTPPackets == n && s.Inside.TxRTPPackets == n }) // counted after they are sent
	st := r.stream.Stats()
	lost := uint64(countLost(numbers))
	if st.Outside.Lost != lost || st.Inside.Lost != lost {
		t.Errorf("lost: outside %d, inside %d, really %d", st.Outside.Lost, st.Inside.Lost, lost)
	}
	if st.Outside.Drops != (Drops{}) || st.Inside.Drops != (Drops{}) {
		t.Errorf("drops: %+v %+v", st.Outside.Drops, st.Inside.Drops)
	}
}

// wrapOrder gives sequence numbers from first on, with loss, and with gaps and changed
// places around each wrap.
func wrapOrder(first uint16, n int) []uint16 {
	var list []uint16
	for i := 0; len(list) < n; i++ {
		seq := first + uint16(i)
		if seq%50 == 17 || seq == 65534 || seq == 1 || seq == 2 {
			continue
		}
		list = append(list, seq)
	}
	for i := 1; i+3 < len(list); i++ {
		if list[i] == 65535 { // ... 65533 65535 | 0 3 4 -> 0 3 65535 4
			list[i-1], list[i], list[i+1], list[i+2] = list[i+1], list[i-1], list[i+2], list[i]
			i += 3
		}
	}
	return list
}

// countLost: the gaps, given that the first and last numbers are the extremes.
func countLost(list []uint16) int {
	seen := map[uint64]bool{}
	highest := uint64(list[0])
	for _, seq := range list {
		i := highest&^0xffff | uint64(seq)
		if d := int64(i) - int64(highest); d > 32768 {
			i -= 65536
		} else if d < -32768 {
			i += 65536
		}
		seen[i] = true
		highest = max(highest, i)
	}
	return int(highest-uint64(list[0])) + 1 - len(seen)
}

// The same at each suite, faster, without sockets: a cycle and two wraps.
func TestRolloverEverySuite(t *testing.T) {
	for _, suite := range Suites() {
		t.Run(string(suite), func(t *testing.T) {
			k := mustKey(t, suite)
			ends := newLoop(t, k)
			for i, seq := range wrapOrder(65000, 65536+5000) {
				if i%5000 == 4999 {
					again := k.clone()
					ends.reinvite(&again)
				}
				pkt := rtpPayload(5, seq, 0, 8)
				binary.BigEndian.PutUint32(pkt[12:], uint32(i))
				if got := ends.pass(pkt); !bytes.Equal(got, pkt) {
					t.Fatalf("packet %d (number %d): %x; %+v %+v", i, seq, got, ends.tx.legs[Outside].drops(), ends.rx.legs[Outside].drops())
				}
			}
		})
	}
}
