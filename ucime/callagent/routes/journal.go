package routes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imeproxy/ucime/callagent/disk"
	"imeproxy/ucime/learn"
)

// entry is a change of one number's route: a line of the journal. It may be applied any number of times.
type entry struct {
	Number learn.Number `json:"number"`
	Route  *Route       `json:"route"` // nil: it goes
}

func (e entry) apply(to map[learn.Number]Route) {
	if e.Route == nil {
		delete(to, e.Number)
		return
	}
	to[e.Number] = *e.Route
}

// slack is how many lines a journal may have beyond the number of routes before they become one file again.
const slack = 1000

// journal is the table on the disk: all routes in one file, and the changes since, a line each.
type journal struct {
	file  string // of all routes
	log   *os.File
	size  int64 // of log, up to the end of its last whole change
	lines int
}

// openJournal reads what there is into the map.
func openJournal(dir string, into map[learn.Number]Route) (j journal, err error) {
	j.file = filepath.Join(dir, "routes.json")
	if err := disk.Tidy(j.file); err != nil {
		return j, err
	}
	text, err := os.ReadFile(j.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return j, err
	}
	var all []Route
	if err == nil {
		if err := json.Unmarshal(text, &all); err != nil {
			return j, fmt.Errorf("%s: %w", j.file, err)
		}
	}
	for _, r := range all {
		into[r.Number] = r
	}
	j.log, err = os.OpenFile(filepath.Join(dir, "routes.journal"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return j, err
	}
	text, err = os.ReadFile(j.log.Name())
	for line := range bytes.Lines(text) {
		var e entry
		if line[len(line)-1] != '\n' || json.Unmarshal(line, &e) != nil || !e.Number.Valid() {
			break // the change that a crash cut; nobody was told that it is done
		}
		e.apply(into)
	}
	if err == nil {
		err = j.compact(into)
	}
	if err != nil {
		_ = j.log.Close()
	}
	return j, err
}

// add puts a change on the disk; before is the table without it.
func (j *journal) add(entries []entry, before map[learn.Number]Route) error {
	if j.lines > len(before)+slack {
		if err := j.compact(before); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	// Behind the last whole change: what a failed write has left is written over, and whatever of it stays is cut off first.
	err := j.log.Truncate(j.size)
	if err == nil {
		_, err = j.log.WriteAt(b.Bytes(), j.size)
	}
	if err == nil {
		err = j.log.Sync()
	}
	if err != nil {
		_ = j.log.Truncate(j.size) // the next change does it again
		return err
	}
	j.size += int64(b.Len())
	j.lines += len(entries)
	return nil
}

// compact makes one file of all routes and empties the journal.
func (j *journal) compact(all map[learn.Number]Route) error {
	list := slices.SortedFunc(maps.Values(all), func(a, b Route) int { return strings.Compare(string(a.Number), string(b.Number)) })
	text, err := json.MarshalIndent(list, "", " ")
	if err == nil {
		err = disk.Replace(j.file, append(text, '\n'))
	}
	if err == nil {
		err = j.log.Truncate(0)
	}
	if err == nil {
		err = j.log.Sync()
	}
	if err != nil {
		return err
	}
	j.size, j.lines = 0, 0
	return nil
}
