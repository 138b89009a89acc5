package shell

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// atKeyboard gives what a terminal of some lines shows when keys are pressed one after the other. A key is pressed when the screen shows what stands
// before it in the pair.
func atKeyboard(t *testing.T, path string, height int, pairs ...string) string {
	t.Helper()
	in, keys := io.Pipe()
	screen := new(logs)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(context.Background(), Console{
			Socket: path, In: in, Out: screen, Err: screen, Terminal: true, Size: func() (int, int) { return 200, height },
		})
	}()
	seen := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		deadline := time.Now().Add(10 * time.Second)
		for !strings.Contains(screen.String()[seen:], pairs[i]) {
			if time.Now().After(deadline) {
				t.Fatalf("no %q on the screen before the key %q:\n%q", pairs[i], pairs[i+1], screen.String()[seen:])
			}
			time.Sleep(time.Millisecond)
		}
		seen = len(screen.String())
		if _, err := io.WriteString(keys, pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("the terminal ended with %v", err)
	}
	keys.Close()
	return screen.String()
}

// What a terminal that is cut off had not finished is forgotten; Ctrl-D is the operator's own end, and finishes it.
func TestTerminalCutOff(t *testing.T) {
	for name, x := range map[string]struct {
		keys string
		kept bool
	}{"cut off": {"", false}, "Ctrl-D": {"\x04", true}} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			l := NewLocal(newExecutor(&clearable{}, k, time.Now), Caller{}, slog.New(slog.DiscardHandler))
			defer l.Close()
			con := Console{In: strings.NewReader("conf t\robject network x\rhost 10.1.1.1\r" + x.keys), Out: io.Discard, Err: io.Discard, Terminal: true, Size: func() (int, int) { return 80, 24 }}
			if err := con.Interact(context.Background(), l); err != nil {
				t.Error(err)
			}
			if kept := k.Running().Object("x") != nil; kept != x.kept {
				t.Errorf("the object is there: %t, want %t", kept, x.kept)
			}
		})
	}
}

func TestKeyboard(t *testing.T) {
	for _, c := range []struct {
		name   string
		height int
		keys   []string
		shown  []string
		hidden []string
	}{
		{"tab completes a word", 24, []string{"asa-a# ", "show vers\t", "show version ", "\r", "up 0:01:00", "exit\r"}, nil, nil},
		{"tab lists what fits", 24, []string{"asa-a# ", "show c\t", "clock", "\x15exit\r"}, []string{"conn", "crypto"}, []string{"% Ambiguous"}},
		{
			"a question mark acts at once and keeps the line", 24,
			[]string{"asa-a# ", "show v", "show v", "?", "asa-a# show v", "ersion\r", "up 0:01:00", "exit\r"},
			[]string{"show v?\r\n  version  Version and time since the start"},
			nil,
		},
		{
			"but not in an expression", 24,
			[]string{"asa-a# ", "show version | include upp? 0\r", "up 0:01:00", "exit\r"},
			nil,
			[]string{"Kernel"},
		},
		{"pages", 5, []string{"asa-a# ", "help\r", more, "\r", more, " ", more, "q", "asa-a# ", "exit\r"}, []string{"signaling-sessions statistics"}, []string{"List of the commands"}},
		{"no pages", 5, []string{"asa-a# ", "terminal pager 0\r", "asa-a# ", "help\r", "asa-a# ", "exit\r"}, []string{"List of the commands"}, []string{more}},
		{"Ctrl-C stops a long output", 5, []string{"asa-a# ", "help\r", more, "\x03", "asa-a# ", "exit\r"}, nil, []string{"List of the commands"}},
		{"Ctrl-C forgets the line", 24, []string{"asa-a# ", "show version", "show version", "\x03", "asa-a# ", "exit\r"}, nil, []string{"up 0:01:00"}},
		{"Ctrl-Z leaves configuration mode", 24, []string{"asa-a# ", "conf t\r", "(config)# ", "object network x\r", "(config-network-object)# ", "\x1a", "asa-a# ", "exit\r"}, nil, nil},
		{"pages of a length", 40, []string{"asa-a# ", "terminal pager lines 3\r", "asa-a# ", "help\r", more, "q", "asa-a# ", "exit\r"}, nil, []string{"List of the commands"}},
		{
			"Ctrl-C is no answer to a question", 24, // nor what is typed behind it
			[]string{"asa-a# ", "write erase\r", "[confirm] ", "\x03", "asa-a# ", "show startup-config\r", "hostname asa-a", "exit\r"},
			nil,
			[]string{"[OK]"},
		},
		{"the line before comes back", 24, []string{"asa-a# ", "show clock\r", "UTC", "\x1b[A", "show clock", "\r", "UTC", "exit\r"}, nil, nil},
		{"a paste arrives whole", 24, []string{"asa-a# ", "\x1b[200~conf t\rhostname pasted\rend\rshow running-config hostname\r\x1b[201~", "\nhostname pasted", "exit\r"}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := start(t, &Server{Executor: newExecutor(&clearable{}, newKeeper(t), func() time.Time { return noon })})
			screen := atKeyboard(t, path, c.height, c.keys...)
			for _, s := range c.shown {
				if !strings.Contains(screen, s) {
					t.Errorf("no %q on the screen:\n%q", s, screen)
				}
			}
			for _, s := range c.hidden {
				if strings.Contains(screen, s) {
					t.Errorf("%q on the screen:\n%q", s, screen)
				}
			}
		})
	}
}
