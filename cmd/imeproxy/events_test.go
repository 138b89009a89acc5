package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ofOurOwn are log lines that name somebody's address and need no limit, with the reason.
var ofOurOwn = map[string]string{
	"signaling session begun":                                            "the far end had a certificate that is trusted",
	"signaling session ended":                                            "one for each that began",
	"source shunned: it failed too often":                                "once in the time for which it is shunned",
	"source cannot be shunned":                                           "once in the time for which it would have been shunned",
	"a message cannot be dealt with: this is a defect, please report it": "must never be left out",
	"ssh session ended: the user was removed or changed":                 "an operator's doing",
	"vap: request failed":                                                "of a call agent that has logged in: our own store fails",
	"vap: client registered":                                             "of a call agent that has logged in",
	"vap: client is silent":                                              "of a call agent that has logged in",
	"vap: client gone":                                                   "of a call agent that has logged in",
	"vap: service taken back, client does not agree":                     "of a call agent that has logged in",
	"enroll: request failed":                                             "the authority's own store fails",
	"enroll: certificate issued":                                         "to who has a license",
}

// logLine is a call of a logger in our code.
type logLine struct {
	at      string
	message string
	keys    []string
	event   string
}

func logLines(t *testing.T) []logLine {
	t.Helper()
	var out []logLine
	for _, dir := range []string{"cmd", "proxy", "ucime", "mapping", "mediaterm", "tlsproxy", "fallback", "sipalg"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			f, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !slices.Contains([]string{"Info", "Warn", "Error", "With"}, sel.Sel.Name) {
					return true
				}
				args := call.Args
				l := logLine{at: files.Position(call.Pos()).String()}
				if sel.Sel.Name != "With" {
					l.message, args = text(args[0]), args[1:]
				}
				for i := 0; i+1 < len(args); i += 2 {
					key := text(args[i])
					l.keys = append(l.keys, key)
					if key == "event" {
						if l.event = text(args[i+1]); l.event == "" {
							t.Errorf("%s: an event is a word that stands there", l.at)
						}
					}
				}
				out = append(out, l)
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// text is the value of a string literal; nothing of anything else.
func text(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		s, _ := strconv.Unquote(l.Value)
		return s
	}
	return ""
}

// A log line that names an address from which it came about has an event, by which it is limited, or a reason why it needs none. So a line that is
// worded anew keeps its limit, and a new one cannot be without one.
func TestLinesOfStrangersHaveAnEvent(t *testing.T) {
	unused := maps.Clone(ofOurOwn)
	for _, l := range logLines(t) {
		delete(unused, l.message)
		if l.message == "" { // With, whose lines are judged by themselves
			continue
		}
		names := slices.ContainsFunc(l.keys, func(k string) bool { return slices.Contains([]string{"source", "remote", "client", "from"}, k) })
		if names && l.event == "" && ofOurOwn[l.message] == "" {
			t.Errorf("%s: %q has no event", l.at, l.message)
		}
	}
	for m := range unused {
		t.Errorf("no line says %q", m)
	}
}

// The operator's documentation lists the events, so that one that goes missing is missed.
func TestEventsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(doc), "These events are limited:")
	list, _, _ = strings.Cut(list, "\n\n")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
		documented[m[1]] = true
	}
	said := map[string]bool{}
	for _, l := range logLines(t) {
		if l.event != "" {
			said[l.event] = true
		}
	}
	for _, e := range slices.Sorted(maps.Keys(said)) {
		if !documented[e] {
			t.Errorf("docs/operation.md does not list %s", e)
		}
	}
	for _, e := range slices.Sorted(maps.Keys(documented)) {
		if !said[e] {
			t.Errorf("no log line has the event %s of docs/operation.md", e)
		}
	}
}
