package shell

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunConsole(t *testing.T) {
	const banner = "Enterprise A\nKeep ?out\n"
	const upLine = "asa-a up 0:01:00\n"
	const invalid = "show foo\n     ^\nERROR: % Invalid input detected at '^' marker.\n`?` in its place lists what may stand there\n"
	path, _ := start(t, &Server{})
	for _, c := range []struct {
		name     string
		commands []string
		in       string
		terminal bool
		out, err string
		failed   bool
	}{
		{name: "one", commands: []string{"show ver | i up"}, out: upLine},
		{name: "several", commands: []string{"show ver | i up", "show ver | i up"}, in: "show foo\n", out: upLine + upLine},
		{name: "stops at the first error", commands: []string{"show ver | i up", "show foo", "show ver | i up"}, out: upLine, err: invalid, failed: true},
		{name: "stops at exit", commands: []string{"exit", "show foo"}},
		{name: "lines", in: "! comment\n\nshow ver | i up\r\nshow ver | i up", out: upLine + upLine},
		{name: "lines stop at the first error", in: "show foo\nshow ver | i up\n", err: invalid, failed: true},
		{name: "lines stop at exit", in: "quit\nshow foo\n"},
		{name: "no lines"},
		{name: "terminal", in: "show foo\nshow ver | i up\n", terminal: true, out: banner + "asa-a# " + invalid + "asa-a# " + upLine + "asa-a# \n"},
		{name: "terminal exit", in: "exit\nshow foo\n", terminal: true, out: banner + "asa-a# "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs strings.Builder
			err := Run(context.Background(), Console{Socket: path, Commands: c.commands, In: strings.NewReader(c.in), Out: &out, Err: &errs, Terminal: c.terminal})
			if c.failed != errors.Is(err, ErrCommandFailed) || !c.failed && err != nil {
				t.Errorf("error is %v", err)
			}
			if out.String() != c.out || errs.String() != c.err {
				t.Errorf("output %q, errors %q; want %q, %q", out.String(), errs.String(), c.out, c.err)
			}
		})
	}
}

func TestRunLongLine(t *testing.T) {
	path, _ := start(t, &Server{})
	err := Run(context.Background(), Console{Socket: path, In: strings.NewReader(strings.Repeat("x", 2*MaxLine)), Out: io.Discard, Err: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

// Ctrl-C at the prompt ends the shell though the read from the terminal goes on.
func TestRunEndsWithItsContext(t *testing.T) {
	path, _ := start(t, &Server{})
	in, keys := io.Pipe()
	defer keys.Close() // lets the reading goroutine go
	ctx, cancel := context.WithCancel(context.Background())
	out := &prompted{seen: make(chan struct{}, 8)}
	ended := make(chan error)
	go func() { ended <- Run(ctx, Console{Socket: path, In: in, Out: out, Err: out, Terminal: true}) }()
	<-out.seen
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

type prompted struct{ seen chan struct{} }

func (p *prompted) Write(b []byte) (int, error) {
	p.seen <- struct{}{}
	return len(b), nil
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{filepath.Join(dir, "none.sock"), stale} {
		err := Run(context.Background(), Console{Socket: path, Commands: []string{"show version"}})
		if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "imeproxy run") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	long := filepath.Join(dir, strings.Repeat("x", 108))
	if _, err := Dial(context.Background(), long); err == nil || !strings.Contains(err.Error(), "path is longer than 107 bytes") {
		t.Errorf("a long path: %v", err)
	}
	if os.Getuid() != 0 { // root may open anything
		closed := filepath.Join(dir, "closed")
		if err := os.Mkdir(closed, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Dial(context.Background(), filepath.Join(closed, "s")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("directory without rights: %v", err)
		}
	}
}

// A daemon that accepts and says nothing, or nonsense, does not hang the shell.
func TestDialStrangeServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	go func() { _, err := Dial(ctx, path); result <- err }()
	silent := <-accepted
	defer silent.Close()
	cancel()
	if err := <-result; err == nil {
		t.Error("a silent server was taken for a daemon")
	}
	go func() { _, err := Dial(context.Background(), path); result <- err }()
	c := <-accepted
	defer c.Close()
	if _, err := c.Write([]byte("HTTP/1.1 400\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil || !errors.Is(err, ErrTooLong) {
		t.Errorf("nonsense: %v", err)
	}
}
