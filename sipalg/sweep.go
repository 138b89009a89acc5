package sipalg

import (
	"net/netip"
	"strings"
)

// sweep translates the address literals of a text. Ports and everything around
// stay. A literal stands by itself: it is not part of a longer dotted or hex
// number. An escape (%40) counts as one character before a literal.
func (p *pass) sweep(s string) string {
	if strings.Count(s, ":") >= 2 {
		s = p.sweep6(s)
	}
	if strings.Count(s, ".") < 3 {
		return s
	}
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) || !literalStart(s, i) {
			continue
		}
		a, end, ok := literal4(s, i)
		if !ok {
			continue
		}
		if to, _, kind := p.translate(a, portAfter(s, end)); kind != foreign {
			b.WriteString(s[done:i])
			b.WriteString(to.String())
			done = end
		}
		i = end - 1
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// literalStart reports whether an IPv4 literal may begin at s[i].
func literalStart(s string, i int) bool {
	if i >= 3 && s[i-3] == '%' && charClass[s[i-1]]&charClass[s[i-2]]&classHex != 0 {
		return true
	}
	if i == 0 {
		return true
	}
	if s[i-1] == '.' {
		return i == 1 || !isDigit(s[i-2])
	}
	return !isDigit(s[i-1])
}

// literal4 reads a dotted quad that begins at s[i]; end is the index after it.
func literal4(s string, i int) (a netip.Addr, end int, ok bool) {
	var quad [4]byte
	for n := range quad {
		start, value := i, 0
		for i < len(s) && isDigit(s[i]) && i-start < 3 {
			value = value*10 + int(s[i]-'0')
			i++
		}
		if i == start || value > 255 || i-start > 1 && s[start] == '0' {
			return a, 0, false
		}
		quad[n] = byte(value)
		if n < 3 {
			if i == len(s) || s[i] != '.' {
				return a, 0, false
			}
			i++
		}
	}
	if i < len(s) && (isDigit(s[i]) || s[i] == '.' && i+1 < len(s) && isDigit(s[i+1])) {
		return a, 0, false
	}
	return netip.AddrFrom4(quad), i, true
}

// portAfter reads ":port" at s[i], 0 where there is none.
func portAfter(s string, i int) uint16 {
	if i >= len(s) || s[i] != ':' {
		return 0
	}
	j := i + 1
	for j < len(s) && isDigit(s[j]) && j-i < 7 {
		j++
	}
	n, ok := number(s[i+1:j], 65535)
	if !ok {
		return 0
	}
	return uint16(n)
}

// longest6 is the length of the longest IPv6 literal.
const longest6 = 45

// sweep6 translates IPv6 literals, with the brackets around them where an IPv4
// address takes their place. In "Addressed:fd00::1" the literal is looked for
// after each colon, since "d" could be its first group.
func (p *pass) sweep6(s string) string {
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); i++ {
		if !charIn6(s[i]) {
			continue
		}
		start := i
		for i < len(s) && charIn6(s[i]) {
			i++
		}
		to, start, end, ok := p.literal6(s, max(start, i-longest6-2), i)
		if !ok {
			continue
		}
		if start > 0 && s[start-1] == '[' && end < len(s) && s[end] == ']' && to.Is4() {
			start, end = start-1, end+1
		}
		b.WriteString(s[done:start])
		b.WriteString(to.String())
		done = end
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

func charIn6(c byte) bool { return charClass[c]&classHex != 0 || c == ':' || c == '.' }

// literal6 looks for a literal with a translation that ends where the run
// s[start:end] does, punctuation apart.
func (p *pass) literal6(s string, start, end int) (to netip.Addr, from, until int, ok bool) {
	for end > start && s[end-1] == '.' || end > start+1 && s[end-1] == ':' && s[end-2] != ':' {
		end--
	}
	for start < end {
		if strings.Count(s[start:end], ":") < 2 {
			break
		}
		if a, ok := parseAddr(s[start:end]); ok {
			if to, _, kind := p.translate(a.Unmap(), 0); kind != foreign {
				return to, start, end, true
			}
		}
		if start >= 1 && s[start-1] == '%' && end-start > 2 {
			start += 2 // "%40fd00::1"
			continue
		}
		next := strings.IndexAny(s[start:end], ":.")
		if next < 0 {
			break
		}
		// "::1" is looked at from each of its colons on, "a:b" from "b".
		if next > 0 && s[start+next] == ':' && start+next+1 < end && s[start+next+1] == ':' {
			start += next
			continue
		}
		start += next + 1
	}
	return netip.Addr{}, 0, 0, false
}
