package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/answerfile"
	"imeproxy/proxy/netcheck"
)

func TestAnswerfile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "imeproxy-answers.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	call := func(args ...string) (code int, out string) {
		var b bytes.Buffer
		root := newRootCommand()
		root.SetOut(&b)
		root.SetErr(&b)
		return execute(context.Background(), root, append([]string{"answerfile"}, args...)), b.String()
	}
	write("host-name: edge-a\ndomain: a.example\ninterface: eth0 inside 192.168.10.1/24\ndns: 192.0.2.53\nntp: none\nadministrator: admin\n" +
		"administrator-password: Correct-Horse-7\nsecurity-password: Battery_Staple_9\n")
	if code, out := call("check", file); code != 0 || out != "" {
		t.Errorf("a good file: %d %s", code, out)
	}
	config, system := filepath.Join(dir, "cfg"), filepath.Join(dir, "system.json")
	if code, out := call("install", file, "--config", config, "--system", system); code != 0 {
		t.Fatalf("install: %d %s", code, out)
	}
	for name, want := range map[string]string{config: "hostname edge-a\n", system: `"host_name": "edge-a"`} {
		text, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	write("host-name: edge-a\ncolour: blue\ndns: 192.0.2.53 here\nsecurity-password: Hunter2\n")
	code, out := call("check", file)
	for _, want := range []string{
		file + ":2:1: error: \"colour\" is no key\ncolour: *****\n^\n", file + ":3:17: error: dns must be the IPv4 address of a host\ndns: 192.0.2.53 here\n                ^\n",
		file + ":4:20: error: security-password must have", "\nsecurity-password: *****\n                   ^\n", file + ": error: ntp is missing\n",
	} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("a file with mistakes: %d, lacks %q\n%s", code, want, out)
		}
	}
	if strings.Contains(out, "Hunter2") || strings.Contains(out, "blue") {
		t.Errorf("a password is shown, or what may be one:\n%s", out)
	}
	if code, _ := call("check", filepath.Join(dir, "none")); code != 1 {
		t.Errorf("no file: %d", code)
	}
}

// An installation that nobody sits at goes on or not, as its answers say.
func TestNetworkOfAnUnattendedInstallation(t *testing.T) {
	silent, taken := netcheck.Problem{Kind: netcheck.DNS, Text: "the name server 192.0.2.53 does not answer"}, netcheck.Problem{Kind: netcheck.Duplicate, Text: "192.0.2.1 belongs to another host"}
	for name, c := range map[string]struct {
		policy string
		found  [][]netcheck.Problem // at each try
		fails  bool
		goesOn bool
		want   string
	}{
		"all well":               {"", [][]netcheck.Problem{nil}, false, true, "it works as it was typed"},
		"no answer":              {"", [][]netcheck.Problem{{silent}}, false, true, "does not answer\nnetwork: this is ignored"},
		"duplicate":              {"", [][]netcheck.Problem{{silent, taken}}, false, false, "the installation halts"},
		"duplicate, ignored":     {answerfile.PolicyIgnore, [][]netcheck.Problem{{taken}}, false, true, "this is ignored"},
		"no answer, halted":      {answerfile.PolicyHalt, [][]netcheck.Problem{{silent}}, false, false, "the installation halts"},
		"a network that is late": {answerfile.PolicyRetry, [][]netcheck.Problem{{silent}, {silent}, nil}, false, true, "it works"},
		"it cannot be tried":     {"", [][]netcheck.Problem{nil}, true, true, "cannot be tried: no sockets"},
		"nor halted":             {answerfile.PolicyHalt, [][]netcheck.Problem{nil}, true, false, "halts"},
	} {
		var out bytes.Buffer
		tries := 0
		check := func(context.Context, netcheck.Plan) ([]netcheck.Problem, error) {
			found := c.found[min(tries, len(c.found)-1)]
			tries++
			if c.fails {
				return nil, errors.New("no sockets")
			}
			return found, nil
		}
		goesOn := tryNetwork(context.Background(), &out, &answerfile.Answers{OnNetworkError: c.policy}, check, 0)
		if goesOn != c.goesOn || !strings.Contains(out.String(), c.want) || tries != len(c.found) {
			t.Errorf("%s: goes on: %t after %d tries\n%s", name, goesOn, tries, out.String())
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	check := func(context.Context, netcheck.Plan) ([]netcheck.Problem, error) {
		return []netcheck.Problem{silent}, nil
	}
	if tryNetwork(ctx, new(bytes.Buffer), &answerfile.Answers{OnNetworkError: answerfile.PolicyRetry}, check, time.Hour) {
		t.Error("an interrupted one goes on")
	}
}
