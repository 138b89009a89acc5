package shell

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imeproxy/proxy/config"
)

var update = flag.Bool("update", false, "write the golden files")

func run(t *testing.T, b Backend, line string) (string, error) {
	t.Helper()
	var out strings.Builder
	x := newExecutor(b, nil, func() time.Time { return noon })
	err := x.NewSession(Caller{}).Run(context.Background(), line, &out)
	return out.String(), err
}

// One golden file holds a whole session: what an operator types and sees.
func TestSession(t *testing.T) {
	var screen strings.Builder
	for _, line := range []string{
		"help",
		"?",
		"show ?",
		"sh uc-ime ?",
		"sh uc s",
		"show uc-ime signaling-sessions",
		"show uc-ime signaling-session statistics",
		"show uc-ime media-sessions",
		"show uc-ime media-sessions detail",
		"show running-config",
		"show run uc",
		"show run banner",
		"show run route",
		"show run nonsense",
		"show run a",
		"show tls-proxy",
		"show conn",
		"show connection",
		"show crypto ca certificates",
		"show version",
		"show clock",
		"show health",
		"show logging | include WARN",
		"show interface",
		"show route",
		"test uc-ime ticket abc called +14085551212 peer a.example",
		"test uc-ime ticket none",
		"show tls-proxy session",
		"show sip",
		"show xlate",
		"show access-list",
		"show access-list none",
		"show service-policy",
		"packet-tracer input outside tcp 198.51.100.1 1024 209.165.200.227 5070",
		"packet-tracer input inside udp 192.168.10.51 1024 209.165.201.3 53",
		"packet-tracer input inside icmp 192.168.10.51 209.165.201.3",
		"show crypto ca request local_ent",
		"test uc-ime ticket",
		"clear conn all",
		"clear connection all",
		"clear conn",
		"clear uc-ime statistics",
		"show",
		"show foo",
		"\tshow\tconn  x",
		"s\x1bhow conn",
		"show c",
		"zzz ?",
		"! a comment",
		"   ",
		"",
		"show conn | include UDP",
		"show conn|i ^TCP|^UDP",
		"show conn | exclude UDP",
		"show conn | begin UDP",
		"show conn | grep TCP",
		"show conn | grep -v TCP",
		"show conn | grep -v",
		"show conn | count",
		"show conn | count TCP",
		"show conn | ?",
		"show conn | inc?",
		"show conn | count x?TCP?",
		"show conn |",
		"show conn | foo x",
		"show conn | include",
		"show conn | include (",
		"show conn x | include TCP",
		"show conn | json x",
		"show conn | json",
		"show clock | json",
		"show running-config uc-ime | json",
		"clear uc-ime statistics | json",
		"help | json",
	} {
		out, err := run(t, &clearable{}, line)
		screen.WriteString("asa-a# " + strings.ReplaceAll(line, "\x1b", "^[") + "\n" + out)
		if err != nil {
			var wrong *CommandError
			if errors.As(err, &wrong) {
				screen.WriteString(err.Error() + "\n")
			} else {
				screen.WriteString("failed: " + strings.ReplaceAll(err.Error(), "\x1b", "^[") + "\n")
			}
		}
	}
	path := filepath.Join("testdata", "session.txt")
	if *update {
		if err := os.WriteFile(path, []byte(screen.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), screen.String()); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// Behind the marker stands what would be right there.
func TestErrorHint(t *testing.T) {
	for line, want := range map[string]string{
		"frobnicate":        "no such command: `?` lists those that there are",
		" frobnicate x":     "no such command: `?` lists those that there are",
		"show frobnicate":   "`?` in its place lists what may stand there",
		"show version x":    "the command ends before it",
		"terminal nonsense": "expected pager",
		"show conn | x y":   "expected begin, count, exclude, grep, include or json",
	} {
		_, err := run(t, &fake{}, line)
		var e *CommandError
		if !errors.As(err, &e) || e.Hint != want {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// The marker stands under the first character of the wrong word, whatever stands before it.
func TestErrorMarker(t *testing.T) {
	for _, c := range []struct{ line, wrong string }{
		{"show foo", "foo"},
		{"   show   foo bar", "foo"},
		{"show\tfoo", "foo"},
		{"größe", "größe"},
		{"show conn | fóo x", "fóo"},
		{"show conn | größe", "größe"},
		{"show version ü", "ü"},
		{"show conn | include (", "("},
	} {
		_, err := run(t, &fake{}, c.line)
		var e *CommandError
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		lines := strings.Split(e.Error(), "\n")
		if len(lines) < 3 || len(lines) > 4 || !strings.HasPrefix(lines[2], "ERROR: ") {
			t.Errorf("%q: %q", c.line, e.Error())
			continue
		}
		at := len([]rune(lines[1])) - 1
		if got := string([]rune(lines[0])[at:]); !strings.HasPrefix(got, c.wrong) {
			t.Errorf("%q: marker stands at %q, want it at %q", c.line, got, c.wrong)
		}
	}
}

// Every command has a document: one JSON value and nothing else, null lists never.
// What is not complete says where the next word is missing and which one may stand there, in both modes and behind a filter.
func TestIncompleteSaysWhatFollows(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"show uc-ime", "show uc-ime\n           ^\nERROR: % Incomplete command\nexpected fallback-notification, mapping-service-sessions, media-sessions, quality or signaling-sessions"},
		{"  copy  running-config ", "  copy  running-config\n                      ^\nERROR: % Incomplete command\nexpected startup-config"},
		{"show conn |", "show conn |\n           ^\nERROR: % Incomplete command\nexpected begin, count, exclude, grep, include or json"},
		{"show conn | include", "show conn | include\n                   ^\nERROR: % Incomplete command\nexpected LINE"},
		{"show c", "ERROR: % Ambiguous command:  \"show c\"\nit may be clock, configuration, conn, cpu or crypto"},
		{"conf t;access-list a extended permit", "access-list a extended permit\n                             ^\nERROR: % Incomplete command\nexpected "},
		{"conf t;object network x;host", "host\n    ^\nERROR: % Incomplete command\nexpected A.B.C.D"},
		{"conf t;do show uc-ime", "show uc-ime\n              ^\nERROR: % Incomplete command\nexpected fallback"},
	} {
		s := newExecutor(&fake{}, newKeeper(t), time.Now).NewSession(Caller{})
		var err error
		for _, line := range strings.Split(c.line, ";") {
			err = s.Run(context.Background(), line, io.Discard)
		}
		if err == nil || !strings.HasPrefix(strings.TrimLeft(err.Error(), " "), strings.TrimLeft(c.want, " ")) {
			t.Errorf("%q gives\n%v\nwant\n%s", c.line, err, c.want)
		}
	}
}

func TestEveryCommandHasJSON(t *testing.T) {
	b := newTraced(t)
	for _, c := range newExecutor(b, nil, time.Now).commands {
		line := strings.NewReplacer(" [SECTION]", "", " [all]", " all", "install [*]", "install *", "no capture NAME", "no capture x", "show capture NAME", "show capture x", "capture NAME stop", "capture x stop", "capture NAME", "capture x",
			" [NAME]", "", "no shun ADDRESS", "no shun 192.0.2.1", "shun ADDRESS [SECONDS]", "shun 192.0.2.1 60", "pager [lines] LINES", "pager 24", "more disk0:FILE", "more disk0:x.txt", " [call-id ID] [number NUMBER] [peer ADDRESS|DOMAIN]", "", " [size MEGABYTES]", "", "SOURCE PORT DESTINATION PORT", "192.0.2.1 1 192.0.2.2 2",
			"SOURCE DESTINATION", "192.0.2.1 192.0.2.2", "tcp|udp", "tcp", "input INTERFACE", "input inside", "LINES", "24", "HEADER [called NUMBER] [peer DOMAIN]", "x", "TRUSTPOINT", "local",
			" [all|NAME]", "", "class NAME", "class IME Server", "install FILE", "install a.lic", "storagequota NUMBERS", "storagequota 5").Replace(c.usage)
		if line == "exit" || c.live != nil || strings.HasPrefix(line, "capture x interface") || strings.Contains(line, "tls-keys") { // these need an interface
			continue
		}
		out, err := run(t, b, line+" | json")
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		var doc map[string]any
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if strings.Contains(out, ": null") {
			t.Errorf("%s: null in %s", line, out)
		}
	}
}

func TestStatisticsKeysAtTopLevel(t *testing.T) {
	out, err := run(t, &fake{}, "show uc-ime signaling-sessions statistics | json")
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]uint64
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["ticket_did_mismatch"] != 4 {
		t.Errorf("ticket_did_mismatch is %d, want 4", doc["ticket_did_mismatch"])
	}
}

// A wrong line changes nothing: the filter is checked before the command acts.
func TestNothingActsOnError(t *testing.T) {
	b := &clearable{}
	for _, line := range []string{"clear conn all x", "clear conn all | include (", "clear conn all | nonsense", "clear uc-ime statistics |", "clear conn all ?"} {
		if _, err := run(t, b, line); err == nil && !strings.HasSuffix(line, "?") {
			t.Errorf("%s: no error", line)
		}
	}
	if b.cleared.Load() != 0 || b.reset.Load() != 0 {
		t.Errorf("cleared %d times, reset %d times", b.cleared.Load(), b.reset.Load())
	}
	if _, err := run(t, b, "cle conn a"); err != nil || b.cleared.Load() != 1 {
		t.Errorf("clear conn all: %v, acted %d times", err, b.cleared.Load())
	}
}

// Without a backend that can do it the command does not exist: an accepted command has an effect.
func TestClearStatisticsNeedsBackend(t *testing.T) {
	if _, err := run(t, &fake{}, "clear uc-ime statistics"); err == nil {
		t.Error("the command was accepted")
	}
	out, _ := run(t, &fake{}, "help")
	if strings.Contains(out, "clear uc-ime") {
		t.Error("help lists the command")
	}
}

func TestLineCaps(t *testing.T) {
	if _, err := run(t, &fake{}, strings.Repeat("x", MaxLine+1)); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("line over the cap: %v", err)
	}
	for n, ok := range map[int]bool{MaxPattern: true, MaxPattern + 1: false} {
		_, err := run(t, &fake{}, "show conn | include "+strings.Repeat("x", n))
		if (err == nil) != ok {
			t.Errorf("expression of %d bytes: %v", n, err)
		}
	}
	if _, err := run(t, &fake{}, "show conn | include (((a{1000}){1000}){1000})"); err == nil {
		t.Error("an expression that expands without bound was accepted")
	}
}

// The documents name every command, so that they cannot fall behind the table.
func TestDocNamesEveryCommand(t *testing.T) {
	show, err := os.ReadFile("../../docs/show.md")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/shell.md")
	if err != nil {
		t.Fatal(err)
	}
	all := string(show) + string(doc)
	for _, c := range newExecutor(newTraced(t), newKeeper(t), time.Now).commands {
		if !strings.Contains(all, "`"+strings.ReplaceAll(c.usage, "|", `\|`)+"`") { // in a table
			t.Errorf("neither docs/show.md nor docs/shell.md names %q", c.usage)
		}
	}
	for _, s := range config.SectionNames() {
		if !strings.Contains(string(show), s) {
			t.Errorf("docs/show.md does not name section %q", s)
		}
	}
}

// docs/commands.md is the table itself; -update writes it.
func TestCommandsDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Commands of the shell\n\nThis list is made from the table that the shell reads commands by. Those of configuration mode stand in\n" +
		"[configuration.md](configuration.md), how they are typed in [shell.md](shell.md), what they show in [show.md](show.md).\n\n| command | meaning |\n| --- | --- |\n")
	for _, c := range newExecutor(newTraced(t), newKeeper(t), time.Now).commands {
		b.WriteString("| `" + strings.ReplaceAll(c.usage, "|", `\|`) + "` | " + c.help + " |\n")
	}
	golden(t, "../../../docs/commands.md", b.String())
}

// roff makes a text fit for a manual page.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// docs/imeproxy-shell.1 is made from the tables too; -update writes it.
func TestManualPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`.TH IMEPROXY\-SHELL 1 "" "imeproxy" "User Commands"
.SH NAME
imeproxy\-shell \- commands to a running imeproxy
.SH SYNOPSIS
.B imeproxy shell
[\fB\-\-control\fR \fISOCKET\fR] [\fB\-c\fR \fICOMMAND\fR]...
.SH DESCRIPTION
The command language of an ASA, on a terminal, over SSH, or in batch: each \fB\-c\fR in its turn, or else the lines of standard input. Words may be
abbreviated; \fB?\fR lists what may come next, Tab completes a word. Behind a command, \fB| include\fR, \fB| exclude\fR, \fB| begin\fR, \fB| grep\fR, \fB| count\fR and \fB| json\fR
filter what it shows. The first command that fails ends a batch with exit status 1; a daemon that answers but takes no session, as when 32 are open, is exit status 3.
.SH COMMANDS
`)
	put := func(usage, help string) {
		b.WriteString(".TP\n.B " + roff(usage) + "\n" + roff(help) + "\n")
	}
	for _, c := range newExecutor(newTraced(t), newKeeper(t), time.Now).commands {
		put(c.usage, c.help)
	}
	mode := ""
	for _, u := range config.Usages() {
		if u.Mode != mode {
			mode = u.Mode
			b.WriteString(".SH CONFIGURATION: " + strings.ToUpper(roff(mode)) + " MODE\n")
		}
		put(u.Usage, u.Help)
	}
	b.WriteString(".SH SEE ALSO\ndocs/shell.md, docs/show.md, docs/configuration.md\n")
	golden(t, "../../../docs/imeproxy-shell.1", b.String())
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{
		"show conn | include a|b", "show uc-ime signaling-sessions statistics | json", "sh | grep -v \\p{Greek}", "?", "| ?", "|", "show ?",
		"clear conn all", "\xff\x00| i (", "show run uc-ime | count [", "help | begin .*", "a\u202e ?",
	} {
		f.Add(s)
	}
	x := NewExecutor(&clearable{}, nil)
	f.Fuzz(func(t *testing.T, line string) {
		var out strings.Builder
		err := x.NewSession(Caller{}).Run(context.Background(), line, &out)
		if err != nil && out.Len() > 0 {
			t.Errorf("%q: output %q and error %v", line, out.String(), err)
		}
		var wrong *CommandError
		if errors.As(err, &wrong) && wrong.Col > 0 {
			if strings.ContainsAny(wrong.Line, "\n\r\x1b") || wrong.Col > len([]rune(wrong.Line))+1 {
				t.Errorf("%q: marker at %d of %q", line, wrong.Col, wrong.Line)
			}
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"include a", " grep -v x", "json", "count", "b .*|y", "i [[:alpha:]]{3,}", "e (?i)tcp", "count ("} {
		f.Add(s, "TCP outside\nUDP inside")
	}
	f.Fuzz(func(t *testing.T, rest, text string) {
		got, err := parseFilter(rest, rest)
		if err != nil {
			return
		}
		out := got.apply(text)
		if got.kind != filterCount && len(out) > len(text) {
			t.Errorf("filter %q made %q of %q", rest, out, text)
		}
		if got.kind == filterBegin && !strings.HasSuffix(text, out) {
			t.Errorf("begin gave %q, which is no end of %q", out, text)
		}
		if got.kind == filterInclude || got.kind == filterExclude {
			other := filter{kind: filterInclude + filterExclude - got.kind, re: got.re}
			if len(out)+len(other.apply(text)) != len(text) {
				t.Errorf("%q: include and exclude do not make up %q", rest, text)
			}
		}
	})
}
