package mapping

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// An access list of thousands of entries would be as many comparisons for each new connection. It is arranged into layers: the
// rules of one layer match on the same fields with the same masks, so that one look-up in a verdict map decides on all of
// them, and the layers are asked in an order that gives what the first match of the list gives. This is the tuple space search
// of Srinivasan, Suri and Varghese (SIGCOMM 1999), with an order among the tuples in place of priorities.

const (
	// shortList is the length up to which a list is written rule by rule, as it stands in the configuration.
	shortList = 16
	// shortLayer is the size below which the rules of a layer are written one by one.
	shortLayer = 4
	// manySpans is the number of different port ranges above which ranges are cut into aligned blocks, which can be looked up.
	manySpans = 16
	// openLayers bounds the layers that a rule may still join: lists of many masks that overlap each other would take the
	// square of their length to arrange.
	openLayers = 256
)

// portClass is how a layer matches a port: an aligned block of 2^(16-bits) ports, any port with 0 bits, or one range.
type portClass struct {
	bits uint8
	span PortSpan // not zero: the range, the same for the whole layer
}

// class is what the rules of a layer have in common.
type class struct {
	proto        string
	src, dst     uint8 // prefix lengths, 0 is any
	sport, dport portClass
}

// tuple is what they differ in; the bits that the class does not look at are zero.
type tuple struct {
	src, dst     uint32
	sport, dport uint16
}

// member is one rule of a layer, or a part of it.
type member struct {
	tuple
	rule int // its place in the list
}

// view is a coarser look at a layer's keys.
type view struct{ src, dst, sport, dport uint8 }

// viewPorts are the ports that stand behind a key of a view.
type viewPorts struct{ sport, dport PortSpan }

type layer struct {
	class
	members []member
	index   map[tuple]int // to the rule
	views   map[view]map[tuple]viewPorts
}

func mask32(bits uint8) uint32 { return uint32(^uint64(0) << (32 - bits)) }
func mask16(bits uint8) uint16 { return uint16(^uint32(0) << (16 - bits)) }

func address(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// block gives the ports of an aligned block.
func block(port uint16, bits uint8) PortSpan { return PortSpan{port, port | ^mask16(bits)} }

func (s PortSpan) meets(o PortSpan) bool { return s.Lo <= o.Hi && o.Lo <= s.Hi }

// blocks cuts a range into the fewest aligned blocks.
func blocks(s PortSpan) (ports []uint16, sizes []uint8) {
	for lo, end := uint32(s.Lo), uint32(s.Hi)+1; lo < end; {
		n := uint(16)
		if lo != 0 {
			n = min(16, uint(bits.TrailingZeros32(lo)))
		}
		for lo+1<<n > end {
			n--
		}
		ports, sizes = append(ports, uint16(lo)), append(sizes, uint8(16-n))
		lo += 1 << n
	}
	return ports, sizes
}

// portParts are the ways in which a port range is matched: one, or several blocks.
func portParts(lo, hi uint16, split bool) (ports []uint16, classes []portClass) {
	switch {
	case lo == 0 && (hi == 0 || hi == 65535):
		return []uint16{0}, []portClass{{}}
	case lo == hi:
		return []uint16{lo}, []portClass{{bits: 16}}
	case !split:
		return []uint16{0}, []portClass{{span: PortSpan{lo, hi}}}
	}
	ports, sizes := blocks(PortSpan{lo, hi})
	for _, b := range sizes {
		classes = append(classes, portClass{bits: b})
	}
	return ports, classes
}

func prefixKey(p netip.Prefix) (uint32, uint8) {
	if !p.IsValid() || p.Bits() == 0 {
		return 0, 0
	}
	return address(p.Masked().Addr()), uint8(p.Bits())
}

// parts gives a rule as classes and keys.
func (r Rule) parts(split bool, each func(class, tuple)) {
	c, k := class{proto: r.Proto}, tuple{}
	k.src, c.src = prefixKey(r.Src)
	k.dst, c.dst = prefixKey(r.Dst)
	sports, sclasses := portParts(r.SrcLo, r.SrcHi, split)
	dports, dclasses := portParts(r.DstLo, r.DstHi, split)
	for i := range sports {
		for j := range dports {
			k.sport, c.sport, k.dport, c.dport = sports[i], sclasses[i], dports[j], dclasses[j]
			each(c, k)
		}
	}
}

// spans counts the different port ranges of a list.
func spans(rules []Rule) int {
	seen := map[PortSpan]bool{}
	for _, r := range rules {
		for _, s := range []PortSpan{{r.SrcLo, r.SrcHi}, {r.DstLo, r.DstHi}} {
			if s.Lo != s.Hi && s != (PortSpan{0, 65535}) {
				seen[s] = true
			}
		}
	}
	return len(seen)
}

// arranged gives the layers of a long list; a short one has none.
func (g AccessGroup) arranged() []*layer {
	if g.layers == nil && len(g.Rules) >= shortList {
		return arrange(g.Rules)
	}
	return g.layers
}

// decides finds the entry that decides on a packet, -1 for none.
func (g AccessGroup) decides(p Packet) int {
	if g.layers != nil {
		return decide(g.layers, p)
	}
	return slices.IndexFunc(g.Rules, func(r Rule) bool {
		return (r.Proto == "ip" || r.Proto == p.Proto) && holds(r.Src, p.Src) && holds(r.Dst, p.Dst) &&
			within(p.SrcPort, r.SrcLo, r.SrcHi) && within(p.DstPort, r.DstLo, r.DstHi)
	})
}

// arrange puts a list into layers. A rule that an earlier one hides wholly, with the same fields, is left out.
func arrange(rules []Rule) []*layer {
	var layers []*layer
	open := 0 // the first layer that may still be joined
	split := spans(rules) > manySpans
	for n, r := range rules {
		r.parts(split, func(c class, k tuple) {
			at := -1
			for i := len(layers) - 1; i >= open && at < 0; i-- {
				if layers[i].overlaps(c, k) {
					at = i
				}
			}
			// Before an earlier rule that it overlaps it must not come, beside it neither: there it would be the same key.
			for i := max(at, open); i < len(layers); i++ {
				if layers[i].class == c {
					layers[i].add(k, n)
					return
				}
			}
			if len(layers)-open == openLayers {
				open = len(layers)
			}
			l := &layer{class: c, index: map[tuple]int{}, views: map[view]map[tuple]viewPorts{}}
			l.add(k, n)
			layers = append(layers, l)
		})
	}
	return layers
}

func (l *layer) add(k tuple, rule int) {
	if _, hidden := l.index[k]; hidden {
		return
	}
	l.index[k] = rule
	l.members = append(l.members, member{k, rule})
	for v, keys := range l.views {
		l.show(v, keys, k)
	}
}

func (v view) of(k tuple) tuple {
	return tuple{k.src & mask32(v.src), k.dst & mask32(v.dst), k.sport & mask16(v.sport), k.dport & mask16(v.dport)}
}

func (p portClass) ports(port uint16) PortSpan {
	if p.span != (PortSpan{}) {
		return p.span
	}
	return block(port, p.bits)
}

// show adds a key of the layer to a view.
func (l *layer) show(v view, keys map[tuple]viewPorts, k tuple) {
	now := viewPorts{l.sport.ports(k.sport), l.dport.ports(k.dport)}
	if was, ok := keys[v.of(k)]; ok {
		now.sport = PortSpan{min(now.sport.Lo, was.sport.Lo), max(now.sport.Hi, was.sport.Hi)}
		now.dport = PortSpan{min(now.dport.Lo, was.dport.Lo), max(now.dport.Hi, was.dport.Hi)}
	}
	keys[v.of(k)] = now
}

// overlaps says whether a packet may match both a rule of the layer and the given one. Where ranges of ports are compared with
// several rules at once it may say so wrongly, which costs a layer and nothing else.
func (l *layer) overlaps(c class, k tuple) bool {
	if l.proto != c.proto && l.proto != "ip" && c.proto != "ip" {
		return false
	}
	v := view{src: min(l.src, c.src), dst: min(l.dst, c.dst)}
	if l.sport.span == (PortSpan{}) && c.sport.span == (PortSpan{}) {
		v.sport = min(l.sport.bits, c.sport.bits)
	}
	if l.dport.span == (PortSpan{}) && c.dport.span == (PortSpan{}) {
		v.dport = min(l.dport.bits, c.dport.bits)
	}
	keys, ok := l.views[v]
	if !ok {
		keys = make(map[tuple]viewPorts, len(l.members))
		for _, m := range l.members {
			l.show(v, keys, m.tuple)
		}
		l.views[v] = keys
	}
	p, ok := keys[v.of(k)]
	return ok && p.sport.meets(c.sport.ports(k.sport)) && p.dport.meets(c.dport.ports(k.dport))
}

// rule gives a member as a rule of its own.
func (l *layer) rule(m member, from Rule) Rule {
	from.Src, from.Dst = prefixOf(m.src, l.src), prefixOf(m.dst, l.dst)
	s, d := l.sport.ports(m.sport), l.dport.ports(m.dport)
	from.SrcLo, from.SrcHi, from.DstLo, from.DstHi = s.Lo, s.Hi, d.Lo, d.Hi
	return from
}

func prefixOf(a uint32, bits uint8) netip.Prefix {
	if bits == 0 {
		return netip.Prefix{}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	return netip.PrefixFrom(netip.AddrFrom4(b), int(bits))
}

// find looks a packet up.
func (l *layer) find(p Packet) (rule int, ok bool) {
	if l.proto != "ip" && l.proto != p.Proto ||
		l.sport.span != (PortSpan{}) && !within(p.SrcPort, l.sport.span.Lo, l.sport.span.Hi) ||
		l.dport.span != (PortSpan{}) && !within(p.DstPort, l.dport.span.Lo, l.dport.span.Hi) {
		return 0, false
	}
	v := view{l.src, l.dst, l.sport.bits, l.dport.bits}
	rule, ok = l.index[v.of(tuple{address(p.Src), address(p.Dst), p.SrcPort, p.DstPort})]
	return rule, ok
}

// decide gives the place of the rule that decides on a packet, -1 for none.
func decide(layers []*layer, p Packet) int {
	for _, l := range layers {
		if rule, ok := l.find(p); ok {
			return rule
		}
	}
	return -1
}
