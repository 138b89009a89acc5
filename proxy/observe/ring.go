package observe

import (
	"bytes"
	"strings"
	"sync"
)

// RingLines is how many log lines a LogRing keeps, each cut to maxRingLine bytes.
const (
	RingLines   = 1000
	maxRingLine = 2048
)

// LogRing keeps the last lines that a logger wrote, for `show logging`. Give it to NewLogger beside the file. Safe for concurrent use.
type LogRing struct {
	mu   sync.Mutex
	line [RingLines][]byte
	next int
	n    int
}

// Write takes whole lines, as loggers write them; it never fails.
func (r *LogRing) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range bytes.Lines(p) {
		kept := r.line[r.next][:0] // the memory of the line that gives way
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > maxRingLine {
			kept = append(append(kept, line[:maxRingLine]...), "..."...)
		} else {
			kept = append(kept, line...)
		}
		r.line[r.next] = kept
		r.next = (r.next + 1) % RingLines
		r.n = min(r.n+1, RingLines)
	}
	return len(p), nil
}

// Logging gives the lines, the oldest first.
func (r *LogRing) Logging() Logging {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := Logging{Lines: make([]string, 0, r.n)}
	for i := range r.n {
		out.Lines = append(out.Lines, string(r.line[(r.next-r.n+i+RingLines)%RingLines]))
	}
	return out
}

// Logging is the answer to `show logging`.
type Logging struct {
	Lines []string `json:"lines"`
}

// Text gives the lines.
func (l Logging) Text() string {
	var b strings.Builder
	for _, line := range l.Lines {
		b.WriteString(Clean(line) + "\n")
	}
	return b.String()
}
