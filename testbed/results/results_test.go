package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// module writes a small module into a new folder: packages by name with the text of a test file.
func module(t *testing.T, packages map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module m\n\ngo 1.26\n")
	for name, text := range packages {
		write(name+"/x.go", "package x\n")
		if text != "" {
			write(name+"/x_test.go", "package x\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = fmt.Sprint\nvar _ = os.Exit\n\n"+text)
		}
	}
	return dir
}

var changing = regexp.MustCompile(`[0-9]+\.[0-9]+s|0x[0-9a-f]+|goroutine [0-9]+|\(cached\)`)

// told gives the lines that are the same in every run, package by package: several may run at once.
func told(text string) map[string]string {
	out := map[string]string{}
	var lines []string
	for line := range strings.SplitSeq(changing.ReplaceAllString(text, "X"), "\n") {
		lines = append(lines, line)
		if f := strings.Split(line, "\t"); len(f) > 1 && (f[0] == "ok  " || f[0] == "FAIL" || f[0] == "?   ") {
			out[strings.Fields(f[1])[0]] = strings.Join(lines, "\n")
			lines = nil
		}
	}
	return out
}

// What is printed is what `go test` prints, and the exit status is its own.
func TestPrintsWhatGoTestPrints(t *testing.T) {
	good := map[string]string{
		"good":  "func TestGood(t *testing.T) { fmt.Println(\"said\"); t.Log(\"logged\") }",
		"skips": "func TestNeeds(t *testing.T) { t.Skip(\"needs\\n  a moon\") }\nfunc TestSub(t *testing.T) { t.Run(\"a\", func(t *testing.T) { t.SkipNow() }); t.Run(\"b\", func(*testing.T) {}) }",
		"none":  "",
	}
	bad := map[string]string{
		"fails":  "func TestA(t *testing.T) { t.Log(\"a passes\") }\nfunc TestB(t *testing.T) { t.Log(\"one\"); t.Errorf(\"two\"); t.Run(\"sub\", func(t *testing.T) { t.Error(\"three\") }); t.Run(\"fine\", func(t *testing.T) { t.Log(\"four\") }) }",
		"builds": "func TestA(t *testing.T) { undefined() }",
		"vets":   "func TestA(t *testing.T) { fmt.Printf(\"%d\", \"x\") }",
		"exits":  "func TestA(t *testing.T) { fmt.Println(\"bye\"); os.Exit(3) }",
		"panics": "func TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { panic(\"no\") }",
		"main":   "func TestMain(m *testing.M) { m.Run(); fmt.Println(\"leaks\"); os.Exit(1) }\nfunc TestA(t *testing.T) {}",
	}
	both := maps.Clone(good)
	maps.Copy(both, bad)
	for name, packages := range map[string]map[string]string{"good": good, "bad": both} {
		dir := module(t, packages)
		plain := exec.Command("go", "test", "./...")
		plain.Dir = dir
		var want, got, errs bytes.Buffer
		plain.Stdout, plain.Stderr = &want, &want
		_ = plain.Run()
		if code := run(t.Context(), dir, []string{"./..."}, &got, &errs); code != plain.ProcessState.ExitCode() {
			t.Errorf("%s: exit status %d, want %d\n%s", name, code, plain.ProcessState.ExitCode(), errs.String())
		}
		a, b := told(want.String()), told(got.String())
		for pkg, text := range a {
			last := text[strings.LastIndexByte(text, '\n')+1:]
			wantLines, gotLines := strings.Split(text, "\n"), strings.Split(b[pkg], "\n")
			if pkg == "m/builds" || pkg == "m/vets" || pkg == "m/panics" { // the compiler's words come when they come, and stacks differ
				if !strings.HasSuffix(b[pkg], last) {
					t.Errorf("%s: got\n%s\nwant at its end\n%s", pkg, b[pkg], last)
				}
				continue
			}
			slices.Sort(wantLines)
			slices.Sort(gotLines)
			if !slices.Equal(wantLines, gotLines) {
				t.Errorf("%s: got\n%s\nwant\n%s", pkg, b[pkg], text)
			}
		}
		if len(a) != len(packages) || len(b) != len(a) {
			t.Errorf("%s: %d packages are told of, go test tells of %d, there are %d", name, len(b), len(a), len(packages))
		}
		for _, s := range []string{"undefined: undefined", "panic: no", "wrong type string"} {
			if strings.Contains(want.String(), s) && !strings.Contains(got.String()+errs.String(), s) {
				t.Errorf("%s: %q is not told:\n%s", name, s, got.String())
			}
		}
		if s := "Skipped tests: 2.\n\tm/skips TestNeeds: x_test.go:12: needs a moon\n\tm/skips TestSub/a: no reason is told\n"; !strings.HasSuffix(got.String(), s) {
			t.Errorf("%s: got\n%s\nwant at its end\n%s", name, got.String(), s)
		}
	}
}

// A package is told of when it ends, not when all have; nothing is lost of one whose end never comes.
func TestTellsAtOnce(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out)
	for _, e := range []event{
		{Action: "start", Package: "a"},
		{Action: "output", Package: "b", Test: "TestX", Output: "=== RUN   TestX\n"},
		{Action: "output", Package: "b", Test: "TestX", Output: "stuck\n"},
		{Action: "output", Package: "a", Output: "PASS\n"},
		{Action: "output", Package: "a", Output: "ok  \ta\t0.1s\n"},
		{Action: "pass", Package: "a"},
	} {
		p.take(e)
	}
	if out.String() != "ok  \ta\t0.1s\n" {
		t.Errorf("got %q", out.String())
	}
	p.end()
	if want := "ok  \ta\t0.1s\nstuck\nNo test was skipped.\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	if err := p.read(strings.NewReader("no event\n{\"Action\":\"build-output\",\"ImportPath\":\"x\",\"Output\":\"# x\\n\"}\nlast")); err != nil || out.String() != "no event\n# x\nlast" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// A go command that cannot be run is a failure.
func TestNoGoCommand(t *testing.T) {
	t.Setenv("GO", "/nowhere/go")
	var out, errs bytes.Buffer
	if code := run(t.Context(), ".", nil, &out, &errs); code != 2 || errs.Len() == 0 {
		t.Errorf("exit status %d, told %q", code, errs.String())
	}
}
