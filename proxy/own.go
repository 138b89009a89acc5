package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// The requests that the appliance sends in the name of an end: the ACK and BYE of what it cannot use, and the
// BYEs of calls that it ends. All of them are called with the call locked; none waits.

// carrier gives a connection to a side of the call: of its last session, else of another one between the same ends.
func (a *Appliance) carrier(c *call, side dialog.Side) (*session, *conn) {
	if k := c.last.conn(side); k != nil {
		return c.last, k
	}
	if s := a.sessions.between(c.agent, c.last.remote.Addr(), c.domain, side); s != nil {
		return s, s.conn(side)
	}
	return nil, nil
}

// ownVia is the Via of a request of our own towards a side: there we stand for the opposite end.
func (s *session) ownVia(side dialog.Side) sipalg.Via {
	var b [9]byte
	_, _ = rand.Read(b[:])
	v := sipalg.Via{Transport: "TLS", Host: s.mapped.Addr().String(), Port: int(s.mapped.Port()), Branch: "z9hG4bKime" + hex.EncodeToString(b[:])}
	if side == dialog.Inside {
		v.Transport, v.Host, v.Port = s.rw.InsideTransport, s.remote.Addr().String(), int(s.remote.Port())
	}
	v.Params = []sipalg.Param{{Name: "branch", Value: v.Branch, HasValue: true}}
	return v
}

// inDialog builds a request within a dialog towards a side.
func (a *Appliance) inDialog(c *call, d *dialog.Dialog, side dialog.Side, method string, cseq uint32, extra ...sipalg.Header) (*sipalg.Message, *conn) {
	if d == nil || d.Ends[side].Target == "" || d.Ends[side].Party == "" || d.Ends[side].Peer == "" {
		return nil, nil
	}
	s, k := a.carrier(c, side)
	if k == nil {
		return nil, nil
	}
	e := d.Ends[side]
	return sipalg.BuildRequest(method, e.Target, s.ownVia(side), e.Peer, e.Party, c.d.ID, cseq, e.Routes, extra...), k
}

// sendBye ends a dialog at one end, over a new connection where none stands.
func (a *Appliance) sendBye(c *call, d *dialog.Dialog, side dialog.Side, extra ...sipalg.Header) {
	if d == nil {
		return
	}
	if _, k := a.carrier(c, side); k == nil {
		a.byeAnew(c, d, side, extra)
		return
	}
	a.queueBye(c, d, side, extra)
}

// queueBye sends the BYE over a connection that stands.
func (a *Appliance) queueBye(c *call, d *dialog.Dialog, side dialog.Side, extra []sipalg.Header) {
	m, k := a.inDialog(c, d, side, "BYE", d.NextCSeq(side.Other()), extra...)
	if m == nil {
		return
	}
	c.d.AddOwn(m, side, a.now())
	k.sendMessage(m)
}

// sendAck acknowledges a 2xx whose own ACK will not come.
func (a *Appliance) sendAck(c *call, d *dialog.Dialog, tx *dialog.Transaction, side dialog.Side) {
	if m, k := a.inDialog(c, d, side, "ACK", tx.CSeq); m != nil {
		k.sendMessage(m)
	}
}

// asSent gives a request as it went out to the other side, for what must repeat its headers.
func (s *session) asSent(tx *dialog.Transaction, c *call) *sipalg.Message {
	if tx.Request == nil {
		return nil
	}
	m := tx.Request.Clone()
	m.Body = nil
	if s.translate(m, tx.From, c) != nil {
		return nil
	}
	return m
}

// sendCancel cancels an INVITE towards its callee (RFC 3261 9.1: the same Via, From, To, Call-ID, number and routes).
func (a *Appliance) sendCancel(c *call, tx *dialog.Transaction, side dialog.Side) {
	s, k := a.carrier(c, side)
	if k == nil {
		return
	}
	inv := s.asSent(tx, c)
	if inv == nil {
		return
	}
	via, _ := inv.TopVia()
	m := sipalg.BuildRequest("CANCEL", inv.URI, via, inv.Get("From"), inv.Get("To"), c.d.ID, tx.CSeq, inv.Values("Route"))
	c.d.AddOwn(m, side, a.now())
	k.sendMessage(m)
}

// sendFailureAck acknowledges a final response of 300 and above (RFC 3261 17.1.1.3).
func (a *Appliance) sendFailureAck(c *call, tx *dialog.Transaction, resp *sipalg.Message, side dialog.Side) {
	s, k := a.carrier(c, side)
	if k == nil {
		return
	}
	inv := s.asSent(tx, c)
	via, ok := resp.TopVia()
	if inv == nil || !ok {
		return
	}
	k.sendMessage(sipalg.BuildRequest("ACK", inv.URI, via, resp.Get("From"), resp.Get("To"), c.d.ID, tx.CSeq, inv.Values("Route")))
}

// sendStrayBye acknowledges and ends a call that was answered after the appliance had given it up.
func (a *Appliance) sendStrayBye(c *call, tx *dialog.Transaction, resp *sipalg.Message, side dialog.Side) {
	s, k := a.carrier(c, side)
	target := dialog.AddressURI(resp.Get("Contact"))
	if k == nil || target == "" {
		return
	}
	sent := c.d.FarRoutes()
	if inv := s.asSent(tx, c); inv != nil {
		sent = len(inv.Values("Record-Route"))
	}
	routes := resp.Values("Record-Route")
	routes = routes[:max(0, len(routes)-sent)]
	for i, j := 0, len(routes)-1; i < j; i, j = i+1, j-1 {
		routes[i], routes[j] = routes[j], routes[i]
	}
	from, to := resp.Get("From"), resp.Get("To")
	k.sendMessage(sipalg.BuildRequest("ACK", target, s.ownVia(side), from, to, c.d.ID, tx.CSeq, routes))
	bye := sipalg.BuildRequest("BYE", target, s.ownVia(side), from, to, c.d.ID, tx.CSeq+1, routes)
	c.d.AddOwn(bye, side, a.now())
	k.sendMessage(bye)
}

// clearCall ends a call that stands, at both ends.
func (a *Appliance) clearCall(c *call, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.d.HasInvite() {
		a.hangUp(c, why)
	}
}

// hangUp ends a call at both ends: BYE where it was answered, CANCEL and 408 where it still rings.
func (a *Appliance) hangUp(c *call, why string) {
	if c.failing {
		return
	}
	c.failing = true
	text := reason(200, why)
	for _, d := range c.d.Dialogs() {
		if d.State == dialog.Confirmed && d.UsageByInvite() {
			a.sendBye(c, d, dialog.Inside, text)
			a.sendBye(c, d, dialog.Outside)
		}
	}
	status := 0
	if tx := c.d.Invite(); tx != nil {
		status = 503
		if why == "timeout" {
			status = 408
		}
		a.sendCancel(c, tx, tx.From.Other())
		if s, _ := tx.Owner.(*session); s != nil {
			phrase := map[int]string{408: "Request Timeout", 503: "Service Unavailable"}[status]
			s.answer(tx.Request, tx.From, status, phrase)
		}
		c.d.Reject(tx, status, a.now())
	}
	c.d.End(a.now())
	a.finishAs(c, why, "proxy", status)
}

// finish writes the record of a call by INVITE that is over and frees its media. The call is locked.
func (a *Appliance) finish(c *call, why string, from dialog.Side, status int) {
	a.finishAs(c, why, from.String(), status)
}

func (a *Appliance) finishAs(c *call, why, side string, status int) {
	defer a.planSweep(c)
	if c.recorded || c.d.Method != "INVITE" {
		c.media.close()
		return
	}
	c.recorded = true
	c.rec.EndReason, c.rec.EndSide, c.rec.End = why, side, a.now()
	if status >= 300 {
		c.rec.EndStatus = status
	}
	c.recordMedia(a.now())
	a.reportQuality(c)
	c.media.close()
	c.rec.Finish()
	a.records.Write(c.rec)
	if !c.rec.Connect.IsZero() {
		a.count("sip", "dialogs_ended", "")
	}
	if a.trace.Wants(trace.Signaling) {
		a.trace.Event(trace.Signaling, c.d.ID, c.domain, "call ended: %s by %s, %d packets sent, %d received", why, side, c.rec.PacketsSent, c.rec.PacketsRecvd)
	}
	observe.Info(c.logger, "call ended", observe.CallID(c.d.ID), slog.String("reason", why), slog.String("by", side), slog.Int("status", status),
		slog.Duration("duration", time.Duration(c.rec.DurationMS)*time.Millisecond), slog.Uint64("sent", c.rec.PacketsSent),
		slog.Uint64("received", c.rec.PacketsRecvd), slog.String("suite", c.rec.SRTPSuite))
}

// endCall ends a call whose one end is done with it: the other end gets BYE if it can be reached.
func (a *Appliance) endCall(c *call, d *dialog.Dialog, why string, by dialog.Side, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failing || !c.d.HasInvite() {
		return
	}
	c.failing = true
	for _, x := range c.d.Dialogs() {
		if x.UsageByInvite() && (d == nil || d == x) {
			a.sendBye(c, x, by.Other())
		}
	}
	c.d.End(a.now())
	a.finish(c, why, by, status)
}
