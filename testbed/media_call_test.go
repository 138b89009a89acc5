package testbed

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
)

// talk is a call through the proxy whose media ends are played too: the phone
// inside in plain RTP, the far end outside in SRTP.
type talk struct {
	way
	caller, callee *Leg
	phone, far     *MediaStub
	// in and out are the proxy's RTP addresses for the phone and for the far end.
	in, out netip.AddrPort
	// farKey is the far end's, ourKey what the proxy gave it.
	farKey, ourKey StubCrypto
	// phoneKey and ourPhoneKey are the same inside, on a secure trunk; no suite: plain RTP.
	phoneKey, ourPhoneKey StubCrypto
	more                  []string // attributes of both descriptions
}

// mediaPorts gives every pair of media stubs ports of its own: an even number of
// pairs is never used twice in one run.
var mediaPorts atomic.Int32

// talk sets up a call whose far end uses a suite.
func (s *StubLab) talk(t T, out bool, suite string, more ...string) *talk {
	t.Helper()
	return s.talkWith(t, out, NewStubCrypto(1, suite), more...)
}

// talkWith is talk with a key of the far end. An outbound call answers the
// line that the proxy offers for its suite.
func (s *StubLab) talkWith(t T, out bool, key StubCrypto, more ...string) *talk {
	t.Helper()
	k := s.newTalk(t, out, key, more...)
	inv, seen := k.invite(t, sdp(k.descr(!out)))
	if out {
		k.pick(t, seen.Body)
	}
	k.callee.Respond(t, seen, 200, "OK", sdp(k.descr(out)))
	k.answered(t, seen, k.caller.AwaitStatus(t, inv, 200))
	k.caller.Ack(t)
	k.callee.Expect(t, "ACK")
	return k
}

// newTalk makes the ends of a call that is not placed yet.
func (s *StubLab) newTalk(t T, out bool, key StubCrypto, more ...string) *talk {
	t.Helper()
	k := &talk{way: way{s, out}, farKey: key, more: more}
	k.phone, k.far = k.newEnds(t)
	k.caller = k.way.caller(t)
	return k
}

// newEnds opens media ends on ports that nobody has used.
func (k *talk) newEnds(t T) (phone, far *MediaStub) {
	t.Helper()
	n := 4 * uint16(mediaPorts.Add(1))
	phone = NewMediaStub(t, k.s.A.PhoneHost, netip.AddrPortFrom(k.s.A.PhoneIP, 4000+n))
	far = NewMediaStub(t, k.s.B.EdgeHost, netip.AddrPortFrom(k.s.B.MediaOut, 20000+n))
	far.SSRC = 0x7000_0000 + uint32(n)
	return phone, far
}

// invite lets the call arrive at the callee.
func (k *talk) invite(t T, change ...func(*StubMessage)) (inv, seen *StubMessage) {
	t.Helper()
	inv = k.caller.Request(t, "INVITE", append([]func(*StubMessage){k.open}, change...)...)
	seen = k.way.callee().Expect(t, InCall(k.caller.CallID, ReqIs("INVITE")), wait)
	k.callee = k.way.callee().AnswerLeg(seen)
	return inv, seen
}

// answered takes what the first exchange, begun by the caller, says of the media.
func (k *talk) answered(t T, seen, back *StubMessage) {
	t.Helper()
	if !k.way.out {
		k.pick(t, back.Body)
	}
	k.caller.Learn(back)
	k.learn(t, seen, back)
	k.far.SetKeys(t, k.farKey, k.ourKey)
}

// pick finds the proxy's key for the far end's suite. The answer to an offer of
// the proxy repeats the tag.
func (k *talk) pick(t T, body string) {
	t.Helper()
	k.ourKey = CryptoOf(t, body, k.farKey.Suite)
	k.farKey.Tag = k.ourKey.Tag
}

// descr is the description of the far or of the inside end.
func (k *talk) descr(ofFar bool, more ...string) string {
	more = append(append([]string(nil), k.more...), more...)
	if ofFar {
		return secureOffer(k.far.Addr.Addr().String(), int(k.far.Addr.Port()), append([]string{k.farKey.Line()}, more...)...)
	}
	if k.phoneKey.Suite != "" {
		return secureOffer(k.phone.Addr.Addr().String(), int(k.phone.Addr.Port()), append([]string{k.phoneKey.Line()}, more...)...)
	}
	return plainOffer(k.phone.Addr.Addr().String(), int(k.phone.Addr.Port()), more...)
}

// learn takes the proxy's addresses from an exchange that the caller began.
func (k *talk) learn(t T, seen, back *StubMessage) {
	t.Helper()
	k.learnFrom(t, !k.way.out, seen, back)
}

// learnFrom is learn after an exchange that the far end began, or the other one.
func (k *talk) learnFrom(t T, byFar bool, seen, back *StubMessage) {
	t.Helper()
	k.in, k.out = MediaLines(t, back.Body)[0], MediaLines(t, seen.Body)[0]
	if byFar {
		k.in, k.out = k.out, k.in
	}
}

// again runs a re-INVITE by the caller or by the callee with both ends'
// descriptions, and gives what the other end saw and what came back.
func (k *talk) again(t T, byFar bool, farMore, phoneMore []string) (seen, back *StubMessage) {
	t.Helper()
	from, to := k.leg(byFar), k.leg(!byFar)
	if !byFar {
		// It answers what the proxy offers for the suite in use.
		k.farKey.Tag = slices.Index(srtpSuites, k.farKey.Suite) + 1
	}
	offer, answer := k.descr(byFar, pickMore(byFar, farMore, phoneMore)...), k.descr(!byFar, pickMore(!byFar, farMore, phoneMore)...)
	return reoffer(t, from, to, offer, answer)
}

func pickMore(ofFar bool, far, phone []string) []string {
	if ofFar {
		return far
	}
	return phone
}

// leg is the signaling end on a side.
func (k *talk) leg(far bool) *Leg {
	if far == k.way.out {
		return k.callee
	}
	return k.caller
}

// end hangs up and waits for the end of its streams.
func (k *talk) end(t T) {
	t.Helper()
	k.caller.Transact(t, k.callee, "BYE", 200)
}

// toFar lets the phone send n packets and demands that the far end gets them
// to the byte; toPhone is the other way round.
func (k *talk) toFar(t T, n int, change ...func(*rtp.Packet)) {
	t.Helper()
	arrives(t, k.far, k.phone.Send(t, k.in, n, change...))
}

func (k *talk) toPhone(t T, n int, change ...func(*rtp.Packet)) {
	t.Helper()
	arrives(t, k.phone, k.far.Send(t, k.out, n, change...))
}

// bothWays lets each end send n packets.
func (k *talk) bothWays(t T, n int) {
	t.Helper()
	k.toFar(t, n)
	k.toPhone(t, n)
}

// arrives waits for packets and compares them with what was sent; then it
// forgets them. Anything else that has come, or could not be read, is a fault.
func arrives(t T, at *MediaStub, sent []*rtp.Packet) {
	t.Helper()
	got := at.awaitPackets(t, len(sent))
	if len(got) != len(sent) {
		t.Fatalf("%d packets came to %v, %d were sent: %v", len(got), at.Addr, len(sent), at.Bad())
	}
	for i, p := range sent {
		want, err1 := p.Marshal()
		have, err2 := got[i].Marshal()
		if err1 != nil || err2 != nil || !bytes.Equal(want, have) {
			t.Fatalf("packet %d of %d came to %v as\n%x, was sent as\n%x", i, len(sent), at.Addr, have, want)
		}
	}
	if bad := at.Bad(); len(bad) > 0 {
		t.Fatalf("%d packets could not be read at %v: %v", len(bad), at.Addr, bad[0])
	}
	at.ForgetRTP()
}

// awaitPackets waits until n packets have come, readable or not.
func (m *MediaStub) awaitPackets(t T, n int) []*rtp.Packet {
	t.Helper()
	m.await(t, fmt.Sprintf("%d packets at %v", n, m.Addr), func() bool { return len(m.got)+len(m.bad) >= n })
	return m.Got()
}

// await waits until what has come fulfils a condition, which is called with the lock held.
func (m *MediaStub) await(t T, what string, cond func() bool) {
	t.Helper()
	limit := time.After(wait)
	for {
		m.mu.Lock()
		ok, n, reports, bad := cond(), len(m.got), len(m.reports), m.bad
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-m.came:
		case <-limit:
			t.Fatalf("not within %v: %s; %d packets and %d reports have come, %d were unreadable %v", wait, what, n, reports, len(bad), bad[:min(1, len(bad))])
		}
	}
}

// takeKeys goes on with the keys and counters of another stub, as an end does that moves.
func (m *MediaStub) takeKeys(from *MediaStub) {
	from.mu.Lock()
	send, recv := from.send, from.recv
	from.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send, m.recv, m.SSRC, m.Seq, m.Time, m.PT = send, recv, from.SSRC, from.Seq, from.Time, from.PT
}

// setSendKey changes what the stub protects its packets with.
func (m *MediaStub) setSendKey(t T, local StubCrypto) {
	t.Helper()
	m.mu.Lock()
	recv := m.recv
	m.mu.Unlock()
	m.SetKeys(t, local, local)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recv = recv
}

// ForgetRTP empties what has come of RTP.
func (m *MediaStub) ForgetRTP() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got, m.bad = nil, nil
}

// mediaConn is one leg of a stream as `show uc-ime media-sessions detail` tells it.
type mediaConn struct {
	Local       string `json:"local"`
	Client      string `json:"client"`
	Suite       string `json:"suite"`
	Tx          int    `json:"tx_pkts"`
	Rx          int    `json:"rx_pkts"`
	TxRTCP      int    `json:"tx_rtcp_pkts"`
	RxRTCP      int    `json:"rx_rtcp_pkts"`
	Lost        int    `json:"lost"`
	Auth        int    `json:"auth_failures"`
	Replays     int    `json:"replays"`
	WrongSource int    `json:"wrong_source"`
	Dropped     int    `json:"dropped"`
}

// mediaSession is one stream of it.
type mediaSession struct {
	CallID  string    `json:"call_id"`
	Kind    string    `json:"kind"`
	Outside mediaConn `json:"outside"`
	Inside  mediaConn `json:"inside"`
}

// shown gives the call's first stream as the operator sees it.
func (k *talk) shown(t T) mediaSession {
	t.Helper()
	var all struct {
		Sessions []mediaSession `json:"sessions"`
	}
	k.s.Proxy.Show(t, "uc-ime media-sessions detail", &all)
	for _, m := range all.Sessions {
		if m.CallID == k.caller.CallID {
			return m
		}
	}
	t.Fatalf("call %s has no stream in %+v", k.caller.CallID, all)
	return mediaSession{}
}

// addrPort is short for what media goes to.
type addrPort = netip.AddrPort

// next is the RTCP port that belongs to an RTP port, after one further on.
func next(a addrPort) addrPort { return after(a, 1) }

func after(a addrPort, n uint16) addrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+n) }

func portText(a addrPort) string { return fmt.Sprint(a.Port()) }

// replaceOnce changes a text that must hold what is replaced.
func replaceOnce(text, old, with string) string {
	if !strings.Contains(text, old) {
		panic("no " + old + " in\n" + text)
	}
	return strings.Replace(text, old, with, 1)
}

// noTrace demands that a text holds none of the secrets.
func noTrace(t T, what, text string, keys ...StubCrypto) {
	t.Helper()
	for _, c := range keys {
		if len(c.Key) == 0 {
			continue
		}
		line := c.Line()
		_, key, _ := strings.Cut(line, "inline:")
		if strings.Contains(text, key) || strings.Contains(text, fmt.Sprintf("%x", c.Key)) {
			t.Errorf("%s holds a key", what)
		}
	}
}
