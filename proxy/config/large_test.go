package config

import (
	"fmt"
	"strings"
	"testing"
)

// large is a configuration of some 10,000 lines.
func large(t testing.TB) *Config {
	t.Helper()
	var b strings.Builder
	b.WriteString(working(t).Startup())
	for i := range 10000 {
		fmt.Fprintf(&b, "access-list big extended permit tcp host 10.%d.%d.%d any eq %d\n", i%3, i/250, i%250, 1000+i)
	}
	c, found := Load("large", []byte(b.String()))
	if found.HasErrors() {
		t.Fatal(found)
	}
	return c
}

const oneMore = "access-list big extended permit tcp any any eq 9999"

// typeOne enters a line as an operator does.
func typeOne(t testing.TB, c *Config, line string) *Config {
	t.Helper()
	var e Edit
	typed, mistakes := e.Line(c, line)
	if len(mistakes) > 0 || len(typed.Changes) != 1 {
		t.Fatal(mistakes)
	}
	next, mistakes, missing := c.Append(typed.Changes[0])
	if len(mistakes) > 0 || len(missing) > 0 {
		t.Fatal(mistakes, missing)
	}
	return next
}

// What a line costs must not be the reading of all lines before it: that is about twenty allocations each.
func TestTypedLineReadsNoOtherLines(t *testing.T) {
	c := large(t)
	if n := testing.AllocsPerRun(3, func() { typeOne(t, c, oneMore) }); n > 5000 {
		t.Errorf("%.0f allocations on top of 10,000 lines", n)
	}
}

// The lines that a configuration came from do not grow for ever, and it stays what it is when they are made anew.
func TestLinesAreForgottenInTime(t *testing.T) {
	c := working(t)
	before, name := len(c.source), c.Hostname
	for i := range maxTyped + 100 {
		c = typeOne(t, c, fmt.Sprintf("hostname h%d", i))
	}
	if n := len(c.source); n > 2*before+200 {
		t.Errorf("%d lines are remembered", n)
	}
	if c = typeOne(t, c, "hostname "+name); c.Startup() != working(t).Startup() {
		t.Error("the configuration is another")
	}
}

// What is typed may not make the text longer than one that can be read again.
func TestTypedTextIsBounded(t *testing.T) {
	c, _ := Parse("", nil)
	line := "banner motd " + strings.Repeat("x", maxLine-20)
	var lines []string
	for range maxText/len(line) - 1 {
		lines = append(lines, line)
	}
	c, mistakes, _ := c.Append(lines)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	if next, mistakes, _ := c.Append([]string{line, line}); next != nil || !strings.Contains(mistakes.Error(), "at most 4 MiB are allowed") {
		t.Errorf("too long a text is taken: %v", mistakes)
	}
}

func BenchmarkTypedLine(b *testing.B) {
	for c := large(b); b.Loop(); {
		typeOne(b, c, oneMore)
	}
}

func BenchmarkStartup(b *testing.B) {
	for c := large(b); b.Loop(); {
		_ = c.Startup()
	}
}
