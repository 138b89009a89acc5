package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, ".", os.Args[1:], os.Stdout, os.Stderr))
}

// run runs `go test -json` with arguments in a directory and gives its exit status.
func run(ctx context.Context, dir string, args []string, out, errs io.Writer) int {
	goCommand := os.Getenv("GO")
	if goCommand == "" {
		goCommand = "go"
	}
	cmd := exec.CommandContext(ctx, goCommand, append([]string{"test", "-json"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, errs
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its tests
	cmd.WaitDelay = time.Minute
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(errs, "go test cannot be run:", err)
		return 2
	}
	p := newPrinter(out)
	readErr := p.read(events)
	err = cmd.Wait()
	p.end()
	if e := new(exec.ExitError); errors.As(err, &e) && e.ExitCode() > 0 {
		return e.ExitCode()
	}
	if err = errors.Join(err, readErr); err != nil {
		fmt.Fprintln(errs, "go test:", err)
		return 2
	}
	return 0
}
