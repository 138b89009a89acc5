package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"imeproxy/proxy/config/keyword"
)

// Bounds of a text.
const (
	maxText        = 4 << 20
	maxLine        = 4 << 10
	maxObjects     = 4096
	maxEntries     = 20000 // of all access lists
	maxDiagnostics = 1000
	maxTyped       = 1000 // lines on top of a text until it is made anew
)

// Load parses a text and checks it: what `imeproxy check` does. All mistakes are reported, those between commands too; but of something
// that a mistaken line may define or set it is not said that it is missing. Warnings are given for a text without mistakes alone.
// The Config is never nil.
func Load(file string, text []byte) (*Config, Diagnostics) {
	c, found := Parse(file, text)
	if !found.HasErrors() {
		found = append(found, c.Check()...)
		found.sort()
		return c, found
	}
	for _, d := range c.Check().Errors() {
		if !c.doubted(d.needs) {
			found = append(found, d)
		}
	}
	found.sort()
	return c, found
}

// Parse reads a text and reports every mistake in it that shows in one command alone. The Config is never nil, and holds all
// commands that were right.
func Parse(file string, text []byte) (*Config, Diagnostics) { return parse(file, text, nil) }

// parse tells watch, which may be nil, of each command that it carries out.
func parse(file string, text []byte, watch func(*mode, command)) (*Config, Diagnostics) {
	var inner func(*parser, *mode, command)
	if watch != nil {
		inner = func(_ *parser, m *mode, c command) { watch(m, c) }
	}
	p, found := parseAll(file, string(text), inner)
	return p.c, found
}

// parseAll also gives the parser as it stands at the end, with the modes that are open.
func parseAll(file, text string, watch func(*parser, *mode, command)) (*parser, Diagnostics) {
	c := &Config{file: file, Where: Places{}}
	p := &parser{c: c, modes: []*mode{modes().global}, watch: watch}
	if len(text) > maxText {
		p.report(tooLong(file))
		return p, p.found
	}
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") { // as Windows writes it: one mistake, not one a line
		p.report(Diagnostic{Line: 1, Col: 1, Message: "the text is UTF-16", Hint: "save it as UTF-8"})
		return p, p.found
	}
	p.lines = strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	p.read()
	return p, p.found
}

// read reads the lines that are left.
func (p *parser) read() {
	for p.next < len(p.lines) && len(p.found) < maxDiagnostics {
		raw := p.lines[p.next]
		p.next++
		p.line(raw)
	}
	if len(p.found) >= maxDiagnostics {
		p.report(Diagnostic{Line: p.next, Col: 1, Message: "too many mistakes: the rest of the text was not read"})
	}
	p.c.finish()
	p.found.sort()
}

// over carries out lines in global mode on top of a configuration that was printed before: on a copy, which costs a hundredth of reading its text
// again. The lines are numbered from the second result on. watch is told of each command, and may be nil.
func (c *Config) over(lines []string, watch func(*parser, *mode, command)) (p *parser, before int) {
	var base *Config
	if c.typed < maxTyped {
		base = c.clone()
	} else { // the lines that it came from are forgotten
		base, _ = Parse("terminal", []byte(c.Startup()))
	}
	base.file = "terminal"
	base.typed += len(lines)
	before = len(base.source)
	p = &parser{c: base, modes: []*mode{modes().global}, watch: watch, next: before}
	p.lines = append(make([]string, before), lines...)
	p.read()
	return p, before
}

// printed is the text of a configuration, kept by the one that it was made of and by no copy.
type printed struct {
	of      *Config
	startup string
}

// keepText prints a configuration once for all that ask. It must have been given to nobody yet. The error says that the text cannot be read again.
func (c *Config) keepText() Diagnostics {
	text := c.Startup()
	if len(text) > maxText {
		return Diagnostics{tooLong(c.file)}
	}
	c.kept = printed{c, text}
	return nil
}

func tooLong(file string) Diagnostic {
	return Diagnostic{File: file, Line: 1, Col: 1, Severity: Error, Message: "the text is too long", Hint: "at most 4 MiB are allowed"}
}

type parser struct {
	c     *Config
	lines []string
	next  int // index of the line after the one that is read; also that one's number
	found Diagnostics
	modes []*mode // from global to the innermost

	words  []keyword.Word // of the line that is read
	masked []bool
	shown  string
	lost   bool // the mode's own line was mistaken, so what is set in it goes nowhere
	under  int  // the column of a line that was not understood as a whole: what is indented deeper belongs to it; 0: there is none
	watch  func(*parser, *mode, command)
	known  map[entryKey]bool // entries that may be in the lists, whatever they log; nil: nobody has asked

	// The objects that sub-modes work on.
	intf     *Interface
	obj      *NetworkObject
	group    *ObjectGroup
	services *ServiceGroup
	mta      *MediaTermination
	ime      *UCIME
	peer     *PeerServer
	tp       *Trustpoint
	tls      *TLSProxy
	cmap     *ClassMap
	pmap     *PolicyMap
	class    *PolicyClass
}

// args are the words of a matched command.
type args struct{ keyword.Args }

// arg returns an argument; its column is 0 when it was left out.
func (a args) arg(name string) keyword.Arg {
	x, _ := a.Get(name)
	return x
}

// handler carries out a command on the configuration that is being built.
type handler func(p *parser, a args)

// report adds a diagnostic, with the line that it is about.
func (p *parser) report(d Diagnostic) {
	d.File = p.c.file
	if d.Severity == 0 {
		d.Severity = Error
	}
	p.found = append(p.found, d)
	p.doubt()
}

// fail reports a mistake at a column of the line that is read.
func (p *parser) fail(col int, message, hint string) {
	p.report(Diagnostic{
		Line: p.next, Col: col, Message: message, Hint: hint,
		Source: p.shown, caret: maskedColumn(col, p.words, p.masked),
	})
}

// quote writes a word of the line for a message; a secret is masked.
func (p *parser) quote(col int, word string) string {
	for i, w := range p.words {
		if w.Col == col && p.masked[i] {
			return `"` + stars + `"`
		}
	}
	if r := []rune(word); len(r) > 80 {
		word = string(r[:80]) + "..."
	}
	return `"` + word + `"`
}

func (p *parser) pos() Pos {
	if len(p.words) == 0 {
		return Pos{Line: p.next, Col: 1}
	}
	return Pos{Line: p.next, Col: p.words[0].Col}
}

// line reads one line of the text.
func (p *parser) line(raw string) {
	raw = strings.TrimSuffix(raw, "\r")
	text := strings.ReplaceAll(raw, "\u00a0", " ") // a line copied from a printed guide has such blanks
	p.words = keyword.Split(text)
	p.shown, p.masked = maskLine(printable(text), p.words)
	p.c.source = append(p.c.source, p.shown)
	if len(text) > maxLine {
		p.shown = ""
		p.fail(1, fmt.Sprintf("the line has %d bytes", len(text)), "at most 4096 are allowed")
		return
	}
	col := 0
	for i, r := range text {
		col++
		if what := unwanted(text[i:], r); what != "" {
			p.fail(col, what, "remove it; a configuration is UTF-8 text")
			return
		}
	}
	if len(p.words) == 0 || p.words[0].Text[0] == '!' || p.words[0].Text[0] == ':' {
		return
	}
	if p.under > 0 && p.words[0].Col > p.under {
		return
	}
	p.under = 0
	if strings.HasPrefix(p.words[0].Text, "-----BEGIN") {
		p.strayBlock()
		return
	}
	p.command()
}

// strayBlock skips a PEM block that belongs to no command. It may be a private key, so none of its lines is shown.
func (p *parser) strayBlock() {
	p.report(Diagnostic{
		Line: p.next, Col: 1, Message: "a PEM block stands behind no command",
		Hint: "certificates follow `crypto ca authenticate NAME` or `crypto ca import NAME certificate`; private keys do not belong here",
	})
	p.c.source[len(p.c.source)-1] = ""
	for n := 0; n < maxBodyLines; n++ {
		if line, ok := p.take(); !ok || strings.HasPrefix(line, "-----END") {
			return
		}
	}
}

func unwanted(at string, r rune) string {
	switch {
	case r == utf8.RuneError && !strings.HasPrefix(at, "\ufffd"):
		return "a byte that is not UTF-8"
	case r == '\t':
		return ""
	case unicode.IsControl(r):
		return fmt.Sprintf("a control character (code %d)", r)
	case unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029':
		return fmt.Sprintf("an invisible character (U+%04X)", r)
	}
	return ""
}

// printable replaces what would disturb a terminal, one character by one.
func printable(s string) string {
	out := []rune(s)
	for i, r := range out {
		if unwanted("\ufffd", r) != "" {
			out[i] = '?'
		}
	}
	return string(out)
}

// command finds the mode that knows the command, from the innermost outwards, and carries it out.
func (p *parser) command() {
	var first *keyword.Error
	for i := len(p.modes) - 1; i >= 0; i-- {
		m := p.modes[i]
		cmd, a, err := m.tree.Match(m.prepare(p.words))
		if err == nil {
			p.modes = p.modes[:i+1]
			if p.lost = p.lost && i > 0; p.lost {
				p.doubt()
			}
			if p.watch != nil {
				p.watch(p, m, cmd)
			}
			if cmd.refused {
				p.removal("")
			}
			cmd.run(p, args{a})
			return
		}
		if first == nil || err.Index > first.Index {
			first = err
		} else if p.first(first.Index) && err.Index == first.Index && first.Kind == keyword.Unknown {
			first.Expected = append(first.Expected, err.Expected...)
		}
	}
	p.mismatch(first)
	p.enterMistaken()
}

// mismatch reports a command that no mode knows.
func (p *parser) mismatch(e *keyword.Error) {
	before := len(p.found)
	defer func() {
		for i := range p.found[before:] {
			p.found[before+i].kind = e.Kind
		}
	}()
	word := p.quote(e.Col, e.Word)
	secret := word == `"`+stars+`"`
	switch e.Kind {
	case keyword.Ambiguous:
		p.fail(e.Col, "ambiguous keyword "+word, "it may be "+keyword.List(e.Expected))
	case keyword.Incomplete:
		p.fail(e.Col, "the command is not complete", "expected "+keyword.List(e.Expected))
	case keyword.Invalid:
		p.fail(e.Col, fmt.Sprintf("invalid %s %s", argumentName(e.Arg), word), e.Reason)
	default:
		if prompt := promptOf(p.words); e.Index == 0 && prompt != "" {
			p.fail(e.Col, "a prompt is not part of a command", fmt.Sprintf("remove %q", prompt))
			return
		}
		if hint := p.foreignHint(e.Index); hint != "" {
			p.fail(e.Col, "unknown keyword "+word, hint)
			return
		}
		if len(e.Expected) == 1 && e.Expected[0].Text == keyword.EndOfLine {
			p.fail(e.Col, "unexpected word "+word, "the command ends before it")
			return
		}
		hint := "expected " + keyword.List(e.Expected)
		best := nearest(e.Word, e.Expected)
		switch {
		case p.first(e.Index) && best == "":
			hint = p.misplaced()
		case p.first(e.Index):
			hint = fmt.Sprintf("no such command in %s mode", p.modes[len(p.modes)-1].name)
		}
		if best != "" && !secret {
			hint = fmt.Sprintf("did you mean %q? %s", best, hint)
		}
		p.fail(e.Col, "unknown keyword "+word, hint)
	}
}

// first tells whether the word of an index is the one that a command begins with.
func (p *parser) first(index int) bool {
	return index == 0 || (index == 1 && strings.EqualFold(p.words[0].Text, "no"))
}

// fewCommands is how many an error lists.
const fewCommands = 8

// misplaced says of a line that begins with no command of its mode where it belongs, or else what the mode has, if that is little.
func (p *parser) misplaced() string {
	here := p.modes[len(p.modes)-1]
	hint := fmt.Sprintf("no such command in %s mode", here.name)
	var fits []string
	furthest := 1 // word that a line must get beyond
	if p.first(furthest) {
		furthest++
	}
	for _, m := range modes().list() {
		_, _, err := m.tree.Match(m.prepare(p.words))
		reached := len(p.words) + 1
		if err != nil {
			reached = err.Index
		}
		switch {
		case reached < furthest:
		case reached > furthest:
			furthest, fits = reached, []string{m.name}
		default:
			fits = append(fits, m.name)
		}
	}
	if len(fits) > 0 {
		return fmt.Sprintf("%s; it belongs to %s mode", hint, strings.Join(fits, " or "))
	}
	var own []keyword.Candidate
	for _, c := range here.tree.Help("") {
		if c.Text != "exit" && c.Text != "quit" && c.Text != "end" && c.Text != "no" {
			own = append(own, c)
		}
	}
	if len(own) > fewCommands {
		return hint + "; docs/configuration.md has those that there are, and so has `?` in the shell"
	}
	return hint + ", which has " + strings.ReplaceAll(keyword.List(own), " or ", " and ")
}

func argumentName(name string) string {
	return strings.ReplaceAll(name, "_", " ")
}

// nearest is the keyword that a word was probably meant to be, or nothing.
func nearest(word string, among []keyword.Candidate) string {
	if len(word) > 40 {
		return ""
	}
	best, distance := "", min(3, 1+len(word)/3)
	for _, c := range among {
		if d := near(strings.ToLower(word), c.Text); c.Keyword && d < distance {
			best, distance = c.Text, d
		}
	}
	return best
}

// promptOf is the prompt at the head of a line that was copied from a terminal.
func promptOf(words []keyword.Word) string {
	for i, w := range words {
		if strings.HasSuffix(w.Text, "#") || (i == 0 && strings.HasSuffix(w.Text, ">")) {
			return strings.TrimSpace(strings.TrimSuffix(words[0].Rest(), w.Rest()) + w.Text)
		}
		if i == 1 {
			break
		}
	}
	return ""
}

// finish gives settings that depend on others their defaults.
func (c *Config) finish() {
	for _, i := range c.Interfaces {
		if i.SecurityLevel < 0 {
			i.SecurityLevel = 0
			if i.Nameif == "inside" {
				i.SecurityLevel = 100
			}
		}
	}
}

// room says whether one more object of a kind may be made.
func (p *parser) room(n int, what string) bool { return p.roomFor(n, maxObjects, what) }

func (p *parser) roomFor(n, most int, what string) bool {
	if n < most {
		return true
	}
	p.fail(p.pos().Col, "too many "+what, fmt.Sprintf("at most %d are allowed", most))
	return false
}
