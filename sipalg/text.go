package sipalg

// Sweep translates the inside address literals of a text that leaves: lines of a
// session description, for which the other rooms know no better.
func (rw *Rewriter) Sweep(text string) string {
	p := &pass{Rewriter: rw, out: true}
	return p.sweep(text)
}

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
