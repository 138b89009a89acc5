package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"imeproxy/mediaterm"
	"imeproxy/proxy/observe"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
)

// walk is a session whose two ends say whatever the bytes of a fuzzer make them say.
type walk struct {
	t    *testing.T
	a    *Appliance
	s    *session
	now  time.Time
	sent []walkRequest
	cseq int
	in   []byte

	callID string
}

// walkRequest is a request that may be answered.
type walkRequest struct {
	method, branch, from, to string
	cseq                     int
	side                     dialog.Side
}

func newWalk(t *testing.T, in []byte) *walk {
	t.Helper()
	w := &walk{t: t, now: time.Now(), in: in, callID: "c"}
	log := slog.New(slog.DiscardHandler)
	a := &Appliance{now: func() time.Time { return w.now }, log: log, sealer: sipalg.NewSealer([32]byte{1}), sessions: newSessions(), calls: newCalls(), agenda: newAgenda(w.now)}
	a.limiter = tlsproxy.NewLimiter(1)
	a.ctx, a.cancel = context.WithCancel(t.Context())
	a.quality = newQuality(a)
	var err error
	if a.store, err = tlsproxy.OpenStore(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if a.counters, err = newCounters(); err != nil {
		t.Fatal(err)
	}
	if a.records, err = observe.NewRecordWriter(observe.RecordConfig{Log: log}); err != nil {
		t.Fatal(err)
	}
	term, err := mediaterm.New(mediaterm.Config{Addresses: []netip.Addr{testInside, testOutside}, MinPort: 23000, MaxPort: 23999, Rest: -1})
	if err != nil {
		t.Fatal(err)
	}
	a.term.Store(term)
	p := testPlan(t, edgeConfig)
	p.mediaAddr = [2]netip.Addr{testInside, testOutside}
	a.plan.Store(p)
	w.a = a
	w.s = &session{
		a: a, opener: dialog.Inside, agent: p.agents[netip.MustParseAddr("192.168.10.30")], remote: netip.MustParseAddrPort("198.51.100.9:5061"),
		mapped: netip.MustParseAddrPort("209.165.200.227:5070"), agentPort: 5070, class: p.classes[0],
	}
	w.s.rw = a.rewriter(w.s)
	a.guard.peers = map[netip.Addr]time.Time{w.s.remote.Addr(): w.now.Add(10000 * time.Hour)} // there is no kernel to be told
	for side := range w.s.conns {
		k, peer := pair(t)
		k.domains = []string{"b.example"}
		w.s.conns[side] = k
		go func() { _, _ = io.Copy(io.Discard, peer) }()
	}
	a.sessions.add(w.s)
	t.Cleanup(func() {
		a.cancel()
		w.s.end("done")
		a.wg.Wait()
		_ = a.records.Close()
		if err := term.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// pick takes the next byte for one of n choices.
func (w *walk) pick(n int) int {
	if len(w.in) == 0 {
		return 0
	}
	b := w.in[0]
	w.in = w.in[1:]
	return int(b) % n
}

func (w *walk) say(side dialog.Side, start string, r walkRequest, extra string) {
	body := w.body(side)
	text := start + "\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK" + r.branch + "\r\nFrom: <sip:f@h>" + tagged(r.from) + "\r\nTo: <sip:t@h>" + tagged(r.to) +
		fmt.Sprintf("\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:x@192.168.10.30>\r\n", w.callID, r.cseq, r.method) + extra
	if body != "" {
		text += "Content-Type: application/sdp\r\n"
	}
	m, v := sipalg.Parse(fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", text, len(body), body))
	if v == nil {
		v = sipalg.Check(m)
	}
	if v != nil {
		w.t.Fatalf("%v\n%s", v, text)
	}
	w.s.handle(m, side)
}

func tagged(tag string) string {
	if tag == "" {
		return ""
	}
	return ";tag=" + tag
}

// body makes a description of none to three lines, which may be off, on hold, not usable, or of a kind that is refused.
func (w *walk) body(side dialog.Side) string {
	n := w.pick(5)
	if n == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("v=0\r\no=- 1 1 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\n")
	for i := range n - 1 {
		port, profile := 4000+2*i, "RTP/AVP"
		if side == dialog.Outside {
			profile = "RTP/SAVP"
		}
		what := w.pick(16)
		switch what {
		case 0, 1:
			port = 0
		case 2:
			profile = "udptl"
		}
		fmt.Fprintf(&b, "m=audio %d %s 0\r\n", port, profile)
		switch what {
		case 3:
			b.WriteString("c=IN IP4 0.0.0.0\r\n")
		case 4:
			b.WriteString("c=IN IP4 127.0.0.1\r\n")
		}
		if side == dialog.Outside {
			b.WriteString(key80 + "\r\n")
		}
	}
	return b.String()
}

var (
	walkMethods  = []string{"INVITE", "UPDATE", "PRACK", "ACK", "BYE", "CANCEL", "INFO", "REFER", "NOTIFY", "SUBSCRIBE", "OPTIONS", "MESSAGE"}
	walkStatuses = []int{200, 183, 100, 180, 491, 486, 302, 407, 481, 408, 202}
	walkTargets  = [2]string{"sip:t@b.example", "sip:x@192.168.10.30"}
	walkTags     = []string{"b", "b2", ""}
)

// step lets one end say something, or time pass.
func (w *walk) step() {
	switch w.pick(8) {
	case 0:
		w.now = w.now.Add([]time.Duration{time.Second, 33 * time.Second, 190 * time.Second}[w.pick(3)])
		w.a.sweepCalls(w.now)
	case 1: // a request that opens a call, or a repeat of it
		w.cseq += w.pick(2)
		r := walkRequest{method: []string{"INVITE", "INVITE", "SUBSCRIBE", "REFER", "MESSAGE"}[w.pick(5)], branch: fmt.Sprint("o", w.cseq), from: "a", cseq: w.cseq + 1}
		w.request(dialog.Inside, r)
	case 2, 3: // one within a dialog
		w.cseq++
		r := walkRequest{method: walkMethods[w.pick(len(walkMethods))], branch: fmt.Sprint("d", w.cseq), from: "a", to: walkTags[w.pick(2)], cseq: w.cseq + 1}
		side := dialog.Side(w.pick(2))
		if side == dialog.Outside {
			r.from, r.to = r.to, r.from
		}
		if len(w.sent) > 0 && (r.method == "ACK" || r.method == "CANCEL") {
			of := w.sent[w.pick(len(w.sent))]
			if r.cseq = of.cseq; w.pick(2) == 0 {
				r.branch, side = of.branch, of.side
			}
		}
		w.request(side, r)
	default:
		if len(w.sent) == 0 {
			return
		}
		r := w.sent[len(w.sent)-1-w.pick(min(len(w.sent), 4))]
		status := walkStatuses[w.pick(len(walkStatuses))]
		if r.to == "" && status > 100 {
			r.to = walkTags[w.pick(3)]
		}
		extra := ""
		if status == 183 && w.pick(2) == 0 {
			extra = fmt.Sprintf("Require: 100rel\r\nRSeq: %d\r\n", 1+w.pick(2))
		}
		w.say(r.side.Other(), fmt.Sprintf("SIP/2.0 %d X", status), r, extra)
	}
}

func (w *walk) request(side dialog.Side, r walkRequest) {
	r.side = side
	extra := "Event: refer\r\nSubscription-State: active;expires=60\r\nRefer-To: <sip:x@192.168.10.30>\r\n"
	if r.method == "PRACK" {
		extra += fmt.Sprintf("RAck: %d %d INVITE\r\n", 1+w.pick(2), 1+w.pick(w.cseq+1))
	}
	if r.method == "REFER" || r.method == "INVITE" && r.cseq%2 == 0 {
		extra += strings.Repeat("X-Large: "+strings.Repeat("x", 3000)+"\r\n", 3)
	}
	w.sent = append(w.sent, r)
	w.say(side, r.method+" "+walkTargets[side]+" SIP/2.0", r, extra)
}

// FuzzCall lets both ends of a call say anything in any order. Nothing may fail, and nothing may be left when they have fallen silent.
func FuzzCall(f *testing.F) {
	f.Add([]byte("10027")) // a re-INVITE and an UPDATE that cross and come to nothing, a REFER outside a dialog
	f.Add([]byte{1, 0, 0, 2, 5, 4, 0, 0, 0, 2, 5, 2, 0, 0, 0, 3, 5, 5, 3, 1, 0, 1, 4, 5, 5, 5, 4, 1, 4, 0, 4, 0, 4, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) <= 400 {
			walkThrough(t, in)
		}
	})
}

// The same for a hundred talks that are no fuzzer's.
func TestCallsLeaveNothing(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		in := make([]byte, 400)
		for i := range in {
			in[i] = byte(r.Uint32())
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { walkThrough(t, in) })
	}
}

func walkThrough(t *testing.T, in []byte) {
	w := newWalk(t, in)
	walkTo(t, w)
	if n := len(w.a.calls.snapshot()); n != 0 {
		t.Errorf("%d calls are left", n)
	}
	if n := w.a.term.Load().Counters().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
	if n := w.a.quality.watchedCalls(); n != 0 {
		t.Errorf("%d calls are watched still", n)
	}
	if n := w.a.held.Load(); n != 0 {
		t.Errorf("%d bytes of requests are held still", n)
	}
	if w.s.calls != 0 {
		t.Errorf("the session counts %d calls", w.s.calls)
	}
}

// walkTo lets the ends say all they have to say, and time pass until nothing of it should be left.
func walkTo(t *testing.T, w *walk) {
	t.Helper()
	for len(w.in) > 0 {
		w.step()
	}
	for range 40 {
		w.now = w.now.Add(3 * time.Minute)
		w.a.sweepCalls(w.now)
	}
	for range 10 {
		w.now = w.now.Add(3 * time.Hour)
		w.a.sweepCalls(w.now)
	}
	// A call that was answered stands while its session does: hang it up.
	for _, c := range w.a.calls.snapshot() {
		c.mu.Lock()
		if c.d.HasInvite() {
			w.a.hangUp(c, "shutdown")
		}
		c.mu.Unlock()
	}
	for range 3 {
		w.now = w.now.Add(3 * time.Minute)
		w.a.sweepCalls(w.now)
	}
}

// settle waits until the ends have read most of what was sent to them: one that does not read loses its connection.
func (w *walk) settle() {
	for _, k := range w.s.conns {
		for waiting := maxWaiting; waiting > maxWaiting/4; runtime.Gosched() {
			k.out.mu.Lock()
			waiting = len(k.out.buf)
			k.out.mu.Unlock()
			if w.t.Context().Err() != nil {
				return
			}
		}
	}
}

// Large requests that nobody answers are kept up to a limit in all; small ones pass on.
func TestLargeRequestsAreBounded(t *testing.T) {
	w := newWalk(t, nil)
	large := strings.Repeat("X-Large: "+strings.Repeat("x", 7000)+"\r\n", 8)
	const size = 56000
	for n := range 2 * maxHeld / size {
		w.say(dialog.Inside, "INVITE sip:t@b.example SIP/2.0", walkRequest{method: "INVITE", branch: fmt.Sprint(n), from: fmt.Sprint("a", n), cseq: 1}, large+fmt.Sprintf("X-Id: %d\r\n", n))
		if n%8 == 7 {
			w.callID = fmt.Sprint("c", n) // few calls may share one
		}
		w.settle()
	}
	if n := w.a.held.Load(); n <= maxHeld/2 || n > maxHeld+2*size {
		t.Errorf("%d bytes are held, want about %d", n, maxHeld)
	}
	w.callID = "small"
	w.say(dialog.Inside, "INVITE sip:t@b.example SIP/2.0", walkRequest{method: "INVITE", branch: "s", from: "s", cseq: 1}, "")
	if c := w.a.calls.withID("small"); len(c) != 1 || c[0].d.Idle() {
		t.Error("a small request is refused with the large ones")
	}
	for range 3 {
		w.now = w.now.Add(4 * time.Minute)
		w.a.sweepCalls(w.now)
	}
	if n := w.a.held.Load(); n != 0 {
		t.Errorf("%d bytes are held after all were given up", n)
	}
}
