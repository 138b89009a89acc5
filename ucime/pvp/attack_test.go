package pvp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cloudflare/circl/group"

	"imeproxy/ucime/learn"
)

// records returns type and length of the TLS records of one direction.
func records(t *testing.T, b []byte) (lengths []int) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 5 {
			t.Fatalf("%d bytes after the last record", len(b))
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		lengths = append(lengths, int(b[0])<<16|n)
		b = b[min(len(b), 5+n):]
	}
	return lengths
}

// A passive observer sees nothing of the call: no fact in the clear, and sizes that are the same for every call.
func TestPassiveObserver(t *testing.T) {
	w := newWorld(t, nil)
	long := callOf()
	long.Called, long.Caller = "+498955501234567", ""
	long.Start, long.Stop = began.Add(time.Hour), began.Add(3*time.Hour)
	shapes := map[string][2][]int{}
	c := w.client(peerA)
	for i, v := range []learn.VCR{callOf(), long} {
		w.add(uint64(i), seenBy(v, 0, 0))
		r := newRelay(t, w.addr)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		got := c.Validate(ctx, r.addr, peerB, v, WithoutCaller)
		cancel()
		if got.Outcome != Success {
			t.Fatalf("%+v", got)
		}
		until(t, "the end of the connection", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.ended == 2
		})
		r.mu.Lock()
		all := slices.Concat(r.up.Bytes(), r.down.Bytes())
		for _, secret := range [][]byte{
			[]byte(v.Called), []byte(v.Called[1:]), []byte("a.example"), []byte("b.example"), []byte(got.Grant.Ticket[:32]), peerA[:], peerB[:],
			[]byte(peerA.String()), []byte(peerB.String()), binary.BigEndian.AppendUint64(nil, nearest(v.Start)),
		} {
			if bytes.Contains(all, secret) {
				t.Errorf("%q is to be seen on the wire", secret)
			}
		}
		if len(all) > 16_500 { // docs/scale.md says 16 kB
			t.Errorf("%d bytes on the wire", len(all))
		}
		shapes[string(v.Called)] = [2][]int{records(t, r.up.Bytes()), records(t, r.down.Bytes())}
		r.mu.Unlock()
	}
	a, b := shapes[string(callOf().Called)], shapes[string(long.Called)]
	for i := range a {
		// The handshake's flights differ by some bytes of ECDSA signatures; the frames come last.
		tail := 3 // START, FINISH, close_notify; OFFER, ANSWER, close_notify
		if len(a[i]) != len(b[i]) || !slices.Equal(a[i][len(a[i])-tail:], b[i][len(b[i])-tail:]) {
			t.Errorf("direction %d: records of %v for one call, %v for the other", i, a[i], b[i])
		}
	}
}

// liar is a peer with a good certificate that took no part in any call. It keeps all that it is sent; answer makes its OFFER.
type liar struct {
	addr   string
	frames [][]byte // types and bodies
	done   chan struct{}
}

func newLiar(t *testing.T, m *member, answer func(st *start, exporter []byte, run int) []byte) *liar {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", tlsConfig(m, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{addr: ln.Addr().String(), done: make(chan struct{})}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		defer close(l.done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		for run := 0; ; run++ {
			kind, body, err := readFrame(conn, frameStart, frameFinish)
			if err != nil {
				return
			}
			l.frames = append(l.frames, append([]byte{kind}, body...))
			if kind == frameFinish {
				return
			}
			st, err := decodeStart(body)
			if err != nil {
				return
			}
			exporter, err := binding(conn.(*tls.Conn).ConnectionState())
			if err != nil {
				return
			}
			offer := answer(st, exporter, run)
			if offer == nil {
				return
			}
			if writeFrame(conn, frameOffer, offer) != nil {
				return
			}
		}
	}()
	return l
}

// guesses makes an OFFER of up to 64 passwords.
func guesses(st *start, exporter []byte, run int, passwords [][]byte) []byte {
	sid := sessionID(exporter, run)
	ya, err := decodePoint(st.public[:])
	if err != nil {
		return nil
	}
	var o [slots]slot
	for i := range o {
		p := decoyPassword(st.method)
		if i < len(passwords) {
			p = passwords[i]
		}
		adb := []byte{byte(i)}
		sh := newShare(p, st.ci(), sid)
		keys := deriveKeys(sid, sh.secret(ya), st.public, st.ada(), sh.public, adb)
		tag := keys.tag(sh.public, adb)
		o[i] = slot{sh.public, [shortTag]byte(tag[:])}
	}
	return encodeOffer(&o)
}

// A liar that claims the number sees, of calls with whatever caller and times, the same bytes but for Ya, and never a FINISH.
func TestLiarLearnsNothingOfTheCall(t *testing.T) {
	ring := newAuthority(t)
	c, err := NewClient(ClientConfig{Identity: ring.member(t, peerA), Own: peerA, Domain: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	other := callOf()
	other.Caller, other.Start, other.Stop = "+4915150001234", began.Add(-25*time.Hour), began.Add(-24*time.Hour)
	var seen [][][]byte
	for _, v := range []learn.VCR{callOf(), other} {
		l := newLiar(t, ring.member(t, peerB), func(st *start, e []byte, run int) []byte { return guesses(st, e, run, nil) })
		r := c.Validate(context.Background(), l.addr, peerB, v, WithCaller)
		<-l.done
		if r.Outcome != FailedProof || r.Runs != len(shifts) {
			t.Fatalf("%+v", r)
		}
		seen = append(seen, l.frames)
	}
	points := map[string]bool{}
	if len(seen[0]) != len(shifts) || len(seen[1]) != len(shifts) {
		t.Fatalf("%d and %d frames, want %d of either", len(seen[0]), len(seen[1]), len(shifts))
	}
	for run := range seen[0] {
		for _, s := range seen {
			f := s[run]
			if f[0] != frameStart {
				t.Fatalf("the liar was sent frame %d", f[0])
			}
			if !bytes.Equal(f[:1+adaSize], seen[0][0][:1+adaSize]) {
				t.Errorf("run %d differs in more than Ya: %x", run, f)
			}
			points[string(f[1+adaSize:])] = true
		}
	}
	if len(points) != 2*len(shifts) {
		t.Errorf("%d different points in %d runs: scalars are not fresh", len(points), 2*len(shifts))
	}
}

// Ya is a random multiple of the password's generator: for any other password there is a scalar that gives it too. Shown
// with scalars that are known to the test: Ya of one password is a valid share of the other.
func TestShareFitsEveryPassword(t *testing.T) {
	one, other := originatorPassword(WithCaller, callOf(), 0), originatorPassword(WithCaller, callOf(), 1)
	sid := make([]byte, 33)
	sh := newShare(one, nil, sid)
	p, err := decodePoint(sh.public[:])
	if err != nil || p.IsIdentity() {
		t.Fatalf("the share is no element that generates the group: %v", err)
	}
	// In a group of prime order every element but the neutral one is a multiple of every other: both have the full order.
	order := group.Ristretto255.NewScalar().Neg(group.Ristretto255.NewScalar().SetUint64(1)) // order - 1
	for name, e := range map[string]group.Element{"the share": p, "the other generator": generator(other, nil, sid)} {
		minus := group.Ristretto255.NewElement().Mul(e, order)
		if !minus.Add(minus, e).IsIdentity() || e.IsIdentity() {
			t.Errorf("%s is not of the group's order", name)
		}
	}
}

// A liar may guess 64 passwords a run; one that guesses right is one that knows the call. A wrong one is told nothing.
func TestLiarWithGuesses(t *testing.T) {
	ring := newAuthority(t)
	c, err := NewClient(ClientConfig{Identity: ring.member(t, peerA), Own: peerA, Domain: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	near := seenBy(callOf(), 10*time.Second, 10*time.Second) // it knows the minute, not the second
	wrong := terminatorPasswords(WithCaller, near)
	l := newLiar(t, ring.member(t, peerB), func(st *start, e []byte, run int) []byte { return guesses(st, e, run, wrong[:]) })
	r := c.Validate(context.Background(), l.addr, peerB, callOf(), WithCaller)
	<-l.done
	if r.Outcome != FailedProof || len(l.frames) != len(shifts) {
		t.Fatalf("%+v after %d frames", r, len(l.frames))
	}
	right := terminatorPasswords(WithCaller, seenBy(callOf(), 0, 0))
	l = newLiar(t, ring.member(t, peerB), func(st *start, e []byte, run int) []byte { return guesses(st, e, run, right[:]) })
	r = c.Validate(context.Background(), l.addr, peerB, callOf(), WithCaller)
	<-l.done
	if r.Outcome != Refused || r.Code != CodeLost || len(l.frames) != 2 || l.frames[1][0] != frameFinish {
		t.Fatalf("one that knows the call and gives no answer: %+v after %d frames", r, len(l.frames))
	}
	if bytes.Contains(l.frames[1], []byte("a.example")) {
		t.Error("the domain is not sealed")
	}
}

// What a liar does instead of failing does not help it: it is a failure once it has had a guess, else nothing.
func TestLiarThatEvades(t *testing.T) {
	ring := newAuthority(t)
	c, err := NewClient(ClientConfig{Identity: ring.member(t, peerA), Own: peerA, Domain: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	right := terminatorPasswords(WithCaller, seenBy(callOf(), 0, 0))
	for name, d := range map[string]struct {
		answer func(st *start, e []byte, run int) []byte
		want   Outcome
	}{
		"hangs up at once": {func(*start, []byte, int) []byte { return nil }, Unreachable},
		"hangs up afterwards": {func(st *start, e []byte, run int) []byte {
			return map[bool][]byte{true: guesses(st, e, run, nil)}[run == 0]
		}, FailedProof},
		"a bad point in an offer that would match": {func(st *start, e []byte, run int) []byte {
			o := guesses(st, e, run, right[:])
			clear(o[63*slotSize : 63*slotSize+pointSize])
			return o
		}, Unreachable},
		"reflects Ya": {func(st *start, _ []byte, _ int) []byte {
			var o [slots]slot
			for i := range o {
				o[i].public = st.public
			}
			return encodeOffer(&o)
		}, FailedProof},
	} {
		l := newLiar(t, ring.member(t, peerB), d.answer)
		r := c.Validate(context.Background(), l.addr, peerB, callOf(), WithCaller)
		<-l.done
		if r.Outcome != d.want {
			t.Errorf("%s: %+v, want %v", name, r, d.want)
		}
		for _, f := range l.frames {
			if f[0] == frameFinish {
				t.Errorf("%s: got a FINISH", name)
			}
		}
	}
}

// A certified member between two honest ends proves nothing to either with the other's frames: peer IDs and the TLS
// exporter are in the password's generator.
func TestRelayInTheMiddle(t *testing.T) {
	for name, id := range map[string]learn.PeerID{"under its own name": peerC, "under the terminator's name": peerB} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.add(1, seenBy(callOf(), 0, 0))
			// The second case is stronger than what the ring allows: the relay has certificates of both names.
			towardsA, towardsB := w.ring.member(t, id), w.ring.member(t, peerA, peerC)
			ln, err := tls.Listen("tcp", "127.0.0.1:0", tlsConfig(towardsA, time.Now))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			t.Cleanup(func() { _ = ln.Close(); <-done })
			go func() {
				defer close(done)
				in, err := ln.Accept()
				if err != nil {
					return
				}
				defer func() { _ = in.Close() }()
				out, err := tls.Dial("tcp", w.addr, tlsConfig(towardsB, time.Now))
				if err != nil {
					return
				}
				defer func() { _ = out.Close() }()
				for {
					kind, body, err := readFrame(in, frameStart, frameFinish)
					if err != nil {
						return
					}
					copy(body[20:36], peerB[:]) // what the terminator expects to read
					if writeFrame(out, kind, body) != nil {
						return
					}
					kind, body, err = readFrame(out, frameOffer, frameAnswer, frameBusy)
					if err != nil || writeFrame(in, kind, body) != nil {
						return
					}
				}
			}()
			r := w.client(peerA).Validate(context.Background(), ln.Addr().String(), id, callOf(), WithCaller)
			if r.Outcome != FailedProof || r.Runs != len(shifts) {
				t.Fatalf("%+v", r)
			}
			if w.counters.Proofs.Load() != 0 || w.index.Len() != 1 {
				t.Fatal("the terminator took the relay's proof")
			}
		})
	}
}

// An originator that guesses sees the same whether there is a call or not, and runs out of guesses.
func TestGuessingOriginator(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.PeerBurst = 1000 })
	w.add(1, seenBy(callOf(), 0, 0))
	wrong := callOf()
	wrong.Start = wrong.Start.Add(-time.Minute)
	none := callOf()
	none.Called = "+14085550000" // nobody called it
	c := w.client(peerC)
	for range 3 {
		a, b := w.validate(c, wrong, WithoutCaller), w.validate(c, none, WithoutCaller)
		if a.Outcome != FailedProof || b.Outcome != FailedProof || a.Runs != b.Runs || a.Err.Error() != b.Err.Error() {
			t.Fatalf("a call that there was: %+v, one that there was not: %+v", a, b)
		}
	}
	// Nine runs were tried and eight are allowed: even the truth helps no more, and others still have their guesses.
	if r := w.validate(c, callOf(), WithoutCaller); r.Outcome != FailedProof {
		t.Fatalf("the guesser: %+v", r)
	}
	if r := w.validate(w.client(peerA), callOf(), WithoutCaller); r.Outcome != Success {
		t.Fatalf("the originator: %+v", r)
	}
	until(t, "wrong guesses counted", func() bool { return w.counters.WrongGuesses.Load() == 21 })
}

// All 64 slots of an OFFER are elements, different ones in each run, and say nothing of where a match is.
func TestOffersLookAlike(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) {
		c.Limits.PeerBurst, c.Limits.Guesses, c.Limits.GuessesPerPeer = 1000, 1000, 1000
	})
	w.add(1, seenBy(callOf(), 0, 0))
	v := &session{server: w.server, peer: peerA, ids: []learn.PeerID{peerA}, own: []learn.PeerID{peerB}}
	seen, places := map[[pointSize]byte]bool{}, map[int]bool{}
	for run := range 12 {
		st := &start{method: WithCaller, selector: Selector(callOf().Called), originator: peerA, terminator: peerB}
		sid := sessionID(make([]byte, 32), run)
		sh := newShare(originatorPassword(WithCaller, callOf(), 0), st.ci(), sid)
		st.public = sh.public
		offer := v.offer(st, sid)
		for i := range offer {
			if seen[offer[i].public] {
				t.Fatalf("slot %d has a point that was seen before", i)
			}
			seen[offer[i].public] = true
		}
		points, err := decodePoints(offer)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := search(st, sid, sh, offer, points)
		if at < 0 {
			t.Fatal("no match")
		}
		places[at] = true
	}
	if len(places) < 4 { // 12 draws of 64 with fewer than four values: 1 in 10^14
		t.Errorf("matches stand in %v only", places)
	}
}

// FINISH needs the key of its own run: neither a forged one nor one of an earlier connection is obeyed.
func TestForgedFinish(t *testing.T) {
	w := newWorld(t, nil)
	w.add(1, seenBy(callOf(), 0, 0))
	// First a good validation whose frames are kept, with the VCR put back afterwards.
	l := newLiar(t, w.ring.member(t, peerB), func(st *start, e []byte, run int) []byte {
		p := terminatorPasswords(WithCaller, seenBy(callOf(), 0, 0))
		return guesses(st, e, run, p[:])
	})
	w.client(peerA).Validate(context.Background(), l.addr, peerB, callOf(), WithCaller)
	<-l.done
	recorded := l.frames[len(l.frames)-1][1:]
	for name, body := range map[string][]byte{"zeros": make([]byte, finishSize), "recorded": recorded} {
		for _, began := range []bool{false, true} {
			conn := w.dialTLS(w.ring.member(t, peerA))
			if began {
				if err := writeFrame(conn, frameStart, l.frames[0][1:]); err != nil {
					t.Fatal(err)
				}
				if _, _, err := readFrame(conn, frameOffer); err != nil {
					t.Fatal(err)
				}
			}
			if err := writeFrame(conn, frameFinish, body); err != nil {
				t.Fatal(err)
			}
			if _, _, err := readFrame(conn, frameAnswer); !errors.Is(err, io.EOF) {
				t.Errorf("%s FINISH, run %v: %v", name, began, err)
			}
		}
	}
	if w.counters.Proofs.Load() != 0 || w.index.Len() != 1 || w.counters.Malformed.Load() != 4 {
		t.Errorf("%d proofs, %d malformed", w.counters.Proofs.Load(), w.counters.Malformed.Load())
	}
}

// Two connections with the same call at the same time: one of them wins.
func TestRaceForOneCall(t *testing.T) {
	w := newWorld(t, nil)
	w.add(1, seenBy(callOf(), 0, 0))
	c := w.client(peerA)
	results := make(chan Result)
	for range 3 {
		go func() { results <- c.Validate(context.Background(), w.addr, peerB, callOf(), WithCaller) }()
	}
	won := 0
	for range 3 {
		r := <-results
		if r.Outcome == Success {
			won++
		} else if r.Outcome != Refused && r.Outcome != FailedProof {
			t.Errorf("%+v", r)
		}
	}
	if won != 1 || len(w.proofs) != 1 {
		t.Fatalf("%d successes, marked %v", won, w.proofs)
	}
}
