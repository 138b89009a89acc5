package shell

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imeproxy/proxy/config"
	"imeproxy/proxy/revision"
)

const startText = `hostname asa-a
!
interface ein
 nameif inside
 security-level 100
 ip address 192.168.10.1 255.255.255.0
!
interface eout
 nameif outside
 security-level 0
 ip address 209.165.200.225 255.255.255.224
`

// newKeeper is a real keeper over a daemon that takes every configuration.
func newKeeper(t testing.TB) *revision.Keeper {
	t.Helper()
	return keeperOf(t, startText)
}

// keeperOf is one whose file has a text.
func keeperOf(t testing.TB, text string) *revision.Keeper {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "imeproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, found := config.Load(file, []byte(text))
	if found.HasErrors() {
		t.Fatal(found)
	}
	at := noon
	return revision.New(revision.Options{
		File: file, StateDir: dir, Running: c, Apply: func(string, *config.Config) error { return nil },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: func() time.Time { at = at.Add(time.Second); return at },
		After: func(time.Duration, func()) func() bool { return func() bool { return true } },
	})
}

// typeAll gives what an operator sees who types lines into one session.
func typeAll(s Session, lines []string) string {
	var screen strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&screen, "%s%s\n", s.Prompt(), line)
		var out strings.Builder
		err := s.Run(context.Background(), line, &out)
		screen.WriteString(out.String())
		var wrong *CommandError
		var mistake mistakeError
		switch {
		case errors.As(err, &wrong), errors.As(err, &mistake):
			screen.WriteString(err.Error() + "\n")
		case err != nil:
			screen.WriteString("ERROR: " + err.Error() + "\n")
		}
	}
	return screen.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// Whoever wrote the file by hand is told once that his comments do not stand in the new one.
func TestSavingTellsOfComments(t *testing.T) {
	x := newExecutor(&clearable{}, keeperOf(t, "! the edge of enterprise A\n! ask Bob\n"+startText), func() time.Time { return noon })
	said := typeAll(x.NewSession(Caller{PID: 7}), []string{"write memory", "write memory"})
	if strings.Count(said, "WARNING: 2 comment lines of the former file left out of the new one") != 1 || strings.Count(said, "[OK]") != 2 {
		t.Errorf("said:\n%s", said)
	}
}

// One golden file holds what an operator types in configuration mode and sees.
func TestConfigurationSession(t *testing.T) {
	x := newExecutor(&clearable{}, newKeeper(t), func() time.Time { return noon })
	golden(t, "configure.txt", typeAll(x.NewSession(Caller{PID: 7}), []string{
		"disable", "show conn", "configure terminal", "show version | include up", "enable",
		"conf t", "host asa-b", "object network ucm", "host 192.168.10.30", "nat (inside, outside) static 209.165.200.227", "sh run object", "exit",
		"show running-config object", "show running-config nat", "object network ucm", "host", "host 192.168.10.300", "h?", "exit",
		"access-list in extended permit tcp any host 192.168.10.30 eq 5070", "access-list in extended permit tcp any hots 192.168.10.30",
		"class-map sip", "match access-list nothing", "show configuration missing", "exit", "show configuration missing", "write memory",
		"access-list nothing extended permit ip any any", "show configuration missing", "show configuration diff", "write", "show configuration diff",
		"interface eout", "ip address 192.168.10.9 255.255.255.0", "hostname asa-c", "show running-config interface", "interface eout",
		"shutdown", "end", "show running-config interface | include shut", "show configuration history", "configure replace former 1 check",
		"configure replace former 1", "show running-config | count", "conf t", "clear configure interface", "commit", "show startup-config | include hostname",
		"uc-ime one", "ticket epoch 1 password secret12345", "ticket epoch 1 password short", "end", "show running-config uc-ime",
		"configure terminal", "commit confirmed 5", "show configuration missing | include trial", "commit", "frobnicate", "exit", "exit",
	}))
}

// The sessions of docs/shell.md are typed, and show what stands there.
func TestShellDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/shell.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "```\n")
	if len(parts) < 5 {
		t.Fatalf("%d parts", len(parts))
	}
	for i := 1; i < len(parts); i += 2 {
		s := newExecutor(&clearable{}, newKeeper(t), time.Now).NewSession(Caller{})
		typeAll(s, []string{"conf t"})
		var typed []string
		for line := range strings.Lines(parts[i]) {
			if _, command, found := strings.Cut(line, ")# "); found {
				typed = append(typed, strings.TrimSuffix(command, "\n"))
			}
		}
		if d := cmp.Diff(parts[i], typeAll(s, typed)); d != "" {
			t.Error(d)
		}
	}
}

func certificate(t *testing.T) (text, fingerprint string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: noon.AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), hex.EncodeToString(sum[:])
}

// A certificate is pasted up to quit, as PEM or as the bare base64 of an ASA; where the next command follows at once none was meant.
func TestPastedCertificate(t *testing.T) {
	pemText, fingerprint := certificate(t)
	body := strings.Split(strings.TrimSpace(pemText), "\n")
	for name, x := range map[string]struct {
		lines []string
		held  bool
	}{
		"PEM":     {append(append([]string{}, body...), "quit"), true},
		"base64":  {append(append([]string{}, body[1:len(body)-1]...), "quit"), true},
		"nothing": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
			screen := typeAll(s, append(append([]string{"conf t", "crypto ca trustpoint ca", "enrollment terminal", "crypto ca authenticate ca"}, x.lines...), "hostname after"))
			if !strings.Contains(screen, `End with the word "quit"`) || strings.Contains(screen, "ERROR") {
				t.Errorf("screen:\n%s", screen)
			}
			if strings.Contains(screen, "Fingerprint (SHA-256): "+fingerprint) != x.held {
				t.Errorf("fingerprint shown: %t, want %t\n%s", !x.held, x.held, screen)
			}
			if k.Running().Hostname != "after" {
				t.Error("the command behind the certificate was lost")
			}
			if actions := k.Running().CryptoActions; len(actions) != 1 || (string(actions[0].PEM) == pemText) != x.held {
				t.Errorf("actions: %+v", actions)
			}
		})
	}
	s := newExecutor(&clearable{}, newKeeper(t), time.Now).NewSession(Caller{})
	if screen := typeAll(s, []string{"conf t", "crypto ca trustpoint ca", "crypto ca authenticate ca", strings.Repeat("A", 64), "quit", "show clock"}); !strings.Contains(screen, "this is not a certificate") || !strings.Contains(screen, "(config") {
		t.Errorf("a damaged certificate:\n%s", screen)
	}
}

// Hands that know the vendor's routers type "do" before a command of privileged mode: it must not become an abbreviation of domain-name.
func TestDoInConfigurationMode(t *testing.T) {
	k := newKeeper(t)
	s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
	if got := typeAll(s, []string{"conf t", "do write"}); !strings.HasSuffix(got, "[OK]\n") {
		t.Errorf("not saved:\n%s", got)
	}
	got := typeAll(s, []string{"interface ein", "Do show running-config hostname", "do show foo", "do sho?", "end"})
	want := "asa-a(config)# interface ein\nasa-a(config-if)# Do show running-config hostname\nhostname asa-a\n" +
		"asa-a(config-if)# do show foo\n   show foo\n        ^\nERROR: % Invalid input detected at '^' marker.\n`?` in its place lists what may stand there\n" +
		"asa-a(config-if)# do sho?\n  show  Show running system information\nasa-a(config-if)# end\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if logged := config.Masked("do add ime vapusercredentials u password not-for-a-log"); strings.Contains(logged, "not-for") {
		t.Error(logged)
	}
	if d := k.Running().DomainName; d != "" {
		t.Errorf("the domain is %q now", d)
	}
	typeAll(s, []string{"conf t", "do a.example", "dom a.example"})
	if d := k.Running().DomainName; d != "a.example" {
		t.Errorf("the domain is %q", d)
	}
}

// Two operators: what one has not finished does not disturb the other, and each finds the other's changes.
func TestTwoSessions(t *testing.T) {
	k := newKeeper(t)
	x := newExecutor(&clearable{}, k, time.Now)
	one, two := x.NewSession(Caller{PID: 1}), x.NewSession(Caller{PID: 2})
	typeAll(one, []string{"conf t", "object network a", "host 10.1.1.1"})
	if screen := typeAll(two, []string{"show running-config object", "conf t", "object network b", "host 10.2.2.2", "end"}); strings.Contains(screen, "10.1.1.1") {
		t.Errorf("the second sees what the first has not finished:\n%s", screen)
	}
	typeAll(one, []string{"exit"})
	if a, b := k.Running().Object("a"), k.Running().Object("b"); a == nil || b == nil {
		t.Errorf("objects: %v, %v", a, b)
	}
	typeAll(one, []string{"commit confirmed 5", "hostname risky"})
	two.Close()
	if k.Running().Hostname != "risky" {
		t.Error("another session's end took the changes back")
	}
	one.Close()
	if k.Running().Hostname != "asa-a" {
		t.Errorf("the session died and its changes stay: %s", k.Running().Hostname)
	}
}

// Who comes over SSH can read files of disk0: alone, and who may only look changes nothing.
func TestRemoteSessions(t *testing.T) {
	k := newKeeper(t)
	x := newExecutor(&clearable{}, k, time.Now)
	file := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(file, []byte("the-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, "../" + file, "disk0:" + file, "/disk0/../" + file} {
		screen := typeAll(x.NewSession(Caller{Name: "admin", From: "192.168.10.7:1"}), []string{"configure replace " + name + " check"})
		if !strings.Contains(screen, "a file of disk0: is expected") || strings.Contains(screen, "the-secret") {
			t.Errorf("%s:\n%s", name, screen)
		}
	}
	viewer := x.NewSession(Caller{Name: "watch", ViewOnly: true})
	for _, line := range []string{"configure terminal", "clear conn all", "write memory", "commit", "copy startup-config running-config", "clear configure all"} {
		if screen := typeAll(viewer, []string{line}); !strings.Contains(screen, "Invalid input") {
			t.Errorf("%s by who may only look:\n%s", line, screen)
		}
	}
	if screen := typeAll(viewer, []string{"show version", "enable", "show running-config hostname"}); strings.Contains(screen, "ERROR") || !strings.Contains(screen, "hostname asa-a") {
		t.Errorf("looking:\n%s", screen)
	}
	if k.Running().Hostname != "asa-a" {
		t.Error("something was changed")
	}
}

// A configuration that is pasted whole, as show running-config prints it, arrives whole.
func TestPasteOfTheRunningConfiguration(t *testing.T) {
	var text strings.Builder
	text.WriteString(startText)
	for i := range 300 {
		fmt.Fprintf(&text, "!\nobject network o%d\n host 10.0.%d.%d\n", i, i/200, i%200+1)
	}
	want, _ := config.Load("", []byte(text.String()))
	k := newKeeper(t)
	path, _ := start(t, &Server{Executor: newExecutor(&clearable{}, k, time.Now)})
	var out strings.Builder
	err := Run(context.Background(), Console{Socket: path, In: strings.NewReader("conf t\n" + want.String()), Out: &out, Err: &out})
	if err != nil || k.Running().String() != want.String() {
		t.Errorf("%v\n%s", err, cmp.Diff(want.String(), k.Running().String()))
	}
}

// No line ends the daemon, and whatever was typed, the running configuration is one that its own text gives again.
func FuzzConfigurationLine(f *testing.F) {
	for _, s := range []string{"hostname x", "no interface ein", "crypto ca authenticate x\nquit", "object network a\nhost 1.2.3.4\nend", "configure replace /etc/passwd", "clear configure all", "conf t\n?", "exit\nshow run | json"} {
		f.Add(s)
	}
	k := newKeeper(f)
	first := k.Running()
	f.Fuzz(func(t *testing.T, script string) {
		if err := k.Replace("fuzz", first); err != nil {
			t.Fatal(err)
		}
		s := newExecutor(&clearable{}, k, time.Now).NewSession(Caller{})
		typeAll(s, []string{"conf t"})
		for _, line := range strings.Split(script, "\n") {
			_ = s.Run(context.Background(), line, io.Discard)
			s.Complete(line)
			text := k.Running().Startup()
			again, found := config.Parse("", []byte(text))
			if found.HasErrors() || again.Startup() != text {
				t.Fatalf("after %q the configuration is\n%s\nwhich gives\n%s\n%v", line, text, again.Startup(), found)
			}
		}
		s.Close()
	})
}
