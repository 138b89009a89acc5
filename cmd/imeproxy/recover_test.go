package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imeproxy/proxy"
	"imeproxy/proxy/config"
	"imeproxy/proxy/revision"
	"imeproxy/proxy/shell"
)

// What somebody sees who has lost the passwords and sits at the console.
func TestRecoverAtTerminal(t *testing.T) {
	dir := t.TempDir()
	file, report := filepath.Join(dir, "imeproxy.cfg"), filepath.Join(dir, "report")
	before := "hostname edge-a\nusername admin password Old-Password-1\nenable password Old-Password-2\n"
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	x := onTerminal(t, "recover", "--config", file, "--report", report)
	x.answer("Your choice: ", "a")
	x.answer("New password (empty: none): ", "123456")
	x.answer("% The password must have 8 to 72", "")
	x.answer("Your choice: ", "a")
	x.answer("New password (empty: none): ", "New-Secret-77")
	x.answer("The same once more: ", "New-Secret-77")
	x.answer("It is reset: administrator admin.", "")
	x.answer("Your choice: ", "q")
	status, screen := x.wait()
	if status != 0 || strings.Contains(screen, "New-Secret") || strings.Contains(screen, "123456") {
		t.Errorf("status %d, or a password is shown:\n%s", status, screen)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, found := config.Load(file, text)
	if found.HasErrors() || c.LogIn("admin", "New-Secret-77") == nil || !strings.Contains(string(text), "enable password Old-Password-2") {
		t.Errorf("%v\n%s", found, text)
	}
	if got, err := os.ReadFile(report); err != nil || string(got) != "administrator admin\n" {
		t.Errorf("report: %q, %v", got, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// quiet is an appliance that is never asked for anything but its name.
type quiet struct{ *proxy.Appliance }

func (quiet) Hostname() string { return "edge-a" }
func (quiet) Banner() string   { return "" }

// What somebody sees who presses return at the console of an appliance with users.
func TestLoginAtTerminal(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "imeproxy.cfg"), filepath.Join(dir, "control.sock")
	text := "hostname edge-a\nusername admin password Correct-Horse-7\nenable password Battery_Staple_9\n"
	c, found := config.Load(file, []byte(text))
	if found.HasErrors() {
		t.Fatal(found)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	k := revision.New(revision.Options{File: file, StateDir: dir, Running: c, Apply: func(string, *config.Config) error { return nil }, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- (&shell.Server{Path: socket, Executor: shell.NewExecutor(struct{ shell.Backend }{quiet{}}, k), Log: log, Ready: ready}).Serve(ctx)
	}()
	defer func() { cancel(); <-ended }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	x := onTerminal(t, "shell", "--login", "--control", socket)
	x.answer("Username: ", "admin")
	x.answer("Password: ", "Wrong-Horse-77")
	x.answer("Username: ", "")
	x.answer("Username: ", "admin")
	x.answer("Password: ", "Correct-Horse-7")
	x.answer("edge-a> ", "enable")
	x.answer("Password: ", "Battery_Staple_9")
	x.answer("edge-a# ", "exit")
	if status, screen := x.wait(); status != 0 || strings.Contains(screen, "Horse") || strings.Contains(screen, "Battery") {
		t.Errorf("status %d, or a password is shown:\n%s", status, screen)
	}
}
