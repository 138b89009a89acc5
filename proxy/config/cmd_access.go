package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// endpointPattern is one side of an entry. Its arguments are told apart by their order.
const endpointPattern = "{any|any4|host <host:HOST>|object <object:OBJECT>|object-group <group:OBJECT>|<network:ADDRESS> <mask:MASK>}"

const portPattern = "[eq <port:PORT>|lt <port:PORT>|gt <port:PORT>|range <port:PORT> <port2:PORT>|neq <port:PORT>]"

// destinationPattern are the ports of the destination. A group can stand there alone: behind the source it could be the destination.
const destinationPattern = "[eq <port:PORT>|lt <port:PORT>|gt <port:PORT>|range <port:PORT> <port2:PORT>|neq <port:PORT>|object-group <services:OBJECT>]"

func accessCommands(m *mode) {
	const head = "access-list <id:NAME241> "
	const line = head + "[line <line:1-100000>] "
	tail := " " + logPattern + " [inactive]"
	m.add("same-security-traffic permit inter-interface", "Let interfaces of one security level reach each other",
		func(p *parser, _ args) { p.c.SameSecurity = true }, func(p *parser, _ args) { p.c.SameSecurity = false })
	m.add(line+"remark <text:TEXT>", "A text for people", addRemark, removeACE)
	m.add(line+"[extended] {permit|deny} {tcp|udp} "+endpointPattern+" "+portPattern+" "+endpointPattern+" "+destinationPattern+tail,
		"Permit or deny traffic", addACE, removeACE)
	m.add(line+"[extended] {permit|deny} {ip|icmp} "+endpointPattern+" "+endpointPattern+tail, "Permit or deny traffic", addACE, removeACE)
	m.add(line+"[extended] {permit|deny} object-group <services:OBJECT> "+endpointPattern+" "+endpointPattern+tail, "Permit or deny traffic", addACE, removeACE)
	flowCommands(m)
	m.addNo(head, func(p *parser, a args) {
		if p.resetFlows(a.Text("id")) {
			return
		}
		before := len(p.c.AccessLists)
		p.c.AccessLists = slices.DeleteFunc(p.c.AccessLists, func(l *AccessList) bool { return l.Name == a.Text("id") })
		if len(p.c.AccessLists) == before {
			p.absent(a.arg("id").Col, "access list")
		}
	})
	const shun = "threat-detection scanning-threat shun"
	m.add(shun+" [duration <seconds:10-2592000>]", "Turn sources away for a time that fail too often: handshakes, tickets, malformed messages", func(p *parser, a args) {
		p.c.ShunDuration = DefaultShunDuration
		if a.Has("duration") {
			p.c.ShunDuration = time.Duration(a.Int("seconds")) * time.Second
		}
	}, nil)
	m.addNo(shun+" [duration <seconds:10-2592000>]", func(p *parser, _ args) { p.c.ShunDuration = 0 })
	m.add("access-group <id:NAME241> {in|out} interface <interface:NAMEIF>", "Bind an access list to an interface", addGroup, removeGroup)
	m.add("access-group <id:NAME241> global", "Bind an access list to all interfaces, behind their own", addGroup, removeGroup)
}

// addEntry puts an entry at a line of a list, counted from 1; 0 is its end.
func (p *parser) addEntry(name string, line int, e ACE) {
	total := 0
	for _, l := range p.c.AccessLists {
		total += len(l.Entries)
	}
	if !p.roomFor(total, maxEntries, "access-list entries") {
		return
	}
	l := p.c.AccessList(name)
	if l == nil {
		l = &AccessList{Name: name}
		p.c.AccessLists = append(p.c.AccessLists, l)
	}
	if p.known != nil {
		p.known[l.key(e)] = true
	}
	if line == 0 || line > len(l.Entries) {
		l.Entries = append(l.Entries, e)
		return
	}
	l.Entries = slices.Insert(l.Entries, line-1, e)
}

// line is where an entry is to stand.
func line(a args) int {
	if a.Has("line") {
		return a.Int("line")
	}
	return 0
}

func addRemark(p *parser, a args) {
	p.addEntry(a.Text("id"), line(a), ACE{Pos: p.pos(), Remark: unquote(a.Text("text"))})
}

func addACE(p *parser, a args) {
	e, ok := p.ace(a)
	switch {
	case !ok:
	case slices.Contains(flowNames, a.Text("id")):
		p.fail(a.arg("id").Col, fmt.Sprintf("%q is a command and no name of an access list", a.Text("id")), "take another name")
	case a.Has("log") && p.relog(p.c.AccessList(a.Text("id")), e):
	default:
		p.addEntry(a.Text("id"), line(a), e)
	}
}

func removeACE(p *parser, a args) {
	e := ACE{Remark: unquote(a.Text("text"))}
	if e.Remark == "" {
		var ok bool
		if e, ok = p.ace(a); !ok {
			return
		}
	}
	l := p.c.AccessList(a.Text("id"))
	if l == nil {
		p.absent(a.arg("id").Col, "access list")
		return
	}
	e.Pos = Pos{}
	at := slices.IndexFunc(l.Entries, func(x ACE) bool {
		x.Pos = Pos{}
		return x == e
	})
	if at < 0 { // as an ASA, that takes the entry whatever it logs
		at = l.alike(e)
	}
	if at < 0 {
		p.absent(a.arg("id").Col, "entry in the access list")
		return
	}
	l.Entries = slices.Delete(l.Entries, at, at+1)
	if len(l.Entries) == 0 {
		p.c.AccessLists = slices.DeleteFunc(p.c.AccessLists, func(x *AccessList) bool { return x == l })
	}
}

// ace reads an entry from the words of the command.
func (p *parser) ace(a args) (ACE, bool) {
	e := ACE{Pos: p.pos(), Extended: true, Permit: a.Has("permit"), Log: entryLog(a), Inactive: a.Has("inactive")}
	rest := a
	for i, w := range a.Args {
		if !w.Keyword || w.Text != "permit" && w.Text != "deny" {
			continue
		}
		if about := a.Args[i+1].Text; about == "object-group" {
			e.Services, rest.Args = a.Args[i+2].Text, a.Args[i+3:]
		} else {
			e.Proto, rest.Args = about, a.Args[i+2:]
		}
		break
	}
	ok := true
	for _, side := range []struct {
		end   *Endpoint
		ports *PortRange
		neq   *bool
	}{{&e.Src, &e.SrcPorts, &e.SrcNeq}, {&e.Dst, &e.DstPorts, &e.DstNeq}} {
		good, n := p.endpoint(rest, side.end)
		rest.Args = rest.Args[n:]
		fine, n := p.portRange(rest, side.ports, side.neq)
		rest.Args = rest.Args[n:]
		ok = ok && good && fine
	}
	if len(rest.Args) > 0 && rest.Args[0].Keyword && rest.Args[0].Text == "object-group" {
		e.DstGroup = rest.Args[1].Text
	}
	return e, ok
}

// endpoint reads one side from the first words; n is how many it took.
func (p *parser) endpoint(a args, e *Endpoint) (ok bool, n int) {
	switch w := a.Args[0]; {
	case w.Keyword && strings.HasPrefix(w.Text, "any"):
		e.Any = true
		return true, 1
	case w.Keyword && w.Text == "host":
		e.Prefix = netip.PrefixFrom(netip.MustParseAddr(a.Args[1].Text), 32)
		return true, 2
	case w.Keyword && w.Text == "object-group":
		e.Group = a.Args[1].Text
		return true, 2
	case w.Keyword:
		e.Object = a.Args[1].Text
		return true, 2
	}
	prefix, ok := p.network(a, "network", "mask")
	if ok && prefix.Bits() == 0 {
		e.Any = true
	} else {
		e.Prefix = prefix
	}
	return ok, 2
}

// portRange reads the ports of one side, when the words begin with some.
func (p *parser) portRange(a args, r *PortRange, neq *bool) (ok bool, n int) {
	if len(a.Args) == 0 || !a.Args[0].Keyword {
		return true, 0
	}
	operator := a.Args[0]
	switch operator.Text {
	case "eq", "lt", "gt", "range", "neq":
	default:
		return true, 0
	}
	first := a.Args[1]
	port := portNumber(first.Text)
	switch operator.Text {
	case "eq":
		*r = PortRange{port, port}
	case "lt":
		if port < 2 {
			p.fail(first.Col, "no port is below "+first.Text, "the allowed range is 2-65535")
			return false, 2
		}
		*r = PortRange{1, port - 1}
	case "gt":
		if port > 65534 {
			p.fail(first.Col, "no port is above "+first.Text, "the allowed range is 1-65534")
			return false, 2
		}
		*r = PortRange{port + 1, 65535}
	case "neq":
		*r, *neq = PortRange{port, port}, true
	default:
		last := portNumber(a.Args[2].Text)
		if last < port {
			p.fail(a.Args[2].Col, "the range ends before it begins", fmt.Sprintf("range %d %d", last, port))
			return false, 3
		}
		*r = PortRange{port, last}
		return true, 3
	}
	return true, 2
}

func group(p *parser, a args) AccessGroup {
	g := AccessGroup{Pos: p.pos(), ACL: a.Text("id"), Direction: "in", Interface: a.Text("interface")}
	switch {
	case a.Has("out"):
		g.Direction = "out"
	case a.Has("global"):
		g.Direction = "global"
	}
	return g
}

// addGroup replaces the list that was bound there, as an ASA does.
func addGroup(p *parser, a args) {
	g := group(p, a)
	for i, old := range p.c.AccessGroups {
		if old.Interface == g.Interface && old.Direction == g.Direction {
			p.c.AccessGroups[i] = g
			return
		}
	}
	if p.room(len(p.c.AccessGroups), "access groups") {
		p.c.AccessGroups = append(p.c.AccessGroups, g)
	}
}

func removeGroup(p *parser, a args) {
	g := group(p, a)
	before := len(p.c.AccessGroups)
	p.c.AccessGroups = slices.DeleteFunc(p.c.AccessGroups, func(x AccessGroup) bool {
		x.Pos = g.Pos
		return x == g
	})
	if len(p.c.AccessGroups) == before {
		p.absent(a.arg("id").Col, "access group")
	}
}
