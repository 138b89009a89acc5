package answerfile

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"imeproxy/proxy/netcheck"
)

// Terminal is where questions are asked. Secret reads without showing what is typed, from before the prompt is shown.
type Terminal interface {
	io.Writer
	ReadLine() (string, error)
	Secret(prompt string) (string, error)
}

// How the dialogue can end without answers.
var (
	ErrSkipped = errors.New("no answers were given")                              // whoever was asked wants to go on without
	ErrHalted  = errors.New("the installation halts: the network must be mended") // as was chosen when the network did not work
)

// Network tries the network of the answers so far. What it finds that somebody chooses to ignore, and each choice, goes to Log.
type Network struct {
	Check func(netcheck.Plan) ([]netcheck.Problem, error)
	Log   func(text string)
}

// question is one of the dialogue.
type question struct {
	key, prompt, help string
	initial           string // what an empty line means
	secret            bool
	optional          bool // an empty line is no answer
	again             bool // asked until it is left empty
	certificate       bool // asked only where there is an organization
	network           bool // the network is tried with the answer
}

var questions = []question{
	{key: "host-name", prompt: "Host name", help: "The name of this machine, without its domain: letters, digits, hyphens.", initial: "imeproxy"},
	{key: "domain", prompt: "Domain", help: "The SIP domain of your enterprise, such as a.example."},
	{
		key: "interface", prompt: "Network card, its name and address", again: true, network: true,
		help: "For example: eth0 inside 192.168.10.1/24\nCards are eth0, eth1 and so on, in the order of their PCI addresses. The name inside is trusted most; outside leads to the\nInternet. \"mtu 1400\" behind it sets the largest packet; without it that is 1500 bytes. An empty line ends the list.",
	},
	{key: "gateway", prompt: "Gateway", optional: true, network: true, help: "The address of the router that leads to all other networks. Empty: none."},
	{key: "dns", prompt: "Name servers", network: true, help: "One or two addresses, with a blank between them."},
	{key: "ntp", prompt: "Time servers", network: true, help: "One to five names or addresses, better three: tickets and certificates need the right time. \"none\" where the host of this\nvirtual machine keeps its clock right."},
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

// dialogue is one that goes on.
type dialogue struct {
	t       Terminal
	network *Network
	given   map[string][]string
	ignored map[string]bool // problems of the network
}

// Ask asks all questions and gives the text of an answer file, passwords encrypted. With a network each answer about it is tried. ErrSkipped when
// "skip" was answered, ErrHalted when halt was chosen; other errors are the terminal's.
func Ask(t Terminal, network *Network) (string, error) {
	fmt.Fprint(t, "Type your answers. \"back\" goes to the question before, \"help\" or \"?\" explains, \"skip\" ends without answers.\n")
	d := &dialogue{t: t, network: network, ignored: map[string]bool{}}
	for {
		d.given = map[string][]string{}
		if err := d.askAll(); err != nil {
			return "", err
		}
		text := d.text()
		if _, mistakes := Parse([]byte(text)); len(mistakes) > 0 {
			for _, m := range mistakes {
				fmt.Fprintf(t, "%% %s\n", m.Text)
			}
			fmt.Fprint(t, "Please answer once more.\n")
			continue
		}
		if right, err := review(t, d.given); err != nil || right {
			return text, err
		}
	}
}

// text is the answer file of what was given.
func (d *dialogue) text() string {
	var b strings.Builder
	for _, q := range questions {
		for _, l := range d.given[q.key] {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// askAll goes through the questions, also backwards.
func (d *dialogue) askAll() error {
	asked := []int{} // the way back
	for i := 0; i < len(questions); {
		q := &questions[i]
		if q.certificate && len(d.given["organization"]) == 0 {
			d.given[q.key] = nil
			i++
			continue
		}
		lines, err := q.ask(d.t)
		if errors.Is(err, errBack) {
			if len(asked) > 0 {
				i, asked = asked[len(asked)-1], asked[:len(asked)-1]
			}
			continue
		}
		if err != nil {
			return err
		}
		d.given[q.key] = lines
		asked = append(asked, i)
		i++
		if !q.network || d.network == nil {
			continue
		}
		switch err := d.tryNetwork(); {
		case errors.Is(err, errReview):
			i = slices.IndexFunc(questions, func(q question) bool { return q.network })
			asked = slices.DeleteFunc(asked, func(j int) bool { return j >= i })
			for _, q := range questions[i:] {
				delete(d.given, q.key)
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// errReview says that the answers about the network are to be given once more.
var errReview = errors.New("review")

// tryNetwork tries the network of the answers so far, and lets somebody choose what to do about its problems, as the guide's installation does.
func (d *dialogue) tryNetwork() error {
	var a Answers
	for _, q := range questions {
		for _, l := range d.given[q.key] {
			if _, name, value := placeOf(0, l); !q.secret {
				_ = find(name).set(&a, value) // it was taken before
			}
		}
	}
	for {
		fmt.Fprintln(d.t, "The network is tried ...")
		found, err := d.network.Check(a.Plan())
		if err != nil {
			found = append(found, netcheck.Problem{Text: "the network cannot be tried: " + err.Error()})
		}
		found = slices.DeleteFunc(found, func(p netcheck.Problem) bool { return d.ignored[about(p)] })
		if len(found) == 0 {
			return nil
		}
		for _, p := range found {
			fmt.Fprintf(d.t, "%% %s\n", p.Text)
			d.network.Log("network: " + p.Text)
		}
		choice, err := d.choose()
		if err != nil {
			return err
		}
		d.network.Log("network: " + choice + " was chosen")
		switch choice {
		case "review":
			return errReview
		case "halt":
			return ErrHalted
		case "ignore":
			for _, p := range found {
				d.ignored[about(p)] = true
			}
			return nil
		}
	}
}

// about is what a problem is about, without its reason, which may be another one the next time.
func about(p netcheck.Problem) string {
	text, _, _ := strings.Cut(p.Text, ": ")
	return text
}

// choose asks what to do.
func (d *dialogue) choose() (string, error) {
	for {
		fmt.Fprint(d.t, "retry, review, halt or ignore: ")
		line, err := d.t.ReadLine()
		if err != nil {
			return "", err
		}
		switch line = strings.ToLower(strings.TrimSpace(line)); line {
		case "retry", "review", "halt", "ignore":
			return line, nil
		case "help", "?":
			fmt.Fprintln(d.t, "retry tries the network again, review goes back to the questions about it, halt ends the installation without a change,\nignore goes on: the install log has what does not work.")
		}
	}
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
