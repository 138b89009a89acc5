package mediaterm

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// mirror is a stream of engine tproxy and a relay with pion/srtp that gets the same, packet by packet.
type mirror struct {
	st   *tproxyStream
	ref  *relay
	sc   *scratch
	far  []*keyUse // what the far end seals with, the newest last
	ssrc uint32
	seq  [2]uint16
	old  [][]byte // sealed packets that may come again
}

func newMirror(t *testing.T, term *Terminator, n int) *mirror {
	t.Helper()
	st := callStream(t, term, [2]*Key{}).eng.(*tproxyStream)
	m := &mirror{st: st, sc: newScratch(), ssrc: uint32(n), seq: [2]uint16{65500, 65520}}
	spec := EngineSpec{Media: "audio", Emit: func(Event) {}}
	for side := Inside; side <= Outside; side++ {
		spec.Local[side] = st.legs[side].local
	}
	m.ref = newRelay(spec, time.Now)
	if err := m.ref.setCrypto(Outside, nil, nil); err != nil {
		t.Fatal(err)
	}
	for side := Inside; side <= Outside; side++ {
		if err := m.ref.setRemote(side, st.legs[side].remote); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// rekey gives the outside new keys; the far end may go on with the one before.
func (m *mirror) rekey(t *testing.T, suite Suite, mki []byte) {
	t.Helper()
	local, remote := mustKey(t, suite), mustKey(t, suite)
	local.MKI, remote.MKI = mki, mki
	for _, set := range []func(Side, *Key, *Key) error{m.ref.setCrypto, m.st.setCrypto} {
		if err := set(Outside, local, remote); err != nil {
			t.Fatal(err)
		}
	}
	u, err := newKeyUse(remote.clone(), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.far = append(m.far, u)
}

// packet is the next from a side: most are good ones in order; some are reports, late, lost, replayed, forged, or nothing of the kind.
func (m *mirror) packet(t *testing.T, r *rand.Rand, side Side) []byte {
	t.Helper()
	if r.IntN(40) == 0 {
		m.seq[side] += uint16(r.IntN(40)) - 20
	}
	m.seq[side]++
	pkt := randomRTP(r, m.ssrc+uint32(r.IntN(50)/49), m.seq[side])
	switch r.IntN(30) {
	case 0:
		pkt = senderReport(m.ssrc)
	case 1:
		pkt = pkt[:r.IntN(len(pkt))]
	}
	kind := classify(pkt)
	if side == Inside || kind > kindRTCP {
		return pkt
	}
	u := m.far[len(m.far)-1]
	if len(m.far) > 1 && r.IntN(4) > 0 {
		u = m.far[len(m.far)-2]
	}
	sc := newScratch()
	wire, _, err := u.seal(sc.sealed[:0], pkt, kind, parsedHeader(pkt), &sc.header)
	if err != nil {
		return pkt // a sequence number twice: in the clear
	}
	m.old = append(m.old[max(0, len(m.old)-20):], wire)
	switch r.IntN(30) {
	case 0:
		wire = bytes.Clone(wire)
		wire[r.IntN(len(wire))] ^= 1 << r.IntN(8)
	case 1, 2:
		return m.old[r.IntN(len(m.old))]
	}
	return wire
}

// However the packets of many streams mix in a batch, they leave as from relays that use pion/srtp and know of no batch: the same bytes in the same
// order, and the same is counted. The sequence numbers wrap, keys are changed while old ones are in use, packets come again within a batch.
func TestBatchEqualsPacketByPacket(t *testing.T) {
	term := costRig(t, 1)
	var list []*mirror
	suites := Suites()
	for n := range 24 {
		list = append(list, newMirror(t, term, 1000*n))
	}
	w := list[0].st.worker
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 300 {
		for n, m := range list {
			if round%75 == n {
				m.rekey(t, suites[(n+round/75)%len(suites)], [][]byte{nil, {7}, {0, 0, 1, 2}}[n%3])
			}
		}
		mirrorBatch(t, w, r, list, time.Now().Add(time.Duration(round)*20*time.Millisecond))
	}
	for n, m := range list {
		inA, outA := m.ref.stats()
		inB, outB := m.st.stats()
		tried := outB.Drops.Replays > 0 && outB.Drops.AuthFailures > 0
		for _, s := range []*LegStats{&outA, &outB} { // one that comes again and is too short is the one with pion, the other with us
			s.Drops.Replays, s.Drops.Malformed = 0, s.Drops.Malformed+s.Drops.Replays
		}
		if !reflect.DeepEqual(inA, inB) || !reflect.DeepEqual(outA, outB) {
			t.Errorf("stream %d counts\n%+v\n%+v, with pion\n%+v\n%+v", n, inB, outB, inA, outA)
		}
		if outB.RxRTPPackets < 100 || outB.TxRTPPackets < 100 || !tried {
			t.Errorf("stream %d: the test has not tried it: %+v", n, outB)
		}
	}
}

func mirrorBatch(t *testing.T, w *worker, r *rand.Rand, list []*mirror, at time.Time) {
	t.Helper()
	type departed struct {
		st   *tproxyStream
		data []byte
	}
	var want []departed
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 1 + r.IntN(batchSize)
	for i := range n {
		m, side := list[r.IntN(len(list))], Side(r.IntN(2))
		if len(m.far) == 0 {
			side = Inside
		}
		pkt := m.packet(t, r, side)
		s := &w.slots[i]
		s.src, s.at, s.end = loopFar, Instant(at), &m.st.ends[side][portRTP]
		s.pkt = append(s.rx[:headroom], pkt...)[headroom:]
		m.ref.mu.Lock()
		var out departure
		ok := m.ref.take(&out, side, portRTP, s.src, pkt, classify(pkt), Instant(at), m.sc)
		m.ref.mu.Unlock()
		if ok {
			want = append(want, departed{m.st, bytes.Clone(out.data)})
			m.ref.sent(out, nil)
		}
	}
	w.batch(n)
	var got []*slot
	for way, n := range w.txN {
		got = append(got, w.txSlot[way][:n]...)
	}
	slices.SortFunc(got, func(a, b *slot) int { return a.turn - b.turn })
	if len(got) != len(want) {
		t.Fatalf("%d of %d packets leave, %d would with pion", len(got), n, len(want))
	}
	for i, s := range got {
		if s.stream != want[i].st || !bytes.Equal(s.frame[headroom:], want[i].data) {
			t.Fatalf("packet %d of %d that leave\n%x, with pion\n%x", i, len(got), s.frame[headroom:], want[i].data)
		}
		if sum := udpSum(s.frame[etherLen:], s.frame[etherLen+ipLen:]); sum != 0xffff {
			t.Fatalf("packet %d has the UDP checksum of another: %x", i, sum)
		}
	}
	w.account()
}

// A sum that was made beforehand counts for the very packet, key and rollover counter, and for no other.
func TestReadySum(t *testing.T) {
	c := ownCrypt(t)
	k := mustKey(t, SuiteCM80)
	newUse := func() *keyUse {
		u, err := newKeyUse(k.clone(), c)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u := newUse()
	sc := newScratch()
	wire := u.own.sealRTP(c, sc.sealed, rtpPacket(1, 5), rtpHeaderLen, 1, 5)
	n := len(wire) - int(u.overhead)
	wrong := sumJob{mac: &u.own.rtp.mac, msg: wire[:n], extra: rocLen} // the sum is all zeros
	for _, v := range []struct {
		what   string
		change func(*sumJob)
		used   bool
	}{
		{"the very same", func(*sumJob) {}, true},
		{"another key", func(j *sumJob) { j.mac = &newUse().own.rtp.mac }, false},
		{"another rollover counter", func(j *sumJob) { j.more[3] = 1 }, false},
		{"another packet of the same bytes", func(j *sumJob) { j.msg = bytes.Clone(j.msg) }, false},
		{"less of it", func(j *sumJob) { j.msg = j.msg[:n-1] }, false},
	} {
		j := wrong
		v.change(&j)
		c.ready = &j
		_, err := u.own.openRTP(c, sc.plain, wire, rtpHeaderLen, 1, 5)
		c.ready = nil
		if used := errors.Is(err, errAuth); used != v.used {
			t.Errorf("%s: %v", v.what, err)
		}
	}
}

// What needs no sum gets none: replays, packets of a flooded port, and those that no stream or key would take.
func TestForesee(t *testing.T) {
	term := costRig(t, 1)
	keys := [2]*Key{mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)}
	st := callStream(t, term, keys).eng.(*tproxyStream)
	w := st.worker
	laneCrypt(t)
	far := newLoop(t, keys[1])
	now := time.Now()
	var wire [][]byte
	for seq := range uint16(8) {
		wire = append(wire, far.seal(rtpPacket(1, seq)))
	}
	foreseen := func(pkts [][]byte, change func(*slot)) int {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, p := range pkts {
			s := &w.slots[i]
			s.pkt, s.src, s.at, s.end, s.sum = p, loopFar, Instant(now), &st.ends[Outside][portRTP], nil
			change(s)
		}
		w.foresee(len(pkts))
		n := w.opened.n
		w.opened.forget()
		return n
	}
	same := func(*slot) {}
	for _, v := range []struct {
		what   string
		change func(*slot)
		want   int
	}{
		{"fresh packets", same, len(wire)},
		{"no stream", func(s *slot) { s.end = nil }, 0},
		{"from the inside, in the clear", func(s *slot) { s.end = &st.ends[Inside][portRTP] }, 0},
		{"shorter than a tag", func(s *slot) { s.pkt = s.pkt[:rtpHeaderLen+9] }, 0},
		{"reports", func(s *slot) { s.pkt = far.seal(senderReport(1)) }, 0},
		{"too long", func(s *slot) { s.pkt = append(bytes.Clone(s.pkt), make([]byte, maxDatagram)...) }, 0},
	} {
		if got := foreseen(wire, v.change); got != v.want {
			t.Errorf("%s: %d sums, want %d", v.what, got, v.want)
		}
	}
	for _, p := range wire {
		if _, ok := st.receive(Outside, portRTP, loopFar, p, newScratch()); !ok {
			t.Fatal("a packet does not pass")
		}
	}
	if got := foreseen(wire, same); got != 0 {
		t.Errorf("replays: %d sums", got)
	}
	next := [][]byte{far.seal(rtpPacket(1, 8))}
	end := &st.ends[Outside][portRTP]
	for range w.engine.portLimit {
		end.flooded(Instant(now), loopThief, w.engine.portLimit)
	}
	if got := foreseen(next, func(s *slot) { s.src = loopThief }); got != 0 {
		t.Error("a flooded port's packet has a sum")
	}
	if got := foreseen(next, func(s *slot) { end.friend = s.src }); got != 1 {
		t.Errorf("the stream's own source beside a flood: %d sums, want 1", got)
	}
}

// A batch allocates nothing, whichever way its packets go.
func TestAllocationsPerBatch(t *testing.T) {
	keys := [2]*Key{mustKey(t, SuiteCM80), mustKey(t, SuiteCM80)}
	for side := Inside; side <= Outside; side++ {
		t.Run(fmt.Sprint(side), func(t *testing.T) {
			term := costRig(t, 1)
			var streams []*tproxyStream
			for range 20 * batchPackets { // the test itself makes one packet for all of them
				streams = append(streams, callStream(t, term, keys).eng.(*tproxyStream))
			}
			load := newBatches(t, streams, side, keys[1])
			if n := testing.AllocsPerRun(100, func() { load.one(t) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// Any bytes: what is foreseen of a packet lies within it, and changes nothing of what comes of it.
func FuzzForesee(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s, uint8(0))
		f.Add(s, uint8(1))
	}
	c := ownCrypt(f)
	var keys []*Key
	for _, mki := range [][]byte{nil, {1, 2, 3}} {
		k := mustKey(f, SuiteCM80)
		k.MKI = mki
		keys = append(keys, k)
	}
	far := newLoop(f, keys[0])
	f.Add(far.seal(rtpPacket(1, 1)), uint8(0))
	f.Fuzz(func(t *testing.T, pkt []byte, which uint8) {
		l := leg{crypt: c}
		if err := l.setCrypto(nil, keys[int(which)%len(keys)]); err != nil {
			t.Fatal(err)
		}
		jobs := make([]sumJob, 1)
		if !l.foresee(&jobs[0], pkt) {
			return
		}
		if n := len(jobs[0].msg); n >= len(pkt) || &jobs[0].msg[0] != &pkt[0] {
			t.Fatalf("%d of %d bytes", n, len(pkt))
		}
		c.sumAll(jobs)
		c.ready = &jobs[0]
		var o opened
		withSum := l.open(&o, newScratch().plain[:0], pkt, kindRTP, nil)
		c.ready = nil
		l = leg{crypt: c}
		if err := l.setCrypto(nil, keys[int(which)%len(keys)]); err != nil {
			t.Fatal(err)
		}
		if err := l.open(&o, newScratch().plain[:0], pkt, kindRTP, nil); !errors.Is(err, withSum) {
			t.Errorf("%v with the sum, %v without", withSum, err)
		}
	})
}
