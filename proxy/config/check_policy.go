package config

import "fmt"

func (k *checker) policies() {
	for _, m := range k.c.ClassMaps {
		pos := place(m.Where, "match", m.Pos)
		switch {
		case m.AccessList == "":
			k.at(m.Pos, m.Name, fmt.Sprintf("class-map %q matches nothing", m.Name), "add match access-list NAME to it").needs = []string{"match"}
		case k.c.AccessList(m.AccessList) == nil:
			missing(k, pos, "access-list", m.AccessList, k.c.AccessLists, func(l *AccessList) string { return l.Name })
		}
	}
	for _, m := range k.c.PolicyMaps {
		for _, pc := range m.Classes {
			k.policyClass(pc)
		}
	}
	applied := map[string]bool{}
	for _, s := range k.c.ServicePolicies {
		k.servicePolicy(s, applied)
	}
	for _, m := range k.c.PolicyMaps {
		if _, enabled := applied[m.Name]; !enabled {
			k.warn(m.Pos, m.Name, fmt.Sprintf("policy-map %q is not enabled", m.Name), fmt.Sprintf("add service-policy %s global", clip(m.Name)))
		}
	}
	k.directions()
}

// policyClass checks the names of one class and its action.
func (k *checker) policyClass(pc *PolicyClass) {
	if k.c.ClassMap(pc.Class) == nil {
		missing(k, pc.Pos, "class-map", pc.Class, k.c.ClassMaps, func(m *ClassMap) string { return m.Name })
	}
	i := pc.Inspect
	if i == nil {
		k.warn(pc.Pos, pc.Class, fmt.Sprintf("class %q has no action", pc.Class), "add inspect sip uc-ime NAME tls-proxy NAME")
		return
	}
	if i.Map != "" {
		k.fail(i.Pos, i.Map, fmt.Sprintf("inspection policy map %q does not exist; such maps are not supported", i.Map), "leave it out; malformed messages are always refused")
	}
	if k.c.UCIME == nil || k.c.UCIME.Name != i.UCIME {
		var all []*UCIME
		if k.c.UCIME != nil {
			all = []*UCIME{k.c.UCIME}
		}
		missing(k, i.Pos, "uc-ime", i.UCIME, all, func(u *UCIME) string { return u.Name })
	}
	if k.c.TLSProxy(i.TLSProxy) == nil {
		missing(k, i.Pos, "tls-proxy", i.TLSProxy, k.c.TLSProxies, func(t *TLSProxy) string { return t.Name })
	}
}

func (k *checker) servicePolicy(s ServicePolicy, applied map[string]bool) {
	var on *Interface
	if !s.Global {
		if on = k.nameif(s.Pos, s.Interface); on == nil {
			return
		}
	}
	m := k.c.PolicyMap(s.Policy)
	if m == nil {
		missing(k, s.Pos, "policy-map", s.Policy, k.c.PolicyMaps, func(m *PolicyMap) string { return m.Name })
		return
	}
	if on != nil && k.r.Inside != nil && on != k.r.Inside && on != k.r.Outside {
		k.warn(s.Pos, s.Interface, fmt.Sprintf("no inspected call passes interface %q", s.Interface), "enable the policy map globally, or on an interface that calls pass")
		if _, enabled := applied[m.Name]; !enabled {
			applied[m.Name] = false // enabled, but not in the way of a call
		}
		return
	}
	// Calls pass two interfaces: a policy that is enabled on both of them is carried out once.
	if applied[m.Name] {
		return
	}
	applied[m.Name] = true
	for _, pc := range m.Classes {
		k.inspection(m, pc, on)
	}
}

// inspection resolves one inspected class.
func (k *checker) inspection(m *PolicyMap, pc *PolicyClass, on *Interface) {
	class := k.c.ClassMap(pc.Class)
	if pc.Inspect == nil || class == nil || k.c.UCIME == nil || len(k.r.UCMs) == 0 {
		return
	}
	l, proxy := k.c.AccessList(class.AccessList), k.c.TLSProxy(pc.Inspect.TLSProxy)
	if l == nil || proxy == nil {
		return
	}
	in := Inspection{Pos: pc.Inspect.Pos, Policy: m.Name, Class: pc.Class, Interface: on, TLSProxy: proxy, DSCP: pc.DSCP}
	out := in
	for _, r := range k.rules(l) {
		inbound, flows := k.flows(r)
		if inbound {
			in.Flows = append(in.Flows, flows...)
		} else {
			out.Flows = append(out.Flows, flows...)
		}
	}
	if len(in.Flows) > 0 && len(out.Flows) > 0 {
		k.fail(place(class.Where, "match", class.Pos), class.AccessList, fmt.Sprintf("access list %q holds inbound and outbound traffic", clip(l.Name)), "make a class for each direction, each with its tls-proxy")
	}
	if len(in.Flows) > 0 {
		k.r.Inbound = append(k.r.Inbound, in)
		k.identities(pc.Inspect, proxy, true)
	}
	if len(out.Flows) > 0 {
		k.r.Outbound = append(k.r.Outbound, out)
		k.identities(pc.Inspect, proxy, false)
	}
}

// flows turns an entry of a class's access list into one flow for each call agent that it names.
func (k *checker) flows(r Rule) (inbound bool, out []Flow) {
	switch {
	case !r.Permit:
		k.fail(r.Pos, "deny", "a class cannot leave out traffic by deny", "name only what is meant, by permit")
		return false, nil
	case r.Proto != "tcp":
		k.fail(r.Pos, r.Proto, "the traffic of an inspected class is tcp", "permit tcp")
		return false, nil
	case !r.SrcPorts.Any():
		k.fail(r.Pos, "", "an inspected class cannot depend on the source port", "name the destination port alone")
		return false, nil
	}
	var src, dst []ResolvedUCM
	for _, u := range k.r.UCMs {
		if r.Src.IsValid() && r.Src.Contains(u.Addr) {
			src = append(src, u)
		}
		if r.Dst.IsValid() && r.Dst.Contains(u.Addr) {
			dst = append(dst, u)
		}
		if r.Dst.IsValid() && r.Dst.Bits() == 32 && u.Mapped == r.Dst.Addr() {
			k.fail(r.Pos, r.Dst.Addr().String(), fmt.Sprintf("%s is the mapped address of a call agent", u.Mapped), "access lists name the real address: "+u.Addr.String())
			return true, nil
		}
	}
	switch {
	case len(src) > 0 && len(dst) > 0:
		k.fail(r.Pos, destination(r), "the entry names call agents on both sides", "inbound has the call agent as destination, outbound as source")
	case len(src)+len(dst) == 0:
		k.at(r.Pos, destination(r), "the entry of an inspected class names no call agent of the uc-ime", "inbound: permit tcp any host "+k.r.UCMs[0].Addr.String()+" eq PORT").needs = []string{"ucm"}
	case r.DstPorts.Any():
		k.fail(r.Pos, destination(r), "the entry of an inspected class names no port, so all connections would be taken for SIP", "add eq PORT or range PORT PORT")
	case len(dst) > 0:
		return true, k.inboundFlows(r, dst)
	default:
		return false, k.outboundFlows(r, src)
	}
	return false, nil
}

// destination is the word of an entry that its destination begins with, where it is written as an address.
func destination(r Rule) string {
	if r.Dst.IsValid() {
		return r.Dst.Addr().String()
	}
	return "any"
}

func (k *checker) inboundFlows(r Rule, to []ResolvedUCM) (out []Flow) {
	for _, u := range to {
		f := Flow{Pos: r.Pos, UCM: u.Addr, Peer: r.Src, Ports: r.DstPorts}
		if u.Mapped.IsValid() {
			f.Mapped, f.MappedPorts = u.Mapped, r.DstPorts
			out = append(out, f)
			continue
		}
		found := false
		for _, s := range u.Ports {
			if r.DstPorts.Contains(s.RealPort) {
				f.Ports, f.Mapped, f.MappedPorts = PortRange{s.RealPort, s.RealPort}, s.MappedAddr, PortRange{s.MappedPort, s.MappedPort}
				out, found = append(out, f), true
			}
		}
		if !found && !k.natFailed {
			k.at(r.Pos, u.Addr.String(), fmt.Sprintf("no static translation makes %s reachable on this port", u.Addr),
				"add nat (REAL,MAPPED) static to an object network with host "+u.Addr.String()).needs = []string{"nat", "host", "object"}
		}
	}
	return out
}

func (k *checker) outboundFlows(r Rule, from []ResolvedUCM) (out []Flow) {
	for _, u := range from {
		if !u.Source.IsValid() && k.natFailed {
			continue
		}
		if !u.Source.IsValid() {
			k.at(r.Pos, u.Addr.String(), fmt.Sprintf("no translation hides %s on the way out", u.Addr),
				"add nat (REAL,MAPPED) static or dynamic to an object network that holds "+u.Addr.String()).needs = []string{"nat", "host", "subnet", "object"}
			continue
		}
		out = append(out, Flow{Pos: r.Pos, UCM: u.Addr, Peer: r.Dst, Ports: r.DstPorts, Mapped: u.Source})
	}
	return out
}

// identities checks that the tls-proxy has the trustpoints that its direction needs: towards the Internet one, and with a secure
// trunk another one towards the call agent.
func (k *checker) identities(i *InspectSIP, t *TLSProxy, inbound bool) {
	outer, inner := "client", "server"
	if inbound {
		outer, inner = inner, outer
	}
	names := map[string]string{"server": t.ServerTrustpoint, "client": t.ClientTrustpoint}
	direction := "outbound"
	if inbound {
		direction = "inbound"
	}
	if names[outer] == "" {
		k.at(i.Pos, t.Name, fmt.Sprintf("tls-proxy %q has no %s trust-point, which %s calls need", t.Name, outer, direction), fmt.Sprintf("add %s trust-point NAME to it", outer)).needs = []string{outer}
	}
	secure := false
	for _, u := range k.r.UCMs {
		secure = secure || u.Secure
	}
	switch {
	case !secure:
	case names[inner] == "":
		k.at(i.Pos, t.Name, fmt.Sprintf("tls-proxy %q has no %s trust-point, which a secure trunk needs towards the call agent", t.Name, inner), fmt.Sprintf("add %s trust-point NAME to it", inner)).needs = []string{inner}
	case names[inner] == names[outer]:
		k.fail(place(t.Where, inner, t.Pos), names[inner], fmt.Sprintf("tls-proxy %q has one trustpoint for both sides", t.Name), "a secure trunk needs different trustpoints for the client and the server")
	}
}

// directions warns of calls that cannot be made although a proxy is configured.
func (k *checker) directions() {
	u := k.c.UCIME
	if u == nil || k.found.HasErrors() {
		return
	}
	if u.Mapping != nil && len(k.r.Outbound) == 0 {
		k.fail(u.Mapping.Pos, "mapping-service", "no enabled policy inspects outbound calls: the mapping service has no tls-proxy to call with", "add a class whose access list has the call agent as source")
	}
	switch in, out := len(k.r.Inbound) > 0, len(k.r.Outbound) > 0; {
	case in && out:
	case in:
		k.warn(u.Pos, u.Name, "no enabled policy inspects outbound calls", "add a class whose access list has the call agent as source")
	case out:
		k.warn(u.Pos, u.Name, "no enabled policy inspects inbound calls", "add a class whose access list has the call agent as destination")
	default:
		k.warn(u.Pos, u.Name, "no enabled policy sends calls through the uc-ime", "add inspect sip to a class and enable the policy map by service-policy")
	}
}
