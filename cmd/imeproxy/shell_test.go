package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imeproxy/proxy/config"
	"imeproxy/proxy/revision"
	"imeproxy/proxy/shell"
)

// desktop is an appliance that knows its name and no more.
type desktop struct{ shell.Backend }

func (desktop) Banner() string   { return "" }
func (desktop) Hostname() string { return "edge" }

// controlled serves a configuration at a control socket, and gives the socket and the file of the saved configuration.
func controlled(t *testing.T) (socket, saved string) {
	t.Helper()
	dir := t.TempDir()
	socket, saved = filepath.Join(dir, "control.sock"), filepath.Join(dir, "startup.cfg")
	text := []byte("hostname edge\n")
	if err := os.WriteFile(saved, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, found := config.Load(saved, text)
	if found.HasErrors() {
		t.Fatal(found)
	}
	log := slog.New(slog.DiscardHandler)
	keeper := revision.New(revision.Options{File: saved, StateDir: dir, Running: cfg, Log: log, Apply: func(string, *config.Config) error { return nil }})
	ctx, stop := context.WithCancel(context.Background())
	srv := &shell.Server{Path: socket, Executor: shell.NewExecutor(desktop{}, keeper), Log: log, Ready: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-srv.Ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return socket, saved
}

const more = "<--- More --->"

// TestShellOnATerminal types at a real pseudo terminal: pages and their keys, questions and what Ctrl-C does to them, saving and erasing.
func TestShellOnATerminal(t *testing.T) {
	socket, saved := controlled(t)
	x := onTerminal(t, "shell", "--control", socket)
	x.answer("edge# ", "terminal pager 24")
	x.answer("edge# ", "help")
	x.press(more, "\r")
	if page := x.between("help\r\n", more); strings.Count(page, "\n") != 24 {
		t.Errorf("a page of 24 lines has %d:\n%s", strings.Count(page, "\n"), page)
	}
	x.press(more, " ")
	if line := x.between(more, more); strings.Count(line, "\n") != 1 {
		t.Errorf("Return shows %q", line)
	}
	x.press(more, "q")
	x.answer("edge# ", "configure terminal")
	x.answer("edge(config)# ", "banner motd hello")
	x.answer("edge(config)# ", "end")
	x.answer("edge# ", "write memory")
	x.answer("[OK]", "copy running-config startup-config")
	x.answer("[OK]", "write erase")
	x.press("Erase configuration in flash memory? [confirm] ", "\x03")
	x.answer("edge# ", "show startup-config")
	x.answer("banner motd hello", "write erase")
	x.answer("Erase configuration in flash memory? [confirm] ", "")
	x.answer("[OK]", "exit")
	if status, screen := x.wait(); status != 0 || strings.Count(screen, "[OK]") != 3 || !strings.Contains(screen, "Building configuration...\nCryptochecksum: ") {
		t.Errorf("status %d, the screen is\n%s", status, screen)
	}
	if text, err := os.ReadFile(saved); err != nil || len(text) > 0 {
		t.Errorf("after write erase the file holds %q: %v", text, err)
	}
}

// TestShellWithoutATerminal sends the same to where nobody presses a key: nothing is paged, and what would ask is refused at once.
func TestShellWithoutATerminal(t *testing.T) {
	socket, saved := controlled(t)
	for name, c := range map[string]struct {
		args  []string
		stdin string
		want  string
		code  int
	}{
		"-c":             {[]string{"-c", "terminal pager 5", "-c", "help"}, "", "End the session", 0},
		"standard input": {nil, "terminal pager 5\nhelp\n", "End the session", 0},
		"write erase":    {[]string{"-c", "write erase"}, "", "Nobody can be asked here", 1},
		"write memory":   {[]string{"-c", "write memory"}, "", "[OK]", 0},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], append([]string{"shell", "--control", socket}, c.args...)...)
			cmd.Env = append(os.Environ(), "IMEPROXY_TEST_MAIN=1")
			cmd.Stdin = strings.NewReader(c.stdin)
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.want) || strings.Contains(string(out), more) {
				t.Errorf("status %d:\n%s", cmd.ProcessState.ExitCode(), out)
			}
		})
	}
	if text, err := os.ReadFile(saved); err != nil || !strings.Contains(string(text), "hostname edge") {
		t.Errorf("the file holds %q: %v", text, err)
	}
}
