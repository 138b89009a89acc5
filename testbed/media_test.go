package testbed

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// What calls do to their media while they stand, heard at both ends. One call
// is on hold all the time: silence is no reason to drop it.
func TestMediaTalk(t *testing.T) {
	s := StartStubs(t)
	sleeper := s.talk(t, true, srtpSuites[0])
	sleeper.bothWays(t, 3)
	sleeper.again(t, false, []string{"a=inactive"}, []string{"a=inactive"})
	for _, out := range []bool{true, false} {
		for _, scene := range []struct {
			name string
			run  func(*testing.T, *StubLab, bool)
		}{
			{"hold and resume", mediaHold},
			{"old hold", mediaOldHold},
			{"early media", mediaEarly},
			{"forked early media", mediaForks},
			{"late offer", mediaLateOffer},
			{"codec change and new ports", mediaMoves},
			{"new key", mediaNewKey},
			{"new source in the stream", mediaNewSSRC},
			{"events", mediaEvents},
			{"video", mediaVideo},
			{"lines come and go", mediaLines},
		} {
			t.Run(fmt.Sprintf("%s/outbound %v", scene.name, out), func(t *testing.T) {
				defer checkReturned(t, s)
				scene.run(t, s, out)
			})
		}
	}
	t.Run("32 lines", func(t *testing.T) { mediaManyLines(t, s) })
	t.Run("resumed after all that", func(t *testing.T) {
		sleeper.again(t, true, nil, nil)
		sleeper.bothWays(t, 3)
		sleeper.end(t)
	})
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

// mediaHold: music on hold is heard, and after the hold everything is as before.
func mediaHold(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[0])
	for _, byFar := range []bool{true, false} {
		in, before := k.in, k.out
		holder, held := []string{"a=sendonly"}, []string{"a=recvonly"}
		if byFar {
			k.again(t, true, holder, held)
			k.toPhone(t, 20)
		} else {
			k.again(t, false, held, holder)
			k.toFar(t, 20)
		}
		k.again(t, byFar, []string{"a=inactive"}, []string{"a=inactive"})
		seen, back := k.again(t, !byFar, nil, nil)
		k.learnFrom(t, !byFar, seen, back)
		if k.in != in || k.out != before {
			t.Errorf("the hold moved our ports from %v, %v to %v, %v", in, before, k.in, k.out)
		}
		k.bothWays(t, 20)
	}
	k.end(t)
}

// mediaOldHold: nothing is sent to who said c=0.0.0.0, while he is still heard.
func mediaOldHold(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[0])
	k.bothWays(t, 3)
	null := func(body string) string {
		return strings.Replace(body, "c=IN IP4 "+MediaLines(t, body)[0].Addr().String(), "c=IN IP4 0.0.0.0", 1)
	}
	for _, byFar := range []bool{true, false} {
		from, to := k.leg(byFar), k.leg(!byFar)
		k.farKey.Tag = 1
		reoffer(t, from, to, null(k.descr(byFar)), k.descr(!byFar))
		silent, our := k.phone, k.out
		sender, talker := k.far, k.toFar
		if byFar {
			silent, our, sender, talker = k.far, k.in, k.phone, k.toPhone
		}
		talker(t, 5)
		dropped := k.shown(t)
		sender.Send(t, our, 5)
		Until(t, wait, "what nobody takes is counted", func() bool {
			now := k.shown(t)
			return now.Inside.Dropped+now.Outside.Dropped == dropped.Inside.Dropped+dropped.Outside.Dropped+5
		})
		if got := silent.Got(); len(got) > 0 {
			t.Errorf("%d packets came to %v on hold", len(got), silent.Addr)
		}
		k.again(t, byFar, nil, nil)
		k.bothWays(t, 5)
	}
	k.end(t)
}

// mediaEarly: announcements before the answer, in both directions.
func mediaEarly(t *testing.T, s *StubLab, out bool) {
	k := s.newTalk(t, out, NewStubCrypto(1, srtpSuites[0]))
	inv, seen := k.invite(t, sdp(k.descr(!out)))
	if out {
		k.pick(t, seen.Body)
	}
	k.callee.Respond(t, seen, 183, "Session Progress", sdp(k.descr(out)))
	k.answered(t, seen, k.caller.AwaitStatus(t, inv, 183))
	k.bothWays(t, 20)
	k.callee.Respond(t, seen, 180, "Ringing")
	k.caller.AwaitStatus(t, inv, 180)
	k.bothWays(t, 5)
	// The answer need not say it again (RFC 3261 13.2.1).
	k.callee.Respond(t, seen, 200, "OK")
	k.caller.AwaitStatus(t, inv, 200)
	k.caller.Ack(t)
	k.callee.Expect(t, "ACK")
	k.bothWays(t, 20)
	k.end(t)
}

// mediaForks: two places ring, each with its own tone and key; who answers is heard.
func mediaForks(t *testing.T, s *StubLab, out bool) {
	k := s.newTalk(t, out, NewStubCrypto(1, srtpSuites[0]))
	inv, seen := k.invite(t, sdp(k.descr(!out)))
	if out {
		k.pick(t, seen.Body)
	}
	k.callee.Respond(t, seen, 183, "Session Progress", sdp(k.descr(out)))
	k.answered(t, seen, k.caller.AwaitStatus(t, inv, 183))
	k.bothWays(t, 3)
	// The second place of the callee, with media ends and a key of its own.
	other := *k
	other.callee = k.way.callee().AnswerLeg(seen)
	phone, far := k.newEnds(t)
	if out {
		other.far, other.farKey = far, NewStubCrypto(1, srtpSuites[2])
		other.pick(t, seen.Body)
	} else {
		other.phone = phone
	}
	other.callee.Respond(t, seen, 183, "Session Progress", sdp(other.descr(out)))
	back := k.caller.AwaitStatus(t, inv, 183)
	other.caller = k.caller.Fork(back)
	if out {
		other.far.SetKeys(t, other.farKey, other.ourKey)
	}
	other.bothWays(t, 3)
	// The first one answers: its media count again, also without a description.
	k.callee.Respond(t, seen, 200, "OK")
	k.caller.AwaitStatus(t, inv, 200)
	k.caller.Ack(t)
	k.callee.Expect(t, "ACK")
	k.bothWays(t, 3)
	k.end(t)
}

// mediaLateOffer: the offer comes with the 200, the answer with the ACK.
func mediaLateOffer(t *testing.T, s *StubLab, out bool) {
	k := s.newTalk(t, out, NewStubCrypto(1, srtpSuites[1]))
	inv, seen := k.invite(t)
	k.callee.Respond(t, seen, 200, "OK", sdp(k.descr(out)))
	ok := k.caller.AwaitStatus(t, inv, 200)
	k.caller.Learn(ok)
	if !out {
		k.pick(t, ok.Body) // the far end called: it answers the proxy's offer
	}
	k.caller.Ack(t, sdp(k.descr(!out)))
	ack := k.callee.Expect(t, "ACK")
	if out {
		k.pick(t, ack.Body)
	}
	k.learn(t, ack, ok)
	k.far.SetKeys(t, k.farKey, k.ourKey)
	k.bothWays(t, 20)
	k.end(t)
}

// mediaMoves: another codec, then each end on another port; keys go on.
func mediaMoves(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[0])
	k.bothWays(t, 3)
	k.farKey.Tag = 1
	reoffer(t, k.caller, k.callee, codecOf(k.descr(!out), 8, "PCMA/8000"), codecOf(k.descr(out), 8, "PCMA/8000"))
	k.phone.PT, k.far.PT = 8, 8
	k.bothWays(t, 5)
	text, err := s.Proxy.Shell("show uc-ime signaling-sessions")
	if _, call, ok := strings.Cut(text, "Call-ID: "+k.caller.CallID); err != nil || !ok || !strings.Contains(call, "Codec-name: PCMA") || !strings.Contains(call, "Payload type: 8") {
		t.Errorf("the new codec is not shown (%v):\n%s", err, text)
	}
	oldPhone, oldFar := k.phone, k.far
	k.phone, k.far = k.newEnds(t)
	k.far.takeKeys(oldFar)
	seen, back := k.again(t, false, nil, nil)
	k.learnFrom(t, false, seen, back)
	k.bothWays(t, 5)
	// What still comes from the old phone goes nowhere.
	oldPhone.Send(t, k.in, 2)
	Until(t, wait, "packets of the old port are counted", func() bool { return k.shown(t).Inside.WrongSource == 2 })
	k.bothWays(t, 1)
	for _, old := range []*MediaStub{oldPhone, oldFar} {
		if got := old.Got(); len(got) > 0 {
			t.Errorf("%d packets came to the port that was left, %v", len(got), old.Addr)
		}
	}
	k.end(t)
}

// mediaNewKey: the far end changes its key; packets under the old one that are
// still on their way are good until the first under the new one.
func mediaNewKey(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[0])
	k.bothWays(t, 3)
	var late [][]byte
	var plain []*rtp.Packet
	for range 2 {
		plain = append(plain, k.far.Packet())
		late = append(late, k.far.Seal(t, plain[len(plain)-1]))
	}
	k.farKey = NewStubCrypto(1, srtpSuites[0])
	_, back := k.again(t, true, nil, nil)
	if c := CryptosOf(t, back.Body)[0]; string(c.Key) != string(k.ourKey.Key) {
		t.Error("our key changed with the far end's")
	}
	k.far.SendRaw(t, k.out, late[0])
	arrives(t, k.phone, plain[:1])
	k.far.setSendKey(t, k.farKey)
	k.bothWays(t, 5)
	k.far.SendRaw(t, k.out, late[1])
	Until(t, wait, "the old key is over", func() bool { return k.shown(t).Outside.Auth == 1 })
	k.bothWays(t, 1)
	k.end(t)
}

// mediaNewSSRC: a transfer behind an end gives a new SSRC with other numbers.
func mediaNewSSRC(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[3])
	for _, first := range []uint16{1, 65530, 7} {
		for _, end := range []*MediaStub{k.phone, k.far} {
			end.SSRC += 0x01010101
			end.Seq = first
		}
		k.bothWays(t, 12)
	}
	k.end(t)
}

// mediaEvents: digits as RFC 4733 has them: marked at their start, one timestamp, the end three times.
func mediaEvents(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[0], "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16")
	for _, end := range []struct {
		from, to *MediaStub
		via      addrPort
	}{{k.phone, k.far, k.in}, {k.far, k.phone, k.out}} {
		var sent []*rtp.Packet
		for i, final := range []byte{0, 0, 0, 0x80, 0x80, 0x80} {
			stamp := end.from.Time
			sent = append(sent, end.from.Send(t, end.via, 1, func(p *rtp.Packet) {
				p.Marker, p.PayloadType = i == 0, 101
				p.Payload = []byte{5, final | 10, byte(i * 160 >> 8), byte(i * 160)}
			})...)
			end.from.Time = stamp
		}
		arrives(t, end.to, sent)
	}
	k.bothWays(t, 2)
	k.end(t)
}

// picture makes a packet one of video: as large as Ethernet takes, with all that a header may hold.
func picture(p *rtp.Packet) {
	p.Payload = make([]byte, 1400)
	rand.Read(p.Payload)
	p.PayloadType, p.Marker = 99, p.SequenceNumber%10 == 0
	p.CSRC = []uint32{1, 2}
	if err := p.SetExtension(3, []byte{1, 2, 3}); err != nil {
		panic(err)
	}
}

// withVideo adds a video line to a description.
func withVideo(body string, port uint16, key *StubCrypto) string {
	body += fmt.Sprintf("m=video %d RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n", port)
	if key != nil {
		body = strings.Replace(body, fmt.Sprintf("m=video %d RTP/AVP", port), fmt.Sprintf("m=video %d RTP/SAVP", port), 1) + key.Line() + "\r\n"
	}
	return body
}

// mediaVideo: sound and picture beside each other, the picture in large packets and in bursts.
func mediaVideo(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[0])
	v := k.video(t, srtpSuites[2])
	for range 3 {
		k.toFar(t, 2)
		v.toFar(t, 40, picture)
		k.toPhone(t, 2)
		v.toPhone(t, 40, picture)
	}
	k.end(t)
}

// video adds a second line to the call, by a re-INVITE of the far end, and gives its media ends.
func (k *talk) video(t T, suite string) *talk {
	t.Helper()
	v := *k
	v.phone, v.far = k.newEnds(t)
	v.farKey = NewStubCrypto(1, suite)
	seen, back := reoffer(t, k.leg(true), k.leg(false), withVideo(k.descr(true), v.far.Addr.Port(), &v.farKey), withVideo(k.descr(false), v.phone.Addr.Port(), nil))
	v.in, v.out = MediaLines(t, seen.Body)[1], MediaLines(t, back.Body)[1]
	v.ourKey = CryptosOf(t, back.Body)[1]
	v.far.SetKeys(t, v.farKey, v.ourKey)
	return &v
}

// mediaLines: a line that goes takes its port along, and the other one does not notice.
func mediaLines(t *testing.T, s *StubLab, out bool) {
	k := s.talk(t, out, srtpSuites[0])
	v := k.video(t, srtpSuites[0])
	v.bothWays(t, 3)
	var ports []addrPort
	for range 2 {
		ports = append(ports, v.out)
		k.farKey.Tag = 1
		reoffer(t, k.leg(false), k.leg(true), withVideo(k.descr(false), 0, nil), withVideo(k.descr(true), 0, nil))
		k.bothWays(t, 3)
		before := len(v.phone.Got())
		v.far.Send(t, v.out, 2) // nobody is there any more
		k.bothWays(t, 3)
		if len(v.phone.Got()) != before {
			t.Error("a removed line still carries media")
		}
		v = k.video(t, srtpSuites[0])
		v.bothWays(t, 3)
		k.bothWays(t, 3)
	}
	if ports[0] == ports[1] || v.out == ports[1] {
		t.Errorf("ports %v, %v: a freed port was given again at once", ports, v.out)
	}
	k.end(t)
}

// mediaManyLines: as many lines as are allowed, each of them heard.
func mediaManyLines(t *testing.T, s *StubLab) {
	const lines = 32
	k := s.newTalk(t, false, NewStubCrypto(1, srtpSuites[0]))
	var ends [lines]talk
	offer, answer := k.descr(true), k.descr(false)
	ends[0] = *k
	for i := 1; i < lines; i++ {
		ends[i] = *k
		ends[i].phone, ends[i].far = k.newEnds(t)
		ends[i].farKey = NewStubCrypto(1, srtpSuites[i%len(srtpSuites)])
		offer = withVideo(offer, ends[i].far.Addr.Port(), &ends[i].farKey)
		answer = withVideo(answer, ends[i].phone.Addr.Port(), nil)
	}
	inv, seen := k.invite(t, sdp(offer))
	k.callee.Respond(t, seen, 200, "OK", sdp(answer))
	ok := k.caller.AwaitStatus(t, inv, 200)
	k.caller.Learn(ok)
	k.caller.Ack(t)
	k.callee.Expect(t, "ACK")
	in, out, keys := MediaLines(t, seen.Body), MediaLines(t, ok.Body), CryptosOf(t, ok.Body)
	if len(in) != lines || len(out) != lines || len(keys) != lines {
		t.Fatalf("%d, %d lines and %d keys of %d", len(in), len(out), len(keys), lines)
	}
	for i := range ends {
		e := &ends[i]
		e.in, e.out, e.ourKey = in[i], out[i], keys[i]
		e.far.SetKeys(t, e.farKey, e.ourKey)
		e.bothWays(t, 2)
	}
	k.end(t)
}
