package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	logSize = 8 << 20 // of a file; then it becomes .1, .1 becomes .2 and so on
	logKept = 7
	maxLine = 64 << 10
)

// logFile is a log on the state partition. Its size is bounded; what cannot be written is lost, the system goes on.
type logFile struct {
	name string
	mu   sync.Mutex
	f    *os.File // guarded by mu, as size
	size int64
}

func openLog(name string) *logFile {
	l := &logFile{name: name}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open()
	return l
}

func (l *logFile) open() {
	f, err := os.OpenFile(l.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		l.f = nil
		return
	}
	_ = f.Chown(0, daemonID)
	l.f, l.size = f, 0
	if st, err := f.Stat(); err == nil {
		l.size = st.Size()
	}
}

// line writes a line with its time and who says it.
func (l *logFile) line(who, text string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return
	}
	n, _ := fmt.Fprintf(l.f, "%s %s: %s\n", time.Now().UTC().Format(time.RFC3339), who, text)
	if l.size += int64(n); l.size >= logSize {
		_ = l.f.Close()
		for i := logKept; i > 1; i-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", l.name, i-1), fmt.Sprintf("%s.%d", l.name, i))
		}
		_ = os.Rename(l.name, l.name+".1")
		l.open()
	}
}

// copy writes the lines of a program until it ends. Lines that are too long are cut.
func (l *logFile) copy(who string, r io.ReadCloser) {
	defer r.Close()
	br := bufio.NewReaderSize(r, maxLine)
	for {
		text, more, err := br.ReadLine()
		if err != nil {
			return
		}
		l.line(who, string(text))
		for more && err == nil {
			_, more, err = br.ReadLine()
		}
	}
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		_ = l.f.Sync()
		_ = l.f.Close()
		l.f = nil
	}
}
