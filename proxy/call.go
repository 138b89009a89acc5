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
	last   *session // the session that carried its last message
	opener *session // the one it was opened on, for its share of calls

	logger   *slog.Logger
	rec      observe.CallRecord
	recorded bool
	failing  bool // the appliance is ending it: late answers are cleaned up, nothing is forwarded
	gone     bool // not in the table any more
	lastUsed time.Time

	entry agendaEntry // guarded by the agenda's lock
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
	opening := m.ToTag() == "" && m.Method != "ACK" && m.Method != "CANCEL"
	for _, c := range t.withID(m.CallID()) {
		c.mu.Lock()
		ok := c.d.Matches(m, from)
		if opening {
			ok = ok && c.d.From == from && c.d.Opens(m)
		} else if m.Method == "CANCEL" || m.Method == "ACK" && m.ToTag() == "" {
			ok = ok && c.d.Opens(m)
		}
		c.mu.Unlock()
		if ok {
			return c
		}
	}
	return nil
}

// forResponse finds the call that waits for a response.
func (t *calls) forResponse(m *sipalg.Message, from dialog.Side) (*call, *session) {
	for _, c := range t.withID(m.CallID()) {
		c.mu.Lock()
		tx := c.d.Pending(m, from)
		ok := tx != nil && c.d.Matches(m, from)
		var owner *session
		if ok {
			owner, _ = tx.Owner.(*session)
		}
		c.mu.Unlock()
		if ok {
			return c, owner
		}
	}
	return nil, nil
}
