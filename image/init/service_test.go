package main

import (
	"context"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"imeproxy/proxy/shell"
)

// nameless is an appliance that is asked for the time alone.
type nameless struct{ shell.Backend }

func (nameless) Hostname() string { return "edge-a" }
func (nameless) Banner() string   { return "" }

// A service that carries commands out lives, and so does one that refuses because every shell that it may have is open; one that has ended, or
// that listens and says nothing, does not. The probe is the program's own shell, as in the appliance.
func TestSignOfLife(t *testing.T) {
	program := filepath.Join(t.TempDir(), "imeproxy")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "imeproxy/cmd/imeproxy").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	c := newChildren() // from here on it collects every process of this test, and of the next one if it is not closed
	t.Cleanup(c.close)
	control := filepath.Join(t.TempDir(), "control")
	const limit = 20 * time.Second
	if c.alive(program, control, limit) {
		t.Error("a service that does not run lives")
	}

	ctx, stop := context.WithCancel(context.Background())
	srv := &shell.Server{Path: control, Executor: shell.NewExecutor(nameless{}, nil), Log: slog.New(slog.DiscardHandler), Ready: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx) }()
	<-srv.Ready
	if !c.alive(program, control, limit) {
		t.Error("a service that carries commands out is taken for one that hangs")
	}
	var open []*shell.Client
	for len(open) < shell.MaxClients {
		// The probe's own session ends in its own time.
		one, err := shell.Dial(ctx, control)
		if err != nil && len(open) < shell.MaxClients-1 {
			t.Fatal(err)
		}
		if err == nil {
			open = append(open, one)
		}
	}
	if code, err := c.runFor(limit, t.Output(), program, "shell", "--control", control, "-c", "show clock"); err != nil || code != shell.ExitRefused {
		t.Errorf("with %d shells open another one ends with %d, %v", len(open), code, err)
	}
	if !c.alive(program, control, limit) {
		t.Errorf("a service with %d shells open is taken for one that hangs", len(open))
	}
	for _, one := range open {
		_ = one.Close()
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}

	deaf, err := net.Listen("unix", control)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if c.alive(program, control, time.Second) {
		t.Error("a service that listens and says nothing lives")
	}
}
