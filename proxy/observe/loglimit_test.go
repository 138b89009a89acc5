package observe

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLimitLog(t *testing.T) {
	var out strings.Builder
	at := time.Unix(1000, 0)
	log := slog.New(LimitLog(slog.NewTextHandler(&out, nil), 3, func() time.Time { return at })).With("a", 1)
	failing := log.With("event", "failed")
	for i := range 10 {
		log.Warn(fmt.Sprintf("refused for the %d. time", i), "event", "refused", "b", 2)
		failing.WithGroup("g").Info("failed", "b", 2)
		log.Info("call answered")
	}
	count := func(text string) int { return strings.Count(out.String(), text) }
	if count("event=refused") != 3 || count("event=failed") != 3 || count("call answered") != 10 || count("left_out") != 0 {
		t.Errorf("within a second:\n%s", out.String())
	}
	at = at.Add(time.Second)
	out.Reset()
	log.Warn("refused", "event", "refused")
	log.Warn("refused", "event", "refused")
	if count("event=refused") != 2 || count("left_out=7") != 1 || count("a=1") != 2 {
		t.Errorf("a second later:\n%s", out.String())
	}
}

// Events without number cost neither memory nor lines without number.
func TestLimitLogOfManyEvents(t *testing.T) {
	var out strings.Builder
	at := time.Unix(1000, 0)
	h := LimitLog(slog.NewTextHandler(&out, nil), 3, func() time.Time { return at })
	for i := range 10 * maxLimitedEvents {
		slog.New(h).Warn("x", "event", fmt.Sprint("event", i))
	}
	if n := strings.Count(out.String(), "\n"); n != maxLimitedEvents+3 {
		t.Errorf("%d lines", n)
	}
	if n := len(h.(limitedHandler).limit.seen); n != maxLimitedEvents+1 {
		t.Errorf("%d events are kept", n)
	}
}
