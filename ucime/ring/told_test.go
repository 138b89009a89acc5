package ring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

type lockedWriter struct {
	to io.Writer
	mu *sync.Mutex
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}

func linesTo(w io.Writer, mu *sync.Mutex) *slog.Logger {
	return slog.New(slog.NewTextHandler(lockedWriter{w, mu}, nil))
}

func plainGossip(t testing.TB) *gossip {
	n, err := newNode(newAuthority(t).identity(t, true, peer("boot")), "", 1, 10, func() time.Time { return epoch })
	if err != nil {
		t.Fatal(err)
	}
	if err := n.govern(cheapSettings()); err != nil {
		t.Fatal(err)
	}
	return newGossip(&wire{n: n}, n.addr, 0, func() {}, slog.New(slog.DiscardHandler))
}

// Nobody signs an incarnation, and a member answers an accusation with the next one: one with the last there is would leave it without an answer for good.
func TestIncarnationsAreBounded(t *testing.T) {
	g := plainGossip(t)
	now := uint64(epoch.Unix())
	for _, x := range []struct {
		kind        byte
		incarnation uint64
		pass        bool
	}{
		{mlDead, 3, true},
		{mlSuspect, now, true},
		{mlDead, now, true},
		{mlSuspect, now + 1, false},
		{mlDead, now + 1, false},
		{mlDead, 1<<32 - 1, false},
	} {
		told := &told{name: "somebody", from: "somebody else", incarnation: x.incarnation}
		b := append([]byte{x.kind}, told.encode(x.kind)...)
		if got := g.sift(b, peer("x")); bytes.Equal(got, b) != x.pass || (got != nil) != x.pass {
			t.Errorf("message %d with incarnation %d: %x, want passed %t", x.kind, x.incarnation, got, x.pass)
		}
	}
	// The accused is heard at any moment: its answer is ahead of the worst that can be said of it.
	if highest(true, epoch) < highest(false, epoch)+1 {
		t.Error("an accused member has no answer")
	}
	for state, most := range map[uint64]uint64{mlStateAlive: now + aliveAhead, 1: now, 2: now, 3: now} {
		in := &told{name: "somebody", incarnation: 1<<32 - 1, state: state}
		b, err := g.entry(bytes.NewReader(in.encode(mlPushPull)), peer("x"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := readTold(bytes.NewReader(b), mlPushPull)
		if err != nil || out.incarnation != most {
			t.Errorf("state %d: incarnation %d, %v, want %d", state, out.incarnation, err, most)
		}
	}
}

// Of a packet's messages those pass that may, whatever stands beside them.
func TestPacketsAreSifted(t *testing.T) {
	g := plainGossip(t)
	pack := func(parts ...[]byte) []byte {
		b := []byte{mlCompound, byte(len(parts))}
		for _, p := range parts {
			b = append(b, byte(len(p)>>8), byte(len(p)))
		}
		return append(b, bytes.Join(parts, nil)...)
	}
	ping, ack := []byte{0, 1}, []byte{2, 1, 2}
	high := append([]byte{mlDead}, (&told{name: "m", from: "x", incarnation: 1<<32 - 1}).encode(mlDead)...)
	low := append([]byte{mlDead}, (&told{name: "m", from: "x", incarnation: 1}).encode(mlDead)...)
	user := []byte{mlUser, 77, 1}
	for what, x := range map[string]struct{ in, want []byte }{
		"all":                   {pack(ping, low, ack), pack(ping, low, ack)},
		"a part":                {pack(ping, high, user, low), pack(ping, low)},
		"one":                   {pack(high, ping), ping},
		"none":                  {pack(high, user), nil},
		"with a checksum":       {append([]byte{mlCRC, 0, 0, 0, 0}, pack(high, ping)...), ping},
		"alone":                 {low, low},
		"an alive of nobody":    {append([]byte{mlAlive}, (&told{name: "m"}).encode(mlAlive)...), nil},
		"left-over bytes":       {append(bytes.Clone(low), 0), nil},
		"a field twice":         {bytes.Replace(low, []byte("\xa4From"), []byte("\xa4Node"), 1), nil},
		"a field that is not":   {bytes.Replace(low, []byte("\xa4From"), []byte("\xa4Form"), 1), nil},
		"an empty user message": {[]byte{mlUser}, nil},
	} {
		if got := g.sift(x.in, peer("x")); !bytes.Equal(got, x.want) {
			t.Errorf("%s: %x, want %x", what, got, x.want)
		}
	}
}

// Settings and tokens that do not verify are charged to who passes them on.
func TestForgedSettingsAreCharged(t *testing.T) {
	g := plainGossip(t)
	forged := g.w.n.settings.clone()
	forged.Sequence += 10
	forged.signature = make([]byte, 70)
	for range forgedBurst + 50 {
		g.hearFrom(userSettings, forged.encode(), peer("villain"))
	}
	if got := g.w.n.count.SettingsRefused; got != forgedBurst {
		t.Errorf("%d forged settings were looked at, want %d", got, forgedBurst)
	}
	for range forgedBurst + 50 { // what everybody passes on and everybody knows
		g.hearFrom(userSettings, g.w.n.raw, peer("honest"))
	}
	g.hearFrom(userSettings, forged.encode(), peer("honest"))
	if got := g.w.n.count.SettingsRefused; got != forgedBurst+1 {
		t.Error("who passes on what is known is charged for it")
	}
}

func FuzzTold(f *testing.F) {
	f.Add(byte(mlAlive), (&told{name: "n", addr: []byte{1, 2, 3, 4}, port: 5, meta: []byte{6}, incarnation: 7, versions: []byte{1, 5, 2, 0, 0, 0}}).encode(mlAlive))
	f.Add(byte(mlDead), []byte("\x83\xabIncarnation\x01\xa4From\xa1a\xa4Node\xa1b"))
	f.Add(byte(mlPushPull), []byte("\x87\xabIncarnation\x01\xa4Addr\xa4\x7f\x00\x00\x01\xa4Meta\xc0\xa4Name\xa1b\xa4Port\xcd\x17\xc4\xa5State\x00\xa3Vsn\xa6\x01\x05\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		if kind != mlAlive && kind != mlSuspect && kind != mlDead && kind != mlPushPull || len(b) > 2048 {
			return
		}
		x, err := readTold(bytes.NewReader(b), kind)
		if err != nil {
			return
		}
		out := x.encode(kind)
		y, err := readTold(bytes.NewReader(out), kind)
		if err != nil || !bytes.Equal(y.encode(kind), out) || y.name != x.name || y.incarnation != x.incarnation || !bytes.Equal(y.meta, x.meta) {
			t.Errorf("%+v became %+v, %v", x, y, err)
		}
	})
}

// FuzzSift: what passes can be screened again, and nothing of it is longer than a packet may be.
func FuzzSift(f *testing.F) {
	g := plainGossip(f)
	dead := append([]byte{mlDead}, (&told{name: "m", from: "x", incarnation: 1}).encode(mlDead)...)
	f.Add(dead)
	f.Add(append([]byte{mlCompound, 2, 0, byte(len(dead)), 0, 1}, append(bytes.Clone(dead), 0)...))
	f.Add([]byte{mlUser, userToken, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2048 || screen(b, 0) != nil {
			return
		}
		if out := g.sift(b, learn.PeerID{1}); out != nil && screen(out, 0) != nil {
			t.Errorf("%x became %x", b, out)
		}
	})
}

// Why a member is not admitted is told, and not again for each try because the error names another port.
func TestFailedJoinsAreToldOnce(t *testing.T) {
	var log bytes.Buffer
	var c clock
	c.t = epoch
	r := &Ring{cfg: Config{Now: c.now, Log: slog.New(slog.NewTextHandler(&log, nil))}}
	told := func(want int) {
		t.Helper()
		if got := bytes.Count(log.Bytes(), []byte("not admitted")); got != want {
			t.Errorf("told %d times, want %d: %s", got, want, log.String())
		}
	}
	for i := range 100 {
		c.add(askEvery)
		r.noteJoin(fmt.Errorf("read tcp 192.0.2.1:%d: connection reset by peer", 30000+i))
	}
	told(1)
	c.add(joinToldEvery)
	r.noteJoin(errors.New("banned"))
	told(2)
	r.noteJoin(nil)
	r.noteJoin(errors.New("banned"))
	told(3)
}
