package machine

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve answers one connection with a line and gives the question.
func serve(t *testing.T, answer string) (c *Client, asked <-chan string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b := make([]byte, 4096)
		n, _ := conn.Read(b)
		got <- string(b[:n])
		if answer == "" {
			_, _ = conn.Read(b) // until the other side gives up
		}
		_, _ = conn.Write([]byte(answer))
	}()
	return New(path), got
}

func TestQuestionAndAnswer(t *testing.T) {
	c, asked := serve(t, `{"text":"yes"}`+"\n")
	text, err := c.Do(context.Background(), "admin from 192.0.2.1", "restart", "")
	if err != nil || text != "yes" {
		t.Errorf("%q, %v", text, err)
	}
	if q := <-asked; q != `{"who":"admin from 192.0.2.1","do":"restart"}`+"\n" {
		t.Errorf("asked %s", q)
	}
}

func TestRefusals(t *testing.T) {
	c, _ := serve(t, `{"error":"not while an upgrade is written"}`+"\n")
	if _, err := c.Do(context.Background(), "", "restart", ""); err == nil || err.Error() != "not while an upgrade is written" {
		t.Errorf("refused: %v", err)
	}
	for _, bad := range []string{"nonsense\n", "{", strings.Repeat("x", maxAnswer+10)} {
		c, _ := serve(t, bad)
		if _, err := c.Do(context.Background(), "", "restart", ""); err == nil {
			t.Errorf("answer %.20q was taken", bad)
		}
	}
	if _, err := New(filepath.Join(t.TempDir(), "none")).Do(context.Background(), "", "restart", ""); err == nil {
		t.Error("nobody answered, and that was no error")
	}
}

func TestNoAnswer(t *testing.T) {
	c, _ := serve(t, "")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Do(ctx, "", "restart", ""); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("silence: %v", err)
	}
}
