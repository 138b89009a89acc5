package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"imeproxy/ucime/callagent/disk"
	"imeproxy/ucime/learn"
)

// Queue is a bounded, durable queue of records.
type Queue struct {
	path string
	max  int

	mu      sync.Mutex
	all     []learn.VCR
	first   uint64 // number of all[0]
	file    *os.File
	lines   int // in the file, those of records that are gone included
	dropped uint64
	ready   chan struct{} // there is a new record
}

// Open reads the queue of a state directory; there need be none yet. A line that was cut by a crash is left out.
func Open(dir string, limit int) (*Queue, error) {
	q := &Queue{path: filepath.Join(dir, "vcrs.jsonl"), max: limit, ready: make(chan struct{}, 1)}
	if err := disk.Tidy(q.path); err != nil {
		return nil, fmt.Errorf("voice call records: %w", err)
	}
	text, err := os.ReadFile(q.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("voice call records: %w", err)
	}
	for line := range bytes.Lines(text) {
		var v learn.VCR
		if json.Unmarshal(line, &v) == nil && v.Called.Valid() {
			q.all = append(q.all, v)
		}
	}
	q.trim()
	return q, q.rewrite()
}

// Put adds a record.
func (q *Queue) Put(v learn.VCR) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, v)
	q.trim()
	defer q.announce()
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if q.lines >= 2*q.max { // mostly records that are gone
		return q.rewrite()
	}
	if _, err = q.file.Write(append(line, '\n')); err == nil {
		q.lines++
		err = q.file.Sync()
	}
	if err != nil {
		q.lines = 2 * q.max // part of the line may be in the file: the next record makes a new one
		return fmt.Errorf("voice call records: %w", err)
	}
	return nil
}

func (q *Queue) trim() {
	if n := len(q.all) - q.max; n > 0 {
		q.all = append([]learn.VCR(nil), q.all[n:]...)
		q.first += uint64(n)
		q.dropped += uint64(n)
	}
}

func (q *Queue) announce() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Ready gives a channel on which something comes after each Put, for the one who takes records.
func (q *Queue) Ready() <-chan struct{} { return q.ready }

// Take returns up to n of the oldest records, and the mark that acknowledges them.
func (q *Queue) Take(n int) (vcrs []learn.VCR, mark uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.all))
	return append([]learn.VCR(nil), q.all[:n]...), q.first + uint64(n)
}

// Done removes the records up to a mark.
func (q *Queue) Done(mark uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if mark <= q.first {
		return nil // they were dropped, or acknowledged before
	}
	n := min(mark-q.first, uint64(len(q.all)))
	q.all = append([]learn.VCR(nil), q.all[n:]...)
	q.first += n
	return q.rewrite()
}

// Counts are the records that wait and those that were dropped since the start.
func (q *Queue) Counts() (waiting int, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.all), q.dropped
}

// rewrite makes a file of the records that are there.
func (q *Queue) rewrite() error {
	var b bytes.Buffer
	for _, v := range q.all {
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	err := disk.Replace(q.path, b.Bytes())
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(q.path, os.O_APPEND|os.O_WRONLY, 0o600)
	}
	if err != nil {
		return fmt.Errorf("voice call records: %w", err)
	}
	if q.file != nil {
		q.file.Close()
	}
	q.file, q.lines = f, len(q.all)
	return nil
}

// Close ends the queue; its file stays.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.file.Close()
}
