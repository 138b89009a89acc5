package shell

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// person answers at a console from a list.
type person struct {
	bytes.Buffer
	lines []string
}

func (p *person) Ask(prompt string) (string, error) {
	p.WriteString(prompt)
	if len(p.lines) == 0 {
		return "", io.EOF
	}
	line := p.lines[0]
	p.lines = p.lines[1:]
	return line, nil
}

func (p *person) Secret(prompt string) (string, error) { return p.Ask(prompt) }

func (p *person) Tell(text string) { p.WriteString(text + "\n") }

// withUsers is a server whose configuration has an administrator, one who looks alone, and what enable asks for.
func withUsers(t *testing.T, lines ...string) (path string, out *logs) {
	t.Helper()
	k := newKeeper(t)
	x := NewExecutor(&clearable{}, k)
	s := x.NewSession(Caller{})
	for _, line := range append([]string{"configure terminal"}, lines...) {
		if err := s.Run(context.Background(), line, io.Discard); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return start(t, &Server{Executor: x})
}

func TestConsoleLogin(t *testing.T) {
	path, out := withUsers(t, "username admin password Correct-Horse-7", "username watcher password Lazy-Panda-33 privilege 5", "enable password Battery_Staple_9")
	ctx := context.Background()
	c := dial(t, path)
	if !c.Users() {
		t.Fatal("the greeting does not say that there are users")
	}
	p := &person{lines: []string{"admin", "wrong", "nobody", "Correct-Horse-7", "admin", "Correct-Horse-7"}}
	if err := c.askLogin(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(p.String(), "Invalid user name or password"); n != 2 {
		t.Errorf("told of %d wrong tries, must be 2:\n%s", n, p)
	}
	if c.Prompt() != "asa-a> " {
		t.Errorf("prompt %q: privilege is for the security password alone", c.Prompt())
	}
	if r, err := c.Run(ctx, "show startup-config", io.Discard); err != nil || r.Exit == 0 {
		t.Errorf("without privilege: %+v, %v", r, err)
	}
	for _, line := range []string{"enable", "Battery_Staple_9", "show clock"} {
		if r, err := c.Run(ctx, line, io.Discard); err != nil || r.Exit != 0 {
			t.Errorf("%s: %+v, %v", line, r, err)
		}
	}
	if c.Prompt() != "asa-a# " {
		t.Errorf("prompt %q after enable", c.Prompt())
	}
	viewer := dial(t, path)
	if ok, err := viewer.LogIn(ctx, "watcher", "Lazy-Panda-33"); !ok || err != nil {
		t.Fatalf("watcher: %t %v", ok, err)
	}
	for _, line := range []string{"enable", "Battery_Staple_9"} {
		_, _ = viewer.Run(ctx, line, io.Discard)
	}
	if r, _ := viewer.Run(ctx, "clear conn", io.Discard); r.Exit == 0 {
		t.Error("a user below privilege 15 has ended calls")
	}
	text := out.String()
	for _, want := range []string{"console login failed", "console session begins", "user=admin", `from="the console"`, "User 'admin' executed cmd: show clock"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	for _, secret := range []string{"nobody", "wrong", "Correct-Horse", "Battery"} { // a name may be a password
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q:\n%s", secret, text)
		}
	}
}

func TestConsoleLoginIsDenied(t *testing.T) {
	path, _ := withUsers(t, "username admin password Correct-Horse-7")
	c := dial(t, path)
	p := &person{lines: []string{"admin", "1", "", "admin", "3", "admin", "Correct-Horse-7"}}
	if err := c.askLogin(context.Background(), p, 0); !errors.Is(err, ErrDenied) {
		t.Errorf("after three tries: %v", err)
	}
	if err := dial(t, path).askLogin(context.Background(), &person{}, 0); !errors.Is(err, io.EOF) {
		t.Errorf("a terminal that goes away: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := dial(t, path).askLogin(ctx, &person{lines: []string{"admin", "x"}}, loginPause); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// Who has keys alone cannot log in at a console, and opens it for nobody else; without any user the console is open, as an ASA's.
func TestWhoMustLogIn(t *testing.T) {
	path, _ := withUsers(t, "username admin privilege 15")
	if c := dial(t, path); !c.Users() {
		t.Error("with a user who has keys alone, nobody need log in")
	} else if ok, err := c.LogIn(context.Background(), "admin", ""); ok || err != nil {
		t.Errorf("an empty password of a user without any: %t, %v", ok, err)
	}
	path, _ = withUsers(t)
	if c := dial(t, path); c.Users() {
		t.Error("there are users without any")
	}
	path, _ = start(t, new(Server)) // nothing can be changed there
	if c := dial(t, path); c.Users() {
		t.Error("there are users without a configuration")
	} else if ok, err := c.LogIn(context.Background(), "admin", "x"); ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
}
