package keyword

import (
	"sort"
	"strings"
)

// EndOfLine is the candidate that says that the command is complete.
const EndOfLine = "<cr>"

// Candidate is a word that may stand in a place.
type Candidate struct {
	Text    string // the keyword in full, an argument's label or value, or EndOfLine
	Help    string
	Keyword bool // it can be typed as it is
	// Argument is the name of the argument that may stand here; empty for keywords.
	Argument string
}

// Help lists what may follow a line: after a blank every next word, else the words that begin as the last one does. Nil means
// that the line fits no pattern.
func (t *Tree[T]) Help(line string) []Candidate {
	at, partial := t.descend(line)
	return t.candidates(at, partial)
}

// Complete extends the last word of a line as far as it is certain, with a blank after it when it is whole. The candidates are
// those of Help; they are worth showing when the line did not change.
func (t *Tree[T]) Complete(line string) (string, []Candidate) {
	at, partial := t.descend(line)
	all := t.candidates(at, partial)
	return Extend(line, all), all
}

// Partial is the last, unfinished word of a line; empty behind a blank.
func Partial(line string) string {
	words := Split(line)
	if len(words) == 0 || strings.HasSuffix(line, " ") || strings.HasSuffix(line, "\t") {
		return ""
	}
	return words[len(words)-1].Text
}

// Extend is what Complete makes of a line whose last word may be one of the candidates.
func Extend(line string, all []Candidate) string {
	partial := Partial(line)
	var fits []string
	for _, c := range all {
		if c.Keyword && hasPrefixFold(c.Text, partial) {
			fits = append(fits, c.Text)
		}
	}
	if len(fits) == 0 {
		return line
	}
	common := fits[0]
	for _, f := range fits[1:] {
		n := 0
		for n < len(common) && n < len(f) && common[n] == f[n] {
			n++
		}
		common = common[:n]
	}
	if len(common) < len(partial) {
		return line
	}
	done := line[:len(line)-len(partial)] + common
	if len(fits) == 1 && len(all) == 1 {
		done += " "
	}
	return done
}

// descend follows all whole words of a line and returns the last, unfinished one.
func (t *Tree[T]) descend(line string) (at []*node[T], partial string) {
	words := Split(line)
	if len(words) > 0 && !strings.HasSuffix(line, " ") && !strings.HasSuffix(line, "\t") {
		partial = words[len(words)-1].Text
		words = words[:len(words)-1]
	}
	at = closure([]*node[T]{&t.root})
	for _, w := range words {
		at = step(at, w)
	}
	return at, partial
}

// step is the places after one more word. An exact or unambiguous keyword hides the arguments of its place, as in Match.
func step[T any](at []*node[T], w Word) []*node[T] {
	if key, _ := keywordMatch(at, w.Text); key != "" {
		return closure(follow(at, key))
	}
	var next []*node[T]
	for _, n := range at {
		for _, e := range n.edges {
			if e.keyword != "" || (e.kind.Check != nil && e.kind.Check(w.Text) != nil) {
				continue
			}
			if e.kind.Rest {
				// Text goes on to the end of the line: this place stays open behind each of its words.
				next = append(next, &node[T]{edges: []*edge[T]{e}, skips: []*node[T]{e.to}})
				continue
			}
			next = append(next, e.to)
		}
	}
	return closure(next)
}

// candidates lists the words of a place that begin with partial, keywords in alphabetical order first.
func (t *Tree[T]) candidates(at []*node[T], partial string) []Candidate {
	var keywords, arguments []Candidate
	end := false
	seen := map[string]bool{}
	put := func(list *[]Candidate, c Candidate) {
		if !seen[c.Text] {
			seen[c.Text] = true
			*list = append(*list, c)
		}
	}
	for _, n := range at {
		end = end || n.final
		for _, e := range n.edges {
			if e.keyword == "" {
				t.argument(e, partial, func(c Candidate) { put(&arguments, c) })
				continue
			}
			if hasPrefixFold(e.keyword, partial) || (partial != "" && hasPrefixFold(e.alias, partial)) {
				help := t.help[e.keyword]
				if help == "" {
					help = e.help
				}
				put(&keywords, Candidate{Text: e.keyword, Help: help, Keyword: true})
			}
		}
	}
	sort.Slice(keywords, func(i, j int) bool { return keywords[i].Text < keywords[j].Text })
	out := append(keywords, arguments...)
	if end && partial == "" {
		out = append(out, Candidate{Text: EndOfLine})
	}
	return out
}

func (t *Tree[T]) argument(e *edge[T], partial string, put func(Candidate)) {
	help := t.help["<"+e.name+">"]
	if help == "" {
		help = e.help
	}
	if e.kind.Suggest != nil {
		for _, v := range e.kind.Suggest() {
			if strings.HasPrefix(v, partial) {
				put(Candidate{Text: v, Help: help, Keyword: true})
			}
		}
	}
	if partial == "" || e.kind.Check == nil || e.kind.Check(partial) == nil {
		put(Candidate{Text: e.kind.Label, Help: help, Argument: e.name})
	}
}
