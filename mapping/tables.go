package mapping

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the tables. The filter exists in the families ip and ip6.
const (
	TableIntercept = "imeproxy_intercept"
	TableNAT       = "imeproxy_nat"
	TableFilter    = "imeproxy_filter"
	TableIngress   = "imeproxy_ingress" // family netdev
)

const (
	established = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	invalid     = expr.CtStateBitINVALID
)

// connect opens netfilter's netlink with room for a batch of some thousand rules and its acknowledgements.
func connect() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(bigBuffers))
}

// bigBuffers raises the socket's buffers as far as the process may; without privilege in the first user namespace
// net.core.wmem_max and rmem_max are the limit.
func bigBuffers[C interface {
	SetWriteBuffer(bytes int) error
	SetReadBuffer(bytes int) error
}](c C,
) error {
	const batch, acknowledgements = 16 << 20, 32 << 20
	_, _ = c.SetWriteBuffer(batch), c.SetReadBuffer(acknowledgements)
	return nil
}

// install replaces all our tables by those of the spec, in one transaction, and removes what these do not use in another. counted is what was counted besides what the kernel's
// counters say, before and after; transactions is how many it took.
func install(spec Spec, counted map[counterKey]Hit) (rest map[counterKey]Hit, transactions uint32, err error) {
	conn, err := connect()
	if err != nil {
		return nil, 0, fmt.Errorf("nftables: %w", err)
	}
	before, err := readCounters(conn)
	if err != nil {
		before = map[counterKey]Hit{} // the rules matter, what they had counted does not
	}
	for key, h := range counted {
		before[key] = before[key].plus(h)
	}
	stood, err := readStanding(conn)
	if err != nil {
		return nil, 0, err
	}
	t := newTally(before)
	now, err := compose(conn, spec, t, stood)
	if err != nil {
		return nil, 0, err
	}
	if err := conn.Flush(); err != nil {
		return nil, 0, explain(err)
	}
	cleared, err := stood.clear(conn, now...)
	if err != nil {
		return nil, 0, err
	}
	return t.rest(), 1 + cleared, nil
}

// compose puts all our tables into a batch, and gives those of family ip that are refilled.
func compose(conn *nftables.Conn, spec Spec, t *tally, stood standing) ([]ruleSet, error) {
	if err := addGuard(conn, spec, stood.tables[TableGuard]); err != nil { // first, as it stays: so the order of the tables does too
		return nil, err
	}
	intercept, nat, filter := stood.refill(conn, TableIntercept).goingOn(t), stood.refill(conn, TableNAT), stood.refill(conn, TableFilter).goingOn(t)
	addIntercept(intercept, spec)
	addNAT(nat, spec)
	addFilter(filter, spec)
	addIngress(conn, spec)
	if hasIPv6() {
		addFilter6(replaceTable(conn, nftables.TableFamilyIPv6, TableFilter), spec)
	}
	return []ruleSet{intercept, nat, filter}, nil
}

// uninstall removes those of our tables that are there.
func uninstall() error {
	conn, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	tables, err := ourTables(conn)
	if err != nil || len(tables) == 0 {
		return err
	}
	for _, t := range tables {
		conn.DelTable(t)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove nftables tables: %w", err)
	}
	return nil
}

func ourTables(conn *nftables.Conn) ([]*nftables.Table, error) {
	all, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	names := []string{TableIntercept, TableNAT, TableFilter, TableIngress, TableGuard}
	return slices.DeleteFunc(all, func(t *nftables.Table) bool { return !slices.Contains(names, t.Name) }), nil
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// addIntercept fills the table that finds the proxy's connections.
func addIntercept(s ruleSet, spec Spec) {
	divert := s.base("divert", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	for _, i := range spec.Interfaces {
		// ICMP errors about a proxied connection belong to its socket too (path MTU towards a spoofed address).
		for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_ICMP} {
			s.rule(divert, iif(i.Link), l4proto(p), socketTransparent(), setMetaMark(), setCtMark(), accept())
		}
	}
	for _, i := range spec.Interfaces {
		// An answer within a forwarded connection is no new session, whatever its port is.
		s.rule(divert, iif(i.Link), ctReply(), accept())
	}
	for _, c := range spec.Intercepts {
		for _, link := range c.InLinks {
			class := slices.Concat(iif(link), l4proto(unix.IPPROTO_TCP), saddr(c.Src), daddr(c.Dst), dport(c.PortLo, c.PortHi))
			if c.Outbound {
				// The call agent's own connections to the appliance (VAP, mapping service) are not of the class.
				class = append(class, daddrNotLocal()...)
			}
			if c.ID != "" {
				// Apart, as the end of the handshake comes here too.
				s.counted(divert, c.ID, slices.Concat(class, isSYN()))
			}
			s.rule(divert, class, tproxy(c.ListenPort), setMetaMark(), setCtMark(), accept())
			// Without a listener tproxy gives no verdict and the packet would go on to the static NAT.
			s.rule(divert, class, drop())
		}
	}
	spoofed := s.base("spoofed", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityMangle)
	for _, i := range spec.Interfaces {
		// Marks connections that the proxy opens with a foreign source before the first answer, which may come late.
		s.rule(spoofed, oif(i.Link), l4proto(unix.IPPROTO_TCP), saddrNotLocal(), setCtMark())
	}
	if len(spec.Media) == 0 {
		return
	}
	in := s.base("media_in", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	out := s.base("media_out", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	for _, m := range spec.Media {
		// A global media address has plain legs too, and the Internet reaches them: only the source tells a phone from a
		// stranger there, and a stranger can write any source.
		for _, i := range spec.Interfaces {
			for _, n := range spec.above(i) {
				s.rule(in, iif(i.Link), saddr(n), hostDaddr(m.Addr), l4proto(unix.IPPROTO_UDP), dport(m.Lo, m.Hi), drop())
			}
		}
		s.rule(in, hostDaddr(m.Addr), l4proto(unix.IPPROTO_UDP), dport(m.Lo, m.Hi), notrack())
		s.rule(out, hostSaddr(m.Addr), l4proto(unix.IPPROTO_UDP), sport(m.Lo, m.Hi), notrack())
	}
	addSteering(s, spec)
}

// addSteering deals the datagrams for media ports out to the workers of the media engine. Without a worker tproxy gives no verdict, and
// the datagram ends at a port that nobody has: a dead daemon's rules eat nothing that others wait for.
func addSteering(s ruleSet, spec Spec) {
	n := len(spec.Steering.Workers)
	if n == 0 {
		return
	}
	c := s.base("media_steer", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	for _, m := range spec.Media {
		for i, port := range spec.Steering.Workers {
			s.rule(c, hostDaddr(m.Addr), l4proto(unix.IPPROTO_UDP), dport(m.Lo, m.Hi), dportBits(uint16(n-1)<<1, uint16(i)<<1), tproxy(port), accept())
		}
	}
}

// addIngress keeps from the network layer what the workers of the media engine read from the taps: they, and not these rules, refuse forged
// sources, which are counted here, in a chain of their own: a packet of media is not asked for what it is once for each network that may not be its
// source. Fragments, and frames for a VLAN, of which the link is the parent, pass.
func addIngress(conn *nftables.Conn, spec Spec) {
	s := replaceTable(conn, nftables.TableFamilyNetdev, TableIngress)
	if len(spec.Steering.Tapped) == 0 {
		conn.DelTable(s.table)
		return
	}
	names := chainNames("in", spec)
	for _, t := range spec.MediaTaps() {
		if !slices.Contains(spec.Steering.Tapped, t.Link) {
			continue
		}
		c, verdict := s.ingress(names[t.Link], t.Link), match{&expr.Verdict{Kind: expr.VerdictDrop}}
		if len(t.Refused) > 0 {
			media := s.chain("media_" + names[t.Link])
			for _, n := range t.Refused {
				s.rule(media, protocolIP(), saddr(n), drop())
			}
			s.rule(media, verdict)
			verdict = jump(media)
		}
		for _, m := range t.Ranges {
			s.rule(c, etherIP(), protocolIP(), hostDaddr(m.Addr), toUs(), unfragmented(), l4proto(unix.IPPROTO_UDP), dport(m.Lo, m.Hi), verdict)
		}
	}
}

// sortedStatics puts translations of a port before those of a whole address, which would hide them.
func sortedStatics(in []StaticNAT) []StaticNAT {
	out := slices.Clone(in)
	slices.SortStableFunc(out, func(a, b StaticNAT) int { return boolInt(a.whole()) - boolInt(b.whole()) })
	return out
}

// sortedDynamics puts the smaller network first, as an ASA does with network object NAT.
func sortedDynamics(in []DynamicNAT) []DynamicNAT {
	out := slices.Clone(in)
	slices.SortStableFunc(out, func(a, b DynamicNAT) int { return b.Real.Bits() - a.Real.Bits() })
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// chainNames gives each link a chain name that nft can read back.
func chainNames(role string, spec Spec) map[string]string {
	names, used := map[string]string{}, map[string]bool{}
	for _, i := range spec.Interfaces {
		n := role + "_" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r) {
				return r
			}
			return '_'
		}, i.Link)
		for used[n] {
			n += "_"
		}
		used[n] = true
		names[i.Link] = n
	}
	return names
}

// explain turns the bare errno of a refused batch into the name of what the kernel lacks.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("install nftables tables: %w: %w", ErrCapability, err)
	}
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("install nftables tables: the access lists are too long for one transaction (net.core.wmem_max, rmem_max): %w", err)
	}
	if what := missingFeatures(); len(what) > 0 {
		return fmt.Errorf("install nftables tables: %w: %s: %w", ErrKernelFeature, strings.Join(what, ", "), err)
	}
	return fmt.Errorf("install nftables tables: %w", err)
}

// sipHelpers names the tables of others that define the kernel's SIP helper. A rule of theirs may attach it to a connection
// when that begins, and no later rule can take it off.
func sipHelpers() (tables []string) {
	conn, err := connect()
	if err != nil {
		return nil
	}
	all, err := conn.ListTables()
	if err != nil {
		return nil
	}
	for _, t := range all {
		objects, err := conn.GetNamedObjects(t)
		if err != nil {
			continue // of a kind that the library cannot read
		}
		for _, o := range objects {
			n, ok := o.(*nftables.NamedObj)
			if !ok || n.Type != nftables.ObjTypeCtHelper {
				continue
			}
			if h, ok := n.Obj.(*expr.CtHelper); ok && h.Name == "sip" && !slices.Contains(tables, t.Name) {
				tables = append(tables, t.Name)
			}
		}
	}
	return tables
}
