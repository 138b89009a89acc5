package sipalg

// Sweep translates the inside address literals of a text that leaves: lines of a
// session description, for which the other rooms know no better.
func (rw *Rewriter) Sweep(text string) string {
	p := &pass{Rewriter: rw, out: true}
	return p.sweep(text)
}
