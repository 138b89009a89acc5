package shell

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"imeproxy/proxy/config"
	"imeproxy/proxy/config/keyword"
	"imeproxy/proxy/observe"
)

// wizard asks for what a proxy needs, in the order of the guide's (lines 5792-5837): topology, private network and ticket, public network,
// media termination, certificates. Its answers become commands, which are shown before they are entered.
type wizard struct {
	asked   int
	answers map[string]string
	made    bool           // the ticket password was made here
	given   *config.Config // what is configured already: it gives the defaults
}

// question is one of the wizard's. Its text stands before the answer, with the default in brackets.
type question struct {
	name, text string
	preset     func(w *wizard) string // "" = an answer must be given
	check      func(w *wizard, answer string) error
}

func oneOf(words ...string) func(*wizard, string) error {
	return func(_ *wizard, a string) error {
		for _, x := range words {
			if a == x {
				return nil
			}
		}
		return fmt.Errorf("type %s", strings.Join(words, " or "))
	}
}

func always(text string) func(*wizard) string { return func(*wizard) string { return text } }

// host is an address that is none of those which are in use already: own ones, or of an earlier answer.
func host(w *wizard, a string) error {
	if err := config.CheckWord("HOST", a); err != nil {
		return err
	}
	ip := netip.MustParseAddr(a)
	for _, i := range w.given.Interfaces {
		if i.Address.IsValid() && i.Address.Addr() == ip {
			return fmt.Errorf("this is the address of interface %s itself", i.Nameif)
		}
	}
	for name, other := range w.answers {
		if other == a {
			return fmt.Errorf("this address was given as %s already", strings.ReplaceAll(name, "_", " "))
		}
	}
	return nil
}

// hostOn is a host in the subnet of an interface.
func hostOn(side string) func(*wizard, string) error {
	return func(w *wizard, a string) error {
		if err := host(w, a); err != nil {
			return err
		}
		i := w.given.InterfaceByNameif(w.answers[side])
		if ip := netip.MustParseAddr(a); i.Address.IsValid() && !i.Address.Contains(ip) {
			return fmt.Errorf("an unused address in %s is expected", i.Address.Masked())
		}
		return nil
	}
}

// word is an argument of the commands.
func word(kind string) func(*wizard, string) error {
	return func(_ *wizard, a string) error { return config.CheckWord(kind, a) }
}

func nameif(w *wizard, a string) error {
	var names []string
	for _, i := range w.given.Interfaces {
		if i.Nameif != "" {
			if names = append(names, i.Nameif); i.Nameif == a {
				if !i.Address.IsValid() {
					return fmt.Errorf("interface %s has no address yet", a)
				}
				return nil
			}
		}
	}
	return fmt.Errorf("one of the configured interfaces is expected: %s", strings.Join(names, ", "))
}

func offPath(w *wizard) bool { return w.answers["topology"] == "off-path" }

func wizardQuestions() []question {
	return []question{
		{name: "topology", text: "Topology: does all Internet traffic flow through this box (in-line), or does it stand beside a firewall (off-path)?", preset: always("in-line"), check: oneOf("in-line", "off-path")},
		{name: "inside", text: "Interface of the private network", preset: always("inside"), check: nameif},
		{name: "call_agent", text: "Address of the call agent in the private network", check: host},
		{name: "security", text: "Does the call agent speak TLS on its trunk (secure) or not (non-secure)?", preset: always("non-secure"), check: oneOf("non-secure", "secure")},
		{name: "port", text: "Port on which the call agent takes calls from other enterprises", preset: always("5070"), check: word("1-65535")},
		{name: "epoch", text: "Epoch of the ticket password, raised with each new password", preset: always("1"), check: word("1-255")},
		{name: "password", text: "Ticket password, the same as in the peer server; none: one is made", preset: func(*wizard) string { return rand.Text() }, check: word("PASSWORD")},
		{name: "outside", text: "Interface of the public network", preset: always("outside"), check: func(w *wizard, a string) error {
			if a == w.answers["inside"] {
				return errors.New("this is the interface of the private network")
			}
			return nameif(w, a)
		}},
		{name: "public_address", text: "Public address that stands for the call agent", check: host},
		{name: "media_outside", text: "Unused public address for media", check: hostOn("outside")},
		{name: "media_inside", text: "Unused private address for media", check: hostOn("inside")},
		{name: "domain", text: "SIP domain of this enterprise, for its certificate", preset: func(w *wizard) string { return w.given.DomainName }, check: word("DOMAIN")},
		{name: "summary", text: "Enter these commands?", check: oneOf("yes", "no")},
	}
}

// commands are what the answers come to.
func (w *wizard) commands(password string) []string {
	a := func(name string) string { return w.answers[name] }
	out := []string{
		"object network ime-ucm-real", " host " + a("call_agent"),
		" nat (" + a("inside") + "," + a("outside") + ") static " + a("public_address"),
		"access-list ime-incoming extended permit tcp any host " + a("call_agent") + " eq " + a("port"),
		"access-group ime-incoming in interface " + a("outside"),
		"access-list ime-inbound-sip extended permit tcp any host " + a("call_agent") + " eq " + a("port"),
		"access-list ime-outbound-sip extended permit tcp host " + a("call_agent") + " any range 5000 6000",
		"media-termination ime-media", " address " + a("media_outside") + " interface " + a("outside"), " address " + a("media_inside") + " interface " + a("inside"),
		"uc-ime ime-proxy", " media-termination ime-media", " ucm address " + a("call_agent") + " trunk-security-mode " + a("security"),
		" ticket epoch " + a("epoch") + " password " + password,
	}
	out = append(out, "domain-name "+a("domain"), "crypto key generate rsa label ime-local-key modulus 2048", "crypto ca trustpoint ime-local", " enrollment terminal",
		" subject-name cn="+a("domain"), " keypair ime-local-key", "crypto ca enroll ime-local", "crypto ca trustpoint ime-remote-ca", " enrollment terminal")
	server, client := []string{" server trust-point ime-local"}, []string{" client trust-point ime-local"}
	if a("security") == "secure" {
		out = append(out, "crypto key generate rsa label ime-inside-key modulus 2048", "crypto ca trustpoint ime-inside", " enrollment self", " subject-name cn="+a("domain"),
			" keypair ime-inside-key", "crypto ca enroll ime-inside", "crypto ca export ime-inside identity-certificate", "crypto ca trustpoint ime-ucm", " enrollment terminal")
		server, client = append(server, " client trust-point ime-inside"), append(client, " server trust-point ime-inside")
	}
	out = append(append(out, "tls-proxy ime-outbound"), client...)
	out = append(append(out, "tls-proxy ime-inbound"), server...)
	return append(out, "class-map ime-inbound-sip", " match access-list ime-inbound-sip", "class-map ime-outbound-sip", " match access-list ime-outbound-sip",
		"policy-map ime-policy", " class ime-outbound-sip", "  inspect sip uc-ime ime-proxy tls-proxy ime-outbound",
		" class ime-inbound-sip", "  inspect sip uc-ime ime-proxy tls-proxy ime-inbound")
}

// last are the commands that put the proxy into service, which needs a certificate.
func (w *wizard) last() []string {
	out := []string{"service-policy ime-policy global"}
	if offPath(w) {
		in, outside := w.answers["inside"], w.answers["outside"]
		out = append(out, "uc-ime ime-proxy", " mapping-service listening-interface "+in+" uc-ime-interface "+outside,
			"object network ime-outside-any", " subnet 0.0.0.0 0.0.0.0", " nat ("+outside+","+in+") dynamic interface")
	}
	return out
}

func startWizard(s *session, _ keyword.Args) (observe.View, error) {
	k := s.x.keeper
	if k.Running().UCIME != nil {
		return nil, errors.New("a uc-ime is configured already: change it in configuration mode, or remove it by no uc-ime first")
	}
	s.wizard = &wizard{answers: map[string]string{}, given: k.Running()}
	return lines{"The wizard asks for what a proxy needs, shows the commands and enters them on yes. quit leaves."}, nil
}

// next is the question that waits for its answer.
func (w *wizard) next() question { return wizardQuestions()[w.asked] }

// prompt is the question with its default.
func (w *wizard) prompt() string {
	q := w.next()
	switch {
	case q.name == "summary":
		return q.text + " [yes/no]: "
	case q.name == "password":
		return q.text + ": "
	case q.preset != nil && q.preset(w) != "":
		return q.text + " [" + q.preset(w) + "]: "
	}
	return q.text + ": "
}

// wizardLine takes an answer.
func (s *session) wizardLine(answer string, out io.Writer) error {
	w := s.wizard
	q := w.next()
	answer = strings.TrimSpace(answer)
	made := ""
	switch strings.ToLower(answer) {
	case "quit", "exit":
		s.wizard = nil
		_, err := io.WriteString(out, "Nothing was entered.\n")
		return err
	case "":
		if q.preset != nil {
			answer = q.preset(w)
			made = answer
		}
	}
	if err := q.check(w, answer); err != nil {
		return &CommandError{Text: "% " + observe.Clean(err.Error())}
	}
	w.answers[q.name] = answer
	w.made = w.made || (q.name == "password" && answer == made)
	w.asked++
	if q.name == "summary" {
		s.wizard = nil
		return s.endWizard(w, out)
	}
	if w.next().name != "summary" {
		return nil
	}
	_, err := io.WriteString(out, "These commands make the proxy:\n"+strings.Join(append(w.commands("*****"), w.last()...), "\n")+"\n")
	return err
}

// endWizard enters the commands: all but the last ones as one change, so that a mistake in one leaves nothing.
func (s *session) endWizard(w *wizard, out io.Writer) error {
	k := s.x.keeper
	if w.answers["summary"] != "yes" {
		_, err := io.WriteString(out, "Nothing was entered.\n")
		return err
	}
	if _, err := k.Append(s.who, w.commands(w.answers["password"])); err != nil {
		var found config.Diagnostics
		if errors.As(err, &found) {
			return mistaken(found)
		}
		return err
	}
	var steps []string
	if w.made { // the one time that it is shown: the peer server must have the same
		steps = []string{"the ticket password that was made is " + w.answers["password"] + ": give it to the peer server, it is not shown again"}
	}
	steps = append(steps,
		"show crypto ca request ime-local: have the request signed by an authority, then crypto ca import ime-local certificate",
		"crypto ca authenticate ime-remote-ca: the authority of the enterprises that you talk to",
	)
	if w.answers["security"] == "secure" {
		steps = append(steps, "crypto ca authenticate ime-ucm: the certificate of the call agent")
	}
	if _, err := k.Append(s.who, w.last()); err != nil {
		steps = append(steps, "then these, which were refused as long as there is no certificate ("+observe.Clean(err.Error())+"):")
		for _, line := range w.last() {
			steps = append(steps, "  "+line)
		}
	}
	steps = append(steps, "write memory")
	_, err := io.WriteString(out, "The commands are entered. What is left to do:\n  "+strings.Join(steps, "\n  ")+"\n")
	return err
}
