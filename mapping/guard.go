package mapping

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TableGuard turns sources away before anything else is asked. Its sets keep what is in them when the rules change.
const TableGuard = "imeproxy_guard"

// Names and limits of the sets of TableGuard.
const (
	setShunned = "shunned" // sources that are turned away
	setKnown   = "known"   // sources that have made calls: no limit of new connections holds for them
	setNew     = "new_connections"

	guardSize = 65536 // elements of a set
	// A source opens connections to the classes and ports of the appliance at this rate, after a burst. More are dropped: its kernel tries again.
	newRate  = 50 // a second
	newBurst = 100
	newKept  = 10 * time.Second // how long a source is remembered without a connection

	// KnownFor is how long a source stays known.
	KnownFor = time.Hour
)

// guardPriority is before everything of ours.
var guardPriority = nftables.ChainPriorityRef(-310)

// addGuard puts the rules of the guard into the batch. Sets that are there stay as they are.
func addGuard(conn *nftables.Conn, spec Spec, there bool) error {
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: TableGuard}
	conn.AddTable(t)
	sets := guardSets(t)
	if !there {
		for _, s := range sets {
			if err := conn.AddSet(s, nil); err != nil {
				return fmt.Errorf("nftables set %s: %w", s.Name, err)
			}
		}
	}
	s := ruleSet{conn: conn, table: t, tally: newTally(nil)}
	c := s.base("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, guardPriority)
	if there {
		conn.FlushChain(c)
	}
	for _, i := range spec.Interfaces {
		s.rule(c, iif(i.Link), inSet(saddrOffset, sets[0]), drop())
		if !spec.outside(i) {
			continue
		}
		for _, p := range guarded(spec, i) {
			s.rule(c, iif(i.Link), l4proto(unix.IPPROTO_TCP), p, isSYN(), notInSet(sets[1]), faster(sets[2]), drop())
		}
	}
	return nil
}

func guardSets(t *nftables.Table) []*nftables.Set {
	// The library would number them by a counter that several connections share without a lock.
	set := func(name string, id uint32) *nftables.Set {
		return &nftables.Set{Table: t, Name: name, ID: id, KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian, HasTimeout: true, Size: guardSize}
	}
	fresh := set(setNew, 3)
	fresh.Dynamic, fresh.Timeout = true, newKept
	return []*nftables.Set{set(setShunned, 1), set(setKnown, 2), fresh}
}

// guarded are the destinations on an interface that strangers may open connections to.
func guarded(spec Spec, i Interface) []match {
	var out []match
	for _, c := range spec.Intercepts {
		if !c.Outbound && slices.Contains(c.InLinks, i.Link) {
			out = append(out, slices.Concat(daddr(c.Dst), dport(c.PortLo, c.PortHi)))
		}
	}
	for _, o := range spec.Open {
		if o.Proto == "tcp" && (o.Link == "" || o.Link == i.Link) {
			out = append(out, slices.Concat(hostDaddr(o.Addr), dport(o.Port, max(o.Port, o.PortHi))))
		}
	}
	return out
}

// source loads the source address into register 1.
func source() expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: saddrOffset, Len: 4}
}

func notInSet(s *nftables.Set) match {
	return match{source(), &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID, Invert: true}}
}

// faster matches packets of a source that come faster than it may.
func faster(s *nftables.Set) match {
	return match{source(), &expr.Dynset{
		SrcRegKey: 1, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_UPDATE,
		Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: newRate, Unit: expr.LimitTimeSecond, Burst: newBurst, Over: true}},
	}}
}

// Shunned is a source that is turned away.
type Shunned struct {
	Addr netip.Addr
	Left time.Duration // 0: for good
}

// ErrNotShunned says that a source is not turned away.
var ErrNotShunned = errors.New("the source is not shunned")

// guardSet works with a set of the guard in a transaction of its own.
func (k *Kernel) guardSet(n int, work func(*nftables.Conn, *nftables.Set) error) error {
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: TableGuard}
	return k.amend(func(conn *nftables.Conn) error { return work(conn, guardSets(t)[n]) })
}

func key(a netip.Addr) []byte { b := a.As4(); return b[:] }

// Shun turns everything from a source away, at once and for a time; 0 is for good. Connections that stand are cut off. It survives changes of the spec
// and ends with Remove.
func (k *Kernel) Shun(a netip.Addr, d time.Duration) error {
	if !a.Is4() {
		return fmt.Errorf("%s: an IPv4 address is expected", a)
	}
	return k.guardSet(0, func(conn *nftables.Conn, s *nftables.Set) error {
		if all, err := conn.GetSetElements(s); err == nil && slices.ContainsFunc(all, func(e nftables.SetElement) bool { return slices.Equal(e.Key, key(a)) }) {
			if err := conn.SetDeleteElements(s, []nftables.SetElement{{Key: key(a)}}); err != nil { // its time is the new one
				return err
			}
		}
		if err := conn.SetAddElements(s, []nftables.SetElement{{Key: key(a), Timeout: d}}); err != nil {
			return err
		}
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("shun %s: %w", a, err)
		}
		return nil
	})
}

// Unshun lets a source in again.
func (k *Kernel) Unshun(a netip.Addr) error {
	if !a.Is4() {
		return ErrNotShunned
	}
	return k.guardSet(0, func(conn *nftables.Conn, s *nftables.Set) error {
		if err := conn.SetDeleteElements(s, []nftables.SetElement{{Key: key(a)}}); err != nil {
			return err
		}
		err := conn.Flush()
		if errors.Is(err, unix.ENOENT) {
			return ErrNotShunned
		}
		return err
	})
}

// Shunned lists the sources that are turned away.
func (k *Kernel) Shunned() ([]Shunned, error) {
	var out []Shunned
	err := k.guardSet(0, func(conn *nftables.Conn, s *nftables.Set) error {
		all, err := conn.GetSetElements(s)
		for _, e := range all {
			if len(e.Key) == 4 {
				out = append(out, Shunned{netip.AddrFrom4([4]byte(e.Key)), e.Expires})
			}
		}
		return err
	})
	slices.SortFunc(out, func(a, b Shunned) int { return a.Addr.Compare(b.Addr) })
	return out, err
}

// Know frees a source that has made calls from the limit of new connections, for KnownFor.
func (k *Kernel) Know(a netip.Addr) error {
	if !a.Is4() {
		return nil
	}
	return k.guardSet(1, func(conn *nftables.Conn, s *nftables.Set) error {
		if err := conn.SetAddElements(s, []nftables.SetElement{{Key: key(a), Timeout: KnownFor}}); err != nil {
			return err
		}
		return conn.Flush()
	})
}
