package proxy

import (
	"errors"
	"log/slog"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// response deals with a response from one side. It goes back on the connection its request came on or,
// when that is gone, on this session's.
func (s *session) response(m *sipalg.Message, from dialog.Side) {
	if from == dialog.Inside && s.a.quality.response(m) {
		return
	}
	c, owner := s.a.calls.forResponse(m, from)
	if c == nil || c.agent.real != s.agent.real || from == dialog.Outside && !s.holds(c.domain) {
		s.a.count("sip", "messages_refused", string(dialog.CauseNoTransaction))
		return
	}
	to := from.Other()
	if owner == nil || owner.conn(to) == nil {
		owner = s
		if _, err := s.ensure(to, c.domain); err != nil {
			c.log().Warn("response cannot be delivered", "event", "response_undeliverable", "status", m.Status, "to", to.String(), "err", err)
		}
	}
	now := s.a.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer s.a.planSweep(c)
	c.lastUsed, c.last = now, s
	act := c.d.Response(m, from, now)
	switch act.Verdict {
	case dialog.Drop:
		s.a.count("sip", "messages_refused", string(act.Cause))
		return
	case dialog.Absorb:
		s.cleanUp(c, m, from, act)
		return
	}
	s.forwardResponse(c, m, from, owner, act, now)
}

// forwardResponse translates a response and sends it on. The call is locked.
func (s *session) forwardResponse(c *call, m *sipalg.Message, from dialog.Side, owner *session, act dialog.Action, now time.Time) {
	out := copies.Get().(*sipalg.Message)
	defer putCopy(out)
	m.CopyTo(out)
	tx := act.Tx
	if from == dialog.Inside {
		c.name(m)
		c.sensitivity(m)
	}
	if err := c.offerAnswer(out, from, act); err != nil {
		s.unusableResponse(c, m, from, owner, act, err)
		return
	}
	if err := s.translate(out, from, c); err != nil {
		c.log().Warn("response cannot be translated", "event", "response_untranslatable", "status", m.Status, "from", from.String(), "err", err)
		s.a.count("sip", "messages_refused", "untranslatable")
		return
	}
	if from == dialog.Outside {
		s.redirected(c, out)
	}
	if act.Dialog != nil && m.Status > 100 && m.Status < 300 {
		s.noteResponse(c, m, out, from, act)
	}
	if act.Confirmed {
		c.rec.Connect = now
		s.a.peer(s.remote.Addr()) // it will call back
		s.a.count("sip", "dialogs_opened", "")
		if s.a.trace.Wants(trace.Signaling) {
			s.a.trace.Event(trace.Signaling, m.CallID(), c.domain, "session %d: %s call from %s to %s answered", s.id, c.rec.Direction, c.rec.From, c.rec.To)
		}
		observe.Info(c.logger, "call answered", observe.CallID(c.d.ID), slog.Uint64("session", s.id), slog.String("from", c.rec.From),
			slog.String("to", c.rec.To), slog.String("direction", c.rec.Direction))
	}
	if k := owner.conn(from.Other()); k != nil {
		k.sendMessage(out)
	}
	tx.Answer()
	if act.Ended {
		why := "refused"
		if tx.Method == "INVITE" && c.rec.EndReason != "" {
			why = c.rec.EndReason
		}
		s.a.finish(c, why, from, m.Status)
	}
}

// noteResponse keeps what is needed to send requests of our own in the dialog.
func (s *session) noteResponse(c *call, m, out *sipalg.Message, from dialog.Side, act dialog.Action) {
	if act.Tx.Method != "INVITE" {
		if act.Tx.Method == "UPDATE" {
			act.Dialog.NoteTarget(m, from)
		}
		return
	}
	if act.Tx.Tag == "" {
		c.d.NoteResponse(act.Dialog, m, from)
		c.d.NoteResponse(act.Dialog, out, from.Other())
		return
	}
	act.Dialog.NoteTarget(m, from)
}

// unusableResponse ends what a response with an unusable session description began: towards its sender ACK
// and BYE (or CANCEL while it rings), towards the other end 488 (DESIGN, "How the edge decides"), or 503 where no media port is free.
func (s *session) unusableResponse(c *call, m *sipalg.Message, from dialog.Side, owner *session, act dialog.Action, err error) {
	s.a.trace.Event(trace.Media, m.CallID(), c.domain, "answer of %s in %d refused: %v", from, m.Status, err)
	c.log().Warn("session description refused", "event", "description_refused", "status", m.Status, "from", from.String(), "err", err)
	status, phrase, cause := 488, "Not Acceptable Here", "unusable_answer"
	if !errors.Is(err, errUnusable) {
		status, phrase, cause = 503, "Service Unavailable", "no_media_port"
	}
	s.a.count("sip", "messages_refused", cause)
	tx := act.Tx
	if act.Dialog != nil {
		probe := m.Clone()
		if s.translate(probe, from, c) == nil {
			s.noteResponse(c, m, probe, from, act)
		}
	}
	switch {
	case tx.Method == "INVITE" && m.Status >= 200:
		s.a.sendAck(c, act.Dialog, tx, from)
		s.a.sendBye(c, act.Dialog, from)
	case tx.Method == "INVITE":
		s.a.sendCancel(c, tx, from)
	default:
		// UPDATE or PRACK: the two ends would hold different ideas of the media.
		defer s.a.hangUp(c, cause)
	}
	ended := false
	if tx.Request != nil { // else another fork's answer has gone already, and stands
		owner.answer(tx.Request, from.Other(), status, phrase)
		ended = c.d.Reject(tx, status, s.a.now())
	}
	if tx.Tag != "" && tx.Method == "INVITE" {
		s.a.sendBye(c, act.Dialog, from.Other())
	}
	if act.Dialog != nil && m.Status >= 200 && tx.Method == "INVITE" {
		ended = c.d.EndDialog(act.Dialog, s.a.now()) || ended
	}
	if ended {
		s.a.finish(c, cause, dialog.Side(from), status)
	}
}

// cleanUp acknowledges final responses to an INVITE that the appliance has already answered or sent itself, so that
// their sender is not left waiting.
func (s *session) cleanUp(c *call, m *sipalg.Message, from dialog.Side, act dialog.Action) {
	tx := act.Tx
	if tx == nil || tx.Method != "INVITE" || !tx.Answered || m.Status < 200 {
		return
	}
	if m.Status >= 300 {
		s.a.sendFailureAck(c, tx, m, from)
		return
	}
	s.a.sendStrayBye(c, tx, m, from)
}
