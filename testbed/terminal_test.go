package testbed

import (
	"bytes"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// keyboard is a person at a terminal: a program on a pseudo-terminal of 24 lines, what it shows, and keys.
type keyboard struct {
	cmd  *exec.Cmd
	keys io.WriteCloser
	mu   sync.Mutex
	seen bytes.Buffer
	from int // how far the screen has been read
}

func (k *keyboard) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen.Write(b)
}

func (k *keyboard) screen() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen.String()
}

// sit begins a program on a terminal of its own, by script(1).
func sit(t *testing.T, argv ...string) *keyboard {
	t.Helper()
	k := new(keyboard)
	for i, a := range argv {
		argv[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	k.cmd = exec.Command("script", "-qfec", "stty rows 24 cols 120; exec "+strings.Join(argv, " "), "/dev/null")
	k.cmd.Stdout, k.cmd.Stderr = k, k
	var err error
	if k.keys, err = k.cmd.StdinPipe(); err == nil {
		err = k.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = k.cmd.Process.Kill()
		_ = k.cmd.Wait()
	})
	return k
}

// expect waits until a text is shown behind what was expected before.
func (k *keyboard) expect(t *testing.T, text string) {
	t.Helper()
	if !eventually(10*time.Second, func() bool {
		s := k.screen()
		i := strings.Index(s[k.from:], text)
		if i < 0 {
			return false
		}
		k.from += i + len(text)
		return true
	}) {
		t.Fatalf("no %q on the screen behind\n%q", text, tail(k.screen()[k.from:], 2000))
	}
}

func (k *keyboard) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(k.keys, keys); err != nil {
		t.Fatal(err)
	}
}

// A person at a real terminal abbreviates, asks, completes, makes mistakes, pages, interrupts, pastes and goes back.
func TestPersonAtATerminal(t *testing.T) {
	s := StartStubs(t)
	k := sit(t, Binary(), "shell", "--control", s.Proxy.Control)
	prompt := s.promptOf(t)
	for _, step := range []struct{ keys, shown string }{
		{"", prompt},
		{"sh clo\r", "UTC"},
		{"show uc-ime sig\t", "show uc-ime signaling-sessions"},
		{"?", "statistics"},
		{"\r", "0 in use"},
		{"show foo\r", "\r\n     ^\r\nERROR: % Invalid input detected at '^' marker."},
		{"show running-config\r", "<--- More --->"},
		{"\r", "<--- More --->"},
		{"q", prompt},
		{"ping " + s.B.OutsideIP.String() + " repeat 100000\r", "!!!!!!"},
		{"\x03", "Success rate is 100 percent"},
		{"", prompt},
		{"debug sip\r", "debug sip\r\n"},
		{"\x03", prompt},
		{"clo\x12", "sh clo"},
		{"\r", "UTC"},
		{"\x1b[200~configure terminal\rbanner motd pasted\rend\rshow running-config banner\r\x1b[201~", "\r\nbanner motd pasted\r\n"},
		{"conf t\r", "(config)# "},
		{"no banner motd\r", "(config)# "},
		{"object network x\r", "(config-network-object)# "},
		{"\x1a", prompt},
		{"exit\r", ""},
	} {
		if step.keys != "" {
			k.press(t, step.keys)
		}
		if step.shown != "" {
			k.expect(t, step.shown)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- k.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the shell ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("exit does not end it:\n%q", tail(k.screen(), 500))
	}
}

func (s *StubLab) promptOf(t *testing.T) string {
	t.Helper()
	var v struct{ Hostname string }
	s.Proxy.Show(t, "version", &v)
	return v.Hostname + "# "
}
