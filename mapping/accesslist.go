package mapping

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// elementBatch is how many elements of a map go into one message: its attribute's length has 16 bits.
const elementBatch = 256

// accessList is an access list on its way into a chain.
type accessList struct {
	s         ruleSet
	chain     *nftables.Chain
	group     AccessGroup
	permitted match           // what becomes of a permitted packet
	denyFlows int             // that are followed
	denied    *nftables.Chain // logs and drops
	// Chains that follow flows and then permit or drop, made when an entry needs them.
	followPermit, followDeny *nftables.Chain
}

// addAccessRules appends an access list; permitted packets get the verdict, the rest drops and is told to the log in a chain of its
// own, denied. Short lists stand rule by rule; long ones are arranged into verdict maps.
func addAccessRules(s ruleSet, c *nftables.Chain, denied string, g AccessGroup, permitted match, denyFlows int) {
	a := &accessList{s: s, chain: c, group: g, permitted: permitted, denied: s.chain(denied), denyFlows: cmp.Or(denyFlows, MaxFlows)}
	s.logged(a.denied, deniedMark, g.Name, limit(logRate, logBurst))
	s.rule(a.denied, drop())
	for n, l := range g.arranged() {
		a.layer(l, n)
	}
	if len(g.Rules) < shortList {
		for _, r := range g.Rules {
			a.rule(r)
		}
	}
	s.rule(c, jump(a.denied))
}

// rule appends an entry as a rule of its own.
func (a *accessList) rule(r Rule) {
	class := slices.Concat(proto(r.Proto), saddr(r.Src), daddr(r.Dst), sport(r.SrcLo, r.SrcHi), dport(r.DstLo, r.DstHi))
	verdict := match{a.verdict(r)}
	if !r.Permit && !r.Log && r.Quiet {
		verdict = drop()
	}
	a.s.counted(a.chain, r.ID, class, verdict)
}

// layer appends one look-up for all rules of a layer, or these one by one when they are few.
func (a *accessList) layer(l *layer, n int) {
	if len(l.members) < shortLayer {
		for _, m := range l.members {
			a.rule(l.rule(m, a.group.Rules[m.rule]))
		}
		return
	}
	types, look := l.fields()
	keyType := types[0]
	if len(types) > 1 {
		keyType = nftables.MustConcatSetType(types...)
	}
	var elements []nftables.SetElement
	for _, x := range l.members {
		r := a.group.Rules[x.rule]
		if r.ID != "" {
			a.s.tally.loose[counterKey{a.s.table.Name, r.ID}] = true
		}
		elements = append(elements, nftables.SetElement{Key: l.encode(x.tuple), VerdictData: a.verdict(r), Comment: r.ID})
	}
	m := a.s.addSet(&nftables.Set{
		Name: fmt.Sprintf("%s_%d", a.chain.Name, n), IsMap: true, Concatenation: len(types) > 1, Counter: true, KeyType: keyType, DataType: nftables.TypeVerdict,
	}, elements)
	spans := slices.Concat(sport(l.sport.span.Lo, l.sport.span.Hi), dport(l.dport.span.Lo, l.dport.span.Hi))
	a.s.rule(a.chain, proto(l.proto), spans, look,
		match{&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}})
}

// verdict is what an entry says.
func (a *accessList) verdict(r Rule) *expr.Verdict {
	if r.Log && canLog() {
		// A return of the chain must lead to where the list's own would.
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: a.follow(r.Permit).Name}
	}
	switch {
	case r.Permit:
		v := *a.permitted[len(a.permitted)-1].(*expr.Verdict)
		return &v
	case r.Log || r.Quiet:
		return &expr.Verdict{Kind: expr.VerdictDrop}
	}
	return &expr.Verdict{Kind: expr.VerdictJump, Chain: a.denied.Name}
}

// fields are the parts of a layer's keys: their types, and how they are loaded from a packet. Registers of four bytes follow
// each other.
func (l *layer) fields() (types []nftables.SetDatatype, look match) {
	register := func() uint32 {
		if len(types) == 1 {
			return 1
		}
		return uint32(8 + len(types) - 1) // NFT_REG32_00 and on; the first is named 1, as nft does
	}
	field := func(base expr.PayloadBase, offset, size uint32, typ nftables.SetDatatype, mask []byte, whole bool) {
		types = append(types, typ)
		r := register()
		look = append(look, &expr.Payload{DestRegister: r, Base: base, Offset: offset, Len: size})
		if !whole {
			look = append(look, &expr.Bitwise{SourceRegister: r, DestRegister: r, Len: size, Mask: mask, Xor: make([]byte, size)})
		}
	}
	addr := func(offset uint32, bits uint8) {
		if bits > 0 {
			field(expr.PayloadBaseNetworkHeader, offset, 4, nftables.TypeIPAddr, binary.BigEndian.AppendUint32(nil, mask32(bits)), bits == 32)
		}
	}
	port := func(offset uint32, bits uint8) {
		if bits > 0 {
			field(expr.PayloadBaseTransportHeader, offset, 2, nftables.TypeInetService, u16(mask16(bits)), bits == 16)
		}
	}
	addr(saddrOffset, l.src)
	addr(daddrOffset, l.dst)
	port(sportOffset, l.sport.bits)
	port(dportOffset, l.dport.bits)
	return types, look
}

// encode is a key as the kernel has it: each field fills up its register, unless it is alone.
func (l *layer) encode(k tuple) (out []byte) {
	n := 0
	for _, f := range []struct {
		bits uint8
		data []byte
	}{
		{l.src, binary.BigEndian.AppendUint32(nil, k.src)},
		{l.dst, binary.BigEndian.AppendUint32(nil, k.dst)},
		{l.sport.bits, append(u16(k.sport), 0, 0)},
		{l.dport.bits, append(u16(k.dport), 0, 0)},
	} {
		if f.bits > 0 {
			out = append(out, f.data...)
			n++
		}
	}
	if n == 1 && l.src == 0 && l.dst == 0 {
		return out[:2]
	}
	return out
}
