package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"imeproxy/proxy/config/keyword"
)

// Edit is what one operator types in configuration mode: the lines of the sub-mode that stands open, on top of a configuration that others may
// change meanwhile. The zero value stands in global configuration mode. Not safe for concurrent use.
type Edit struct {
	lines []string // of the sub-mode that is open, its own first line included
	mode  *mode    // in which the next line is read; nil: global
}

// Typed is what a line brought about.
type Typed struct {
	// Changes are those that are finished, each for Append: the lines of a sub-mode that was left, a single command. Each stands by itself.
	Changes [][]string
	// Leave says that the line left configuration mode: `end`, or `exit` in global mode.
	Leave bool
	// Body says that lines of a certificate are to follow, up to quit.
	Body bool
}

// Prompt is what stands between the parentheses of the prompt, such as config-uc-ime.
func (e *Edit) Prompt() string { return e.in().prompt }

// Global says whether no sub-mode stands open.
func (e *Edit) Global() bool { return e.mode == nil }

func (e *Edit) in() *mode {
	if e.mode == nil {
		return modes().global
	}
	return e.mode
}

// Abandon leaves the sub-mode and forgets what was typed in it.
func (e *Edit) Abandon() { *e = Edit{} }

// Line reads a line, or several where certificates follow their command. On a mistake nothing is taken and the mode stays.
func (e *Edit) Line(base *Config, lines ...string) (Typed, Diagnostics) {
	var out Typed
	var in *mode
	held, fresh := split(e.lines), split(lines)
	p, before := base.over(append(held, fresh...), func(p *parser, m *mode, cmd command) {
		if p.next <= len(p.lines)-len(fresh) {
			return
		}
		in = m
		out.Leave = cmd.pattern == "end" || (m == modes().global && (cmd.pattern == "exit" || cmd.pattern == "quit"))
		out.Body = len(lines) == 1 && cmd.body
	})
	if mistakes := behind(p.found, before+len(held)); len(mistakes) > 0 {
		return Typed{}, mistakes
	}
	if p.found.HasErrors() { // what it stands on has changed
		return Typed{}, p.found.Errors()
	}
	if in == nil || out.Body { // a comment, or a command that waits for its certificate
		return out, nil
	}
	if (in == modes().global || out.Leave) && len(e.lines) > 0 {
		out.Changes, e.lines = append(out.Changes, e.lines), nil
	}
	if !out.Leave {
		e.lines = append(e.lines, lines...)
	}
	if len(p.modes) == 1 && len(e.lines) > 0 {
		out.Changes, e.lines = append(out.Changes, e.lines), nil
	}
	e.mode = nil
	if len(p.modes) > 1 {
		e.mode = p.modes[len(p.modes)-1]
	}
	return out, nil
}

// Help lists what may stand at the end of a line that is being typed on top of a configuration: commands of the open mode, then of global mode;
// names that exist before what they are names of.
func (e *Edit) Help(base *Config, text string) []keyword.Candidate {
	found := withNames(base, &e.in().tree, text, e.in().tree.Help(text))
	if e.mode != nil && len(strings.Fields(text)) > 0 {
		global := &modes().global.tree
		for _, c := range withNames(base, global, text, global.Help(text)) {
			if !slices.ContainsFunc(found, func(x keyword.Candidate) bool { return x.Text == c.Text }) {
				found = append(found, c)
			}
		}
	}
	return found
}

// Complete extends a line that is being typed as far as it is certain.
func (e *Edit) Complete(base *Config, text string) (string, []keyword.Candidate) {
	t := &e.in().tree
	found := t.Help(text)
	if len(found) == 0 {
		t = &modes().global.tree
		found = t.Help(text)
	}
	found = withNames(base, t, text, found)
	// Where a name that exists fits, it is what is meant: that any other word may stand there keeps it from being completed otherwise.
	if typed := keyword.Partial(text); typed != "" && slices.ContainsFunc(found, func(c keyword.Candidate) bool { return c.Keyword && strings.HasPrefix(c.Text, typed) }) {
		found = slices.DeleteFunc(found, func(c keyword.Candidate) bool { return c.Argument != "" })
	}
	return keyword.Extend(text, found), found
}

// CheckWord says what is wrong with a word as an argument of a kind of the commands' patterns (HOST, PASSWORD, 1-255 and so on), or nil.
func CheckWord(kind, word string) error { return modes().global.tree.Check(kind, word) }

// split gives the lines of pieces of text.
func split(pieces []string) []string {
	if len(pieces) == 0 {
		return nil
	}
	return strings.Split(strings.Join(pieces, "\n"), "\n")
}

// behind are the errors behind a line, counted from there.
func behind(found Diagnostics, line int) Diagnostics {
	var out Diagnostics
	for _, d := range found.Errors() {
		if d.Line > line {
			d.Line -= line
			out = append(out, d)
		}
	}
	return out
}

// Append gives a configuration with lines behind it. The Diagnostics are the mistakes of the lines, counted from the first of them; with any, the
// configuration is nil. Missing are mistakes that further commands can put right: the configuration is not complete.
func (c *Config) Append(lines []string) (next *Config, mistakes, missing Diagnostics) {
	p, before := c.over(split(lines), nil)
	if mistakes = behind(p.found, before); len(mistakes) > 0 {
		return nil, mistakes, nil
	}
	next = p.c
	if mistakes = next.keepText(); len(mistakes) > 0 {
		return nil, mistakes, nil
	}
	missing = next.Check().Errors()
	for _, d := range behind(missing, before) {
		if len(d.needs) == 0 {
			mistakes = append(mistakes, d)
		}
	}
	if len(mistakes) > 0 {
		return nil, mistakes, nil
	}
	return next, nil, missing
}

// Without gives the configuration without a section, for `clear configure`; false when there is no section of that name. "all" is every section.
func (c *Config) Without(name string) (*Config, bool) {
	var b strings.Builder
	found := name == "all"
	for _, s := range sections {
		if name == "all" || slices.Contains(s.names, name) {
			found = true
			continue
		}
		w := writer{reveal: true}
		s.write(c, &w)
		b.WriteString(w.b.String())
	}
	next, _ := Parse("terminal", []byte(b.String()))
	return next, found
}

// Marked gives a mistake as a terminal shows it: the line with a marker under its first wrong word, the message in an ASA's words, and what would
// be right.
func (d Diagnostic) Marked() string {
	var b strings.Builder
	marked := d.Source != "" && d.Col > 0 && d.kind != keyword.Ambiguous
	if marked {
		caret := d.caret
		if caret == 0 {
			caret = d.Col
		}
		fmt.Fprintf(&b, "%s\n%s^\n", d.Source, indent(d.Source, caret-1))
	}
	switch d.kind {
	case keyword.Unknown, keyword.Invalid:
		b.WriteString("ERROR: % Invalid input detected at '^' marker.\n" + d.Message)
	case keyword.Incomplete:
		b.WriteString("ERROR: % Incomplete command")
	case keyword.Ambiguous:
		fmt.Fprintf(&b, "ERROR: %% Ambiguous command:  %q", strings.TrimSpace(d.Source))
	default:
		b.WriteString("ERROR: % " + d.Message)
	}
	if d.Hint != "" {
		b.WriteString("\n" + d.Hint)
	}
	return b.String()
}

// Unknown says that no mode has a command that begins like the line.
func (d Diagnostic) Unknown() bool { return d.kind == keyword.Unknown }

var base64Word = regexp.MustCompile(`^[A-Za-z0-9+/_=-]+$`)

// Masked gives a line as it may stand in a log: words that are secrets, or may be, are *****.
func Masked(line string) string {
	shown, _ := maskLine(printable(line), keyword.Split(line))
	words := strings.Split(shown, " ")
	for i, w := range words {
		if len(w) >= 40 && base64Word.MatchString(w) {
			words[i] = stars // a ticket, or a line of a key that was pasted in the wrong place
		}
	}
	return strings.Join(words, " ")
}
