package config

import (
	"fmt"
	"slices"
)

func policyGlobals(m *mode) {
	m.add("class-map <name:NAME64>", "A class of traffic", func(p *parser, a args) {
		p.enter(modes().classMap)
		if p.cmap = p.c.ClassMap(a.Text("name")); p.cmap != nil {
			return
		}
		p.cmap = &ClassMap{Pos: p.pos(), Name: a.Text("name"), Where: Places{}}
		if p.room(len(p.c.ClassMaps), "class maps") {
			p.c.ClassMaps = append(p.c.ClassMaps, p.cmap)
		}
	}, func(p *parser, a args) {
		before := len(p.c.ClassMaps)
		p.c.ClassMaps = slices.DeleteFunc(p.c.ClassMaps, func(x *ClassMap) bool { return x.Name == a.Text("name") })
		if len(p.c.ClassMaps) == before {
			p.absent(a.arg("name").Col, "class map")
		}
	})
	m.add("policy-map <name:NAME64>", "Actions for classes", enterPolicy, func(p *parser, a args) {
		before := len(p.c.PolicyMaps)
		p.c.PolicyMaps = slices.DeleteFunc(p.c.PolicyMaps, func(x *PolicyMap) bool { return x.Name == a.Text("name") })
		if len(p.c.PolicyMaps) == before {
			p.absent(a.arg("name").Col, "policy map")
		}
	})
	m.refuse("policy-map type inspect sip <name:NAME64>", func(p *parser, _ args) {
		p.fail(p.words[1].Col, "inspection policy maps are not supported: their settings would have no effect",
			"leave it out; malformed messages are always refused")
	})
	m.add("service-policy <policy:NAME64> {global|interface <interface:NAMEIF>}", "Enable a policy map", addServicePolicy, removeServicePolicy)
}

func enterPolicy(p *parser, a args) {
	p.enter(modes().policyMap)
	if p.pmap = p.c.PolicyMap(a.Text("name")); p.pmap != nil {
		return
	}
	p.pmap = &PolicyMap{Pos: p.pos(), Name: a.Text("name")}
	if p.room(len(p.c.PolicyMaps), "policy maps") {
		p.c.PolicyMaps = append(p.c.PolicyMaps, p.pmap)
	}
}

func classMapCommands(m *mode) {
	m.add("match access-list <access_list:NAME241>", "The traffic of the class", func(p *parser, a args) {
		if old := p.cmap.AccessList; old != "" && old != a.Text("access_list") {
			p.fail(a.arg("access_list").Col, "a class matches one access list", fmt.Sprintf("it matches %q already; put the entries into one list", old))
			return
		}
		p.cmap.AccessList = a.Text("access_list")
		p.cmap.Where["match"] = p.pos()
	}, nil)
	m.addNo("match access-list [<access_list:NAME241>]", func(p *parser, a args) {
		p.unset(&p.cmap.AccessList, a.Text("access_list"), a, "access_list")
	})
}

func policyMapCommands(m *mode) {
	m.add("class <class:NAME64>", "Actions for a class", func(p *parser, a args) {
		p.enter(modes().policyClass)
		for _, x := range p.pmap.Classes {
			if x.Class == a.Text("class") {
				p.class = x
				return
			}
		}
		p.class = &PolicyClass{Pos: p.pos(), Class: a.Text("class")}
		if p.room(len(p.pmap.Classes), "classes") {
			p.pmap.Classes = append(p.pmap.Classes, p.class)
		}
	}, func(p *parser, a args) {
		before := len(p.pmap.Classes)
		p.pmap.Classes = slices.DeleteFunc(p.pmap.Classes, func(x *PolicyClass) bool { return x.Class == a.Text("class") })
		if len(p.pmap.Classes) == before {
			p.absent(a.arg("class").Col, "class in the policy map")
		}
	})
}

func policyClassCommands(m *mode) {
	m.add("inspect sip [<map:NAME64>] uc-ime <uc_ime:NAME64> tls-proxy <tls_proxy:NAME64>", "Send SIP through the proxy", func(p *parser, a args) {
		p.class.Inspect = &InspectSIP{Pos: p.pos(), Map: a.Text("map"), UCIME: a.Text("uc_ime"), TLSProxy: a.Text("tls_proxy")}
	}, func(p *parser, _ args) { p.class.Inspect = nil })
	m.addNo("inspect sip", func(p *parser, _ args) { p.class.Inspect = nil })
	m.add("set dscp {audio|video} <dscp:DSCP>", "Mark the media of the class's calls", setDSCP, unsetDSCP)
	m.addNo("set dscp {audio|video}", unsetDSCP)
}

// addServicePolicy refuses a second policy in the same place, as an ASA does: the first must be removed.
func addServicePolicy(p *parser, a args) {
	s := ServicePolicy{Pos: p.pos(), Policy: a.Text("policy"), Interface: a.Text("interface")}
	s.Global = s.Interface == ""
	for _, old := range p.c.ServicePolicies {
		if old.Global != s.Global || old.Interface != s.Interface {
			continue
		}
		if old.Policy != s.Policy {
			p.fail(a.arg("policy").Col, "a policy map is enabled there already", fmt.Sprintf("line %d enables %q; add the classes to it", old.Line, old.Policy))
		}
		return
	}
	if p.room(len(p.c.ServicePolicies), "service policies") {
		p.c.ServicePolicies = append(p.c.ServicePolicies, s)
	}
}

func removeServicePolicy(p *parser, a args) {
	before := len(p.c.ServicePolicies)
	p.c.ServicePolicies = slices.DeleteFunc(p.c.ServicePolicies, func(s ServicePolicy) bool {
		return s.Policy == a.Text("policy") && s.Interface == a.Text("interface")
	})
	if len(p.c.ServicePolicies) == before {
		p.absent(a.arg("policy").Col, "service policy")
	}
}
