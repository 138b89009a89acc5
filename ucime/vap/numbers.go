package vap

import (
	"cmp"
	"iter"
	"slices"
	"strconv"
	"strings"

	"imeproxy/ucime/learn"
)

// Pattern is a number, or up to 1,000 that differ in their last digits: + and 1 to 15 digits, of which up to three at the end may be X
// (guide lines 2845-2865). ParsePattern gives its canonical form, with X in upper case.
type Pattern string

// ParsePattern checks a pattern.
func ParsePattern(s string) (Pattern, error) {
	p := strings.ToUpper(s)
	digits := strings.TrimRight(p, "X")
	wild := len(p) - len(digits)
	if wild > 3 || len(p) > 16 || len(p) < 2 {
		return "", bad("pattern %.32q: want + and 1 to 15 digits, of which up to 3 at the end may be X", s)
	}
	if !learn.Number(digits + strings.Repeat("0", wild)).Valid() {
		return "", bad("pattern %.32q: want + and 1 to 15 digits, of which up to 3 at the end may be X", s)
	}
	return Pattern(p), nil
}

// A number is a point on a line: its count of digits, then its value. The spans of patterns of different lengths never touch.
const lengthUnit = 1e15

type span struct{ low, high uint64 }

func (p Pattern) span() span {
	digits := strings.TrimRight(string(p[1:]), "X")
	width := uint64(1)
	for range len(p) - 1 - len(digits) {
		width *= 10
	}
	value, _ := strconv.ParseUint("0"+digits, 10, 64)
	low := uint64(len(p)-1)*lengthUnit + value*width
	return span{low, low + width - 1}
}

// Numbers is a set of numbers, kept as ranges. The nil set is empty. A set does not change once it is made.
type Numbers struct {
	spans []span // in order, apart from each other by more than one
	count uint64
}

// NewNumbers makes the set of all numbers of the patterns less those of exclude.
func NewNumbers(patterns, exclude []Pattern) *Numbers {
	return newNumbers(subtract(merge(spansOf(patterns)), merge(spansOf(exclude))))
}

// Union joins sets.
func Union(sets ...*Numbers) *Numbers {
	var all []span
	for _, s := range sets {
		if s != nil {
			all = append(all, s.spans...)
		}
	}
	return newNumbers(merge(all))
}

func newNumbers(spans []span) *Numbers {
	n := &Numbers{spans: spans}
	for _, s := range spans {
		n.count += s.high - s.low + 1
	}
	return n
}

func spansOf(patterns []Pattern) []span {
	spans := make([]span, len(patterns))
	for i, p := range patterns {
		spans[i] = p.span()
	}
	return spans
}

// merge sorts spans and joins those that touch.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.low, b.low) })
	out := spans[:0:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.low <= out[n-1].high+1 {
			out[n-1].high = max(out[n-1].high, s.high)
			continue
		}
		out = append(out, s)
	}
	return out
}

// subtract takes b from a; both are merged.
func subtract(a, b []span) []span {
	var out []span
	for _, s := range a {
		for len(b) > 0 && b[0].high < s.low {
			b = b[1:]
		}
		whole := true
		for _, x := range b {
			if x.low > s.high {
				break
			}
			if x.low > s.low {
				out = append(out, span{s.low, x.low - 1})
			}
			if x.high >= s.high {
				whole = false
				break
			}
			s.low = x.high + 1
		}
		if whole {
			out = append(out, s)
		}
	}
	return out
}

// Count is the number of numbers.
func (n *Numbers) Count() uint64 {
	if n == nil {
		return 0
	}
	return n.count
}

// Contains reports whether the number is in the set.
func (n *Numbers) Contains(number learn.Number) bool {
	if n == nil || !number.Valid() {
		return false
	}
	at := Pattern(number).span().low
	i, found := slices.BinarySearchFunc(n.spans, at, func(s span, at uint64) int { return cmp.Compare(s.low, at) })
	return found || i > 0 && at <= n.spans[i-1].high
}

// Equal reports whether both sets have the same numbers.
func (n *Numbers) Equal(o *Numbers) bool {
	if n == nil || o == nil {
		return n.Count() == o.Count() // both empty
	}
	return slices.Equal(n.spans, o.spans)
}

// All gives every number once, short ones first.
func (n *Numbers) All() iter.Seq[learn.Number] {
	return func(yield func(learn.Number) bool) {
		if n == nil {
			return
		}
		for _, s := range n.spans {
			for at := s.low; at <= s.high; at++ {
				digits := strconv.FormatUint(at%lengthUnit, 10)
				length := int(at / lengthUnit)
				if !yield(learn.Number("+" + strings.Repeat("0", length-len(digits)) + digits)) {
					return
				}
			}
		}
	}
}
