package recovery

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"imeproxy/proxy/answerfile"
	"imeproxy/proxy/config"
)

// cost is that of the hashes; tests take a smaller one.
var cost = config.PasswordCost

// Reset is a password that has another value.
type Reset struct {
	Administrator string // whose it is; empty: the security password
}

func (r Reset) String() string {
	if r.Administrator != "" {
		return "administrator " + r.Administrator
	}
	return "security password"
}

var userName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// Ask offers what can be reset, until q, and gives each to store, which puts the text in the place of the stored one. A store that fails ends it.
// Other errors are the terminal's.
func Ask(t answerfile.Terminal, text []byte, store func(text []byte, r Reset) error) error {
	fmt.Fprint(t, "\nPassword recovery. Nothing is served to the network until the machine restarts, which it does after q or fifteen minutes.\n"+
		"Configuration, certificates and records stay as they are.\n")
	for {
		line, err := ask(t, "\n a  reset the password of an administrator\n s  reset the security password\n q  quit, and restart the machine\nYour choice: ")
		if err != nil {
			return err
		}
		var r Reset
		switch strings.ToLower(line) {
		case "a":
			if r.Administrator, err = administrator(t, text); err != nil {
				return err
			}
		case "s":
		case "q":
			return nil
		default:
			fmt.Fprintln(t, "% Type a, s or q.")
			continue
		}
		hash, err := newPassword(t)
		if errors.Is(err, errNone) {
			continue
		}
		if err != nil {
			return err
		}
		if text, err = Set(text, r, hash); err != nil {
			return err
		}
		if err := store(text, r); err != nil {
			return err
		}
		fmt.Fprintf(t, "It is reset: %s.\n", r)
	}
}

func ask(t answerfile.Terminal, prompt string) (string, error) {
	fmt.Fprint(t, prompt)
	line, err := t.ReadLine()
	return strings.TrimSpace(line), err
}

// administrator asks whose password it is, where there is more than one.
func administrator(t answerfile.Terminal, text []byte) (string, error) {
	c, _ := config.Parse("startup-config", text) // what is right in it counts
	var names []string
	for _, u := range c.Users {
		if u.Privilege == config.PrivilegeAll {
			names = append(names, u.Name)
		}
	}
	if len(names) == 1 {
		return names[0], nil
	}
	prompt := "There is no administrator. Name of a new one: "
	if len(names) > 1 {
		prompt = "Whose (" + strings.Join(names, ", ") + "): "
	}
	for {
		name, err := ask(t, prompt)
		if err != nil {
			return "", err
		}
		if slices.Contains(names, name) || len(names) == 0 && userName.MatchString(name) {
			return name, nil
		}
		fmt.Fprintln(t, "% A name begins with a letter and has letters, digits, hyphens and underscores; of those that there are, one is expected.")
	}
}

// errNone says that nothing was typed.
var errNone = errors.New("no password")

// newPassword asks for a password, twice, until it is one by the rules of the installation.
func newPassword(t answerfile.Terminal) (hash string, err error) {
	for {
		first, err := t.Secret("New password (empty: none): ")
		if err != nil {
			return "", err
		}
		if first == "" {
			return "", errNone
		}
		if err := answerfile.CheckPassword(first); err != nil {
			fmt.Fprintf(t, "%% The password %v\n", err)
			continue
		}
		second, err := t.Secret("The same once more: ")
		if err != nil {
			return "", err
		}
		if first != second {
			fmt.Fprintln(t, "% The two are not the same.")
			continue
		}
		b, err := bcrypt.GenerateFromPassword([]byte(first), cost)
		return string(b), err
	}
}

// Set gives a configuration with another hash for a password: the line that has it is replaced, or one is added, and nothing else changes.
func Set(text []byte, r Reset, hash string) ([]byte, error) {
	command, words := "enable password "+hash+" encrypted", []string{"enable", "password"}
	if r.Administrator != "" {
		words = []string{"username", r.Administrator, "password"}
		command = fmt.Sprintf("username %s password %s encrypted privilege %d", r.Administrator, hash, config.PrivilegeAll)
	}
	var out []string
	found := false
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) < len(words) || !slices.Equal(f[:len(words)], words) {
			out = append(out, line)
			continue
		}
		if !found {
			out = append(out, command)
		}
		found = true
	}
	if !found { // before the first line: at the end the text of a certificate may be open
		out = append([]string{command}, out...)
	}
	made := strings.Join(out, "\n")
	if !holds(made, r, hash) { // a line that is written in another way says something else, further down
		made = strings.TrimSuffix(made, "\n") + "\n" + command + "\n"
	}
	if !holds(made, r, hash) {
		return nil, errors.New("the stored configuration is damaged: its lines cannot be told from each other")
	}
	return []byte(made), nil
}

// holds says whether a configuration has a hash where it should be.
func holds(text string, r Reset, hash string) bool {
	c, _ := config.Parse("startup-config", []byte(text))
	if r.Administrator == "" {
		return c.EnablePassword.Reveal() == hash
	}
	u := c.User(r.Administrator)
	return u != nil && u.Password.Reveal() == hash && u.Privilege == config.PrivilegeAll
}
