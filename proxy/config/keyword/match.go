package keyword

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Arg is one word of a line that fits a pattern.
type Arg struct {
	Name    string // the argument's name; for a keyword the keyword itself in full
	Text    string // the word as typed; for a keyword the keyword in full
	Col     int
	Keyword bool
}

// Args are the words of a line in their order, keywords included.
type Args []Arg

// Get returns the first argument of a name.
func (a Args) Get(name string) (Arg, bool) {
	for _, x := range a {
		if !x.Keyword && x.Name == name {
			return x, true
		}
	}
	return Arg{}, false
}

// Text returns the text of the first argument of a name, or nothing.
func (a Args) Text(name string) string {
	x, _ := a.Get(name)
	return x.Text
}

// Int returns the whole number of the first argument of a name, or 0.
func (a Args) Int(name string) int {
	x, _ := a.Get(name)
	n, _ := strconv.Atoi(x.Text)
	return n
}

// Has says whether a keyword stands in the line.
func (a Args) Has(keyword string) bool {
	_, ok := a.At(keyword)
	return ok
}

// At finds a keyword of the line.
func (a Args) At(keyword string) (Arg, bool) {
	for _, x := range a {
		if x.Keyword && x.Text == keyword {
			return x, true
		}
	}
	return Arg{}, false
}

// ErrorKind is the way in which a line fits no pattern.
type ErrorKind int

// The ways in which a line fits no pattern.
const (
	Unknown    ErrorKind = iota + 1 // a word that is no keyword of its place
	Ambiguous                       // an abbreviation of several keywords
	Incomplete                      // the line ends too early
	Invalid                         // an argument that its kind refuses
)

// Error says which word of a line is wrong. A caller that must hide words, such as passwords, builds its own text from the
// fields: Error() quotes the word.
type Error struct {
	Kind     ErrorKind
	Index    int         // index of the word; for Incomplete the number of words
	Col      int         // its column; for Incomplete the column after the line's end
	Word     string      // as typed; for an argument that takes the rest of the line all of it
	Expected []Candidate // what would be right there
	Reason   string      // for Invalid: the kind's own words
	Arg      string      // for Invalid: the argument's name
}

func (e *Error) Error() string {
	switch e.Kind {
	case Ambiguous:
		return fmt.Sprintf("ambiguous keyword %q: %s", e.Word, List(e.Expected))
	case Incomplete:
		return "incomplete command: expected " + List(e.Expected)
	case Invalid:
		return fmt.Sprintf("invalid value %q: %s", e.Word, e.Reason)
	default:
		if len(e.Expected) == 1 && e.Expected[0].Text == EndOfLine {
			return fmt.Sprintf("unexpected word %q after the end of the command", e.Word)
		}
		return fmt.Sprintf("unknown keyword %q: expected %s", e.Word, List(e.Expected))
	}
}

// List writes candidates as "a, b or c". A word that may be any says what it is: its kind tells nothing.
func List(c []Candidate) string {
	var b strings.Builder
	for i, x := range c {
		switch {
		case i == 0:
		case i == len(c)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		text := x.Text
		if text == "WORD" && x.Argument != "" {
			text = strings.ToUpper(strings.ReplaceAll(x.Argument, "_", "-"))
		}
		b.WriteString(text)
	}
	return b.String()
}

// Match finds the pattern that the words fit. The error is that of the reading which got furthest.
func (t *Tree[T]) Match(words []Word) (value T, args Args, err *Error) {
	m := matcher[T]{tree: t, words: words}
	if n := m.walk(closure([]*node[T]{&t.root}), 0, nil); n != nil {
		return n.value, m.args, nil
	}
	return value, nil, m.err
}

// MatchLine splits a line and matches its words.
func (t *Tree[T]) MatchLine(line string) (T, Args, *Error) { return t.Match(Split(line)) }

type matcher[T any] struct {
	tree  *Tree[T]
	words []Word
	args  Args
	err   *Error
}

// fail keeps the error that stands furthest to the right; of two in one place the first.
func (m *matcher[T]) fail(e *Error) {
	if m.err == nil || e.Index > m.err.Index {
		m.err = e
	}
}

func (m *matcher[T]) walk(at []*node[T], i int, args Args) *node[T] {
	if i == len(m.words) {
		for _, n := range at {
			if n.final {
				m.args = args
				return n
			}
		}
		col := 1
		if i > 0 {
			last := m.words[i-1]
			col = last.End()
		}
		m.fail(&Error{Kind: Incomplete, Index: i, Col: col, Expected: m.tree.candidates(at, "")})
		return nil
	}
	w := m.words[i]
	key, several := keywordMatch(at, w.Text)
	if key != "" {
		next := closure(follow(at, key))
		if n := m.walk(next, i+1, append(args[:len(args):len(args)], Arg{Name: key, Text: key, Col: w.Col, Keyword: true})); n != nil {
			return n
		}
	}
	return m.arguments(at, i, args, key != "", several)
}

// arguments tries the word as an argument, after the keywords of the place.
func (m *matcher[T]) arguments(at []*node[T], i int, args Args, matched, several bool) *node[T] {
	w, reason, name, word, keywords := m.words[i], "", "", "", 0
	var tried []string // the different arguments of the place
	for _, n := range at {
		for _, e := range n.edges {
			if e.keyword != "" {
				keywords++
				continue
			}
			if !slices.Contains(tried, e.name) {
				tried = append(tried, e.name)
			}
			text, next := w.Text, i+1
			if e.kind.Rest {
				text, next = w.rest, len(m.words)
			}
			if e.kind.Check != nil {
				if err := e.kind.Check(text); err != nil {
					reason, name, word = err.Error(), e.name, text
					continue
				}
			}
			matched = true
			arg := Arg{Name: e.name, Text: text, Col: w.Col}
			if n := m.walk(closure([]*node[T]{e.to}), next, append(args[:len(args):len(args)], arg)); n != nil {
				return n
			}
		}
	}
	if matched || (m.err != nil && m.err.Index >= i) {
		return nil
	}
	e := &Error{Kind: Unknown, Index: i, Col: w.Col, Word: w.Text, Expected: m.tree.candidates(at, "")}
	switch {
	case several:
		e.Kind, e.Expected = Ambiguous, m.tree.candidates(at, w.Text)
	case len(tried) == 1 && (keywords == 0 || looksLikeValue(w.Text)):
		e.Kind, e.Reason, e.Arg, e.Word = Invalid, reason, name, word
	}
	m.fail(e)
	return nil
}

// looksLikeValue tells a mistyped number or address from a mistyped keyword.
func looksLikeValue(w string) bool { return w[0] >= '0' && w[0] <= '9' }

// keywordMatch finds the keyword of a place that a word stands for; several means that it abbreviates more than one.
func keywordMatch[T any](at []*node[T], word string) (key string, several bool) {
	for _, n := range at {
		for _, e := range n.edges {
			if e.keyword == "" {
				continue
			}
			if strings.EqualFold(word, e.keyword) || (e.alias != "" && strings.EqualFold(word, e.alias)) {
				return e.keyword, false
			}
			if !hasPrefixFold(e.keyword, word) && !hasPrefixFold(e.alias, word) {
				continue
			}
			if key != "" && key != e.keyword {
				several = true
			}
			key = e.keyword
		}
	}
	if several {
		// An exact keyword further on wins over the abbreviations before it.
		for _, n := range at {
			for _, e := range n.edges {
				if e.keyword != "" && (strings.EqualFold(word, e.keyword) || strings.EqualFold(word, e.alias)) {
					return e.keyword, false
				}
			}
		}
		return "", true
	}
	return key, false
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func follow[T any](at []*node[T], key string) []*node[T] {
	var out []*node[T]
	for _, n := range at {
		for _, e := range n.edges {
			if e.keyword == key {
				out = append(out, e.to)
			}
		}
	}
	return out
}
