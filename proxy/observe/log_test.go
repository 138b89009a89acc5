package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const hidden = "ThisIsASecret1"

func TestNoSecretInLog(t *testing.T) {
	for _, format := range []string{"text", "json", ""} {
		var out bytes.Buffer
		log, err := NewLogger(&out, LogConfig{Format: format, Level: slog.LevelDebug})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("m", "secret_type", Secret(hidden), "password", hidden, slog.Group("tls", "private_key", []byte(hidden)), "Passphrase", hidden,
			"inside", struct{ P Secret }{hidden}, "error", fmt.Errorf("%v %+v %#v %s", Secret(hidden), Secret(hidden), Secret(hidden), Secret(hidden)))
		if strings.Contains(out.String(), hidden) || !strings.Contains(out.String(), Masked) {
			t.Errorf("format %q: %s", format, out.String())
		}
	}
	if got := Secret(hidden).Reveal(); got != hidden {
		t.Errorf("Reveal gives %q", got)
	}
}

func TestWithCall(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, LogConfig{Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	WithCall(log, "id\n@h"+strings.Repeat("é", 100)).Info("m")
	var line struct {
		CallID string `json:"call_id"`
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if want := "id?@h" + strings.Repeat("é", 61); line.CallID != want {
		t.Errorf("call_id is %q, want %q", line.CallID, want)
	}
}

func TestLogSetUp(t *testing.T) {
	if _, err := NewLogger(new(bytes.Buffer), LogConfig{Format: "xml"}); err == nil {
		t.Error("format xml was accepted")
	}
	for s, want := range map[string]slog.Level{"debug": slog.LevelDebug, "": slog.LevelInfo, "INFO": slog.LevelInfo, "warn": slog.LevelWarn, "warning": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := ParseLevel(s); err != nil || got != want {
			t.Errorf("level %q: %v, %v", s, got, err)
		}
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("level loud was accepted")
	}
}

func TestInfoIsALine(t *testing.T) {
	line := func(level slog.Level, write func(log *slog.Logger)) string {
		var out bytes.Buffer
		log, err := NewLogger(&out, LogConfig{Level: level})
		if err != nil {
			t.Fatal(err)
		}
		write(log)
		_, text, _ := strings.Cut(out.String(), " ") // the time
		return text
	}
	log := func(log *slog.Logger) { log.Info("a message", "call_id", "1", "n", 2, "password", hidden) }
	info := func(log *slog.Logger) {
		Info(log, "a message", slog.String("call_id", "1"), slog.Int("n", 2), slog.String("password", hidden))
	}
	if got, want := line(slog.LevelInfo, info), line(slog.LevelInfo, log); got != want || got == "" {
		t.Errorf("%q, want %q", got, want)
	}
	if got := line(slog.LevelWarn, info); got != "" {
		t.Errorf("with level warn: %q", got)
	}
}
