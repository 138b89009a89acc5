package config

import (
	"slices"
	"strings"
)

// A mistaken line defines nothing, so everything that refers to it would be reported as missing: one slip would give ten messages.
// The words of such lines are kept, and a diagnostic of the check that needs one of them is left out.

// maxDoubts bounds the mistaken lines that are remembered; beyond them nothing is said to be missing.
const maxDoubts = maxDiagnostics

// doubt remembers the words of the line that is read.
func (p *parser) doubt() {
	if len(p.c.doubts) > maxDoubts {
		return
	}
	var line []string
	for i, w := range p.words {
		if !p.masked[i] {
			line = append(line, w.Text)
		}
	}
	if n := len(p.c.doubts); len(line) > 0 && (n == 0 || !slices.Equal(p.c.doubts[n-1], line)) {
		p.c.doubts = append(p.c.doubts, line)
	}
}

// doubted says whether a mistaken line mentions one of the names, or is the mistyped or abbreviated command of one of the keywords.
func (c *Config) doubted(needs []string) bool {
	if len(needs) > 0 && len(c.doubts) > maxDoubts {
		return true
	}
	for _, need := range needs {
		for _, line := range c.doubts {
			first := strings.ToLower(line[0])
			if first == "no" && len(line) > 1 {
				first = strings.ToLower(line[1])
			}
			if need == "*" || slices.ContainsFunc(line, func(w string) bool { return mentions(w, need) }) || alike(first, need) {
				return true
			}
		}
	}
	return false
}

// mentions also finds the names of a pair such as (inside,outside).
func mentions(word, name string) bool {
	return word == name || (word[0] == '(' && slices.Contains(strings.Split(strings.Trim(word, "()"), ","), name))
}

// alike says whether a mistaken line's first word was probably meant to be a keyword.
func alike(word, keyword string) bool {
	return len(word) > 1 && len(word) <= 40 && (abbreviates(word, keyword) || near(word, keyword) <= 2)
}
