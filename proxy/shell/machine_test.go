package shell

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"path/filepath"
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
	m, asked = &onMachine{socket: filepath.Join(t.TempDir(), "s")}, make(chan string, 8)
	l, err := net.Listen("unix", m.socket)
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
			asked <- line
			_, _ = c.Write([]byte("{}\n"))
			_ = c.Close()
		}
	}()
	return m, asked
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
	m, _ := newOnMachine(t)
	s := newExecutor(m, newKeeper(t), time.Now).NewSession(Caller{})
	if err := s.Run(context.Background(), "utils system restart", new(bytes.Buffer)); err == nil {
		t.Error("it restarts where nobody can be asked")
	}
}
