package fallback

import (
	"fmt"
	"strings"
	"time"
)

// MaxFile is the size of the largest sensitivity file.
const MaxFile = 64 << 10

// LineError is what is wrong with one line of a sensitivity file.
type LineError struct {
	Line   int    // from 1; 0: the file as a whole
	Reason string // printable, without the line's number
}

// FileError lists every bad line of a file that was refused, in order, at most one
// reason a line.
type FileError struct{ Lines []LineError }

// Error has a line of text for each bad line.
func (e *FileError) Error() string {
	var b strings.Builder
	for i, l := range e.Lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if l.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", l.Line)
		}
		b.WriteString(l.Reason)
	}
	return b.String()
}

// ParseFile reads a sensitivity file (.fbs) whole. Levels that it does not name keep the
// built-in values. The error is a *FileError; the table is then of no use and the
// running values stay.
func ParseFile(text []byte) (Table, error) {
	p := fileParser{table: Builtin()}
	if len(text) > MaxFile {
		p.bad(0, "the file is larger than %d bytes", MaxFile)
		return Table{}, &p.err
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if i < len(lines)-1 {
			line = strings.TrimSuffix(line, "\r")
		}
		p.line(i+1, line)
		if p.foreign {
			break
		}
	}
	if !p.begun {
		p.bad(0, `"format 1" is missing`)
	}
	if len(p.err.Lines) > 0 {
		return Table{}, &p.err
	}
	return p.table, nil
}

type fileParser struct {
	table   Table
	seen    [Aggressive + 1]int // line that has the level
	begun   bool                // a line other than comment has been read
	foreign bool                // another format: what follows cannot be judged
	err     FileError
}

func (p *fileParser) bad(line int, format string, args ...any) {
	p.err.Lines = append(p.err.Lines, LineError{line, fmt.Sprintf(format, args...)})
}

func (p *fileParser) line(n int, line string) {
	for i := 0; i < len(line); i++ {
		if c := line[i]; c >= 0x7f || c < 0x20 && c != '\t' {
			p.bad(n, "byte 0x%02x in column %d: want ASCII text", c, i+1)
			return
		}
	}
	line, _, _ = strings.Cut(line, "#")
	words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(words) == 0 {
		return
	}
	first := !p.begun
	p.begun = true
	switch {
	case words[0] == "format":
		p.format(n, words, first)
	case first:
		p.bad(n, `%s comes before "format 1"`, quote(words[0]))
	default:
		if reason := p.level(n, words); reason != "" {
			p.bad(n, "%s", reason)
		}
	}
}

func (p *fileParser) format(n int, words []string, first bool) {
	switch {
	case !first:
		p.bad(n, "format stands first, and once")
	case len(words) != 2 || words[1] != "1":
		p.bad(n, `unknown format: want "format 1"`)
		p.foreign = len(words) == 2 && allDigits(words[1])
	}
}

// level reads the line of one level and returns what is wrong with it.
func (p *fileParser) level(n int, words []string) string {
	level := Disabled
	for l := Utility; l <= Aggressive; l++ {
		if words[0] == l.String() {
			level = l
		}
	}
	if level == Disabled {
		return "unknown word " + quote(words[0]) + ": want a level"
	}
	if at := p.seen[level]; at > 0 {
		return fmt.Sprintf("%s stands in line %d already", level, at)
	}
	p.seen[level] = n
	var th Thresholds
	have := map[string]bool{}
	for words = words[1:]; len(words) > 0; words = words[2:] {
		name := words[0]
		switch {
		case name != "loss" && name != "burst" && name != "pdv" && name != "events":
			return "unknown word " + quote(name) + ": want loss, burst, pdv or events"
		case have[name]:
			return name + " stands twice"
		case len(words) == 1:
			return name + " has no number"
		}
		have[name] = true
		if reason := th.set(name, words[1]); reason != "" {
			return reason
		}
	}
	for _, name := range []string{"loss", "burst", "pdv", "events"} {
		if !have[name] {
			return name + " is missing"
		}
	}
	p.table[level] = th
	return ""
}

func (th *Thresholds) set(name, word string) string {
	places, limit := 3, 8000
	switch name {
	case "loss":
		limit = 100
	case "events":
		places, limit = 0, 8
	}
	n, ok := thousandths(word, places)
	if !ok && places == 0 {
		return fmt.Sprintf("%s %s: want a whole number from 0 to %d", name, quote(word), limit)
	}
	if !ok {
		return fmt.Sprintf("%s %s: want a number from 0 to %d, at most three decimal places", name, quote(word), limit)
	}
	if n > limit*1000 {
		return fmt.Sprintf("%s %s is more than %d", name, quote(word), limit)
	}
	switch name {
	case "loss":
		th.Loss = n
	case "burst":
		th.Burst = time.Duration(n) * time.Microsecond
	case "pdv":
		th.PDV = time.Duration(n) * time.Microsecond
	case "events":
		th.Events = n / 1000
	}
	return ""
}

// thousandths reads an unsigned decimal. Numbers that would not fit come back as one
// that exceeds every limit.
func thousandths(word string, places int) (int, bool) {
	whole, part, point := strings.Cut(word, ".")
	if !allDigits(whole) || point && (!allDigits(part) || len(part) > places) {
		return 0, false
	}
	n := 0
	for _, c := range whole + part + "000"[len(part):] {
		if n = n*10 + int(c-'0'); n > 1e9 {
			n = 1e9
		}
	}
	return n, true
}

func allDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// quote keeps a report readable whatever the file holds.
func quote(word string) string {
	if len(word) > 24 {
		word = word[:24] + "..."
	}
	return `"` + word + `"`
}

// String writes the table as a sensitivity file.
func (t Table) String() string {
	var b strings.Builder
	b.WriteString("format 1\n")
	for l := Utility; l <= Aggressive; l++ {
		th := &t[l]
		fmt.Fprintf(&b, "%-14s loss %s burst %s pdv %s events %d\n", l, decimal(th.Loss),
			decimal(int(th.Burst/time.Microsecond)), decimal(int(th.PDV/time.Microsecond)), th.Events)
	}
	return b.String()
}

// decimal writes thousandths without trailing zeros.
func decimal(n int) string {
	s := fmt.Sprintf("%d.%03d", n/1000, n%1000)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
