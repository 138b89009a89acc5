package proxy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"imeproxy/fallback"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/tlsproxy"
	"imeproxy/ucime/ticket"
)

// handle moves one checked message. False ends the connection it came on.
func (s *session) handle(m *sipalg.Message, from dialog.Side) bool {
	if !m.IsRequest() {
		s.response(m, from)
		return true
	}
	if !dialog.KnownMethod(m.Method) {
		allow := dialog.Methods
		if from == dialog.Outside {
			allow = strangersMethods
		}
		s.refuse(m, from, 501, "Not Implemented", string(dialog.CauseUnknownMethod), sipalg.Header{Name: "Allow", Value: allow})
		return true
	}
	if from == dialog.Outside && s.namesInside(m) {
		s.refuse(m, from, 404, "Not Found", "inside_address_named")
		return true
	}
	if from == dialog.Outside && m.ToTag() == "" && ordersFallback(m) {
		s.refuse(m, from, 403, "Forbidden", "fallback_ordered")
		return true
	}
	if m.ToTag() == "" && m.Method != "ACK" && m.Method != "CANCEL" {
		return s.openingRequest(m, from)
	}
	s.dialogRequest(m, from)
	return true
}

// namesInside tells whether the Request-URI names an inside host by its address, as host or as the "maddr" that counts in its place (RFC 3261
// 19.1.1). The Internet knows no such address: it would make the call agent send the request to a host of the stranger's choice.
func (s *session) namesInside(m *sipalg.Message) bool {
	u, err := sipalg.ParseURI(m.URI)
	if err != nil {
		return false
	}
	if s.insideHost(u.Host) {
		return true
	}
	for _, p := range u.Params {
		name, err1 := url.PathUnescape(p.Name)
		value, err2 := url.PathUnescape(p.Value)
		if err1 != nil || err2 != nil || strings.EqualFold(name, "maddr") && s.insideHost(value) {
			return true
		}
	}
	return false
}

// insideHost tells whether a host is an address that the Internet has no use for: an inside one but the call agent's own, or one that every
// host takes for itself.
func (s *session) insideHost(host string) bool {
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if addr = addr.Unmap(); err != nil || addr == s.agent.real {
		return false
	}
	return s.a.plan.Load().insideNet(addr) || addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast()
}

// ordersFallback tells whether a request has the form of the appliance's own notification, on which a call agent dials a number over the PSTN
// (shared protocol "fallback"): that is for nobody on the Internet to say but the side that was called, see wishesFallback.
func ordersFallback(m *sipalg.Message) bool {
	uri := dialog.AddressURI(m.Get("Refer-To"))
	return len(uri) >= len(fallback.URNs) && strings.EqualFold(uri[:len(fallback.URNs)], fallback.URNs)
}

// wishesFallback tells whether an order to fall back is what the called side may ask for within the call: it sees what it receives, and only the
// call agent that called can dial. The number is the one that it was given with the answer to its own INVITE. Target-Dialog would mean another call.
func wishesFallback(m *sipalg.Message, c *call) bool {
	return m.Method == "REFER" && c.d.From == dialog.Inside && m.Get("Target-Dialog") == ""
}

// answer sends a response of the appliance's own on the connection that a request came on.
func (s *session) answer(m *sipalg.Message, from dialog.Side, status int, phrase string, extra ...sipalg.Header) {
	if m.Method == "ACK" {
		return
	}
	if k := s.conn(from); k != nil {
		k.sendMessage(sipalg.NewResponse(m, status, phrase, extra...))
	}
}

// refuse counts, logs and answers a request that goes no further.
func (s *session) refuse(m *sipalg.Message, from dialog.Side, status int, phrase, cause string, extra ...sipalg.Header) {
	s.a.count("sip", "messages_refused", cause)
	if status == 481 {
		s.a.count("sip", "unknown_dialog", "")
	}
	s.a.trace.Event(trace.Signaling, m.CallID(), s.remote.Addr().String(), "session %d: %s from %s refused with %d: %s", s.id, m.Method, from, status, cause)
	observe.WithCall(s.a.log, m.CallID()).Warn("request refused", "event", "request_refused", "method", m.Method, "called", userOfURI(m.URI), "from", from.String(), "cause", cause, "status", status, "session", s.id)
	s.answer(m, from, status, phrase, extra...)
}

// reason is the Reason header (RFC 3326) that tells the call agent why a request failed.
func reason(status int, text string) sipalg.Header {
	text = strings.NewReplacer("\\", "", "\"", "'", "\r", " ", "\n", " ").Replace(text)
	if len(text) > 200 {
		text = text[:200]
	}
	return sipalg.Header{Name: "Reason", Value: fmt.Sprintf(`SIP;cause=%d;text="%s"`, status, text)}
}

// unreachable answers a request whose other side cannot be opened. Why is told to the inside alone.
func (s *session) unreachable(m *sipalg.Message, from dialog.Side, err error) {
	cause := "outside_unreachable"
	switch {
	case from == dialog.Outside:
		cause = "call_agent_unreachable"
	case errors.Is(err, errLimit):
		cause = "session_limit"
	case errors.Is(err, errWrongDomain), refusedFor(err) == tlsproxy.ReasonWrongDomain:
		cause = "wrong_domain"
	}
	s.a.count("sip", "messages_refused", cause)
	s.a.trace.Event(trace.Signaling, m.CallID(), s.remote.Addr().String(), "session %d: %s from %s cannot go on: %v", s.id, m.Method, from, err)
	observe.WithCall(s.a.log, m.CallID()).Warn("other side cannot be opened", "event", "other_side_unreachable", "method", m.Method, "called", userOfURI(m.URI), "from", from.String(), "remote", s.remote.String(), "cause", cause, "err", err)
	if from == dialog.Inside {
		s.answer(m, from, 503, "Service Unavailable", reason(503, reasonText(err)))
		if s.alias.IsValid() {
			// The call agent took the accepted connection for the far end's: now it learns better (mapping.md).
			s.end("the far end behind the mapped address cannot be reached")
		}
		return
	}
	s.answer(m, from, 503, "Service Unavailable")
}

// refusedFor is why a handshake failed, "" when the error is of another kind.
func refusedFor(err error) tlsproxy.Reason {
	if h := new(tlsproxy.HandshakeError); errors.As(err, &h) {
		return h.Reason
	}
	return ""
}

// reasonText is an error in the words of a Reason header, which has room for a line: why a certificate was refused comes before whose it is.
func reasonText(err error) string {
	if p := new(tlsproxy.PeerError); errors.As(err, &p) {
		return "the far end's certificate is refused: " + p.Text
	}
	return err.Error()
}

// openingRequest deals with a request outside a dialog. False ends the connection.
func (s *session) openingRequest(m *sipalg.Message, from dialog.Side) bool {
	if s.a.stopping.Load() || !s.served() {
		s.refuse(m, from, 503, "Service Unavailable", "stopping", sipalg.Header{Name: "Retry-After", Value: "60"})
		return true
	}
	var domain string
	var shown *ticket.Ticket
	if from == dialog.Outside {
		if m.Method == "OPTIONS" && !m.Has(ticketHeader) {
			s.answerOptions(m)
			return true
		}
		var stay bool
		if shown, stay = s.admit(m); shown == nil {
			return stay
		}
		domain = shown.GrantedToDomain
		if cause := beyondTicket(m.Method); cause != "" {
			s.refuse(m, from, 403, "Forbidden", cause)
			return true
		}
		if len(m.URI) > maxTarget {
			s.refuse(m, from, 414, "Request-URI Too Long", string(sipalg.CauseHeaderTooLong))
			return true
		}
		if s.foreign(m) {
			s.refuse(m, from, 404, "Not Found", causeTarget)
			return true
		}
		if s.takesOver(m) {
			s.refuse(m, from, 481, "Call/Transaction Does Not Exist", causeReplaces)
			return true
		}
	} else if domain = requestDomain(m); domain == "" {
		s.refuse(m, from, 503, "Service Unavailable", "wrong_domain", reason(503, "the Request-URI names no domain"))
		return true
	}
	if c := s.a.calls.forRequest(m, from); c != nil && c.agent.real == s.agent.real {
		s.judge(c, m, from)
		return true
	}
	if dialog.NeedsDialog(m.Method) {
		s.refuse(m, from, 481, "Call/Transaction Does Not Exist", string(dialog.CauseNoDialog))
		return true
	}
	if _, err := s.ensure(from.Other(), domain); err != nil {
		s.unreachable(m, from, err)
		return true
	}
	c := s.newCall(m, from, domain, shown)
	if !s.take() || !s.a.calls.add(c) {
		s.give()
		c.media.close()
		s.refuse(m, from, 503, "Service Unavailable", "too_many_calls", sipalg.Header{Name: "Retry-After", Value: "10"})
		return true
	}
	if s.a.stopping.Load() {
		// The stop began while the other side was opened: whoever hangs up all calls may have looked already.
		s.a.calls.remove(c)
		s.give()
		c.media.close()
		s.refuse(m, from, 503, "Service Unavailable", "stopping", sipalg.Header{Name: "Retry-After", Value: "60"})
		return true
	}
	s.judge(c, m, from)
	return true
}

// served tells whether the configuration in force still has the session's call agent: its calls go on after that is gone, new ones do not begin.
func (s *session) served() bool {
	p := s.a.plan.Load()
	return p.proxying() && p.agents[s.agent.real] != nil
}

func (s *session) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	return s.calls <= maxCallsPerSession
}

func (s *session) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
}

// requestDomain is the domain that an outbound request is for: the host of its Request-URI.
func requestDomain(m *sipalg.Message) string {
	u, err := sipalg.ParseURI(m.URI)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.ToLower(u.Host), ".")
}

// newCall begins a call that a request opens; shown is the ticket of one from the Internet.
func (s *session) newCall(m *sipalg.Message, from dialog.Side, domain string, shown *ticket.Ticket) *call {
	now := s.a.now()
	c := &call{
		d: dialog.Open(m, from, now), domain: strings.Clone(domain), agent: s.agent, last: s, opener: s, lastUsed: now, logger: s.a.log,
	}
	c.d.Held = &s.a.held
	c.rec = observe.CallRecord{
		CallID: c.d.ID, Direction: "outbound", From: word(userOf(m.Get("From")), maxUser), To: word(requestUser(m), maxUser),
		LocalDomain: s.a.plan.Load().domain, PeerDomain: c.domain, Peer: s.remote.String(), Setup: now,
	}
	s.nameFirst(c, m, from)
	c.rec.SessionID = strconv.FormatUint(s.id, 10)
	if from == dialog.Outside {
		c.rec.Direction, c.rec.Ticket, c.rec.TicketID = "inbound", "ok", hex.EncodeToString(shown.ID[:])
		if len(shown.Numbers) > 1 {
			c.granted = shown.Numbers
		}
	}
	if k := s.conn(dialog.Outside); k != nil {
		c.rec.TLSVersion, c.rec.CipherSuite = k.version, k.suite
	}
	c.media = newMedia(s.mediaPolicy(c.d.ID, c.domain))
	if s.a.trace.Wants(trace.Signaling) {
		s.a.trace.Event(trace.Signaling, m.CallID(), domain, "session %d: %s begins, %s from %s to %s, other enterprise %s at %s", s.id, m.Method, c.rec.Direction, c.rec.From, c.rec.To, domain, s.remote)
	}
	if m.Method == "INVITE" {
		c.media.watched = s.a.quality.watch(c)
	}
	return c
}

func userOf(v string) string { return userOfURI(dialog.AddressURI(v)) }

func requestUser(m *sipalg.Message) string { return userOfURI(m.URI) }

func userOfURI(uri string) string {
	u, err := sipalg.ParseURI(uri)
	if err != nil {
		return ""
	}
	return u.User
}

// dialogRequest deals with a request inside a dialog, an ACK or a CANCEL.
func (s *session) dialogRequest(m *sipalg.Message, from dialog.Side) {
	c := s.a.calls.forRequest(m, from)
	if c != nil && (c.agent.real != s.agent.real || from == dialog.Outside && !s.holds(c.domain)) {
		// Another call agent's connection, or another enterprise's: it must not even learn that the dialog exists.
		c = nil
	}
	if c == nil {
		if m.Method == "ACK" {
			s.a.count("sip", "acks_without_dialog", "")
			return
		}
		s.refuse(m, from, 481, "Call/Transaction Does Not Exist", string(dialog.CauseNoDialog))
		return
	}
	if _, err := s.ensure(from.Other(), c.domain); err != nil {
		s.unreachable(m, from, err)
		if m.Method == "BYE" {
			// The sender is done with the call whatever we answer: no reason to keep its media.
			s.a.endCall(c, nil, "bye", from, 0)
		}
		return
	}
	var r referral
	if from == dialog.Outside {
		if s.takesOver(m) {
			s.refuse(m, from, 481, "Call/Transaction Does Not Exist", causeReplaces)
			return
		}
		r = s.referral(m)
	}
	s.judgeReferral(c, m, from, r)
}

// judge is judgeReferral for what is no REFER.
func (s *session) judge(c *call, m *sipalg.Message, from dialog.Side) {
	s.judgeReferral(c, m, from, referral{})
}

// judgeReferral lets the call's state decide on a request, and does what it says. r is where a REFER from the Internet leads.
func (s *session) judgeReferral(c *call, m *sipalg.Message, from dialog.Side, r referral) {
	now := s.a.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer s.a.planSweep(c)
	c.lastUsed, c.last = now, s
	if c.failing && m.Method != "ACK" {
		s.refuse(m, from, 481, "Call/Transaction Does Not Exist", string(dialog.CauseNoDialog))
		return
	}
	if from == dialog.Outside && ordersFallback(m) && !wishesFallback(m, c) {
		s.refuse(m, from, 403, "Forbidden", "fallback_ordered")
		return
	}
	if from == dialog.Outside && (m.ToTag() != "" || m.Method == "CANCEL" || m.Method == "ACK") {
		if why := s.misled(c, m); why != "" {
			s.turnAway(c, m, why)
			return
		}
	}
	if s.a.held.Load() > maxHeld && m.Size() >= dialog.LargeRequest && m.Method != "ACK" && m.Method != "CANCEL" && m.Method != "BYE" {
		// Whoever may call one number could fill the memory with INVITEs that ring for minutes.
		s.refuse(m, from, 503, "Service Unavailable", string(dialog.CauseTooManyRequests), sipalg.Header{Name: "Retry-After", Value: "10"})
		return
	}
	act := c.d.Request(m, from, now)
	switch act.Verdict {
	case dialog.Absorb:
		return
	case dialog.Drop:
		s.a.count("sip", "messages_refused", string(act.Cause))
		return
	case dialog.Answer:
		var extra []sipalg.Header
		if act.RetryAfter > 0 {
			extra = append(extra, sipalg.Header{Name: "Retry-After", Value: strconv.Itoa(act.RetryAfter)})
		}
		s.refuse(m, from, act.Status, act.Phrase, string(act.Cause), extra...)
		return
	}
	if act.Tx != nil {
		act.Tx.Owner = s
	}
	if from == dialog.Outside && !ordersFallback(m) {
		if why := s.transferred(c, r); why != "" {
			s.a.trace.Event(trace.Signaling, m.CallID(), c.domain, "session %d: REFER to %s: %s", s.id, m.Get("Refer-To"), why)
			s.rejectTx(c, m, from, act, 403, "Forbidden", causeTransfer)
			return
		}
	}
	s.forwardRequest(c, m, from, act, now)
}

// copies are the messages that leave in the place of those that came. Nothing of one is kept when it has been sent.
var copies = sync.Pool{New: func() any { return new(sipalg.Message) }}

// putCopy gives one back, without what it refers to.
func putCopy(m *sipalg.Message) {
	clear(m.Headers[:cap(m.Headers)])
	*m = sipalg.Message{Headers: m.Headers[:0]}
	copies.Put(m)
}

// forwardRequest translates a request and sends it on. The call is locked.
func (s *session) forwardRequest(c *call, m *sipalg.Message, from dialog.Side, act dialog.Action, now time.Time) {
	out := copies.Get().(*sipalg.Message)
	defer putCopy(out)
	m.CopyTo(out)
	if !out.Has("Max-Forwards") {
		out.Add("Max-Forwards", "70") // RFC 3261 16.6 item 3
	}
	if from == dialog.Inside {
		c.name(m)
		c.sensitivity(m)
	}
	if from == dialog.Outside && act.Dialog == nil && m.Method != "CANCEL" && m.Method != "ACK" {
		s.disown(c, out)
	}
	if err := c.offerAnswer(out, from, act); err != nil {
		s.unusableRequest(c, m, from, act, err)
		return
	}
	if err := s.translate(out, from, c); err != nil {
		c.log().Warn("request cannot be translated", "event", "request_untranslatable", "method", m.Method, "from", from.String(), "err", err)
		s.rejectTx(c, m, from, act, 400, "Bad Request", "untranslatable")
		return
	}
	if from == dialog.Inside && m.Method == "REFER" {
		s.a.lent.note(m, c.domain, now)
	}
	if act.Dialog == nil && m.Method != "CANCEL" && m.Method != "ACK" {
		c.d.NoteRequest(m, from)
		c.d.NoteRequest(out, from.Other())
	} else if act.Dialog != nil && (m.Method == "INVITE" || m.Method == "UPDATE") {
		act.Dialog.NoteTarget(m, from)
	}
	k := s.conn(from.Other())
	if k == nil || !k.sendMessage(out) {
		s.rejectTx(c, m, from, act, 503, "Service Unavailable", "connection_lost")
		return
	}
	if m.Method == "CANCEL" {
		c.rec.EndReason = "cancel"
	}
	if act.Ended {
		s.a.finish(c, "bye", from, 0)
	}
}

// rejectTx gives the appliance's own final answer to a request that the call has taken in.
func (s *session) rejectTx(c *call, m *sipalg.Message, from dialog.Side, act dialog.Action, status int, phrase, cause string, extra ...sipalg.Header) {
	s.refuse(m, from, status, phrase, cause, extra...)
	if act.Tx == nil {
		return
	}
	if ended := c.d.Reject(act.Tx, status, s.a.now()); ended || act.Ended {
		s.a.finish(c, "refused", from, status)
	}
}

// unusableRequest answers a request whose session description cannot be used. An ACK has no answer: an answer
// in it that cannot be used ends the call at both ends.
func (s *session) unusableRequest(c *call, m *sipalg.Message, from dialog.Side, act dialog.Action, err error) {
	s.a.trace.Event(trace.Media, m.CallID(), c.domain, "%s of %s refused: %v", from, m.Method, err)
	c.log().Warn("session description refused", "event", "description_refused", "method", m.Method, "from", from.String(), "err", err)
	if m.Method == "ACK" {
		s.a.hangUp(c, "unusable_answer")
		return
	}
	if errors.Is(err, errUnusable) {
		s.rejectTx(c, m, from, act, 488, "Not Acceptable Here", "unusable_offer")
		return
	}
	extra := []sipalg.Header{{Name: "Retry-After", Value: "10"}}
	if from == dialog.Inside {
		extra = append(extra, reason(503, "no media port is free"))
	}
	s.rejectTx(c, m, from, act, 503, "Service Unavailable", "no_media_port", extra...)
}

// translate rewrites a message for the other side.
func (s *session) translate(m *sipalg.Message, from dialog.Side, c *call) error {
	if from == dialog.Inside {
		return s.rw.Outbound(m)
	}
	sipalg.FilterFallbackTarget(m, c.d.From == dialog.Inside)
	sipalg.FilterOwn(m)
	return s.rw.Inbound(m)
}
