// Package keyword holds one structure, a Tree, that turns the words of a command line into a value, and gives from the same
// patterns the list that `?` shows, the completion that Tab makes, abbreviations, and `no` forms.
//
// Data in: patterns such as
//
//	ticket epoch <1-255> password <WORD>
//	access-list <id:WORD241> [extended] {permit|deny} {ip|icmp} <src:A.B.C.D>
//
// and lines that an operator typed. Data out: the value of the pattern that the line fits with its arguments, or an Error that
// says which word is wrong and what would have been right.
//
// Pattern syntax, elements apart by blanks:
//
//	word            a keyword; any abbreviation that fits no other keyword in that place is accepted, in either letter case
//	word=other      a keyword with another spelling, which is accepted and never offered
//	<KIND>          an argument named KIND; <name:KIND> names it
//	[ ... ]         what may be left out
//	{ a b | c }     alternatives
//
// Kinds are WORD, WORDn (at most n characters), LINE (the rest of the line), A.B.C.D (an IPv4 address), LO-HI (a whole number
// in that range) and those that Define added.
//
// Where a keyword and an argument are both possible the keyword is tried first, and the argument when the rest of the line does
// not fit. Limits: a pattern is the program's own text, so a malformed one panics in Add; lines are bounded by the caller.
//
// A Tree is built by one goroutine; after the last Add and Define it may be read by any number of them.
package keyword
