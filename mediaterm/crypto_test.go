package mediaterm

import (
	"bytes"
	"errors"
	"testing"
)

// A key that the far end does not have: its packets fail, and ours are not understood.
func TestWrongKey(t *testing.T) {
	for _, suite := range Suites() {
		t.Run(string(suite), func(t *testing.T) {
			k := mustKey(t, suite)
			l := newLoop(t, k)
			// By way of plain: a key that follows another leaves that one accepted for a while.
			for _, remote := range []*Key{nil, mustKey(t, suite)} {
				if err := l.rx.setCrypto(Outside, remote, remote); err != nil {
					t.Fatal(err)
				}
			}
			for seq := range uint16(20) {
				if got := l.pass(rtpPacket(uint32(seq), seq)); got != nil {
					t.Fatalf("opened with a wrong key: %x", got)
				}
			}
			leg := &l.rx.legs[Outside]
			if leg.drops().AuthFailures != 20 {
				t.Errorf("authentication failures: %d, want 20", leg.drops().AuthFailures)
			}
			if n := leg.rx.current().sources(); n != 0 {
				t.Errorf("forged packets left the state of %d sources", n)
			}
		})
	}
}

func TestReplay(t *testing.T) {
	for _, suite := range Suites() {
		t.Run(string(suite), func(t *testing.T) {
			l := newLoop(t, mustKey(t, suite))
			var wire [][]byte
			for seq := range uint16(300) {
				wire = append(wire, l.seal(rtpPacket(1, 65400+seq)))
			}
			order := []struct {
				at   int
				pass bool
				why  string
			}{
				{0, true, "first"},
				{0, false, "the same again"},
				{200, true, "ahead, over a wrap"},
				{73, true, "127 behind: within the window"},
				{73, false, "the same again"},
				{72, false, "128 behind: too old to know"},
				{199, true, "late"},
				{299, true, "ahead"},
				{0, false, "long ago"},
			}
			var replays uint64
			for _, o := range order {
				if got := l.open(wire[o.at]) != nil; got != o.pass {
					t.Errorf("packet %d (%s): passed is %v", o.at, o.why, got)
				}
				if !o.pass {
					replays++
				}
			}
			if d := l.rx.legs[Outside].drops(); d.Replays != replays || d.AuthFailures != 0 {
				t.Errorf("drops %+v, want %d replays", d, replays)
			}
		})
	}
}

func TestReplayedReports(t *testing.T) {
	l := newLoop(t, mustKey(t, SuiteCM32))
	out := l.seal(senderReport(1))
	if l.open(out) == nil || l.open(out) != nil {
		t.Error("a report must pass once")
	}
	if d := l.rx.legs[Outside].drops(); d.Replays != 1 {
		t.Errorf("drops %+v", d)
	}
}

// A sender must never use an index twice: a phone's duplicate or restart is not sealed.
func TestIndexNeverRepeats(t *testing.T) {
	l := newLoop(t, mustKey(t, SuiteGCM128))
	for seq := range uint16(300) {
		if l.pass(rtpPacket(1, 60000+seq)) == nil {
			t.Fatal("lost")
		}
	}
	other := rtpPacket(1, 60299)
	other[20] ^= 0xff
	if l.pass(other) != nil {
		t.Error("two payloads were sealed under one index")
	}
	for seq := range uint16(10) { // begins again below
		if l.pass(rtpPacket(1, 59000+seq)) != nil {
			t.Error("sealed again below the window")
		}
	}
	if d := l.tx.legs[Outside].drops(); d.TxRepeated != 11 {
		t.Errorf("repeated: %d, want 11", d.TxRepeated)
	}
	if n := l.had(EventSequenceRestart); n != 1 {
		t.Errorf("told of the restart %d times", n)
	}
	if l.pass(rtpPacket(1, 60300)) == nil {
		t.Error("the stream did not go on")
	}
}

// An old remote key is good until the new one has authenticated a packet, and not after.
func TestRemoteKeyChange(t *testing.T) {
	oldKey, newKey := mustKey(t, SuiteCM80), mustKey(t, SuiteGCM256)
	l := newLoop(t, oldKey)
	if l.pass(rtpPacket(1, 10)) == nil {
		t.Fatal("lost")
	}
	straggler := l.seal(rtpPacket(1, 12))
	back := mustKey(t, SuiteGCM256)
	if err := l.rx.setCrypto(Outside, back, newKey); err != nil {
		t.Fatal(err)
	}
	if l.pass(rtpPacket(1, 11)) == nil {
		t.Error("the old key was dropped before the new one was seen")
	}
	if err := l.tx.setCrypto(Outside, newKey, back); err != nil {
		t.Fatal(err)
	}
	if l.pass(rtpPacket(1, 13)) == nil {
		t.Error("the new key is not accepted")
	}
	if l.open(straggler) != nil {
		t.Error("the old key is still accepted after the new one")
	}
}

// A re-INVITE that is refused goes back to the keys before: rollover counters too.
func TestKeyGoesBack(t *testing.T) {
	first, failed := mustKey(t, SuiteGCM128), mustKey(t, SuiteGCM128)
	l := newLoop(t, first)
	for _, seq := range []uint16{65535, 0, 1} {
		if l.pass(rtpPacket(1, seq)) == nil {
			t.Fatal("lost")
		}
	}
	replay := bytes.Clone(l.wire)
	l.reinvite(failed)
	l.reinvite(first)
	if l.pass(rtpPacket(1, 2)) == nil {
		t.Error("the rollover counter was lost")
	}
	if l.open(replay) != nil {
		t.Error("the replay list was lost")
	}
	if l.pass(rtpPacket(1, 2)) != nil {
		t.Error("an index was used twice under the first key")
	}
}

// The same master key with another suite and MKI derives the same session keys.
func TestSameMaterialOtherSuite(t *testing.T) {
	k := mustKey(t, SuiteCM80)
	l := newLoop(t, k)
	for _, seq := range []uint16{65534, 65535} {
		if l.pass(rtpPacket(1, seq)) == nil {
			t.Fatal("lost")
		}
	}
	short := k.clone()
	short.Suite, short.MKI = SuiteCM32, []byte{1}
	l.reinvite(&short)
	if l.pass(rtpPacket(1, 65535)) != nil {
		t.Error("an index was used twice under one master key")
	}
	for _, seq := range []uint16{0, 1} {
		if l.pass(rtpPacket(1, seq)) == nil {
			t.Errorf("number %d after the wrap: lost", seq)
		}
	}
	before := l.wire
	l.reinvite(k)
	if l.open(before) != nil {
		t.Error("a packet of the other suite passed")
	}
	if l.pass(rtpPacket(1, 2)) == nil {
		t.Error("lost after going back")
	}
}

func TestNoKeyYet(t *testing.T) {
	r := newRig(t, nil)
	local := mustKey(t, SuiteCM80)
	pkt := rtpPacket(1, 1)
	send(t, r.phone.rtp, r.our(Inside, portRTP), pkt) // outside leg closed: no SetCrypto yet
	send(t, r.far.rtp, r.our(Outside, portRTP), pkt)
	r.waitFor(func(s Stats) bool { return s.Outside.Drops.TxNoKey == 1 && s.Outside.Drops.NoKey == 1 })
	r.setCrypto(Outside, local, nil) // offered, not answered
	send(t, r.far.rtp, r.our(Outside, portRTP), pkt)
	r.waitFor(func(s Stats) bool { return s.Outside.Drops.NoKey == 2 })
	r.setCrypto(Outside, nil, local)
	send(t, r.phone.rtp, r.our(Inside, portRTP), pkt)
	r.waitFor(func(s Stats) bool { return s.Outside.Drops.TxNoKey == 2 })
	if st := r.stream.Stats(); st.Inside.TxRTPPackets+st.Outside.TxRTPPackets != 0 {
		t.Errorf("something was sent: %+v", st)
	}
}

func TestMKI(t *testing.T) {
	k := mustKey(t, SuiteCM80)
	k.MKI = []byte{1, 2, 3, 4}
	l := newLoop(t, k)
	if l.pass(rtpPacket(1, 1)) == nil {
		t.Fatal("lost")
	}
	if at := len(l.wire) - 14; !bytes.Equal(l.wire[at:at+4], k.MKI) {
		t.Errorf("no MKI before the tag: %x", l.wire[at:])
	}
	wire := l.seal(rtpPacket(1, 2))
	wire[len(wire)-14] ^= 1
	if l.open(wire) != nil || l.rx.legs[Outside].drops().AuthFailures != 1 {
		t.Error("an unknown MKI was accepted, or not counted")
	}
}

// A used-up key ends its direction, with a warning before; a new key opens it again.
func TestLifetime(t *testing.T) {
	for name, kind := range map[string]packetKind{"RTP": kindRTP, "RTCP": kindRTCP} {
		t.Run(name, func(t *testing.T) {
			k := mustKey(t, SuiteCM80)
			k.Lifetime = 32
			l := newLoop(t, k)
			next := func(i uint16) []byte {
				if kind == kindRTCP {
					return senderReport(1)
				}
				return rtpPacket(1, i)
			}
			passed := 0
			for i := range uint16(40) {
				if l.pass(next(i)) != nil {
					passed++
				}
				if i == 28 && l.had(EventKeyExpiring) != 2 {
					t.Errorf("warnings before the end: %d, want one a direction", l.had(EventKeyExpiring))
				}
			}
			if passed != 32 || l.tx.legs[Outside].drops().TxKeyExpired != 8 {
				t.Errorf("passed %d of a lifetime of 32; %+v", passed, l.tx.legs[Outside].drops())
			}
			if l.had(EventKeyExpired) != 2 {
				t.Errorf("told %d times that a key is used up", l.had(EventKeyExpired))
			}
			l.reinvite(mustKey(t, SuiteCM80))
			if l.pass(next(50)) == nil {
				t.Error("a new key does not open the direction")
			}
		})
	}
}

// The far end's key is counted too: what it sends beyond the lifetime is not opened.
func TestRemoteLifetime(t *testing.T) {
	k := mustKey(t, SuiteGCM128)
	l := newLoop(t, k)
	short := k.clone()
	short.Lifetime = 3
	if err := l.rx.setCrypto(Outside, mustKey(t, SuiteGCM128), &short); err != nil {
		t.Fatal(err)
	}
	for i := range uint16(5) {
		if got := l.pass(rtpPacket(1, i)) != nil; got != (i < 3) {
			t.Errorf("packet %d passed: %v", i, got)
		}
	}
	if d := l.rx.legs[Outside].drops(); d.KeyExpired != 2 {
		t.Errorf("drops %+v", d)
	}
}

// New SSRCs cost state: their number under a key is bounded in both directions.
func TestSSRCLimit(t *testing.T) {
	k := mustKey(t, SuiteCM80)
	l := newLoop(t, k)
	for ssrc := range uint32(maxSSRCs + 50) {
		if got := l.pass(rtpPacket(ssrc, 1)) != nil; got != (ssrc < maxSSRCs) {
			t.Fatalf("SSRC %d passed: %v", ssrc, got)
		}
	}
	if l.pass(rtpPacket(0, 2)) == nil {
		t.Error("a known SSRC is refused when the table is full")
	}
	if d := l.tx.legs[Outside].drops(); d.TxSSRCLimit != 50 || l.had(EventSSRCLimit) != 1 {
		t.Errorf("refused %d, told %d times", d.TxSSRCLimit, l.had(EventSSRCLimit))
	}
	fresh := newLoop(t, k) // the far end's side
	for ssrc := range uint32(50) {
		fresh.pass(rtpPacket(1000+ssrc, 1))
	}
	l.tx = fresh.tx
	l.txs = fresh.txs
	if l.pass(rtpPacket(2000, 1)) != nil || l.rx.legs[Outside].drops().SSRCLimit != 1 {
		t.Errorf("receiving table is not bounded: %+v", l.rx.legs[Outside].drops())
	}
	l.reinvite(mustKey(t, SuiteCM80))
	if l.pass(rtpPacket(3000, 1)) == nil {
		t.Error("a new key does not make room")
	}
}

func TestBadKeysChangeNothing(t *testing.T) {
	good := mustKey(t, SuiteCM80)
	for name, mod := range map[string]func(*Key){
		"unknown suite":        func(k *Key) { k.Suite = "F8_128_HMAC_SHA1_80" },
		"short master key":     func(k *Key) { k.Master = k.Master[:15] },
		"AES-CM salt with GCM": func(k *Key) { k.Suite = SuiteGCM128 },
		"no salt":              func(k *Key) { k.Salt = nil },
		"long MKI":             func(k *Key) { k.MKI = make([]byte, 129) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, good)
			bad := mustKey(t, SuiteCM80)
			mod(bad)
			if err := l.tx.setCrypto(Outside, good, bad); !errors.Is(err, ErrBadKey) {
				t.Errorf("error %v", err)
			}
			if err := l.tx.setCrypto(Outside, bad, good); !errors.Is(err, ErrBadKey) {
				t.Errorf("error %v", err)
			}
			if l.pass(rtpPacket(1, 1)) == nil {
				t.Error("the keys before no longer work")
			}
		})
	}
}

// More keys than are remembered: the oldest goes, nothing grows.
func TestKeysKeptBounded(t *testing.T) {
	l := newLoop(t, mustKey(t, SuiteCM80))
	for range 20 {
		l.reinvite(mustKey(t, SuiteCM80))
	}
	if n := l.tx.legs[Outside].tx.kept; n != keysKept {
		t.Errorf("%d keys kept", n)
	}
	if l.pass(rtpPacket(1, 1)) == nil {
		t.Error("lost")
	}
}
