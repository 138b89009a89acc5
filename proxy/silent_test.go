package proxy

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"imeproxy/mediaterm"
	"imeproxy/sipalg/dialog"
)

// silentLab is streams between a phone that talks and far ends that do not, by a clock of its own.
type silentLab struct {
	t     *testing.T
	term  *mediaterm.Terminator
	s     *silentEnds
	now   time.Time
	phone *net.UDPConn
	log   bytes.Buffer
}

func newSilentLab(t *testing.T) *silentLab {
	l := &silentLab{t: t, term: testMedia(t, false, 400).term, now: time.Now()}
	l.s = newSilent(slog.New(slog.NewTextHandler(&l.log, nil)), func() time.Time { return l.now })
	l.phone = l.socket("127.0.10.77")
	return l
}

func (l *silentLab) socket(addr string) *net.UDPConn {
	l.t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

func portOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// call makes so many calls of an enterprise that want their media at an address.
func (l *silentLab) call(n int, domain string, to netip.AddrPort) (list []*mediaterm.Stream) {
	l.t.Helper()
	for range n {
		st, err := l.term.NewStream(mediaterm.StreamParams{Inside: testInside, Outside: testOutside, Media: "audio"})
		if err != nil {
			l.t.Fatal(err)
		}
		if err := st.SetCrypto(mediaterm.Outside, nil, nil); err != nil {
			l.t.Fatal(err)
		}
		if err := st.SetRemote(mediaterm.Inside, mediaterm.Remote{RTP: portOf(l.phone)}); err != nil {
			l.t.Fatal(err)
		}
		if err := l.s.setRemote(st, domain, mediaterm.Remote{RTP: to}); err != nil {
			l.t.Fatal(err)
		}
		list = append(list, st)
	}
	return list
}

func sentAndHeld(st *mediaterm.Stream) (sent, held uint64) {
	o := st.Stats().Outside
	return o.TxRTPPackets, o.Drops.TxHeld
}

// talk has the phone say one word in each call, and gives how many of them were sent on.
func (l *silentLab) talk(list []*mediaterm.Stream) (on int) {
	l.t.Helper()
	word := append([]byte{0x80, 0, 0, 1}, make([]byte, 168)...)
	for _, st := range list {
		sent, held := sentAndHeld(st)
		if _, err := l.phone.WriteToUDPAddrPort(word, st.Local(mediaterm.Inside)); err != nil {
			l.t.Fatal(err)
		}
		s := sent
		l.until("a packet of the phone arrives", func() bool {
			var h uint64
			s, h = sentAndHeld(st)
			return s+h > sent+held
		})
		on += int(s - sent)
	}
	return on
}

// answer lets the far end of a call say a word.
func (l *silentLab) answer(st *mediaterm.Stream, from *net.UDPConn) {
	l.t.Helper()
	if _, err := from.WriteToUDPAddrPort(append([]byte{0x80, 0, 0, 1}, make([]byte, 168)...), st.Local(mediaterm.Outside)); err != nil {
		l.t.Fatal(err)
	}
	l.until("a packet of the far end arrives", func() bool {
		from, _, _ := st.Heard(mediaterm.Outside)
		return from.IsValid()
	})
}

func (l *silentLab) until(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			l.t.Fatalf("not so in 10 s: %s", what)
		}
	}
}

func (l *silentLab) wait(d time.Duration) {
	l.now = l.now.Add(d)
	l.s.sweep(l.now)
}

func (l *silentLab) counts(now int, ever uint64) {
	l.t.Helper()
	if n, e := l.s.counts(); n != now || e != ever {
		l.t.Errorf("%d streams are withheld and %d were, want %d and %d", n, e, now, ever)
	}
}

// Somebody with a ticket for an answering machine names an address that is not his in many calls.
func TestMediaToSilentEndsIsBounded(t *testing.T) {
	l := newSilentLab(t)
	victim, other := l.socket("127.0.30.7"), l.socket("127.0.31.7")
	calls := l.call(maxSilent+8, "b.example", portOf(victim))
	if n := l.talk(calls); n != len(calls) {
		t.Errorf("%d of %d new calls have sound", n, len(calls))
	}
	l.wait(time.Second)
	l.wait(silentGrace - time.Second)
	l.counts(0, 0) // early media, an announcement
	l.wait(time.Second)
	l.counts(8, 8)
	if n := l.talk(calls); n != maxSilent {
		t.Errorf("%d of %d calls go on, want %d", n, len(calls), maxSilent)
	}
	if n := strings.Count(l.log.String(), mediaWithheld); n != 8 {
		t.Errorf("%d lines are logged", n)
	}
	// Neither another enterprise nor a neighbour's address is more of it, nor the same one again; another network is.
	more := l.call(2, "c.example", netip.MustParseAddrPort("127.0.30.200:4000"))
	l.counts(10, 10)
	if err := l.s.setRemote(calls[maxSilent], "b.example", mediaterm.Remote{RTP: portOf(victim)}); err != nil {
		t.Fatal(err)
	}
	if n := l.talk(append(more, calls[maxSilent])); n != 0 {
		t.Errorf("%d of 3 calls that come later go on", n)
	}
	if n := l.talk(l.call(2, "b.example", portOf(other))); n != 2 {
		t.Error("media to another network is withheld")
	}
	// One whose far end is heard has sound at once.
	own := l.socket("127.0.30.8")
	mine := l.call(1, "b.example", portOf(own))
	if n := l.talk(mine); n != 0 {
		t.Error("a call to a silent network is not withheld")
	}
	l.answer(mine[0], own)
	if n := l.talk(mine); n != 1 {
		t.Error("a call whose far end is heard has no sound")
	}
	l.wait(time.Second)
	if n := l.talk(calls); n != maxSilent {
		t.Errorf("%d calls to an address go on when a neighbour has answered, want %d", n, maxSilent)
	}
	// And with it all of its enterprise that go to that address, those to come too.
	l.answer(calls[0], victim)
	l.wait(time.Second)
	calls = append(calls, l.call(maxSilent+1, "b.example", portOf(victim))...)
	l.wait(2 * silentGrace)
	if n := l.talk(calls); n != len(calls) {
		t.Errorf("%d of %d calls to an end that answers go on", n, len(calls))
	}
	l.counts(0, 12)
}

// An enterprise that has answered somewhere does not speak for others there, nor for ever.
func TestSilentEndsAreOfAnEnterprise(t *testing.T) {
	l := newSilentLab(t)
	far := l.socket("127.0.30.7")
	l.answer(l.call(1, "b.example", portOf(far))[0], far)
	l.wait(time.Second)
	calls := l.call(maxSilent+1, "c.example", portOf(far))
	l.talk(calls)
	l.wait(time.Second)
	l.wait(silentGrace)
	l.counts(1, 1)
	for _, st := range calls[:2] { // others have more room then
		st.Close()
	}
	l.wait(time.Second)
	l.counts(0, 1)
	for _, st := range calls[2:] {
		st.Close()
	}
	l.wait(answersFor)
	calls = l.call(maxSilent+1, "b.example", portOf(far))
	l.talk(calls)
	l.wait(time.Second)
	l.counts(0, 1) // the network was forgotten too
	l.wait(silentGrace)
	l.counts(1, 2)
}

// On hold nothing is sent, and nothing withheld; nor is anything of calls that are silent themselves.
func TestNothingToWithhold(t *testing.T) {
	l := newSilentLab(t)
	calls := l.call(2*maxSilent, "b.example", netip.MustParseAddrPort("127.0.30.7:4000"))
	l.wait(time.Second)
	l.wait(2 * silentGrace)
	l.counts(0, 0)
	l.talk(calls)
	for _, st := range calls {
		if err := l.s.setRemote(st, "b.example", mediaterm.Remote{}); err != nil {
			t.Fatal(err)
		}
	}
	l.wait(time.Second)
	l.wait(2 * silentGrace)
	l.counts(0, 0)
}

// What is remembered of networks and far ends is bounded.
func TestSilentTablesAreBounded(t *testing.T) {
	s := newSilent(slog.New(slog.DiscardHandler), time.Now)
	now := time.Now()
	for i := range maxNetworks + 100 {
		now = now.Add(time.Millisecond)
		end := farEnd{"b.example", netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})}
		if i >= 1<<16 {
			t.Fatal("more networks than this test has")
		}
		s.share(&silentStream{end: end}, now)
		if i < maxAnswering+100 {
			s.remember(end, now)
			s.remember(end, now)
		}
	}
	if len(s.networks) > maxNetworks || len(s.answering) > maxAnswering {
		t.Errorf("%d networks and %d far ends are remembered", len(s.networks), len(s.answering))
	}
	if _, ok := s.answering[farEnd{"b.example", netip.AddrFrom4([4]byte{10, 0, 0, 1})}]; ok {
		t.Error("not the oldest has made room")
	}
}

// Every answer tells whose media goes where.
func TestAnswersTellSilentEnds(t *testing.T) {
	m := testMedia(t, false, 100)
	m.silent, m.domain = newSilent(slog.New(slog.DiscardHandler), time.Now), "b.example"
	x, _, err := m.makeOffer(body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80), dialog.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.makeAnswer(x, body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), "tag"); err != nil {
		t.Fatal(err)
	}
	got := m.silent.of[m.lines[0].stream]
	if got == nil || got.end != (farEnd{"b.example", netip.MustParseAddr("198.51.100.7")}) {
		t.Errorf("what goes to the far end is not watched: %+v", got)
	}
}
