package shell

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// MaxPattern bounds a filter's expression in bytes.
const MaxPattern = 256

type filterKind int

const (
	filterNone filterKind = iota
	filterJSON
	filterInclude
	filterExclude
	filterBegin
	filterCount
)

// filter is what stands behind the first `|` of a line. The zero value passes everything.
type filter struct {
	kind filterKind
	re   *regexp.Regexp // nil: every line matches
}

var filterTree = newFilterTree()

// newFilterTree builds the table of filters.
func newFilterTree() *keyword.Tree[filterKind] {
	t := new(keyword.Tree[filterKind])
	t.Add("json", "One JSON document", filterJSON)
	t.Add("include <re:LINE>", "Lines that match", filterInclude)
	t.Add("exclude <re:LINE>", "Lines that do not match", filterExclude)
	t.Add("begin <re:LINE>", "From the first line that matches", filterBegin)
	t.Add("grep [-v] <re:LINE>", "Lines that match, or with -v those that do not", filterInclude)
	t.Add("count [<re:LINE>]", "Number of lines, or of those that match", filterCount)
	return t
}

// splitFilter cuts a line at its first `|`. The filter part keeps its columns: blanks stand for what was before it.
func splitFilter(line string) (command, rest string, found bool) {
	command, after, found := strings.Cut(line, "|")
	if !found {
		return line, "", false
	}
	return command, strings.Repeat(" ", utf8.RuneCountInString(command)+1) + after, true
}

// parseFilter reads the filter part of a line (from splitFilter); line is the whole line, for error texts. An expression takes the rest
// of the line, so `|` may stand in it.
func parseFilter(line, rest string) (filter, error) {
	kind, args, e := filterTree.MatchLine(rest)
	if e != nil {
		if e.Index == 0 && e.Kind == keyword.Incomplete { // it has no word that says where it stands
			e.Col = utf8.RuneCountInString(strings.TrimRight(line, " ")) + 1
		}
		return filter{}, parseError(line, e)
	}
	f := filter{kind: kind}
	if args.Has("-v") {
		f.kind = filterExclude
	}
	a, ok := args.Get("re")
	if !ok {
		return f, nil
	}
	if len(a.Text) > MaxPattern {
		return filter{}, &CommandError{Line: line, Col: a.Col, Text: fmt.Sprintf("%% Regular expression is longer than %d bytes", MaxPattern)}
	}
	re, err := regexp.Compile(a.Text)
	if err != nil {
		return filter{}, &CommandError{Line: line, Col: a.Col, Text: "% Invalid regular expression: " + observe.Clean(err.Error())}
	}
	f.re = re
	return f, nil
}

// apply gives the text that the filter lets through.
func (f filter) apply(text string) string {
	if f.kind == filterNone {
		return text
	}
	var b strings.Builder
	begun, count := false, 0
	for line := range strings.Lines(text) {
		hit := f.re == nil || f.re.MatchString(strings.TrimSuffix(line, "\n"))
		show := false
		switch f.kind {
		case filterInclude:
			show = hit
		case filterExclude:
			show = !hit
		case filterBegin:
			begun = begun || hit
			show = begun
		case filterCount:
			if hit {
				count++
			}
		}
		if show {
			b.WriteString(line)
		}
	}
	switch {
	case f.kind == filterCount && f.re != nil:
		fmt.Fprintf(&b, "Number of lines which match regexp = %d\n", count)
	case f.kind == filterCount:
		fmt.Fprintf(&b, "Number of lines = %d\n", count)
	}
	return b.String()
}

// passes says whether the filter lets one line of an output through that goes on.
func (f filter) passes(line string) bool {
	switch f.kind {
	case filterInclude:
		return f.re.MatchString(strings.TrimSuffix(line, "\n"))
	case filterExclude:
		return !f.re.MatchString(strings.TrimSuffix(line, "\n"))
	}
	return true
}

// render gives what the operator sees of a snapshot.
func (f filter) render(v observe.View) (string, error) {
	if f.kind == filterJSON {
		doc, err := observe.JSON(v)
		return string(doc), err
	}
	return f.apply(v.Text()), nil
}
