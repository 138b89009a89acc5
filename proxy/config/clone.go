package config

import (
	"maps"
	"slices"
)

// clone copies a configuration so that commands may change the copy: nothing that a command changes in place is shared. What standing lines leave
// behind for diagnostics alone goes along, but doubts: they are about mistakes, of which a configuration that is built on has none.
func (c *Config) clone() *Config {
	n := *c
	n.doubts, n.kept = nil, printed{}
	n.source = slices.Clone(c.source)
	n.Where = places(c.Where)
	n.Banners, n.Routes, n.AccessGroups, n.ServicePolicies = slices.Clone(c.Banners), slices.Clone(c.Routes), slices.Clone(c.AccessGroups), slices.Clone(c.ServicePolicies)
	n.SSLEncryption = slices.Clone(c.SSLEncryption)
	n.SSH.Allowed = slices.Clone(c.SSH.Allowed)
	n.Logging.Hosts = slices.Clone(c.Logging.Hosts)
	n.Interfaces = copies(c.Interfaces, func(i *Interface) {
		i.Where = places(i.Where)
		if i.Nameif == "" && i.SecurityLevel == 0 {
			i.SecurityLevel = -1 // not printed, so it is no setting: a nameif that comes yet brings its own
		}
	})
	n.Objects = copies(c.Objects, func(o *NetworkObject) {
		o.Where = places(o.Where)
		if o.NAT != nil {
			nat := *o.NAT
			nat.Service = copied(nat.Service)
			o.NAT = &nat
		}
	})
	n.ObjectGroups = copies(c.ObjectGroups, func(g *ObjectGroup) { g.Members = slices.Clone(g.Members) })
	n.ServiceGroups = copies(c.ServiceGroups, func(g *ServiceGroup) { g.Members = slices.Clone(g.Members) })
	n.AccessLists = copies(c.AccessLists, func(l *AccessList) { l.Entries = slices.Clone(l.Entries) })
	n.MediaTerminations = copies(c.MediaTerminations, func(m *MediaTermination) { m.Where, m.Addresses = places(m.Where), slices.Clone(m.Addresses) })
	n.Users = copies(c.Users, func(u *User) { u.PublicKeys = slices.Clone(u.PublicKeys) })
	n.Trustpoints = copies(c.Trustpoints, func(t *Trustpoint) { t.Where = places(t.Where) })
	n.CryptoActions = slices.Clone(c.CryptoActions)
	for i := range n.CryptoActions {
		n.CryptoActions[i].PEM = slices.Clone(n.CryptoActions[i].PEM)
	}
	n.TLSProxies = copies(c.TLSProxies, func(t *TLSProxy) {
		t.Where, t.ClientCipherSuites = places(t.Where), slices.Clone(t.ClientCipherSuites)
	})
	n.ClassMaps = copies(c.ClassMaps, func(m *ClassMap) { m.Where = places(m.Where) })
	n.PolicyMaps = copies(c.PolicyMaps, func(m *PolicyMap) {
		m.Classes = copies(m.Classes, func(pc *PolicyClass) { pc.Inspect, pc.DSCP = copied(pc.Inspect), slices.Clone(pc.DSCP) })
	})
	if n.UCIME = copied(c.UCIME); n.UCIME != nil {
		n.UCIME.Where, n.UCIME.UCMs, n.UCIME.Mapping = places(c.UCIME.Where), slices.Clone(c.UCIME.UCMs), copied(c.UCIME.Mapping)
		n.UCIME.Transfers = slices.Clone(c.UCIME.Transfers)
	}
	if n.PeerServer = copied(c.PeerServer); n.PeerServer != nil {
		p := n.PeerServer
		p.Where, p.Bootstraps = places(p.Where), slices.Clone(p.Bootstraps)
		p.VAPServers, p.VAPUsers = copies(p.VAPServers, func(*VAPServer) {}), copies(p.VAPUsers, func(*VAPUser) {})
	}
	return &n
}

// places copies places; a configuration that was not read from a text has none yet.
func places(p Places) Places {
	if p == nil {
		return Places{}
	}
	return maps.Clone(p)
}

// copied copies what stands behind a pointer, unless it is nil.
func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	x := *p
	return &x
}

// copies copies a list; deep copies what an element only points to.
func copies[T any](list []*T, deep func(*T)) []*T {
	if list == nil {
		return nil
	}
	out := make([]*T, len(list))
	for i, p := range list {
		out[i] = copied(p)
		deep(out[i])
	}
	return out
}
