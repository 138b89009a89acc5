package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	systemFile   = stateMount + "/config/system.json"
	answersName  = "imeproxy-answers.txt"
	answersTaken = "/run/imeproxy/answers.txt"
	maxAnswers   = 64<<10 + 1
	mediaMount   = "/mnt"
	// skipped is the exit status of the dialogue when nobody wanted to answer.
	skipped = 3
)

// firstBoot looks for answers on another disk or CD when this machine was never installed. Without any it runs with the default
// configuration, and the consoles ask.
func (m *machine) firstBoot() error {
	if _, err := os.Lstat(systemFile); err == nil {
		return nil
	}
	fallback, err := os.ReadFile(defaultConfig)
	if err != nil {
		return err
	}
	switch text, err := os.ReadFile(configFile); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil || !bytes.Equal(text, fallback):
		return err // somebody has typed a configuration: no answers wanted
	}
	text, from := answersOnDisk()
	if text != nil {
		m.say("answers were found on %s", from)
		if err := place(answersTaken, text); err == nil {
			if err = m.installAnswers(); err == nil {
				return nil
			}
		}
	}
	m.fresh.Store(true)
	return place(configFile, fallback)
}

// answersOnDisk reads the answer file of any disk or CD but our own.
func answersOnDisk() (text []byte, from string) {
	for try := range 3 {
		if try > 0 {
			time.Sleep(300 * time.Millisecond) // a CD may need its time
		}
		devices, _ := filepath.Glob("/sys/class/block/*")
		for _, d := range devices {
			name := filepath.Base(d)
			uevent, _ := os.ReadFile(d + "/uevent")
			if strings.Contains(string(uevent), "PARTNAME=imeproxy-") {
				continue
			}
			for _, kind := range []string{"vfat", "iso9660"} {
				if text := answersOn("/dev/"+name, kind); text != nil {
					return text, name
				}
			}
		}
	}
	return nil, ""
}

// answersOn reads the answer file of a device that may hold a file system of a kind.
func answersOn(device, kind string) []byte {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_SILENT
	if unix.Mount(device, mediaMount, kind, flags, "") != nil {
		return nil
	}
	defer func() { _ = unix.Unmount(mediaMount, 0) }()
	f, err := os.Open(filepath.Join(mediaMount, answersName))
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAnswers))
	if err != nil {
		return nil
	}
	return text
}

// installAnswers makes configuration and settings from the answers that were taken. The log of it is kept.
func (m *machine) installAnswers() error {
	defer os.Remove(answersTaken)
	log := openLog(logDir + "/install.log")
	defer log.close()
	m.history("Install", "Start")
	var out bytes.Buffer
	code, err := m.children.runFor(time.Minute, &out, "service", imeproxy, "answerfile", "install", answersTaken, "--config", configFile, "--system", systemFile)
	if err == nil && code != 0 {
		err = fmt.Errorf("status %d", code)
	}
	log.line("install", "answers: "+strings.TrimSpace(out.String()))
	if err != nil {
		m.history("Install", "Failure")
		m.say("the answers cannot be used: %s: %v", strings.ReplaceAll(strings.TrimSpace(out.String()), answersTaken, answersName), err)
		return err
	}
	m.history("Install", "Success")
	m.say("this machine was installed from its answers")
	return nil
}

// askAnswers asks on a terminal what a machine that was never installed needs to know, and starts the service with the answers.
func (m *machine) askAnswers(tty *os.File) error {
	if _, err := tty.WriteString("\r\nThis machine is not installed yet.\r\n"); err != nil {
		return err
	}
	_, done, err := m.onTerminal(tty, imeproxy, "answerfile", "generate", "--output", answersTaken)
	if err != nil {
		return err
	}
	switch status := <-done; {
	case status.ExitStatus() == skipped:
		m.fresh.Store(false) // until the next start
		return nil
	case status.ExitStatus() != 0:
		return fmt.Errorf("the questions ended with status %d", status.ExitStatus())
	}
	if !m.fresh.CompareAndSwap(true, false) {
		return errors.New("this machine has been installed meanwhile")
	}
	if err := m.installAnswers(); err != nil {
		m.fresh.Store(true)
		return err
	}
	m.applySettings()
	m.service.again()
	return nil
}
