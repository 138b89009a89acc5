package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is one of `go test -json` (go doc test2json); build events have an ImportPath in the place of a Package.
type event struct {
	Action, Package, Test, Output string
}

// printer turns events back into text. It is for one goroutine.
type printer struct {
	out     io.Writer
	running map[string]*packageRun
	skipped []string
}

// packageRun is what a package has said until it ends.
type packageRun struct {
	outputs []event
	results map[string]string // the last action of each test: pass, fail, skip
}

func newPrinter(out io.Writer) *printer {
	return &printer{out: out, running: map[string]*packageRun{}}
}

// read takes all events. A line that is none is printed as it is.
func (p *printer) read(from io.Reader) error {
	for r := bufio.NewReader(from); ; {
		line, err := r.ReadString('\n')
		var e event
		if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
			fmt.Fprint(p.out, line)
		} else {
			p.take(e)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *printer) take(e event) {
	if e.Package == "" {
		fmt.Fprint(p.out, e.Output) // of the compiler, or of vet
		return
	}
	r := p.running[e.Package]
	if r == nil {
		r = &packageRun{results: map[string]string{}}
		p.running[e.Package] = r
	}
	switch e.Action {
	case "output":
		r.outputs = append(r.outputs, e)
	case "pass", "fail", "skip":
		if e.Test != "" {
			r.results[e.Test] = e.Action
			if e.Action == "skip" {
				p.skipped = append(p.skipped, e.Package+" "+e.Test+": "+r.reason(e.Test))
			}
			return
		}
		r.print(p.out, e.Action)
		delete(p.running, e.Package)
	}
}

// reason is what a test has said when it was skipped.
func (r *packageRun) reason(test string) string {
	var said []string
	for _, e := range r.outputs {
		if e.Test == test && !framing(e.Output) && !result(e.Output) {
			said = append(said, strings.Fields(e.Output)...)
		}
	}
	if len(said) == 0 {
		return "no reason is told"
	}
	return strings.Join(said, " ")
}

// print writes what `go test` writes of a package that has ended: the result alone, or all that was said but by tests that have passed.
func (r *packageRun) print(out io.Writer, action string) {
	if action != "fail" {
		for _, e := range r.outputs {
			if e.Test == "" && (strings.HasPrefix(e.Output, "ok  \t") || strings.HasPrefix(e.Output, "?   \t") || strings.HasPrefix(e.Output, "\t")) {
				fmt.Fprint(out, e.Output)
			}
		}
		return
	}
	printed := map[string]bool{}
	for _, e := range r.outputs {
		switch top, _, _ := strings.Cut(e.Test, "/"); {
		case e.Test == "" || r.results[top] == "":
			if !framing(e.Output) { // of the package, or of a test that has no end: a panic, a timeout
				fmt.Fprint(out, e.Output)
			}
		case !printed[top]:
			printed[top] = true
			r.printTest(out, top)
		}
	}
}

// printTest writes a test that has ended in a package that failed, with its subtests. One that passed may hold the reason all the same: a
// race or a panic elsewhere may be written between its lines.
func (r *packageRun) printTest(out io.Writer, top string) {
	var order []string
	said := map[string][]string{}
	for _, e := range r.outputs {
		if t, _, _ := strings.Cut(e.Test, "/"); t != top || framing(e.Output) {
			continue
		}
		if said[e.Test] == nil {
			order = append(order, e.Test)
		}
		line := e.Output
		if result(line) || strings.HasPrefix(line, "    ") { // -v does not show what belongs to what
			line = strings.Repeat("    ", strings.Count(e.Test, "/")) + line
		}
		switch {
		case !result(line):
			said[e.Test] = append(said[e.Test], line)
		case strings.HasPrefix(e.Output, "--- FAIL: "):
			said[e.Test] = append([]string{line}, said[e.Test]...)
		}
	}
	for _, name := range order {
		if r.results[name] == "fail" || r.results[name] == "" || r.onlyPasses() {
			fmt.Fprint(out, strings.Join(said[name], ""))
		}
	}
}

// onlyPasses tells whether no test has failed in a package that has: then nobody knows whose words tell why.
func (r *packageRun) onlyPasses() bool {
	for _, a := range r.results {
		if a == "fail" {
			return false
		}
	}
	return true
}

// framing tells whether a line is one of those that -v adds.
func framing(line string) bool {
	for _, p := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME "} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// result tells whether a line is the result of a test or subtest.
func result(line string) bool {
	return strings.HasPrefix(line, "--- FAIL: ") || strings.HasPrefix(line, "--- PASS: ") || strings.HasPrefix(line, "--- SKIP: ")
}

// end writes what is left of packages that have no end, and the skipped tests.
func (p *printer) end() {
	for _, r := range p.running {
		r.print(p.out, "fail")
	}
	if len(p.skipped) == 0 {
		fmt.Fprintln(p.out, "No test was skipped.")
		return
	}
	fmt.Fprintf(p.out, "Skipped tests: %d.\n", len(p.skipped))
	for _, s := range p.skipped {
		fmt.Fprintln(p.out, "\t"+s)
	}
}
