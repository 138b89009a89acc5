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
	// networkLog is what the dialogue found out about the network.
	networkLog = "/run/imeproxy/network.txt"
	// Exit statuses: nobody wanted to answer, or the network does not work and the installation halts.
	skipped, halted = 3, 4
	// installLimit bounds an installation: it may try the network for two minutes.
	installLimit = 4 * time.Minute
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
			if err = m.installAnswers("--network"); err == nil {
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
func (m *machine) installAnswers(options ...string) error {
	defer os.Remove(answersTaken)
	log := openLog(logDir + "/install.log")
	defer log.close()
	m.history("Install", "Start")
	var out bytes.Buffer
	argv := append([]string{"service", imeproxy, "answerfile", "install", answersTaken, "--config", configFile, "--system", systemFile}, options...)
	code, err := m.children.runFor(installLimit, &out, argv...)
	if err == nil && code != 0 {
		err = fmt.Errorf("status %d", code)
	}
	said := strings.TrimSpace(strings.ReplaceAll(out.String(), answersTaken, answersName))
	for line := range strings.Lines(said) {
		log.line("install", strings.TrimSuffix(line, "\n"))
	}
	if err != nil {
		m.history("Install", "Failure")
		if code == halted {
			m.say("%s\nThis machine was not installed. Mend the network, or the answers, and start it anew; file view install install.log has this too", said)
		} else {
			m.say("the answers cannot be used: %s: %v", said, err)
		}
		return err
	}
	m.history("Install", "Success")
	if said != "" {
		m.say("%s", said)
	}
	m.say("this machine was installed from its answers")
	return nil
}

// keepNetworkLog puts what the dialogue found out about the network into the log of the installation.
func keepNetworkLog() {
	text, err := os.ReadFile(networkLog)
	if err != nil || len(text) == 0 {
		return
	}
	defer os.Remove(networkLog)
	log := openLog(logDir + "/install.log")
	defer log.close()
	for line := range strings.Lines(string(text)) {
		log.line("install", strings.TrimSuffix(line, "\n"))
	}
}

// askAnswers asks on a terminal what a machine that was never installed needs to know, and starts the service with the answers.
func (m *machine) askAnswers(tty *os.File) error {
	if _, err := tty.WriteString("\r\nThis machine is not installed yet.\r\n"); err != nil {
		return err
	}
	_, done, err := m.onTerminal(tty, imeproxy, "answerfile", "generate", "--output", answersTaken, "--network-log", networkLog)
	if err != nil {
		return err
	}
	status := <-done
	keepNetworkLog()
	switch {
	case status.ExitStatus() == halted:
		m.history("Install", "Cancel")
		return nil
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
