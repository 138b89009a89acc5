package testbed

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// wait is how long tests wait for a message: far more than any takes.
const wait = 5 * time.Second

// token makes a random word.
func token(prefix string) string {
	var b [6]byte
	rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}

// Leg is one end of a dialog (or of a request outside one): the state that a
// SIP stack keeps. Tests change its fields to misbehave.
type Leg struct {
	Stub   *Stub
	Conn   *StubConn // where requests and responses go
	CallID string
	// Local and Remote are From and To without tags, as this end writes them.
	Local, Remote       string
	LocalTag, RemoteTag string
	CSeq                int
	inviteCSeq          int    // number of the last INVITE, which an ACK repeats
	Target              string // Request-URI
	Routes              []string
	Contact             string
}

// NewLeg starts a call from the stub over a connection; target is the Request-URI.
func (s *Stub) NewLeg(conn *StubConn, local, remote, target string) *Leg {
	return &Leg{
		Stub: s, Conn: conn, CallID: token("call-"), Local: local, Remote: remote, LocalTag: token("t"), CSeq: 100,
		Target: target, Contact: fmt.Sprintf("<sip:%s;transport=%s>", s.Addr, strings.ToLower(s.Transport)),
	}
}

// NewRequest builds the next request; CSeq grows but for ACK and CANCEL.
func (l *Leg) NewRequest(method string) *StubMessage {
	if method != "ACK" && method != "CANCEL" {
		l.CSeq++
	}
	m := &StubMessage{Start: method + " " + l.Target + " SIP/2.0"}
	m.Add("Via", fmt.Sprintf("SIP/2.0/%s %s;branch=%s", l.Stub.Transport, l.Stub.Addr, token("z9hG4bK")))
	for _, r := range l.Routes {
		m.Add("Route", r)
	}
	m.Add("Max-Forwards", "70").Add("From", l.Local+";tag="+l.LocalTag)
	to := l.Remote
	if l.RemoteTag != "" {
		to += ";tag=" + l.RemoteTag
	}
	number := l.CSeq
	switch method {
	case "INVITE":
		l.inviteCSeq = number
	case "ACK":
		number = l.inviteCSeq
	}
	m.Add("To", to).Add("Call-ID", l.CallID).Add("CSeq", fmt.Sprintf("%d %s", number, method))
	switch method {
	case "INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER":
		m.Add("Contact", l.Contact)
	}
	return m
}

// Request sends the next request; change may alter it before.
func (l *Leg) Request(t T, method string, change ...func(*StubMessage)) *StubMessage {
	t.Helper()
	m := l.NewRequest(method)
	for _, f := range change {
		f(m)
	}
	return l.Conn.Send(t, m)
}

// Ack sends the ACK to a 2xx.
func (l *Leg) Ack(t T, change ...func(*StubMessage)) *StubMessage {
	t.Helper()
	return l.Request(t, "ACK", change...)
}

// AckFailure sends the ACK to a final failure of inv: its branch, Request-URI and routes.
func (l *Leg) AckFailure(t T, inv, resp *StubMessage) {
	t.Helper()
	n, _ := inv.CSeq()
	m := &StubMessage{Start: "ACK " + inv.URI() + " SIP/2.0"}
	m.Add("Via", inv.Get("Via"))
	for _, r := range inv.All("Route") {
		m.Add("Route", r)
	}
	m.Add("Max-Forwards", "70").Add("From", inv.Get("From")).Add("To", resp.Get("To")).Add("Call-ID", l.CallID).Add("CSeq", fmt.Sprintf("%d ACK", n))
	l.Conn.SendRaw(t, m.Bytes())
}

// Cancel sends the CANCEL of inv.
func (l *Leg) Cancel(t T, inv *StubMessage) *StubMessage {
	t.Helper()
	n, _ := inv.CSeq()
	m := &StubMessage{Start: "CANCEL " + inv.URI() + " SIP/2.0"}
	m.Add("Via", inv.Get("Via"))
	for _, r := range inv.All("Route") {
		m.Add("Route", r)
	}
	m.Add("Max-Forwards", "70").Add("From", inv.Get("From")).Add("To", inv.Get("To")).Add("Call-ID", l.CallID).Add("CSeq", fmt.Sprintf("%d CANCEL", n))
	return l.Conn.Send(t, m)
}

// Learn takes tag, target and routes from a response, as the caller does.
func (l *Leg) Learn(resp *StubMessage) {
	l.RemoteTag = tagOf(resp.Get("To"))
	if c := resp.Get("Contact"); c != "" {
		l.Target = uriOf(c)
	}
	if rr := resp.All("Record-Route"); len(rr) > 0 {
		l.Routes = slices.Clone(rr)
		slices.Reverse(l.Routes)
	}
}

// Fork is a second dialog of the same call, learnt from another response.
func (l *Leg) Fork(resp *StubMessage) *Leg {
	c := *l
	c.Learn(resp)
	return &c
}

// AnswerLeg is the callee's end of the dialog that a request opens.
func (s *Stub) AnswerLeg(req *StubMessage) *Leg {
	l := s.NewLeg(req.Conn, strings.TrimSpace(req.Get("To")), "", uriOf(req.Get("Contact")))
	from := req.Get("From")
	l.RemoteTag = tagOf(from)
	l.Remote = strings.TrimSpace(tagParam.ReplaceAllString(from, ""))
	l.CallID, l.CSeq = req.Get("Call-ID"), 500
	l.Routes = slices.Clone(req.All("Record-Route"))
	return l
}

// NewResponse builds a response to a request of the dialog.
func (l *Leg) NewResponse(req *StubMessage, status int, phrase string) *StubMessage {
	m := &StubMessage{Start: fmt.Sprintf("SIP/2.0 %d %s", status, phrase)}
	for _, name := range []string{"Via", "Record-Route", "From"} {
		for _, v := range req.All(name) {
			m.Add(name, v)
		}
	}
	to := req.Get("To")
	if tagOf(to) == "" && status > 100 {
		to += ";tag=" + l.LocalTag
	}
	m.Add("To", to).Add("Call-ID", req.Get("Call-ID")).Add("CSeq", req.Get("CSeq"))
	if _, method := req.CSeq(); status > 100 && status < 300 && slices.Contains([]string{"INVITE", "UPDATE", "SUBSCRIBE", "REFER"}, method) {
		m.Add("Contact", l.Contact)
	}
	return m
}

// Respond sends a response on the connection its request came on.
func (l *Leg) Respond(t T, req *StubMessage, status int, phrase string, change ...func(*StubMessage)) *StubMessage {
	t.Helper()
	m := l.NewResponse(req, status, phrase)
	for _, f := range change {
		f(m)
	}
	req.Conn.Send(t, m)
	return m
}

// Final waits for the final response to a request that this leg sent.
func (l *Leg) Final(t T, req *StubMessage) *StubMessage {
	t.Helper()
	return l.Await(t, req, func(m *StubMessage) bool { return m.Status() >= 200 })
}

// Await waits for a response to a request that this leg sent.
func (l *Leg) Await(t T, req *StubMessage, match Match) *StubMessage {
	t.Helper()
	want, method := req.CSeq()
	return l.Stub.Expect(t, InCall(l.CallID, func(m *StubMessage) bool {
		n, mm := m.CSeq()
		return m.Status() > 0 && n == want && mm == method && m.Branch() == req.Branch() && match(m)
	}), wait)
}

// AwaitStatus waits for a response of that status.
func (l *Leg) AwaitStatus(t T, req *StubMessage, status int) *StubMessage {
	t.Helper()
	m := l.Await(t, req, func(m *StubMessage) bool { return m.Status() == status || m.Status() >= 200 })
	if m.Status() != status {
		t.Fatalf("%s: %s was answered %q, want %d", l.Stub.Name, req.Start, m.Start, status)
	}
	return m
}

// Expect waits for a request of this dialog or call.
func (l *Leg) Expect(t T, method string) *StubMessage {
	t.Helper()
	return l.Stub.Expect(t, InCall(l.CallID, ReqIs(method)), wait)
}

// Transact sends a request, lets the other leg take and answer it with the
// status, and gives what the other side saw and the answer.
func (l *Leg) Transact(t T, other *Leg, method string, status int, change ...func(*StubMessage)) (seen, answer *StubMessage) {
	t.Helper()
	req := l.Request(t, method, change...)
	seen = other.Expect(t, method)
	other.Respond(t, seen, status, "Answer")
	return seen, l.AwaitStatus(t, req, status)
}
