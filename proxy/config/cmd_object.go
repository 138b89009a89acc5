package config

import (
	"net/netip"
	"slices"
)

func objectGlobals(m *mode) {
	m.add("object network <name:OBJECT>", "Name an address or a subnet", enterObject, func(p *parser, a args) {
		before := len(p.c.Objects)
		p.c.Objects = slices.DeleteFunc(p.c.Objects, func(o *NetworkObject) bool { return o.Name == a.Text("name") })
		if len(p.c.Objects) == before {
			p.absent(a.arg("name").Col, "object")
		}
	})
}

// groupGlobals makes groups of objects.
func groupGlobals(m *mode) {
	m.add("object-group network <name:OBJECT>", "Name several addresses", func(p *parser, a args) {
		p.enter(modes().objectGroup)
		if p.group = p.c.ObjectGroup(a.Text("name")); p.group != nil {
			return
		}
		p.group = &ObjectGroup{Pos: p.pos(), Name: a.Text("name")}
		if p.room(len(p.c.ObjectGroups), "object groups") {
			p.c.ObjectGroups = append(p.c.ObjectGroups, p.group)
		}
	}, func(p *parser, a args) {
		before := len(p.c.ObjectGroups)
		p.c.ObjectGroups = slices.DeleteFunc(p.c.ObjectGroups, func(g *ObjectGroup) bool { return g.Name == a.Text("name") })
		if len(p.c.ObjectGroups) == before {
			p.absent(a.arg("name").Col, "object group")
		}
	})
}

func groupCommands(m *mode) {
	member := func(pattern, help string) { m.add(pattern, help, addMember, removeMember) }
	member("network-object host <address:ADDRESS>", "A host of the group")
	member("network-object <address:NET> <mask:MASK>", "A subnet of the group")
	member("network-object object <object:OBJECT>", "An object of the group")
	member("group-object <group:OBJECT>", "What another group has")
	m.add("description <text:TEXT>", "A text for people", func(p *parser, a args) { p.group.Description = unquote(a.Text("text")) }, nil)
	m.addNo("description [<text:LINE>]", func(p *parser, _ args) { p.group.Description = "" })
}

// member reads one from the words of its command.
func (p *parser) member(a args) (GroupMember, bool) {
	g := GroupMember{Pos: p.pos(), Object: a.Text("object"), Group: a.Text("group")}
	switch {
	case g.Object != "" || g.Group != "":
		return g, true
	case a.Has("host"):
		g.Prefix = netip.PrefixFrom(netip.MustParseAddr(a.Text("address")), 32)
		return g, true
	}
	var ok bool
	g.Prefix, ok = p.network(a, "address", "mask")
	return g, ok
}

func (g GroupMember) same(o GroupMember) bool { o.Pos = g.Pos; return g == o }

func addMember(p *parser, a args) {
	g, ok := p.member(a)
	if ok && !slices.ContainsFunc(p.group.Members, g.same) && p.room(len(p.group.Members), "members of a group") {
		p.group.Members = append(p.group.Members, g)
	}
}

func removeMember(p *parser, a args) {
	g, ok := p.member(a)
	if !ok {
		return
	}
	before := len(p.group.Members)
	if p.group.Members = slices.DeleteFunc(p.group.Members, g.same); len(p.group.Members) == before {
		p.absent(a.Args[len(a.Args)-1].Col, "member of the group")
	}
}

func enterObject(p *parser, a args) {
	name := a.Text("name")
	p.enter(modes().object)
	if p.obj = p.c.Object(name); p.obj != nil {
		return
	}
	p.obj = &NetworkObject{Pos: p.pos(), Name: name, Where: Places{}}
	if p.room(len(p.c.Objects), "objects") {
		p.c.Objects = append(p.c.Objects, p.obj)
	}
}

func objectCommands(m *mode) {
	m.natPair = true
	// The guide prints a host line with a mask where it means a subnet.
	m.add("host <address:ADDRESS> [<mask:MASK>]", "The object is one host", setHost, unsetHost)
	m.addNo("host", unsetHost)
	m.add("subnet <address:NET> <mask:MASK>", "The object is a subnet", setSubnet, unsetHost)
	m.addNo("subnet", unsetHost)
	m.add("range <first:ADDRESS> <last:ADDRESS>", "The object is a range of hosts", setRange, unsetHost)
	m.addNo("range", unsetHost)
	m.add("description <text:TEXT>", "A text for people", func(p *parser, a args) { p.obj.Description = unquote(a.Text("text")) }, nil)
	m.addNo("description [<text:LINE>]", func(p *parser, _ args) { p.obj.Description = "" })
	const static = "nat <pair:PAIR> static <mapped:MAPPED> [service {tcp|udp} <real_port:PORT> <mapped_port:PORT>]"
	m.add(static, "Translate the object to one address", setNAT, unsetNAT)
	const dynamic = "nat <pair:PAIR> dynamic {interface|<mapped:MAPPED>}"
	m.add(dynamic, "Hide the object behind an address", setNAT, unsetNAT)
	m.addNo("nat [<pair:PAIR>]", unsetNAT)
}

func setHost(p *parser, a args) {
	if a.Text("mask") != "" {
		if n, _ := maskBits(a.Text("mask")); n < 32 {
			setSubnet(p, a)
			return
		}
	}
	if err := checkHost(a.Text("address")); err != nil {
		p.fail(a.arg("address").Col, "the address of a host cannot be "+a.Text("address"), err.Error())
		return
	}
	p.obj.Prefix, p.obj.IsHost = netip.PrefixFrom(netip.MustParseAddr(a.Text("address")), 32), true
	p.obj.First, p.obj.Last = netip.Addr{}, netip.Addr{}
	p.obj.Where["host"] = p.pos()
}

func setRange(p *parser, a args) {
	first, last := netip.MustParseAddr(a.Text("first")), netip.MustParseAddr(a.Text("last"))
	if last.Less(first) {
		p.fail(a.arg("last").Col, "the range ends before it begins", "range "+last.String()+" "+first.String())
		return
	}
	p.obj.Prefix, p.obj.IsHost, p.obj.First, p.obj.Last = netip.Prefix{}, false, first, last
	p.obj.Where["host"] = p.pos()
}

func setSubnet(p *parser, a args) {
	if prefix, ok := p.network(a, "address", "mask"); ok {
		p.obj.Prefix, p.obj.IsHost, p.obj.First, p.obj.Last = prefix, false, netip.Addr{}, netip.Addr{}
		p.obj.Where["host"] = p.pos()
	}
}

func unsetHost(p *parser, a args) {
	if w := a.Text("address"); w != "" && p.obj.Prefix.IsValid() && p.obj.Prefix.Addr().String() != w {
		p.fail(a.arg("address").Col, "the object has another address", "it is "+p.obj.Prefix.Addr().String())
		return
	}
	p.obj.Prefix, p.obj.IsHost, p.obj.First, p.obj.Last = netip.Prefix{}, false, netip.Addr{}, netip.Addr{}
}

func setNAT(p *parser, a args) {
	n := &NAT{Pos: p.pos(), Dynamic: a.Has("dynamic"), MappedInterface: a.Has("interface")}
	n.Real, n.Mapped, _ = natPair(a.Text("pair"))
	if w := a.Text("mapped"); dotted.MatchString(w) {
		n.MappedAddr = netip.MustParseAddr(w)
	} else {
		n.MappedObject = w
	}
	if a.Has("service") {
		n.Service = &NATService{Proto: "tcp", RealPort: portNumber(a.Text("real_port")), MappedPort: portNumber(a.Text("mapped_port"))}
		if a.Has("udp") {
			n.Service.Proto = "udp"
		}
	}
	p.obj.NAT = n
}

func unsetNAT(p *parser, a args) {
	if w := a.Text("pair"); w != "" && p.obj.NAT != nil && w != "("+p.obj.NAT.Real+","+p.obj.NAT.Mapped+")" {
		p.fail(a.arg("pair").Col, "the object is translated between other interfaces", "it is ("+p.obj.NAT.Real+","+p.obj.NAT.Mapped+")")
		return
	}
	p.obj.NAT = nil
}
