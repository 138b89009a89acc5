package config

import (
	"os"
	"strings"
	"testing"
)

// Every example of the manual is a configuration.
func TestExamplesOfTheManual(t *testing.T) {
	text, err := os.ReadFile("../../../docs/callagent.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, part := range strings.Split(string(text), "```callagent\n") {
		example, _, ok := strings.Cut(part, "```")
		if i == 0 || !ok {
			continue
		}
		n++
		if _, err := Parse("docs/callagent.md", []byte(example)); err != nil {
			t.Errorf("example %d: %v", n, err)
		}
	}
	if n < 2 {
		t.Errorf("%d examples", n)
	}
}
