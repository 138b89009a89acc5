package mapping

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kernel is what one appliance has set in the kernel of its network namespace. Its methods may be called from any goroutine of
// that namespace.
type Kernel struct {
	log   *slog.Logger
	state *stateDir

	mu   sync.Mutex // guards everything that follows, and the kernel state itself
	spec *Spec      // nil before the first change and after Remove
	rec  record
	// counted is what the elements of verdict maps had counted before they were replaced.
	counted map[counterKey]Hit
	rules   *Spec  // whose rules are in the kernel
	gen     uint32 // of nftables when the rules came into force; 0 is not known
}

// install brings the rules of a spec into force. settled says that they were already.
func (k *Kernel) install(spec Spec) (settled bool, err error) {
	if k.settled(spec) {
		return true, nil
	}
	before, errBefore := generation()
	k.gen = 0 // not known: the next change replaces everything
	counted, transactions, err := install(spec, k.counted)
	if err != nil {
		return false, err
	}
	k.counted, k.rules = counted, &spec
	after, errAfter := generation()
	if errBefore == nil && errAfter == nil && after == before+transactions {
		k.gen = after
	}
	return false, nil
}

// Apply makes the kernel do what the spec says: all of it or, with an error, nothing. What a killed daemon left is removed
// first. stateDir is created with mode 0700 when absent and stays locked until Remove. Errors wrap ErrCapability,
// ErrKernelFeature or ErrRunning where they apply. It needs CAP_NET_ADMIN.
func Apply(spec Spec, stateDir string, log *slog.Logger) (*Kernel, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := Validate(spec); err != nil {
		return nil, err
	}
	if err := checkCapability(unix.CAP_NET_ADMIN, ErrCapability); err != nil {
		return nil, err
	}
	state, err := openState(stateDir)
	if err != nil {
		return nil, err
	}
	k := &Kernel{log: log, state: state}
	if err := cleanup(log, state); err != nil {
		state.close()
		return nil, fmt.Errorf("clean up what an earlier daemon left: %w", err)
	}
	if k.rec, err = newRecord(); err == nil {
		err = k.change(spec)
	}
	if err != nil {
		state.close()
		return nil, err
	}
	return k, nil
}

// Update replaces the spec. Rules that are in force and that nobody has touched stay as they are. The tables change in one step, so that no packet meets half of them; on error the old spec stays in
// force. Standing connections that the new access lists refuse end, and so do those of translations that are gone; others live on.
func (k *Kernel) Update(spec Spec) error {
	if err := Validate(spec); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		return ErrRemoved
	}
	return k.change(spec)
}

// change goes from k.spec (nil: nothing) to spec. The caller holds mu or is alone.
func (k *Kernel) change(spec Spec) error {
	spec = clone(spec)
	arrangeLike(spec, k.spec)
	add, drop, err := plan(k.rec, spec)
	if err != nil {
		return err
	}
	settings := append(wantedSysctls(spec), sideSysctls(spec)...)
	merged := merge(k.rec, add, previous(settings))
	if err := k.record(merged); err != nil {
		return err
	}
	// Rules come first: no address is reachable and nothing is forwarded before they are in force.
	settled, err := k.install(spec)
	if err == nil {
		err = errors.Join(perform(add), writeSysctls(settings))
	}
	if err != nil {
		return errors.Join(err, k.rollback(merged, add))
	}
	for _, table := range sipHelpers() {
		k.log.Warn("another table defines the kernel's SIP helper, which rewrites SIP behind the proxy's back: remove it", "table", table)
	}
	k.announce(add)
	old := k.spec
	k.spec, k.rec = &spec, merged
	k.retire(old, drop)
	if !settled { // else every entry was made under these rules
		k.forgetOld(old)
	}
	return nil
}

// record brings what will be in the kernel to the disk. A full disk is no reason to refuse: calls are worth more than the addresses that only a
// killed daemon would leave behind.
func (k *Kernel) record(r record) error {
	err := k.state.write(r)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	k.log.Error("no room to record what is added to the kernel: a daemon that is killed leaves it there; free some", "error", err)
	return nil
}

// rollback returns to k.spec and k.rec after a change that failed half way.
func (k *Kernel) rollback(merged, add record) error {
	var errs []error
	added := merged.Sysctls[len(k.rec.Sysctls):]
	errs = append(errs, writeSysctls(added), withdraw(add))
	if k.spec == nil {
		return errors.Join(append(errs, uninstall(), k.state.forget())...)
	}
	// A replaced route and a replaced table come back.
	_, err := k.install(*k.spec)
	return errors.Join(append(errs, perform(k.rec), err, k.record(k.rec))...)
}

// retire removes what the former spec had added and the new one does not want. What cannot be removed is logged and stays on
// record: the new spec is in force.
func (k *Kernel) retire(old *Spec, drop record) {
	if old == nil {
		return
	}
	drop.Sysctls = formerSysctls(*old, *k.spec, k.rec.Sysctls)
	if err := errors.Join(writeSysctls(drop.Sysctls), withdraw(drop)); err != nil {
		k.log.Warn("part of the former configuration stays in the kernel", "error", err)
		return
	}
	k.rec = subtract(k.rec, drop)
	// With the first address of a network the kernel takes its later ones away, the new one among them.
	if err := perform(k.rec); err != nil {
		k.log.Error("part of the configuration was lost with the former one", "error", err)
	}
	if err := k.state.write(k.rec); err != nil {
		k.log.Warn("kernel state not recorded", "error", err)
	}
}

// forgetOld deletes conntrack entries that would carry on with what the former spec, or none, did to their packets.
func (k *Kernel) forgetOld(old *Spec) {
	filters := []netlink.CustomConntrackFilter{untranslated(*k.spec)}
	for _, c := range k.spec.Intercepts {
		filters = append(filters, intercepted(c))
	}
	if old == nil || !sameFilter(*old, *k.spec) {
		filters = append(filters, refused(*k.spec))
	}
	if old == nil {
		// Sockets of an earlier daemon are gone.
		filters = append(filters, flowFilter(proxied))
	} else {
		for _, n := range old.Statics {
			if !slices.Contains(k.spec.Statics, n) {
				filters = append(filters, translated(n))
			}
		}
		for _, n := range old.Dynamics {
			if !slices.Contains(k.spec.Dynamics, n) {
				filters = append(filters, hidden(n, *old))
			}
		}
	}
	n, err := forgetFlows(filters...)
	if err != nil {
		// The rules hold without it: an old entry leads to a reset, never to the call agent.
		k.log.Warn("standing connections keep their conntrack entries", "error", err)
	} else if n > 0 {
		k.log.Info("standing connections end that the new rules translate otherwise, take for the proxy or refuse", "entries", n)
	}
}

// announce tells the neighbours whose the new addresses are.
func (k *Kernel) announce(add record) {
	for _, a := range add.Addresses {
		if err := announceARP(a.Link, a.Prefix.Addr()); err != nil {
			k.log.Warn("address not announced", "interface", a.Link, "address", a.Prefix.Addr(), "error", err)
		}
	}
}

// Remove undoes exactly what was added and gives the state directory back. What could not be undone is in the error and stays
// on record for Cleanup. A second call does nothing.
func (k *Kernel) Remove() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		return nil
	}
	filters := []netlink.CustomConntrackFilter{flowFilter(proxied)}
	k.spec = nil
	defer k.state.close()
	return undo(k.log, k.state, k.rec, filters)
}

// Cleanup removes what a killed daemon left: the tables, and what kernel.json in stateDir lists. Without that file the rule
// and route of Mark go as well when one of our tables stands. It fails with ErrRunning while an appliance holds stateDir
// or the network namespace.
func Cleanup(log *slog.Logger, stateDir string) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := checkCapability(unix.CAP_NET_ADMIN, ErrCapability); err != nil {
		return err
	}
	state, err := openState(stateDir)
	if err != nil {
		return err
	}
	defer state.close()
	return cleanup(log, state)
}

func cleanup(log *slog.Logger, state *stateDir) error {
	rec, found, err := state.read()
	if err != nil {
		log.Warn("record of an earlier daemon is not readable; its addresses stay", "error", err)
	}
	if !found {
		conn, err := connect()
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		tables, err := ourTables(conn)
		if err != nil {
			return explain(err)
		}
		if len(tables) == 0 {
			return state.forget()
		}
		rec = record{Rule: true, Local: true}
	}
	log.Info("removing what an earlier daemon left in the kernel")
	return undo(log, state, rec, []netlink.CustomConntrackFilter{flowFilter(proxied)})
}

// undo takes everything of the record back. Forwarding ends first and the rules go last, so that nothing passes unfiltered in
// between.
func undo(log *slog.Logger, state *stateDir, rec record, filters []netlink.CustomConntrackFilter) error {
	err := errors.Join(writeSysctls(rec.Sysctls), withdraw(rec), uninstall())
	if _, ferr := forgetFlows(filters...); ferr != nil {
		log.Warn("conntrack entries of the proxy stay until they expire", "error", ferr)
	}
	if err != nil {
		return err
	}
	return state.forget()
}

// writeSysctls writes all; settings of an interface that is gone are no error.
func writeSysctls(settings []sysctl) error {
	var errs []error
	for _, s := range settings {
		if err := writeSysctl(s); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// formerSysctls picks the settings of interfaces that the new spec has no more.
func formerSysctls(old, now Spec, recorded []sysctl) (former []sysctl) {
	for _, i := range old.Interfaces {
		if _, still := now.link(i.Link); still {
			continue
		}
		for _, s := range recorded {
			if s.Name == confName(i.Link, "rp_filter") || s.Name == confName(i.Link, "forwarding") {
				former = append(former, s)
			}
		}
	}
	return former
}

// merge adds to the record; a sysctl that is on record already keeps the value that it had first.
func merge(rec, add record, old []sysctl) record {
	out := rec
	// What an operator had taken away from us meanwhile is on both lists.
	out.Links = slices.Concat(rec.Links, without(add.Links, rec.Links))
	out.Addresses = slices.Concat(rec.Addresses, without(add.Addresses, rec.Addresses))
	out.Routes = slices.Concat(rec.Routes, without(add.Routes, rec.Routes))
	out.Rule, out.Local = rec.Rule || add.Rule, rec.Local || add.Local
	out.Sysctls = slices.Clone(rec.Sysctls)
	for _, s := range old {
		if !slices.ContainsFunc(rec.Sysctls, func(r sysctl) bool { return r.Name == s.Name }) {
			out.Sysctls = append(out.Sysctls, s)
		}
	}
	return out
}

// subtract takes links, addresses, routes and sysctls of drop out of the record.
func subtract(rec, drop record) record {
	rec.Links = without(rec.Links, drop.Links)
	rec.Addresses = without(rec.Addresses, drop.Addresses)
	rec.Routes = without(rec.Routes, drop.Routes)
	rec.Sysctls = without(rec.Sysctls, drop.Sysctls)
	return rec
}

func without[T comparable](all, gone []T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return slices.Contains(gone, v) })
}

// arrangeLike arranges long lists; those that a former spec, or nil, has had are arranged already.
func arrangeLike(s Spec, former *Spec) {
	for i := range s.Groups {
		g := &s.Groups[i]
		if former != nil {
			if at := slices.IndexFunc(former.Groups, func(f AccessGroup) bool { return slices.Equal(f.Rules, g.Rules) }); at >= 0 {
				g.layers = former.Groups[at].layers
			}
		}
		g.layers = g.arranged()
	}
}

// clone copies what the caller may change later.
func clone(s Spec) Spec {
	s.Interfaces, s.Routes, s.Addresses = slices.Clone(s.Interfaces), slices.Clone(s.Routes), slices.Clone(s.Addresses)
	s.Intercepts, s.Groups = slices.Clone(s.Intercepts), slices.Clone(s.Groups)
	for i := range s.Intercepts {
		s.Intercepts[i].InLinks = slices.Clone(s.Intercepts[i].InLinks)
	}
	for i := range s.Groups {
		s.Groups[i].Rules = slices.Clone(s.Groups[i].Rules)
	}
	s.Statics, s.Dynamics = slices.Clone(s.Statics), slices.Clone(s.Dynamics)
	s.Media, s.Open = slices.Clone(s.Media), slices.Clone(s.Open)
	s.Steering.Workers, s.Steering.Tapped = slices.Clone(s.Steering.Workers), slices.Clone(s.Steering.Tapped)
	return s
}
