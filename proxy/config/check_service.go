package config

import (
	"fmt"
	"slices"
)

// service is a protocol with its ports, as a rule has them.
type service struct {
	proto    string
	src, dst PortRange
}

// services are what an entry is about: several with neq and with groups; none when a group cannot be followed.
func (k *checker) services(e ACE) []service {
	if e.Services != "" {
		return k.groupServices(e.Services, 0)
	}
	dst := portRanges(e.DstPorts, e.DstNeq)
	if e.DstGroup != "" {
		dst = nil
		for _, s := range k.groupServices(e.DstGroup, 0) {
			if s.proto == e.Proto {
				dst = append(dst, s.dst)
			}
		}
	}
	var out []service
	for _, from := range portRanges(e.SrcPorts, e.SrcNeq) {
		for _, to := range dst {
			out = append(out, service{e.Proto, from, to})
		}
	}
	return out
}

func (k *checker) groupServices(name string, depth int) (out []service) {
	g := k.c.ServiceGroup(name)
	if g == nil || depth > maxNesting { // reported
		return nil
	}
	for _, m := range g.Members {
		proto := m.Proto
		if g.Proto != "" {
			proto = g.Proto
		}
		var more []service
		switch {
		case m.Group != "":
			more = k.groupServices(m.Group, depth+1)
		case proto == "tcp-udp":
			more = []service{{"tcp", m.Src, m.Dst}, {"udp", m.Src, m.Dst}}
		default:
			more = []service{{proto, m.Src, m.Dst}}
		}
		for _, s := range more {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// serviceGroups checks that the members of groups are there and of the group's kind, and that no group is in itself.
func (k *checker) serviceGroups() {
	for _, g := range k.c.ServiceGroups {
		if other := k.c.ObjectGroup(g.Name); other != nil {
			k.fail(g.Pos, g.Name, fmt.Sprintf("there are two object groups %s, of networks and of services", g.Name), "give one another name")
		}
		for _, m := range g.Members {
			if m.Group == "" {
				continue
			}
			in := k.c.ServiceGroup(m.Group)
			switch {
			case in == nil:
				k.missingServices(m.Pos, m.Group)
			case (in.Proto == "") != (g.Proto == ""), g.Proto != "" && g.Proto != "tcp-udp" && in.Proto != g.Proto:
				k.fail(m.Pos, m.Group, fmt.Sprintf("group %q is of another kind", m.Group), "it is object-group service "+in.Name+space(in.Proto))
			case k.serviceWithin(m.Group, g.Name, 0):
				k.fail(m.Pos, m.Group, fmt.Sprintf("group %q is in itself", g.Name), "take "+m.Group+" out of it")
			}
		}
	}
}

func (k *checker) missingServices(at Pos, name string) {
	missing(k, at, "object-group service", name, k.c.ServiceGroups, func(g *ServiceGroup) string { return g.Name })
}

// serviceWithin says whether a group has another one in it, or too many in each other.
func (k *checker) serviceWithin(group, other string, depth int) bool {
	if group == other || depth > maxNesting {
		return true
	}
	g := k.c.ServiceGroup(group)
	return g != nil && slices.ContainsFunc(g.Members, func(m ServiceMember) bool { return m.Group != "" && k.serviceWithin(m.Group, other, depth+1) })
}

// entryServices reports groups of services that an entry cannot use.
func (k *checker) entryServices(e ACE) {
	if e.Services != "" {
		switch g := k.c.ServiceGroup(e.Services); {
		case g == nil:
			k.missingServices(e.Pos, e.Services)
		case g.Proto != "":
			k.fail(e.Pos, e.Services, fmt.Sprintf("group %q is of ports and says no protocol", e.Services), "name the protocol, and the group behind the destination: permit tcp any any object-group "+e.Services)
		}
	}
	if e.DstGroup != "" {
		switch g := k.c.ServiceGroup(e.DstGroup); {
		case g == nil:
			k.missingServices(e.Pos, e.DstGroup)
		case g.Proto == "":
			k.fail(e.Pos, e.DstGroup, fmt.Sprintf("group %q is of protocols, not of ports", e.DstGroup), "put it in place of the protocol: permit object-group "+e.DstGroup+" any any")
		case g.Proto != e.Proto && g.Proto != "tcp-udp":
			k.fail(e.Pos, e.DstGroup, fmt.Sprintf("group %q is of %s ports, the entry of %s", e.DstGroup, g.Proto, e.Proto), "make the group one of tcp-udp, or another group")
		}
	}
}
