package shell

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"imeproxy/proxy/config/keyword"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logs is a log that two goroutines may write.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a server until the test ends and gives its socket.
func start(t *testing.T, s *Server) (string, *logs) {
	t.Helper()
	out := new(logs)
	if s.Path == "" {
		s.Path = filepath.Join(t.TempDir(), "run", "control.sock")
	}
	if s.Executor == nil {
		s.Executor = NewExecutor(&clearable{}, nil)
	}
	s.Log, s.Ready = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	select {
	case <-s.Ready:
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server ended with %v", err)
		}
		if _, err := os.Lstat(s.Path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("socket is left: %v", err)
		}
	})
	return s.Path, out
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func rawDial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// answers reads frames up to the end of the connection.
func answers(t *testing.T, c net.Conn) (all []answer) {
	t.Helper()
	for {
		body, err := readFrame(c, MaxAnswer, func() {})
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Fatal("the server left the connection open")
			}
			return all
		}
		var a answer
		if err := json.Unmarshal(body, &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
}

func TestConversation(t *testing.T) {
	path, log := start(t, &Server{})
	c := dial(t, path)
	if c.Prompt() != "asa-a# " {
		t.Errorf("prompt is %q", c.Prompt())
	}
	for _, q := range []struct {
		line, out, err string
		exit           int
		closed         bool
	}{
		{"show version | include up", "asa-a up 0:01:00\n", "", 0, false},
		{"show foo", "", "show foo\n     ^\nERROR: % Invalid input detected at '^' marker.\n`?` in its place lists what may stand there", 1, false},
		{"show run banner", "", "ERROR: the configuration is being ?changed", 1, false},
		{"", "", "", 0, false},
		{strings.Repeat("x", MaxLine+1), "", "ERROR: % Line is longer than 16384 bytes", 1, false},
		{"exit", "", "", 0, true},
	} {
		var out strings.Builder
		r, err := c.Run(context.Background(), q.line, &out)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != q.out || r.Error != q.err || r.Exit != q.exit || r.Closed != q.closed {
			t.Errorf("%.20q gave %q, %+v", q.line, out.String(), r)
		}
	}
	if _, err := c.Run(context.Background(), "show version", io.Discard); err == nil {
		t.Error("the connection still answers after exit")
	}
	if want := fmt.Sprintf("uid=%d pid=%d line=\"show foo\" exit=1", os.Getuid(), os.Getpid()); !strings.Contains(log.String(), want) {
		t.Errorf("no line %q in the log:\n%s", want, log.String())
	}
	if strings.Contains(log.String(), `line=""`) || strings.Contains(log.String(), "''") {
		t.Errorf("an empty line is told as a command:\n%s", log.String())
	}
}

// special is an executor whose sessions do what real commands should not.
type special struct{ big string }

func (s special) NewSession(Caller) Session { return s }
func (s special) Greeting() string          { return "" }
func (s special) Prompt() string            { return "> " }
func (s special) Close()                    {}
func (s special) Secret() bool              { return false }
func (s special) Deed() Deed                { return Act }

func (s special) Complete(line string) (string, []keyword.Candidate) { return line, nil }

func (s special) Run(ctx context.Context, line string, w io.Writer) error {
	switch line {
	case "panic":
		panic("boom")
	case "big":
		_, err := io.WriteString(w, s.big)
		return err
	case "long error":
		return errors.New(strings.Repeat("x", 2*outputChunk))
	}
	return nil
}

func TestBigOutputArrivesWhole(t *testing.T) {
	for _, unit := range []string{"0123456789\n", "é", "日本", "\x01\x02", "𝄞"} {
		want := strings.Repeat(unit, 3*outputChunk/len(unit)+1)
		path, _ := start(t, &Server{Executor: special{want}})
		c := dial(t, path)
		var out strings.Builder
		if _, err := c.Run(context.Background(), "big", &out); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%q: %d bytes came, %d were sent", unit, out.Len(), len(want))
		}
	}
}

// A fault in one command ends that command, not the daemon that carries calls.
func TestPanicEndsTheCommandOnly(t *testing.T) {
	path, log := start(t, &Server{Executor: special{}})
	c := dial(t, path)
	r, err := c.Run(context.Background(), "panic", io.Discard)
	if err != nil || r.Exit != 1 || !strings.Contains(r.Error, "Internal error") {
		t.Fatalf("%+v, %v", r, err)
	}
	if !strings.Contains(log.String(), "boom") {
		t.Error("the log does not tell of the panic")
	}
	if r, err := c.Run(context.Background(), "long error", io.Discard); err != nil || len(r.Error) != outputChunk {
		t.Errorf("%d bytes of error text, %v", len(r.Error), err)
	}
}

func TestClientCap(t *testing.T) {
	path, _ := start(t, &Server{})
	var clients []*Client
	for range MaxClients {
		clients = append(clients, dial(t, path))
	}
	if _, err := Dial(context.Background(), path); err == nil || !strings.Contains(err.Error(), ErrBusy.Error()) {
		t.Fatalf("client %d: %v", MaxClients+1, err)
	}
	for _, c := range clients { // those that were there notice nothing
		if r, err := c.Run(context.Background(), "show clock", io.Discard); err != nil || r.Exit != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	clients[0].Close()
	for deadline := time.Now().Add(10 * time.Second); ; { // the server learns of the close in its own time
		c, err := Dial(context.Background(), path)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the freed place cannot be used: %v", err)
		}
	}
}

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestBadClients(t *testing.T) {
	path, _ := start(t, &Server{})
	short, _ := start(t, &Server{RequestTime: 50 * time.Millisecond})
	for _, c := range []struct {
		name  string
		send  []byte
		error string // "" = closed without a word
	}{
		{"http", []byte("GET / HTTP/1.1\r\n\r\n"), "too long"},
		{"length over the cap", binary.BigEndian.AppendUint32(nil, MaxRequest+1), "too long"},
		{"no json", frame("show version"), "malformed"},
		{"unknown member", frame(`{"command":"show version","as":"root"}`), "malformed"},
		{"wrong type", frame(`{"command":7}`), "malformed"},
		{"two requests in a frame", frame(`{"command":""}{"command":""}`), "malformed"},
		{"empty frame", frame(""), "malformed"},
		{"line over the cap", frame(`{"command":"` + strings.Repeat("x", MaxLine+1) + `"}`), "too long"},
		{"half a length", []byte{0, 0}, ""},
		{"half a request", frame(`{"command":"show version"}`)[:12], ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := path
			if c.error == "" {
				at = short
			}
			conn := rawDial(t, at)
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			all := answers(t, conn)
			if len(all) == 0 || all[0].Prompt == "" {
				t.Fatalf("no greeting: %+v", all)
			}
			last := all[len(all)-1]
			if c.error == "" && len(all) > 1 || c.error != "" && (last.Exit != 1 || !last.Close || !strings.Contains(last.Error, c.error)) {
				t.Errorf("got %+v, want an error with %q", all[1:], c.error)
			}
		})
	}
	if r, err := dial(t, path).Run(context.Background(), "show clock", io.Discard); err != nil || r.Exit != 0 {
		t.Errorf("after the bad clients: %+v, %v", r, err)
	}
}

// A client that takes no output loses its connection; the command that writes does not hang for ever.
func TestSlowReader(t *testing.T) {
	path, _ := start(t, &Server{Executor: special{strings.Repeat("x", 8<<20)}, WriteTime: 50 * time.Millisecond})
	conn := rawDial(t, path)
	if _, err := conn.Write(frame(`{"command":"big"}`)); err != nil {
		t.Fatal(err)
	}
	other := dial(t, path)
	if r, err := other.Run(context.Background(), "other", io.Discard); err != nil || r.Exit != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	// Reads nothing until the server has given up: its end of the connection then refuses our writes.
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := conn.Write(frame(`{"command":"big"}`)); err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Fatal("the server holds the connection of a reader that does not read")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the server takes requests of a reader that does not read")
		}
	}
}

func TestPermissions(t *testing.T) {
	path, _ := start(t, &Server{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if m := info.Mode().Perm(); m != 0o600 {
		t.Errorf("mode of the socket is %04o", m)
	}
	if info, err = os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("mode of the directory that was made is %04o, %v", info.Mode().Perm(), err)
	}
	for _, c := range []struct {
		uid uint32
		own int
		ok  bool
	}{{0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {1000, 0, false}, {1<<32 - 1, -1, false}} {
		if got := allowed(Caller{UID: c.uid}, c.own); got != c.ok {
			t.Errorf("user %d at a daemon of %d: %v", c.uid, c.own, got)
		}
	}
}

// The credentials decide even where the file's mode would let another user in.
func TestOtherUserIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	path, _ := start(t, &Server{})
	for _, f := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path)), filepath.Dir(filepath.Dir(filepath.Dir(path)))} {
		if err := os.Chmod(f, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is another user from here on, ends with the goroutine
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
			refused <- e
			return
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			refused <- err
			return
		}
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
			refused <- err
			return
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		body, err := readFrame(f, MaxAnswer, func() {})
		if err == nil {
			err = errors.New(string(body))
		}
		refused <- err
	}()
	if err := <-refused; !strings.Contains(err.Error(), ErrForbidden.Error()) || strings.Contains(err.Error(), "prompt") {
		t.Errorf("got %v", err)
	}
}

func TestSocketFile(t *testing.T) {
	dir := t.TempDir()
	serve := func(path string) (err error) {
		made, checked := CheckSocket(path)
		defer func() {
			if (checked == nil) != (err == nil) || (err != nil && checked.Error() != err.Error()) {
				t.Errorf("CheckSocket said %v, Serve %v", checked, err)
			}
			if info, e := os.Stat(filepath.Dir(path)); made != "" && (e != nil || made != filepath.Dir(path) || info.Mode().Perm() != 0o700) {
				t.Errorf("directory %s was made: %v, %v", made, info, e)
			}
		}()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s := &Server{Path: path, Executor: special{}, Ready: make(chan struct{})}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx) }()
		select {
		case <-s.Ready:
			cancel()
			return <-ended
		case err := <-ended:
			return err
		}
	}
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := serve(stale); !errors.Is(err, ErrInUse) {
		t.Errorf("socket that another process answers on: %v", err)
	}
	l.Close()
	if err := serve(stale); err != nil {
		t.Errorf("stale socket: %v", err)
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := serve(file); err == nil {
		t.Error("a file that is no socket was taken")
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("a file that is no socket was removed")
	}

	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := serve(filepath.Join(open, "s")); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("directory that others may write: %v", err)
	}
	if err := serve(filepath.Join(dir, strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "longer than 107") {
		t.Errorf("path over the limit: %v", err)
	}
	if err := serve(filepath.Join(file, "s")); err == nil {
		t.Error("a file as directory was taken")
	}
	if err := serve(filepath.Join(dir, "missing", "too", "s")); err != nil {
		t.Errorf("a directory that is missing: %v", err)
	}
	if made, err := CheckSocket(filepath.Join(dir, "missing", "too", "s")); made != "" || err != nil {
		t.Errorf("%q was made though it is there: %v", made, err)
	}
}

// Two daemons that start at once: one of them serves, the other says why not, and the socket works.
func TestTwoDaemonsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	ctx, cancel := context.WithCancel(context.Background())
	const n = 8
	ended, ready := make(chan error, n), make(chan struct{}, n)
	for range n {
		s := &Server{Path: path, Executor: special{}, Ready: make(chan struct{})}
		go func() {
			done := make(chan error, 1)
			go func() { done <- s.Serve(ctx) }()
			select {
			case <-s.Ready:
				ready <- struct{}{}
				ended <- <-done
			case err := <-done:
				ended <- err
			}
		}()
	}
	<-ready
	for range n - 1 {
		if err := <-ended; err == nil {
			t.Error("a second daemon took the socket")
		}
	}
	if c, err := Dial(context.Background(), path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Ending the server ends connections that are in use, and the socket's file only while it is the server's own.
func TestStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Path: path, Executor: special{}, Ready: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	<-s.Ready
	c := dial(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := c.Run(context.Background(), "x", io.Discard); err == nil {
		t.Error("the connection outlived the server")
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a file that was not the server's is gone: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(frame(`{"command":"show version"}`))
	f.Add(frame(`{"command":"show conn | json"}`)[:9])
	f.Add(frame(`{"command":"\ud800","x":[[[[]]]]}`))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		body, err := readFrame(bytes.NewReader(in), MaxRequest, func() {})
		if err != nil {
			return
		}
		if len(body) > MaxRequest || len(body)+4 > len(in) {
			t.Fatalf("body of %d bytes out of %d", len(body), len(in))
		}
		q, err := decodeRequest(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLong) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		if err := writeFrame(&again, q); err != nil {
			t.Fatal(err)
		}
		body, err = readFrame(&again, 8*MaxRequest, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeRequest(body); err != nil || back != q {
			t.Fatalf("%+v came back as %+v, %v", q, back, err)
		}
	})
}
