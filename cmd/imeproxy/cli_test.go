package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// imeproxy runs the command line as main does.
func imeproxy(stdin string, args ...string) (stdout, stderr string, status int) {
	root := newRootCommand()
	var out, errs bytes.Buffer
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	status = execute(context.Background(), root, args)
	return out.String(), errs.String(), status
}

// TestWrongUsageIsStatus2 calls commands as nobody should: they say how, and do nothing.
func TestWrongUsageIsStatus2(t *testing.T) {
	for line, want := range map[string]string{
		"nonsense":                            "imeproxy: unknown command \"nonsense\"",
		"--nonsense":                          "imeproxy: unknown flag: --nonsense",
		"check":                               "imeproxy check: accepts 1 arg(s), received 0",
		"check a b":                           "imeproxy check: accepts 1 arg(s), received 2",
		"check --nonsense a":                  "imeproxy check: unknown flag: --nonsense",
		"run":                                 "imeproxy run: required flag(s) \"config\" not set",
		"run --config a --drain x":            "imeproxy run: invalid argument",
		"run --config a --drain -5s":          "imeproxy run: --drain -5s: a time to wait cannot be negative",
		"run --config a --log-level loud":     "imeproxy run: log level \"loud\": must be debug, info, warn or error",
		"run --config a --log-format xml":     "imeproxy run: log format \"xml\": must be text or json",
		"run --config a --metrics :9464":      "imeproxy run: metrics: \":9464\" is no address and port, such as 127.0.0.1:9464",
		"run --config a --metrics 10.0.0.1:1": "imeproxy run: metrics are served on a loopback address alone, not on 10.0.0.1:1",
		"version now":                         "imeproxy version: unknown command",
		"shell show":                          "imeproxy shell: unknown command",
		"crypto nonsense":                     "imeproxy crypto: unknown command",
		"crypto generate":                     "imeproxy crypto generate: required flag(s) \"label\" not set",
		"crypto import":                       "imeproxy crypto import: required flag(s) \"trustpoint\" not set",
		"crypto authenticate --pem":           "imeproxy crypto authenticate: flag needs an argument",
		"ticket verify":                       "imeproxy ticket verify: 0 arguments, want 1",
		"license nonsense":                    "imeproxy license: unknown command",
		"license issue":                       "imeproxy license issue: required flag(s) \"dir\", \"host-id\" not set",
		"license inspect":                     "imeproxy license inspect: accepts 1 arg(s), received 0",
		"enroll-server run":                   "imeproxy enroll-server run: required flag(s) \"host\" not set",
		"enroll-server revoke":                "imeproxy enroll-server revoke: accepts 1 arg(s), received 0",
	} {
		stdout, stderr, status := imeproxy("", strings.Fields(line)...)
		if status != 2 || stdout != "" || !strings.HasPrefix(stderr, want) || !regexp.MustCompile(`\nTry 'imeproxy[- a-z]* --help'\.\n$`).MatchString(stderr) {
			t.Errorf("%s: status %d, stdout %q, stderr %q", line, status, stdout, stderr)
		}
	}
}

// TestEveryCommandHasHelp asks each command of the tree.
func TestEveryCommandHasHelp(t *testing.T) {
	for _, line := range []string{
		"", "run", "check", "shell", "version", "ticket", "ticket issue", "ticket verify", "ticket inspect",
		"license", "license issue", "license inspect",
		"enroll-server", "enroll-server init", "enroll-server run", "enroll-server list", "enroll-server revoke", "enroll-server release",
		"crypto", "crypto generate", "crypto enroll", "crypto import", "crypto authenticate", "crypto export", "crypto list", "crypto remove",
	} {
		stdout, stderr, status := imeproxy("", append(strings.Fields(line), "--help")...)
		if status != 0 || stderr != "" || !strings.Contains(stdout, "Usage:") || !strings.Contains(stdout, strings.TrimSpace("imeproxy "+line)) {
			t.Errorf("%s --help: status %d, stderr %q, stdout %q", line, status, stderr, stdout)
		}
	}
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if stdout, _, status := imeproxy("", args...); status != 0 || !regexp.MustCompile(`^imeproxy \S+( \(\S+\))?\n$`).MatchString(stdout) {
			t.Errorf("%v: status %d, %q", args, status, stdout)
		}
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good, err := os.ReadFile("../../proxy/config/testdata/inline.cfg")
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.NewReplacer("password1234", "short", "policy-map ime-policy", "policy-map ime-polcy", "192.168.10.3 interface", "192.168.30 interface").Replace(string(good))
	mistakes := []string{
		":31:10: error: invalid address \"192.168.30\"\n address 192.168.30 interface inside\n         ^\n",
		":36:26: error: invalid password \"*****\"\n ticket epoch 1 password *****\n                         ^\n",
		":69:16: error: policy-map \"ime-policy\" does not exist\nservice-policy ime-policy global\n               ^\n",
	}
	for name, args := range map[string][]string{
		"a file": {"check", file("good.cfg", string(good))}, "standard input": {"check", "-"}, "nothing": {"check", file("empty.cfg", "")},
	} {
		if stdout, stderr, status := imeproxy(string(good), args...); status != 0 || stdout+stderr != "" {
			t.Errorf("%s: status %d, %q %q", name, status, stdout, stderr)
		}
	}
	for _, from := range []string{file("bad.cfg", bad), "-"} {
		stdout, stderr, status := imeproxy(bad, "check", from)
		name := from
		if from == "-" {
			name = "standard-input"
		}
		if status != 1 || stderr != "" || strings.Count(stdout, ": error: ") != len(mistakes) {
			t.Errorf("%s: status %d, stderr %q, stdout %q", name, status, stderr, stdout)
		}
		for _, m := range mistakes {
			if !strings.Contains("\n"+stdout, "\n"+name+m) {
				t.Errorf("%s: missing %q in:\n%s", name, name+m, stdout)
			}
		}
	}
	if stdout, stderr, status := imeproxy("", "check", filepath.Join(dir, "none.cfg")); status != 1 || stdout != "" || !strings.Contains(stderr, "none.cfg: no such file") {
		t.Errorf("no file: status %d, %q %q", status, stdout, stderr)
	}
	// A mistake behind what may be read is not passed over by reading no further.
	long := string(good) + strings.Repeat("!\n", 2<<20) + "frobnicate\n"
	for _, from := range []string{file("long.cfg", long), "-", "/dev/zero"} {
		if stdout, stderr, status := imeproxy(long, "check", from); status != 1 || stderr != "" || !strings.Contains(stdout, ":1:1: error: the text is too long\nat most 4 MiB are allowed\n") {
			t.Errorf("a long text from %s: status %d, %q %q", from, status, stdout, stderr)
		}
	}
	// Warnings are for who asks.
	doubtful := file("doubtful.cfg", "media-termination m\n")
	if stdout, stderr, status := imeproxy("", "check", doubtful); status != 0 || stdout+stderr != "" {
		t.Errorf("a doubtful file: status %d, %q %q", status, stdout, stderr)
	}
	if stdout, stderr, status := imeproxy("", "check", "--warnings", doubtful); status != 0 || stdout != "" || !strings.HasPrefix(stderr, doubtful+":1:19: warning: media-termination \"m\" is not used\n") {
		t.Errorf("with warnings: status %d, %q %q", status, stdout, stderr)
	}
}
