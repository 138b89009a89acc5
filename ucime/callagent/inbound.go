package callagent

import (
	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/learn"
)

// imeInbound takes a call of another enterprise to the PBX, which is the only place where it may go.
func (c *call) imeInbound(s settings, req *sip.Request, tx *sip.ServerTx) {
	from, to := learn.Number(number(req.From().Address)), learn.Number(number(req.Recipient))
	if !from.Valid() {
		from = ""
	}
	c.mu.Lock()
	c.from, c.to, c.role, c.kind = from, to, learn.Terminating, kindIME
	c.mu.Unlock()
	if _, ok := s.plan.Enrolled(to); !ok {
		c.a.counters.RequestsRefused.Add(1)
		c.refuse(req, tx, c.far, 404, "Not Found", nil)
		return
	}
	c.identify(s)
	called := s.plan.Transform(s.cfg.IME.InboundCalled, string(to))
	caller := s.plan.Transform(s.cfg.IME.InboundCaller, number(req.From().Address))
	if c.toPBX(s, caller, called, req, tx) {
		c.a.counters.CallsAccepted.Add(1)
	}
}

// pstnInbound takes a call of the PSTN to the PBX, or is the PSTN call of a fallback.
func (c *call) pstnInbound(s settings, req *sip.Request, tx *sip.ServerTx) {
	caller, called := number(req.From().Address), number(req.Recipient)
	from, to, _ := s.plan.Incoming(s.cfg.PSTN[c.trunk], caller, called)
	c.mu.Lock()
	c.from, c.to, c.role, c.kind, c.caller = from, to, learn.Terminating, kindPSTN, caller
	c.mu.Unlock()
	if f := fallbackNumber(s, called, to); f != nil {
		c.fallbackCall(s, f, req, tx)
		return
	}
	c.toPBX(s, caller, called, req, tx)
}

// toPBX places a call at the PBX; true: it was answered.
func (c *call) toPBX(s settings, caller, called string, req *sip.Request, tx *sip.ServerTx) bool {
	out, res, err := c.try(req, tx, c.far, attempt{leg: toTrunk(c.a.pbx, s.cfg.PBX, caller, req.From().DisplayName, called)})
	switch {
	case err != nil && c.ctx.Err() != nil:
		c.refuse(req, tx, c.far, 487, "Request Terminated", nil)
	case err != nil:
		c.a.log.Warn("PBX does not answer", "err", err)
		c.refuse(req, tx, c.far, 503, "Service Unavailable", nil)
	case !res.IsSuccess():
		c.refuse(req, tx, c.far, res.StatusCode, res.Reason, carry(res))
	default:
		c.established(req, tx, c.far, out, res)
		return true
	}
	return false
}
