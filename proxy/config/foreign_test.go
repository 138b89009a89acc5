package config

import (
	"slices"
	"strings"
	"testing"

	"imeproxy/proxy/config/keyword"
)

// Nothing that this product has is called a command that it does not have.
func TestForeignCommandsAreNotOurs(t *testing.T) {
	for _, list := range phrases() {
		for _, ph := range list {
			for _, m := range modes().list() {
				if has(&m.tree, ph.words, "") || has(&m.tree, ph.words, "no ") {
					t.Errorf("%q is a command of %s mode", strings.Join(ph.words, " "), m.name)
				}
			}
		}
	}
}

// has tells whether a command begins with the words, whole.
func has(tree *keyword.Tree[command], words []string, line string) bool {
	for _, w := range words {
		found := tree.Help(line)
		if w == "*" && len(found) > 0 {
			w = map[bool]string{true: "(inside,outside)", false: "10.0.0.1"}[words[0] == "nat"]
		} else if !slices.ContainsFunc(found, func(c keyword.Candidate) bool { return c.Keyword && c.Text == w }) {
			return false
		}
		line += w + " "
	}
	return len(tree.Help(line)) > 0
}

// A line that begins as one of our commands and has a mistaken word is not taken for a foreign one, nor for one of the shell.
func TestCommandsAreNotForeign(t *testing.T) {
	for _, m := range modes().list() {
		for _, c := range m.all {
			p := &parser{words: keyword.Split(c.pattern)}
			if c.refused {
				continue
			}
			if hint := p.foreignHint(0); hint != "" {
				t.Errorf("%s mode: %q: %s", m.name, c.pattern, hint)
			}
		}
	}
}
