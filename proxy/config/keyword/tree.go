package keyword

import (
	"fmt"
	"slices"
	"strings"
)

// Tree holds the patterns of one mode of a command line. The zero value is empty and ready.
type Tree[T any] struct {
	root  node[T]
	kinds map[string]Kind
	help  map[string]string
}

// node is a place between two words. Groups of a pattern share the nodes that follow them, so a pattern with many alternatives
// stays as small as its text.
type node[T any] struct {
	edges []*edge[T]
	skips []*node[T] // places that are reached without a word
	final bool
	value T
	help  string
}

type edge[T any] struct {
	keyword string // empty for an argument
	alias   string
	name    string
	kind    Kind
	help    string
	to      *node[T]
}

// Describe gives a keyword its own help text wherever it stands; without one, `?` shows the help of the first pattern there.
func (t *Tree[T]) Describe(keyword, help string) {
	if t.help == nil {
		t.help = map[string]string{}
	}
	t.help[keyword] = help
}

// Add adds a pattern with its help line and value. A malformed pattern panics: patterns are written by the programmer.
func (t *Tree[T]) Add(pattern, help string, value T) {
	p := &patternReader[T]{tree: t, help: help, in: tokens(pattern)}
	end := p.sequence(&t.root)
	if p.err == nil && len(p.in) > 0 {
		p.err = fmt.Errorf("%q is not expected", p.in[0])
	}
	if p.err == nil && end == &t.root {
		p.err = fmt.Errorf("empty pattern")
	}
	if p.err != nil {
		panic(fmt.Sprintf("keyword: pattern %q: %v", pattern, p.err))
	}
	end.final, end.value, end.help = true, value, help
}

// AddNo adds a pattern and its form with `no` before it, each with its own value.
func (t *Tree[T]) AddNo(pattern, help string, value, noValue T) {
	t.Add(pattern, help, value)
	t.Add("no "+pattern, "Undo: "+help, noValue)
}

func tokens(pattern string) []string {
	for _, c := range []string{"[", "]", "{", "}", "|"} {
		pattern = strings.ReplaceAll(pattern, c, " "+c+" ")
	}
	return strings.Fields(pattern)
}

type patternReader[T any] struct {
	tree *Tree[T]
	help string
	in   []string
	err  error
}

// sequence reads elements up to a closing mark and returns the node after the last one.
func (p *patternReader[T]) sequence(from *node[T]) *node[T] {
	at := from
	for p.err == nil && len(p.in) > 0 {
		word := p.in[0]
		switch word {
		case "]", "}", "|":
			return at
		}
		p.in = p.in[1:]
		switch word {
		case "[":
			at = p.group(at, "]", true)
		case "{":
			at = p.group(at, "}", false)
		default:
			next := &node[T]{}
			at.edges = append(at.edges, p.edge(word, next))
			at = next
		}
	}
	return at
}

func (p *patternReader[T]) group(from *node[T], closing string, optional bool) *node[T] {
	join := &node[T]{}
	for p.err == nil {
		head := &node[T]{}
		from.skips = append(from.skips, head)
		tail := p.sequence(head)
		if tail == head {
			p.err = fmt.Errorf("an empty group")
			return join
		}
		tail.skips = append(tail.skips, join)
		if p.err != nil || len(p.in) == 0 {
			p.err = fmt.Errorf("%q is missing", closing)
			return join
		}
		mark := p.in[0]
		p.in = p.in[1:]
		if mark == closing {
			break
		}
		if mark != "|" {
			p.err = fmt.Errorf("%q where %q is expected", mark, closing)
		}
	}
	if optional {
		from.skips = append(from.skips, join)
	}
	return join
}

func (p *patternReader[T]) edge(word string, to *node[T]) *edge[T] {
	if !strings.HasPrefix(word, "<") {
		kw, alias, _ := strings.Cut(word, "=")
		return &edge[T]{keyword: kw, alias: alias, help: p.help, to: to}
	}
	body, ok := strings.CutSuffix(word[1:], ">")
	if !ok {
		p.err = fmt.Errorf("%q has no end", word)
		return nil
	}
	name, kindName, named := strings.Cut(body, ":")
	if !named {
		kindName = name
	}
	kind, err := p.tree.kind(kindName)
	if err != nil {
		p.err = err
	}
	return &edge[T]{name: name, kind: kind, help: p.help, to: to}
}

// closure is every node that is reached from the given ones without a word, in the order of the patterns.
func closure[T any](from []*node[T]) []*node[T] {
	if len(from) == 1 && len(from[0].skips) == 0 {
		return from
	}
	out := make([]*node[T], 0, len(from)+8)
	var visit func(n *node[T])
	visit = func(n *node[T]) {
		if slices.Contains(out, n) {
			return
		}
		out = append(out, n)
		for _, s := range n.skips {
			visit(s)
		}
	}
	for _, n := range from {
		visit(n)
	}
	return out
}
