package config

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

func known[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

// number reads a decimal between lo and hi.
func (p *parser) number(t token, lo, hi int) int {
	n, err := strconv.Atoi(t.text)
	if err != nil || n < lo || n > hi {
		p.fail(t, "%q: want a number from %d to %d", t.text, lo, hi)
		return lo
	}
	return n
}

func (p *parser) seconds(t token, lo, hi int) time.Duration {
	return time.Duration(p.number(t, lo, hi)) * time.Second
}

// name reads the name of a block: letters, digits and .-_ .
func (p *parser) name(t token, limit int) string {
	for _, r := range t.text {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", r) {
			p.fail(t, "%q: a name has letters, digits, '.', '-' and '_' alone", t.text)
			return t.text
		}
	}
	if len(t.text) > limit {
		p.fail(t, "a name of this kind has at most %d characters", limit)
	}
	return t.text
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// e164 reads + and up to 15 digits.
func (p *parser) e164(t token) string {
	if d, ok := strings.CutPrefix(t.text, "+"); !ok || !digits(d) || len(d) > 15 {
		p.fail(t, "%q: want + and up to 15 digits", t.text)
	}
	return t.text
}

func (p *parser) address(t token) netip.Addr {
	a, err := netip.ParseAddr(t.text)
	if err != nil || !a.Is4() {
		p.fail(t, "%q: want an IPv4 address", t.text)
	}
	return a
}

// listener reads TRANSPORT ADDRESS [port N].
func (p *parser) listener(a []token, transports ...string) Listener {
	l := Listener{Transport: a[0].text}
	if !slices.Contains(transports, l.Transport) {
		p.fail(a[0], "%q: want %s", l.Transport, strings.Join(transports, " or "))
	}
	return Listener{l.Transport, p.addrPort(a[1:], 5060)}
}

// addrPort reads ADDRESS [port N].
func (p *parser) addrPort(a []token, port int) netip.AddrPort {
	addr := p.address(a[0])
	if len(a) > 1 {
		port = p.port(a[1:])
	}
	return netip.AddrPortFrom(addr, uint16(port))
}

func (p *parser) port(a []token) int {
	if a[0].text != "port" || len(a) < 2 {
		p.fail(a[0], "want port 1-65535")
		return 0
	}
	return p.number(a[1], 1, 65535)
}

func (p *parser) boolean(t token) bool {
	switch t.text {
	case "true":
		return true
	case "false":
		return false
	}
	p.fail(t, "%q: want true or false", t.text)
	return false
}

func (p *parser) sensitivity(t token) Sensitivity {
	i := slices.Index(sensitivities, t.text)
	if i < 0 {
		p.fail(t, "%q: want %s", t.text, strings.Join(sensitivities, ", "))
		return Nominal
	}
	return Sensitivity(i)
}

// domain reads a domain name in ASCII; it is told in lower case.
func (p *parser) domain(t token) string {
	d := strings.ToLower(t.text)
	ok := len(d) <= 128 && strings.Contains(d, ".")
	for label := range strings.SplitSeq(d, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' &&
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	}
	if !ok {
		p.fail(t, "%q: want a domain name of at most 128 characters", t.text)
	}
	return d
}

// text joins the rest of a line, at most 128 characters.
func (p *parser) text(a []token) string {
	s := a[0].raw[a[0].col-1:]
	if len(s) > 128 {
		p.fail(a[0], "a description has at most 128 characters")
	}
	return s
}

// ref demands, when all is read, that a name exists.
func ref[V any](p *parser, t token, kind string, in map[string]V) string {
	p.refs = append(p.refs, func() {
		if _, ok := in[t.text]; !ok {
			p.fail(t, "there is no %s %q", kind, t.text)
		}
	})
	return t.text
}
