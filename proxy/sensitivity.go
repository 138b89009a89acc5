package proxy

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"imeproxy/fallback"
	"imeproxy/proxy/observe"
)

// loadTable reads the sensitivity file of a plan when it is another one or has changed. What cannot be read leaves the running values.
func (q *quality) loadTable(p *plan) {
	name := ""
	if p.UCIME != nil {
		name = strings.TrimPrefix(p.UCIME.SensitivityFile, "disk0:")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if name == "" {
		if q.file != "" {
			t := fallback.Builtin()
			q.table.Store(&t)
			q.a.log.Info("sensitivity file is not configured any more: the built-in values are in force")
		}
		q.file, q.stamp = "", fileStamp{}
		return
	}
	path := filepath.Join(q.a.opt.StateDir, filepath.Base(strings.TrimLeft(name, "/")))
	info, err := os.Stat(path)
	stamp := fileStamp{}
	if err == nil {
		stamp = fileStamp{info.Size(), info.ModTime()}
	}
	if q.file == path && q.stamp == stamp {
		return
	}
	q.file, q.stamp = path, stamp
	q.readTable(path, info, err)
}

func (q *quality) readTable(path string, info fs.FileInfo, err error) {
	var text []byte
	switch {
	case err != nil:
	case info.Size() > fallback.MaxFile:
		err = fmt.Errorf("it has more than %d bytes", fallback.MaxFile)
	default:
		text, err = os.ReadFile(path)
	}
	var t fallback.Table
	if err == nil {
		t, err = fallback.ParseFile(text)
	}
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			q.a.log.Error("sensitivity file refused, the running values stay", "file", path, "err", line)
		}
		q.a.health.Raise(observe.Problem{
			Code: "sensitivity_file", Object: path, Severity: observe.Warning, Since: q.a.now(), Impact: "quality is judged by the values that were in force before",
			WhatToDo: "put it right in the state directory; it is read again when it changes: " + strings.ReplaceAll(err.Error(), "\n", "; "),
		})
		return
	}
	q.table.Store(&t)
	q.a.health.Clear("sensitivity_file", path)
	q.a.log.Info("sensitivity file read", "file", path)
}
