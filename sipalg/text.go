package sipalg

import "net/netip"

// Sweep translates the inside address literals of a text that leaves: lines of a
// session description, for which the other rooms know no better.
func (rw *Rewriter) Sweep(text string) string {
	p := &pass{Rewriter: rw, out: true}
	return p.sweep(text)
}

// texts makes strings in memory that they share: a translation makes several short ones, which live and go together. What is kept of them longer
// has to be copied. The zero value is ready.
type texts struct{ b []byte }

// textsSize is the memory in bytes that is got at a time.
const textsSize = 320

// begin gives room for n bytes; what is appended there becomes a string by end.
func (t *texts) begin(n int) []byte {
	if cap(t.b)-len(t.b) < n {
		t.b = make([]byte, 0, max(n, textsSize))
	}
	return t.b[len(t.b):]
}

// end takes what was appended to what begin gave.
func (t *texts) end(b []byte) string {
	if len(b) <= cap(t.b)-len(t.b) {
		t.b = t.b[:len(t.b)+len(b)] // else it became too long, and append has moved it
	}
	return textOf(b)
}

func (t *texts) join(parts ...string) string {
	n := 0
	for _, s := range parts {
		n += len(s)
	}
	b := t.begin(n)
	for _, s := range parts {
		b = append(b, s...)
	}
	return t.end(b)
}

// host writes an address as a URI or a Via does.
func (t *texts) host(a netip.Addr) string {
	b := t.begin(longest6 + 2)
	if a.Is4() {
		return t.end(a.AppendTo(b))
	}
	return t.end(append(a.AppendTo(append(b, '[')), ']'))
}

func (t *texts) uri(u *URI) string {
	return t.end(u.append(t.begin(64 + len(u.User) + len(u.Headers))))
}

func (t *texts) via(v *Via) string { return t.end(v.append(t.begin(128))) }

// byteSet holds ASCII characters. A search for one of them that makes its set anew each time, as that of package strings does, costs more than
// the search.
type byteSet [256]bool

func newByteSet(chars string) *byteSet {
	b := new(byteSet)
	for i := range len(chars) {
		b[chars[i]] = true
	}
	return b
}

// index gives the place of the first character of the set in s, or -1.
func (b *byteSet) index(s string) int {
	for i := range len(s) {
		if b[s[i]] {
			return i
		}
	}
	return -1
}

// Characters that end something, or that must not stand in it.
var (
	blank       = newByteSet(" \t")
	outsideName = newByteSet("\",;:@>")
	specEnd     = newByteSet("; \t")
	notInSpec   = newByteSet("?,")
	notInValue  = newByteSet("\", \t<>")
	notInCallID = newByteSet(" \t,")
)
