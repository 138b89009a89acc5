package trace

import (
	"bytes"
	"net/netip"
	"strings"
)

// MaxCalls bounds the calls that a filter follows; the oldest is forgotten for a new one.
const MaxCalls = 1000

// Filter says which calls somebody looks at. Empty fields ask for nothing.
type Filter struct {
	CallID string
	Number string // in the Request-URI, From or To; a leading + may be left out
	Peer   string // address of an end, or domain in the Request-URI, From or To
}

func (f Filter) empty() bool { return f == Filter{} }

// tracker is a filter that follows the calls it has found.
type tracker struct {
	Filter
	calls map[string]struct{}
	order []string
}

// passes says whether somebody wants to see an event.
func (t *tracker) passes(e *Event) bool {
	if t.empty() {
		return true
	}
	if e.CallID != "" {
		if _, known := t.calls[e.CallID]; known {
			return true
		}
	}
	if !t.fits(e) {
		return false
	}
	if e.CallID != "" {
		t.follow(e.CallID)
	}
	return true
}

func (t *tracker) follow(id string) {
	if t.calls == nil {
		t.calls = map[string]struct{}{}
	}
	if len(t.order) == MaxCalls {
		delete(t.calls, t.order[0])
		t.order = append(t.order[:0], t.order[1:]...)
	}
	t.calls[id] = struct{}{}
	t.order = append(t.order, id)
}

func (t *tracker) fits(e *Event) bool {
	if t.CallID != "" && e.CallID != t.CallID {
		return false
	}
	if t.Number != "" && !names(e.Data, func(user, _ string) bool { return sameNumber(user, t.Number) }) {
		return false
	}
	if t.Peer == "" {
		return true
	}
	if a, err := netip.ParseAddr(t.Peer); err == nil && (e.From.Addr() == a || e.To.Addr() == a) {
		return true
	}
	return strings.EqualFold(e.Peer, t.Peer) || names(e.Data, func(_, host string) bool { return strings.EqualFold(host, t.Peer) })
}

func sameNumber(a, b string) bool {
	return a != "" && strings.TrimPrefix(a, "+") == strings.TrimPrefix(b, "+")
}

// names asks about the user and host of a message's Request-URI, From and To.
func names(data []byte, is func(user, host string) bool) bool {
	if len(data) == 0 {
		return false
	}
	first, _, _ := bytes.Cut(data, []byte("\r\n"))
	for _, text := range []string{string(first), header(data, "from", "f"), header(data, "to", "t")} {
		if user, host, ok := uri(text); ok && is(user, host) {
			return true
		}
	}
	return false
}

// uri finds the first SIP or telephone URI of a text (RFC 3261 section 19.1, RFC 3966). A display name before it may hold what looks like one: it is
// only shown, so a wrong guess shows a message too many.
func uri(text string) (user, host string, ok bool) {
	for _, scheme := range []string{"sips:", "sip:", "tel:"} {
		i := indexFold([]byte(text), []byte(scheme)) // not by ToLower, which makes bytes that are no text longer
		if i < 0 {
			continue
		}
		rest := text[i+len(scheme):]
		if n := strings.IndexAny(rest, ">; \t?"); n >= 0 {
			rest = rest[:n]
		}
		if scheme == "tel:" {
			return rest, "", true
		}
		if u, h, found := strings.Cut(rest, "@"); found {
			user, rest = u, h
		}
		if n := strings.LastIndexByte(rest, ':'); n >= 0 && !strings.HasSuffix(rest, "]") {
			rest = rest[:n]
		}
		return user, strings.Trim(rest, "[]"), true
	}
	return "", "", false
}

// header gives the first value of a header of a message, by its long and compact name in lower case.
func header(data []byte, long, compact string) string {
	for rest := data; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return ""
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if n := strings.ToLower(string(bytes.TrimSpace(name))); found && (n == long || n == compact) {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

var inline = []byte("inline:")

// blotted gives a copy of a message with x in the place of each SRTP key (RFC 4568: inline:KEY, up to a bar, a blank or the line's end). Its length stays,
// so that Content-Length stays true.
func blotted(data []byte) []byte {
	out := bytes.Clone(data)
	for rest := out; ; {
		i := indexFold(rest, inline)
		if i < 0 {
			return out
		}
		rest = rest[i+len(inline):]
		n := 0
		for n < len(rest) && !bytes.ContainsRune([]byte("| \t\r\n;"), rune(rest[n])) {
			rest[n] = 'x'
			n++
		}
		rest = rest[n:]
	}
}

// indexFold finds text in ASCII letters of either case.
func indexFold(b, text []byte) int {
	for i := 0; i+len(text) <= len(b); i++ {
		if bytes.EqualFold(b[i:i+len(text)], text) {
			return i
		}
	}
	return -1
}
