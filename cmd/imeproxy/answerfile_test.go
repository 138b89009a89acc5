package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	write("host-name: edge-a\ncolour: blue\n")
	if code, out := call("check", file); code != 1 || !strings.Contains(out, file+": line 2: \"colour\" is no key") || !strings.Contains(out, "dns is missing") {
		t.Errorf("a file with mistakes: %d %s", code, out)
	}
	if code, _ := call("check", filepath.Join(dir, "none")); code != 1 {
		t.Errorf("no file: %d", code)
	}
}
