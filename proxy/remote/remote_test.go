package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// server is a host with files in a directory, on a port of its own; it lives until the test ends.
func server(t *testing.T, dir string, key ssh.Signer) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if c.User() == "u" && string(password) == "secret" {
			return nil, nil
		}
		return nil, errors.New("wrong")
	}}
	cfg.AddHostKey(key)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			serve(raw, cfg, dir)
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func serve(raw net.Conn, cfg *ssh.ServerConfig, dir string) {
	defer raw.Close()
	conn, chans, reqs, err := ssh.NewServerConn(raw, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(reqs)
	for n := range chans {
		ch, reqs, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range reqs {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		if s, err := sftp.NewServer(ch, sftp.WithServerWorkingDirectory(dir)); err == nil {
			_ = s.Serve()
		}
		ch.Close()
	}
}

func place(t *testing.T, url string) Place {
	t.Helper()
	p, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCopyBothWays(t *testing.T) {
	dir := t.TempDir()
	at := server(t, dir, signer(t))
	h := NewHosts(t.TempDir())
	ctx := context.Background()
	p := place(t, "scp://u:secret@"+at+"/~/x.txt")
	var unknown *UnknownHost
	if err := h.Store(ctx, p, strings.NewReader("hello")); !errors.As(err, &unknown) || !strings.HasPrefix(unknown.Fingerprint, "SHA256:") || unknown.Host != at {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x.txt")); err == nil {
		t.Fatal("stored on a host that nobody knows")
	}
	if err := h.Accept(unknown); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789abcdef", 100_000)
	if err := h.Store(ctx, p, strings.NewReader(big)); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := h.Fetch(ctx, place(t, "sftp://u:secret@"+at+filepath.Join(dir, "x.txt")), &got); err != nil || got.String() != big {
		t.Errorf("%d bytes came back, %v", got.Len(), err)
	}
	for what, err := range map[string]error{
		"a file that is not there": h.Fetch(ctx, place(t, "scp://u:secret@"+at+"/~/none.txt"), io.Discard),
		"a wrong password":         h.Fetch(ctx, place(t, "scp://u:wrong@"+at+"/~/x.txt"), io.Discard),
		"no host":                  h.Fetch(ctx, place(t, "scp://u:secret@127.0.0.1:1/x.txt"), io.Discard),
	} {
		if err == nil || errors.As(err, new(*UnknownHost)) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "wrong@") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A host whose key has changed gets no password.
func TestChangedKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	at := server(t, dir, signer(t))
	state := t.TempDir()
	h := NewHosts(state)
	other := &UnknownHost{Host: at, key: signer(t).PublicKey()}
	if err := h.Accept(other); err != nil {
		t.Fatal(err)
	}
	if err := h.Fetch(context.Background(), place(t, "scp://u:secret@"+at+"/~/x.txt"), io.Discard); err == nil || !strings.Contains(err.Error(), "another key than before") {
		t.Errorf("got %v", err)
	}
	if info, err := os.Stat(filepath.Join(state, "known_hosts")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// A copy ends with its context, also from a host that says nothing.
func TestInterrupted(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := NewHosts(t.TempDir()).Fetch(ctx, place(t, "scp://u:secret@"+l.Addr().String()+"/x.txt"), io.Discard); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Place{
		"scp://u@h/x.txt":             {Host: "h:22", User: "u", Path: "/x.txt"},
		"sftp://u:p%40w@h:2022/~/a/b": {Host: "h:2022", User: "u", Password: "p@w", Path: "a/b"},
		"scp://u@192.0.2.1//x":        {Host: "192.0.2.1:22", User: "u", Path: "//x"},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "http://u@h/x", "scp://h/x", "scp://u@/x", "scp://u@h", "scp://u@h/", "scp://u@h/x?y", "scp://u:secret@h:port/x", "scp:/u"} {
		if p, err := Parse(text); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
	if got := Masked("copy scp://u:secret@h/x sftp://v:s3@h/y scp://w@h/z"); got != "copy scp://u:*****@h/x sftp://v:*****@h/y scp://w@h/z" {
		t.Errorf("masked to %q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("scp://u:p@h:22/~/x")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := Parse(text); err == nil && (p.User == "" || p.Host == "" || p.Path == "") {
			t.Errorf("%q: %+v", text, p)
		}
	})
}
