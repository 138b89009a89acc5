package mapping

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A match is a piece of a rule. The functions of this file each give the piece that nft would make of the same words, so that
// `nft list ruleset` prints them back.
type match []expr.Any

// ruleSet collects one table of a batch.
type ruleSet struct {
	conn  *nftables.Conn
	table *nftables.Table
	tally *tally
	sets  *uint32 // the number of the last set, which the batch knows it by
	// standing is what the table had before, made are the chains that it is given now; nil in a table that is replaced whole.
	standing *standing
	made     map[string]bool
	kept     map[string]bool // sets that it had and goes on with
}

// replaceTable empties the table within the batch: the kernel sees old and new rules, never none.
func replaceTable(conn *nftables.Conn, family nftables.TableFamily, name string) ruleSet {
	t := &nftables.Table{Family: family, Name: name}
	conn.AddTable(t)
	conn.DelTable(t)
	return ruleSet{conn: conn, table: conn.AddTable(t), tally: newTally(nil), sets: setNumbers(name)}
}

// setNumbers gives each table numbers of its own for its sets. The library would take them from a counter that several connections
// share without a lock.
func setNumbers(table string) *uint32 {
	n := uint32(1000)
	if table == TableNAT {
		n = 1 << 30
	}
	return &n
}

// addSet adds a set or a map with its elements; these are values that can be encoded, which is all that the library's errors are about.
func (s ruleSet) addSet(set *nftables.Set, elements []nftables.SetElement) *nftables.Set {
	*s.sets++
	set.ID, set.Table, set.Size, set.Name = *s.sets, s.table, uint32(len(elements)), s.free(set.Name)
	_ = s.conn.AddSet(set, nil)
	for some := range slices.Chunk(elements, elementBatch) {
		_ = s.conn.SetAddElements(set, some)
	}
	return set
}

func (s ruleSet) base(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	s.make(name)
	return s.conn.AddChain(&nftables.Chain{Name: name, Table: s.table, Type: typ, Hooknum: hook, Priority: prio, Policy: &accept})
}

// ingress is a base chain of a link in a table of family netdev.
func (s ruleSet) ingress(name, link string) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return s.conn.AddChain(&nftables.Chain{
		Name: name, Table: s.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
		Policy: &accept, Device: link,
	})
}

func (s ruleSet) chain(name string) *nftables.Chain {
	s.make(name)
	return s.conn.AddChain(&nftables.Chain{Name: name, Table: s.table})
}

func (s ruleSet) make(chain string) {
	if s.made != nil {
		s.made[chain] = true
	}
}

func (s ruleSet) rule(c *nftables.Chain, parts ...match) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	s.conn.AddRule(&nftables.Rule{Table: s.table, Chain: c, Exprs: all})
}

// hosts is a set of addresses.
func (s ruleSet) hosts(name string, all []netip.Addr) *nftables.Set {
	var elements []nftables.SetElement
	for _, a := range all {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	return s.addSet(&nftables.Set{Name: name, KeyType: nftables.TypeIPAddr}, elements)
}

// inSet matches packets whose address is in a set.
func inSet(offset uint32, set *nftables.Set) match {
	return match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}

func u16(v uint16) []byte  { return binary.BigEndian.AppendUint16(nil, v) }
func host(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func eq(data []byte) expr.Any  { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
func neq(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data} }

// masked keeps the bits of register 1 that are set in mask.
func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

func ifname(key expr.MetaKey, link string) match {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return match{&expr.Meta{Key: key, Register: 1}, eq(name)}
}

func iif(link string) match { return ifname(expr.MetaKeyIIFNAME, link) }
func oif(link string) match { return ifname(expr.MetaKeyOIFNAME, link) }

func l4proto(p byte) match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, eq([]byte{p})}
}

// etherIP matches frames with an IPv4 packet; the type of one with a VLAN tag is that of the tag.
func etherIP() match {
	return match{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 12, Len: 2}, eq(u16(unix.ETH_P_IP))}
}

// protocolIP is what nft wants before matches of IP headers where there are other packets as well.
func protocolIP() match {
	return match{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, eq(u16(unix.ETH_P_IP))}
}

// toUs matches frames that are addressed to this host.
func toUs() match {
	return match{&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: 1}, eq([]byte{unix.PACKET_HOST})}
}

// unfragmented matches whole IPv4 packets: neither more fragments nor an offset.
func unfragmented() match {
	return match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2}, masked(u16(0x3fff)), eq(u16(0)),
	}
}

var protoNumber = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP}

// proto is empty for "ip".
func proto(name string) match {
	n, ok := protoNumber[name]
	if !ok {
		return nil
	}
	return l4proto(n)
}

const (
	saddrOffset = 12
	daddrOffset = 16
	sportOffset = 0
	dportOffset = 2
)

// prefix is empty for the zero prefix and 0.0.0.0/0.
func prefix(offset uint32, p netip.Prefix) match {
	if !p.IsValid() || p.Bits() == 0 {
		return nil
	}
	a := p.Masked().Addr().As4()
	m := match{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}}
	if p.Bits() < 32 {
		m = append(m, masked(binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))))
	}
	return append(m, eq(a[:]))
}

func saddr(p netip.Prefix) match   { return prefix(saddrOffset, p) }
func daddr(p netip.Prefix) match   { return prefix(daddrOffset, p) }
func hostSaddr(a netip.Addr) match { return prefix(saddrOffset, hostPrefix(a)) }
func hostDaddr(a netip.Addr) match { return prefix(daddrOffset, hostPrefix(a)) }
func sport(lo, hi uint16) match    { return ports(sportOffset, lo, hi) }
func dport(lo, hi uint16) match    { return ports(dportOffset, lo, hi) }
func hostPrefix(a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// ports is empty for 0,0 (any) and must stand behind a match of the protocol.
func ports(offset uint32, lo, hi uint16) match {
	if lo == 0 && (hi == 0 || hi == 65535) {
		return nil
	}
	m := match{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}}
	if lo == hi {
		return append(m, eq(u16(lo)))
	}
	return append(m, &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: u16(lo), ToData: u16(hi)})
}

// dportBits matches some bits of the destination port; it is empty for none, and must stand behind a match of the protocol.
func dportBits(mask, want uint16) match {
	if mask == 0 {
		return nil
	}
	return match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: dportOffset, Len: 2}, masked(u16(mask)), eq(u16(want)),
	}
}

func icmpType(t byte) match {
	return append(l4proto(unix.IPPROTO_ICMP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, eq([]byte{t}))
}

const flagsOffset, finSynRstAck, syn = 13, 0x17, 0x02

// notSYN matches TCP segments that do not open a connection.
func notSYN() match {
	return append(l4proto(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		masked([]byte{finSynRstAck}), neq([]byte{syn}))
}

// isSYN matches those that do; the protocol must have been matched before.
func isSYN() match {
	return match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		masked([]byte{finSynRstAck}), eq([]byte{syn}),
	}
}

func ctState(bits uint32) match {
	return match{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, masked(host(bits)), neq(host(0))}
}

func ctReply() match {
	return match{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, eq([]byte{1})}
}

// ctNotDNAT matches connections whose destination was not translated.
func ctNotDNAT() match {
	const ipsDstNAT = 1 << 5
	return match{&expr.Ct{Key: expr.CtKeySTATUS, Register: 1}, masked(host(ipsDstNAT)), eq(host(0))}
}

func ctMark() match   { return match{&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, eq(host(Mark))} }
func metaMark() match { return match{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, eq(host(Mark))} }

func setCtMark() match {
	return match{&expr.Immediate{Register: 1, Data: host(Mark)}, &expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true}}
}

func setMetaMark() match {
	return match{&expr.Immediate{Register: 1, Data: host(Mark)}, &expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}}
}

// socketTransparent matches packets of an IP_TRANSPARENT socket that has an address of its own: a transparent listener on
// 0.0.0.0 would take packets past the rules.
func socketTransparent() match {
	return match{
		&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1}, eq([]byte{1}),
		&expr.Socket{Key: expr.SocketKeyWildcard, Register: 1}, eq([]byte{0}),
	}
}

func fibNotLocal(f expr.Fib) match {
	f.Register, f.ResultADDRTYPE = 1, true
	return match{&f, neq(host(unix.RTN_LOCAL))}
}

func daddrNotLocal() match { return fibNotLocal(expr.Fib{FlagDADDR: true}) }
func saddrNotLocal() match { return fibNotLocal(expr.Fib{FlagSADDR: true}) }

func tproxy(port uint16) match {
	return match{
		&expr.Immediate{Register: 1, Data: []byte{127, 0, 0, 1}},
		&expr.Immediate{Register: 2, Data: u16(port)},
		&expr.TProxy{Family: unix.NFPROTO_IPV4, TableFamily: unix.NFPROTO_IPV4, RegAddr: 1, RegPort: 2},
	}
}

func translate(typ expr.NATType, to netip.Addr, port uint16) match {
	a := to.As4()
	m := match{&expr.Immediate{Register: 1, Data: a[:]}}
	nat := &expr.NAT{Type: typ, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}
	if port != 0 {
		m = append(m, &expr.Immediate{Register: 2, Data: u16(port)})
		nat.RegProtoMin, nat.Specified = 2, true
	}
	return append(m, nat)
}

func limit(perSecond uint64, burst uint32) match {
	return match{&expr.Limit{Type: expr.LimitTypePkts, Rate: perSecond, Unit: expr.LimitTimeSecond, Burst: burst}}
}

func accept() match  { return match{&expr.Verdict{Kind: expr.VerdictAccept}} }
func back() match    { return match{&expr.Verdict{Kind: expr.VerdictReturn}} }
func notrack() match { return match{&expr.Notrack{}} }

// drop counts, so that an operator sees in the listing what was refused where.
func drop() match { return match{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }

func jump(c *nftables.Chain) match {
	return match{&expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}}
}
