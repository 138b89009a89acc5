package config

import (
	"fmt"
	"strings"
)

// Limits of a text.
const (
	maxText  = 4 << 20
	maxLines = 20000
	maxLine  = 512
)

// Error is a mistake in a text.
type Error struct {
	File         string
	Line, Column int // from 1
	Message      string
	Text         string // the line
}

// Error is `file:line:column: error: message`, then the line and a caret below the place.
func (e Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: error: %s\n  %s\n  %s^", e.File, e.Line, e.Column, e.Message, e.Text, strings.Repeat(" ", max(0, e.Column-1)))
}

// Errors are all mistakes of a text.
type Errors []Error

// Error is one mistake after the other.
func (e Errors) Error() string {
	all := make([]string, len(e))
	for i, x := range e {
		all[i] = x.Error()
	}
	return strings.Join(all, "\n")
}

// token is a word of a line and its place.
type token struct {
	text      string
	line, col int
	raw       string
}

// setting is a line that a block may have.
type setting struct {
	usage    string
	min, max int // arguments
	many     bool
	set      func(p *parser, args []token)
}

// block is what begins at the margin.
type block struct {
	usage    string
	named    bool
	settings func(p *parser, head []token) map[string]setting // nil: the head is all
	end      func(p *parser, head []token)
}

type parser struct {
	file  string
	cfg   *Config
	errs  Errors
	refs  []func()
	heads map[string]token // blocks seen, by keyword and name
	used  map[string]bool  // settings seen in the block at hand
}

func (p *parser) fail(t token, format string, args ...any) {
	if len(p.errs) < 50 { // more help nobody
		p.errs = append(p.errs, Error{p.file, t.line, t.col, fmt.Sprintf(format, args...), secretless(t.raw)})
	}
}

// words splits a line; the column of a tab is that of one character.
func words(raw string, no int) []token {
	var out []token
	for i := 0; i < len(raw); {
		if raw[i] == ' ' || raw[i] == '\t' {
			i++
			continue
		}
		begin := i
		for i < len(raw) && raw[i] != ' ' && raw[i] != '\t' {
			i++
		}
		out = append(out, token{raw[begin:i], no, begin + 1, raw})
	}
	return out
}

// Parse reads a text. File is for messages. The error is of type Errors and names every mistake.
func Parse(file string, text []byte) (*Config, error) {
	p := &parser{file: file, cfg: defaults(), heads: make(map[string]token)}
	if len(text) > maxText {
		return nil, Errors{{file, 1, 1, fmt.Sprintf("the text is longer than %d bytes", maxText), ""}}
	}
	var current map[string]setting
	var head []token
	var end func(*parser, []token)
	var skip bool // of a block that is wrong
	finish := func() {
		if end != nil {
			end(p, head)
		}
		current, end, skip = nil, nil, false
	}
	for i, raw := range strings.Split(string(text), "\n") {
		raw = strings.TrimSuffix(raw, "\r")
		w := words(raw, i+1)
		if len(w) == 0 || w[0].text[0] == '!' || w[0].text[0] == '#' {
			continue
		}
		switch {
		case i >= maxLines:
			p.fail(w[0], "more than %d lines", maxLines)
			return nil, p.errs
		case len(raw) > maxLine:
			p.fail(w[0], "the line is longer than %d characters", maxLine)
		case !printable(raw):
			p.fail(w[0], "a character that is not printable ASCII")
		case w[0].col > 1 && current == nil && !skip:
			p.fail(w[0], "an indented line belongs to no block")
		case w[0].col > 1:
			if !skip {
				p.setting(current, w)
			}
		default:
			finish()
			head = w
			current, end, skip = p.open(w)
		}
	}
	finish()
	for _, f := range p.refs {
		f()
	}
	if len(p.errs) == 0 {
		p.complete()
	}
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.cfg, nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] != '\t' && (s[i] < ' ' || s[i] > '~') {
			return false
		}
	}
	return true
}

// open begins a block.
func (p *parser) open(w []token) (settings map[string]setting, end func(*parser, []token), skip bool) {
	b, ok := blocks[w[0].text]
	if !ok {
		p.fail(w[0], "unknown word %q; known are %s", w[0].text, known(blocks))
		return nil, nil, true
	}
	key := w[0].text
	if b.named {
		if len(w) < 2 {
			p.fail(w[0], "want %s", b.usage)
			return nil, nil, true
		}
		key += " " + w[1].text
	}
	if before, twice := p.heads[key]; twice {
		p.fail(w[0], "%s stands in line %d already", key, before.line)
		return nil, nil, true
	}
	p.heads[key], p.used = w[0], make(map[string]bool)
	return b.settings(p, w), b.end, false
}

// setting reads a line of a block.
func (p *parser) setting(known_ map[string]setting, w []token) {
	s, ok := known_[w[0].text]
	switch {
	case !ok:
		p.fail(w[0], "unknown word %q; known here are %s", w[0].text, known(known_))
	case len(w)-1 < s.min:
		p.fail(w[len(w)-1], "want %s", s.usage)
	case len(w)-1 > s.max:
		p.fail(w[s.max+1], "want %s", s.usage)
	case !s.many && p.used[w[0].text]:
		p.fail(w[0], "%s stands twice", w[0].text)
	default:
		p.used[w[0].text] = true
		s.set(p, w[1:])
	}
}
