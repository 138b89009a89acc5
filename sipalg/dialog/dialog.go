package dialog

import (
	"slices"
	"strings"
	"time"

	"imeproxy/sipalg"
)

// State of a dialog.
type State uint8

// The states of RFC 3261 section 12; Terminated dialogs linger for late answers and for
// subscriptions that outlive the INVITE usage (RFC 5057).
const (
	Early State = iota
	Confirmed
	Terminated
)

// String gives the state's name in lower case.
func (s State) String() string { return [...]string{"early", "confirmed", "terminated"}[s] }

// End is what the appliance must know of one end to send it a request of its own.
// All values are in the form that is seen on that side of the appliance.
type End struct {
	Target string   // Contact URI of that end
	Routes []string // route set from the appliance to that end
	Party  string   // From or To header value that names that end, tag included
	Peer   string   // the same of the opposite end, as this side sees it
}

// Dialog is one early or confirmed dialog of a call.
type Dialog struct {
	Tag   string // tag of the answering end
	State State
	Ends  [2]End // by Side

	invite  bool      // the INVITE usage stands
	cseq    [2]uint32 // highest CSeq number seen from each side
	rseq    []uint32  // reliable provisional responses waiting for PRACK
	subs    map[string]time.Time
	linger  time.Time
	byeFrom [2]bool
	byeDone [2]bool   // the BYE of that side has its final answer
	byeAsk  [2]bool   // which wants it again, with credentials
	Since   time.Time // of its present state
}

// NextCSeq gives the number for a request that the appliance sends in the name of the side
// `as`, and remembers it.
func (d *Dialog) NextCSeq(as Side) uint32 {
	d.cseq[as]++
	return d.cseq[as]
}

// UsageByInvite tells whether the dialog's INVITE usage stands.
func (d *Dialog) UsageByInvite() bool { return d.invite && d.State != Terminated }

// byeAnswered notes the final answer to a BYE. One that asks for credentials (RFC 3261 22.2, 22.3) has it come again: the far end holds the
// dialog until then.
func (d *Dialog) byeAnswered(from Side, status int) {
	if status == 401 || status == 407 {
		d.byeAsk[from] = true
		return
	}
	d.byeDone[from] = true
}

func (d *Dialog) terminate(now time.Time) {
	if d.State != Terminated {
		d.State, d.Since = Terminated, now
		d.linger = now.Add(TransactionTimeout)
	}
	d.invite = false
}

// dialogFor finds or creates the dialog of a response or early NOTIFY; nil when there
// are too many.
func (c *Call) dialogFor(tag string, now time.Time) *Dialog {
	d := c.dialog(tag)
	if d == nil {
		if len(c.dialogs) >= MaxDialogs {
			return nil
		}
		d = &Dialog{Tag: strings.Clone(tag), Since: now}
		if c.invite != nil {
			d.cseq[c.From] = c.invite.CSeq
		}
		c.dialogs = append(c.dialogs, d)
	}
	return d
}

// NoteRequest records from the opening request, once before and once after the rewriting, what is
// needed to reach its sender. side says in which side's form the message is.
func (c *Call) NoteRequest(m *sipalg.Message, side Side) {
	if side == c.From {
		c.nearTarget, c.nearRoutes = kept(contact(m)), clones(m.Values("Record-Route"))
	} else {
		c.farRoutes = len(m.Values("Record-Route"))
	}
}

// FarRoutes is the number of Record-Route elements that the opening request had when it left on the other side.
func (c *Call) FarRoutes() int { return c.farRoutes }

// NoteResponse records from a dialog-creating response, in the form of the given side, what is needed
// to send requests to the ends. Call it with the message before and after rewriting.
func (c *Call) NoteResponse(d *Dialog, m *sipalg.Message, side Side) {
	e, other := &d.Ends[side], &d.Ends[side.Other()]
	if side == c.From {
		// This side holds the caller: it is reached through the record-route of its own INVITE.
		e.Party, e.Peer = keptAs(m.Get("From"), e.Party, other.Peer), keptAs(m.Get("To"), e.Peer, other.Party)
		e.Target, e.Routes = c.nearTarget, c.nearRoutes
		return
	}
	e.Party, e.Peer = keptAs(m.Get("To"), e.Party, other.Peer), keptAs(m.Get("From"), e.Peer, other.Party)
	if t := contact(m); t != "" {
		e.Target = keptAs(t, e.Target, "")
	}
	// The response repeats the routes of the request as it left us; what stands above them was added beyond us.
	rr := m.Values("Record-Route")
	if len(rr) >= c.farRoutes {
		rr = clones(rr[:len(rr)-c.farRoutes])
		slices.Reverse(rr)
		e.Routes = rr
	}
}

// NoteTarget follows a target refresh (RFC 3261 12.2): the Contact of a re-INVITE, an UPDATE
// or their 2xx, in the form of the sender's own side.
func (d *Dialog) NoteTarget(m *sipalg.Message, from Side) {
	if t := contact(m); t != "" {
		d.Ends[from].Target = kept(t)
	}
}

// maxKept bounds each text, and each route set, that is kept of an end for as long as a dialog stands, in bytes: one ticket and an answering
// machine would do to fill the memory with long ones. An end that names itself at greater length gets no request of the appliance's own.
const maxKept = 2 << 10

func kept(s string) string {
	if len(s) > maxKept {
		return ""
	}
	return strings.Clone(s)
}

// keptAs is kept for a text that may be held already, from an earlier response or by the other side.
func keptAs(s, before, other string) string {
	switch s {
	case before:
		return before
	case other:
		return other
	}
	return kept(s)
}

// clones copies a list with its texts.
func clones(list []string) []string {
	var out []string
	n := 0
	for _, s := range list {
		if n += len(s); n > maxKept {
			return nil
		}
		out = append(out, strings.Clone(s))
	}
	return out
}

// contact gives the URI of the first Contact, or "".
func contact(m *sipalg.Message) string {
	return AddressURI(m.Get("Contact"))
}

// AddressURI cuts the URI out of a header value that is a name-addr or an addr-spec
// (RFC 3261 20.10): what stands between angle brackets outside a quoted name, else all before
// the first semicolon.
func AddressURI(v string) string {
	quoted := false
	start := -1
	for i := 0; i < len(v); i++ {
		switch ch := v[i]; {
		case quoted && ch == '\\':
			i++
		case ch == '"':
			quoted = !quoted
		case quoted:
		case ch == '<':
			start = i + 1
		case ch == '>' && start >= 0:
			return v[start:i]
		case ch == ';' && start < 0:
			return strings.TrimSpace(v[:i])
		}
	}
	if start >= 0 || quoted {
		return ""
	}
	return strings.TrimSpace(v)
}
