package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"imeproxy/proxy/config"
	"imeproxy/proxy/disk"
	"imeproxy/proxy/remote"
	"imeproxy/proxy/revision"
	"imeproxy/proxy/shell"
)

// desktop is an appliance that knows its name, has files and can begin anew, and no more.
type desktop struct {
	shell.Backend
	files    *disk.Disk
	restarts *atomic.Int32
}

func (desktop) Banner() string           { return "" }
func (desktop) Hostname() string         { return "edge" }
func (d desktop) Disk() *disk.Disk       { return d.files }
func (desktop) KnownHosts() remote.Hosts { return remote.Hosts{} }
func (d desktop) Restart(string)         { d.restarts.Add(1) }

// controlled serves a configuration at a control socket, and gives the socket and the file of the saved configuration.
func controlled(t *testing.T) (socket, saved string) {
	t.Helper()
	return controlledBy(t, t.TempDir(), new(atomic.Int32))
}

// controlledBy serves one in a directory, the files of disk0: among them, and counts how often it is to begin anew.
func controlledBy(t *testing.T, dir string, restarts *atomic.Int32) (socket, saved string) {
	t.Helper()
	files, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(files.Close)
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
	srv := &shell.Server{Path: socket, Executor: shell.NewExecutor(desktop{files: files, restarts: restarts}, keeper), Log: log, Ready: make(chan struct{})}
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

// TestQuestionsOnATerminal answers each command that asks in each way that there is at a pseudo terminal: only Return and a yes let it act, and
// what it says then is seen.
func TestQuestionsOnATerminal(t *testing.T) {
	restarts := new(atomic.Int32)
	dir := t.TempDir()
	socket, saved := controlledBy(t, dir, restarts)
	file := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		return string(text)
	}
	const hangUp = "the line is cut"
	answers := []struct {
		keys string
		yes  bool
	}{{"\r", true}, {"y\r", true}, {"YES\r", true}, {"n\r", false}, {"x\r", false}, {" no \r", false}, {"\x03", false}, {"y\x03", false}, {"\x04", false}, {"\x1a", false}, {hangUp, false}}
	for _, c := range []struct {
		command, question, said string
		before                  string // another question, answered with Return
		done                    func() bool
	}{
		{command: "reload", question: "All calls end. Proceed with reload? [confirm] ", said: "The appliance begins anew.", done: func() bool { return restarts.Load() > 0 }},
		{command: "write erase", question: "Erase configuration in flash memory? [confirm] ", said: "[OK]", done: func() bool { return file(filepath.Base(saved)) == "" }},
		{command: "delete disk0:a.txt", before: "Delete filename [a.txt]? ", question: "Delete disk0:/a.txt? [confirm] ", done: func() bool { return file("a.txt") == "" }},
		{command: "copy disk0:a.txt disk0:b.txt", question: "Do you want to over write? [confirm] ", said: "bytes copied", done: func() bool { return file("b.txt") == "one" }},
		{command: "copy running-config disk0:b.txt", question: "Do you want to over write? [confirm] ", said: "bytes copied", done: func() bool { return file("b.txt") != "two" }},
	} {
		for _, a := range answers {
			t.Run(fmt.Sprintf("%s %q", c.command, a.keys), func(t *testing.T) {
				restarts.Store(0)
				for name, text := range map[string]string{filepath.Base(saved): "hostname edge\n", "a.txt": "one", "b.txt": "two"} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				x := onTerminal(t, "shell", "--control", socket)
				x.answer("edge# ", c.command)
				if c.before != "" {
					x.answer(c.before, "")
				}
				switch {
				case a.keys == hangUp:
					x.press(c.question, "")
					_ = x.cmd.Process.Signal(syscall.SIGHUP) // the kernel's word when a terminal goes
				default:
					x.press(c.question, a.keys)
				}
				if ends := a.keys == hangUp || a.keys == "\x04" || (a.yes && c.command == "reload"); !ends {
					x.answer("edge# ", "exit")
				}
				if _, screen := x.wait(); a.yes && !strings.Contains(screen, c.said) {
					t.Errorf("%q is not said:\n%s", c.said, screen)
				}
				if c.done() != a.yes {
					t.Errorf("done: %t", c.done())
				}
			})
		}
	}
}

// TestReloadAsksWhetherToSave answers the question that an ASA asks before it begins anew with changes that are not saved.
func TestReloadAsksWhetherToSave(t *testing.T) {
	const question = "System config has been modified. Save? [Y]es/[N]o/[S]ave only/[C]ancel: "
	for _, c := range []struct {
		keys                 string
		proceeds, saved, bye bool
	}{
		{keys: "y\r", proceeds: true, saved: true}, {keys: "n\r", proceeds: true}, {keys: "s\r", saved: true}, {keys: "c\r"}, {keys: "\x03"}, {keys: "\x04", bye: true},
	} {
		t.Run(fmt.Sprintf("%q", c.keys), func(t *testing.T) {
			restarts := new(atomic.Int32)
			socket, saved := controlledBy(t, t.TempDir(), restarts)
			x := onTerminal(t, "shell", "--control", socket)
			x.answer("edge# ", "configure terminal")
			x.answer("edge(config)# ", "banner motd hello")
			x.answer("edge(config)# ", "end")
			x.answer("edge# ", "reload")
			x.answer(question, "what")
			x.press("Please answer y, n, s or c.", "")
			x.press(question, c.keys)
			switch {
			case c.proceeds:
				x.answer("Proceed with reload? [confirm] ", "")
			case !c.bye:
				x.answer("edge# ", "exit")
			}
			_, screen := x.wait()
			text, err := os.ReadFile(saved)
			if err != nil || strings.Contains(string(text), "hello") != c.saved || (restarts.Load() > 0) != c.proceeds || strings.Contains(screen, "The appliance begins anew.") != c.proceeds {
				t.Errorf("%d restarts, saved %q, %v; the screen is\n%s", restarts.Load(), text, err, screen)
			}
		})
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
