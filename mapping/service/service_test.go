package service

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

func TestStockLibrary(t *testing.T) {
	r := start(t, nil)
	c := r.dial(agent)
	first := ask(t, c, target, stun.NewSoftware("call agent"), stun.Fingerprint)
	mapped := mappedOf(t, first)
	if mapped.Addr() != ourAddr || mapped.Port() < 21000 || mapped.Port() > 21999 {
		t.Errorf("mapped to %s", mapped)
	}
	if v, err := first.Get(stun.AttrLifetime); err != nil || binary.BigEndian.Uint32(v) != 600 {
		t.Errorf("lifetime %x, %v", v, err)
	}
	if err := stun.Fingerprint.Check(first); err != nil {
		t.Errorf("fingerprint: %v", err)
	}
	again := ask(t, c, target)
	if mappedOf(t, again) != mapped {
		t.Error("the same target has another mapping")
	}
	if again.Contains(stun.AttrFingerprint) {
		t.Error("a fingerprint that was not asked for")
	}
	other := mappedOf(t, ask(t, c, netip.AddrPortFrom(target.Addr(), 5062)))
	foreign := mappedOf(t, ask(t, r.dial(second), target))
	if other == mapped || foreign == mapped || foreign == other {
		t.Errorf("mappings are shared: %s %s %s", mapped, other, foreign)
	}
}

// The bytes on the wire, made by hand from the protocol file.
func TestBytes(t *testing.T) {
	r := start(t, func(_ *Options, s *Settings) { s.Low, s.High, s.Lifetime = 21555, 21555, 90*time.Second })
	c := r.dial(agent)
	id := []byte("TwelveBytes!")
	// XOR-PEER-ADDRESS of 209.165.201.3:5061: 5061 = 0x13c5, ^ 0x2112 = 0x32d7; d1a5c903 ^ 2112a442 = f0b76d41.
	write(t, c, bytes.Join([][]byte{{0, 0x0f, 0, 12, 0x21, 0x12, 0xa4, 0x42}, id, {0, 0x12, 0, 8, 0, 1, 0x32, 0xd7, 0xf0, 0xb7, 0x6d, 0x41}}, nil))
	// XOR-MAPPED-ADDRESS of 127.0.0.2:21555: 0x5433 ^ 0x2112 = 0x7521; 7f000002 ^ 2112a442 = 5e12a440. LIFETIME 90.
	want := bytes.Join([][]byte{
		{0x01, 0x0f, 0, 20, 0x21, 0x12, 0xa4, 0x42}, id, {0, 0x20, 0, 8, 0, 1, 0x75, 0x21, 0x5e, 0x12, 0xa4, 0x40}, {0, 0x0d, 0, 4, 0, 0, 0, 90},
	}, nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x (%v)", got, want, err)
	}
}

func raw(typ uint16, id string, attrs ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(len(attrs)))
	b = binary.BigEndian.AppendUint32(b, magicCookie)
	return append(append(b, id...), attrs...)
}

var goodPeer = []byte{0, 0x12, 0, 8, 0, 1, 0x32, 0xd7, 0xf0, 0xb7, 0x6d, 0x41}

func TestErrors(t *testing.T) {
	r := start(t, func(_ *Options, s *Settings) { s.Quota = 2 })
	c := r.dial(agent)
	ipv6 := append([]byte{0, 0x12, 0, 20, 0, 2, 0x32, 0xd7}, make([]byte, 16)...)
	id := "TwelveBytes!"
	for name, x := range map[string]struct {
		msg  []byte
		typ  uint16
		code Code
	}{
		"no target":                   {raw(0x000f, id), 0x011f, 400},
		"port 0":                      {raw(0x000f, id, 0, 0x12, 0, 8, 0, 1, 0x21, 0x12, 1, 2, 3, 4), 0x011f, 400},
		"family 3":                    {raw(0x000f, id, 0, 0x12, 0, 8, 0, 3, 1, 2, 1, 2, 3, 4), 0x011f, 400},
		"length of IPv6 in IPv4":      {raw(0x000f, id, append([]byte{0, 0x12, 0, 20, 0, 1, 0x32, 0xd7}, make([]byte, 16)...)...), 0x011f, 400},
		"length 0":                    {raw(0x000f, id, 0, 0x12, 0, 0), 0x011f, 400},
		"attribute beyond the end":    {raw(0x000f, id, 0, 0x12, 0, 12, 0, 1, 0x32, 0xd7, 0xf0, 0xb7, 0x6d, 0x41), 0x011f, 400},
		"IPv6":                        {raw(0x000f, id, ipv6...), 0x011f, 440},
		"unknown attribute":           {raw(0x000f, id, append([]byte{0x7f, 1, 0, 1, 9, 0, 0, 0}, goodPeer...)...), 0x011f, 420},
		"fingerprint wrong":           {raw(0x000f, id, append(bytes.Clone(goodPeer), 0x80, 0x28, 0, 4, 1, 2, 3, 4)...), 0x011f, 400},
		"fingerprint not last":        {raw(0x000f, id, append([]byte{0x80, 0x28, 0, 4, 1, 2, 3, 4}, goodPeer...)...), 0x011f, 400},
		"method of TURN":              {raw(0x0003, id, goodPeer...), 0x0113, 400},
		"binding request":             {raw(0x0001, id), 0x0111, 400},
		"target that must not be":     {request(t, netip.AddrPortFrom(forbidden, 5061)).Raw, 0x011f, 403},
		"optional attribute, unknown": {raw(0x000f, id, append([]byte{0xff, 1, 0, 1, 9, 0, 0, 0}, goodPeer...)...), 0x010f, 0},
	} {
		before := r.Counters()
		write(t, c, x.msg)
		m := read(t, c)
		if typ := binary.BigEndian.Uint16(m.Raw); typ != x.typ || codeOf(m) != x.code {
			t.Errorf("%s: type %04x code %d, want %04x %d", name, typ, codeOf(m), x.typ, x.code)
		}
		if !bytes.Equal(m.TransactionID[:], x.msg[8:20]) {
			t.Errorf("%s: transaction ID %x", name, m.TransactionID)
		}
		if x.code == 420 {
			var u stun.UnknownAttributes
			if err := u.GetFrom(m); err != nil || len(u) != 1 || u[0] != 0x7f01 {
				t.Errorf("unknown attributes %v, %v", u, err)
			}
		}
		if wrong := x.msg[len(x.msg)-8] == 0x80; wrong && stun.Fingerprint.Check(m) != nil {
			t.Errorf("%s: the answer has no good fingerprint", name)
		}
		if after := r.Counters(); x.code != 0 && (after.Failures[x.code] != before.Failures[x.code]+1 || after.Mappings != before.Mappings) {
			t.Errorf("%s: counters %+v", name, after)
		}
	}
	// Refused requests use nothing of the quota up, and what one has is given at the quota too.
	one := mappedOf(t, ask(t, c, target))
	two := mappedOf(t, ask(t, c, to(2)))
	if code := codeOf(ask(t, c, to(3))); code != 486 {
		t.Errorf("over the quota: %d", code)
	}
	if mappedOf(t, ask(t, c, target)) != one || mappedOf(t, ask(t, c, to(2))) != two {
		t.Error("a mapping was lost at the quota")
	}
	if _, err := r.dial(second).Write(nil); err != nil {
		t.Error(err)
	}
	mappedOf(t, ask(t, r.dial(second), to(3))) // the quota is each client's own
}

// Indications and responses are dropped; what follows is answered.
func TestDropped(t *testing.T) {
	r := start(t, nil)
	c := r.dial(agent)
	for _, typ := range []uint16{0x001f, 0x010f, 0x011f, 0x0011, 0x0101} {
		write(t, c, raw(typ, "TwelveBytes!", goodPeer...))
	}
	mappedOf(t, ask(t, c, target))
	if n := r.Counters().DroppedMessages; n != 5 {
		t.Errorf("%d dropped", n)
	}
}

// What cannot be a message closes the connection at once, after the answers to what came before.
func TestFraming(t *testing.T) {
	r := start(t, nil)
	for name, bad := range map[string][]byte{
		"first bits":     {0x40},
		"first bits 1":   {0x80},
		"odd length":     {0, 0x0f, 0, 13},
		"long":           {0, 0x0f, 4, 4},
		"cookie":         {0, 0x0f, 0, 12, 0x21, 0x13},
		"text":           []byte("OPTIONS sip:x SIP/2.0\r\n\r\n"),
		"TLS":            {0x16, 3, 1, 2, 0},
		"long, pipeline": bytes.Repeat([]byte{0xff}, 200_000),
	} {
		c := r.dial(agent)
		before := r.Counters().FramingErrors
		write(t, c, append(append(bytes.Clone(request(t, target).Raw), request(t, to(1)).Raw...), bad...))
		for range 2 {
			mappedOf(t, read(t, c))
		}
		if n, err := c.Read(make([]byte, 10)); err != io.EOF {
			t.Errorf("%s: %d bytes, %v; want the end", name, n, err)
		}
		if n := r.Counters().FramingErrors; n != before+1 {
			t.Errorf("%s: counted %d times", name, n-before)
		}
	}
	largest := r.dial(agent)
	m := raw(0x000f, "TwelveBytes!", append(bytes.Clone(goodPeer), append([]byte{0x80, 0x22, 3, 240}, make([]byte, 1008)...)...)...)
	if len(m) != headerSize+maxMessage {
		t.Fatalf("the largest message has %d bytes", len(m))
	}
	write(t, largest, m)
	mappedOf(t, read(t, largest))
}

func TestPipeline(t *testing.T) {
	const n = 5000
	r := start(t, func(_ *Options, s *Settings) { s.Quota = 100 })
	c := r.dial(agent)
	sent := make(map[[12]byte]int, n)
	var all []byte
	for i := range n {
		m := request(t, to(i%150))
		sent[m.TransactionID] = i % 150
		all = append(all, m.Raw...)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(all)
		failed <- errors.Join(err, c.CloseWrite()) // half-closed: all answers come, then the end
	}()
	ports := make(map[int]netip.AddrPort)
	for range n {
		m := read(t, c)
		at, known := sent[m.TransactionID]
		if !known {
			t.Fatal("an answer to nobody's request")
		}
		delete(sent, m.TransactionID)
		if at >= 100 {
			if codeOf(m) != 486 {
				t.Fatalf("target %d over the quota: %s", at, m)
			}
			continue
		}
		mapped := mappedOf(t, m)
		if p, ok := ports[at]; ok && p != mapped {
			t.Fatalf("target %d has %s and %s", at, p, mapped)
		}
		ports[at] = mapped
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
	seen := make(map[netip.AddrPort]bool)
	for _, p := range ports {
		seen[p] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d targets have %d mappings", len(ports), len(seen))
	}
}

// A request in pieces, and a client that reads nothing: no more than 1,024 requests wait for their answers.
func TestPiecesAndUnread(t *testing.T) {
	r := start(t, nil)
	c := r.dial(agent)
	for _, b := range request(t, target).Raw {
		write(t, c, []byte{b})
	}
	mappedOf(t, read(t, c))
	msg := request(t, target).Raw
	written := 0
	for {
		_ = c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Write(bytes.Repeat(msg, 1000))
		written += n
		if err != nil {
			break // the service has stopped reading
		}
		if written > 64<<20 {
			t.Fatal("the service reads without end")
		}
	}
	if s := r.Sessions(); len(s) != 1 || s[0].Pending == 0 || s[0].Pending > maxPending {
		t.Errorf("sessions: %+v", s)
	}
	_ = c.SetDeadline(time.Now().Add(4 * patience)) // some 200,000 answers
	answers := bufio.NewReaderSize(c, 1<<16)
	for range written / len(msg) {
		mappedOf(t, read(t, answers))
	}
	until(t, "all is counted", func() bool {
		s := r.Sessions()
		return len(s) == 1 && s[0].Pending == 0 && s[0].Responses == s[0].Requests
	})
}

func TestStrangers(t *testing.T) {
	r := start(t, nil)
	c, err := dial(t, stranger, r.Addr())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a stranger gets %v", err)
	}
	until(t, "it is counted", func() bool { return r.Counters().RefusedSources == 1 })
	for range MaxConns {
		mappedOf(t, ask(t, r.dial(agent), target))
	}
	c, err = dial(t, agent, r.Addr())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) || r.Counters().RefusedConns != 1 {
		t.Errorf("one connection too many gets %v, %+v", err, r.Counters())
	}
	mappedOf(t, ask(t, r.dial(second), target))
}

// refused tells that nobody listens, or that the connection is reset.
func refused(t testing.TB, from netip.Addr, at netip.AddrPort) bool {
	t.Helper()
	c, err := dial(t, from, at)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
	}
	_, err = c.Read(make([]byte, 1))
	c.Close()
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Logf("from %s to %s: %v", from, at, err)
		return false
	}
	return true
}

func TestLegs(t *testing.T) {
	r := start(t, func(_ *Options, s *Settings) { s.Lifetime = 5 * time.Second })
	mapped := mappedOf(t, ask(t, r.dial(agent), target))
	for _, from := range []netip.Addr{second, stranger} {
		if !refused(t, from, mapped) {
			t.Errorf("%s is let in to another's mapping", from)
		}
	}
	var legs []*leg
	for range 3 {
		c, err := dial(t, agent, mapped)
		if err != nil {
			t.Fatal(err)
		}
		l := <-r.legs
		legs = append(legs, l)
		if l.client != agent || l.target != target {
			t.Errorf("leg from %s to %s", l.client, l.target)
		}
		write(t, c, []byte("x"))
		if _, err := io.ReadFull(l.conn, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	if n := r.Counters(); n.Legs != 3 || n.RefusedLegs != 2 {
		t.Errorf("counters: %+v", n)
	}
	// A mapping lives as long as a leg does, and its lifetime after that.
	r.clock.move(time.Hour)
	time.Sleep(3 * sweepEvery)
	if c, err := dial(t, agent, mapped); err != nil {
		t.Errorf("the mapping ended under its legs: %v", err)
	} else {
		c.Close()
		close((<-r.legs).done)
	}
	for _, l := range legs {
		close(l.done)
	}
	until(t, "the legs have ended", func() bool { return r.Counters().Legs == 0 })
	r.mu.Lock()
	r.open = nil
	r.mu.Unlock()
	r.clock.move(5*time.Second - time.Millisecond)
	time.Sleep(3 * sweepEvery)
	if r.Counters().Mappings != 1 {
		t.Error("the mapping ended before its time")
	}
	r.clock.move(time.Millisecond)
	until(t, "the mapping ends", func() bool { return r.Counters().Mappings == 0 })
	if !refused(t, agent, mapped) {
		t.Error("the port of a mapping that has ended is open")
	}
	r.Service.mu.Lock()
	r.Service.legs = MaxLegs
	r.Service.mu.Unlock()
	mapped = mappedOf(t, ask(t, r.dial(agent), target))
	if !refused(t, agent, mapped) {
		t.Error("a leg over the maximum is let in")
	}
	r.Service.mu.Lock()
	r.Service.legs = 0
	r.Service.mu.Unlock()
}

// A port goes to no other pair for a minute, or for the lifetime where that is less; its own pair gets it back.
func TestRest(t *testing.T) {
	for lifetime, rest := range map[time.Duration]time.Duration{10 * time.Minute: time.Minute, 5 * time.Second: 5 * time.Second} {
		r := start(t, func(_ *Options, s *Settings) { s.Low, s.High, s.Lifetime = 21300, 21300, lifetime })
		c := r.dial(agent)
		mapped := mappedOf(t, ask(t, c, target))
		if code := codeOf(ask(t, c, to(1))); code != 508 {
			t.Errorf("no port left: %d", code)
		}
		r.clock.move(lifetime)
		until(t, "the mapping ends", func() bool { return r.Counters().Mappings == 0 })
		if code := codeOf(ask(t, c, to(1))); code != 508 {
			t.Errorf("a port that rests: %d", code)
		}
		if mappedOf(t, ask(t, c, target)) != mapped {
			t.Error("the pair does not get its port back")
		}
		r.clock.move(lifetime)
		until(t, "the mapping ends again", func() bool { return r.Counters().Mappings == 0 })
		r.clock.move(rest)
		until(t, "the port has rested", func() bool { return r.Counters().PortsFree == 1 })
		if mappedOf(t, ask(t, c, to(1))) != mapped {
			t.Error("the port that has rested is not used")
		}
		r.stop()
	}
}

// A port on which somebody listens is not handed out.
func TestPortsOfOthers(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:21401")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := start(t, func(_ *Options, s *Settings) { s.Low, s.High = 21400, 21402 })
	c := r.dial(agent)
	for i := range 2 {
		if p := mappedOf(t, ask(t, c, to(i))).Port(); p == 21401 {
			t.Error("the port of another program was handed out")
		}
	}
	if code := codeOf(ask(t, c, to(2))); code != 508 {
		t.Errorf("no port left: %d", code)
	}
}

func TestApply(t *testing.T) {
	r := start(t, nil)
	c, other := r.dial(agent), r.dial(second)
	mapped, kept := mappedOf(t, ask(t, c, target)), mappedOf(t, ask(t, other, to(1)))
	bad := mappedOf(t, ask(t, other, to(2)))
	if _, err := dial(t, agent, mapped); err != nil {
		t.Fatal(err)
	}
	l := <-r.legs
	set := settings()
	set.Clients = []netip.Addr{second}
	set.Allowed = func(t netip.AddrPort) bool { return t != to(2) }
	set.Listen = r.set.Listen
	if err := r.Apply(set); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection of a client that is gone: %v", err)
	}
	if !refused(t, agent, mapped) || !refused(t, second, bad) {
		t.Error("mappings that are not allowed any more stand")
	}
	if _, err := l.conn.Write([]byte("x")); err != nil {
		t.Errorf("a leg that stood: %v", err)
	}
	if mappedOf(t, ask(t, other, to(1))) != kept || codeOf(ask(t, other, to(2))) != 403 {
		t.Error("the rest has changed")
	}
	// Another port to listen at: the mappings stay.
	set.Listen = netip.AddrPortFrom(ourAddr, 21999)
	set.High = 21998
	if err := r.Apply(set); err != nil {
		t.Fatal(err)
	}
	if mappedOf(t, ask(t, r.dial(second), to(1))) != kept {
		t.Error("another listening port costs the mappings")
	}
	if set.Listen = netip.MustParseAddrPort("192.0.2.1:8060"); r.Apply(set) == nil {
		t.Error("an address that nobody has is accepted")
	}
	if mappedOf(t, ask(t, other, to(1))) != kept {
		t.Error("the refused settings have an effect")
	}
}

func TestIdle(t *testing.T) {
	defer func(d time.Duration) { wholeWithin = d }(wholeWithin)
	wholeWithin = 300 * time.Millisecond
	r := start(t, func(o *Options, s *Settings) { o.Now, s.Idle = time.Now, 900*time.Millisecond })
	c := r.dial(agent)
	mapped := mappedOf(t, ask(t, c, target))
	begin := time.Now()
	half := r.dial(agent)
	mappedOf(t, ask(t, half, target))
	write(t, half, request(t, target).Raw[:25])
	if _, err := half.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("half a request: %v", err)
	}
	if d := time.Since(begin); d < wholeWithin || d > 800*time.Millisecond {
		t.Errorf("half a request was waited for %v", d)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection: %v", err)
	}
	if d := time.Since(begin); d < 850*time.Millisecond {
		t.Errorf("closed as idle after %v", d)
	}
	if mappedOf(t, ask(t, r.dial(agent), target)) != mapped {
		t.Error("the mapping went with the connection")
	}
	if n := r.Counters(); n.IdleClosed != 1 || n.IncompleteClosed != 1 {
		t.Errorf("counters: %+v", n)
	}
}

// A restart keeps what a call agent may remember; so does a kill, but for what a second brought.
func TestRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mappings.json")
	clk := newClock()
	mod := func(o *Options, s *Settings) { o.StateFile, o.Now, s.Lifetime = file, clk.now, 100*time.Second }
	r := start(t, mod)
	c := r.dial(agent)
	ended := mappedOf(t, ask(t, c, to(1)))
	clk.move(100 * time.Second)
	until(t, "one ends", func() bool { return r.Counters().Mappings == 0 })
	idle := mappedOf(t, ask(t, c, to(2)))
	busy := mappedOf(t, ask(t, c, to(3)))
	if _, err := dial(t, agent, busy); err != nil {
		t.Fatal(err)
	}
	<-r.legs
	clk.move(50 * time.Second)
	young := mappedOf(t, ask(t, c, target))
	until(t, "the state is saved", func() bool {
		clk.move(time.Millisecond)
		b, _ := os.ReadFile(file)
		return bytes.Contains(b, []byte(target.String()))
	})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	killed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"stopped", "killed"} {
		r.stop()
		if how == "killed" {
			if err := os.WriteFile(file, killed, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if how == "stopped" {
			clk.move(60 * time.Second) // 110 s since the idle one was asked for, 60 since the end of the leg
		}
		r = start(t, mod)
		c = r.dial(agent)
		if got := r.Counters().Mappings; got != 2 {
			t.Errorf("%s: %d mappings", how, got)
		}
		if mappedOf(t, ask(t, c, target)) != young || mappedOf(t, ask(t, c, to(3))) != busy {
			t.Errorf("%s: mappings have other ports", how)
		}
		if !refused(t, agent, idle) || !refused(t, agent, ended) {
			t.Errorf("%s: mappings that have ended are back", how)
		}
	}
	r.stop()
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"address":"127.0.0.77"}`, `{"version":1,"address":"127.0.0.2","mappings":[{"client":"127.0.0.3","target":"[::1]:5061","port":21001,"lifetime":100,"used":"2026-01-01T00:00:00Z"}]}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := start(t, mod)
		mappedOf(t, ask(t, r.dial(agent), target))
		r.stop()
	}
}
