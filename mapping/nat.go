package mapping

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// shortNAT is the number of static translations of one kind between two interfaces up to which each is a rule of its own; more
// are one look-up in a map.
const shortNAT = 8

// addNAT fills the table that translates forwarded connections. Every rule names both interfaces, as `nat (real,mapped)` does,
// and the proxy's own packets match none.
func addNAT(s ruleSet, spec Spec) {
	pre := s.base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	post := s.base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	s.rule(pre, metaMark(), accept())
	var done []natKind
	all := sortedStatics(spec.Statics)
	for _, n := range all {
		kind := n.kind()
		if slices.Contains(done, kind) {
			continue
		}
		same := slices.DeleteFunc(slices.Clone(all), func(o StaticNAT) bool { return o.kind() != kind })
		if kind.identity || len(same) <= shortNAT {
			addStatic(s, pre, post, n)
			continue
		}
		// No two have the same mapped or the same real address and port, and those of whole addresses come last: the order of
		// the list is kept by the order of the kinds.
		done = append(done, kind)
		for _, p := range kind.protos() {
			addStatics(s, pre, post, kind, p, same, len(done))
		}
	}
	for _, n := range sortedDynamics(spec.Dynamics) {
		out := slices.Concat(iif(n.RealLink), oif(n.MappedLink), saddr(n.Real))
		if n.Mapped.IsValid() {
			s.rule(post, out, translate(expr.NATTypeSourceNAT, n.Mapped, 0))
		} else {
			s.rule(post, out, match{&expr.Masq{}})
		}
	}
}

// natKind is what static translations that go into one map have in common.
type natKind struct {
	real, mapped, proto string
	whole, identity     bool
}

func (n StaticNAT) kind() natKind {
	return natKind{n.RealLink, n.MappedLink, n.Proto, n.whole(), n.identity()}
}

func (k natKind) protos() []string {
	switch {
	case k.whole:
		return []string{""}
	case k.proto == "":
		return []string{"tcp", "udp"}
	}
	return []string{k.proto}
}

// addStatic translates one host or port by rules of its own.
func addStatic(s ruleSet, pre, post *nftables.Chain, n StaticNAT) {
	out := slices.Concat(iif(n.RealLink), oif(n.MappedLink), hostSaddr(n.Real))
	if n.identity() {
		s.rule(post, out, accept())
		return
	}
	if n.whole() {
		s.rule(pre, iif(n.MappedLink), hostDaddr(n.Mapped), translate(expr.NATTypeDestNAT, n.Real, 0))
		s.rule(post, out, translate(expr.NATTypeSourceNAT, n.Mapped, 0))
		return
	}
	for _, p := range n.protos() {
		s.rule(pre, iif(n.MappedLink), hostDaddr(n.Mapped), proto(p), dport(n.MappedPort, n.MappedPort),
			translate(expr.NATTypeDestNAT, n.Real, n.RealPort))
		s.rule(post, out, proto(p), sport(n.RealPort, n.RealPort), translate(expr.NATTypeSourceNAT, n.Mapped, n.MappedPort))
	}
}

// addStatics translates many of one kind by one look-up each way.
func addStatics(s ruleSet, pre, post *nftables.Chain, kind natKind, p string, all []StaticNAT, number int) {
	typ := nftables.TypeIPAddr
	if !kind.whole {
		typ = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	}
	make := func(chain *nftables.Chain, from, to func(StaticNAT) (netip.Addr, uint16)) *nftables.Set {
		var elements []nftables.SetElement
		for _, n := range all {
			elements = append(elements, nftables.SetElement{Key: kind.endpoint(from(n)), Val: kind.endpoint(to(n))})
		}
		return s.addSet(&nftables.Set{
			Name: fmt.Sprintf("%s_%d%s", chain.Name, number, p), IsMap: true, Concatenation: !kind.whole, KeyType: typ, DataType: typ,
		}, elements)
	}
	real := func(n StaticNAT) (netip.Addr, uint16) { return n.Real, n.RealPort }
	mapped := func(n StaticNAT) (netip.Addr, uint16) { return n.Mapped, n.MappedPort }
	in, out := make(pre, mapped, real), make(post, real, mapped)
	s.rule(pre, iif(kind.mapped), kind.lookup(p, daddrOffset, dportOffset, in), kind.translate(expr.NATTypeDestNAT))
	s.rule(post, iif(kind.real), oif(kind.mapped), kind.lookup(p, saddrOffset, sportOffset, out), kind.translate(expr.NATTypeSourceNAT))
}

// endpoint is a key or value of a map as the kernel has it.
func (k natKind) endpoint(a netip.Addr, port uint16) []byte {
	b := a.As4()
	if k.whole {
		return b[:]
	}
	return append(append(b[:], u16(port)...), 0, 0)
}

// lookup finds the translation of an end of the packet, or ends the rule.
func (k natKind) lookup(p string, addr, port uint32, m *nftables.Set) match {
	out := slices.Concat(proto(p), match{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: 4}})
	if !k.whole {
		out = append(out, &expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2})
	}
	return append(out, &expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: m.Name, SetID: m.ID})
}

// translate uses what lookup has found.
func (k natKind) translate(typ expr.NATType) match {
	nat := &expr.NAT{Type: typ, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}
	if !k.whole {
		nat.RegProtoMin, nat.Specified = 9, true
	}
	return match{nat}
}
