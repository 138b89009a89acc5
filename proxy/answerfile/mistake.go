package answerfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mistake is what is wrong with a line. Line and Col are from 1, Col in characters; 0 where something is missing.
type Mistake struct {
	Line, Col int
	Text      string
	Source    string // the line as it may be shown: passwords, and what may be one, are left out
}

// Error gives the mistake without a place in a file.
func (m Mistake) Error() string {
	if m.Line == 0 {
		return m.Text
	}
	return fmt.Sprintf("line %d: %s", m.Line, m.Text)
}

// In gives FILE:LINE:COLUMN: error: TEXT, then the line and a caret under what is wrong, as `imeproxy check` does.
func (m Mistake) In(file string) string {
	if m.Line == 0 {
		return fmt.Sprintf("%s: error: %s", file, m.Text)
	}
	text := fmt.Sprintf("%s:%d:%d: error: %s", file, m.Line, m.Col, m.Text)
	if m.Source == "" {
		return text
	}
	return text + "\n" + m.Source + "\n" + indent(m.Source, m.Col-1) + "^"
}

// indent is n columns of blanks, with the tabs of the line kept so that the caret stands right whatever a tab's width is.
func indent(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n <= 0 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
		n--
	}
	return b.String()
}

// maxSource bounds a line that is shown, in characters.
const maxSource = 200

// place is a line of the file and where its value begins.
type place struct {
	line   int
	text   string // without its end
	value  int    // byte offset
	secret bool
}

// find takes a line apart. The key is empty where there is none.
func placeOf(number int, text string) (p place, name, value string) {
	p = place{line: number, text: strings.TrimRight(text, " \t\r")}
	at := strings.IndexByte(p.text, ':')
	if at < 0 {
		p.secret = true // it may be anything
		p.value = len(p.text) - len(strings.TrimLeft(p.text, " \t"))
		return p, "", ""
	}
	value = strings.TrimSpace(p.text[at+1:])
	p.value = len(p.text) - len(value)
	name = strings.TrimSpace(p.text[:at])
	k := find(name)
	p.secret = k == nil || k.secret
	if k == nil { // the caret stands under the key
		p.value = len(p.text) - len(strings.TrimLeft(p.text, " \t"))
	}
	return p, name, value
}

// mistake is one at a field of the value, counted from 0.
func (p place) mistake(field int, text string) Mistake {
	at := p.value
	for i := 0; i < field; i++ {
		rest := strings.TrimLeftFunc(p.text[at:], func(r rune) bool { return !unicode.IsSpace(r) })
		next := strings.TrimLeftFunc(rest, unicode.IsSpace)
		if next == "" {
			break // what is missing is missing behind the last one
		}
		at = len(p.text) - len(next)
	}
	m := Mistake{Line: p.line, Col: utf8.RuneCountInString(p.text[:at]) + 1, Text: text}
	source := p.text
	if p.secret {
		if i := strings.IndexByte(source, ':'); i >= 0 {
			source = source[:i+1] + " *****"
		} else {
			source = ""
		}
	}
	if utf8.RuneCountInString(source) <= maxSource {
		m.Source = strings.Map(func(r rune) rune {
			if r != '\t' && !unicode.IsPrint(r) || r == utf8.RuneError {
				return '?'
			}
			return r
		}, source)
	}
	return m
}

// fieldError is a mistake at a field of a value.
type fieldError struct {
	error
	field int
}

func (e fieldError) Unwrap() error { return e.error }

// field says which field of a value an error is about, counted from 0.
func field(err error) int {
	var f fieldError
	if errors.As(err, &f) {
		return f.field
	}
	return 0
}
