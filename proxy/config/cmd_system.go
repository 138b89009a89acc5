package config

import (
	"fmt"
	"net/netip"
	"slices"
)

func systemCommands(m *mode) {
	m.add("hostname <hostname:HOSTNAME>", "Name of this box",
		func(p *parser, a args) { p.c.Hostname = a.Text("hostname") }, nil)
	m.addNo("hostname [<hostname:HOSTNAME>]", func(p *parser, a args) { p.unset(&p.c.Hostname, a.arg("hostname").Text, a, "hostname") })
	m.add("domain-name <domain:DOMAIN>", "Domain of this box",
		func(p *parser, a args) { p.c.DomainName = a.Text("domain") }, nil)
	m.addNo("domain-name [<domain:DOMAIN>]", func(p *parser, a args) { p.unset(&p.c.DomainName, a.arg("domain").Text, a, "domain") })
	m.add("banner {motd|login|exec} <text:TEXT>", "A line that a shell shows", addBanner, removeBanner)
	m.addNo("banner {motd|login|exec}", removeBanner)
}

func bannerKind(a args) string {
	for _, k := range bannerKinds {
		if a.Has(k) {
			return k
		}
	}
	return ""
}

var bannerKinds = []string{"exec", "login", "motd"} // in the order of an ASA's text

func addBanner(p *parser, a args) {
	if p.room(len(p.c.Banners), "banner lines") {
		p.c.Banners = append(p.c.Banners, Banner{Pos: p.pos(), Kind: bannerKind(a), Text: unquote(a.Text("text"))})
	}
}

func removeBanner(p *parser, a args) {
	kind, text := bannerKind(a), unquote(a.Text("text"))
	before := len(p.c.Banners)
	p.c.Banners = slices.DeleteFunc(p.c.Banners, func(b Banner) bool { return b.Kind == kind && (text == "" || b.Text == text) })
	if len(p.c.Banners) == before && text != "" {
		p.absent(a.arg("text").Col, "banner line")
	}
}

// unset takes back a setting. Without a value, or with the one that is set, it is harmless; a different value is a mistake.
func (p *parser) unset(setting *string, value string, a args, name string) {
	if value != "" && *setting != "" && value != *setting {
		p.fail(a.arg(name).Col, fmt.Sprintf("the %s is not %s", argumentName(name), value), fmt.Sprintf("it is %q", *setting))
		return
	}
	*setting = ""
}

// absent reports a `no` command for something that is not there, which is most probably a mistyped name.
func (p *parser) absent(col int, what string) {
	p.fail(col, "there is no such "+what, "`no` removes what stands before it in the text")
}

func interfaceGlobals(m *mode) {
	m.add("interface <interface:LINK>", "Configure a Linux interface", enterInterface, func(p *parser, a args) {
		before := len(p.c.Interfaces)
		p.c.Interfaces = slices.DeleteFunc(p.c.Interfaces, func(i *Interface) bool { return i.Name == a.Text("interface") })
		if len(p.c.Interfaces) == before {
			p.absent(a.arg("interface").Col, "interface")
		}
	})
	m.add("route <interface:NAMEIF> <network:NET> <mask:MASK> <gateway:HOST> [<metric:1-255>]", "A static route", addRoute, nil)
	m.addNo("route <interface:NAMEIF> <network:NET> <mask:MASK> [<gateway:HOST>] [<metric:1-255>]", removeRoute)
}

func enterInterface(p *parser, a args) {
	name := a.Text("interface")
	p.enter(modes().intf)
	for _, i := range p.c.Interfaces {
		if i.Name == name {
			p.intf = i
			return
		}
	}
	p.intf = &Interface{Pos: p.pos(), Name: name, SecurityLevel: -1, Where: Places{}}
	if p.room(len(p.c.Interfaces), "interfaces") {
		p.c.Interfaces = append(p.c.Interfaces, p.intf)
	}
}

func interfaceCommands(m *mode) {
	m.add("nameif <name:NAMEIF>", "Name that other commands use", func(p *parser, a args) {
		p.intf.Nameif = a.Text("name")
		p.intf.Where["nameif"] = p.pos()
	}, nil)
	m.addNo("nameif [<name:NAMEIF>]", func(p *parser, a args) { p.unset(&p.intf.Nameif, a.Text("name"), a, "name") })
	m.add("security-level <level:0-100>", "How far the network is trusted", func(p *parser, a args) {
		p.intf.SecurityLevel = a.Int("level")
		p.intf.Where["security-level"] = p.pos()
	}, nil)
	m.addNo("security-level [<level:0-100>]", func(p *parser, _ args) {
		p.intf.SecurityLevel = -1
		delete(p.intf.Where, "security-level")
	})
	m.add("ip address <address:ADDRESS> <mask:MASK>", "Address and mask", setAddress, nil)
	m.addNo("ip address [<address:ADDRESS> [<mask:MASK>]]", func(p *parser, a args) {
		if w := a.Text("address"); w != "" && p.intf.Address.IsValid() && p.intf.Address.Addr().String() != w {
			p.fail(a.arg("address").Col, "the interface has another address", "it is "+p.intf.Address.Addr().String())
			return
		}
		p.intf.Address = netip.Prefix{}
	})
	m.add("description <text:TEXT>", "A text for people", func(p *parser, a args) { p.intf.Description = unquote(a.Text("text")) }, nil)
	m.addNo("description [<text:LINE>]", func(p *parser, _ args) { p.intf.Description = "" })
	m.add("shutdown", "Take the interface out of use", func(p *parser, _ args) { p.intf.Shutdown = true },
		func(p *parser, _ args) { p.intf.Shutdown = false })
}

func setAddress(p *parser, a args) {
	address, mask := a.arg("address"), a.arg("mask")
	n, _ := maskBits(mask.Text)
	prefix := netip.PrefixFrom(netip.MustParseAddr(address.Text), n)
	switch err := checkHost(address.Text); {
	case err != nil:
		p.fail(address.Col, "the address of an interface must be that of a host", err.Error())
		return
	case n < 8:
		p.fail(mask.Col, "the mask is too short for an interface", "at least 255.0.0.0 is expected")
		return
	case n < 31 && prefix.Addr() == prefix.Masked().Addr():
		p.fail(address.Col, "the address is that of the network itself", "give the interface an address inside "+prefix.Masked().String())
		return
	case n < 31 && prefix.Addr() == broadcast(prefix):
		p.fail(address.Col, "the address is the broadcast address", "give the interface an address inside "+prefix.Masked().String())
		return
	}
	p.intf.Address = prefix
	p.intf.Where["ip address"] = p.pos()
}

// broadcast is the last address of a prefix.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// network reads an address with its mask. Host bits are a mistake, as on an ASA.
func (p *parser) network(a args, address, mask string) (netip.Prefix, bool) {
	text := a.Text(address)
	if text == "0" {
		text = "0.0.0.0"
	}
	n, _ := maskBits(a.Text(mask))
	prefix := netip.PrefixFrom(netip.MustParseAddr(text), n)
	if prefix != prefix.Masked() {
		p.fail(a.arg(address).Col, "the address and the mask do not fit", fmt.Sprintf("the network with this mask is %s", prefix.Masked().Addr()))
		return netip.Prefix{}, false
	}
	return prefix, true
}

func addRoute(p *parser, a args) {
	dst, ok := p.network(a, "network", "mask")
	if !ok {
		return
	}
	r := Route{Pos: p.pos(), Interface: a.Text("interface"), Dst: dst, Gateway: netip.MustParseAddr(a.Text("gateway")), Metric: max(1, a.Int("metric"))}
	for i, old := range p.c.Routes {
		if old.Interface == r.Interface && old.Dst == r.Dst && old.Gateway == r.Gateway {
			p.c.Routes[i] = r
			return
		}
	}
	if p.room(len(p.c.Routes), "routes") {
		p.c.Routes = append(p.c.Routes, r)
	}
}

func removeRoute(p *parser, a args) {
	dst, ok := p.network(a, "network", "mask")
	if !ok {
		return
	}
	gateway := a.Text("gateway")
	before := len(p.c.Routes)
	p.c.Routes = slices.DeleteFunc(p.c.Routes, func(r Route) bool {
		return r.Interface == a.Text("interface") && r.Dst == dst && (gateway == "" || r.Gateway.String() == gateway)
	})
	if len(p.c.Routes) == before {
		p.absent(p.pos().Col, "route")
	}
}
