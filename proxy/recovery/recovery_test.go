package recovery

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"imeproxy/proxy/config"
)

// typist answers from a list; what it was asked is in the buffer.
type typist struct {
	bytes.Buffer
	lines []string
}

func (k *typist) ReadLine() (string, error) {
	if len(k.lines) == 0 {
		return "", io.EOF
	}
	line := k.lines[0]
	k.lines = k.lines[1:]
	return line, nil
}

func (k *typist) Secret(prompt string) (string, error) {
	k.WriteString(prompt)
	return k.ReadLine()
}

func TestMain(m *testing.M) {
	cost = bcrypt.MinCost
	m.Run()
}

// old gives the word of a password in a configuration.
func old(password string) string {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(hash) + " encrypted"
}

var (
	admin, second = old("Old-Password-1"), old("Old-Password-4")

	stored = `! typed by hand
hostname edge-a
interface eth0
 nameif inside
 ip address 192.168.10.1 255.255.255.0
username admin password ` + admin + `
username watcher password ` + old("Old-Password-2") + ` privilege 5
username admin publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsRxCIJbOLOWCMgAnlwyvK1ZfFIe4wIEX2/AhsXtNYl
enable password ` + old("Old-Password-3") + `
ssh 192.168.10.0 255.255.255.0 inside
`
)

// recoverWith plays a dialogue and gives the last text that was stored.
func recoverWith(t *testing.T, text string, lines ...string) (out string, resets []string, screen string, err error) {
	t.Helper()
	out = text
	k := &typist{lines: lines}
	err = Ask(k, []byte(text), func(next []byte, r Reset) error {
		out, resets = string(next), append(resets, r.String())
		return nil
	})
	return out, resets, k.String(), err
}

// without is a text without the lines of passwords.
func without(text string) string {
	var out []string
	for _, l := range strings.Split(text, "\n") {
		if !strings.Contains(l, "password") {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func TestPasswordsAreResetAndNothingElse(t *testing.T) {
	out, resets, screen, err := recoverWith(t, stored, "a", "New-Secret-77", "New-Secret-77", "s", "Other-Secret-88", "Other-Secret-88", "q")
	if err != nil || strings.Join(resets, ",") != "administrator admin,security password" {
		t.Fatalf("%v, %v\n%s", err, resets, screen)
	}
	c, found := config.Load("x", []byte(out))
	if found.HasErrors() {
		t.Fatal(found)
	}
	if c.LogIn("admin", "New-Secret-77") == nil || c.LogIn("admin", "Old-Password-1") != nil || c.LogIn("watcher", "Old-Password-2") == nil {
		t.Errorf("who may log in:\n%s", out)
	}
	if without(out) != without(stored) {
		t.Errorf("more than passwords has changed:\n%s", out)
	}
	if strings.Contains(out+screen, "Secret") {
		t.Error("a new password is shown or written")
	}
	if u := c.User("admin"); len(u.PublicKeys) != 1 || u.Privilege != 15 {
		t.Errorf("%+v", u)
	}
}

func TestWeakAndDifferentPasswords(t *testing.T) {
	out, resets, screen, err := recoverWith(t, stored, "x", "s", "short", "qwertyuiop", "New-Secret-77", "New-Secret-78", "New-Secret-77", "New-Secret-77", "a", "", "Q")
	if err != nil || len(resets) != 1 {
		t.Fatalf("%v, %v\n%s", err, resets, screen)
	}
	for _, want := range []string{"% Type a, s or q.", "% The password must have 8 to 72", "% The two are not the same."} {
		if !strings.Contains(screen, want) {
			t.Errorf("it never says %q:\n%s", want, screen)
		}
	}
	if !strings.Contains(out, admin) {
		t.Error("an empty password was taken")
	}
}

func TestWhoseItIs(t *testing.T) {
	two := stored + "username second password " + second + "\n"
	if out, resets, screen, err := recoverWith(t, two, "a", "watcher", "second", "New-Secret-77", "New-Secret-77", "q"); err != nil || resets[0] != "administrator second" ||
		!strings.Contains(screen, "(admin, second)") || !strings.Contains(out, admin) {
		t.Errorf("two administrators: %v %v\n%s", err, resets, screen)
	}
	// Without any, or with lines that the parser does not take, one is made.
	for _, text := range []string{"hostname edge-a\n", "", "username admin pass", "hostname edge-a\nnonsense\ncrypto ca certificate chain x\n certificate ca 01\n  3082"} {
		out, _, screen, err := recoverWith(t, text, "a", "1st", "boss", "New-Secret-77", "New-Secret-77", "q")
		if err != nil {
			t.Errorf("%q: %v\n%s", text, err, screen)
			continue
		}
		if c, _ := config.Parse("x", []byte(out)); c.LogIn("boss", "New-Secret-77") == nil || !strings.HasSuffix(out, text) {
			t.Errorf("%q became %q", text, out)
		}
	}
	// A line in other words further down does not win.
	out, _, _, err := recoverWith(t, "usern admin pass "+admin+"\n", "a", "New-Secret-77", "New-Secret-77", "q")
	if c, _ := config.Parse("x", []byte(out)); err != nil || c.LogIn("admin", "New-Secret-77") == nil {
		t.Errorf("%v: %q", err, out)
	}
}

func TestFailures(t *testing.T) {
	if _, _, _, err := recoverWith(t, stored, "a", "New-Secret-77"); !errors.Is(err, io.EOF) {
		t.Errorf("a terminal that goes away: %v", err)
	}
	full := errors.New("disk is full")
	k := &typist{lines: []string{"s", "New-Secret-77", "New-Secret-77", "q"}}
	if err := Ask(k, []byte(stored), func([]byte, Reset) error { return full }); !errors.Is(err, full) || strings.Contains(k.String(), "It is reset") {
		t.Errorf("%v\n%s", err, k)
	}
}

// FuzzSet resets passwords in any text: the result holds the new hash, or it says that it cannot.
func FuzzSet(f *testing.F) {
	f.Add(stored, "admin")
	f.Add("usern admin pass x\n", "admin")
	f.Add("banner motd #\n", "")
	const hash = "$2a$04$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"
	f.Fuzz(func(t *testing.T, text, name string) {
		if name != "" && !userName.MatchString(name) {
			return
		}
		r := Reset{name}
		out, err := Set([]byte(text), r, hash)
		if err == nil && !holds(string(out), r, hash) {
			t.Errorf("%q", out)
		}
	})
}
