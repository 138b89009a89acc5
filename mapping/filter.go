package mapping

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

const icmpUnreachable = 3 // RFC 792

// Echo requests that a lower-security interface may send to the appliance.
const (
	icmpEcho  = 8  // RFC 792
	echoRate  = 20 // a second
	echoBurst = 50
)

// addFilter fills the stateful filter of forwarded packets and of packets to the appliance.
func addFilter(s ruleSet, spec Spec) {
	forward := s.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	input := s.base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	from, to, denials := chainNames("from", spec), chainNames("out", spec), chainNames("denied_out", spec)
	egress := map[string]*nftables.Chain{}
	for _, i := range spec.Interfaces {
		if g, ok := spec.group(i.Link, "out"); ok {
			c := s.chain(to[i.Link])
			addAccessRules(s, c, denials[i.Link], g, back(), spec.DenyFlows)
			egress[i.Link] = c
		}
	}
	for _, i := range spec.Interfaces {
		c := s.chain(from[i.Link])
		addForward(s, c, spec, i, egress)
		s.rule(forward, iif(i.Link), jump(c))
	}
	self := chainNames("self", spec)
	for _, i := range spec.Interfaces {
		if spec.outside(i) {
			c := s.chain(self[i.Link])
			addSelf(s, c, spec, i)
			s.rule(input, iif(i.Link), jump(c))
		}
	}
	addQuiet(s, spec)
}

// addQuiet keeps the kernel from answering for media ports that are free: the last packets of a call that has ended, and
// scans, would make it tell the Internet which ports are in use.
func addQuiet(s ruleSet, spec Spec) {
	if len(spec.Media) == 0 {
		return
	}
	output := s.base("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	for _, m := range spec.Media {
		s.rule(output, hostSaddr(m.Addr), icmpType(icmpUnreachable), drop())
	}
}

// addForward fills the chain of packets that arrive on interface i and are not for the appliance.
func addForward(s ruleSet, c *nftables.Chain, spec Spec, i Interface, egress map[string]*nftables.Chain) {
	// A late packet of a connection that the proxy has closed would leave with its inside address.
	s.rule(c, ctMark(), drop())
	s.rule(c, ctState(established), accept())
	s.rule(c, ctState(invalid), drop())
	s.rule(c, notSYN(), drop())
	for _, o := range spec.Interfaces {
		if o.Level == i.Level && (!spec.SameLevel || o.Link == i.Link) {
			s.rule(c, oif(o.Link), drop())
		}
	}
	addRealGuards(s, c, spec, i)
	for _, o := range spec.Interfaces {
		if out, ok := egress[o.Link]; ok && (o.Level != i.Level || spec.SameLevel && o.Link != i.Link) {
			s.rule(c, oif(o.Link), jump(out))
		}
	}
	if g, ok := spec.group(i.Link, "in"); ok {
		addAccessRules(s, c, chainNames("denied_in", spec)[i.Link], g, accept(), spec.DenyFlows)
		return
	}
	for _, o := range spec.Interfaces {
		if o.Level < i.Level || spec.SameLevel && o.Level == i.Level && o.Link != i.Link {
			s.rule(c, oif(o.Link), accept())
		}
	}
	if spec.outside(i) {
		// Also keeps it from interfaces that are not ours, to which forwarding may not have been on before.
		s.rule(c, drop())
	}
}

// addRealGuards keeps real addresses of translated hosts from being reached as such from the lower level that they are
// translated towards: an ASA drops those packets in its reverse-path check of NAT, whatever the access list permits.
func addRealGuards(s ruleSet, c *nftables.Chain, spec Spec, i Interface) {
	lower := func(mappedLink, realLink string) bool {
		r, ok := spec.link(realLink)
		return ok && i.Link == mappedLink && i.Level < r.Level
	}
	var links []string
	hosts := map[string][]netip.Addr{} // by the link behind which they are
	for _, n := range spec.Statics {
		if lower(n.MappedLink, n.RealLink) && !n.identity() && !slices.Contains(hosts[n.RealLink], n.Real) {
			if hosts[n.RealLink] == nil {
				links = append(links, n.RealLink)
			}
			hosts[n.RealLink] = append(hosts[n.RealLink], n.Real)
		}
	}
	for n, link := range links {
		if len(hosts[link]) <= shortNAT {
			for _, h := range hosts[link] {
				s.rule(c, oif(link), hostDaddr(h), ctNotDNAT(), drop())
			}
			continue
		}
		set := s.hosts(fmt.Sprintf("%s_real_%d", c.Name, n+1), hosts[link])
		s.rule(c, oif(link), inSet(daddrOffset, set), ctNotDNAT(), drop())
	}
	for _, n := range spec.Dynamics {
		if lower(n.MappedLink, n.RealLink) {
			s.rule(c, oif(n.RealLink), daddr(n.Real), ctNotDNAT(), drop())
		}
	}
}

// addSelf fills the chain of packets to the appliance itself from a lower-security interface.
func addSelf(s ruleSet, c *nftables.Chain, spec Spec, i Interface) {
	s.rule(c, metaMark(), accept())
	// Before the established ones: to conntrack, the second request of a ping is part of a standing flow.
	s.rule(c, icmpType(icmpEcho), limit(echoRate, echoBurst), accept())
	s.rule(c, icmpType(icmpEcho), drop())
	s.rule(c, ctState(established), accept())
	for _, m := range spec.mediaOn(i) {
		s.rule(c, hostDaddr(m.Addr), l4proto(unix.IPPROTO_UDP), dport(m.Lo, m.Hi), accept())
	}
	s.rule(c, ctState(invalid), drop())
	for _, o := range spec.Open {
		if o.Link == "" || o.Link == i.Link {
			s.rule(c, proto(o.Proto), saddr(o.Src), hostDaddr(o.Addr), dport(o.Port, max(o.Port, o.PortHi)), accept())
		}
	}
	s.rule(c, drop())
}

// addFilter6 closes the appliance on lower-security interfaces for IPv6, which the configuration does not know: link-local
// addresses exist all the same.
func addFilter6(s ruleSet, spec Spec) {
	input := s.base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	forward := s.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	for _, i := range spec.Interfaces {
		if !spec.outside(i) {
			continue
		}
		link := iif(i.Link)
		s.rule(input, link, ctState(established), accept())
		s.rule(input, link, l4proto(unix.IPPROTO_ICMPV6), accept())
		s.rule(input, link, drop())
		s.rule(forward, link, ctState(established), accept())
		s.rule(forward, link, drop())
	}
}
