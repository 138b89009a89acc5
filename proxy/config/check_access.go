package config

import (
	"fmt"
	"net/netip"
	"slices"
)

func (k *checker) accessLists() {
	k.groups()
	k.serviceGroups()
	for _, l := range k.c.AccessLists {
		for _, e := range l.Entries {
			for _, end := range []Endpoint{e.Src, e.Dst} {
				k.endpoint(e, end)
			}
			k.entryServices(e)
		}
	}
	k.entryLogs()
	var global *AccessList
	for _, g := range k.c.AccessGroups {
		if g.Direction == "global" {
			if global = k.c.AccessList(g.ACL); global == nil {
				missing(k, g.Pos, "access-list", g.ACL, k.c.AccessLists, func(l *AccessList) string { return l.Name })
			}
			continue
		}
		i := k.nameif(g.Pos, g.Interface)
		l := k.c.AccessList(g.ACL)
		if l == nil {
			missing(k, g.Pos, "access-list", g.ACL, k.c.AccessLists, func(l *AccessList) string { return l.Name })
		}
		if l != nil && i != nil {
			k.r.Groups = append(k.r.Groups, ResolvedGroup{Interface: i, Direction: g.Direction, ACL: l.Name, Rules: k.rules(l)})
		}
	}
	if global != nil {
		k.everywhere(global)
	}
}

// entryLogs warns of `log` where nothing comes of it: what a class's list takes is told by the proxy.
func (k *checker) entryLogs() {
	for _, l := range k.c.AccessLists {
		bound := slices.ContainsFunc(k.c.AccessGroups, func(g AccessGroup) bool { return g.ACL == l.Name })
		if bound || !slices.ContainsFunc(k.c.ClassMaps, func(m *ClassMap) bool { return m.AccessList == l.Name }) {
			continue
		}
		for _, e := range l.Entries {
			if e.Log != (EntryLog{}) && !e.Inactive {
				k.warn(e.Pos, "log", "an entry of a class logs nothing", "bind its access list to an interface by access-group, or leave log out")
			}
		}
	}
}

// everywhere puts a global list behind those that ask what arrives on an interface; where there is none it stands alone, and the security levels
// permit nothing any more, as on an ASA.
func (k *checker) everywhere(l *AccessList) {
	rules := k.rules(l)
	for _, i := range k.c.Interfaces {
		if i.Nameif == "" {
			continue
		}
		at := slices.IndexFunc(k.r.Groups, func(g ResolvedGroup) bool { return g.Interface == i && g.Direction == "in" })
		if at < 0 {
			k.r.Groups = append(k.r.Groups, ResolvedGroup{Interface: i, Direction: "in", ACL: l.Name, Global: l.Name, Rules: rules})
			continue
		}
		k.r.Groups[at].Global = l.Name
		k.r.Groups[at].Rules = slices.Concat(k.r.Groups[at].Rules, rules)
	}
}

// endpoint reports an object that cannot be followed.
func (k *checker) endpoint(e ACE, end Endpoint) {
	if end.Group != "" {
		if k.c.ObjectGroup(end.Group) == nil {
			missing(k, e.Pos, "object-group network", end.Group, k.c.ObjectGroups, func(g *ObjectGroup) string { return g.Name })
		}
		return
	}
	if end.Object == "" {
		return
	}
	switch o := k.c.Object(end.Object); {
	case o == nil:
		missing(k, e.Pos, "object network", end.Object, k.c.Objects, func(o *NetworkObject) string { return o.Name })
	case len(o.Prefixes()) == 0:
		k.at(e.Pos, end.Object, fmt.Sprintf("object %q has no address", end.Object), "add host, subnet or range to it").needs = []string{"host", "subnet", "range"}
	}
}

// groups checks that the members of groups are there, and that no group is in itself.
func (k *checker) groups() {
	for _, g := range k.c.ObjectGroups {
		for _, m := range g.Members {
			switch o := k.c.Object(m.Object); {
			case m.Group != "" && k.c.ObjectGroup(m.Group) == nil:
				missing(k, m.Pos, "object-group network", m.Group, k.c.ObjectGroups, func(g *ObjectGroup) string { return g.Name })
			case m.Object != "" && o == nil:
				missing(k, m.Pos, "object network", m.Object, k.c.Objects, func(o *NetworkObject) string { return o.Name })
			case m.Object != "" && len(o.Prefixes()) == 0:
				k.at(m.Pos, m.Object, fmt.Sprintf("object %q has no address", m.Object), "add host, subnet or range to it").needs = []string{"host", "subnet", "range"}
			case m.Group != "" && k.within(m.Group, g.Name, 0):
				k.fail(m.Pos, m.Group, fmt.Sprintf("group %q is in itself", g.Name), "take "+m.Group+" out of it")
			}
		}
	}
}

// maxNesting bounds groups in groups.
const maxNesting = 16

// within says whether a group has another one in it, or too many in each other.
func (k *checker) within(group, other string, depth int) bool {
	if group == other || depth > maxNesting {
		return true
	}
	g := k.c.ObjectGroup(group)
	return g != nil && slices.ContainsFunc(g.Members, func(m GroupMember) bool { return m.Group != "" && k.within(m.Group, other, depth+1) })
}

// maxRules bounds the rules that one list comes to.
const maxRules = 50000

// rules follows the objects of a list; entries that cannot be followed were reported and are left out. A range and a group come to several rules, and so
// does neq.
func (k *checker) rules(l *AccessList) []Rule {
	var out []Rule
	for _, e := range l.Entries {
		if e.Remark != "" || e.Inactive {
			continue
		}
		services := k.services(e)
		for _, src := range k.prefixes(e.Src) {
			for _, dst := range k.prefixes(e.Dst) {
				for _, s := range services {
					out = append(out, Rule{Pos: e.Pos, Permit: e.Permit, Proto: s.proto, Src: src, Dst: dst, SrcPorts: s.src, DstPorts: s.dst, Log: e.Log})
				}
			}
			if len(out) > maxRules {
				k.fail(e.Pos, "", fmt.Sprintf("access list %s comes to more than %d rules with its groups", l.Name, maxRules), "name fewer groups on both sides of its entries")
				return nil
			}
		}
	}
	return out
}

// portRanges are the ranges of the ports of an entry: two for neq.
func portRanges(r PortRange, neq bool) []PortRange {
	if !neq {
		return []PortRange{r}
	}
	var out []PortRange
	if r.Lo > 1 {
		out = append(out, PortRange{1, r.Lo - 1})
	}
	if r.Lo < 65535 {
		out = append(out, PortRange{r.Lo + 1, 65535})
	}
	return out
}

// prefixes are the addresses of an endpoint; the zero prefix is any, none: it cannot be followed.
func (k *checker) prefixes(e Endpoint) []netip.Prefix {
	switch {
	case e.Any:
		return []netip.Prefix{{}}
	case e.Group != "":
		return k.groupPrefixes(e.Group, 0)
	case e.Object != "":
		if o := k.c.Object(e.Object); o != nil {
			return o.Prefixes()
		}
		return nil
	case e.Prefix.IsValid():
		return []netip.Prefix{e.Prefix}
	}
	return nil
}

func (k *checker) groupPrefixes(name string, depth int) []netip.Prefix {
	g := k.c.ObjectGroup(name)
	if g == nil || depth > maxNesting { // reported
		return nil
	}
	var out []netip.Prefix
	for _, m := range g.Members {
		var more []netip.Prefix
		switch {
		case m.Group != "":
			more = k.groupPrefixes(m.Group, depth+1)
		case m.Object != "":
			if o := k.c.Object(m.Object); o != nil {
				more = o.Prefixes()
			}
		default:
			more = []netip.Prefix{m.Prefix}
		}
		for _, p := range more {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}
