package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestRecoveryIsForTheFirstTenSeconds(t *testing.T) {
	begin := time.Now()
	m := &machine{consolesSince: begin}
	for _, c := range []struct {
		line  string
		after time.Duration
		fresh bool
		yes   bool
		said  string
	}{
		{line: "recover", after: 9 * time.Second, yes: true},
		{line: " Recover ", after: time.Second, yes: true},
		{line: "recover", after: 11 * time.Second, said: "start the machine anew"},
		{line: "recover", after: time.Second, fresh: true, said: "not installed yet"},
		{line: "", after: time.Second},
		{line: "recovery", after: time.Second},
		{line: "r", after: time.Second},
	} {
		m.fresh.Store(c.fresh)
		if yes, said := m.wantsRecovery(c.line, begin.Add(c.after)); yes != c.yes || !strings.Contains(said, c.said) || (said == "") != (c.said == "") {
			t.Errorf("%q after %v: %t, %q", c.line, c.after, yes, said)
		}
	}
}

func TestReadLine(t *testing.T) {
	for in, want := range map[string]string{"recover\n": "recover", "\r": "", strings.Repeat("x", 5000) + "\n": strings.Repeat("x", 80)} {
		if got, err := readLine(strings.NewReader(in)); err != nil || got != want {
			t.Errorf("%.10q: %.100q, %v", in, got, err)
		}
	}
	if _, err := readLine(strings.NewReader("recover")); err != io.EOF {
		t.Errorf("a line without an end: %v", err)
	}
}

// Who may log in is taken over into the configuration that the service gets when the stored one keeps it from starting.
func TestUserLines(t *testing.T) {
	got := string(userLines([]byte("hostname edge-a\nusername admin password x encrypted privilege 15\r\n username inner\nenable password y encrypted\nusernames z\n")))
	if got != "username admin password x encrypted privilege 15\nenable password y encrypted\n" {
		t.Errorf("%q", got)
	}
}
