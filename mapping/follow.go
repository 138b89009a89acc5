package mapping

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Entries that say log are told by flow, as an ASA does: the first packet at once, the others by their number now and then. The kernel counts them, in
// sets that packets themselves fill: a flow's first packet makes an element and goes to the log, each later one finds the element and adds one to its
// counter. So a flood costs a look-up a packet and the daemon nothing, and a full set leaves the rest of it uncounted by flow.

// MaxFlows bounds the flows that are followed at once of one access group, one protocol and one action.
const MaxFlows = 4096

// What Hits counts of packets whose flows found no room.
const (
	IDDenyFull   = "denied flows not followed"
	IDPermitFull = "permitted flows not followed"
)

// flowKind is a protocol with the fields that make a flow of it, besides both addresses.
type flowKind struct {
	name  string // of the protocol; "" is any other one
	types []nftables.SetDatatype
	look  []expr.Any // into registers 10 and 11
}

var flowKinds = []flowKind{
	{"tcp", []nftables.SetDatatype{nftables.TypeInetService, nftables.TypeInetService}, transportFields(2)},
	{"udp", []nftables.SetDatatype{nftables.TypeInetService, nftables.TypeInetService}, transportFields(2)},
	{"icmp", []nftables.SetDatatype{nftables.TypeICMPType, nftables.TypeICMPCode}, transportFields(1)},
	{"", []nftables.SetDatatype{nftables.TypeInetProto}, []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 10}}},
}

// transportFields loads the first two fields behind the IP header, of so many bytes each: both ports, or type and code.
func transportFields(size uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 10, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: size},
		&expr.Payload{DestRegister: 11, Base: expr.PayloadBaseTransportHeader, Offset: size, Len: size},
	}
}

// set is the name of the kind's set beside a chain's name.
func (k flowKind) set(chain string) string {
	if k.name == "" {
		return chain + "_ip"
	}
	return chain + "_" + k.name
}

// key loads a packet's flow into register 1 and those that follow it.
func (k flowKind) key() match {
	return append(match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: saddrOffset, Len: 4},
		&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseNetworkHeader, Offset: daddrOffset, Len: 4},
	}, k.look...)
}

// followSuffix names the chain that follows the flows of a list's chain.
func followSuffix(permit bool) string {
	if permit {
		return "_log_permit"
	}
	return "_log_deny"
}

// followed says which kinds of flows entries that say log can decide on.
func (g AccessGroup) followed(permit bool, k flowKind) bool {
	return slices.ContainsFunc(g.Rules, func(r Rule) bool {
		return r.Log && r.Permit == permit && (r.Proto == "ip" || r.Proto == k.name)
	})
}

// follow is the chain that follows the flows of permitted or of denied packets and then lets them go where they belong.
func (a *accessList) follow(permit bool) *nftables.Chain {
	c, then, size := &a.followDeny, drop(), a.denyFlows
	if permit {
		c, then, size = &a.followPermit, a.permitted, MaxFlows
	}
	if *c != nil {
		return *c
	}
	*c = a.s.chain(a.chain.Name + followSuffix(permit))
	told, full := a.s.chain((*c).Name+"_new"), a.s.chain((*c).Name+"_full")
	for _, k := range flowKinds {
		if !a.group.followed(permit, k) {
			continue
		}
		set := a.s.stays(k.set((*c).Name), size)
		if set == nil {
			set = a.s.addFlowSet(k.set((*c).Name), k, size)
		}
		of := proto(k.name)
		known := match{&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
		a.s.rule(*c, of, k.key(), known, then)
		add := match{&expr.Dynset{
			SrcRegKey: 1, SetName: set.Name, SetID: set.ID, Operation: unix.NFT_DYNSET_OP_ADD, Exprs: []expr.Any{&expr.Counter{}},
		}}
		// Gotos, so that a return leads out of the list. A full set ends the rule before.
		a.s.rule(*c, of, k.key(), add, match{&expr.Verdict{Kind: expr.VerdictGoto, Chain: told.Name}})
		a.s.rule(*c, of, match{&expr.Verdict{Kind: expr.VerdictGoto, Chain: full.Name}})
	}
	mark, fullMark, id := denyInMark, denyFullMark, IDDenyFull
	switch out := a.group.Direction == "out"; {
	case permit && out:
		mark, fullMark, id = permitOutMark, permitFull, IDPermitFull
	case permit:
		mark, fullMark, id = permitInMark, permitFull, IDPermitFull
	case out:
		mark = denyOutMark
	}
	a.s.logged(told, mark, a.group.Name, limit(logRate, logBurst))
	a.s.rule(told, then)
	a.s.logged(full, fullMark, a.group.Name, limit(1, 1))
	a.s.counted(full, id, nil, then)
	if !a.group.followed(permit, flowKind{}) { // else what is left has gone already
		a.s.rule(*c, then)
	}
	return *c
}

// addFlowSet adds a set that packets fill.
func (s ruleSet) addFlowSet(name string, k flowKind, size int) *nftables.Set {
	*s.sets++
	set := &nftables.Set{
		Table: s.table, Name: s.free(name), ID: *s.sets, Size: uint32(size), Dynamic: true, Counter: true, Concatenation: true,
		KeyType: nftables.MustConcatSetType(append([]nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIPAddr}, k.types...)...),
	}
	_ = s.conn.AddSet(set, nil) // what it has errors for are elements
	return set
}

// Flow is packets between the same two ends on which an access group has decided alike.
type Flow struct {
	Link, Direction    string // of the access group
	Permitted          bool
	Proto              string // tcp, udp, icmp or a number
	Src, Dst           netip.AddrPort
	ICMPType, ICMPCode uint8
}

// Flow is the flow whose first packet was told.
func (d Denial) Flow() Flow {
	f := Flow{Link: d.In, Direction: d.Direction, Permitted: d.Permitted, Proto: d.Proto, Src: d.Src, Dst: d.Dst, ICMPType: d.ICMPType, ICMPCode: d.ICMPCo}
	if d.Direction == "out" {
		f.Link = d.Out
	}
	return f
}

// Way gives the links on which a flow comes and goes; the one that its access group does not name is where the kernel's routes lead now, "" for nowhere.
func (f Flow) Way() (in, out string) {
	if f.Direction == "out" {
		in, _ = routeTo(f.Src.Addr().AsSlice())
		return in, f.Link
	}
	out, _ = routeTo(f.Dst.Addr().AsSlice())
	return f.Link, out
}

// CountedFlow is a flow that is followed, with its packets since its first.
type CountedFlow struct {
	Flow
	Packets uint64

	set string
	key []byte
}

// flowSet is what a set of flows is for.
type flowSet struct {
	group  AccessGroup
	permit bool
	kind   flowKind
}

// flowSets gives the sets of flows of a spec by their names.
func (s Spec) flowSets() map[string]flowSet {
	out := map[string]flowSet{}
	from, to := chainNames("from", s), chainNames("out", s)
	for _, g := range s.Groups {
		chain := from[g.Link]
		if g.Direction == "out" {
			chain = to[g.Link]
		}
		for _, permit := range []bool{true, false} {
			for _, k := range flowKinds {
				if g.followed(permit, k) {
					out[k.set(chain+followSuffix(permit))] = flowSet{g, permit, k}
				}
			}
		}
	}
	return out
}

// Flows lists the flows that are followed: of the entries that say log, at most MaxFlows of an access group, a protocol and an action.
func (k *Kernel) Flows() ([]CountedFlow, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		return nil, ErrRemoved
	}
	wanted := k.spec.flowSets()
	if len(wanted) == 0 || !canLog() {
		return nil, nil
	}
	conn, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	sets, err := conn.GetSets(filterTable())
	if err != nil {
		return nil, fmt.Errorf("list sets of %s: %w", TableFilter, err)
	}
	var out []CountedFlow
	for _, s := range sets {
		of, ok := wanted[strings.TrimRight(s.Name, again)]
		if !ok || !s.Dynamic {
			continue
		}
		all, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("list elements of %s %s: %w", TableFilter, s.Name, err)
		}
		for _, e := range all {
			if f, ok := of.flow(e.Key); ok && e.Counter != nil {
				out = append(out, CountedFlow{Flow: f, Packets: e.Counter.Packets, set: s.Name, key: e.Key})
			}
		}
	}
	return out, nil
}

func filterTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: TableFilter}
}

// flow reads an element's key: each field fills up its register.
func (s flowSet) flow(key []byte) (Flow, bool) {
	if len(key) != 4*(2+len(s.kind.types)) {
		return Flow{}, false
	}
	f := Flow{Link: s.group.Link, Direction: s.group.Direction, Permitted: s.permit, Proto: s.kind.name}
	src, dst := netip.AddrFrom4([4]byte(key)), netip.AddrFrom4([4]byte(key[4:]))
	var sport, dport uint16
	switch s.kind.name {
	case "icmp":
		f.ICMPType, f.ICMPCode = key[8], key[12]
	case "":
		f.Proto = strconv.Itoa(int(key[8]))
	default:
		sport, dport = binary.BigEndian.Uint16(key[8:]), binary.BigEndian.Uint16(key[12:])
	}
	f.Src, f.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return f, true
}

// Forget follows flows no more, so that their next packets are first ones. Flows that are not there any more are no error.
func (k *Kernel) Forget(flows []CountedFlow) error {
	if len(flows) == 0 {
		return nil
	}
	bySet := map[string][]nftables.SetElement{}
	for _, f := range flows {
		bySet[f.set] = append(bySet[f.set], nftables.SetElement{Key: f.key})
	}
	return k.amend(func(conn *nftables.Conn) error {
		for name, all := range bySet {
			for some := range slices.Chunk(all, elementBatch) {
				if err := conn.SetDeleteElements(&nftables.Set{Table: filterTable(), Name: name}, some); err != nil {
					return fmt.Errorf("forget flows: %w", err)
				}
			}
		}
		if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget flows: %w", err)
		}
		return nil
	})
}

// Entry gives the ID of the entry that says log and decides on a flow now, and "" when there is none.
func (k *Kernel) Entry(f Flow) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		return ""
	}
	g, ok := k.spec.group(f.Link, f.Direction)
	if !ok {
		return ""
	}
	n := g.decides(Packet{Proto: f.Proto, Src: f.Src.Addr(), Dst: f.Dst.Addr(), SrcPort: f.Src.Port(), DstPort: f.Dst.Port()})
	if n < 0 || !g.Rules[n].Log || g.Rules[n].Permit != f.Permitted {
		return ""
	}
	return g.Rules[n].ID
}
