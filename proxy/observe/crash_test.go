package observe

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// crashEnv has the run's number, a blank, and after how many records the process is to panic, for a process that is this test's victim.
const crashEnv = "IMEPROXY_TEST_CRASH"

// victim writes records and lines until it is killed, or panics, and prints the number of each when it has handed it over.
func victim(spec string) error {
	var run, most int
	if _, err := fmt.Sscan(spec, &run, &most); err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	log, _, err := OpenLog(os.Stderr, new(LogRing), dir, LogConfig{Format: "json"})
	if err != nil {
		return err
	}
	w, err := NewRecordWriter(RecordConfig{File: filepath.Join(dir, "calls.json"), StateDir: dir, MaxBytes: 50_000, Keep: 900, Log: log})
	if err != nil {
		return err
	}
	for i := 1; ; i++ {
		if i == most {
			go panic("on purpose")
			select {}
		}
		w.Write(CallRecord{CallID: fmt.Sprintf("%d-%d", run, i)})
		log.Info("line", slog.String("id", fmt.Sprintf("%d-%d", run, i)))
		if w.Dropped() > 0 {
			return fmt.Errorf("%d records were dropped", w.Dropped())
		}
		fmt.Println(i)
		time.Sleep(100 * time.Microsecond) // a thousand may wait
	}
}

// crash runs a victim until it has handed so many over, and returns how many it did.
func crash(t *testing.T, dir string, log *os.File, run, many int, panics bool) (handed int) {
	t.Helper()
	most := 0
	if panics {
		most = many
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir, cmd.Stderr, cmd.Env = dir, log, append(os.Environ(), fmt.Sprintf("%s=%d %d", crashEnv, run, most))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if handed, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatalf("it said %q", lines.Text())
		}
		if handed == many {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || handed < many-1 {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("it ended after %d of %d: %v\n%s", handed, many, err, text[max(0, len(text)-2000):])
	}
	return handed
}

// A process that writes records and lines is killed, or panics, again and again: each record that was handed over is in the files once, each line in
// the log, and twice only where it is said that it may be.
func TestNothingIsLostInACrash(t *testing.T) {
	dir := t.TempDir()
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var handed []int
	for run := range 12 {
		handed = append(handed, crash(t, dir, log, run, 1+rand.IntN(700), run%3 == 2))
	}
	// The last start, that finds what the last run left.
	last, g, err := OpenLog(log, new(LogRing), dir, LogConfig{Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewRecordWriter(RecordConfig{File: filepath.Join(dir, "calls.json"), StateDir: dir, Log: last})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	g.Close()

	files, err := filepath.Glob(filepath.Join(dir, "calls.json*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files of records, %v: want rotations among the crashes", len(files), err)
	}
	records := map[string]int{}
	for _, f := range files {
		for _, id := range readRecords(t, f) {
			records[id]++
		}
	}
	lines, doubtful, resumed := linesOf(t, log.Name())
	if resumed < 8 {
		t.Errorf("after %d of 12 crashes lines had waited", resumed)
	}
	for run, n := range handed {
		for i := 1; i <= n; i++ {
			id := fmt.Sprintf("%d-%d", run, i)
			if records[id] != 1 {
				t.Errorf("record %s of %d is there %d times", id, n, records[id])
			}
			if lines[id] < 1 || lines[id] > 1 && !doubtful[id] {
				t.Errorf("line %s of %d is there %d times", id, n, lines[id])
			}
		}
		if id := fmt.Sprintf("%d-%d", run, n+2); records[id]+lines[id] > 0 {
			t.Errorf("%s was made up", id)
		}
	}
	if records["broken"] > 0 {
		t.Errorf("%d records are broken", records["broken"])
	}
}

// linesOf counts the lines of a log; doubtful are those of which it is said that they may stand twice.
func linesOf(t *testing.T, file string) (n map[string]int, doubtful map[string]bool, resumed int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, doubtful = map[string]int{}, map[string]bool{}
	perhaps := false
	for line := range strings.Lines(string(text)) {
		var l struct {
			Msg, ID string
			Perhaps bool `json:"perhaps_written"`
		}
		if json.Unmarshal([]byte(line), &l) != nil {
			continue // of a panic, or cut short
		}
		switch l.Msg {
		case follow:
			perhaps = l.Perhaps
			resumed++
		case end:
			perhaps = false
		case "line":
			n[l.ID]++
			doubtful[l.ID] = doubtful[l.ID] || perhaps
		}
	}
	return n, doubtful, resumed
}
