package shell

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/machine"
)

// onMachine is a fake on a machine of its own, whose first process notes what it is asked for.
type onMachine struct {
	clearable
	socket string
}

func (m *onMachine) Machine() *machine.Client { return machine.New(m.socket) }

func newOnMachine(t *testing.T) (m *onMachine, asked chan string) {
	m = new(onMachine)
	m.socket, asked = firstProcess(t)
	return m, asked
}

// firstProcess is one that does what it is asked for, and notes it.
func firstProcess(t *testing.T) (socket string, asked chan string) {
	asked = make(chan string, 32)
	return answering(t, func(q string) string { asked <- q; return "{}" }), asked
}

func TestPower(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  string
		asked string
	}{
		"restart":          {[]string{"utils system restart", "yes"}, "All calls end. Proceed? [yes/no]: yes\nThe machine restarts.", "restart"},
		"no":               {[]string{"utils system shutdown", "no"}, "asa-a# ", ""},
		"changed":          {[]string{"conf t", "banner motd hello", "end", "utils system shutdown", "yes"}, "changed and not saved", "shutdown"},
		"without question": {[]string{"utils system shutdown noconfirm"}, "The machine is switched off.", "shutdown"},
	} {
		m, asked := newOnMachine(t)
		s := newExecutor(m, newKeeper(t), time.Now).NewSession(Caller{Name: "admin", From: "192.0.2.1"})
		has(t, byHand(s, c.lines...), c.want)
		got, want := "", ""
		if c.asked != "" {
			want = `{"who":"admin from 192.0.2.1","do":"` + c.asked + `"}` + "\n"
		}
		select {
		case got = <-asked:
		default:
		}
		if got != want {
			t.Errorf("%s: the first process was asked %q", name, got)
		}
	}
	for command, want := range map[string]string{
		"utils system upgrade initiate disk0:next.upgrade": `{"who":"admin from ","do":"upgrade","argument":"disk0:next.upgrade"}`,
		"utils system upgrade status":                      `{"who":"admin from ","do":"upgrade-status"}`,
		"utils system upgrade cancel":                      `{"who":"admin from ","do":"upgrade-cancel"}`,
		"file list install *":                              `{"who":"admin from ","do":"logs"}`,
		"file view install install.log":                    `{"who":"admin from ","do":"log","argument":"install.log 0"}`,
		"utils system switch-version noconfirm":            `{"who":"admin from ","do":"switch-version"}`,
		"show version inactive":                            `{"who":"admin from ","do":"versions"}`,
	} {
		m, asked := newOnMachine(t)
		if err := newExecutor(m, newKeeper(t), time.Now).NewSession(Caller{Name: "admin"}).Run(context.Background(), command, new(bytes.Buffer)); err != nil {
			t.Errorf("%s: %v", command, err)
		}
		if got := <-asked; got != want+"\n" {
			t.Errorf("%s: the first process was asked %s", command, got)
		}
	}
	m, _ := newOnMachine(t)
	s := newExecutor(m, newKeeper(t), time.Now).NewSession(Caller{})
	if err := s.Run(context.Background(), "utils system restart", new(bytes.Buffer)); err == nil {
		t.Error("it restarts where nobody can be asked")
	}
}

// A log comes in pieces, which are put together; what would disturb a terminal is taken out.
func TestInstallLog(t *testing.T) {
	m := new(onMachine)
	m.socket = answering(t, func(q string) string {
		for i, piece := range []string{"first li", "ne\nsecond \x1b[2J\n", ""} {
			if strings.Contains(q, fmt.Sprintf(`"argument":"install.log %d"`, i)) {
				text, _ := json.Marshal(map[string]string{"text": piece})
				return string(text)
			}
		}
		return `{"error":"there is no such install log"}`
	})
	s := newExecutor(m, newKeeper(t), time.Now).NewSession(Caller{Name: "admin"})
	var out bytes.Buffer
	if err := s.Run(context.Background(), "file view install install.log", &out); err != nil || out.String() != "first line\nsecond ?[2J\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	if err := s.Run(context.Background(), "file view install passwd", &out); err == nil || !strings.Contains(err.Error(), "no such install log") {
		t.Errorf("another file: %v", err)
	}
	// A first process that never comes to an end is not read for ever.
	m.socket = answering(t, func(string) string { return `{"text":"x\n"}` })
	out.Reset()
	if err := s.Run(context.Background(), "file view install install.log | count", &out); err != nil || !strings.Contains(out.String(), "256") {
		t.Errorf("a log without an end: %v, %s", err, out.String())
	}
}

// answering is a first process that answers each question by a function.
func answering(t *testing.T, answer func(question string) string) (socket string) {
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			_, _ = c.Write([]byte(answer(line) + "\n"))
			_ = c.Close()
		}
	}()
	return socket
}
