package config

import (
	"slices"

	"imeproxy/proxy/config/keyword"
)

// operatorPattern is a port or a range of them in a group of services.
const operatorPattern = "{eq <port:PORT>|range <port:PORT> <port2:PORT>}"

// serviceGlobals makes groups of ports, or of protocols with their ports.
func serviceGlobals(m *mode) {
	m.add("object-group service <name:OBJECT> [tcp|udp|tcp-udp]", "Name several ports, or protocols with their ports", enterServices, func(p *parser, a args) {
		before := len(p.c.ServiceGroups)
		p.c.ServiceGroups = slices.DeleteFunc(p.c.ServiceGroups, func(g *ServiceGroup) bool { return g.Name == a.Text("name") })
		if len(p.c.ServiceGroups) == before {
			p.absent(a.arg("name").Col, "object group")
		}
	})
}

func enterServices(p *parser, a args) {
	proto := ""
	for _, w := range []string{"tcp", "udp", "tcp-udp"} {
		if a.Has(w) {
			proto = w
		}
	}
	p.enter(modes().serviceGroup)
	if p.services = p.c.ServiceGroup(a.Text("name")); p.services != nil {
		if p.services.Proto != proto {
			p.fail(a.arg("name").Col, "the group is of another kind", "it is object-group service "+p.services.Name+space(p.services.Proto)+"; no object-group service "+p.services.Name+" removes it")
		}
		return
	}
	p.services = &ServiceGroup{Pos: p.pos(), Name: a.Text("name"), Proto: proto}
	if p.room(len(p.c.ServiceGroups), "object groups") {
		p.c.ServiceGroups = append(p.c.ServiceGroups, p.services)
	}
}

func space(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

func serviceCommands(m *mode) {
	member := func(pattern, help string) { m.add(pattern, help, addService, removeService) }
	member("port-object "+operatorPattern, "A port, or a range of them")
	member("service-object {tcp|udp|tcp-udp} [source "+operatorPattern+"] [destination "+operatorPattern+"]", "A protocol with ports")
	member("service-object {ip|icmp}", "A protocol")
	member("group-object <services:OBJECT>", "What another group has")
	m.add("description <text:TEXT>", "A text for people", func(p *parser, a args) { p.services.Description = unquote(a.Text("text")) }, nil)
	m.addNo("description [<text:LINE>]", func(p *parser, _ args) { p.services.Description = "" })
}

// service reads a member from the words of its command.
func (p *parser) service(a args) (ServiceMember, bool) {
	s := ServiceMember{Pos: p.pos(), Group: a.Text("services")}
	if s.Group != "" {
		return s, true
	}
	ports := a.Has("port-object")
	if ports == (p.services.Proto == "") {
		hint := "service-object is for groups of protocols; this one has port-object eq 5060"
		if ports {
			hint = "port-object is for groups of tcp, udp or tcp-udp; this one has service-object tcp destination eq 5060"
		}
		p.fail(a.Args[0].Col, "a group of this kind has no such member", hint)
		return s, false
	}
	word := slices.IndexFunc(a.Args, func(w keyword.Arg) bool { return w.Text == "port-object" || w.Text == "service-object" })
	if ports {
		rest := a
		rest.Args = a.Args[word+1:]
		ok, _ := p.portRange(rest, &s.Dst, nil)
		return s, ok
	}
	s.Proto = a.Args[word+1].Text
	ok := true
	for i, w := range a.Args {
		if !w.Keyword || w.Text != "source" && w.Text != "destination" {
			continue
		}
		rest := a
		rest.Args = a.Args[i+1:]
		to := &s.Src
		if w.Text == "destination" {
			to = &s.Dst
		}
		good, _ := p.portRange(rest, to, nil)
		ok = ok && good
	}
	return s, ok
}

func (s ServiceMember) same(o ServiceMember) bool { o.Pos = s.Pos; return s == o }

func addService(p *parser, a args) {
	s, ok := p.service(a)
	if ok && !slices.ContainsFunc(p.services.Members, s.same) && p.room(len(p.services.Members), "members of a group") {
		p.services.Members = append(p.services.Members, s)
	}
}

func removeService(p *parser, a args) {
	s, ok := p.service(a)
	if !ok {
		return
	}
	before := len(p.services.Members)
	if p.services.Members = slices.DeleteFunc(p.services.Members, s.same); len(p.services.Members) == before {
		p.absent(a.Args[len(a.Args)-1].Col, "member of the group")
	}
}
