package main

import (
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// consoles names the terminals that the kernel was told of.
func consoles() []string {
	text, _ := os.ReadFile("/sys/class/tty/console/active")
	names := strings.Fields(string(text))
	for i, n := range names {
		if n == "tty0" {
			names[i] = "tty1" // the one that tty0 shows at first
		}
	}
	return names
}

// console gives the configuration shell on a terminal to whoever presses return and logs in, again and again.
func (m *machine) console(name string) {
	for {
		if err := m.session("/dev/" + name); err != nil {
			m.log.line("console", name+": "+err.Error())
			time.Sleep(time.Second) // a terminal without a line fails at once
		}
	}
}

func (m *machine) session(device string) error {
	tty, err := os.OpenFile(device, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	if err := sane(tty); err != nil {
		return err
	}
	text := "\r\nPress RETURN to get started.\r\n"
	if time.Since(m.consolesSince) < recoveryWindow && !m.fresh.Load() {
		text = "\r\nTo reset lost passwords, type " + recoveryWord + " within ten seconds." + text
	}
	if _, err := tty.WriteString(text); err != nil {
		return err
	}
	line, err := readLine(tty)
	if err != nil {
		return err
	}
	if m.recovering.Load() {
		_, err := tty.WriteString("\r\nPasswords are being reset at another console.\r\n")
		return err
	}
	switch yes, said := m.wantsRecovery(line, time.Now()); {
	case yes:
		m.recoverPasswords(tty)
		return nil
	case said != "":
		_, err := tty.WriteString("\r\n" + said + "\r\n")
		return err
	case m.locked.Load():
		_, err := tty.WriteString("\r\nThe stored configuration is damaged and nobody can log in. Start the machine anew and type " + recoveryWord + " within ten seconds.\r\n")
		return err
	case m.fresh.Load():
		return m.askAnswers(tty)
	}
	_, done, err := m.onTerminal(tty, imeproxy, "shell", "--login", "--control", controlSocket)
	if err != nil {
		return err
	}
	<-done
	return nil
}

// readLine reads a line; of a long one, as much as a command could have.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil {
			return "", err
		}
		if b[0] == '\n' || b[0] == '\r' {
			return string(line), nil
		}
		if len(line) < 80 {
			line = append(line, b[0])
		}
	}
}

// onTerminal starts a program of the service's user with a terminal for itself.
func (m *machine) onTerminal(tty *os.File, argv ...string) (pid int, done <-chan syscall.WaitStatus, err error) {
	return m.children.start("/init", append([]string{"service"}, argv...), &os.ProcAttr{
		Dir: "/", Env: append(m.zone(), "TERM=vt100", "PATH=/bin"), Files: []*os.File{tty, tty, tty},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	})
}

// sane puts a terminal into the state that people expect, whatever the last session left.
func sane(tty *os.File) error {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag = unix.ICRNL | unix.IXON
	t.Oflag = unix.OPOST | unix.ONLCR
	t.Lflag = unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.IEXTEN
	t.Cflag |= unix.CREAD | unix.CLOCAL
	return unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t)
}
