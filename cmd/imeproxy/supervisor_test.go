package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imeproxy/proxy/shell"
)

// manager plays systemd: it gives what it is told, one message after the other.
func manager(t *testing.T) func(within time.Duration) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func(within time.Duration) string {
		b := make([]byte, 4096)
		_ = c.SetReadDeadline(time.Now().Add(within))
		n, _ := c.Read(b)
		return string(b[:n])
	}
}

func TestSupervisorIsToldTheState(t *testing.T) {
	told, s := manager(t), supervisor{slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		tell func()
		want string
	}{
		{s.ready, "READY=1"},
		{s.reloading, "RELOADING=1"},
		{func() { s.stopping(0) }, "STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000"},
		{func() { s.stopping(time.Minute) }, "STOPPING=1\nEXTEND_TIMEOUT_USEC=80000000"},
	} {
		c.tell()
		if got := told(time.Second); got != c.want {
			t.Errorf("told %q, want %q", got, c.want)
		}
	}
}

// A daemon whose control socket nobody serves gives no sign of life, although it listens; and one that serves does.
func TestSupervisorSignOfLife(t *testing.T) {
	told, s := manager(t), supervisor{slog.New(slog.DiscardHandler)}
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", "")
	os.Unsetenv("WATCHDOG_PID")
	control := filepath.Join(t.TempDir(), "control")
	deaf, err := net.Listen("unix", control)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.signOfLife(ctx, control) }()
	if got := told(500 * time.Millisecond); got != "" {
		t.Errorf("a deaf daemon tells %q", got)
	}
	deaf.Close()
	served := make(chan error, 1)
	srv := &shell.Server{Path: control, Executor: shell.NewExecutor(struct{ shell.Backend }{quiet{}}, nil), Log: slog.New(slog.DiscardHandler), Ready: make(chan struct{}), MaxClients: 1}
	go func() { served <- srv.Serve(ctx) }()
	if got := told(5 * time.Second); got != "WATCHDOG=1" {
		t.Errorf("a daemon that serves tells %q", got)
	}
	// The one session that it takes is somebody's. An attempt may meet the watchdog's own.
	var c *shell.Client
	for c == nil {
		c, _ = shell.Dial(ctx, control)
	}
	for told(time.Millisecond) != "" { // from before
	}
	if got := told(5 * time.Second); got != "WATCHDOG=1" {
		t.Errorf("a daemon with all its sessions in use tells %q", got)
	}
	c.Close()
	stop()
	<-done
	if err := <-served; err != nil {
		t.Error(err)
	}
}
