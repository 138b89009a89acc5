package config

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// working gives the configuration of a working proxy.
func working(t testing.TB) *Config {
	t.Helper()
	text, err := os.ReadFile("testdata/inline.cfg")
	if err != nil {
		t.Fatal(err)
	}
	c, found := Load("inline.cfg", text)
	if found.HasErrors() {
		t.Fatal(found)
	}
	return c
}

func TestStartupIsReadAgain(t *testing.T) {
	c := working(t)
	again, found := Load("again", []byte(c.Startup()))
	if found.HasErrors() {
		t.Fatal(found)
	}
	if again.UCIME.TicketPassword != c.UCIME.TicketPassword || again.UCIME.TicketPassword.Masked() || again.Startup() != c.Startup() {
		t.Error("the startup text does not give the same configuration")
	}
	if strings.Contains(c.String(), c.UCIME.TicketPassword.Reveal()) {
		t.Error("String shows the password")
	}
}

func TestEdit(t *testing.T) {
	base, _ := Parse("", nil)
	var e Edit
	for _, step := range []struct{ line, prompt, changes, mistake string }{
		{"object network a", "config-network-object", "", ""},
		{"host 10.1.1.1", "config-network-object", "", ""},
		{"ho", "config-network-object", "", "Incomplete command"},
		{"host 10.1.1.300", "config-network-object", "", "Invalid input detected"},
		{"! a comment", "config-network-object", "", ""},
		{"hostname x", "config", "object network a;host 10.1.1.1 / hostname x", ""},
		{"media-termination m", "config-media-termination", "", ""},
		{"uc-ime u", "config-uc-ime", "media-termination m", ""},
		{"media-termination m", "config-uc-ime", "", ""}, // the uc-ime's own command of this name
		{"ticket epoch 0 password secret12345", "config-uc-ime", "", "Invalid input detected"},
		{"tick e 1 p secret12345", "config-uc-ime", "", ""},
		{"exit", "config", "uc-ime u;media-termination m;tick e 1 p secret12345;exit", ""},
		{"policy-map p", "config-pmap", "", ""},
		{"class c", "config-pmap-c", "", ""},
		{"exit", "config-pmap", "", ""},
		{"class d", "config-pmap-c", "", ""},
		{"frobnicate", "config-pmap-c", "", "Invalid input detected"},
		{"end", "config", "policy-map p;class c;exit;class d", ""},
		{"no hostname y", "config", "", ""}, // there is none in the base: harmless
	} {
		out, found := e.Line(base, step.line)
		var changes []string
		for _, c := range out.Changes {
			changes = append(changes, strings.Join(c, ";"))
		}
		if step.line == "no hostname y" {
			changes = nil
		}
		if got := strings.Join(changes, " / "); got != step.changes || e.Prompt() != step.prompt {
			t.Errorf("%s: changes %q at prompt %s, want %q at %s", step.line, got, e.Prompt(), step.changes, step.prompt)
		}
		said := ""
		if len(found) > 0 {
			said = found[0].Marked()
		}
		if !strings.Contains(said, step.mistake) || (said != "") != (step.mistake != "") {
			t.Errorf("%s: said %q, want %q", step.line, said, step.mistake)
		}
		if strings.Contains(said, "secret12345") {
			t.Errorf("%s: the password is shown: %s", step.line, said)
		}
		if step.line == "end" && !out.Leave {
			t.Error("end does not leave")
		}
	}
}

func TestAppend(t *testing.T) {
	c := working(t)
	for _, x := range []struct{ lines, mistake, missing string }{
		{"hostname other", "", ""},
		{"no access-list " + c.AccessLists[0].Name, "", "does not exist"},
		{"no hostname other", "the hostname is not other", ""},
		{"interface x9\nnameif third\nip address " + c.Interfaces[0].Address.Addr().String() + " 255.255.255.0", "overlaps", ""},
		{"class-map new\nmatch access-list later", "", `access-list "later" does not exist`},
	} {
		next, mistakes, missing := c.Append(strings.Split(x.lines, "\n"))
		if !strings.Contains(fmt.Sprint(mistakes), x.mistake) || (len(mistakes) > 0) != (x.mistake != "") {
			t.Errorf("%s: mistakes %v, want %q", x.lines, mistakes, x.mistake)
		}
		if !strings.Contains(fmt.Sprint(missing), x.missing) || (len(missing) > 0) != (x.missing != "") {
			t.Errorf("%s: missing %v, want %q", x.lines, missing, x.missing)
		}
		if (next == nil) != (x.mistake != "") {
			t.Errorf("%s: a configuration in spite of mistakes, or none without", x.lines)
		}
	}
}

func TestNamesThatExistComplete(t *testing.T) {
	base := working(t)
	for _, x := range []struct{ mode, line, done string }{
		{"", "access-group inc", "access-group incoming "},
		{"", "access-group incoming in interface out", "access-group incoming in interface outside "},
		{"", "no object network ucm_m", "no object network ucm_map_1 "},
		{"", "object network ucm_", "object network ucm_"},
		{"", "object net ucm_r", "object net ucm_real_1 "},
		{"", "interface eo", "interface eout "},
		{"", "uc-ime lo", "uc-ime local-ent-ime "},
		{"", "service-policy ime", "service-policy ime-policy "},
		{"", "crypto ca enroll local", "crypto ca enroll local-ent "},
		{"", "crypto ca enroll other", "crypto ca enroll other"},
		{"class-map new", "match access-list ime-in", "match access-list ime-inbound-sip "},
		{"tls-proxy local_to_remote-ent", "client trust-point l", "client trust-point local-ent "},
		{"tls-proxy local_to_remote-ent", "tls-proxy r", "tls-proxy remote_to_local-ent "},
	} {
		var e Edit
		if x.mode != "" {
			if _, found := e.Line(base, x.mode); len(found) > 0 {
				t.Fatal(found)
			}
		}
		if done, _ := e.Complete(base, x.line); done != x.done {
			t.Errorf("%s: %q became %q, want %q", x.mode, x.line, done, x.done)
		}
	}
	var shown []string
	for _, c := range (&Edit{}).Help(base, "no tls-proxy ") {
		shown = append(shown, c.Text)
	}
	if got := strings.Join(shown, " "); got != "maximum-sessions local_to_remote-ent remote_to_local-ent WORD" {
		t.Errorf("help: %s", got)
	}
}

func TestDifference(t *testing.T) {
	from := working(t)
	if d := Difference(from, from); len(d) > 0 {
		t.Errorf("of a configuration to itself: %q", d)
	}
	to, mistakes, _ := from.Append([]string{
		"hostname other", "uc-ime " + from.UCIME.Name, "fallback hold-down timer 33", "ticket epoch " + fmt.Sprint(from.UCIME.TicketEpoch) + " password another12345",
		"object network new", "host 10.9.9.9",
	})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	want := []string{
		"- hostname " + from.Hostname, "+ hostname other", "+ object network new", "+  host 10.9.9.9",
		"  uc-ime " + from.UCIME.Name, "+  fallback hold-down timer 33", "  the ticket password is another one",
	}
	got := Difference(from, to)
	for i, line := range got { // the inline configuration may set a timer of its own
		if strings.HasPrefix(line, "-  fallback hold-down") {
			got = append(got[:i:i], got[i+1:]...)
			break
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	back := Difference(to, from)
	if len(back) != len(Difference(from, to)) {
		t.Errorf("there and back differ in length: %q", back)
	}
}

func TestChanges(t *testing.T) {
	load := func(text string) *Config {
		t.Helper()
		c, mistakes := Parse("f", []byte(text))
		if mistakes.HasErrors() {
			t.Fatal(mistakes)
		}
		return c
	}
	const before = "hostname a\nuc-ime i\n ticket epoch 1 password password1234\n fallback hold-down timer 30\n"
	for name, x := range map[string]struct {
		after string
		want  []Change
	}{
		"nothing": {before, nil},
		"a line, one in a mode, a mode and a secret": {
			strings.NewReplacer("hostname a", "hostname b", "timer 30", "timer 40", "password1234", "password5678").Replace(before) + "object network o\n host 10.9.9.9\n",
			[]Change{
				{"- hostname a", ""},
				{"+ hostname b", ""},
				{"+ object network o", ""},
				{"+ host 10.9.9.9", "object network o"},
				{"- fallback hold-down timer 30", "uc-ime i"},
				{"+ fallback hold-down timer 40", "uc-ime i"},
				{"the ticket password is another one", ""},
			},
		},
	} {
		if d := cmp.Diff(x.want, Changes(load(before), load(x.after))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestWithout(t *testing.T) {
	c := working(t)
	next, found := c.Without("service-policy")
	if text, _ := next.Section("service-policy"); !found || text != "" {
		t.Errorf("service-policy is still there: %q", text)
	}
	if whole, _, _ := next.Append([]string{strings.TrimSpace(must(c.Section("service-policy")))}); whole == nil || whole.Startup() != c.Startup() {
		t.Error("the rest is not what it was")
	}
	if _, found := c.Without("nonsense"); found {
		t.Error("a section of that name is found")
	}
	if next, _ := c.Without("all"); next.String() != "" {
		t.Errorf("all leaves %q", next.String())
	}
}

func must(text string, _ bool) string { return text }

func TestMaskedForTheLog(t *testing.T) {
	for line, want := range map[string]string{
		"ticket epoch 1 password secret12345":                "ticket epoch 1 password *****",
		"ti e 1 pa secret12345":                              "ti e 1 pa *****",
		"show version":                                       "show version",
		"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ": "*****",
	} {
		if got := Masked(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// No line changes anything after a mistake, and none ends the program.
func FuzzEdit(f *testing.F) {
	for _, s := range []string{"object network a\nhost 1.2.3.4\nexit", "crypto ca authenticate x\nquit", "uc-ime u\nticket epoch 1 password a\nend", "no x", "exit\nexit", "policy-map p\nclass c\nhostname h"} {
		f.Add(s)
	}
	base := working(f)
	text := base.Startup()
	f.Fuzz(func(t *testing.T, script string) {
		var e Edit
		for _, line := range strings.Split(script, "\n") {
			prompt, held := e.Prompt(), len(e.lines)
			out, found := e.Line(base, line)
			if len(found) > 0 && (e.Prompt() != prompt || len(e.lines) != held || len(out.Changes) > 0) {
				t.Fatalf("%q changed something in spite of %v", line, found)
			}
			for _, c := range out.Changes {
				if !saltedLine.MatchString(strings.Join(c, "\n")) {
					same(t, base, c)
				}
				next, mistakes, _ := base.Append(c)
				if (next == nil) != (len(mistakes) > 0) {
					t.Fatalf("%q: neither taken nor refused", c)
				}
			}
			if base.Startup() != text {
				t.Fatalf("%q changed the configuration that it stands on", line)
			}
		}
	})
}
