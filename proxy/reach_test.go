package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"imeproxy/sipalg/dialog"
)

// reachWorld has a session that the appliance opens by itself to send a BYE to a call agent, at a time that the test tells.
type reachWorld struct {
	t    *testing.T
	a    *Appliance
	s    *session
	k    *conn
	peer net.Conn
	now  time.Time
	log  bytes.Buffer
}

func newReachWorld(t *testing.T) *reachWorld {
	t.Helper()
	counters, err := newCounters()
	if err != nil {
		t.Fatal(err)
	}
	w := &reachWorld{t: t, now: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	w.a = &Appliance{ctx: ctx, log: slog.New(slog.NewTextHandler(&w.log, nil)), counters: counters, sessions: newSessions(), now: func() time.Time { return w.now }}
	w.a.plan.Store(testPlan(t, edgeConfig))
	remote := netip.MustParseAddrPort("209.165.201.3:5070")
	agent := &callAgent{real: netip.MustParseAddr("192.168.10.30"), hide: netip.MustParseAddr("209.165.200.227")}
	c := &call{agent: agent, last: &session{agent: agent, remote: remote}}
	w.s = w.a.reachSession(c, remote, dialog.Inside)
	t.Cleanup(func() {
		cancel()
		w.s.end("the test is over")
		w.a.wg.Wait()
	})
	return w
}

// connect has the call agent answer: the session gets its connection.
func (w *reachWorld) connect() {
	w.t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	if w.peer, err = l.Accept(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.peer.Close() })
	if err := w.peer.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	out := newOutbox(here)
	w.k = newConn(out, out)
	if !w.s.attach(w.k, dialog.Inside) {
		w.t.Fatal("the session has ended")
	}
	w.a.wg.Go(func() { w.s.read(w.k, dialog.Inside) })
}

// heard is when the call agent was heard last.
func (w *reachWorld) heard() time.Time { return time.Unix(0, w.k.lastRead.Load()) }

// sweep looks at the sessions at a time, and tells whether the one is still there.
func (w *reachWorld) sweep(at time.Time) bool {
	w.now = at
	w.a.sweepSessions(at)
	list, _ := w.a.sessions.snapshot()
	return len(list) == 1 && list[0] == w.s
}

// A session that was opened for a BYE has done its work when a minute has passed without a message: nobody else knows that it is there.
func TestSessionForByeEnds(t *testing.T) {
	w := newReachWorld(t)
	w.connect()
	first := w.heard()
	if !w.sweep(first.Add(reachIdle)) {
		t.Fatal("ended within the minute")
	}
	// A message, as the answer to the BYE, begins the minute anew.
	if _, err := w.peer.Write([]byte("\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(w.peer, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if !w.sweep(first.Add(reachIdle + 1)) {
		t.Fatal("ended although a message has come")
	}
	// A call that came over it keeps it.
	w.s.mu.Lock()
	w.s.calls = 1
	w.s.mu.Unlock()
	if !w.sweep(w.heard().Add(2 * reachIdle)) {
		t.Fatal("ended although a call stands")
	}
	w.s.mu.Lock()
	w.s.calls = 0
	w.s.mu.Unlock()
	if w.sweep(w.heard().Add(reachIdle + 1)) {
		t.Fatal("stands after a minute without a message")
	}
	if _, err := w.peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the call agent's connection: %v, must be closed", err)
	}
	if !strings.Contains(w.log.String(), "reason=idle") {
		t.Errorf("the log does not tell why:\n%s", w.log.String())
	}
}

// The minute begins with the session, not with its connection: one that is still being opened is not taken for one that is done, or its BYE
// would never be sent.
func TestSessionForByeIsOpenedInPeace(t *testing.T) {
	w := newReachWorld(t)
	if !w.sweep(w.now.Add(openTimeout)) {
		t.Fatal("ended before its connection stood")
	}
	w.connect()
}

// Others are left half an hour.
func TestIdleSessionEnds(t *testing.T) {
	w := newReachWorld(t)
	w.s.ours = false
	w.connect()
	if !w.sweep(w.heard().Add(sessionIdle)) {
		t.Error("ended within the half hour")
	}
	if w.sweep(w.heard().Add(sessionIdle + 1)) {
		t.Error("stands after half an hour without a message")
	}
}

// OPTIONS that waited for a look at a call agent which does not answer need none of their own, or each would hold up those behind it, and calls.
func TestOneLookServesWhoWaited(t *testing.T) {
	w := newReachWorld(t)
	g := w.s.agent
	g.health = &agentHealth{}
	looks, dead := 0, errors.New("no answer")
	look := func() bool {
		return w.a.look(g, func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the look has no end")
			}
			looks++
			w.now = w.now.Add(openTimeout) // the others come to wait meanwhile
			return dead
		})
	}
	for range 10 {
		if look() {
			t.Fatal("a call agent that does not answer is reachable")
		}
	}
	if looks != 1 {
		t.Errorf("%d looks for ten that waited", looks)
	}
	w.now = w.now.Add(time.Second)
	if dead = nil; !look() || looks != 2 {
		t.Error("a second later nobody looks again")
	}
}
