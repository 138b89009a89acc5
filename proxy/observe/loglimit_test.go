package observe

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLimitLog(t *testing.T) {
	var out strings.Builder
	at := time.Unix(1000, 0)
	log := slog.New(LimitLog(slog.NewTextHandler(&out, nil), 3, func() time.Time { return at }, "refused", "failed")).With("a", 1)
	for range 10 {
		log.Warn("refused", "b", 2)
		log.WithGroup("g").Info("failed")
		log.Info("call answered")
	}
	count := func(text string) int { return strings.Count(out.String(), text) }
	if count("msg=refused") != 3 || count("msg=failed") != 3 || count("call answered") != 10 || count("left_out") != 0 {
		t.Errorf("within a second:\n%s", out.String())
	}
	at = at.Add(time.Second)
	out.Reset()
	log.Warn("refused")
	log.Warn("refused")
	if count("msg=refused") != 2 || count("left_out=7") != 1 || count("a=1") != 2 {
		t.Errorf("a second later:\n%s", out.String())
	}
}
