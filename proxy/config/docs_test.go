package config

import (
	"os"
	"strings"
	"testing"
)

// TestDocumentedExamples reads every example of the operator's documentation.
func TestDocumentedExamples(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	parts := strings.Split(string(text), "```")
	for i := 1; i < len(parts); i += 2 {
		kind, body, _ := strings.Cut(parts[i], "\n")
		seen[kind]++
		switch kind {
		case "asa":
			c, found := Parse("docs", []byte(body))
			if len(found) > 0 {
				t.Errorf("%s\nof:\n%s", found.Error(), body)
			}
			fixedPoint(t, c)
		case "asa complete":
			if _, found := Load("docs", []byte(body)); len(found) > 0 {
				t.Errorf("%s\nof:\n%s", found.Error(), body)
			}
		case "asa refused":
			for _, line := range refusable(body) {
				if _, found := Parse("docs", []byte(line)); len(found) != 1 {
					t.Errorf("%q: %d mistakes: %s", line, len(found), found.Error())
				}
			}
		case "", "syntax":
		default:
			t.Errorf("unknown kind of example %q", kind)
		}
	}
	if seen["asa"] < 9 || seen["asa complete"] != 1 || seen["asa refused"] != 3 {
		t.Errorf("examples: %v", seen)
	}
	_, found := Load("proxy.cfg", []byte(strings.Repeat("!\n", 36)+"uc-ime x\n ticket epoch 256 password password1234\n"))
	if len(found) == 0 || !strings.Contains(string(text), "\n"+found[len(found)-1].Error()+"\n") {
		t.Errorf("the documented message is not the real one: %s", found.Error())
	}
}

// refusable joins each command with the one that opens its mode.
func refusable(body string) []string {
	var out []string
	for _, line := range strings.Split(strings.TrimSpace(body), "\n") {
		if strings.HasPrefix(line, " ") {
			out[len(out)-1] += "\n" + line
		} else {
			out = append(out, line)
		}
	}
	return out
}
