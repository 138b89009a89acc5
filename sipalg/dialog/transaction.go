package dialog

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"imeproxy/sipalg"
)

// Transaction is one request and its responses. It is known by the side of its client, the branch of the topmost Via
// (RFC 3261 17.2.3) and the method; an ACK to a non-2xx counts as its INVITE.
type Transaction struct {
	Method string
	Branch string
	CSeq   uint32
	From   Side // the side of the client
	Final  int  // status of the final response; 0 while none was seen
	Own    bool // the appliance sent the request itself: responses are absorbed
	// Answered is set when the appliance gave the final answer itself: its ACK is absorbed.
	Answered bool
	// Request is the request as it came, for answers the owner gives later; nil when it has its final answer and none will be due.
	Request *sipalg.Message
	// Owner is the signaling session on which the request came, kept for the owner of the call.
	Owner any
	// Tag is the answering end's tag of an in-dialog request's dialog; empty outside one.
	Tag string

	deadline  time.Time
	held      *atomic.Int64 // where large bytes of Request are counted
	large     int
	cancelled bool
	subEvent  string // key of the subscription that a SUBSCRIBE or REFER opens
	event     string // key of the one that a NOTIFY is of
}

// Cancelled tells whether a CANCEL for this INVITE has passed.
func (t *Transaction) Cancelled() bool { return t.cancelled }

// Mark notes that the appliance itself answered the transaction with this status.
func (t *Transaction) Mark(status int, now time.Time) {
	t.Final, t.Answered = status, true
	t.deadline = now.Add(TransactionTimeout)
}

// find gives the transaction that a message belongs to, or nil.
func (c *Call) find(from Side, branch, method string) *Transaction {
	for _, t := range c.txs {
		if t.From == from && t.Branch == branch && t.Method == method {
			return t
		}
	}
	return nil
}

// drop forgets a transaction.
func (c *Call) drop(t *Transaction) {
	if i := slices.Index(c.txs, t); i >= 0 {
		c.txs = slices.Delete(c.txs, i, i+1)
		t.uncount()
	}
}

// uncount takes the bytes of a large request off those that are held.
func (t *Transaction) uncount() {
	if t.large > 0 {
		t.held.Add(-int64(t.large))
		t.large = 0
	}
}

// Answer notes that the other end's final answer has gone to the client: the request, whose text is most of what a call holds, is
// not needed any more.
func (t *Transaction) Answer() {
	if t.Final != 0 && !t.Answered {
		t.Request = nil
		t.uncount()
	}
}

// Pending gives the transaction that a response from the given side answers, or nil.
func (c *Call) Pending(m *sipalg.Message, from Side) *Transaction {
	_, method := m.CSeq()
	return c.find(from.Other(), m.Branch(), method)
}

// add remembers a transaction; nil when the call has too many.
func (c *Call) add(m *sipalg.Message, from Side, now time.Time) *Transaction {
	if len(c.txs) >= MaxTransactions {
		c.Expire(now)
		if len(c.txs) >= MaxTransactions {
			return nil
		}
	}
	cseq, _ := m.CSeq()
	t := &Transaction{Method: known[m.Method], Branch: strings.Clone(m.Branch()), CSeq: cseq, From: from, Request: m, deadline: now.Add(TransactionTimeout)}
	if m.Method == "INVITE" {
		t.deadline = now.Add(InviteTimeout)
	}
	if n := m.Size(); n >= LargeRequest && c.Held != nil {
		t.held, t.large = c.Held, n
		c.Held.Add(int64(n))
	}
	c.txs = append(c.txs, t)
	return t
}

// AddOwn remembers a request that the appliance itself sends towards the side `to`, so that
// its responses are absorbed and the number sequence goes on from it.
func (c *Call) AddOwn(m *sipalg.Message, to Side, now time.Time) {
	if t := c.add(m, to.Other(), now); t != nil {
		t.Own = true
	}
}

// Unanswered counts the requests that have no final response yet, those of the appliance's own included.
func (c *Call) Unanswered() int {
	n := 0
	for _, t := range c.txs {
		if t.Final == 0 {
			n++
		}
	}
	return n
}
