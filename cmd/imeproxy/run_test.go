package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imeproxy/proxy/config"
	"imeproxy/proxy/observe"
	"imeproxy/proxy/revision"
)

// TestReloadTellsMistakesInTheLog reads a file with mistakes again: whoever has the log alone, as JSON, in show logging or on a syslog server,
// learns each of them with its place and what would be right, and nobody the password.
func TestReloadTellsMistakesInTheLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.cfg")
	if err := os.WriteFile(file, []byte("hostname x\nfrobnicate\nuc-ime i\n ticket epoch 0 password a-password-to-keep\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log, err := observe.NewLogger(&out, observe.LogConfig{Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	applied := false
	apply := func(string, *config.Config) error { applied = true; return nil }
	d := desk{keeper: revision.New(revision.Options{File: file, StateDir: t.TempDir(), Running: &config.Config{}, Log: log}), apply: apply}
	reload(d, runFlags{config: file}, log)
	if applied || strings.Contains(out.String(), "to-keep") {
		t.Errorf("applied %v, log %s", applied, out.String())
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		var r struct{ Msg, Err, Text, Hint string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("not JSON: %s", line)
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%s", r.Msg, r.Err, r.Text, r.Hint))
	}
	want := []string{
		"mistake in the configuration|" + file + ":2:1: error: unknown keyword \"frobnicate\"|frobnicate|no such command",
		"mistake in the configuration|" + file + ":3:8: error: the uc-ime has no media-termination|uc-ime i|add media-termination NAME",
		"mistake in the configuration|" + file + ":3:8: error: the uc-ime has no call agent|uc-ime i|add ucm address",
		"mistake in the configuration|" + file + ":4:15: error: invalid epoch \"0\"|ticket epoch 0 password *****|the allowed range is 1-255",
		"reload failed, the running configuration stays|the configuration has mistakes; nothing was changed||",
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestConfigurationOfOthers says of a configuration that others may open what to do, and nothing of one that is its owner's alone.
func TestConfigurationOfOthers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.cfg")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o644: true, 0o640: true} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		warnReadable(file, slog.New(slog.NewTextHandler(&out, nil)))
		if strings.Contains(out.String(), "chmod 600") != want {
			t.Errorf("mode %04o: %q", mode, out.String())
		}
	}
	var out bytes.Buffer
	warnReadable("-", slog.New(slog.NewTextHandler(&out, nil)))
	if out.Len() > 0 {
		t.Errorf("standard input: %s", out.String())
	}
}

// TestPortOfAnotherProgram tells what to do about a port that is taken.
func TestPortOfAnotherProgram(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = net.Listen("tcp", l.Addr().String())
	if err = explainPort(fmt.Errorf("mapping service: %w", err)); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "`ss -lntup`") {
		t.Error(err)
	}
	if err := explainPort(os.ErrNotExist); err != os.ErrNotExist {
		t.Error(err)
	}
}

// TestSecondDaemonSaysOneThing starts a daemon beside another one, with a configuration that deserves warnings: it tells the one thing that keeps it from
// running, and nothing of what only follows from it.
func TestSecondDaemonSaysOneThing(t *testing.T) {
	for name, busy := range map[string]func(t *testing.T, f runFlags){
		"the same socket": func(t *testing.T, f runFlags) {
			l, err := net.Listen("unix", f.control)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		},
		"the same state directory": func(t *testing.T, f runFlags) {
			lock, err := os.Create(filepath.Join(f.stateDir, "kernel.lock"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { lock.Close() })
			if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := runFlags{config: filepath.Join(dir, "f.cfg"), stateDir: dir, control: filepath.Join(dir, "control.sock"), logLevel: "info"}
			if err := os.WriteFile(f.config, []byte("media-termination m\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			busy(t, f)
			var out, errs bytes.Buffer
			err := runAppliance(t.Context(), f, &out, &errs)
			if err == nil || !strings.Contains(err.Error(), "another imeproxy runs already") || out.Len()+errs.Len() > 0 {
				t.Errorf("error %v, and told %q %q", err, out.String(), errs.String())
			}
			if _, err := os.Stat(filepath.Join(dir, "backlog")); err == nil {
				t.Error("the files that the other one holds were opened")
			}
		})
	}
}

// TestReloadTellsWhatItChanges reads a file again that differs from what is in force, part of which was typed and never saved: the log has each
// line, with the mode that it stands in.
func TestReloadTellsWhatItChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.cfg")
	if err := os.WriteFile(file, []byte("hostname x\nobject network o\n host 10.9.9.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	running, found := config.Load("f", []byte("hostname typed\nobject network o\n host 10.9.9.1\n"))
	if found.HasErrors() {
		t.Fatal(found.Error())
	}
	var out bytes.Buffer
	log, err := observe.NewLogger(&out, observe.LogConfig{Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	d := desk{
		keeper: revision.New(revision.Options{File: file, StateDir: t.TempDir(), Running: running, Log: log}),
		apply:  func(string, *config.Config) error { return nil },
	}
	said := func() (got string) {
		out.Reset()
		reload(d, runFlags{config: file}, log)
		for line := range strings.Lines(out.String()) {
			var r struct{ Msg, Change, In string }
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("not JSON: %s", line)
			}
			got += fmt.Sprintf("%s|%s|%s\n", r.Msg, r.Change, r.In)
		}
		return got
	}
	const in = "changed in the configuration|"
	want := in + "- hostname typed|\n" + in + "+ hostname x|\n" + in + "- host 10.9.9.1|object network o\n" + in + "+ host 10.9.9.2|object network o\nconfiguration reloaded||\n"
	if got := said(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := said(); got != "no line of the configuration has changed||\nconfiguration reloaded||\n" {
		t.Errorf("the same file again: %s", got)
	}
}
