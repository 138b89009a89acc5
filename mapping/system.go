package mapping

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// plan compares what the spec wants with what the kernel has and what rec says is ours. add is to be made, drop is ours and
// no longer wanted.
func plan(rec record, spec Spec) (add, drop record, err error) {
	add, drop = record{BootID: rec.BootID, NetNS: rec.NetNS}, record{}
	links := []string{"lo"} // the local route of RouteTable needs it
	for _, i := range spec.Interfaces {
		links = append(links, i.Link)
	}
	for _, name := range links {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return add, drop, fmt.Errorf("interface %s: %w", name, err)
		}
		if l.Attrs().Flags&net.FlagUp == 0 {
			add.Links = append(add.Links, name)
		}
	}
	drop.Links = slices.DeleteFunc(slices.Clone(rec.Links), func(l string) bool { return slices.Contains(links, l) })

	wantAddrs := wantedAddresses(spec)
	for _, a := range wantAddrs {
		there, err := hasAddress(a)
		if err != nil {
			return add, drop, err
		}
		if !there {
			add.Addresses = append(add.Addresses, a)
		}
	}
	drop.Addresses = slices.DeleteFunc(slices.Clone(rec.Addresses), func(a linkAddr) bool { return slices.Contains(wantAddrs, a) })

	for _, r := range spec.Routes {
		there, err := hasRoute(r, rec.Routes)
		if err != nil {
			return add, drop, err
		}
		if !there {
			add.Routes = append(add.Routes, r)
		}
	}
	drop.Routes = slices.DeleteFunc(slices.Clone(rec.Routes), func(r Route) bool { return slices.Contains(spec.Routes, r) })

	rule, local, err := hasMarkRouting()
	add.Rule, add.Local = !rule, !local
	return add, drop, err
}

// wantedAddresses lists interface addresses first, which makes them the primary ones.
func wantedAddresses(spec Spec) []linkAddr {
	var want []linkAddr
	for _, i := range spec.Interfaces {
		if i.Address.IsValid() {
			want = append(want, linkAddr{i.Link, i.Address})
		}
	}
	single := func(link string, a netip.Addr) {
		has := func(w linkAddr) bool { return w.Link == link && w.Prefix.Addr() == a }
		if a.IsValid() && !slices.ContainsFunc(want, has) {
			want = append(want, linkAddr{link, hostPrefix(a)})
		}
	}
	for _, a := range spec.Addresses {
		single(a.Link, a.Addr)
	}
	for _, n := range spec.Statics {
		if !n.identity() {
			single(n.MappedLink, n.Mapped)
		}
	}
	for _, n := range spec.Dynamics {
		single(n.MappedLink, n.Mapped)
	}
	return want
}

// hasAddress tells whether the link has the address. A single address may stand with any prefix length.
func hasAddress(a linkAddr) (bool, error) {
	link, err := netlink.LinkByName(a.Link)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", a.Link, err)
	}
	addrs, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return false, fmt.Errorf("addresses of %s: %w", a.Link, err)
	}
	return slices.ContainsFunc(addrs, func(x netlink.Addr) bool {
		bits, _ := x.Mask.Size()
		return x.IP.Equal(a.Prefix.Addr().AsSlice()) && (a.Prefix.IsSingleIP() || bits == a.Prefix.Bits())
	}), nil
}

// retry repeats a dump that a concurrent change has interrupted.
func retry[T any](dump func() (T, error)) (v T, err error) {
	for range 5 {
		if v, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
	return v, err
}

// hasRoute tells whether the main table has the route. A route of someone else to the same network over another gateway is
// an error: ours would have no effect.
func hasRoute(r Route, ours []Route) (bool, error) {
	link, err := netlink.LinkByName(r.Link)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", r.Link, err)
	}
	routes, err := retry(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, fmt.Errorf("routes: %w", err)
	}
	replaces := slices.ContainsFunc(ours, func(o Route) bool { return o.Dst == r.Dst && o.Priority == r.Priority })
	for _, x := range routes {
		if routeDst(x) != r.Dst || x.Priority != r.Priority {
			continue
		}
		gw, _ := netip.AddrFromSlice(x.Gw)
		if x.LinkIndex == link.Attrs().Index && gw.Unmap() == r.Gateway {
			return true, nil
		}
		if !replaces {
			return false, fmt.Errorf("route %v: the system has another one already (%v)", r.Dst, x)
		}
	}
	return false, nil
}

func routeDst(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// hasMarkRouting tells whether the rule for Mark and the local route of RouteTable are there.
func hasMarkRouting() (rule, local bool, err error) {
	rules, err := retry(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return false, false, fmt.Errorf("routing rules: %w", err)
	}
	rule = slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Mark == Mark && r.Table == RouteTable })
	routes, err := retry(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: RouteTable}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, false, fmt.Errorf("routes of table %d: %w", RouteTable, err)
	}
	local = slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Type == unix.RTN_LOCAL && routeDst(r).Bits() == 0 })
	return rule, local, nil
}

func markRule() *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Mark, r.Table = netlink.FAMILY_V4, Mark, RouteTable
	return r
}

func localRoute() (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("interface lo: %w", err)
	}
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index, Table: RouteTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
	}, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func kernelRoute(r Route) (*netlink.Route, error) {
	link, err := netlink.LinkByName(r.Link)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", r.Link, err)
	}
	kr := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.Dst), Protocol: unix.RTPROT_STATIC, Scope: netlink.SCOPE_LINK, Priority: r.Priority}
	if r.Gateway.IsValid() {
		kr.Gw, kr.Scope = r.Gateway.AsSlice(), netlink.SCOPE_UNIVERSE
	}
	return kr, nil
}

// perform adds what the record lists; what is there already is no error.
func perform(add record) error {
	for _, name := range add.Links {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("set up %s: %w", name, err)
		}
	}
	for _, a := range add.Addresses {
		link, err := netlink.LinkByName(a.Link)
		if err == nil {
			err = netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a.Prefix)})
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %v to %s: %w", a.Prefix, a.Link, err)
		}
	}
	for _, r := range add.Routes {
		kr, err := kernelRoute(r)
		if err == nil {
			// plan has refused routes of others; what may be there is our own older one.
			err = netlink.RouteReplace(kr)
		}
		if err != nil {
			return fmt.Errorf("add route %v: %w", r.Dst, err)
		}
	}
	if add.Local {
		r, err := localRoute()
		if err == nil {
			err = netlink.RouteAdd(r)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add local route of table %d: %w", RouteTable, err)
		}
	}
	// The kernel takes the same rule twice.
	if there, _, _ := hasMarkRouting(); add.Rule && !there {
		if err := netlink.RuleAdd(markRule()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add routing rule: %w", err)
		}
	}
	return nil
}

// withdraw removes what the record lists, in the opposite order; what is gone already is no error. It goes on after an error.
func withdraw(drop record) error {
	var errs []error
	note := func(what string, err error) {
		var gone netlink.LinkNotFoundError
		if err != nil && !errors.As(err, &gone) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) &&
			!errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove %s: %w", what, err))
		}
	}
	if drop.Rule {
		note("routing rule", netlink.RuleDel(markRule()))
	}
	if drop.Local {
		r, err := localRoute()
		if err == nil {
			err = netlink.RouteDel(r)
		}
		note("local route", err)
	}
	for _, r := range slices.Backward(drop.Routes) {
		kr, err := kernelRoute(r)
		if err == nil {
			err = netlink.RouteDel(kr)
		}
		note("route "+r.Dst.String(), err)
	}
	for _, a := range slices.Backward(drop.Addresses) {
		link, err := netlink.LinkByName(a.Link)
		if err == nil {
			err = netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(a.Prefix)})
		}
		note("address "+a.Prefix.String(), err)
	}
	for _, name := range slices.Backward(drop.Links) {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetDown(link)
		}
		note("link state of "+name, err)
	}
	return errors.Join(errs...)
}
