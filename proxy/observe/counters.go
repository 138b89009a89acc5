package observe

import (
	"fmt"
	"regexp"
	"sort"
	"sync/atomic"
)

// Family declares one counter with its closed set of reasons.
type Family struct {
	Area    string   // room, "sip", "tls", "ticket", "media"
	What    string   // what is counted, "messages_refused"
	Help    string   // one sentence for the reference page
	Reasons []string // closed set; empty = a counter without label
}

// Name gives imeproxy_<area>_<what>_total.
func (f Family) Name() string { return "imeproxy_" + f.Area + "_" + f.What + "_total" }

// OtherReason counts what is outside a family's closed set, so that no text from the network becomes a label.
const OtherReason = "other"

var snakeName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// Counters is a registry of counters with closed label sets. The set is fixed by NewCounters; everything else is lock free and safe for
// concurrent use.
type Counters struct {
	families []Family
	values   map[string]map[string]*atomic.Uint64 // name -> reason -> value; never changed after NewCounters
	unknown  atomic.Uint64
}

// NewCounters makes the registry. Areas, names and reasons are snake case; a family or a reason that stands twice is an error.
func NewCounters(families ...Family) (*Counters, error) {
	c := &Counters{values: make(map[string]map[string]*atomic.Uint64, len(families))}
	for _, f := range families {
		name := f.Name()
		if !snakeName.MatchString(f.Area) || !snakeName.MatchString(f.What) {
			return nil, fmt.Errorf("counter %q: name is not snake case", name)
		}
		if f.Help == "" {
			return nil, fmt.Errorf("counter %s: no help text", name)
		}
		if _, ok := c.values[name]; ok {
			return nil, fmt.Errorf("counter %s is declared twice", name)
		}
		set := make(map[string]*atomic.Uint64, len(f.Reasons)+1)
		for _, r := range f.Reasons {
			if !snakeName.MatchString(r) {
				return nil, fmt.Errorf("counter %s: reason %q is not snake case", name, r)
			}
			if _, ok := set[r]; ok {
				return nil, fmt.Errorf("counter %s: reason %q stands twice", name, r)
			}
			set[r] = new(atomic.Uint64)
		}
		if len(f.Reasons) == 0 {
			set[""] = new(atomic.Uint64)
		} else if set[OtherReason] == nil {
			set[OtherReason] = new(atomic.Uint64)
		}
		c.values[name] = set
		c.families = append(c.families, f)
	}
	sort.Slice(c.families, func(i, j int) bool { return c.families[i].Name() < c.families[j].Name() })
	return c, nil
}

// Counter gives the value to add to; keep it on hot paths. A reason outside the closed set gives the family's "other". A family that was
// not declared gives a counter that the snapshot shows as imeproxy_observe_undeclared_total, so that the slip is seen.
func (c *Counters) Counter(area, what, reason string) *atomic.Uint64 {
	set, ok := c.values[Family{Area: area, What: what}.Name()]
	if !ok {
		return &c.unknown
	}
	if v, ok := set[reason]; ok {
		return v
	}
	if v, ok := set[OtherReason]; ok {
		return v
	}
	return set[""]
}

// Inc adds one.
func (c *Counters) Inc(area, what, reason string) { c.Counter(area, what, reason).Add(1) }

// Reasons gives one family's values by reason, zero values left out.
func (c *Counters) Reasons(area, what string) map[string]uint64 {
	out := make(map[string]uint64)
	for r, v := range c.values[Family{Area: area, What: what}.Name()] {
		if n := v.Load(); n > 0 {
			out[r] = n
		}
	}
	return out
}

// Total gives the sum of one family over its reasons.
func (c *Counters) Total(area, what string) uint64 {
	var sum uint64
	for _, v := range c.values[Family{Area: area, What: what}.Name()] {
		sum += v.Load()
	}
	return sum
}

// Sample is one value of the snapshot.
type Sample struct {
	Name   string `json:"name"`
	Help   string `json:"help"`
	Reason string `json:"reason,omitempty"`
	Value  uint64 `json:"value"`
}

// Snapshot gives every value, zero ones included, by name and reason.
func (c *Counters) Snapshot() []Sample {
	var out []Sample
	for _, f := range c.families {
		set := c.values[f.Name()]
		first := len(out)
		for r, v := range set {
			out = append(out, Sample{Name: f.Name(), Help: f.Help, Reason: r, Value: v.Load()})
		}
		part := out[first:]
		sort.Slice(part, func(i, j int) bool { return part[i].Reason < part[j].Reason })
	}
	if n := c.unknown.Load(); n > 0 {
		out = append(out, Sample{Name: "imeproxy_observe_undeclared_total", Help: "Events whose counter was not declared.", Value: n})
	}
	return out
}

// Reset sets every value to zero; events that come at the same moment may be counted before or after it.
func (c *Counters) Reset() {
	for _, set := range c.values {
		for _, v := range set {
			v.Store(0)
		}
	}
	c.unknown.Store(0)
}
