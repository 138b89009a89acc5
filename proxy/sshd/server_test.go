package sshd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
	gossh "golang.org/x/crypto/ssh"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/shell"
)

func TestMain(m *testing.M) {
	wrongPause = time.Millisecond
	goleak.VerifyTestMain(m)
}

// echo is an executor whose sessions tell who asks what.
type echo struct{}

type echoSession struct{ c shell.Caller }

func (echo) NewSession(c shell.Caller) shell.Session { return echoSession{c} }
func (echoSession) Greeting() string                 { return "Keep out\n" }
func (echoSession) Prompt() string                   { return "asa-a# " }
func (echoSession) Close()                           {}
func (echoSession) Secret() bool                     { return false }
func (echoSession) Deed() shell.Deed                 { return shell.Act }

func (echoSession) Complete(line string) (string, []keyword.Candidate) { return line + "done", nil }

func (s echoSession) Run(_ context.Context, line string, w io.Writer) error {
	switch line {
	case "exit":
		return shell.ErrExit
	case "fail":
		return errors.New("it failed")
	}
	_, err := io.WriteString(w, s.c.String()+" viewing="+strconv.FormatBool(s.c.ViewOnly)+" typed "+line+"\n")
	return err
}

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

const secret = "correct-horse-battery"

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// allow is a configuration that lets a network in on loopback.
func allow(t *testing.T, from string, port uint16, keys ...string) *config.Config {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return &config.Config{
		Interfaces: []*config.Interface{{Name: "lo", Nameif: "inside", Address: netip.MustParsePrefix("127.0.0.1/8")}},
		Users: []*config.User{
			{Name: "admin", Password: config.Secret(hash), Privilege: 15, PublicKeys: keys},
			{Name: "viewer", Password: config.Secret(hash), Privilege: 5},
			{Name: "keyless", Privilege: 15},
		},
		SSH: config.SSH{Port: port, Allowed: []config.SSHAccess{{From: netip.MustParsePrefix(from), Interface: "inside"}}},
	}
}

func start(t *testing.T, c *config.Config) (*Server, *logs) {
	t.Helper()
	return startTelling(t, c, nil)
}

// startTelling has somebody who is told of failed logins.
func startTelling(t *testing.T, c *config.Config, failed func(netip.Addr)) (*Server, *logs) {
	t.Helper()
	out := new(logs)
	s, err := New(echo{}, t.TempDir(), slog.New(slog.NewTextHandler(out, nil)), failed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Apply("", c, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	return s, out
}

func at(c *config.Config) string { return "127.0.0.1:" + strconv.Itoa(int(c.SSH.Port)) }

func dial(c *config.Config, user, password string) (*gossh.Client, error) {
	return gossh.Dial("tcp", at(c), &gossh.ClientConfig{
		User: user, Auth: []gossh.AuthMethod{gossh.Password(password)}, HostKeyCallback: gossh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second,
	})
}

func TestPasswords(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	_, log := start(t, c)
	for _, x := range []struct {
		user, password string
		ok             bool
	}{
		{"admin", secret, true},
		{"admin", "wrong-password", false},
		{"admin", "", false},
		{"admin", strings.Repeat("x", 100), false},
		{"nobody", secret, false},
		{"keyless", "", false},
		{"keyless", "nobody has this password", false},
	} {
		client, err := dial(c, x.user, x.password)
		if (err == nil) != x.ok {
			t.Errorf("%s with %q: %v", x.user, x.password, err)
		}
		if client != nil {
			client.Close()
		}
	}
	if text := log.String(); strings.Contains(text, secret) || strings.Contains(text, "wrong-password") || !strings.Contains(text, "ssh login failed") {
		t.Errorf("the log:\n%s", text)
	}
}

func TestPrivilege(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	start(t, c)
	for user, want := range map[string]string{"admin": "viewing=false", "viewer": "viewing=true"} {
		client, err := dial(c, user, secret)
		if err != nil {
			t.Fatal(err)
		}
		s, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Output("show clock")
		if err != nil || !strings.Contains(string(out), user+" from 127.0.0.1:") || !strings.Contains(string(out), want) {
			t.Errorf("%s: %q, %v", user, out, err)
		}
		client.Close()
	}
}

// OpenSSH as the client: a key, exit statuses, and a host key that stays the same over a restart.
func TestOpenSSH(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("this machine has no OpenSSH client")
	}
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := gossh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	c := allow(t, "127.0.0.0/8", freePort(t), strings.TrimSpace(string(gossh.MarshalAuthorizedKey(known))))
	s, log := start(t, c)
	run := func(user string, args ...string) (string, int) {
		cmd := exec.Command(ssh, append([]string{
			"-F", "none", "-p", strconv.Itoa(int(c.SSH.Port)), "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new",
			"-o", "UserKnownHostsFile=" + filepath.Join(dir, "known"), user + "@127.0.0.1",
		}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run("admin", "show", "clock"); code != 0 || !strings.Contains(out, "typed show clock\n") {
		t.Errorf("a command: %q, exit %d", out, code)
	}
	if out, code := run("admin", "fail"); code != 1 || !strings.Contains(out, "ERROR: it failed") {
		t.Errorf("a command that fails: %q, exit %d", out, code)
	}
	if out, code := run("admin"); code != 1 || !strings.Contains(out, "a terminal or a command is expected") {
		t.Errorf("no terminal and no command: %q, exit %d", out, code)
	}
	if out, code := run("viewer", "show clock"); code != 255 {
		t.Errorf("another user's key: %q, exit %d", out, code)
	}
	if out, code := run("admin", "-s", "netconf"); code == 0 {
		t.Errorf("a subsystem: %q, exit %d", out, code)
	}
	if !strings.Contains(log.String(), "User 'admin' executed the 'show clock' command.") || !strings.Contains(log.String(), "user=admin from=127.0.0.1:") {
		t.Errorf("no audit line:\n%s", log.String())
	}
	s.Close()
	again, err := New(echo{}, filepath.Dir(s.keyFile), s.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Apply("", c, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if out, code := run("admin", "show clock"); code != 0 {
		t.Errorf("after a restart: %q, exit %d", out, code)
	}
	if info, err := os.Stat(s.keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("host key: %v, %v", info, err)
	}
}

func TestTerminal(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	start(t, c)
	client, err := dial(c, "admin", secret)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 40, 120, gossh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	var screen logs
	s.Stdout = &screen
	s.Stdin = strings.NewReader("show cl\tock\rfail\rexit\r")
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("the session ended with %v", err)
	}
	for _, want := range []string{"Keep out\r\n", "asa-a# ", "typed show cldoneock\r\n", "ERROR: it failed\r\n"} {
		if !strings.Contains(screen.String(), want) {
			t.Errorf("no %q on the screen:\n%q", want, screen.String())
		}
	}
}

// Nothing of the machine but the shell: no forwarding in either direction.
func TestNothingButTheShell(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	start(t, c)
	client, err := dial(c, "admin", secret)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if conn, err := client.Dial("tcp", at(c)); err == nil {
		conn.Close()
		t.Error("a connection was forwarded")
	}
	if l, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("a port was opened for the client")
	}
}

// closed says whether the server ends a connection without a word.
func closed(t *testing.T, c *config.Config) bool {
	t.Helper()
	conn, err := net.Dial("tcp", at(c))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 16))
	return err != nil
}

func TestOtherNetworksAreRefused(t *testing.T) {
	c := allow(t, "10.0.0.0/8", freePort(t))
	s, _ := start(t, c)
	if !closed(t, c) {
		t.Error("an address of another network was answered")
	}
	if err := s.Apply("", allow(t, "127.0.0.0/8", c.SSH.Port), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if closed(t, c) {
		t.Error("an address that was allowed since is refused")
	}
}

func TestHandshakesAreBounded(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	s, _ := start(t, c)
	var held []net.Conn
	for range MaxHandshakes {
		conn, err := net.Dial("tcp", at(c))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		if _, err := conn.Read(make([]byte, 1)); err != nil { // the version: it is being served
			t.Fatal(err)
		}
	}
	if !closed(t, c) {
		t.Error("one connection too many was answered")
	}
	for _, conn := range held {
		conn.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); s.logins.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("connections that were closed still count")
		}
	}
	if client, err := dial(c, "admin", secret); err != nil {
		t.Errorf("nobody can log in after that: %v", err)
	} else {
		client.Close()
	}
}

// A configuration that comes when the server is closed opens nothing any more.
func TestApplyAfterClose(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	s, _ := start(t, &config.Config{})
	s.Close()
	rest := false
	if err := s.Apply("", c, func() error { rest = true; return nil }); err != nil || !rest {
		t.Errorf("%v, the rest was done: %t", err, rest)
	}
	if conn, err := net.Dial("tcp", at(c)); err == nil {
		conn.Close()
		t.Error("a port is open")
	}
}

// Of a configuration that cannot be put into force nothing is.
func TestApplyWholeOrNotAtAll(t *testing.T) {
	c := allow(t, "127.0.0.0/8", freePort(t))
	s, _ := start(t, c)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	rest := false
	err = s.Apply("", allow(t, "127.0.0.0/8", netip.MustParseAddrPort(taken.Addr().String()).Port()), func() error { rest = true; return nil })
	if err == nil || rest || !strings.Contains(err.Error(), "another program may use the port") {
		t.Errorf("a port that is taken: %v, the rest was done: %t", err, rest)
	}
	other := allow(t, "127.0.0.0/8", freePort(t))
	no := errors.New("no")
	if err := s.Apply("", other, func() error { return no }); !errors.Is(err, no) {
		t.Errorf("the rest fails: %v", err)
	}
	if conn, err := net.Dial("tcp", at(other)); err == nil {
		conn.Close()
		t.Error("the new port is open")
	}
	if closed(t, c) {
		t.Error("the old port is closed")
	}
	if err := s.Apply("", &config.Config{}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", at(c)); err == nil {
		conn.Close()
		t.Error("the port is open without an ssh command")
	}
}
