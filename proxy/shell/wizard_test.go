package shell

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestWizard(t *testing.T) {
	k := newKeeper(t)
	x := newExecutor(&clearable{}, k, time.Now)
	s := x.NewSession(Caller{PID: 7})
	screen := typeAll(s, []string{
		"uc-ime wizard", "beside", "", "dmz", "", "192.168.10.1", "192.168.10.30", "tls", "secure", "", "0", "", "short", "wizard-password-1",
		"inside", "", "209.165.200.227", "10.1.1.1", "209.165.200.227", "209.165.200.228", "192.168.10.3", "not a domain", "enterprise-a.example", "maybe", "yes",
		"show running-config uc-ime",
	})
	golden(t, "wizard.txt", screen)
	if strings.Contains(screen[strings.Index(screen, "These commands"):], "wizard-password-1") {
		t.Error("a password that was typed is shown")
	}
	c := k.Running()
	if missing := c.Check().Errors(); len(missing) > 0 {
		t.Errorf("the wizard's configuration is not complete: %v", missing)
	}
	if c.UCIME == nil || c.UCIME.TicketPassword.Reveal() != "wizard-password-1" || !c.UCIME.UCMs[0].Secure || len(c.ServicePolicies) != 1 {
		t.Errorf("%+v", c.UCIME)
	}
	if again := typeAll(s, []string{"uc-ime wizard"}); !strings.Contains(again, "is configured already") {
		t.Error(again)
	}
}

// The defaults alone, off the path, with a password that the wizard makes; and the ways out of it.
func TestWizardDefaults(t *testing.T) {
	answers := []string{"", "", "192.168.10.30", "", "", "", "", "", "209.165.200.227", "209.165.200.228", "192.168.10.3", "a.example"}
	k := newKeeper(t)
	s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
	before := k.Running()
	for _, x := range [][]string{{"quit"}, append(append([]string{}, answers...), "no"), {"", "exit"}} {
		typeAll(s, append([]string{"uc-ime wizard"}, x...))
		if k.Running() != before || !strings.HasSuffix(s.Prompt(), "# ") {
			t.Fatalf("%q: something was entered, or the wizard goes on: %s", x, s.Prompt())
		}
	}
	answers[0] = "off-path"
	screen := typeAll(s, append(append([]string{"uc-ime wizard"}, answers...), "yes"))
	c := k.Running()
	if len(c.Check().Errors()) > 0 || c.UCIME == nil || c.UCIME.Mapping == nil || len(c.UCIME.TicketPassword.Reveal()) < 20 ||
		strings.Count(screen, c.UCIME.TicketPassword.Reveal()) != 1 {
		t.Errorf("%v\n%s", c.Check(), screen)
	}
}

// Every command that acts is logged, also one that a certificate was expected before, or that ends in a question mark.
func TestNoCommandEscapesTheLog(t *testing.T) {
	var log bytes.Buffer
	k := newKeeper(t)
	b := &clearable{}
	l := NewLocal(newExecutor(b, k, time.Now), Caller{}, slog.New(slog.NewTextHandler(&log, nil)))
	defer l.Close()
	for _, line := range []string{"conf t", "crypto ca trustpoint x", "crypto ca authenticate x", "hostname hidden", "clear conn all | count conn?", "hostname one\nhostname two"} {
		if _, err := l.Run(context.Background(), line, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
	}
	if k.Running().Hostname != "hidden" || b.cleared.Load() != 1 {
		t.Errorf("hostname %s, cleared %d times", k.Running().Hostname, b.cleared.Load())
	}
	for _, want := range []string{"hostname hidden", "clear conn all"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q acted and was not logged:\n%s", want, log.String())
		}
	}
}

// An answer may be a password: none is logged.
func TestAnswersAreNotLogged(t *testing.T) {
	var log bytes.Buffer
	l := NewLocal(newExecutor(&clearable{}, newKeeper(t), time.Now), Caller{}, slog.New(slog.NewTextHandler(&log, nil)))
	defer l.Close()
	pemText, _ := certificate(t)
	for _, line := range append([]string{"uc-ime wizard", "the-answer", "quit", "conf t", "crypto ca trustpoint x", "crypto ca authenticate x"}, append(strings.Split(pemText, "\n"), "quit", "ticket epoch 1 password the-password")...) {
		if _, err := l.Run(context.Background(), line, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
	}
	if text := log.String(); strings.Contains(text, "the-answer") || strings.Contains(text, "the-password") || strings.Contains(text, "BEGIN") || !strings.Contains(text, "uc-ime wizard") {
		t.Error(text)
	}
}
