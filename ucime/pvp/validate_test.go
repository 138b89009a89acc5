package pvp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
)

func TestBothMethodsBringATicket(t *testing.T) {
	for _, m := range []Method{WithCaller, WithoutCaller} {
		t.Run(m.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			w.add(1, seenBy(callOf(), 500*time.Millisecond, 400*time.Millisecond))
			r := w.validate(w.client(peerA), callOf(), m)
			want := map[Method]int{WithCaller: 12, WithoutCaller: 8}[m]
			if r.Outcome != Success || r.Value() != want || r.Runs != 1 {
				t.Fatalf("result %+v, want a success worth %d in one run", r, want)
			}
			v := ticket.Verifier{Key: testKey(), OwnDomains: []string{"b.example"}}
			if res, _ := v.Verify([]string{r.Grant.Ticket}, "+14085551212", []string{"a.example"}, w.clock()); res != ticket.OK {
				t.Fatalf("the ticket is refused: %v", res)
			}
			if r.Grant.Domain != "b.example" || len(r.Grant.Routes) != 1 || r.Grant.Routes[0] != "sips:edge.b.example:5061" {
				t.Fatalf("grant %+v", r.Grant)
			}
			if w.index.Len() != 0 || len(w.proofs) != 1 || w.proofs[0] != 1 {
				t.Fatalf("%d VCRs are unproven, marked are %v", w.index.Len(), w.proofs)
			}
		})
	}
}

// A call proves once: the second time its originator is like one who guesses.
func TestACallProvesOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.add(1, seenBy(callOf(), 0, 0))
	c := w.client(peerA)
	if r := w.validate(c, callOf(), WithCaller); r.Outcome != Success {
		t.Fatalf("first: %+v", r)
	}
	if r := w.validate(c, callOf(), WithCaller); r.Outcome != FailedProof || r.Runs != len(shifts) {
		t.Fatalf("second: %+v", r)
	}
	if n := c.Counters.ValidationAttempts.Load(); n != 2 {
		t.Fatalf("ValidationAttempts %d", n)
	}
}

// Which differences between the ends' clocks and networks are bridged, and which are not (document, Methods).
func TestDifferencesOfClocks(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, d := range []struct {
		start, stop int
		want        Outcome
	}{
		{0, 0, Success},
		{1000, 1000, Success},
		{-1000, 1000, Success},
		{1000, -1000, Success},
		{-1000, -1000, Success},
		{2999, 2999, Success},
		{-2999, -2999, Success},
		{1700, 2600, Success},
		{5001, 5001, FailedProof},
		{-5001, -5001, FailedProof},
		{0, 5000, FailedProof},
		{4000, -4000, FailedProof},
	} {
		for _, phase := range []int{0, 1, 600, 999, 1000, 1400, 1999} { // where in a unit the call began
			name := fmt.Sprintf("%d,%d from %d", d.start, d.stop, phase)
			v := callOf()
			v.Start, v.Stop = v.Start.Add(ms(phase)), v.Stop.Add(ms(2*phase))
			got := searchLocally(v, seenBy(v, ms(d.start), ms(d.stop)), WithCaller)
			if got != (d.want == Success) {
				t.Errorf("%s: match %v", name, got)
			}
		}
	}
}

// searchLocally says whether the two records have a password in common.
func searchLocally(o, term learn.VCR, m Method) bool {
	for _, s := range shifts {
		p := string(originatorPassword(m, o, s))
		for _, q := range terminatorPasswords(m, term) {
			if p == string(q) {
				return true
			}
		}
	}
	return false
}

// The same over the wire, with the runs that it takes.
func TestSearchOverTheWire(t *testing.T) {
	w := newWorld(t, nil)
	for i, d := range []struct {
		diff time.Duration
		runs int
	}{{0, 1}, {2800 * time.Millisecond, 3}, {-2800 * time.Millisecond, 2}} {
		w.add(uint64(i), seenBy(callOf(), d.diff, d.diff))
		c := w.client(peerA)
		if r := w.validate(c, callOf(), WithCaller); r.Outcome != Success || r.Runs != d.runs {
			t.Errorf("clocks off by %v: %+v, want a success in %d runs", d.diff, r, d.runs)
		}
		// From then on the difference is known.
		w.add(uint64(100+i), seenBy(callOf(), d.diff, d.diff))
		if r := w.validate(c, callOf(), WithCaller); r.Outcome != Success || r.Runs != 1 {
			t.Errorf("clocks off by %v, known: %+v", d.diff, r)
		}
	}
}

func TestCallersInOtherForms(t *testing.T) {
	call := callOf()
	for caller, want := range map[learn.Number]bool{
		"+13105550100": true, "3105550100": true, "5550100": true, "0013105550100": true,
		"+13105550101": false, "550100": false, "": false,
	} {
		v := seenBy(call, 0, 0)
		v.Caller = caller
		got := Usable(v, WithCaller) == nil && searchLocally(call, v, WithCaller)
		if got != want {
			t.Errorf("caller %q: match %v, want %v", caller, got, want)
		}
		if !searchLocally(call, v, WithoutCaller) {
			t.Errorf("caller %q: no match without it", caller)
		}
	}
}

// Where the far end did not see the caller, the other method follows in the same connection; nobody is the worse for it.
func TestMethodsInTurn(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) { c.Limits.PeerBurst = 4 })
	c := w.client(peerA)
	for i := range 3 {
		v := seenBy(callOf(), 0, 0)
		v.Caller = ""
		w.add(uint64(i), v)
		r := w.validate(c, callOf(), WithCaller, WithoutCaller)
		if r.Outcome != Success || r.Value() != 8 || r.Runs != 4 {
			t.Fatalf("validation %d: %+v", i, r)
		}
	}
	if n := w.counters.WrongGuesses.Load(); n != 0 {
		t.Fatalf("%d wrong guesses", n)
	}
}

func TestRefusals(t *testing.T) {
	for name, d := range map[string]struct {
		change func(*ServerConfig)
		code   Code
	}{
		"not trusted": {func(c *ServerConfig) { c.Trust = trustNone{} }, CodeRefused},
		"no ticket":   {func(c *ServerConfig) { c.Issuer = &TicketIssuer{Domain: "b.example", Routes: []string{"sip:b"}} }, CodeUnavailable},
		"bad routes":  {func(c *ServerConfig) { c.Issuer = &TicketIssuer{Key: testKey(), Domain: "b.example"} }, CodeUnavailable},
		"no store": {func(c *ServerConfig) {
			c.Records.(*Index).durable = func(uint64, learn.PeerID) error { return errors.New("disk full") }
		}, CodeUnavailable},
		"other number": {func(c *ServerConfig) { c.Issuer = wrongNumber{c.Issuer} }, CodeBadAnswer},
		"other domain": {func(c *ServerConfig) { c.Issuer = wrongDomain{c.Issuer} }, CodeBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, d.change)
			w.add(1, seenBy(callOf(), 0, 0))
			r := w.validate(w.client(peerA), callOf(), WithCaller)
			if r.Outcome != Refused || r.Code != d.code || r.Grant != nil || r.Value() != 0 {
				t.Fatalf("result %+v, want refused with %v", r, d.code)
			}
			if w.index.Len() != 0 {
				t.Error("the VCR can be proven again")
			}
			if blocked := w.counters.ValidationsBlocked.Load(); (blocked == 1) != (name == "not trusted") {
				t.Errorf("ValidationsBlocked %d", blocked)
			}
		})
	}
}

type wrongNumber struct{ Issuer }

func (i wrongNumber) Issue(node learn.PeerID, domain string, _ learn.Number, now time.Time) (Grant, error) {
	return i.Issuer.Issue(node, domain, "+4930123456", now)
}

type wrongDomain struct{ Issuer }

func (i wrongDomain) Issue(node learn.PeerID, _ string, called learn.Number, now time.Time) (Grant, error) {
	return i.Issuer.Issue(node, "c.example", called, now)
}

func TestAliasesTravelWithTheNumber(t *testing.T) {
	w := newWorld(t, func(c *ServerConfig) {
		c.Issuer.(*TicketIssuer).Aliases = func(n learn.Number) []learn.Number { return []learn.Number{n, "+14085551213"} }
	})
	w.add(1, seenBy(callOf(), 0, 0))
	r := w.validate(w.client(peerA), callOf(), WithCaller)
	if r.Outcome != Success || len(r.Grant.Numbers) != 2 || r.Grant.Numbers[1] != "+14085551213" {
		t.Fatalf("result %+v", r)
	}
}

// Everything that prevents a proof from being asked for is no failure of the peer.
func TestUnreachable(t *testing.T) {
	w := newWorld(t, nil)
	w.add(1, seenBy(callOf(), 0, 0))
	stranger := newAuthority(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closedAddr := closed.Addr().String()
	_ = closed.Close()
	client := func(m *member) *Client {
		c, err := NewClient(ClientConfig{Identity: m, Own: peerA, Domain: "a.example"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	revoking := w.ring.member(t, peerA)
	revoking.admitted = func(*x509.Certificate) error { return errors.New("revoked") }
	foreign := stranger.member(t, peerA)
	foreign.roots = w.ring.member(t, peerA).roots // it believes the server, which does not believe it
	for name, d := range map[string]struct {
		c    *Client
		addr string
		peer learn.PeerID
	}{
		"nobody listens":           {client(w.ring.member(t, peerA)), closedAddr, peerB},
		"another peer answers":     {client(w.ring.member(t, peerA)), w.addr, peerC},
		"unknown server authority": {client(stranger.member(t, peerA)), w.addr, peerB},
		"unknown client authority": {client(foreign), w.addr, peerB},
		"revoked server":           {client(revoking), w.addr, peerB},
		"a peer ID not ours":       {client(w.ring.member(t, peerC)), w.addr, peerB},
	} {
		r := d.c.Validate(context.Background(), d.addr, d.peer, callOf(), WithCaller)
		if r.Outcome != Unreachable || r.Err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if w.index.Len() != 1 || w.counters.Proofs.Load() != 0 {
		t.Error("the call was proven")
	}
}

func TestRecordsThatCannotBeValidated(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client(peerA)
	for name, spoil := range map[string]func(*learn.VCR){
		"terminating":  func(v *learn.VCR) { v.Role = learn.Terminating },
		"no number":    func(v *learn.VCR) { v.Called = "4085551212" },
		"backwards":    func(v *learn.VCR) { v.Stop = v.Start.Add(-time.Second) },
		"no start":     func(v *learn.VCR) { v.Start = time.Time{} },
		"no caller":    func(v *learn.VCR) { v.Caller = "" },
		"short caller": func(v *learn.VCR) { v.Caller = "+123456" },
	} {
		v := callOf()
		spoil(&v)
		if r := w.validate(c, v, WithCaller); r.Outcome != Unreachable || !errors.Is(r.Err, ErrUnusable) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if n := c.Counters.ValidationAttempts.Load(); n != 0 {
		t.Errorf("%d attempts", n)
	}
	v := callOf()
	v.Caller = ""
	w.add(1, seenBy(v, 0, 0))
	if r := w.validate(c, v, WithCaller, WithoutCaller); r.Outcome != Success || r.Runs != 1 {
		t.Errorf("without a caller the other method did not follow: %+v", r)
	}
}

// A validation that the caller cancels is no failure of the peer.
func TestCancelled(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	w := newWorld(t, nil)
	c := w.client(peerA)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan Result)
	go func() { done <- c.Validate(ctx, ln.Addr().String(), peerB, callOf(), WithCaller) }()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	cancel()
	if r := <-done; r.Outcome != Unreachable || !errors.Is(r.Err, context.Canceled) {
		t.Fatalf("result %+v", r)
	}
	if c.Counters.Originating.Load() != 0 {
		t.Error("it is still counted as under way")
	}
}

// Who is not the peer that the ring named is not shown our certificate.
func TestAnotherPeerIsNotToldWhoAsks(t *testing.T) {
	ring := newAuthority(t)
	conf := tlsConfig(ring.member(t, peerC), time.Now)
	shown := make(chan bool, 1)
	conf.VerifyConnection = func(s tls.ConnectionState) error { shown <- true; return nil }
	ln, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	done := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
		done <- err
	}()
	c, err := NewClient(ClientConfig{Identity: ring.member(t, peerA), Own: peerA, Domain: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	r := c.Validate(context.Background(), ln.Addr().String(), peerB, callOf(), WithCaller)
	if r.Outcome != Unreachable || !errors.Is(r.Err, errPeerID) {
		t.Fatalf("%+v", r)
	}
	if err := <-done; err == nil || len(shown) != 0 {
		t.Fatalf("the other peer's handshake: %v, our certificate was shown: %v", err, len(shown) != 0)
	}
}

// An answer of a peer that has proved is held against what its own proxy will check.
func TestGrantsThatDoNotHold(t *testing.T) {
	now := time.Now()
	issuer := TicketIssuer{Key: testKey(), Domain: "b.example", Routes: []string{"sip:b.example"}, Lifetime: time.Hour}
	issue := func(i TicketIssuer, node learn.PeerID, domain string, called learn.Number) Grant {
		g, err := i.Issue(node, domain, called, now)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	called := callOf().Called
	good := issue(issuer, peerB, "a.example", called)
	for name, d := range map[string]struct {
		change func(*Grant)
		at     time.Time
		ok     bool
	}{
		"good":                   {func(*Grant) {}, now, true},
		"no ticket in it":        {func(g *Grant) { g.Ticket = "QUJD" }, now, false},
		"the ticket has ended":   {func(*Grant) {}, now.Add(time.Hour + time.Second), false},
		"another number":         {func(g *Grant) { g.Numbers = []learn.Number{"+4930123456"} }, now, false},
		"a number without":       {func(g *Grant) { g.Numbers = append(g.Numbers, "+4930123456") }, now, false},
		"a ticket for another":   {func(g *Grant) { g.Ticket = issue(issuer, peerB, "c.example", called).Ticket }, now, false},
		"from another domain":    {func(g *Grant) { g.Domain = "c.example" }, now, false},
		"from another peer":      {func(g *Grant) { g.Ticket = issue(issuer, peerC, "a.example", called).Ticket }, now, false},
		"ticket without number":  {func(g *Grant) { g.Ticket = issue(issuer, peerB, "a.example", "+4930123456").Ticket }, now, false},
		"an alias with a ticket": {func(g *Grant) { g.Numbers = g.Numbers[:1] }, now, true},
	} {
		g := good
		g.Numbers = append([]learn.Number(nil), good.Numbers...)
		d.change(&g)
		if err := checkGrant(&g, "a.example", called, peerB, d.at); (err == nil) != d.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Serve ends with its context, whatever connections there are, and its goroutines with it (TestMain looks for them).
func TestServeEnds(t *testing.T) {
	w := newWorld(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, ln) }()
	w.addr = ln.Addr().String()
	holdRun(w, w.ring.member(t, peerA), peerA)
	half, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = half.Close() }()
	until(t, "both connections there", func() bool { return w.counters.Pending.Load() == 1 && w.counters.Terminating.Load() == 1 })
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve goes on")
	}
	if w.counters.Pending.Load() != 0 || w.counters.Terminating.Load() != 0 {
		t.Error("connections are still counted")
	}
}

func TestServeSaysThatItsListenerFailed(t *testing.T) {
	w := newWorld(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := w.server.Serve(context.Background(), ln); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("error %v", err)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	if _, err := NewServer(ServerConfig{}); err == nil {
		t.Error("a server without anything")
	}
	m := newAuthority(t).member(t, peerA)
	for name, c := range map[string]ClientConfig{
		"no identity": {Own: peerA, Domain: "a.example"}, "no peer ID": {Identity: m, Domain: "a.example"}, "no domain": {Identity: m, Own: peerA},
		"bad domain": {Identity: m, Own: peerA, Domain: "a_example"}, "bad limit": {Identity: m, Own: peerA, Domain: "a.example", Limits: Limits{Workers: -1}},
	} {
		if _, err := NewClient(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
