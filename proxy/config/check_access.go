package config

import (
	"fmt"
	"net/netip"
)

func (k *checker) accessLists() {
	for _, l := range k.c.AccessLists {
		for _, e := range l.Entries {
			for _, end := range []Endpoint{e.Src, e.Dst} {
				k.endpoint(e, end)
			}
		}
	}
	for _, g := range k.c.AccessGroups {
		i := k.nameif(g.Pos, g.Interface)
		l := k.c.AccessList(g.ACL)
		if l == nil {
			missing(k, g.Pos, "access-list", g.ACL, k.c.AccessLists, func(l *AccessList) string { return l.Name })
		}
		if l != nil && i != nil {
			k.r.Groups = append(k.r.Groups, ResolvedGroup{Interface: i, Direction: g.Direction, ACL: l.Name, Rules: k.rules(l)})
		}
	}
}

// endpoint reports an object that cannot be followed.
func (k *checker) endpoint(e ACE, end Endpoint) {
	if end.Object == "" {
		return
	}
	switch o := k.c.Object(end.Object); {
	case o == nil:
		missing(k, e.Pos, "object network", end.Object, k.c.Objects, func(o *NetworkObject) string { return o.Name })
	case !o.Prefix.IsValid():
		k.at(e.Pos, end.Object, fmt.Sprintf("object %q has no address", end.Object), "add host or subnet to it").needs = []string{"host", "subnet"}
	}
}

// rules follows the objects of a list; entries that cannot be followed were reported and are left out.
func (k *checker) rules(l *AccessList) []Rule {
	var out []Rule
	for _, e := range l.Entries {
		if e.Remark != "" {
			continue
		}
		src, ok1 := k.prefix(e.Src)
		dst, ok2 := k.prefix(e.Dst)
		if ok1 && ok2 {
			out = append(out, Rule{Pos: e.Pos, Permit: e.Permit, Proto: e.Proto, Src: src, Dst: dst, SrcPorts: e.SrcPorts, DstPorts: e.DstPorts})
		}
	}
	return out
}

func (k *checker) prefix(e Endpoint) (netip.Prefix, bool) {
	switch {
	case e.Any:
		return netip.Prefix{}, true
	case e.Object == "":
		return e.Prefix, e.Prefix.IsValid()
	}
	if o := k.c.Object(e.Object); o != nil && o.Prefix.IsValid() {
		return o.Prefix, true
	}
	return netip.Prefix{}, false
}
