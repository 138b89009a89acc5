package sshd

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/gliderlabs/ssh"
)

const (
	// connSlack is how much longer than a session a connection may be silent: it must still carry the session's last words.
	connSlack = time.Minute
	// lastWords is how long a client may take to read why its session ends.
	lastWords = 5 * time.Second
)

// watched is a session that ends when for the idle time neither anything came from its client nor went there. The limit of the connection cannot see
// that: a client that asks every minute whether the server is still there (ServerAliveInterval) keeps that one going without anybody at it.
type watched struct {
	ssh.Session
	limit time.Duration

	mu    sync.Mutex
	timer *time.Timer // guarded by mu
	over  bool        // guarded by mu
}

// watch begins to watch a session; done must be called at its end.
func (s *Server) watch(c ssh.Session, log *slog.Logger) (w *watched, done func()) {
	w = &watched{Session: c, limit: s.cfg.Load().SSH.IdleTime()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.limit, func() { w.expire(log) })
	return w, w.stop
}

func (w *watched) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// active begins the idle time anew.
func (w *watched) active() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.timer.Reset(w.limit)
	}
}

// expire tells the client and ends the session.
func (w *watched) expire(log *slog.Logger) {
	w.mu.Lock()
	over := w.over
	w.over = true
	w.mu.Unlock()
	if over {
		return
	}
	log.Info("ssh session ended: idle", "limit", w.limit)
	late := time.AfterFunc(lastWords, func() { _ = w.Close() }) // a client that reads nothing
	idle := fmt.Sprintf("%d minutes", w.limit/time.Minute)
	if w.limit == time.Minute {
		idle = "1 minute"
	}
	text := "The session ends: idle for " + idle + "."
	if _, _, terminal := w.Pty(); terminal {
		_, _ = io.WriteString(w.Session, "\r\n"+text+"\r\n")
	} else {
		_, _ = io.WriteString(w.Stderr(), text+"\n")
	}
	late.Stop()
	_ = w.Exit(1)
}

// Read takes what the client sends.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Session.Read(p)
	if n > 0 {
		w.active()
	}
	return n, err
}

// Write sends to the client.
func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Session.Write(p)
	if n > 0 {
		w.active()
	}
	return n, err
}
