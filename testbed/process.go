package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs inside a Host. Its output goes to files, not
// pipes, so that it may outlive the lab (KEEP=1).
type Process struct {
	// Name is the name of the log file without ending.
	Name string
	// LogFile holds standard error, OutFile standard output.
	LogFile, OutFile string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended

	mu  sync.Mutex
	err error // result of Wait; valid after done
}

// ErrStillRunning is what Stop returns for a process that had to be killed.
var ErrStillRunning = errors.New("did not end in time and was killed")

// StartOptions say how a process is started; the zero value is good.
type StartOptions struct {
	Dir string   // working folder
	Env []string // added to the environment
}

// Start runs a program in the namespace. name becomes the log file's name; a
// second start with the same name appends.
func (h *Host) Start(name string, o StartOptions, argv ...string) (*Process, error) {
	p := &Process{
		Name:    name,
		LogFile: filepath.Join(h.dir, name+".log"),
		OutFile: filepath.Join(h.dir, name+".out"),
		done:    make(chan struct{}),
	}
	out, err := os.OpenFile(p.OutFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = h.Command(argv[0], argv[1:]...)
	p.cmd.Dir = o.Dir
	p.cmd.Env = append(os.Environ(), o.Env...)
	p.cmd.Stdout, p.cmd.Stderr = out, log
	// A group of its own: an interrupt typed at the terminal ends the lab in
	// order instead of every process at once.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !h.keep {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		err := p.cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end, at most for the limit. A clean end (exit 0) is nil.
func (p *Process) Wait(limit time.Duration) error {
	if !eventually(limit, func() bool { return !p.Running() }) {
		return fmt.Errorf("%s: still running after %v", p.Name, limit)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Signal sends a signal; an ended process is no error.
func (p *Process) Signal(s syscall.Signal) {
	if p.Running() {
		p.cmd.Process.Signal(s)
	}
}

// Stop ends the process with a signal and returns how it ended: nil for exit
// 0, ErrStillRunning when it took longer than the limit.
func (p *Process) Stop(s syscall.Signal, limit time.Duration) error {
	p.Signal(s)
	if eventually(limit, func() bool { return !p.Running() }) {
		return p.Wait(0)
	}
	p.Kill()
	return fmt.Errorf("%s: %w (%v)", p.Name, ErrStillRunning, limit)
}

// Kill ends the process's whole group without notice (kill -9).
func (p *Process) Kill() {
	if p.Running() {
		syscall.Kill(-p.Pid(), syscall.SIGKILL)
		<-p.done
	}
}

// bitRates is what baresip prints ten times a second during a call.
var bitRates = regexp.MustCompile(`\r?\x1b?\[\d+:\d\d:\d\d\] +audio=\S* \(bit/s\) *`)

// Log returns what the process has written: standard output, then error.
func (p *Process) Log() string {
	return bitRates.ReplaceAllString(readAll(p.OutFile)+readAll(p.LogFile), "")
}

// WaitLog waits until a line of the output matches a pattern and returns the
// submatches. It ends the test when the process ends first.
func (p *Process) WaitLog(t T, pattern string, limit time.Duration) []string {
	t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	var m []string
	ok := eventually(limit, func() bool {
		running := p.Running() // before the look: what it wrote last counts
		m = re.FindStringSubmatch(p.Log())
		return m != nil || !running
	})
	if !ok || m == nil {
		t.Fatalf("%s: no line matches %q within %v; running: %v; log ends:\n%s", p.Name, pattern, limit, p.Running(), tail(p.Log(), 3000))
	}
	return m
}

// readAll returns a file's text, "" when there is none.
func readAll(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(b), "?")
}
