package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"imeproxy/proxy/backlog"
)

// Defaults of RecordConfig.
const (
	DefaultRecordQueue = 1024
	DefaultRecordSize  = 64 << 20
	DefaultRecordKeep  = 5

	// recordSize is more than most records have, in bytes.
	recordSize = 1 << 10
	// maxRecordsWait bounds the records that wait, in bytes, as Queue bounds their number.
	maxRecordsWait = 2 << 20
)

// RecordConfig sets a RecordWriter up.
type RecordConfig struct {
	File     string // path; "" or "-" = the log
	MaxBytes int64  // the file is rotated before it grows over this; 0 = 64 MiB
	Keep     int    // rotated files kept as FILE.1 (newest) ... FILE.N; 0 = 5
	Queue    int    // records that wait for the disk; 0 = 1024
	StateDir string // what waits is kept in a file of it, that it survives a crash; "" = in memory
	Log      *slog.Logger
}

// RecordWriter writes call records. Write waits for no write to the file: records that find as many waiting as may wait are dropped and counted. A failing
// disk drops records too; the first failure of a series is logged. Records that wait survive a crash (package backlog). Safe for concurrent use.
type RecordWriter struct {
	cfg     RecordConfig
	wake    chan struct{} // something waits
	closing chan struct{} // ends the writer's rest
	done    chan struct{}
	written atomic.Uint64
	dropped atomic.Uint64

	mu     sync.Mutex // guards the batch that takes records, with their number, and closed
	taking *backlog.Batch
	taken  int
	closed bool

	// owned by the writing goroutine
	waiting *backlog.File
	spare   *backlog.Batch // is written, or empty
	file    *os.File
	size    int64
	failed  bool
}

// ErrRecordsClosed is returned by a second Close.
var ErrRecordsClosed = errors.New("call records are closed")

// NewRecordWriter opens the file (mode 0640, appended to), writes the records that waited when the run before crashed, and starts the writing goroutine;
// Close ends it.
func NewRecordWriter(cfg RecordConfig) (*RecordWriter, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultRecordSize
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultRecordKeep
	}
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultRecordQueue
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.File == "-" {
		cfg.File = ""
	}
	w := &RecordWriter{cfg: cfg, wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
	if cfg.File != "" {
		if err := w.openAsItIs(); err != nil {
			return nil, err
		}
	}
	w.waiting = openBacklog(cfg.Log, cfg.StateDir, "calls", 2, maxRecordsWait)
	w.taking, w.spare = w.waiting.Batches()[0], w.waiting.Batches()[1]
	if err := w.resume(); err != nil {
		return nil, errors.Join(err, w.closeFile(), w.waiting.Close())
	}
	go w.run()
	return w, nil
}

// recordRooms are for records until a batch has them.
var recordRooms = sync.Pool{New: func() any { return new([recordSize]byte) }}

// Write hands a record over. After Close, or when too many wait, the record is dropped and counted.
func (w *RecordWriter) Write(r CallRecord) {
	room := recordRooms.Get().(*[recordSize]byte)
	defer recordRooms.Put(room)
	line, err := r.appendJSON(room[:0])
	if err != nil {
		w.dropped.Add(1)
		w.cfg.Log.Error("call record not written", "error", err)
		return
	}
	line = append(escapeControls(line), '\n') // peers choose identifiers and numbers, and records are read on terminals
	if !w.take(line) {
		w.dropped.Add(1)
		return
	}
	select {
	case w.wake <- struct{}{}:
	default: // the writer will see it
	}
}

// take has a line wait for the writer, false when it cannot. A panic, from which whoever ended the call may recover, must not leave the lock behind.
func (w *RecordWriter) take(line []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.taken >= w.cfg.Queue || !w.taking.Append(line) {
		return false
	}
	w.taken++
	return true
}

// Written counts the records that reached the file or the log.
func (w *RecordWriter) Written() uint64 { return w.written.Load() }

// Dropped counts the records lost to a full queue, a failing disk or a closed writer.
func (w *RecordWriter) Dropped() uint64 { return w.dropped.Load() }

// Close writes what waits, syncs and closes the file.
func (w *RecordWriter) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrRecordsClosed
	}
	w.closed = true
	close(w.closing)
	w.mu.Unlock()
	<-w.done
	var err error
	if w.file != nil {
		err = w.file.Sync()
	}
	return errors.Join(err, w.closeFile(), w.waiting.Close())
}

// recordsBusy: after a record that came so soon after the one before, or after the writer's rest, the writer rests until the next beat: those of a
// busy time share its wake-ups, which are the log's too, and its writes to the disk.
const recordsBusy = 25 * time.Millisecond

// maxRecordWrite bounds what is written at once, in bytes; a record may exceed it alone.
const maxRecordWrite = 64 << 10

func (w *RecordWriter) run() {
	defer close(w.done)
	var last time.Time
	for {
		select {
		case <-w.wake:
		case <-w.closing:
			w.drain()
			return
		}
		before := last
		last = time.Now()
		w.drain()
		if last.Sub(before) >= recordsBusy {
			continue
		}
		select {
		case <-time.After(ToBeat()):
			last = time.Now()
		case <-w.closing:
		}
	}
}

// drain writes what waits, and what comes to wait meanwhile.
func (w *RecordWriter) drain() {
	for {
		w.mu.Lock()
		n := w.taken
		if n > 0 {
			w.taking, w.spare, w.taken = w.spare, w.taking, 0
		}
		w.mu.Unlock()
		if n == 0 {
			return
		}
		w.put(w.spare, uint64(n))
	}
}

// put writes the rest of a batch, which holds so many records, to the file or the log, and empties it.
func (w *RecordWriter) put(b *backlog.Batch, records uint64) {
	from, _, _ := b.Written()
	if backlog.Guard(func() {
		for all := b.Bytes(); from < len(all); {
			n := wholeLines(all[from:], w.room())
			now := uint64(bytes.Count(all[from:from+n], []byte{'\n'}))
			if w.cfg.File == "" {
				b.Writing(from, -1)
				w.cfg.Log.Info("call record", "record", json.RawMessage(bytes.Clone(all[from:from+n-1])))
				w.count(now, nil)
			} else {
				w.count(now, w.write(b, from, all[from:from+n]))
			}
			from, records = from+n, records-now
		}
	}) != nil {
		w.count(records, fmt.Errorf("call record: %w", backlog.ErrGone))
	}
	b.Clear()
}

// room is how many bytes the next write may have.
func (w *RecordWriter) room() int {
	switch {
	case w.cfg.File == "":
		return 0 // one line
	case w.file == nil || w.size >= w.cfg.MaxBytes:
		return int(min(maxRecordWrite, w.cfg.MaxBytes))
	}
	return int(min(maxRecordWrite, w.cfg.MaxBytes-w.size))
}

// wholeLines is the length of the lines at the beginning of p that are no longer than room together, or of the first.
func wholeLines(p []byte, room int) int {
	if len(p) <= room {
		return len(p)
	}
	if n := bytes.LastIndexByte(p[:room], '\n') + 1; n > 0 {
		return n
	}
	return bytes.IndexByte(p, '\n') + 1
}

// count notes the fate of records.
func (w *RecordWriter) count(n uint64, err error) {
	if err == nil {
		w.failed = false
		w.written.Add(n)
		return
	}
	w.dropped.Add(n)
	if !w.failed {
		w.cfg.Log.Error("call record not written", "error", err)
	}
	w.failed = true
}

// write appends whole lines to the file: those of a batch from an offset on.
func (w *RecordWriter) write(b *backlog.Batch, from int, lines []byte) error {
	if w.file == nil { // an earlier rotation or write failed half-way
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.size > 0 && w.size+int64(len(lines)) > w.cfg.MaxBytes {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	b.Writing(from, w.size)
	n, err := w.file.Write(lines)
	w.size += int64(n)
	if err != nil {
		return errors.Join(fmt.Errorf("call record: %w", err), w.closeFile()) // to open it anew ends a line that is there in part
	}
	b.Writing(from+n, w.size)
	return nil
}
