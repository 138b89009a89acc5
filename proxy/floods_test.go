package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"imeproxy/ucime/vap"
)

// lines is a log in memory.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// Whoever reaches the port of the call agents and speaks nonsense there does not fill the log.
func TestFloodAtTheCallAgentsPort(t *testing.T) {
	now := time.Now()
	out := &lines{}
	s := vap.NewServer(vap.ServerConfig{Log: limitedLog(slog.New(slog.NewTextHandler(out, nil)), func() time.Time { return now })})
	if err := s.Apply([]vap.Instance{{Name: "v", Addr: "127.0.0.1:0", Credentials: vap.Users{}}}); err != nil {
		t.Fatal(err)
	}
	for range 3 * logsPerSecond {
		c, err := net.Dial("tcp", s.Addr("v").String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(bytes.Repeat([]byte{0xff}, 20)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, c) // its end, or a reset
		c.Close()
	}
	s.Close()
	out.mu.Lock()
	defer out.mu.Unlock()
	if n := strings.Count(out.b.String(), "\n"); n != logsPerSecond {
		t.Errorf("%d lines within a second, want %d: %.300s", n, logsPerSecond, out.b.String())
	}
}
