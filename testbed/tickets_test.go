package testbed

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	sigHUP       = syscall.SIGHUP
	ticketHeader = "X-Cisco-UC-IME-Ticket"
	trunkLine    = " ticket epoch 1 password ticket-password-of-A"
)

// ticketCounters are the eight causes of ticket.md, in the order of the checks.
var ticketCounters = []string{
	"ticket_not_found", "ticket_decode_failed", "ticket_epoch_mismatch", "ticket_integrity_check_failed",
	"ticket_timestamp_invalid", "ticket_did_mismatch", "ticket_domain_check_failed", "route_domain_name_check_failed",
}

// ticketWith issues a ticket that differs from the good one.
func (s *StubLab) ticketWith(t T, change func(*TicketSpec)) string {
	t.Helper()
	spec := TicketSpec{
		Password: s.A.TicketPassword, Epoch: s.A.TicketEpoch, Dir: s.Dir, OwnDomain: s.A.Domain, GrantedTo: s.B.Domain, Numbers: []string{s.A.Number},
	}
	change(&spec)
	return IssueTicket(t, spec)
}

// tamper changes one byte of a ticket.
func tamper(t T, ticket string, at int) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(ticket)
	if err != nil {
		t.Fatalf("%v", err)
	}
	raw[(at+len(raw))%len(raw)] ^= 1
	return base64.StdEncoding.EncodeToString(raw)
}

func addTicket(values ...string) func(*StubMessage) {
	return func(m *StubMessage) {
		for _, v := range values {
			m.Add(ticketHeader, v)
		}
	}
}

// badTicket is a way to get a ticket wrong.
type badTicket struct {
	name    string
	headers []string
	counter string
}

func badTickets(t T, s *StubLab) []badTicket {
	now := time.Now()
	issue := func(change func(*TicketSpec)) []string { return []string{s.ticketWith(t, change)} }
	raw, _ := base64.StdEncoding.DecodeString(s.Ticket)
	return []badTicket{
		{"none", nil, "ticket_not_found"},
		{"empty", []string{""}, "ticket_decode_failed"},
		{"no base64", []string{"!" + s.Ticket[1:]}, "ticket_decode_failed"},
		{"without padding", []string{strings.TrimRight(base64.StdEncoding.EncodeToString(raw[:len(raw)-1]), "=")}, "ticket_decode_failed"},
		{"blanks within", []string{s.Ticket[:20] + " " + s.Ticket[20:]}, "ticket_decode_failed"},
		{"cut short", []string{s.Ticket[:len(s.Ticket)/8*4]}, "ticket_decode_failed"},
		{"bytes after the end", []string{base64.StdEncoding.EncodeToString(append(slices.Clone(raw), 0, 0, 0))}, "ticket_decode_failed"},
		{"two headers", []string{s.Ticket, s.Ticket}, "ticket_decode_failed"},
		{"over 4096 characters", []string{strings.Repeat("AAAA", 1025)}, "ticket_decode_failed"},
		{"version 2", []string{tamper(t, s.Ticket, 4)}, "ticket_decode_failed"},
		{"other epoch", issue(func(x *TicketSpec) { x.Epoch = 2 }), "ticket_epoch_mismatch"},
		{"other password", issue(func(x *TicketSpec) { x.Password = "another-password" }), "ticket_integrity_check_failed"},
		{"changed integrity", []string{tamper(t, s.Ticket, -1)}, "ticket_integrity_check_failed"},
		{"over", issue(func(x *TicketSpec) { x.Now, x.Lifetime = now.Add(-2*time.Hour), time.Hour }), "ticket_timestamp_invalid"},
		{"not yet", issue(func(x *TicketSpec) { x.Now = now.Add(time.Hour) }), "ticket_timestamp_invalid"},
		{"other number", issue(func(x *TicketSpec) { x.Numbers = []string{"+14085559999"} }), "ticket_did_mismatch"},
		{"granted to another", issue(func(x *TicketSpec) { x.GrantedTo = "c.example" }), "ticket_domain_check_failed"},
		{"granted to a subdomain", issue(func(x *TicketSpec) { x.GrantedTo = "x.b.example" }), "ticket_domain_check_failed"},
		{"granted by another", issue(func(x *TicketSpec) { x.OwnDomain = "c.example" }), "route_domain_name_check_failed"},
	}
}

func TestTickets(t *testing.T) {
	s := StartStubs(t)
	for _, x := range []struct {
		name string
		test func(*testing.T, *StubLab)
	}{
		{"refusals", ticketRefusals},
		{"passes", ticketPasses},
		{"methods", ticketMethods},
		{"twenty failures", ticketFailuresCloseTheConnection},
		{"drop", ticketRejectActionDrop},
		{"epoch", ticketEpochChange},
	} {
		t.Run(x.name, func(t *testing.T) { x.test(t, s) })
		s.hangUpAll(t)
	}
}

// explained demands that the operator who tests the ticket by hand is told the same cause, and that this counts nothing.
func (s *StubLab) explained(t *testing.T, bad badTicket) {
	t.Helper()
	if len(bad.headers) != 1 || bad.headers[0] == "" || strings.Contains(bad.headers[0], " ") {
		return // no word that can be typed
	}
	before := s.counters(t)
	var said struct{ Result, Meaning string }
	out, err := s.Proxy.Shell("test uc-ime ticket " + bad.headers[0] + " called " + s.A.Number + " peer " + s.B.Domain + " | json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &said)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(strings.ToLower(said.Result), " ", "_"); got != bad.counter || said.Meaning == "" {
		t.Errorf("the test by hand says %q (%s), the request was counted as %s", said.Result, said.Meaning, bad.counter)
	}
	if after := s.counters(t); !maps.Equal(before, after) {
		t.Errorf("the test by hand was counted: %v, before %v", after, before)
	}
}

// Each way to get a ticket wrong is answered by the same bare 403, adds one to
// its own counter, and sends not even a SYN to the call agent.
func ticketRefusals(t *testing.T, s *StubLab) {
	wire := s.Capture(t, s.A.UCMHost, "eth0")
	var shape string
	hit := make(map[string]bool)
	for _, bad := range badTickets(t, s) {
		t.Run(bad.name, func(t *testing.T) {
			c := s.FarDial(t)
			defer c.Close()
			before := s.counters(t)
			l := s.Inbound(c)
			inv := l.Request(t, "INVITE", addTicket(bad.headers...), sdp(secureOffer(s.B.MediaOut.String(), 20000)))
			resp := l.AwaitStatus(t, inv, 403)
			bare(t, resp)
			s.grew(t, before, bad.counter)
			hit[bad.counter] = true
			s.explained(t, bad)
			var names []string
			for _, h := range resp.Headers {
				names = append(names, h.Name)
			}
			// The sender must not learn the cause: all refusals look alike.
			if this := resp.Start + " " + strings.Join(names, ","); shape == "" {
				shape = this
			} else if this != shape {
				t.Errorf("this refusal looks like %q, another one like %q", this, shape)
			}
			l.AckFailure(t, inv, resp)
			c.Ping(t)
		})
	}
	for _, name := range ticketCounters {
		if !hit[name] {
			t.Errorf("no case for %s", name)
		}
	}
	refused := time.Now()
	c := s.FarDial(t)
	s.syncInside(t, c)
	wire.Stop(t)
	later := 0
	for _, p := range wire.Packets(t) {
		switch {
		case p.Proto != protoTCP:
		case p.Time.Before(refused):
			t.Errorf("a refused request sent a packet to the call agent: %s > %s", p.Src, p.Dst)
		default:
			later++
		}
	}
	if later == 0 {
		t.Error("the capture misses even the request with a good ticket")
	}
	nothingCame(t, s.Agent)
}

// A good ticket passes with its request, unchanged, in every spelling of the
// number and for each alias; every method needs one.
func ticketPasses(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	aliases := s.ticketWith(t, func(x *TicketSpec) { x.Numbers = []string{s.A.Number, "+14085552222", "+4930123"} })
	calls := []struct{ name, user, ticket string }{
		{"number", s.A.Number, s.Ticket},
		{"separators", "+1-(408)-555.1111", s.Ticket},
		{"escaped", "%2B14085551111", s.Ticket},
		{"parameters", s.A.Number + ";phone-context=example.com", s.Ticket},
		{"alias", "+14085552222", aliases},
		{"alias with separators", "+49-30-123", aliases},
	}
	for _, x := range calls {
		t.Run(x.name, func(t *testing.T) {
			l := s.Inbound(c)
			l.Target = "sip:" + x.user + "@" + s.A.Domain
			before := s.counters(t)
			l.Request(t, "INVITE", addTicket(x.ticket), sdp(secureOffer(s.B.MediaOut.String(), 20000)))
			seen := s.Agent.Expect(t, InCall(l.CallID, ReqIs("INVITE")), wait)
			if got := seen.All(ticketHeader); len(got) != 1 || got[0] != x.ticket {
				t.Errorf("the call agent sees the ticket as %q", got)
			}
			s.grew(t, before, "tickets_verified")
			s.Agent.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
			s.Far.Expect(t, InCall(l.CallID, RespIs(486, "INVITE")), wait)
		})
	}
	others := []string{"+1408555111", "14085551111", "+14085551111x", "", "+14085551112"}
	each(t, others, func(t *testing.T, user string) {
		l := s.Inbound(c)
		l.Target = "sip:" + s.A.Domain
		if user != "" {
			l.Target = "sip:" + user + "@" + s.A.Domain
		}
		before := s.counters(t)
		m := l.Request(t, "MESSAGE", addTicket(s.Ticket), func(m *StubMessage) { m.WithBody("text/plain", "x") })
		l.AwaitStatus(t, m, 403)
		s.grew(t, before, "ticket_did_mismatch")
	})
	nothingCame(t, s.Agent)
}

// Every request outside a dialog needs a ticket, on whatever connection it
// comes; OPTIONS is answered by the proxy itself and never goes further.
func ticketMethods(t *testing.T, s *StubLab) {
	prepare := func(m *StubMessage) {
		switch m.Method() {
		case "MESSAGE":
			m.WithBody("text/plain", "x")
		case "SUBSCRIBE", "NOTIFY", "PUBLISH":
			m.Add("Event", "presence").Add("Subscription-State", "active").Add("Expires", "60")
		case "REFER":
			m.Add("Refer-To", "<sip:+14085553333@a.example>")
		case "PRACK":
			m.Add("RAck", "1 1 INVITE")
		case "REGISTER":
			m.Add("Contact", "<sip:x@209.165.201.3>")
		}
	}
	methods := []string{"INVITE", "MESSAGE", "SUBSCRIBE", "REFER", "NOTIFY", "REGISTER", "PUBLISH", "INFO", "UPDATE", "BYE", "PRACK"}
	refuse := func(t *testing.T, c *StubConn) {
		each(t, methods, func(t *testing.T, method string) {
			before := s.counters(t)
			l := s.Inbound(c)
			bare(t, l.AwaitStatus(t, l.Request(t, method, prepare), 403))
			s.grew(t, before, "ticket_not_found")
		})
	}
	t.Run("inbound connection", func(t *testing.T) {
		c := s.FarDial(t)
		refuse(t, c)
		s.syncInside(t, c)
		nothingCame(t, s.Agent)
	})
	t.Run("connection that our side opened", func(t *testing.T) {
		a, f := s.CallOut(t)
		refuse(t, f.Conn)
		s.syncInside(t, f.Conn)
		nothingCame(t, s.Agent)
		callStands(t, a, f)
		a.Transact(t, f, "BYE", 200)
	})
	t.Run("registration", func(t *testing.T) {
		c := s.FarDial(t)
		before := s.counters(t)
		l := s.Inbound(c)
		l.AwaitStatus(t, l.Request(t, "REGISTER", prepare, s.WithTicket), 403)
		if grown := s.counters(t).since(before); grown["registration"] != 1 {
			t.Errorf("counters grew by %v, want registration by 1", grown)
		}
		s.syncInside(t, c)
		nothingCame(t, s.Agent)
	})
	t.Run("what a ticket is not for", func(t *testing.T) {
		c := s.FarDial(t)
		each(t, []string{"REFER", "NOTIFY", "PUBLISH", "INFO"}, func(t *testing.T, method string) {
			before := s.counters(t)
			l := s.Inbound(c)
			l.AwaitStatus(t, l.Request(t, method, prepare, s.WithTicket), 403)
			if grown := s.counters(t).since(before); grown["method_outside_dialog"] != 1 {
				t.Errorf("counters grew by %v, want method_outside_dialog by 1", grown)
			}
		})
		s.syncInside(t, c)
		nothingCame(t, s.Agent)
	})
	t.Run("outside a dialog that needs one", func(t *testing.T) {
		// With a ticket, but without the dialog that these belong to.
		c := s.FarDial(t)
		each(t, []string{"BYE", "PRACK", "UPDATE"}, func(t *testing.T, method string) {
			l := s.Inbound(c)
			req := l.Request(t, method, prepare, s.WithTicket)
			l.AwaitStatus(t, req, 481)
		})
		s.syncInside(t, c)
		nothingCame(t, s.Agent)
	})
	t.Run("ACK and CANCEL", func(t *testing.T) {
		c := s.FarDial(t)
		l := s.Inbound(c)
		l.Request(t, "ACK", s.WithTicket)
		l = s.Inbound(c)
		l.AwaitStatus(t, l.Request(t, "CANCEL", s.WithTicket), 481)
		s.syncInside(t, c)
		nothingCame(t, s.Agent)
	})
	t.Run("method that nobody knows", func(t *testing.T) {
		c := s.FarDial(t)
		l := s.Inbound(c)
		if m := l.AwaitStatus(t, l.Request(t, "FROBNICATE", s.WithTicket), 501); !strings.Contains(m.Get("Allow"), "INVITE") {
			t.Errorf("501 without the methods that are allowed: %q", m.Get("Allow"))
		}
		s.syncInside(t, c)
		nothingCame(t, s.Agent)
	})
	t.Run("OPTIONS", func(t *testing.T) {
		options := func() int {
			c := s.FarDial(t)
			defer c.Close()
			l := s.Inbound(c)
			return l.Final(t, l.Request(t, "OPTIONS")).Status()
		}
		before := s.counters(t)
		if got := options(); got != 200 {
			t.Errorf("status %d, want 200", got)
		}
		if d := s.counters(t).since(before); d["options_answered"] != 1 || d["ticket_not_found"] != 0 {
			t.Errorf("counters grew by %v", d)
		}
		s.Agent.StopListening()
		Until(t, wait, "503 while the call agent is down", func() bool { return options() == 503 })
		s.Agent.Listen(t, nil)
		Until(t, wait, "200 when it is up again", func() bool { return options() == 200 })
		nothingCame(t, s.Agent)
	})
}

// Twenty failures within a minute end the connection; nineteen do not.
func ticketFailuresCloseTheConnection(t *testing.T, s *StubLab) {
	c := s.FarDial(t)
	for i := range 20 {
		if i == 19 {
			c.Ping(t)
		}
		l := s.Inbound(c)
		l.AwaitStatus(t, l.Request(t, "INVITE", addTicket("AAAA")), 403)
	}
	c.WaitEnd(t, wait)
	Until(t, wait, "the signaling session is freed", func() bool { return s.SessionsInUse(t) == 0 })
	again := s.FarDial(t)
	s.syncInside(t, again)
}

// `ticket reject-action drop` answers nothing, and counts all the same.
func ticketRejectActionDrop(t *testing.T, s *StubLab) {
	s.mustReload(t, s.edit(t, trunkLine, trunkLine+"\n ticket reject-action drop"))
	defer s.mustReload(t, s.Proxy.DefaultConfig(t))
	c := s.FarDial(t)
	before := s.counters(t)
	l := s.Inbound(c)
	l.Request(t, "INVITE", addTicket("AAAA"))
	c.Ping(t)
	s.grew(t, before, "ticket_decode_failed", "keepalives")
	s.syncInside(t, c)
	for _, m := range s.Far.All() {
		if m.Get("Call-ID") == l.CallID {
			t.Errorf("answered %s", m.Start)
		}
	}
	nothingCame(t, s.Agent)
}

// A new epoch invalidates every ticket of the old one at once, on standing
// connections too; calls that stand go on.
func ticketEpochChange(t *testing.T, s *StubLab) {
	f, a := s.CallIn(t)
	s.mustReload(t, s.edit(t, "ticket epoch 1 ", "ticket epoch 2 "))
	before := s.counters(t)
	l := s.Inbound(f.Conn)
	l.AwaitStatus(t, l.Request(t, "INVITE", s.WithTicket), 403)
	s.grew(t, before, "ticket_epoch_mismatch")
	s.Ticket = s.ticketWith(t, func(x *TicketSpec) { x.Epoch = 2 })
	s.syncInside(t, f.Conn)
	callStands(t, f, a)
	f.Transact(t, a, "BYE", 200)
}
