package observe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imeproxy/proxy/backlog"
)

const (
	follow = "the run before ended without writing its last lines, which follow"
	end    = "the last lines of the run before end here"
)

// crashed copies what waits in a state directory to a new one, where it stands as if the process had died now.
func crashed(t *testing.T, stateDir string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, backlogDir), os.DirFS(filepath.Join(stateDir, backlogDir))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startLog opens the log of a run, and lets it say something, in one write.
func startLog(t *testing.T, dir string, level slog.Level) (written string, recent *LogRing) {
	t.Helper()
	var out bytes.Buffer
	recent = new(LogRing)
	log, g, err := OpenLog(&out, recent, dir, LogConfig{Format: "json", Level: level})
	if err != nil {
		t.Fatal(err)
	}
	log.Error("of this run")
	g.Close()
	return out.String(), recent
}

// messages are those of a log, with a blank between; a line that is no JSON is as it is.
func messages(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		var l struct{ Msg string }
		if json.Unmarshal([]byte(line), &l) != nil {
			l.Msg = line
		}
		all = append(all, l.Msg)
	}
	return strings.Join(all, " ")
}

func TestLogLinesSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w := t.TempDir(), new(writes)
		log, g, err := OpenLog(w, new(LogRing), dir, LogConfig{Format: "json"})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		for i := range 7 {
			log.Info(fmt.Sprint(i))
		}
		w.mu.Lock()
		first := messages(strings.Join(w.all, ""))
		w.mu.Unlock()
		if first != "0 1 2 3" {
			t.Fatalf("%s are written", first)
		}
		after := crashed(t, dir)
		got, recent := startLog(t, after, slog.LevelError) // whose lines these are is told at every level
		if want := follow + " 4 5 6 " + end + " of this run"; messages(got) != want || messages(recent.Logging().Text()) != want {
			t.Errorf("after a crash: %s\nshow logging: %s\nwant %s", messages(got), messages(recent.Logging().Text()), want)
		}
		if !strings.Contains(got, `"lines":3,"perhaps_written":false`) {
			t.Errorf("announced in %s", got)
		}
		if got, _ := startLog(t, after, slog.LevelInfo); messages(got) != "of this run" {
			t.Errorf("a second time: %s", messages(got))
		}
		time.Sleep(gatherTime)
		if got, _ := startLog(t, crashed(t, dir), slog.LevelInfo); messages(got) != "of this run" {
			t.Errorf("after all was written: %s", messages(got))
		}
	})
}

// copier is a log's destination; in the midst of its first write of several lines it looks what a crash would leave.
type copier struct {
	t    *testing.T
	dir  string
	left string
}

func (c *copier) Write(p []byte) (int, error) {
	if bytes.Count(p, []byte{'\n'}) > 1 && c.left == "" {
		c.left = crashed(c.t, c.dir)
	}
	return len(p), nil
}

// A crash within the write of lines: they come again, and it is said that they may be there.
func TestLogLinesThatAreBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &copier{t: t, dir: t.TempDir()}
		log, g, err := OpenLog(w, new(LogRing), w.dir, LogConfig{Format: "json"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 7 {
			log.Info(fmt.Sprint(i))
		}
		g.Close()
		got, _ := startLog(t, w.left, slog.LevelInfo)
		if !strings.HasPrefix(got, "\n") || !strings.Contains(got, `"lines":3,"perhaps_written":true`) || messages(got[1:]) != follow+" 4 5 6 "+end+" of this run" {
			t.Errorf("%q", got)
		}
	})
}

// No state directory, one that cannot be used, and a damaged file: the log is there, and says what is wrong.
func TestLogWithoutBacklog(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	damaged := t.TempDir()
	for _, err := range []error{
		os.WriteFile(plain, nil, 0o600), os.Mkdir(filepath.Join(damaged, backlogDir), 0o700),
		os.WriteFile(filepath.Join(damaged, backlogDir, "log"), []byte("???"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{"": "", plain: backlog.ErrMemory.Error(), damaged: backlog.ErrSkipped.Error()} {
		got, _ := startLog(t, dir, slog.LevelInfo)
		if !strings.HasSuffix(messages(got), "of this run") || !strings.Contains(got, want) || want == "" && messages(got) != "of this run" {
			t.Errorf("%q: %s", dir, got)
		}
	}
	if _, _, err := OpenLog(new(writes), new(LogRing), t.TempDir(), LogConfig{Format: "xml"}); err == nil {
		t.Error("the format xml was taken")
	}
}

// held is a state directory whose records wait: the writer rests, as they came one after the other.
func held(t *testing.T, ids ...string) (dir string, w *RecordWriter, log *bytes.Buffer) {
	t.Helper()
	dir, log = t.TempDir(), new(bytes.Buffer)
	w, err := NewRecordWriter(RecordConfig{File: filepath.Join(dir, "calls.json"), StateDir: dir, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	for i, id := range append([]string{"first", "second"}, ids...) {
		w.Write(CallRecord{CallID: id})
		if i < 2 {
			synctest.Wait() // the writer has written it
		}
	}
	return dir, w, log
}

// startRecords starts a run that writes one record, and gives its log.
func startRecords(t *testing.T, dir string) string {
	t.Helper()
	var log bytes.Buffer
	w, err := NewRecordWriter(RecordConfig{File: filepath.Join(dir, "calls.json"), StateDir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(CallRecord{CallID: "new"})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return log.String()
}

func TestRecordsSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, _, _ := held(t, "a", "b", "c")
		file, err := os.ReadFile(filepath.Join(dir, "calls.json"))
		if err != nil || bytes.Count(file, []byte{'\n'}) != 2 {
			t.Fatalf("%v: written are\n%s", err, file)
		}
		after := crashed(t, dir)
		if err := os.WriteFile(filepath.Join(after, "calls.json"), file, 0o640); err != nil {
			t.Fatal(err)
		}
		log := startRecords(t, after)
		if got := strings.Join(readRecords(t, filepath.Join(after, "calls.json")), " "); got != "first second a b c new" {
			t.Errorf("file holds %s", got)
		}
		if !strings.Contains(log, "written_now=3 written_before=0") {
			t.Errorf("log: %s", log)
		}
		if log := startRecords(t, after); log != "" {
			t.Errorf("a second start tells %s", log)
		}
		if got := strings.Join(readRecords(t, filepath.Join(after, "calls.json")), " "); got != "first second a b c new new" {
			t.Errorf("file holds %s", got)
		}
	})
}

// A crash within a write: whatever had reached the file, each record is there once, and whole.
func TestRecordsThatAreBeingWritten(t *testing.T) {
	line := func(id string) string {
		l, err := json.Marshal(CallRecord{CallID: id})
		if err != nil {
			t.Fatal(err)
		}
		return string(l) + "\n"
	}
	old, rest := line("old"), line("a")+line("b")+line("c")
	half := len(line("a")) + 9
	for name, c := range map[string]struct {
		from, at int               // where the batch is, from which of its bytes on
		files    map[string]string // what there is
		want     map[string]string
		before   int
	}{
		"nothing":              {0, len(old), map[string]string{"": old}, map[string]string{"": "old a b c new"}, 0},
		"nothing, new file":    {0, 0, map[string]string{"": ""}, map[string]string{"": "a b c new"}, 0},
		"all":                  {0, len(old), map[string]string{"": old + rest}, map[string]string{"": "old a b c new"}, 3},
		"all, and others":      {0, 0, map[string]string{"": rest + old}, map[string]string{"": "a b c old new"}, 3},
		"one line":             {0, len(old), map[string]string{"": old + line("a")}, map[string]string{"": "old a b c new"}, 1},
		"half a line":          {0, len(old), map[string]string{"": old + rest[:half]}, map[string]string{"": "old a b c new"}, 1},
		"all but the end":      {0, len(old), map[string]string{"": old + rest[:len(rest)-1]}, map[string]string{"": "old a b c new"}, 2},
		"its second part":      {len(line("a")), len(old), map[string]string{"": old}, map[string]string{"": "old b c new"}, 0},
		"all of the second":    {len(line("a")), len(old), map[string]string{"": old + line("b") + line("c")}, map[string]string{"": "old b c new"}, 2},
		"moved away":           {0, len(old), map[string]string{"": "", ".2": old + line("a")}, map[string]string{"": "b c new", ".2": "old a"}, 1},
		"moved away at a half": {0, len(old), map[string]string{"": line("x"), ".1": old + rest[:half]}, map[string]string{"": "x b c new", ".1": "old a broken"}, 1},
		"emptied":              {0, len(old), map[string]string{"": ""}, map[string]string{"": "a b c new"}, 0},
		"replaced":             {0, len(old), map[string]string{"": line("other") + line("thing")}, map[string]string{"": "other thing a b c new"}, 0},
		"torn by others":       {0, 5, map[string]string{"": "{\"call"}, map[string]string{"": "broken a b c new"}, 0},
	} {
		dir := t.TempDir()
		f, err := backlog.Open(filepath.Join(dir, backlogDir), "calls", 2, maxRecordsWait)
		if err != nil {
			t.Fatal(err)
		}
		b := f.Batches()[1]
		b.Append([]byte(rest))
		b.Writing(c.from, int64(c.at))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		for suffix, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, "calls.json"+suffix), []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		log := startRecords(t, dir)
		for suffix, want := range c.want {
			if got := strings.Join(readRecords(t, filepath.Join(dir, "calls.json"+suffix)), " "); got != want {
				t.Errorf("%s: calls.json%s holds %s, want %s", name, suffix, got, want)
			}
		}
		now := strings.Count(rest[c.from:], "\n") - c.before
		if !strings.Contains(log, fmt.Sprintf("written_now=%d written_before=%d", now, c.before)) {
			t.Errorf("%s: log %s", name, log)
		}
	}
}

// Two batches may be left, that which is written and that which came to wait meanwhile: they come in their order, over a rotation.
func TestRecordsSurviveInOrder(t *testing.T) {
	dir := t.TempDir()
	f, err := backlog.Open(filepath.Join(dir, backlogDir), "calls", 2, maxRecordsWait)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, b := range []*backlog.Batch{f.Batches()[1], f.Batches()[0]} {
		b.Clear()
		for k := range 10 {
			want = append(want, fmt.Sprint(i*10+k))
			b.Append([]byte(`{"call_id":"` + want[len(want)-1] + "\"}\n"))
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := NewRecordWriter(RecordConfig{File: filepath.Join(dir, "calls.json"), StateDir: dir, MaxBytes: 100, Keep: 9, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := 9; i >= 0; i-- {
		if name := w.rotated(i); i == 0 || exists(name) {
			got = append(got, readRecords(t, name)...)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("files hold %v", got)
	}
	if info, err := os.Stat(w.rotated(1)); err != nil || info.Size() > 100 {
		t.Errorf("a file grew over its limit: %v", err)
	}
}

func exists(file string) bool { _, err := os.Stat(file); return err == nil }

// What comes while the disk is slow is bounded in bytes, too.
func TestRecordsWaitAreBounded(t *testing.T) {
	g := gate{slog.NewTextHandler(io.Discard, nil), make(chan struct{}), make(chan struct{}), new(sync.Once)}
	w, err := NewRecordWriter(RecordConfig{Log: slog.New(g)})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(CallRecord{CallID: "first"})
	<-g.entered
	r := CallRecord{CallID: strings.Repeat("x", 64<<10)}
	for range 40 {
		w.Write(r)
	}
	if n := w.Dropped(); n != 40-maxRecordsWait/(65<<10) {
		t.Errorf("%d of 40 records of 64 KiB were dropped", n)
	}
	close(g.open)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// Somebody shortens the file in which records wait: those are lost and counted, the next are written.
func TestRecordsWhoseFileIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, w, log := held(t, "a", "b")
		if err := os.Truncate(filepath.Join(dir, backlogDir, "calls"), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * gatherTime)
		if w.Dropped() != 2 {
			t.Errorf("%d dropped, want 2", w.Dropped())
		}
		w.Write(CallRecord{CallID: "c"})
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := strings.Join(readRecords(t, filepath.Join(dir, "calls.json")), " "); got != "first second c" {
			t.Errorf("file holds %s", got)
		}
		if !strings.Contains(log.String(), "cut short") || strings.Count(log.String(), "call record not written") != 1 {
			t.Errorf("log: %s", log)
		}
	})
}
