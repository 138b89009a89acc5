package config

// Object finds a network object by its name, or nil.
func (c *Config) Object(name string) *NetworkObject {
	return find(c.Objects, func(o *NetworkObject) bool { return o.Name == name })
}

// AccessList finds an access list by its name, or nil.
func (c *Config) AccessList(name string) *AccessList {
	return find(c.AccessLists, func(l *AccessList) bool { return l.Name == name })
}

// MediaTermination finds a media-termination by its name, or nil.
func (c *Config) MediaTermination(name string) *MediaTermination {
	return find(c.MediaTerminations, func(m *MediaTermination) bool { return m.Name == name })
}

// Trustpoint finds a trustpoint by its name, or nil.
func (c *Config) Trustpoint(name string) *Trustpoint {
	return find(c.Trustpoints, func(t *Trustpoint) bool { return t.Name == name })
}

// TLSProxy finds a tls-proxy by its name, or nil.
func (c *Config) TLSProxy(name string) *TLSProxy {
	return find(c.TLSProxies, func(t *TLSProxy) bool { return t.Name == name })
}

// ClassMap finds a class map by its name, or nil.
func (c *Config) ClassMap(name string) *ClassMap {
	return find(c.ClassMaps, func(m *ClassMap) bool { return m.Name == name })
}

// PolicyMap finds a policy map by its name, or nil.
func (c *Config) PolicyMap(name string) *PolicyMap {
	return find(c.PolicyMaps, func(m *PolicyMap) bool { return m.Name == name })
}

// InterfaceByNameif finds an interface by the name that commands use, or nil.
func (c *Config) InterfaceByNameif(nameif string) *Interface {
	if nameif == "" {
		return nil
	}
	return find(c.Interfaces, func(i *Interface) bool { return i.Nameif == nameif })
}

func find[T any](list []*T, is func(*T) bool) *T {
	for _, x := range list {
		if is(x) {
			return x
		}
	}
	return nil
}

// ServiceGroup finds a group of services by its name, or nil.
func (c *Config) ServiceGroup(name string) *ServiceGroup {
	return find(c.ServiceGroups, func(g *ServiceGroup) bool { return g.Name == name })
}

// ObjectGroup finds a group by its name, or nil.
func (c *Config) ObjectGroup(name string) *ObjectGroup {
	return find(c.ObjectGroups, func(g *ObjectGroup) bool { return g.Name == name })
}
