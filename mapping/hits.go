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

// counterKey finds a counter again: the nth of a chain with an ID.
type counterKey struct {
	table, chain, id string
	n                int
}

// goingOn lets counted rules go on from what those that they replace had counted.
func (s ruleSet) goingOn(before map[counterKey]Hit) ruleSet {
	s.before = before
	return s
}

// counted appends a rule with a counter. It goes on from what the rule that it replaces had counted.
func (s ruleSet) counted(c *nftables.Chain, id string, class match, verdict ...match) {
	if id == "" {
		s.rule(c, append([]match{class}, verdict...)...)
		return
	}
	first := counterKey{table: s.table.Name, chain: c.Name, id: id}
	key := first
	key.n = s.seen[first]
	s.seen[first]++
	h := s.before[key]
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

// readCounters gives what the counted rules of our tables have counted; none where there are no tables.
func readCounters(conn *nftables.Conn) (map[counterKey]Hit, error) {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	out := map[counterKey]Hit{}
	for _, c := range chains {
		if c.Table.Name != TableIntercept && c.Table.Name != TableFilter {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("list rules of %s %s: %w", c.Table.Name, c.Name, err)
		}
		seen := map[string]int{}
		for _, r := range rules {
			id, ok := userdata.GetString(r.UserData, userdata.TypeComment)
			if !ok || id == "" {
				continue
			}
			for _, e := range r.Exprs {
				if n, ok := e.(*expr.Counter); ok {
					out[counterKey{c.Table.Name, c.Name, id, seen[id]}] = Hit{n.Packets, n.Bytes}
				}
			}
			seen[id]++
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
		sum := out[key.id]
		out[key.id] = Hit{sum.Packets + h.Packets, sum.Bytes + h.Bytes}
	}
	return out, nil
}
