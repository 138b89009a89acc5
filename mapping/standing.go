package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Rules change while packets are on their way through them. The kernel lets each chain finish with the rules that it began with,
// but a set or map that the same transaction deletes is empty for it at once: a packet would find no entry of a list that permits
// it, or no translation. So a change takes two transactions. The first puts new rules and new maps, under new names, into
// the tables that stand; the second takes the old maps away, which no rule looks at any more.

// standing is what our tables of family ip have in them.
type standing struct {
	tables map[string]bool
	chains map[string][]*nftables.Chain
	sets   map[string][]*nftables.Set
}

func readStanding(conn *nftables.Conn) (standing, error) {
	s := standing{map[string]bool{}, map[string][]*nftables.Chain{}, map[string][]*nftables.Set{}}
	tables, err := ourTables(conn)
	if err != nil {
		return s, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return s, fmt.Errorf("list nftables chains: %w", err)
	}
	for _, t := range tables {
		if t.Family != nftables.TableFamilyIPv4 {
			continue
		}
		s.tables[t.Name] = true
		for _, c := range chains {
			if c.Table.Name == t.Name {
				s.chains[t.Name] = append(s.chains[t.Name], c)
			}
		}
		if s.sets[t.Name], err = conn.GetSets(t); err != nil {
			return s, fmt.Errorf("list sets of %s: %w", t.Name, err)
		}
	}
	return s, nil
}

// refill empties a table of its rules, or adds it. What it has besides stays until clear.
func (s standing) refill(conn *nftables.Conn, name string) ruleSet {
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: name})
	if s.tables[name] {
		conn.FlushTable(t)
	}
	return ruleSet{conn: conn, table: t, tally: newTally(nil), sets: setNumbers(name), standing: &s, made: map[string]bool{}, kept: map[string]bool{}}
}

// stays finds a set that the table has with the same name and size, and keeps it with what is in it; nil: none.
func (s ruleSet) stays(name string, size int) *nftables.Set {
	if s.standing == nil {
		return nil
	}
	for _, x := range s.standing.sets[s.table.Name] {
		if strings.TrimRight(x.Name, again) == name && x.Size == uint32(size) {
			s.kept[x.Name] = true
			return &nftables.Set{Table: s.table, Name: x.Name} // found by its name
		}
	}
	return nil
}

// again is what a set's name ends in when another has it already.
const again = "-"

// free gives a set a name that none of the table has.
func (s ruleSet) free(name string) string {
	taken := func(n string) bool {
		return s.standing != nil && slices.ContainsFunc(s.standing.sets[s.table.Name], func(x *nftables.Set) bool { return x.Name == n })
	}
	// Two names take turns; a third is needed when an earlier clear has failed.
	for taken(name) {
		name += again
	}
	return name
}

// clear takes away what the tables had and the new rules do not use, and says how many transactions that took, 0 or 1.
func (s standing) clear(conn *nftables.Conn, now ...ruleSet) (transactions uint32, err error) {
	n := 0
	for _, r := range now {
		for _, set := range s.sets[r.table.Name] {
			if !r.kept[set.Name] {
				conn.DelSet(set)
				n++
			}
		}
		for _, c := range s.chains[r.table.Name] {
			if !r.made[c.Name] {
				conn.DelChain(c)
				n++
			}
		}
	}
	if n == 0 {
		return 0, nil
	}
	if err := conn.Flush(); err != nil {
		return 0, fmt.Errorf("remove former nftables maps and chains: %w", err)
	}
	return 1, nil
}
