package proxy

import (
	"net/netip"
	"slices"

	"imeproxy/mapping"
	"imeproxy/mediaterm"
)

// formerMedia is the media termination of an earlier configuration. Its calls keep their addresses and ports until the last has ended,
// and so does the kernel.
type formerMedia struct {
	term      *mediaterm.Terminator
	addresses []mapping.Address
	ranges    []mapping.MediaRange
}

// former describes the media termination of a plan for the time after it.
func (p *plan) former(t *mediaterm.Terminator) formerMedia {
	f := formerMedia{term: t, ranges: p.mediaRanges()}
	for _, m := range p.MediaAddresses {
		f.addresses = append(f.addresses, mapping.Address{Link: m.Interface.Name, Addr: m.Addr})
	}
	return f
}

// withFormer adds to a specification what former media terminations need. What the configuration in force uses otherwise is its own: an
// address that is translated now, an interface that is gone.
func withFormer(s mapping.Spec, list []formerMedia) mapping.Spec {
	for _, f := range list {
		for _, a := range f.addresses {
			known := slices.ContainsFunc(s.Interfaces, func(i mapping.Interface) bool { return i.Link == a.Link })
			there := slices.ContainsFunc(s.Addresses, func(b mapping.Address) bool { return b.Addr == a.Addr }) ||
				slices.ContainsFunc(s.Interfaces, func(i mapping.Interface) bool { return i.Address.Addr() == a.Addr })
			if known && !there && !translates(s, a.Addr) {
				s.Addresses = append(slices.Clip(s.Addresses), a)
			}
		}
		for _, r := range f.ranges {
			if !translates(s, r.Addr) {
				s.Media = append(slices.Clip(s.Media), besides(r, s.Media)...)
			}
		}
	}
	return s
}

// translates tells whether an address is part of a translation, in which media ports have no place.
func translates(s mapping.Spec, a netip.Addr) bool {
	return slices.ContainsFunc(s.Statics, func(n mapping.StaticNAT) bool { return n.Real == a || n.Mapped == a }) ||
		slices.ContainsFunc(s.Dynamics, func(n mapping.DynamicNAT) bool {
			return n.Mapped == a || !n.Mapped.IsValid() && slices.ContainsFunc(s.Interfaces, func(i mapping.Interface) bool {
				return i.Link == n.MappedLink && i.Address.Addr() == a
			})
		})
}

// besides gives the parts of a range that lie in none of others.
func besides(r mapping.MediaRange, others []mapping.MediaRange) []mapping.MediaRange {
	parts := []mapping.MediaRange{r}
	for _, o := range others {
		if o.Addr != r.Addr {
			continue
		}
		var left []mapping.MediaRange
		for _, p := range parts {
			if o.Lo > p.Hi || o.Hi < p.Lo {
				left = append(left, p)
				continue
			}
			if p.Lo < o.Lo {
				left = append(left, mapping.MediaRange{Addr: p.Addr, Lo: p.Lo, Hi: o.Lo - 1})
			}
			if o.Hi < p.Hi {
				left = append(left, mapping.MediaRange{Addr: p.Addr, Lo: o.Hi + 1, Hi: p.Hi})
			}
		}
		parts = left
	}
	return parts
}

// sweepFormer closes media terminations of earlier configurations when their last stream has ended, and lets the kernel forget them.
func (a *Appliance) sweepFormer() {
	if !a.applying.TryLock() {
		return // a change is under way: the next second will do
	}
	defer a.applying.Unlock()
	var keep []formerMedia
	for _, f := range a.former {
		if f.term.Counters().Streams > 0 {
			keep = append(keep, f)
			continue
		}
		if err := f.term.Close(); err != nil {
			a.log.Warn("former media termination did not close cleanly", "err", err)
		}
	}
	if len(keep) == len(a.former) {
		return
	}
	a.former = keep
	if err := a.kernel.Update(a.spec(a.plan.Load(), a.listen, keep)); err != nil {
		a.log.Error("media ports of a former configuration stay open", "err", err)
	}
}
