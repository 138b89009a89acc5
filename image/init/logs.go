package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// installLogs are the logs of installation and upgrades that operators may see (guide: "examine log files").
var installLogs = []string{"install.log", "system-history.log"}

// logStep is how much of a log one answer holds: less than an answer may have, whatever is in it.
const logStep = 8 << 10

func logList() reply {
	var b strings.Builder
	for _, name := range installLogs {
		if st, err := os.Stat(logDir + "/" + name); err == nil {
			fmt.Fprintf(&b, "%10d  %s  %s\n", st.Size(), st.ModTime().UTC().Format("2006-01-02 15:04:05"), name)
		}
	}
	return reply{Text: b.String()}
}

// logPiece gives a piece of a log for "NAME NUMBER", pieces being counted from 0; an empty text is its end.
func logPiece(argument string) reply {
	name, number, _ := strings.Cut(argument, " ")
	piece, err := strconv.ParseUint(number, 10, 31)
	if err != nil || !slices.Contains(installLogs, name) {
		return reply{Error: "there is no such install log: file list install * shows those that there are"}
	}
	f, err := os.Open(logDir + "/" + name)
	if err != nil {
		return reply{Error: "there is no install log " + name + " yet"}
	}
	defer f.Close()
	b := make([]byte, logStep)
	n, err := f.ReadAt(b, int64(piece)*logStep)
	if err != nil && !errors.Is(err, io.EOF) {
		return reply{Error: err.Error()}
	}
	return reply{Text: string(b[:n])}
}
