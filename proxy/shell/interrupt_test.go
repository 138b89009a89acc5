package shell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"imeproxy/proxy/config/keyword"
)

// counting is an executor with a command that counts up until it is interrupted, or to a number.
func counting(t *testing.T) *executor {
	x := newExecutor(&clearable{}, newKeeper(t), func() time.Time { return noon })
	x.tree.Add("count [<to:1-100000>]", "", entry{live: func(ctx context.Context, _ *session, args keyword.Args, w io.Writer) error {
		to := number(args, "to")
		for i := 1; to == 0 || i <= to; i++ {
			if to == 0 {
				select {
				case <-ctx.Done():
					_, err := fmt.Fprintln(w, "counted enough")
					return err
				case <-time.After(time.Millisecond):
				}
			}
			if _, err := fmt.Fprintln(w, "number", i); err != nil {
				return err
			}
		}
		return nil
	}})
	return x
}

// trigger cancels when a text has come.
type trigger struct {
	logs
	text   string
	cancel func()
}

func (g *trigger) Write(b []byte) (int, error) {
	n, err := g.logs.Write(b)
	if strings.Contains(g.String(), g.text) {
		g.cancel()
	}
	return n, err
}

// A command that goes on is seen as it goes on, ends when it is interrupted, and the connection serves on, however short its idle time is.
func TestInterruptedCommand(t *testing.T) {
	path, _ := start(t, &Server{Executor: counting(t), IdleTime: 2 * time.Second})
	c := dial(t, path)
	local := NewLocal(counting(t), Caller{}, slog.New(slog.DiscardHandler))
	defer local.Close()
	for name, d := range map[string]Dialogue{"socket": c, "local": local} {
		ctx, cancel := context.WithCancel(context.Background())
		out := &trigger{text: "number 3\n", cancel: cancel}
		if r, err := d.Run(ctx, "count", out); err != nil || r.Exit != 0 {
			t.Fatalf("%s: %v %v", name, r, err)
		}
		if !strings.HasPrefix(out.String(), "number 1\nnumber 2\nnumber 3\n") || !strings.HasSuffix(out.String(), "\ncounted enough\n") {
			t.Errorf("%s: got %q", name, out.String())
		}
		cancel()
		var next bytes.Buffer
		if _, err := d.Run(context.Background(), "show clock", &next); err != nil || !strings.Contains(next.String(), "UTC") {
			t.Errorf("%s: the next command gave %q %v", name, next.String(), err)
		}
	}
}

// An interrupt that comes when nothing runs, or late, does not hit the command after it.
func TestLateInterrupt(t *testing.T) {
	path, _ := start(t, &Server{Executor: counting(t)})
	c := rawDial(t, path)
	for _, q := range []request{{Interrupt: true}, {Command: "show clock"}, {Interrupt: true}, {Command: "count 3"}, {Command: "exit"}} {
		if err := writeFrame(c, q); err != nil {
			t.Fatal(err)
		}
	}
	all := answers(t, c)
	text := ""
	for _, a := range all {
		text += a.Output
	}
	if !strings.Contains(text, "number 1\nnumber 2\nnumber 3\n") || !all[len(all)-1].Close {
		t.Errorf("got %+v", all)
	}
}

// A command ends when nobody is there any more to see what it writes.
func TestAbandonedCommandEnds(t *testing.T) {
	path, log := start(t, &Server{Executor: counting(t)})
	c := rawDial(t, path)
	if err := writeFrame(c, request{Command: "count"}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 3; i++ {
		if _, err := readFrame(c, MaxAnswer, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "line=count"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it still runs: %s", log.String())
		}
	}
}

// More requests than may wait are taken in order, none is lost.
func TestManyRequestsAtOnce(t *testing.T) {
	path, _ := start(t, &Server{Executor: counting(t)})
	c := rawDial(t, path)
	go func() {
		for i := 1; i <= 5*maxAhead; i++ {
			if writeFrame(c, request{Command: fmt.Sprintf("count %d | include number %d$", i, i)}) != nil {
				return
			}
		}
		_ = writeFrame(c, request{Command: "exit"})
	}()
	text, want := "", ""
	for _, a := range answers(t, c)[1:] {
		text += a.Output
	}
	for i := 1; i <= 5*maxAhead; i++ {
		want += fmt.Sprintf("number %d\n", i)
	}
	if text != want {
		t.Errorf("got %q", text)
	}
}

// waits are the idle times that a server has begun, of which the test makes one run out.
type waits chan chan time.Time

func (w waits) after(time.Duration) (<-chan time.Time, func() bool) {
	at := make(chan time.Time, 1)
	w <- at
	return at, func() bool { return true }
}

// A connection without a command for the idle time ends, and both the client and the log are told why.
func TestIdleConnectionEnds(t *testing.T) {
	w := make(waits)
	path, log := start(t, &Server{Executor: counting(t), after: w.after})
	c := rawDial(t, path)
	<-w <- time.Now()
	all := answers(t, c)
	if last := all[len(all)-1]; len(all) != 2 || last.Exit != 1 || !last.Close || last.Error != "ERROR: no command came for 30m0s" {
		t.Errorf("got %+v", all)
	}
	if !strings.Contains(log.String(), "no command came for 30m0s") {
		t.Errorf("the log does not say why: %s", log.String())
	}

	// Who types only then is told what has happened before.
	d := dial(t, path)
	<-w <- time.Now()
	for end := time.Now().Add(10 * time.Second); strings.Count(log.String(), "no command came") < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the connection stands: %s", log.String())
		}
	}
	if r, err := d.Run(context.Background(), "show clock", io.Discard); err == nil && !strings.Contains(r.Error, "no command came for 30m0s") ||
		err != nil && !strings.Contains(err.Error(), "no command came for 30m0s") {
		t.Errorf("the client says %+v, %v", r, err)
	}
}

// The idle time begins anew with each request, is long over when a command has gone on for as long, and does not run while one does.
func TestConnectionInUseStays(t *testing.T) {
	w := make(waits)
	path, _ := start(t, &Server{Executor: counting(t), after: w.after})
	c := dial(t, path)
	var past []chan time.Time
	for range 3 {
		past = append(past, <-w)
		if r, err := c.Run(context.Background(), "show clock", io.Discard); err != nil || r.Exit != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		past = append(past, <-w)
		if _, err := c.Complete(context.Background(), "show cl"); err != nil {
			t.Fatal(err)
		}
	}
	past = append(past, <-w)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &trigger{text: "number 3\n", cancel: sync.OnceFunc(func() {
		for _, at := range past { // all that have begun run out
			select {
			case at <- time.Now():
			default:
			}
		}
		select {
		case <-w:
			t.Error("the idle time has begun while a command goes on")
		default:
		}
		cancel()
	})}
	if r, err := c.Run(ctx, "count", out); err != nil || r.Exit != 0 || !strings.HasSuffix(out.String(), "\ncounted enough\n") {
		t.Errorf("%+v, %v: %q", r, err, out.String())
	}
	<-w
	if r, err := c.Run(context.Background(), "exit", io.Discard); err != nil || !r.Closed {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestFiltersOfWhatGoesOn(t *testing.T) {
	x := counting(t)
	for line, want := range map[string]string{
		"count 12 | include 1$":  "number 1\nnumber 11\n",
		"count 4 | exclude [13]": "number 2\nnumber 4\n",
		"count 3 | grep -v 2":    "number 1\nnumber 3\n",
		"count 3 | grep 2":       "number 2\n",
		"count 3 | json":         "^",
		"count 3 | count":        "^",
		"count 3 | begin 2":      "^",
		"count 3 | include [":    "Invalid regular expression",
	} {
		var out bytes.Buffer
		s := x.NewSession(Caller{})
		err := s.Run(context.Background(), line, &out)
		if got := out.String(); err == nil && got != want {
			t.Errorf("%s: got %q", line, got)
		}
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestSearchOfPastLines(t *testing.T) {
	var p past
	for _, line := range []string{"show clock", "show version", "", "  ", "show version", "show conn", "ping 10.1.1.1"} {
		p.Add(line)
	}
	p.silent = true
	p.Add("secret")
	for i, step := range []struct{ typed, want string }{
		{"show", "show conn"}, {"show conn", "show version"}, {"show version", "show clock"}, {"show clock", ""}, {"ver", "show version"}, {"secret", ""}, {"", "ping 10.1.1.1"},
	} {
		if got, ok := p.search(step.typed); got != step.want || ok != (step.want != "") {
			t.Errorf("%d: %q gave %q", i, step.typed, got)
		}
	}
	for i := range 2 * maxPast {
		p.silent = false
		p.Add(fmt.Sprint("line ", i))
	}
	if p.Len() != maxPast || p.At(0) != fmt.Sprint("line ", 2*maxPast-1) || p.At(maxPast-1) != fmt.Sprint("line ", maxPast) {
		t.Errorf("%d lines, from %q to %q", p.Len(), p.At(p.Len()-1), p.At(0))
	}
}

func TestKeysWhileACommandRuns(t *testing.T) {
	for _, c := range []struct {
		name          string
		height        int
		keys          []string
		shown, hidden []string
	}{
		{"Ctrl-C ends it", 0, []string{"asa-a# ", "count\r", "number 3\r\n", "\x03", "asa-a# ", "show clock\r", "UTC", "exit\r"}, []string{"counted enough\r\n"}, nil},
		{"Ctrl-C ends it at a page's end", 5, []string{"asa-a# ", "count\r", more, "\x03", "asa-a# ", "show clock\r", "UTC", "exit\r"}, nil, []string{"counted enough", "number 9"}},
		{"q ends it at a page's end", 5, []string{"asa-a# ", "count\r", more, "q", "asa-a# ", "show clock\r", "UTC", "exit\r"}, nil, []string{"counted enough"}},
		{"Ctrl-C pressed at once ends it too", 0, []string{"asa-a# ", "count\r\x03", "counted enough\r\n", "show clock\r", "UTC", "exit\r"}, nil, nil},
		{"keys typed ahead are kept", 0, []string{"asa-a# ", "count 50000\rshow clock\rexit\r"}, []string{"number 50000\r\n", "UTC"}, nil},
		{"but not those before a Ctrl-C", 0, []string{"asa-a# ", "count\r", "number 3\r\n", "show version\r\x03", "asa-a# ", "exit\r"}, nil, []string{"up 0:01:00"}},
		{"Ctrl-R finds an earlier line", 24, []string{"asa-a# ", "show clock\r", "UTC", "show version\r", "up 0:01:00", "clo\x12", "show clock", "\r", "UTC", "exit\r"}, nil, nil},
		{"and the one before", 24, []string{"asa-a# ", "show clock\r", "UTC", "show version\r", "up 0:01:00", "show\x12", "show version", "\x12\r", "UTC", "exit\r"}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, _ := start(t, &Server{Executor: counting(t)})
			height := c.height
			keys := c.keys
			if height == 0 {
				height, keys = 24, append([]string{"asa-a# ", "terminal pager 0\r"}, keys...)
			}
			screen := atKeyboard(t, path, height, keys...)
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

// The line that is being typed is laid out anew when the window gets another size.
func TestWindowChangesWhileALineIsTyped(t *testing.T) {
	l := NewLocal(counting(t), Caller{}, slog.New(slog.DiscardHandler))
	defer l.Close()
	in, keys := io.Pipe()
	screen, resized := new(logs), make(chan struct{}, 1)
	width := make(chan int, 1)
	width <- 80
	size := func() (int, int) { w := <-width; width <- w; return w, 24 }
	ended := make(chan error, 1)
	go func() {
		ended <- Console{In: in, Out: screen, Err: screen, Terminal: true, Size: size, Resized: resized}.Interact(context.Background(), l)
	}()
	await := func(text string) {
		for end := time.Now().Add(10 * time.Second); !strings.Contains(screen.String(), text); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %q on the screen: %q", text, screen.String())
			}
		}
	}
	await("asa-a# ")
	_, _ = io.WriteString(keys, "show version | include ")
	await("include ")
	<-width
	width <- 40
	before := len(screen.String())
	resized <- struct{}{}
	for end := time.Now().Add(10 * time.Second); len(screen.String()) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the line is not laid out anew")
		}
	}
	_, _ = io.WriteString(keys, "\x03exit\r")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	keys.Close()
}
