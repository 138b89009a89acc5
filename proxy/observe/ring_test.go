package observe

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestLogRing(t *testing.T) {
	var r LogRing
	log, err := NewLogger(&r, LogConfig{Level: slog.LevelInfo})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("first", "password", "secret12345")
	if l := r.Logging().Lines; len(l) != 1 || !strings.Contains(l[0], "msg=first") || strings.Contains(l[0], "secret12345") {
		t.Errorf("%q", l)
	}
	for i := range RingLines + 5 {
		log.Info(fmt.Sprint("line ", i))
	}
	log.Info(strings.Repeat("x", 2*maxRingLine))
	l := r.Logging().Lines
	if len(l) != RingLines || !strings.Contains(l[0], `msg="line 6"`) || len(l[RingLines-1]) > maxRingLine+3 {
		t.Errorf("%d lines, the first %q, the last of %d bytes", len(l), l[0], len(l[len(l)-1]))
	}
}
