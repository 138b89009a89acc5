package observe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(crashEnv); spec != "" {
		fmt.Fprintln(os.Stderr, victim(spec))
		os.Exit(3)
	}
	goleak.VerifyTestMain(m)
}

func readRecords(t *testing.T, file string) (ids []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var r CallRecord
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			ids = append(ids, "broken")
			continue
		}
		ids = append(ids, r.CallID)
	}
	return ids
}

func TestCallRecordJSON(t *testing.T) {
	lost, jitter := uint64(0), 1.5
	r := CallRecord{
		CallID: "x@y", SessionID: "7", Direction: "inbound", From: "+1", To: "+2", LocalDomain: "a", PeerDomain: "b", Peer: "1.2.3.4:5",
		TicketID: "00ff", Ticket: "ok", Setup: noon, Connect: noon.Add(1500 * time.Millisecond), End: noon.Add(61500 * time.Millisecond),
		EndReason: "bye", EndSide: SideOutside, TLSVersion: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256",
		Media: []MediaRecord{{
			Kind: "audio", Codec: "PCMU", OutsideSuite: "AEAD_AES_128_GCM", OutsideSent: 3000, OutsideReceived: 2999, LostOutside: &lost, JitterOutsideMS: &jitter,
		}},
	}
	r.Finish()
	doc, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "call_record.json", append(doc, '\n'))

	refused := CallRecord{CallID: "x@y", Direction: "inbound", Ticket: "Ticket not found", Setup: noon, End: noon, EndReason: "refused", EndStatus: 403, EndSide: SideProxy}
	refused.Finish()
	if doc, err = json.MarshalIndent(refused, "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, "call_record_refused.json", append(doc, '\n'))
}

func TestRecordsAppendAndFlush(t *testing.T) {
	file := filepath.Join(t.TempDir(), "calls.json")
	for _, id := range []string{"one", "two"} {
		w, err := NewRecordWriter(RecordConfig{File: file})
		if err != nil {
			t.Fatal(err)
		}
		w.Write(CallRecord{CallID: id})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if w.Written() != 1 || w.Dropped() != 0 {
			t.Errorf("written %d, dropped %d", w.Written(), w.Dropped())
		}
		if err := w.Close(); !errors.Is(err, ErrRecordsClosed) {
			t.Errorf("second close: %v", err)
		}
		w.Write(CallRecord{})
		if w.Dropped() != 1 {
			t.Errorf("a record after the close counts %d drops, want 1", w.Dropped())
		}
	}
	if got := readRecords(t, file); strings.Join(got, " ") != "one two" {
		t.Errorf("file holds %v", got)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if m := info.Mode().Perm(); m&^0o640 != 0 {
		t.Errorf("mode is %04o", m)
	}
}

// A crash may cut the last line short; it must not swallow the next record.
func TestRecordsAfterTornLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "calls.json")
	if err := os.WriteFile(file, []byte(`{"call_id":"torn`), 0o640); err != nil {
		t.Fatal(err)
	}
	w, err := NewRecordWriter(RecordConfig{File: file})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(CallRecord{CallID: "whole"})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readRecords(t, file); strings.Join(got, " ") != "broken whole" {
		t.Errorf("file holds %v", got)
	}
}

func TestRecordsRotate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "calls.json")
	line, err := json.Marshal(CallRecord{CallID: "0"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewRecordWriter(RecordConfig{File: file, MaxBytes: int64(2*len(line) + 2), Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		w.Write(CallRecord{CallID: string(rune('0' + i))})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"calls.json": "8", "calls.json.1": "6 7", "calls.json.2": "4 5"} {
		if got := strings.Join(readRecords(t, filepath.Join(dir, name)), " "); got != want {
			t.Errorf("%s holds %s, want %s", name, got, want)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 3 {
		t.Errorf("%d files, want 3: older ones must go", len(files))
	}
}

// gate blocks the writing goroutine inside a log handler until it is opened.
type gate struct {
	slog.Handler
	entered, open chan struct{}
	once          *sync.Once
}

func (g gate) Handle(ctx context.Context, r slog.Record) error {
	g.once.Do(func() { close(g.entered) })
	<-g.open
	return g.Handler.Handle(ctx, r)
}

func TestRecordsQueueFull(t *testing.T) {
	var out bytes.Buffer
	g := gate{slog.NewJSONHandler(&out, nil), make(chan struct{}), make(chan struct{}), new(sync.Once)}
	w, err := NewRecordWriter(RecordConfig{File: "-", Queue: 2, Log: slog.New(g)})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(CallRecord{CallID: "first"})
	<-g.entered // the writer is busy with the first; two wait, the rest is lost
	for range 5 {
		w.Write(CallRecord{CallID: "next"})
	}
	if w.Dropped() != 3 {
		t.Errorf("%d dropped, want 3", w.Dropped())
	}
	close(g.open)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Written() != 3 || strings.Count(out.String(), `"call_id":"next"`) != 2 {
		t.Errorf("%d written:\n%s", w.Written(), out.String())
	}
}

func TestRecordsDiskFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "calls.json")
	var out bytes.Buffer
	w, err := NewRecordWriter(RecordConfig{File: file, MaxBytes: 1, Keep: 1, Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	// The name that rotation moves the file to is a directory that is not empty: the move fails for root too.
	if err := os.MkdirAll(filepath.Join(file+".1", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.Write(CallRecord{CallID: "x"})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Written() != 1 || w.Dropped() != 2 || strings.Count(out.String(), "call record not written") != 1 {
		t.Errorf("written %d, dropped %d, log:\n%s", w.Written(), w.Dropped(), out.String())
	}
}

// A daemon whose disk is full starts and counts what it loses; once there is room its records are whole lines again.
func TestRecordsBeginOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	file, fill := filepath.Join(dir, "calls.json"), filepath.Join(dir, "fill")
	page := os.Getpagesize() // its end is that of the room that the file has: a line end needs a page of its own
	if err := os.WriteFile(file, []byte(strings.Repeat("x", page)), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	var out bytes.Buffer
	w, err := NewRecordWriter(RecordConfig{File: file, Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(CallRecord{CallID: "lost"})
	for w.Dropped() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	w.Write(CallRecord{CallID: "kept"})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if ids := readRecords(t, file); len(ids) != 2 || ids[0] != "broken" || ids[1] != "kept" || w.Dropped() != 1 {
		t.Errorf("records %q, %d dropped", ids, w.Dropped())
	}
	if strings.Count(out.String(), "level=ERROR") != 1 || !strings.Contains(out.String(), "call records cannot be written until there is room") {
		t.Errorf("the log says\n%s", out.String())
	}
}

func TestRecordsRefuseFile(t *testing.T) {
	for _, file := range []string{filepath.Join(t.TempDir(), "no", "such"), t.TempDir(), "/dev/null"} {
		if w, err := NewRecordWriter(RecordConfig{File: file}); err == nil {
			w.Close()
			t.Errorf("%s was accepted", file)
		}
	}
}
