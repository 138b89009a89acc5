package shell

import "strings"

// maxPast bounds the lines that a terminal remembers.
const maxPast = 200

// past is what was typed on a terminal, for the arrow keys and Ctrl-R. Answers to questions and lines of certificates, which may be secrets, are not
// kept. It implements the line editor's history.
type past struct {
	lines  []string // the latest last
	silent bool     // the line that is being typed is no command
	sought string   // what Ctrl-R looks for
	shown  int      // index of the line that it has found; len(lines): none
}

// Add keeps a line, once if it is repeated.
func (p *past) Add(line string) {
	if strings.TrimSpace(line) == "" || p.silent || (len(p.lines) > 0 && p.lines[len(p.lines)-1] == line) {
		return
	}
	if len(p.lines) == maxPast {
		p.lines = append(p.lines[:0], p.lines[1:]...)
	}
	p.lines = append(p.lines, line)
	p.shown = len(p.lines)
}

// Len is how many lines there are.
func (p *past) Len() int { return len(p.lines) }

// At gives a line; 0 is the latest.
func (p *past) At(i int) string { return p.lines[len(p.lines)-1-i] }

// search gives the latest line that has a text in it, and when it is asked again with what it gave, the one before.
func (p *past) search(typed string) (string, bool) {
	if p.shown >= len(p.lines) || typed != p.lines[p.shown] {
		p.sought, p.shown = typed, len(p.lines)
	}
	for i := p.shown - 1; i >= 0; i-- {
		if strings.Contains(p.lines[i], p.sought) && p.lines[i] != typed {
			p.shown = i
			return p.lines[i], true
		}
	}
	return "", false
}
