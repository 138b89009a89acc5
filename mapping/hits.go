package mapping

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// MaxID bounds the ID of a counted rule in bytes: it stands in the rule's comment.
const MaxID = 64

// Hit is how often a rule applied. Of a connection the first packet counts alone, as later ones do not come to the rule.
type Hit struct{ Packets, Bytes uint64 }

func (h Hit) plus(o Hit) Hit { return Hit{h.Packets + o.Packets, h.Bytes + o.Bytes} }

// counterKey names what is counted: the rules of a table that have an ID.
type counterKey struct{ table, id string }

// tally carries what was counted over to the rules of the next batch.
type tally struct {
	before map[counterKey]Hit  // what was counted so far
	rules  map[counterKey]bool // rules that go on from it
	loose  map[counterKey]bool // elements of maps, which start from nothing
}

func newTally(before map[counterKey]Hit) *tally {
	return &tally{before: before, rules: map[counterKey]bool{}, loose: map[counterKey]bool{}}
}

// rest is what no rule of the batch goes on from, and must be remembered beside the kernel.
func (t *tally) rest() map[counterKey]Hit {
	out := map[counterKey]Hit{}
	for key := range t.loose {
		if h, ok := t.before[key]; ok && !t.rules[key] {
			out[key] = h
		}
	}
	return out
}

// goingOn lets counted rules go on from what those that they replace had counted.
func (s ruleSet) goingOn(t *tally) ruleSet {
	s.tally = t
	return s
}

// counted appends a rule with a counter. The first with an ID goes on from what the rules that it replaces had counted.
func (s ruleSet) counted(c *nftables.Chain, id string, class match, verdict ...match) {
	if id == "" {
		s.rule(c, append([]match{class}, verdict...)...)
		return
	}
	var h Hit
	if key := (counterKey{s.table.Name, id}); !s.tally.rules[key] {
		h, s.tally.rules[key] = s.tally.before[key], true
	}
	all := append(slices.Clone(class), &expr.Counter{Packets: h.Packets, Bytes: h.Bytes})
	for _, v := range verdict {
		for _, e := range v {
			if _, another := e.(*expr.Counter); !another {
				all = append(all, e)
			}
		}
	}
	s.conn.AddRule(&nftables.Rule{Table: s.table, Chain: c, Exprs: all, UserData: userdata.AppendString(nil, userdata.TypeComment, id)})
}

// readCounters gives what the counted rules and map elements of our tables have counted; none where there are no tables.
func readCounters(conn *nftables.Conn) (map[counterKey]Hit, error) {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	out := map[counterKey]Hit{}
	count := func(table, id string, n *expr.Counter) {
		if id != "" {
			key := counterKey{table, id}
			out[key] = out[key].plus(Hit{n.Packets, n.Bytes})
		}
	}
	var tables []*nftables.Table
	used := map[string]bool{} // maps that rules look at
	for _, c := range chains {
		if c.Table.Name != TableIntercept && c.Table.Name != TableFilter {
			continue
		}
		if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == c.Table.Name }) {
			tables = append(tables, c.Table)
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("list rules of %s %s: %w", c.Table.Name, c.Name, err)
		}
		for _, r := range rules {
			id, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case *expr.Counter:
					count(c.Table.Name, id, e)
				case *expr.Lookup:
					used[e.SetName] = true
				}
			}
		}
	}
	for _, t := range tables {
		maps, err := conn.GetSets(t)
		if err != nil {
			return nil, fmt.Errorf("list sets of %s: %w", t.Name, err)
		}
		for _, m := range maps {
			if !m.IsMap || !used[m.Name] {
				continue
			}
			elements, err := conn.GetSetElements(m)
			if err != nil {
				return nil, fmt.Errorf("list elements of %s %s: %w", t.Name, m.Name, err)
			}
			for _, e := range elements {
				if e.Counter != nil {
					count(t.Name, e.Comment, e.Counter)
				}
			}
		}
	}
	return out, nil
}

// Hits gives how often the rules of each ID have applied since they are in force, changes of others included.
func (k *Kernel) Hits() (map[string]Hit, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		return nil, ErrRemoved
	}
	conn, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	all, err := readCounters(conn)
	if err != nil {
		return nil, err
	}
	out := map[string]Hit{}
	for key, h := range all {
		out[key.id] = out[key.id].plus(h)
	}
	for key, h := range k.counted {
		out[key.id] = out[key.id].plus(h)
	}
	return out, nil
}
