package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test's own program is imeproxy when it is told to be.
func init() {
	if os.Getenv("IMEPROXY_TEST_MAIN") != "" {
		os.Exit(run(context.Background(), os.Args[1:]))
	}
}

// terminalOf is imeproxy on a pseudo terminal, as at the appliance's console.
type terminalOf struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	ended  chan struct{}

	mu     sync.Mutex
	screen bytes.Buffer // guarded by mu, as seen
	seen   int
	more   chan struct{}
}

func onTerminal(t *testing.T, args ...string) *terminalOf {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	x := &terminalOf{t: t, master: master, cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{}), more: make(chan struct{}, 1)}
	x.cmd.Env = append(os.Environ(), "IMEPROXY_TEST_MAIN=1")
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for b := make([]byte, 4096); ; {
			n, err := master.Read(b)
			x.mu.Lock()
			x.screen.Write(b[:n])
			x.mu.Unlock()
			select {
			case x.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	go func() { _ = x.cmd.Wait(); <-read; close(x.ended) }()
	t.Cleanup(func() { _ = x.cmd.Process.Kill(); <-x.ended })
	return x
}

func (x *terminalOf) shown() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

// answer waits for a text, after what was waited for last, and types a line.
func (x *terminalOf) answer(text, line string) {
	x.t.Helper()
	x.press(text, line+"\r")
}

// between gives what stands on the screen between the last two places where two texts were seen, the second the one that was waited for last.
func (x *terminalOf) between(first, second string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	seen := x.screen.String()[:x.seen-len(second)]
	return seen[strings.LastIndex(seen, first)+len(first):]
}

// press waits for a text, after what was waited for last, and presses keys.
func (x *terminalOf) press(text, keys string) {
	x.t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		x.mu.Lock()
		at := bytes.Index(x.screen.Bytes()[x.seen:], []byte(text))
		if at >= 0 {
			x.seen += at + len(text)
		}
		x.mu.Unlock()
		if at >= 0 {
			break
		}
		select {
		case <-x.more:
		case <-limit.C:
			x.t.Fatalf("the terminal never shows %q:\n%s", text, x.shown())
		}
	}
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// wait gives the exit status and all that was shown.
func (x *terminalOf) wait() (int, string) {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(20 * time.Second):
		x.t.Fatalf("it does not end:\n%s", x.shown())
	}
	return x.cmd.ProcessState.ExitCode(), strings.ReplaceAll(x.shown(), "\r", "")
}
