package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"imeproxy/proxy/config"
)

// byHand gives what an operator sees whose lines are typed, so that he is asked.
func byHand(s Session, lines ...string) string {
	var screen strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&screen, "%s%s\n", s.Prompt(), line)
		if err := s.Run(WithQuestions(context.Background()), line, &screen); err != nil {
			screen.WriteString(err.Error() + "\n")
		}
	}
	return screen.String() + s.Prompt()
}

func has(t *testing.T, screen string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(screen, w) {
			t.Errorf("no %q on the screen:\n%s", w, screen)
		}
	}
}

// With an enable password a session over SSH begins without privilege and gets it for the password alone; the console begins with it.
func TestEnablePassword(t *testing.T) {
	k := newKeeper(t)
	x := newExecutor(&clearable{}, k, time.Now)
	if _, err := k.Append("t", []string{"enable password correct-horse"}); err != nil {
		t.Fatal(err)
	}
	has(t, byHand(x.NewSession(Caller{}), "show conn"), "2 in use", "asa-a# ")
	ssh := func(viewOnly bool) Session {
		return x.NewSession(Caller{Name: "admin", From: "192.0.2.1", ViewOnly: viewOnly})
	}
	has(t, byHand(ssh(false), "show conn"), "asa-a> show conn", "Invalid input")
	has(t, byHand(ssh(false), "enable", "wrong-horse", "correct-horse", "show conn"), "asa-a> enable\nPassword: wrong-horse\nInvalid password\nPassword: correct-horse\nasa-a# show conn\n2 in use")
	has(t, byHand(ssh(false), "enable", "wrong-horse", "", strings.Repeat("x", 100), "show conn"), "% Access denied\nasa-a> show conn", "Invalid input")
	has(t, byHand(ssh(true), "enable", "correct-horse", "clear conn all"), "asa-a# clear conn all", "Invalid input")
	has(t, byHand(x.NewSession(Caller{}), "disable", "enable", "correct-horse"), "asa-a> enable", "asa-a# ")
	s := ssh(false)
	byHand(s, "enable")
	if !s.Secret() {
		t.Error("the password would be seen")
	}
	if _, err := k.Append("t", []string{"no enable password"}); err != nil {
		t.Fatal(err)
	}
	has(t, byHand(ssh(false), "show conn"), "asa-a# show conn\n2 in use")
}

// Neither the password nor a wrong one gets into the log, that somebody has tried does.
func TestEnableInTheLog(t *testing.T) {
	k := newKeeper(t)
	if _, err := k.Append("t", []string{"enable password correct-horse"}); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := NewLocal(newExecutor(&clearable{}, k, time.Now), Caller{Name: "admin", From: "192.0.2.1"}, slog.New(slog.NewTextHandler(&log, nil)))
	defer l.Close()
	for _, line := range []string{"enable", "wrong-horse", "wrong-horse", "wrong-horse", "enable", "correct-horse"} {
		if _, err := l.Run(context.Background(), line, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
	}
	if text := log.String(); strings.Contains(text, "horse") || !strings.Contains(text, "enable refused: the password was wrong") || l.Prompt() != "asa-a# " {
		t.Errorf("prompt %q, log %s", l.Prompt(), text)
	}
}

// On a terminal the password is not shown, nor remembered.
func TestPasswordIsNotShown(t *testing.T) {
	k := newKeeper(t)
	if _, err := k.Append("t", []string{"enable password correct-horse"}); err != nil {
		t.Fatal(err)
	}
	path, _ := start(t, &Server{Executor: newExecutor(&clearable{}, k, time.Now)})
	screen := atKeyboard(t, path, 24, "asa-a# ", "disable\r", "asa-a> ", "enable\r", "Password: ", "correct-horse\r", "asa-a# ", "\x1b[A", "enable", "\x15exit\r")
	if strings.Contains(screen, "horse") {
		t.Errorf("the password is on the screen:\n%q", screen)
	}
}

var trustpoint = []string{"conf t", "domain-name a.example", "crypto key generate rsa label k modulus 2048", "crypto ca trustpoint local", "enrollment terminal", "subject-name cn=a.example", "keypair k"}

func TestEnrolmentQuestions(t *testing.T) {
	enrolled := func(c *config.Config) bool { return strings.Contains(c.String(), "crypto ca enroll local\n") }
	for name, x := range map[string]struct {
		before  []string
		answers []string
		want    []string
		entered bool
	}{
		"request shown": {nil, []string{"no", "yes"}, []string{
			"% Start certificate enrollment ..\n% The subject name in the certificate will be: cn=a.example\n% The fully-qualified domain name in the certificate will be: asa-a.a.example\n",
			"% Include the device serial number in the subject name? [yes/no]: no\nDisplay Certificate Request to terminal? [yes/no]: yes\n",
			"Certificate Request follows:\n\n-----BEGIN CERTIFICATE REQUEST-----\nlocal\n", "---End - This line not part of the certificate request---\nasa-a(config)# ",
		}, true},
		"request not shown": {nil, []string{"n", "n"}, []string{"asa-a(config)# "}, true},
		"something else":    {nil, []string{"maybe", "yes", "", "quit"}, []string{"Please answer 'yes' or 'no'", "no serial number"}, true},
		"self-signed":       {[]string{"enrollment self"}, []string{"no", "yes"}, []string{"Generate Self-Signed Certificate? [yes/no]: yes"}, true},
		"self-signed, no":   {[]string{"enrollment self"}, []string{"no", "no"}, []string{"Nothing was entered."}, false},
		"another name":      {[]string{"fqdn sip.a.example"}, []string{"no", "no"}, []string{"name in the certificate will be: sip.a.example\n"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
			lines := append(append(append([]string{}, trustpoint...), x.before...), append([]string{"cry ca enr local"}, x.answers...)...)
			screen := byHand(s, lines...)
			has(t, screen, x.want...)
			if enrolled(k.Running()) != x.entered || k.Running().Trustpoint("local").KeyPair != "k" {
				t.Errorf("entered %t:\n%s\n%s", !x.entered, screen, k.Running())
			}
			if strings.Contains(screen, "BEGIN") != (name == "request shown") {
				t.Errorf("the request:\n%s", screen)
			}
		})
	}
	t.Run("pasted lines are not asked about", func(t *testing.T) {
		k := newKeeper(t)
		s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
		if screen := typeAll(s, append(append([]string{}, trustpoint...), "crypto ca enroll local", "hostname next")); !enrolled(k.Running()) || k.Running().Hostname != "next" {
			t.Error(screen)
		}
	})
	t.Run("the exported certificate is shown", func(t *testing.T) {
		s := newExecutor(&clearable{}, newKeeper(t), time.Now).NewSession(Caller{})
		has(t, byHand(s, append(append([]string{}, trustpoint...), "enrollment self", "crypto ca enroll local", "no", "yes", "crypto ca export local identity-certificate")...), "identity certificate follows:\n\n-----BEGIN CERTIFICATE-----\nlocal\n")
	})
}

// A certificate of an authority is taken when its fingerprint was accepted, and not before.
func TestCertificateIsAccepted(t *testing.T) {
	text, fingerprint := certificate(t)
	body := append(strings.Split(strings.TrimSpace(text), "\n"), "quit")
	for answer, accepted := range map[string]bool{"yes": true, "no": false} {
		k := newKeeper(t)
		s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
		byHand(s, "conf t", "crypto ca trustpoint x", "enrollment terminal", "exit", "crypto ca auth x")
		typeAll(s, body) // pasted behind the typed command
		if strings.Contains(k.Running().String(), "BEGIN CERTIFICATE") {
			t.Error("taken before it was accepted")
		}
		has(t, s.Prompt(), "Do you accept this certificate? [yes/no]: ")
		screen := byHand(s, answer)
		if got := strings.Contains(k.Running().String(), "BEGIN CERTIFICATE"); got != accepted {
			t.Errorf("%s: taken %t:\n%s", answer, got, screen)
		}
	}
	k := newKeeper(t)
	s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
	screen := byHand(s, append([]string{"conf t", "crypto ca trustpoint x", "enrollment terminal", "exit", "crypto ca authenticate x"}, append(body, "yes", "crypto ca authenticate x", "quit")...)...)
	has(t, screen, "Fingerprint (SHA-256): "+fingerprint, "Trustpoint CA certificate accepted.", "% Certificate successfully imported")
}

func TestDenialIsNoDisclosure(t *testing.T) {
	if !errors.As(error(errDenied), new(*CommandError)) || strings.Contains(errDenied.Error(), "password") {
		t.Errorf("the error is %q", errDenied)
	}
}
