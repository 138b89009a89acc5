package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/shell"
)

// slow is an executor with a command that says something every four minutes, as often as it is told, and one that says nothing until it is interrupted.
type slow struct{}

type slowSession struct{}

func (slow) NewSession(shell.Caller) shell.Session { return slowSession{} }
func (slowSession) Greeting() string               { return "" }
func (slowSession) Prompt() string                 { return "asa-a# " }
func (slowSession) Close()                         {}
func (slowSession) Secret() bool                   { return false }
func (slowSession) Deed() shell.Deed               { return shell.Act }

func (slowSession) Complete(line string) (string, []keyword.Candidate) { return line, nil }

func (slowSession) Run(ctx context.Context, line string, w io.Writer) error {
	if line == "silence" {
		<-ctx.Done()
		return nil
	}
	times := 0
	_, _ = fmt.Sscanf(line, "tell %d", &times) // other lines do nothing
	for i := range times {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(4 * time.Minute):
		}
		if _, err := fmt.Fprintln(w, "told", i+1); err != nil {
			return err
		}
	}
	return nil
}

// buffered is an end of a pipe whose writes do not wait for the other end, as those of a socket: either end of SSH begins with one.
type buffered struct {
	net.Conn
	out  chan []byte
	gone chan struct{}
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{c, make(chan []byte, 1024), make(chan struct{})}
	go func() {
		defer close(b.gone)
		for p := range b.out {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	select {
	case <-b.gone:
		return 0, net.ErrClosed
	case b.out <- append([]byte(nil), p...):
		return len(p), nil
	}
}

// idleWorld is a client with a session, in a time of its own; `ssh timeout` is 5 minutes.
type idleWorld struct {
	t       *testing.T
	begin   time.Time
	client  *gossh.Client
	session *gossh.Session
	log     *logs
	keys    io.WriteCloser
	screen  logs
	errors  logs
	ended   chan error
	at      time.Time // when ended got its value
}

// inIdleWorld runs a test in it; begin begins the session.
func inIdleWorld(t *testing.T, begin func(*gossh.Session) error, test func(w *idleWorld)) {
	key := signer(t)
	synctest.Test(t, func(t *testing.T) {
		w := &idleWorld{t: t, log: new(logs), ended: make(chan error, 1)}
		s, err := New(slow{}, t.TempDir(), slog.New(slog.NewTextHandler(w.log, nil)), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := allow(t, "127.0.0.0/8", 1)
		c.SSH.Timeout = 5 * time.Minute
		s.cfg.Store(c)
		s.signer = key
		near, far := net.Pipe()
		ours, theirs := newBuffered(near), newBuffered(far)
		l := s.login(theirs)
		s.wg.Go(func() { defer l.ended(); s.protocol(l).HandleConn(l) })
		conn, channels, requests, err := gossh.NewClientConn(ours, "", &gossh.ClientConfig{
			User: "admin", Auth: []gossh.AuthMethod{gossh.Password(secret)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.client = gossh.NewClient(conn, channels, requests)
		defer func() {
			w.client.Close()
			s.Close()
			close(ours.out)
			close(theirs.out)
		}()
		if w.session, err = w.client.NewSession(); err != nil {
			t.Fatal(err)
		}
		w.session.Stdout, w.session.Stderr = &w.screen, &w.errors
		if w.keys, err = w.session.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := begin(w.session); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.begin = time.Now()
		go func() {
			err := w.session.Wait()
			w.at = time.Now()
			w.ended <- err
		}()
		test(w)
	})
}

// atTerminal begins a session at a terminal.
func atTerminal(s *gossh.Session) error {
	return errors.Join(s.RequestPty("xterm", 40, 120, gossh.TerminalModes{}), s.Shell())
}

// press presses keys.
func (w *idleWorld) press(keys string) {
	w.t.Helper()
	if _, err := io.WriteString(w.keys, keys); err != nil {
		w.t.Fatalf("after %v: %v", time.Since(w.begin), err)
	}
	synctest.Wait()
}

// stands demands that the session has not ended.
func (w *idleWorld) stands() {
	w.t.Helper()
	synctest.Wait()
	select {
	case err := <-w.ended:
		w.t.Fatalf("the session has ended after %v: %v\n%s", w.at.Sub(w.begin), err, w.log)
	default:
	}
}

// endsAfter demands that the session ends so long after its begin for being idle, and says so on out.
func (w *idleWorld) endsAfter(d time.Duration, out *logs) {
	w.t.Helper()
	err := <-w.ended
	if took := w.at.Sub(w.begin); took != d {
		w.t.Errorf("the session has ended after %v, must after %v", took, d)
	}
	var exit *gossh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 1 {
		w.t.Errorf("the session ended with %v, want exit status 1", err)
	}
	if !strings.Contains(out.String(), "The session ends: idle for 5 minutes.") {
		w.t.Errorf("the client is not told why: %q", out.String())
	}
	synctest.Wait()
	if n := strings.Count(w.log.String(), `msg="ssh session ended: idle" user=admin from=pipe limit=5m0s`); n != 1 {
		w.t.Errorf("the log tells of it %d times:\n%s", n, w.log)
	}
}

// A session at a terminal ends when nobody has done anything for the time, also while a command runs that says nothing and while a client keeps
// the connection alive.
func TestIdleSessionEnds(t *testing.T) {
	inIdleWorld(t, atTerminal, func(w *idleWorld) {
		time.Sleep(5*time.Minute - time.Second)
		w.stands()
		w.endsAfter(5*time.Minute, &w.screen)
	})
	inIdleWorld(t, atTerminal, func(w *idleWorld) {
		time.Sleep(time.Minute)
		w.press("silence\r")
		w.endsAfter(6*time.Minute, &w.screen)
	})
	inIdleWorld(t, atTerminal, func(w *idleWorld) {
		for range 9 {
			time.Sleep(30 * time.Second)
			if _, _, err := w.client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
				t.Fatal(err)
			}
		}
		w.endsAfter(5*time.Minute, &w.screen)
	})
}

// Keys keep a session, whether they make a line or not, and so does output; after the last of it the time begins.
func TestSessionInUseStays(t *testing.T) {
	inIdleWorld(t, atTerminal, func(w *idleWorld) {
		for range 15 {
			time.Sleep(4 * time.Minute)
			w.press("s")
			w.stands()
		}
		w.endsAfter(65*time.Minute, &w.screen)
	})
	inIdleWorld(t, atTerminal, func(w *idleWorld) {
		w.press("tell 15\r")
		time.Sleep(60 * time.Minute)
		w.stands()
		if !strings.Contains(w.screen.String(), "told 15\r\n") {
			t.Errorf("the screen: %q", w.screen.String())
		}
		w.endsAfter(65*time.Minute, &w.screen)
	})
}

// The same without a terminal: a command that came with the connection, and a transfer of files.
func TestIdleWithoutTerminal(t *testing.T) {
	inIdleWorld(t, func(s *gossh.Session) error { return s.Start("tell 3\nsilence") }, func(w *idleWorld) {
		w.endsAfter(17*time.Minute, &w.errors)
		if got := w.screen.String(); got != "told 1\ntold 2\ntold 3\n" {
			t.Errorf("standard output: %q", got)
		}
	})
	inIdleWorld(t, func(s *gossh.Session) error { return s.Start("scp -t disk0:/x.cfg") }, func(w *idleWorld) {
		w.endsAfter(5*time.Minute, &w.errors)
	})
}

// However busy, a connection ends after MaxSession.
func TestSessionTimeInAll(t *testing.T) {
	inIdleWorld(t, atTerminal, func(w *idleWorld) {
		for time.Since(w.begin) < MaxSession-4*time.Minute {
			time.Sleep(4 * time.Minute)
			w.press("s")
		}
		w.stands()
		if err := <-w.ended; err == nil || w.at.Sub(w.begin).Round(time.Minute) != MaxSession {
			t.Errorf("ended after %v with %v", w.at.Sub(w.begin), err)
		}
	})
}
