package observe

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"imeproxy/proxy/backlog"
)

// backlogDir is where in the state directory what waits to be written survives a crash.
const backlogDir = "backlog"

// OpenLog makes a logger whose lines are gathered for w, and go to also at once. Lines that wait stand in a file of the state directory, or in memory
// where none is given. Those that a crash left there are written first, between two lines that say so; what is damaged or not as it should be is told, and
// never an error. Close the Gatherer.
func OpenLog(w, also io.Writer, stateDir string, cfg LogConfig) (*slog.Logger, *Gatherer, error) {
	file, unsafe := backlog.Open(backlogIn(stateDir), "log", 1, maxGather)
	g := NewGatherer(w, file)
	log, err := NewLogger(io.MultiWriter(g, also), cfg)
	if err != nil {
		g.Close()
		return nil, nil, err
	}
	file.OnLoss(func(err error) { tellBacklog(log, err) })
	g.resume(log, also)
	tellBacklog(log, unsafe)
	return log, g, nil
}

func backlogIn(stateDir string) string {
	if stateDir == "" {
		return ""
	}
	return filepath.Join(stateDir, backlogDir)
}

// openBacklog tells a log what is not as it should be.
func openBacklog(log *slog.Logger, stateDir, name string, batches, size int) *backlog.File {
	file, err := backlog.Open(backlogIn(stateDir), name, batches, size)
	file.OnLoss(func(err error) { tellBacklog(log, err) })
	tellBacklog(log, err)
	return file
}

func tellBacklog(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("a crash loses what waits to be written, or has lost it", "err", err)
	}
}

// resume writes the lines that a crash left, if any. It must be called before any other line comes; log is that whose lines come.
func (g *Gatherer) resume(log *slog.Logger, also io.Writer) {
	var lines []byte
	if err := backlog.Guard(func() { lines = bytes.Clone(g.lines.Bytes()) }); err != nil || len(lines) == 0 {
		return // a file that is gone tells it when it is used
	}
	_, _, begun := g.lines.Written()
	if begun { // the last that is there may be a part of a line
		_, _ = g.to.Write([]byte{'\n'})
	}
	// Not by log.Warn: a log of errors alone must say whose lines these are, too.
	tell := func(msg string, attrs ...slog.Attr) {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, msg, 0)
		r.AddAttrs(attrs...)
		_ = log.Handler().Handle(context.Background(), r)
	}
	tell("the run before ended without writing its last lines, which follow", slog.Int("lines", bytes.Count(lines, []byte{'\n'})), slog.Bool("perhaps_written", begun))
	g.Flush()
	_, _ = also.Write(lines)
	tell("the last lines of the run before end here")
}
