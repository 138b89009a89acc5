package proxy

import (
	"fmt"
	"slices"

	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/sipalg/sdp"
)

// offerAnswer runs the session description of a message through the offer/answer state of its call
// (RFC 3264; RFC 3261 13.2.1; RFC 3262 section 5; RFC 3311 section 5) and puts the rewritten one in its place.
// A description where none belongs is removed, so that no inside address leaves in it.
func (c *call) offerAnswer(m *sipalg.Message, from dialog.Side, act dialog.Action) error {
	defer c.media.weigh()
	part, replace, ok, err := sdp.FindPart(m.Get("Content-Type"), m.Body)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	if !ok {
		part = nil
	}
	var out []byte
	if m.IsRequest() {
		out, err = c.sdpRequest(m, part, from, act)
	} else {
		out, err = c.sdpResponse(m, part, from, act)
	}
	if err != nil || !ok {
		return err
	}
	if out == nil {
		m.Body = nil
		m.Del("Content-Type")
		m.Del("Content-Disposition")
		return nil
	}
	m.Body = replace(out)
	return nil
}

func (c *call) sdpRequest(m *sipalg.Message, part []byte, from dialog.Side, act dialog.Action) ([]byte, error) {
	md := c.media
	switch m.Method {
	case "INVITE", "UPDATE":
		if part == nil {
			if m.Method == "INVITE" {
				md.prune()
				md.begin(act.Tx, &exchange{late: true, base: len(md.lines)})
			}
			return nil, nil
		}
		return md.offerFor(act.Tx, part, from)
	case "ACK", "PRACK":
		x := md.exchange(act.Invite)
		if x != nil && x.late && x.offer != nil && !x.answered {
			if part == nil {
				if m.Method == "ACK" && act.Invite.Final < 300 {
					return nil, fmt.Errorf("%w: the ACK brings no answer", errUnusable)
				}
				return nil, nil
			}
			return md.makeAnswer(x, part, "")
		}
		if m.Method == "PRACK" && part != nil {
			return md.offerFor(act.Tx, part, from)
		}
	}
	return nil, nil
}

// prune forgets exchanges that are over, before a new one begins.
func (m *media) prune() {
	m.exchanges = slices.DeleteFunc(m.exchanges, func(x *exchange) bool {
		return x.tx.Final >= 300 || x.tx.Final >= 200 && (x.answered || !x.late)
	})
}

// offerFor starts an exchange with the offer of a request.
func (m *media) offerFor(tx *dialog.Transaction, part []byte, from dialog.Side) ([]byte, error) {
	m.prune()
	x, out, err := m.makeOffer(part, from)
	if err != nil {
		return nil, err
	}
	m.begin(tx, x)
	return out, nil
}

func (c *call) sdpResponse(m *sipalg.Message, part []byte, from dialog.Side, act dialog.Action) ([]byte, error) {
	md := c.media
	x := md.exchange(act.Tx)
	final := m.Status >= 200
	if x == nil {
		return nil, nil
	}
	if m.Status >= 300 {
		md.undo(x)
		md.drop(act.Tx)
		return nil, nil
	}
	tag := m.ToTag()
	switch {
	case part == nil && final && act.Tx.Method == "INVITE":
		if x.late && x.offer == nil {
			return nil, fmt.Errorf("%w: neither the INVITE nor its answer has an offer", errUnusable)
		}
		if !x.late {
			return nil, c.silentAnswer(x, tag)
		}
		return nil, nil
	case part == nil:
		return nil, nil
	case x.late && x.offer == nil:
		y, out, err := md.makeOffer(part, from)
		if err != nil {
			return nil, err
		}
		y.late = true
		md.begin(act.Tx, y)
		return out, nil
	case x.late && !x.answered && string(x.offer.Bytes()) != string(part):
		return md.offerAgain(act.Tx, x, part, from)
	case x.late:
		return x.rendered, nil // the same offer again, in the 2xx after a 18x
	case m.Status == 100:
		return nil, nil
	}
	out, err := md.makeAnswer(x, part, tag)
	if err == nil && final && act.Tx.Method != "INVITE" {
		md.drop(act.Tx)
	}
	return out, err
}

// offerAgain takes another offer of the answering end in the place of one that nobody has answered: what an unreliable 18x says is a preview
// (RFC 3261 13.2.1), that of the 2xx counts, and it may be another fork's.
func (m *media) offerAgain(tx *dialog.Transaction, x *exchange, part []byte, from dialog.Side) ([]byte, error) {
	m.undo(x)
	y, out, err := m.makeOffer(part, from)
	if err != nil {
		m.drop(tx)
		return nil, err
	}
	y.late = true
	m.begin(tx, y)
	return out, nil
}

// silentAnswer deals with a 2xx without a description: its fork's earlier answer counts.
func (c *call) silentAnswer(x *exchange, tag string) error {
	if !x.answered {
		return fmt.Errorf("%w: the offer got no answer", errUnusable)
	}
	return c.media.prefer(tag)
}
