package observe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"imeproxy/proxy/backlog"
)

// open appends to the file. A last line that was cut short is ended first, so that it spoils itself alone.
func (w *RecordWriter) open() error {
	if err := w.openAsItIs(); err != nil {
		return err
	}
	return w.mend()
}

func (w *RecordWriter) openAsItIs() error {
	f, err := os.OpenFile(w.cfg.File, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("call records: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", w.cfg.File)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("call records: %w", err), f.Close())
	}
	w.file, w.size = f, info.Size()
	return nil
}

// mend ends the last line of the file. On an error the file is closed.
func (w *RecordWriter) mend() error {
	if w.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := w.file.ReadAt(last, w.size-1); err != nil && !errors.Is(err, io.EOF) {
		return errors.Join(fmt.Errorf("call records: %w", err), w.closeFile())
	}
	if !bytes.Equal(last, []byte{'\n'}) {
		if _, err := w.file.Write([]byte{'\n'}); err != nil {
			return errors.Join(fmt.Errorf("call records: %w", err), w.closeFile())
		}
		w.size++
	}
	return nil
}

func (w *RecordWriter) closeFile() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}

// rotated is the name of the file's i-th predecessor, that of the file itself for 0.
func (w *RecordWriter) rotated(i int) string {
	if i == 0 {
		return w.cfg.File
	}
	return fmt.Sprintf("%s.%d", w.cfg.File, i)
}

// rotate moves FILE to FILE.1, FILE.1 to FILE.2 and so on, the oldest one out, and opens a new FILE. Where that fails records are dropped
// rather than the file grown over its limit; the next record tries again.
func (w *RecordWriter) rotate() error {
	if err := w.closeFile(); err != nil {
		return fmt.Errorf("call records: %w", err)
	}
	for i := w.cfg.Keep; i > 0; i-- {
		if err := os.Rename(w.rotated(i-1), w.rotated(i)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("call records: %w", err)
		}
	}
	return w.open()
}

// resume writes the records that waited when a crash ended the run before, each once: what of them had reached the files stays as it is there, a line that
// was cut short is completed. Then the file ends with a whole line.
func (w *RecordWriter) resume() error {
	var failed error
	for _, b := range w.waiting.Left() {
		var records, whole int
		if err := backlog.Guard(func() {
			from, at, begun := b.Written()
			rest := b.Bytes()[from:]
			records = bytes.Count(rest, []byte{'\n'})
			if w.cfg.File == "" {
				return
			}
			there := w.reached(rest, at, begun)
			whole = bytes.Count(rest[:there.bytes], []byte{'\n'})
			from += w.complete(rest, there)
			if failed = w.mendOrTell(); failed == nil {
				b.Writing(from, w.size)
			}
		}); err != nil {
			tellBacklog(w.cfg.Log, err)
			continue
		}
		if failed != nil {
			return failed // they stay for the next start
		}
		before := w.dropped.Load()
		w.put(b, uint64(records-whole))
		lost := int(w.dropped.Load() - before)
		w.cfg.Log.Warn("the run before ended without writing its last call records", slog.Int("written_now", records-whole-lost), slog.Int("written_before", whole))
	}
	if w.file == nil {
		return nil
	}
	return w.mendOrTell()
}

// mendOrTell is mend at the start, which a full disk must not prevent: the daemon would take no call because it cannot note that it has ended.
func (w *RecordWriter) mendOrTell() error {
	err := w.mend()
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	w.failed = true
	w.cfg.Log.Error("call records cannot be written until there is room", "error", err)
	return nil
}

// reached is what had reached a file when the process crashed.
type reached struct {
	bytes int
	file  int // which of the file's predecessors, 0 is the file itself
}

// reached looks in the file and its predecessors for what of lines is there, from an offset on.
func (w *RecordWriter) reached(lines []byte, at int64, begun bool) (most reached) {
	if !begun || at < 0 {
		return most
	}
	for i := range w.cfg.Keep + 1 {
		if n := thereOf(w.rotated(i), at, lines); n > most.bytes {
			most = reached{n, i}
		}
	}
	return most
}

// complete writes the rest of a line that was cut short, where that is the last of the file, and returns how many bytes of the lines need not be written
// any more: whole lines.
func (w *RecordWriter) complete(lines []byte, there reached) int {
	n := there.bytes
	if n == 0 || lines[n-1] == '\n' {
		return n
	}
	if there.file == 0 {
		end := n + bytes.IndexByte(lines[n:], '\n') + 1
		m, err := w.file.Write(lines[n:end])
		w.size += int64(m)
		if err == nil {
			return end
		}
	}
	return bytes.LastIndexByte(lines[:n], '\n') + 1 // that line is written anew, as a whole
}

// thereOf tells how many bytes of lines stand at an offset of a file: either all, or as many as are there to its end. What differs is none of them.
func thereOf(file string, at int64, lines []byte) int {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	there, err := io.ReadAll(io.NewSectionReader(f, at, int64(len(lines))))
	if err != nil || !bytes.HasPrefix(lines, there) {
		return 0
	}
	return len(there)
}
