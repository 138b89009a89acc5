package proxy

import (
	"log/slog"
	"sync"
	"time"

	"imeproxy/proxy/observe"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
)

// call is one call through the appliance: its dialogs, its media and what its record will say.
type call struct {
	mu     sync.Mutex // guards everything below; no I/O is done under it but queueing
	d      *dialog.Call
	media  *media
	domain string // the far enterprise, verified when the call was opened
	agent  *callAgent
	named  []string // where its inside end says it is, see name
	// granted are the numbers of the ticket that opened it, where it has several.
	granted []string
	last    *session // the session that carried its last message
	opener  *session // the one it was opened on, for its share of calls

	logger   *slog.Logger
	rec      observe.CallRecord
	recorded bool
	failing  bool // the appliance is ending it: late answers are cleaned up, nothing is forwarded
	gone     bool // not in the table any more
	lastUsed time.Time

	entry agendaEntry // guarded by the agenda's lock
}

// locked runs a function with the call locked. Whoever recovers from a panic (the reader of a session, the shell) must not leave it so: the
// sweep of all calls would wait for it for ever.
func (c *call) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// log is the log with the call's Call-ID, made where a line is written: a call that stands need not keep it.
func (c *call) log() *slog.Logger { return observe.WithCall(c.logger, c.d.ID) }

// calls is the table of all calls by Call-ID. The slices of one Call-ID are short: forks, and
// requests repeated with credentials.
type calls struct {
	mu   sync.Mutex
	byID map[string][]*call
	n    int
	most int
}

func newCalls() *calls { return &calls{byID: make(map[string][]*call)} }

// add puts a call into the table; false when a cap is reached.
func (t *calls) add(c *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n >= maxCalls || len(t.byID[c.d.ID]) >= maxCallsPerID {
		return false
	}
	t.byID[c.d.ID] = append(t.byID[c.d.ID], c)
	t.n++
	t.most = max(t.most, t.n)
	return true
}

// remove takes a call out; it may be out already.
func (t *calls) remove(c *call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.byID[c.d.ID]
	for i, x := range list {
		if x != c {
			continue
		}
		list = append(list[:i:i], list[i+1:]...)
		t.n--
		if len(list) == 0 {
			delete(t.byID, c.d.ID)
		} else {
			t.byID[c.d.ID] = list
		}
		return
	}
}

// snapshot lists the calls that stand.
func (t *calls) snapshot() []*call {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*call, 0, t.n)
	for _, list := range t.byID {
		out = append(out, list...)
	}
	return out
}

func (t *calls) withID(id string) []*call {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// forRequest finds the call that a request from a side belongs to. The slice that withID gave is never
// written again, so that it may be walked without the table's lock.
func (t *calls) forRequest(m *sipalg.Message, from dialog.Side) *call {
	for _, c := range t.withID(m.CallID()) {
		if c.takes(m, from) {
			return c
		}
	}
	return nil
}

// takes tells whether a request from a side belongs to the call.
func (c *call) takes(m *sipalg.Message, from dialog.Side) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.d.Matches(m, from):
		return false
	case m.Method == "CANCEL" || m.Method == "ACK" && m.ToTag() == "":
		return c.d.Opens(m)
	case m.ToTag() == "" && m.Method != "ACK":
		return c.d.From == from && c.d.Opens(m)
	}
	return true
}

// forResponse finds the call that waits for a response.
func (t *calls) forResponse(m *sipalg.Message, from dialog.Side) (*call, *session) {
	for _, c := range t.withID(m.CallID()) {
		if owner, ok := c.awaits(m, from); ok {
			return c, owner
		}
	}
	return nil, nil
}

// awaits tells whether the call waits for a response, and on which session its request came.
func (c *call) awaits(m *sipalg.Message, from dialog.Side) (owner *session, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx := c.d.Pending(m, from)
	if tx == nil || !c.d.Matches(m, from) {
		return nil, false
	}
	owner, _ = tx.Owner.(*session)
	return owner, true
}
