package config

import (
	"fmt"
	"sort"
	"strings"

	"imeproxy/proxy/config/keyword"
)

// Severity says whether a configuration with this diagnostic may be applied.
type Severity int

// The severities.
const (
	Error Severity = iota + 1
	Warning
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Diagnostic is one mistake or doubt, with its place.
type Diagnostic struct {
	File      string
	Line, Col int // from 1; 0 where the place is not known
	Severity  Severity
	Message   string
	Hint      string // what would be right
	Source    string // the line, secrets masked; empty where it must not be shown

	kind  keyword.ErrorKind // how the line fits no command; 0: it is one
	caret int               // column in Source, which a masked secret may have made shorter
	// needs names what would make this diagnostic groundless: the name of a thing, or the keyword of a setting. When a mistaken
	// line mentions one of them, that line is the cause, and this one only follows. "*" means any mistaken line.
	needs []string
}

// Error gives FILE:LINE:COLUMN: SEVERITY: MESSAGE, then the line, a caret under the first wrong word, and the hint.
func (d Diagnostic) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s: %s", d.File, d.Line, d.Col, d.Severity, d.Message)
	if d.Source != "" {
		caret := d.caret
		if caret == 0 {
			caret = d.Col
		}
		fmt.Fprintf(&b, "\n%s\n%s^", d.Source, indent(d.Source, caret-1))
	}
	if d.Hint != "" {
		b.WriteString("\n" + d.Hint)
	}
	return b.String()
}

// indent is n columns of blanks, with the tabs of the line kept so that the caret stands right whatever a tab's width is.
func indent(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n <= 0 {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
		n--
	}
	b.WriteString(strings.Repeat(" ", max(n, 0)))
	return b.String()
}

// Diagnostics are sorted by their place in the text.
type Diagnostics []Diagnostic

// HasErrors says whether one of them is an error.
func (d Diagnostics) HasErrors() bool {
	for _, x := range d {
		if x.Severity == Error {
			return true
		}
	}
	return false
}

// Errors returns the errors alone.
func (d Diagnostics) Errors() Diagnostics { return d.of(Error) }

// Warnings returns the warnings alone.
func (d Diagnostics) Warnings() Diagnostics { return d.of(Warning) }

func (d Diagnostics) of(s Severity) Diagnostics {
	var out Diagnostics
	for _, x := range d {
		if x.Severity == s {
			out = append(out, x)
		}
	}
	return out
}

// Error gives the text of all errors, one after the other.
func (d Diagnostics) Error() string {
	var lines []string
	for _, x := range d {
		lines = append(lines, x.Error())
	}
	return strings.Join(lines, "\n")
}

// Err returns the errors as one error, or nil when there are none.
func (d Diagnostics) Err() error {
	if e := d.Errors(); len(e) > 0 {
		return e
	}
	return nil
}

func (d Diagnostics) sort() {
	sort.SliceStable(d, func(i, j int) bool {
		if d[i].Line != d[j].Line {
			return d[i].Line < d[j].Line
		}
		return d[i].Col < d[j].Col
	})
}
