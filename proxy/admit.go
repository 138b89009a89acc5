package proxy

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
	"imeproxy/ucime/ticket"
)

// ticketHeader carries the ticket (ticket.md, "Carriage").
const ticketHeader = "X-Cisco-UC-IME-Ticket"

// admit verifies the ticket of a request outside a dialog that came from the Internet, and gives it when it lets the request in: its granted-to
// domain is then the far enterprise for the whole call. Else it is nil, and stay is false when the connection has failed too often.
func (s *session) admit(m *sipalg.Message) (_ *ticket.Ticket, stay bool) {
	p := s.a.plan.Load()
	var peers []string
	if k := s.conn(dialog.Outside); k != nil {
		peers = k.domains
	}
	var headers []string
	for _, h := range m.Headers {
		if h.Is(ticketHeader) {
			headers = append(headers, h.Value)
		}
	}
	v := ticket.Verifier{Key: p.ticketKey, OwnDomains: s.a.ownDomains(s.class)}
	called := s.calledUser(m)
	res, t := v.Verify(headers, called, peers, s.a.now())
	if res == ticket.OK && s.routedElsewhere(m, called) {
		res = ticket.DIDMismatch
	}
	if res == ticket.OK {
		s.a.count("ticket", "verified", "")
		s.welcomed()
		s.a.peer(s.remote.Addr())
		if s.a.trace.Wants(trace.Ticket) {
			s.a.trace.Event(trace.Ticket, m.CallID(), t.GrantedToDomain, "%s for %s from %s: verified, ticket %x granted to %s by %s", m.Method, called, s.remote, t.ID, t.GrantedToDomain, t.GrantingDomain)
		}
		return t, true
	}
	s.a.count("ticket", "failures", observe.Snake(string(res)))
	observe.WithCall(s.a.log, m.CallID()).Warn("ticket refused", "event", "ticket_refused", "cause", string(res), "why", ticketRefusal(res, t, p.ticketKey.Epoch(), peers), "method", m.Method, "called", called,
		"remote", s.remote.String(), "peer", strings.Join(peers, " "), "session", s.id)
	stay = !s.tooManyFailures()
	s.a.offence(s.remote.Addr(), string(res))
	if s.a.trace.Wants(trace.Ticket) {
		s.a.trace.Event(trace.Ticket, m.CallID(), strings.Join(peers, " "), "%s for %s from %s, whose certificate names %s: %s: %s", m.Method, called, s.remote, strings.Join(peers, " "), res.Label(), ticketMeanings[res])
	}
	if !p.rejectDrop {
		s.answer(m, dialog.Outside, 403, "Forbidden")
	}
	return nil, stay
}

// The methods that a ticket is not for; causeRegistration is told apart, since a call agent that took it would have lost a number.
const (
	causeRegistration = "registration"
	causeMethod       = "method_outside_dialog"
)

// strangersMethods is the value of an Allow header for the Internet: what passes from there, in a dialog at least.
const strangersMethods = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, SUBSCRIBE, NOTIFY, REFER"

// beyondTicket tells why a ticket is not enough for a request from the Internet outside a dialog, "" when it is. A ticket lets call a number:
// who registers for it would be called in its place, a REFER would have its phone call any other number, a NOTIFY that nobody has subscribed to
// restarts phones and a PUBLISH says who is there. What needs a dialog is refused for having none.
func beyondTicket(method string) (cause string) {
	switch {
	case method == "INVITE", method == "OPTIONS", method == "MESSAGE", method == "SUBSCRIBE", dialog.NeedsDialog(method):
		return ""
	case method == "REGISTER":
		return causeRegistration
	}
	return causeMethod
}

// calledUser is the user part of a Request-URI from the Internet as the call agent will see it: a token in the URI brings back the user that
// it was made for, and whoever was in a call may have been shown one.
func (s *session) calledUser(m *sipalg.Message) string {
	return userOfURI(s.rw.RequestURIOf(m))
}

// routedElsewhere tells whether a Route of a request outside a dialog names another user than the one called: a strict router puts it into the
// Request-URI (RFC 3261 16.4 and 16.6 item 6).
func (s *session) routedElsewhere(m *sipalg.Message, called string) bool {
	for _, r := range m.Values("Route") {
		uri, _, _ := sipalg.AddressURI(r)
		if user := userOfURI(s.rw.RequestURI(uri)); user != "" && ticket.CalledNumber(user) != ticket.CalledNumber(called) {
			return true
		}
	}
	return false
}

// tooManyFailures counts a ticket failure and tells whether the connection has had its 20 within 60 s.
func (s *session) tooManyFailures() bool {
	now := s.a.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := s.failed[:0]
	for _, t := range s.failed {
		if now.Sub(t) < ticketWindow {
			keep = append(keep, t)
		}
	}
	s.failed = append(keep, now)
	return len(s.failed) >= ticketFailures
}

// answerOptions answers an OPTIONS without ticket: 200, or 503 while no call agent is reachable. It is never forwarded.
func (s *session) answerOptions(m *sipalg.Message) {
	s.a.count("sip", "options_answered", "")
	allow := sipalg.Header{Name: "Allow", Value: strangersMethods}
	accept := sipalg.Header{Name: "Accept", Value: "application/sdp"}
	if s.a.stopping.Load() || !s.a.reachable(s) {
		s.answer(m, dialog.Outside, 503, "Service Unavailable")
		return
	}
	s.answer(m, dialog.Outside, 200, "OK", allow, accept)
}

// callAgent is one `ucm address`, with what is known of its health.
type callAgent struct {
	real   netip.Addr
	hide   netip.Addr // its mapped address: where the Internet reaches it
	source netip.Addr // where its own connections come from; zero when nothing lets it make any
	secure bool
	health *agentHealth
}

// reachable tells whether the call agent can be reached: a standing inside connection or a fresh look. OPTIONS from the
// Internet must not become a flood of connections, so one look serves a second.
func (a *Appliance) reachable(s *session) bool {
	if s.conn(dialog.Inside) != nil {
		return true
	}
	return a.look(s.agent, func(ctx context.Context) error {
		c, err := tlsproxy.DialTransparent(ctx, netip.AddrPortFrom(s.remote.Addr(), 0), netip.AddrPortFrom(s.agent.real, s.agentPort), 0)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// look dials a call agent, unless somebody has within the last second.
func (a *Appliance) look(g *callAgent, dial func(context.Context) error) bool {
	h := g.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.looked.IsZero() && a.now().Sub(h.looked) < time.Second {
		return h.up
	}
	ctx, cancel := context.WithTimeout(a.ctx, openTimeout)
	defer cancel()
	err := dial(ctx)
	h.looked = a.now() // whoever waited for this look needs none of its own
	a.setHealth(g, err)
	return h.up
}
