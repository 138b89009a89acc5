package config

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"imeproxy/proxy/config/keyword"
)

// checker gathers what is wrong between commands while it follows their names.
type checker struct {
	c     *Config
	r     *Resolved
	found Diagnostics
	// natFailed says that a translation could not be followed, so that a missing one is no news.
	natFailed bool
}

// at builds a diagnostic that points at a word of the line of pos, or at the command when the line does not hold it.
func (k *checker) at(pos Pos, word, message, hint string) *Diagnostic {
	d := Diagnostic{File: k.c.file, Line: pos.Line, Col: pos.Col, Severity: Error, Message: message, Hint: hint}
	if pos.Line > 0 && pos.Line <= len(k.c.source) {
		d.Source = k.c.source[pos.Line-1]
		words := keyword.Split(d.Source)
		d.Col = columnOf(words, word, pos.Col)
	}
	k.found = append(k.found, d)
	return &k.found[len(k.found)-1]
}

// columnOf finds a word of a line. The last such word is meant: references stand behind keywords, and a name may be spelled like
// one. A name may also be part of a word, as in (inside,outside).
func columnOf(words []keyword.Word, word string, otherwise int) int {
	if word == "" {
		return otherwise
	}
	for _, fits := range []func(string) bool{
		func(w string) bool { return w == word },
		func(w string) bool { return w[0] == '(' && strings.Contains(w, word) },
	} {
		for i := len(words) - 1; i >= 0; i-- {
			if fits(words[i].Text) {
				return words[i].Col
			}
		}
	}
	return otherwise
}

func (k *checker) fail(pos Pos, word, message, hint string) { k.at(pos, word, message, hint) }

func (k *checker) warn(pos Pos, word, message, hint string) {
	k.at(pos, word, message, hint).Severity = Warning
}

// missing reports a reference to something that does not exist, with the name that was probably meant.
func missing[T any](k *checker, pos Pos, what, name string, all []T, nameOf func(T) string) {
	best, distance := "", 3
	for _, x := range all {
		n := nameOf(x)
		if len(n) > 64 || len(name) > 64 {
			continue
		}
		if d := near(name, n); n != "" && d < distance {
			best, distance = n, d
		}
	}
	hint := fmt.Sprintf("define it by %s %s", what, name)
	if what == "nameif" {
		hint = fmt.Sprintf("give it to an interface by nameif %s", name)
	}
	if best != "" {
		hint = fmt.Sprintf("did you mean %q? %s", best, hint)
	}
	label := what
	if what == "nameif" {
		label = "interface"
	}
	k.at(pos, name, fmt.Sprintf("%s %q does not exist", label, clip(name)), hint).needs = []string{name}
}

// clip keeps a message short when a name is long.
func clip(s string) string {
	if utf8.RuneCountInString(s) > 80 {
		return string([]rune(s)[:80]) + "..."
	}
	return s
}

// place is where a setting of an object stands, or the object itself.
func place(where Places, setting string, object Pos) Pos {
	if p, ok := where[setting]; ok {
		return p
	}
	return object
}

// nameif follows the name of an interface.
func (k *checker) nameif(pos Pos, name string) *Interface {
	i := k.c.InterfaceByNameif(name)
	if i == nil {
		missing(k, pos, "nameif", name, k.c.Interfaces, func(i *Interface) string { return i.Nameif })
	}
	return i
}

func (k *checker) interfaces() {
	names := map[string]*Interface{}
	for n, i := range k.c.Interfaces {
		if i.Nameif == "" {
			if i.Address.IsValid() || i.SecurityLevel > 0 {
				k.at(i.Pos, i.Name, fmt.Sprintf("interface %s has an address or a security level but no nameif, so nothing can use it", i.Name),
					"add nameif").needs = []string{"nameif"}
			}
		} else if old := names[i.Nameif]; old != nil {
			k.fail(place(i.Where, "nameif", i.Pos), i.Nameif, fmt.Sprintf("nameif %q is given twice", i.Nameif), fmt.Sprintf("line %d gives it to %s", old.Line, old.Name))
		} else {
			names[i.Nameif] = i
		}
		for _, old := range k.c.Interfaces[:n] {
			if i.Address.IsValid() && old.Address.IsValid() && i.Address.Masked().Overlaps(old.Address.Masked()) {
				k.fail(place(i.Where, "ip address", i.Pos), i.Address.Addr().String(),
					fmt.Sprintf("the subnet %s overlaps %s of interface %s", i.Address.Masked(), old.Address.Masked(), old.Name),
					"each interface has a subnet of its own")
			}
		}
	}
}

func (k *checker) routes() {
	for n, r := range k.c.Routes {
		i := k.nameif(r.Pos, r.Interface)
		if i == nil {
			continue
		}
		gateway := r.Gateway.String()
		switch {
		case !i.Address.IsValid():
			k.at(r.Pos, r.Interface, fmt.Sprintf("interface %s has no address", r.Interface), "add ip address to it").needs = []string{"ip"}
		case !i.Address.Masked().Contains(r.Gateway):
			k.fail(r.Pos, gateway, fmt.Sprintf("the gateway is not in the subnet of interface %s", r.Interface), "an address in "+i.Address.Masked().String()+" is expected")
		case i.Address.Addr() == r.Gateway:
			k.fail(r.Pos, gateway, "the gateway is this box itself", "the address of the next router is expected")
		}
		for _, old := range k.c.Routes[:n] {
			if old.Dst == r.Dst && old.Metric == r.Metric {
				k.fail(r.Pos, r.Dst.Addr().String(), fmt.Sprintf("there are two routes to %s with one metric", r.Dst), fmt.Sprintf("line %d has the other; give one of them another metric", old.Line))
			}
		}
		k.r.Routes = append(k.r.Routes, ResolvedRoute{Route: r, On: i})
	}
}

// interfaceOf is the interface that packets to an address leave by: a subnet, else the longest route.
func (k *checker) interfaceOf(a netip.Addr) *Interface {
	for _, i := range k.c.Interfaces {
		if i.Nameif != "" && i.Address.IsValid() && i.Address.Masked().Contains(a) {
			return i
		}
	}
	best, bits, metric := (*Interface)(nil), -1, 0
	for _, r := range k.c.Routes {
		if r.Dst.Contains(a) && (r.Dst.Bits() > bits || (r.Dst.Bits() == bits && r.Metric < metric)) {
			if i := k.c.InterfaceByNameif(r.Interface); i != nil {
				best, bits, metric = i, r.Dst.Bits(), r.Metric
			}
		}
	}
	return best
}

// ownAddress is the interface whose own address this is, or nil.
func (k *checker) ownAddress(a netip.Addr) *Interface {
	return find(k.c.Interfaces, func(i *Interface) bool { return i.Address.IsValid() && i.Address.Addr() == a })
}

func (k *checker) translations() {
	for _, o := range k.c.Objects {
		if o.NAT != nil {
			before := len(k.found)
			k.translation(o)
			k.natFailed = k.natFailed || len(k.found) > before
		}
	}
	for i, s := range k.r.Statics {
		for _, old := range k.r.Statics[:i] {
			clash := old.RealPort == 0 || s.RealPort == 0 || (old.MappedPort == s.MappedPort && old.Proto == s.Proto)
			if old.MappedAddr == s.MappedAddr && clash {
				o := k.objectOf(s)
				k.fail(o.NAT.Pos, "", fmt.Sprintf("the mapped address %s is used twice", s.MappedAddr), fmt.Sprintf("object %s is mapped to it already", k.objectOf(old).Name))
			}
		}
		for _, d := range k.r.Dynamics {
			if s.RealPort == 0 && d.MappedAddr == s.MappedAddr {
				o := k.objectOf(s)
				k.fail(o.NAT.Pos, "", fmt.Sprintf("the mapped address %s is used twice", s.MappedAddr), "a dynamic translation hides a network behind it")
			}
		}
	}
}

// objectOf is the object that a static translation belongs to.
func (k *checker) objectOf(s StaticTranslation) *NetworkObject {
	for _, o := range k.c.Objects {
		if n := o.NAT; n != nil && !n.Dynamic && o.number(s.RealAddr) >= 0 && k.mappedTo(o, n, o.number(s.RealAddr)) == s.MappedAddr &&
			(n.Service == nil) == (s.RealPort == 0) && (n.Service == nil || (n.Service.RealPort == s.RealPort && n.Service.MappedPort == s.MappedPort && n.Service.Proto == s.Proto)) {
			return o
		}
	}
	return &NetworkObject{NAT: &NAT{}}
}

// mappedAddr follows the mapped object of a translation; zero when it has no host address.
func (k *checker) mappedAddr(n *NAT) netip.Addr {
	if n.MappedObject == "" {
		return n.MappedAddr
	}
	if o := k.c.Object(n.MappedObject); o != nil && o.size() == 1 {
		first, _ := o.ends()
		return first
	}
	return netip.Addr{}
}

// maxStatic bounds the addresses of one static translation: each of the mapped ones is an address of the appliance.
const maxStatic = 256

// mappedTo is the mapped address of the nth address of an object: of an object of as many, or that far behind the one that is named.
func (k *checker) mappedTo(o *NetworkObject, n *NAT, number int) netip.Addr {
	first := k.mappedAddr(n)
	if to := k.c.Object(n.MappedObject); to != nil && to.size() > 1 {
		first, _ = to.ends()
	}
	if !first.IsValid() {
		return first
	}
	return plus(first, number)
}

// statics translates each address of an object, in its order.
func (k *checker) statics(o *NetworkObject, n *NAT, from, to *Interface) {
	first, _ := o.ends()
	for i := range o.size() {
		mapped := k.mappedTo(o, n, i)
		if own := k.ownAddress(mapped); own != nil {
			k.fail(n.Pos, "static", fmt.Sprintf("the mapped address %s is that of interface %s itself", mapped, own.Name), "an unused address is expected for each real one")
			return
		}
		k.r.Statics = append(k.r.Statics, StaticTranslation{Real: from, Mapped: to, RealAddr: plus(first, i), MappedAddr: mapped})
	}
}

func (k *checker) translation(o *NetworkObject) {
	n := o.NAT
	from, to := k.nameif(n.Pos, n.Real), k.nameif(n.Pos, n.Mapped)
	mapped := k.mappedAddr(n)
	word := n.MappedObject
	if word == "" && mapped.IsValid() {
		word = mapped.String()
	}
	switch {
	case n.MappedObject != "" && k.c.Object(n.MappedObject) == nil:
		missing(k, n.Pos, "object network", n.MappedObject, k.c.Objects, func(o *NetworkObject) string { return o.Name })
		return
	case !n.MappedInterface && !mapped.IsValid() && (n.Dynamic || k.c.Object(n.MappedObject).size() == 0):
		d := k.at(n.Pos, word, fmt.Sprintf("the mapped object %q is not one host", n.MappedObject), "give it an address by host")
		if !k.c.Object(n.MappedObject).Prefix.IsValid() {
			d.needs = []string{"host"}
		}
		return
	case len(o.Prefixes()) == 0:
		k.at(n.Pos, "", fmt.Sprintf("object %q has no address to translate", o.Name), "add host, subnet or range to it").needs = []string{"host", "subnet", "range"}
		return
	case !n.Dynamic && o.size() > maxStatic:
		k.fail(n.Pos, "static", fmt.Sprintf("object %q has %d addresses", o.Name, o.size()), fmt.Sprintf("a static translation is of %d at most: make several objects, or use dynamic", maxStatic))
		return
	case !n.Dynamic && n.Service != nil && o.size() > 1:
		k.fail(n.Pos, "service", fmt.Sprintf("object %q is more than a host; a port is translated of one host", o.Name), "make an object for each host")
		return
	case !n.Dynamic && n.MappedObject != "" && k.c.Object(n.MappedObject).size() != 1 && k.c.Object(n.MappedObject).size() != o.size():
		k.fail(n.Pos, word, fmt.Sprintf("object %q has %d addresses, the mapped object %q has %d", o.Name, o.size(), n.MappedObject, k.c.Object(n.MappedObject).size()), "a static translation wants one mapped address for each real one")
		return
	case from == nil || to == nil:
		return
	}
	if !n.Dynamic && o.size() > 1 {
		k.statics(o, n, from, to)
		return
	}
	if own := k.ownAddress(mapped); own != nil && (!n.Dynamic || own != to) {
		k.fail(n.Pos, word, fmt.Sprintf("the mapped address %s is that of interface %s itself", mapped, own.Name), "an unused address is expected")
		return
	}
	if n.Dynamic {
		for _, p := range o.Prefixes() {
			k.r.Dynamics = append(k.r.Dynamics, DynamicTranslation{Real: from, Mapped: to, RealPrefix: p, MappedAddr: mapped})
		}
		return
	}
	s := StaticTranslation{Real: from, Mapped: to, RealAddr: o.Prefix.Addr(), MappedAddr: mapped}
	if n.Service != nil {
		s.Proto, s.RealPort, s.MappedPort = n.Service.Proto, n.Service.RealPort, n.Service.MappedPort
	}
	k.r.Statics = append(k.r.Statics, s)
}
