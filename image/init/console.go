package main

import (
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

// console gives the configuration shell on a terminal to whoever presses return, again and again. Whoever has the console of a
// machine has the machine: no password is asked, as an ASA asks none there.
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
	if _, err := tty.WriteString("\r\nPress RETURN to get started.\r\n"); err != nil {
		return err
	}
	for b := make([]byte, 1); b[0] != '\n' && b[0] != '\r'; {
		if _, err := tty.Read(b); err != nil {
			return err
		}
	}
	if m.fresh.Load() {
		return m.askAnswers(tty)
	}
	_, done, err := m.onTerminal(tty, imeproxy, "shell", "--control", controlSocket)
	if err != nil {
		return err
	}
	<-done
	return nil
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
