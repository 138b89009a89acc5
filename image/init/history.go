package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// historyFile is the log of what happened to the system as a whole, since its installation: one file, which nobody shortens.
const historyFile = logDir + "/system-history.log"

// history adds what the system does by itself.
func (m *machine) history(what, result string) { m.historyOf("", what, result) }

// historyOf adds a line in the guide's form (table "system history log fields"), with the name of the user who has asked for it. Times are those of
// UTC: a boot is noted before the time zone is known.
func (m *machine) historyOf(who, what, result string) {
	f, err := os.OpenFile(historyFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o640)
	if err != nil {
		return
	}
	defer f.Close()
	_ = f.Chown(0, daemonID) // who reads it by the shell
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		_, _ = f.WriteString(historyHead(m.version(), kernelRelease()))
	}
	_, _ = f.WriteString(historyLine(time.Now(), who, what, m.version(), result))
}

func historyHead(version, kernel string) string {
	const rule = "=====================================\n"
	return "System History Log\n" + rule + "Product Name - imeproxy\nProduct Version - " + version + "\nKernel Image - " + kernel + "\n" + rule
}

// historyLine is one entry. What names a version of its own is not followed by that which runs.
func historyLine(at time.Time, who, what, version, result string) string {
	if what == "System Restart" || !strings.Contains(what, " ") {
		what += " " + version
	}
	return fmt.Sprintf("%s | %s: %s %s\n", at.UTC().Format("01/02/2006 15:04:05"), user(who), what, result)
}

// user is the name of whoever asks, as the service tells it: "admin from 192.0.2.1:50000". Who has no name is the system itself.
func user(who string) string {
	if name, _, ok := strings.Cut(who, " from "); ok && name != "" {
		return name
	}
	return "root"
}

// version is what runs, without the product's name.
func (m *machine) version() string { return bare(m.release) }

func bare(name string) string { return strings.TrimPrefix(name, "imeproxy ") }

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
