package main

import (
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
	// recoveryWord begins password recovery, typed at a console within recoveryWindow of the start: whoever can start the machine anew and sit at
	// its console has the machine (guide: the disc that is taken out and put in proves the same).
	recoveryWord   = "recover"
	recoveryWindow = 10 * time.Second
	// recoveryLimit ends a recovery that was left alone: the machine serves nothing meanwhile.
	recoveryLimit  = 15 * time.Minute
	recoveryReport = "/run/imeproxy/recovered"
)

// wantsRecovery says whether a line that was typed at a console begins the recovery; said is the answer when it cannot.
func (m *machine) wantsRecovery(line string, now time.Time) (yes bool, said string) {
	if !strings.EqualFold(strings.TrimSpace(line), recoveryWord) {
		return false, ""
	}
	switch _, err := os.Stat(switchFile); {
	case now.Sub(m.consolesSince) > recoveryWindow:
		return false, "The ten seconds after the start are over: start the machine anew."
	case m.fresh.Load():
		return false, "This machine is not installed yet: there is no password to reset."
	case err == nil: // it may go back to the other one, and take the configuration from before the switch with it
		return false, "This system is on trial yet: wait until the machine says which one stays, and start it anew."
	}
	return true, ""
}

// recoverPasswords closes the machine to its networks, lets whoever sits at a console reset passwords, and restarts.
func (m *machine) recoverPasswords(tty *os.File) {
	if !m.recovering.CompareAndSwap(false, true) {
		return
	}
	m.history("Password Recovery", "Start")
	m.say("password recovery was chosen at %s: the service ends", filepath.Base(tty.Name()))
	defer ask(m.requests, "restart") // whatever happens: the service begins with what is stored
	m.service.stop()
	if err := m.closeNetworks(); err != nil {
		m.history("Password Recovery", "Failure")
		m.say("password recovery: %v: the machine restarts without it", err)
		return
	}
	_ = os.Remove(recoveryReport)
	pid, done, err := m.onTerminal(tty, imeproxy, "recover", "--config", configFile, "--report", recoveryReport)
	if err == nil {
		limit := time.NewTimer(recoveryLimit)
		defer limit.Stop()
		select {
		case status := <-done:
			if status != 0 {
				err = fmt.Errorf("status %d", status.ExitStatus())
			}
		case <-limit.C:
			_ = unix.Kill(-pid, unix.SIGKILL)
			<-done
			err = fmt.Errorf("nobody has ended it within %v", recoveryLimit)
		}
	}
	report, _ := os.ReadFile(recoveryReport)
	resets := strings.FieldsFunc(string(report), func(r rune) bool { return r == '\n' })
	for _, r := range resets {
		m.history("Password Recovery: "+r, "Success")
		m.say("password recovery: %s was reset at the console", r)
	}
	switch {
	case err != nil:
		m.history("Password Recovery", "Failure")
		m.say("password recovery: %v", err)
	case len(resets) == 0:
		m.history("Password Recovery", "Cancel")
	}
}

// closeNetworks sets every card down, and fails when one stays up.
func (m *machine) closeNetworks() error {
	cards, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range cards {
		if name := filepath.Base(c); name != "lo" {
			errs = append(errs, setLink(name, false))
		}
	}
	return errors.Join(errs...)
}

// userLines are the lines of a configuration that say who may log in.
func userLines(config []byte) (lines []byte) {
	for line := range strings.Lines(string(config)) {
		if strings.HasPrefix(line, "username ") || strings.HasPrefix(line, "enable password ") {
			lines = append(lines, strings.TrimRight(line, "\r\n")+"\n"...)
		}
	}
	return lines
}

// rescue writes the configuration that the service gets when it does not start with the stored one: the default one, with those who may log in. It says
// whether the console may be opened: not when the stored configuration has users and these cannot be taken over.
func (m *machine) rescue() (open bool) {
	text, err := os.ReadFile(defaultConfig)
	if err != nil {
		return false
	}
	stored, err := os.ReadFile(configFile)
	users := userLines(stored)
	if err == nil && len(users) > 0 && place(rescueFile, append(append([]byte{}, text...), users...)) == nil {
		if code, err := m.children.runFor(lifeLimit, io.Discard, "service", imeproxy, "check", rescueFile); err == nil && code == 0 {
			return true
		}
	}
	if place(rescueFile, text) != nil {
		return false
	}
	_, installed := os.Stat(systemFile)
	return installed != nil && err == nil && len(users) == 0
}
