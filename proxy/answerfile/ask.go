package answerfile

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Terminal is where questions are asked. Secret reads without showing what is typed, from before the prompt is shown.
type Terminal interface {
	io.Writer
	ReadLine() (string, error)
	Secret(prompt string) (string, error)
}

// ErrSkipped says that whoever was asked wants to go on without answers.
var ErrSkipped = errors.New("no answers were given")

// question is one of the dialogue.
type question struct {
	key, prompt, help string
	initial           string // what an empty line means
	secret            bool
	optional          bool // an empty line is no answer
	again             bool // asked until it is left empty
	certificate       bool // asked only where there is an organization
}

var questions = []question{
	{key: "host-name", prompt: "Host name", help: "The name of this machine, without its domain: letters, digits, hyphens.", initial: "imeproxy"},
	{key: "domain", prompt: "Domain", help: "The SIP domain of your enterprise, such as a.example."},
	{
		key: "interface", prompt: "Network card, its name and address", again: true,
		help: "For example: eth0 inside 192.168.10.1/24\nCards are eth0, eth1 and so on, in the order of their PCI addresses. The name inside is trusted most; outside leads to the\nInternet. \"mtu 1400\" behind it sets the largest packet; without it that is 1500 bytes. An empty line ends the list.",
	},
	{key: "gateway", prompt: "Gateway", optional: true, help: "The address of the router that leads to all other networks. Empty: none."},
	{key: "dns", prompt: "Name servers", help: "One or two addresses, with a blank between them."},
	{key: "ntp", prompt: "Time servers", help: "One to five names or addresses, better three: tickets and certificates need the right time. \"none\" where the host of this\nvirtual machine keeps its clock right."},
	{key: "time-zone", prompt: "Time zone", initial: "UTC", help: "Such as Europe/Vienna. It is what times are shown in."},
	{key: "administrator", prompt: "Name of the administrator", help: "Who logs in at the console and over SSH. It begins with a letter and has letters, digits, hyphens and underscores."},
	{key: "administrator-password", prompt: "Password of the administrator", secret: true, help: "It " + passwordRule + ".\nMix capital and small letters, digits, hyphens; longer ones are better. No words, names, dates."},
	{key: "security-password", prompt: "Security password", secret: true, help: "What the command enable asks for after a login. It " + passwordRule + "."},
	{key: "organization", prompt: "Organization for the certificate", optional: true, help: "Your enterprise's name, for a certificate request. Empty: no request now."},
	{key: "unit", prompt: "Unit", certificate: true, help: "The part of the organization."},
	{key: "location", prompt: "Location", certificate: true, help: "The town, as in the certificate."},
	{key: "state", prompt: "State", certificate: true, help: "The state or province, as in the certificate."},
	{key: "country", prompt: "Country", certificate: true, help: "Two capital letters, such as AT."},
}

// Ask asks all questions and gives the text of an answer file, passwords encrypted. ErrSkipped when "skip" was answered; other
// errors are the terminal's.
func Ask(t Terminal) (string, error) {
	fmt.Fprint(t, "Type your answers. \"back\" goes to the question before, \"help\" or \"?\" explains, \"skip\" ends without answers.\n")
	for {
		given := map[string][]string{}
		if err := askAll(t, given); err != nil {
			return "", err
		}
		var b strings.Builder
		for _, q := range questions {
			for _, l := range given[q.key] {
				b.WriteString(l + "\n")
			}
		}
		if _, mistakes := Parse([]byte(b.String())); len(mistakes) > 0 {
			for _, m := range mistakes {
				fmt.Fprintf(t, "%% %s\n", m.Text)
			}
			fmt.Fprint(t, "Please answer once more.\n")
			continue
		}
		if right, err := review(t, given); err != nil || right {
			return b.String(), err
		}
	}
}

// askAll goes through the questions, also backwards.
func askAll(t Terminal, given map[string][]string) error {
	asked := []int{} // the way back
	for i := 0; i < len(questions); {
		q := &questions[i]
		if q.certificate && len(given["organization"]) == 0 {
			given[q.key] = nil
			i++
			continue
		}
		lines, err := q.ask(t)
		if errors.Is(err, errBack) {
			if len(asked) > 0 {
				i, asked = asked[len(asked)-1], asked[:len(asked)-1]
			}
			continue
		}
		if err != nil {
			return err
		}
		given[q.key] = lines
		asked = append(asked, i)
		i++
	}
	return nil
}

// errBack says that the question before is wanted.
var errBack = errors.New("back")

// ask asks one question until the answer is good.
func (q *question) ask(t Terminal) (lines []string, err error) {
	var before Answers // the lines of one key are checked against each other
	for {
		line, err := q.read(t)
		if err != nil {
			return nil, err
		}
		switch word := strings.ToLower(line); {
		case word == "back":
			return nil, errBack
		case word == "skip":
			return nil, ErrSkipped
		case word == "help" || word == "?":
			fmt.Fprintln(t, q.help)
			continue
		case line == "" && q.initial != "":
			line = q.initial
		case line == "" && (q.optional || q.again && len(lines) > 0):
			return lines, nil
		}
		if err := find(q.key).set(&before, line); err != nil {
			fmt.Fprintf(t, "%% The answer %s\n", err)
			continue
		}
		key := q.key
		if q.secret {
			hash, err := bcrypt.GenerateFromPassword([]byte(line), bcrypt.DefaultCost)
			if err != nil {
				return nil, err
			}
			key, line = q.key+"-encrypted", string(hash)
		}
		lines = append(lines, key+": "+line)
		if !q.again {
			return lines, nil
		}
	}
}

// read gives what was typed; a password must be typed twice.
func (q *question) read(t Terminal) (string, error) {
	prompt := q.prompt
	if q.initial != "" {
		prompt += " [" + q.initial + "]"
	}
	for {
		if !q.secret {
			fmt.Fprintf(t, "%s: ", prompt)
			line, err := t.ReadLine()
			return strings.TrimSpace(line), err
		}
		first, err := t.Secret(prompt + ": ")
		if err != nil || slices.Contains([]string{"back", "skip", "help", "?"}, first) {
			return first, err
		}
		second, err := t.Secret("The same once more: ")
		if err != nil || first == second {
			return first, err
		}
		fmt.Fprintln(t, "% The two are not the same.")
	}
}

// review shows the answers and asks whether they are right.
func review(t Terminal, given map[string][]string) (right bool, err error) {
	fmt.Fprintln(t, "\nYour answers:")
	for _, q := range questions {
		for _, l := range given[q.key] {
			if q.secret {
				l = q.key + ": *****"
			}
			fmt.Fprintln(t, "  "+l)
		}
	}
	for {
		fmt.Fprint(t, "Are they right? [yes/no]: ")
		line, err := t.ReadLine()
		if err != nil {
			return false, err
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "yes", "y":
			return true, nil
		case "no", "n":
			return false, nil
		case "skip":
			return false, ErrSkipped
		}
	}
}
