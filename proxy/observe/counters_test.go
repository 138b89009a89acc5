package observe

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newTestCounters(t *testing.T) *Counters {
	t.Helper()
	c, err := NewCounters(
		Family{Area: "ticket", What: "refused", Help: "Tickets refused.", Reasons: []string{"expired", "not_found"}},
		Family{Area: "sip", What: "keepalives", Help: "Pings answered."},
	)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCountersSnapshot(t *testing.T) {
	c := newTestCounters(t)
	c.Inc("ticket", "refused", "expired")
	c.Inc("ticket", "refused", "sip:evil@example.com") // text from the network never becomes a label
	c.Inc("sip", "keepalives", "")
	c.Inc("sip", "keepalives", "any")
	c.Inc("sip", "no_such", "")
	want := []Sample{
		{Name: "imeproxy_sip_keepalives_total", Help: "Pings answered.", Value: 2},
		{Name: "imeproxy_ticket_refused_total", Help: "Tickets refused.", Reason: "expired", Value: 1},
		{Name: "imeproxy_ticket_refused_total", Help: "Tickets refused.", Reason: "not_found"},
		{Name: "imeproxy_ticket_refused_total", Help: "Tickets refused.", Reason: "other", Value: 1},
		{Name: "imeproxy_observe_undeclared_total", Help: "Events whose counter was not declared.", Value: 1},
	}
	if d := cmp.Diff(want, c.Snapshot()); d != "" {
		t.Errorf("snapshot (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]uint64{"expired": 1, "other": 1}, c.Reasons("ticket", "refused")); d != "" {
		t.Errorf("reasons (-want +got):\n%s", d)
	}
	if n := c.Total("ticket", "refused"); n != 2 {
		t.Errorf("total is %d, want 2", n)
	}
	c.Reset()
	for _, s := range c.Snapshot() {
		if s.Value != 0 {
			t.Errorf("%s %s is %d after the reset", s.Name, s.Reason, s.Value)
		}
	}
}

func TestCountersAreExactUnderLoad(t *testing.T) {
	c := newTestCounters(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			n := c.Counter("sip", "keepalives", "")
			for range 1000 {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if n := c.Total("sip", "keepalives"); n != 8000 {
		t.Errorf("counted %d, want 8000", n)
	}
}

func TestNewCountersRefuses(t *testing.T) {
	for _, c := range []struct {
		want     string
		families []Family
	}{
		{"not snake case", []Family{{Area: "SIP", What: "x", Help: "h"}}},
		{"not snake case", []Family{{Area: "sip", What: "x-y", Help: "h"}}},
		{"no help", []Family{{Area: "sip", What: "x"}}},
		{"declared twice", []Family{{Area: "sip", What: "x", Help: "h"}, {Area: "sip", What: "x", Help: "h"}}},
		{"not snake case", []Family{{Area: "sip", What: "x", Help: "h", Reasons: []string{"Bad Reason"}}}},
		{"stands twice", []Family{{Area: "sip", What: "x", Help: "h", Reasons: []string{"a", "a"}}}},
	} {
		if _, err := NewCounters(c.families...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.families, err, c.want)
		}
	}
}

func TestHealth(t *testing.T) {
	var h Health
	h.Raise(Problem{Code: "b", Severity: Warning, Since: noon})
	h.Raise(Problem{Code: "a", Object: "x", Severity: Critical, Since: noon.Add(2), Impact: "old"})
	h.Raise(Problem{Code: "a", Object: "y", Severity: Critical, Since: noon.Add(1)})
	h.Raise(Problem{Code: "a", Object: "x", Severity: Critical, Since: noon.Add(9), Impact: "new"})
	h.Clear("none", "")
	want := List[Problem]{
		{Code: "a", Object: "y", Severity: Critical, Since: noon.Add(1)},
		{Code: "a", Object: "x", Severity: Critical, Since: noon.Add(2), Impact: "new"},
		{Code: "b", Severity: Warning, Since: noon},
	}
	if d := cmp.Diff(want, h.List().Problems); d != "" {
		t.Errorf("list (-want +got):\n%s", d)
	}
	h.Clear("a", "x")
	h.Clear("a", "y")
	h.Clear("b", "")
	if l := h.List(); len(l.Problems) != 0 {
		t.Errorf("after clearing %v is left", l.Problems)
	}
}

func TestHealthCap(t *testing.T) {
	var h Health
	for i := range maxProblems + 5 {
		h.Raise(Problem{Code: "peer", Object: fmt.Sprint(i), Severity: Warning, Since: noon})
	}
	h.Raise(Problem{Code: "peer", Object: "0", Severity: Critical, Since: noon}) // a listed one can still change
	l := h.List()
	if len(l.Problems) != maxProblems || l.NotListed != 5 || l.Problems[0].Severity != Critical {
		t.Errorf("%d listed, %d not, first %+v", len(l.Problems), l.NotListed, l.Problems[0])
	}
}
