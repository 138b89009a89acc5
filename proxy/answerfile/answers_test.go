package answerfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"imeproxy/proxy/config"
	"imeproxy/proxy/netcheck"
)

const good = `# answers
host-name: edge-a
domain: a.example
time-zone: Europe/Vienna
interface: eth0 inside 192.168.10.1/24
interface: eth1 outside 209.165.200.225/27 mtu 1400
gateway: 209.165.200.254
dns: 192.168.10.53 192.0.2.53
ntp: 192.168.10.53 ntp.example.net
administrator: admin
administrator-password: Correct-Horse-7
security-password: Battery_Staple_9
organization: Enterprise A
unit: Voice
location: Vienna
state: Vienna
country: AT
`

func TestAnswersBecomeAConfiguration(t *testing.T) {
	a, mistakes := Parse([]byte(good))
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	text, err := a.Config()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"hostname edge-a\n", "domain-name a.example\n", "interface eth0\n nameif inside\n security-level 100\n ip address 192.168.10.1 255.255.255.0\n",
		"ip address 209.165.200.225 255.255.255.224\n", "route outside 0.0.0.0 0.0.0.0 209.165.200.254", "username admin password $2",
		"enable password $2", "ssh 192.168.10.0 255.255.255.0 inside\n", "subject-name cn=a.example, ou=Voice, o=\"Enterprise A\", l=Vienna, st=Vienna, c=AT\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the configuration lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Correct-Horse") || strings.Contains(text, "Battery") {
		t.Errorf("a password stands in the configuration:\n%s", text)
	}
	if _, diags := config.Load("again", []byte(text)); diags.HasErrors() {
		t.Error(diags)
	}
	system, err := a.System()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"host_name":"edge-a","domain":"a.example","time_zone":"Europe/Vienna","dns":["192.168.10.53","192.0.2.53"],"ntp":["192.168.10.53","ntp.example.net"],"mtu":{"eth1":1400}}`
	if got := strings.NewReplacer("\n", "", " ", "").Replace(string(system)); got != want {
		t.Errorf("what the first process sets: %s", got)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for change, want := range map[string]string{
		"host-name: -edge":                                     "line 2: host-name must have up to 63",
		"domain: example":                                      "must be a domain",
		"time-zone: Mars/Olympus":                              "must be a time zone",
		"time-zone: Local":                                     "must be a time zone",
		"interface: eth0":                                      "must be CARD NAME",
		"interface: eth0 inside 192.168.10.0/24":               "IPv4 address of a host",
		"interface: eth0 inside fe80::1/64":                    "IPv4 address of a host",
		"interface: eth0 inside 192.168.10.1/24 mtu 70000":     "MTU of 576 to 9000",
		"interface: eth1 inside 192.168.10.1/24":               "must not name eth1 or outside again",
		"interface: eth0 inside 209.165.200.226/27":            "overlaps that of inside",
		"gateway: 10.0.0.1":                                    "in no network of an interface",
		"gateway: 209.165.200.225":                             "in no network of an interface",
		"gateway: 224.0.0.1":                                   "IPv4 address of a host",
		"dns: 1.1.1.1 2.2.2.2 3.3.3.3":                         "one or two",
		"dns: ns.example.net":                                  "IPv4 address of a host",
		"ntp: a.example b.example c.example d.example e.f g.h": "one to five",
		"ntp: 1.2.3":                                           "addresses or names",
		"administrator: 1admin":                                "begin with a letter",
		"administrator-password: short":                        "must have 8 to 72",
		"administrator-password: aaabbbaaabbb":                 "must have 8 to 72",
		"administrator-password: qwertyuiop":                   "must have 8 to 72",
		"administrator-password: 123456789012":                 "must have 8 to 72",
		"administrator-password: has a blank 7":                "must have 8 to 72",
		"security-password: -Staple-Battery":                   "must have 8 to 72",
		"administrator-password-encrypted: nonsense":           "must be a bcrypt hash",
		"ssh: 192.168.10.1/24":                                 "must be a network",
		"country: Austria":                                     "two capital letters",
		"unit: a,o=other":                                      "must have up to 64 letters",
		"host_name: edge":                                      "is no key",
		"just words":                                           "a line is a key, a colon and its value",
		"on-network-error: shout":                              "must be ignore, halt or retry",
	} {
		key, _, _ := strings.Cut(change, ":")
		text, replaced := "", false
		for _, line := range strings.Split(good, "\n") {
			if strings.HasPrefix(line, key+":") && !replaced {
				line, replaced = change, true
			}
			text += line + "\n"
		}
		if !replaced {
			text += change + "\n"
		}
		a, mistakes := Parse([]byte(text))
		if a != nil || !strings.Contains(fmt.Sprint(mistakes), want) {
			t.Errorf("%s: %v, wanted %q", change, mistakes, want)
		}
	}
	for missing, want := range map[string]string{
		"host-name": "host-name is missing", "dns": "dns is missing", "ntp": "ntp is missing", "administrator": "administrator is missing",
		"administrator-password": "one of administrator-password and", "security-password": "one of security-password and", "state": "go together",
	} {
		var kept []string
		for _, line := range strings.Split(good, "\n") {
			if !strings.HasPrefix(line, missing+":") {
				kept = append(kept, line)
			}
		}
		if _, mistakes := Parse([]byte(strings.Join(kept, "\n"))); !strings.Contains(fmt.Sprint(mistakes), want) {
			t.Errorf("without %s: %v", missing, mistakes)
		}
	}
	if _, mistakes := Parse([]byte(good + "host-name: twice\n")); !strings.Contains(fmt.Sprint(mistakes), "must not stand twice") {
		t.Error(mistakes)
	}
}

func TestLimits(t *testing.T) {
	if _, mistakes := Parse(append([]byte(good), bytes.Repeat([]byte("#"), MaxSize)...)); len(mistakes) != 1 {
		t.Error("a file over the limit was taken")
	}
	text := good
	for i := range maxInterfaces {
		text += fmt.Sprintf("interface: eth%d if%d 10.%d.0.1/24\n", i+2, i+2, i)
	}
	if _, mistakes := Parse([]byte(text)); !strings.Contains(fmt.Sprint(mistakes), "more than 16 times") {
		t.Error(mistakes)
	}
}

// typist answers from a list; what it was asked is in screen.
type typist struct {
	bytes.Buffer
	lines   []string
	secrets int
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
	k.secrets++
	k.WriteString(prompt)
	return k.ReadLine()
}

func typed(text string) *typist { return &typist{lines: strings.Split(text, "\n")} }

const answered = `edge-a
a.example
eth0 inside 192.168.10.1/24
eth1 outside 209.165.200.225/27

209.165.200.254
192.168.10.53
none
Europe/Vienna
admin
Correct-Horse-7
Correct-Horse-7
Battery_Staple_9
Battery_Staple_9

yes`

func TestDialogue(t *testing.T) {
	k := typed(answered)
	text, err := Ask(k, nil)
	if err != nil {
		t.Fatal(err, k.String())
	}
	a, mistakes := Parse([]byte(text))
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	if a.HostName != "edge-a" || len(a.Interfaces) != 2 || a.TimeZone != "Europe/Vienna" || a.AdministratorPassword.hash == "" || a.NTP != nil {
		t.Errorf("%+v", a)
	}
	if s := k.String() + text; strings.Contains(s, "Correct-Horse") || strings.Contains(s, "Battery") {
		t.Error("a password is shown or written")
	}
	if k.secrets != 4 {
		t.Errorf("%d passwords were read without showing them, must be 4", k.secrets)
	}
}

func TestDialogueBackHelpAndMistakes(t *testing.T) {
	k := typed("help\nwrong\nback\n-no\nfirst\nback\n" + strings.Replace(answered, "Correct-Horse-7\nCorrect-Horse-7", "short\nshort\nCorrect-Horse-7\nother-Horse-7\nCorrect-Horse-7\nCorrect-Horse-7", 1))
	text, err := Ask(k, nil)
	if err != nil {
		t.Fatal(err, k.String())
	}
	if !strings.HasPrefix(text, "host-name: edge-a\n") {
		t.Error(text)
	}
	for _, want := range []string{"without its domain", "must have up to 63", "% The two are not the same.", "must have 8 to 72"} {
		if !strings.Contains(k.String(), want) {
			t.Errorf("the dialogue never says %q:\n%s", want, k)
		}
	}
	k = typed(strings.Replace(answered, "\n\nyes", "\nEnterprise A\nVoice\nback\nVoice\nVienna\nVienna\nat\nAT\nno\n"+answered, 1))
	if text, err = Ask(k, nil); err != nil || strings.Contains(text, "organization") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := Ask(typed("edge-a\nskip"), nil); !errors.Is(err, ErrSkipped) {
		t.Error(err)
	}
	if _, err := Ask(typed("edge-a"), nil); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// on gives a network whose checks find, one after the other, the problems of a list; what is logged is in log.
func on(log *[]string, found ...string) *Network {
	return &Network{
		Log: func(text string) { *log = append(*log, text) },
		Check: func(netcheck.Plan) (all []netcheck.Problem, err error) {
			if len(found) == 0 {
				return nil, nil
			}
			now := found[0]
			found = found[1:]
			switch now {
			case "":
				return nil, nil
			case "error":
				return nil, errors.New("no sockets")
			}
			return []netcheck.Problem{{Kind: netcheck.Gateway, Text: now}}, nil
		},
	}
}

func TestNetworkIsTriedInTheDialogue(t *testing.T) {
	lines := strings.Split(answered, "\n")
	cards, rest := strings.Join(lines[2:5], "\n")+"\n", strings.Join(lines[5:], "\n")
	first := strings.Join(lines[:2], "\n") + "\n" + cards
	var log []string
	// The gateway is silent: retried, then ignored, and not told of again; the name server cannot be tried at all.
	k := typed(first + lines[5] + "\nwhat\nhelp\nretry\nignore\n" + lines[6] + "\nignore\n" + strings.Join(lines[7:], "\n"))
	text, err := Ask(k, on(&log, "", "silent", "silent: refused", "error", "silent: no answer"))
	if err != nil || !strings.HasPrefix(text, "host-name: edge-a\n") {
		t.Fatal(err, k.String())
	}
	if got := strings.Join(log, ";"); got != "network: silent;network: retry was chosen;network: silent: refused;network: ignore was chosen;network: the network cannot be tried: no sockets;network: ignore was chosen" {
		t.Errorf("the log: %s", got)
	}
	if !strings.Contains(k.String(), "% silent: refused\nretry, review, halt or ignore: ") || !strings.Contains(k.String(), "review goes back") {
		t.Errorf("the screen:\n%s", k)
	}
	// Review leads back to the cards, and what was answered before them stays.
	k = typed(first + "review\n" + cards + rest)
	if text, err := Ask(k, on(&log, "silent")); err != nil || strings.Count(text, "interface:") != 2 {
		t.Errorf("after review: %v\n%s\n%s", err, text, k)
	}
	if _, err := Ask(typed(first+"halt"), on(&log, "silent")); !errors.Is(err, ErrHalted) {
		t.Errorf("halt: %v", err)
	}
	if _, err := Ask(typed(first), on(&log, "silent")); !errors.Is(err, io.EOF) {
		t.Errorf("a terminal that goes away: %v", err)
	}
}

func TestPlan(t *testing.T) {
	a, mistakes := Parse([]byte(strings.Replace(good, "interface: eth0 inside 192.168.10.1/24\n", "", 1) + "interface: eth0 inside 192.168.10.1/24\n"))
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	p := a.Plan()
	if p.Name != "edge-a.a.example" || len(p.Cards) != 2 || p.Cards[0].Device != "eth0" || p.Cards[1].MTU != 1400 || p.Gateway != a.Gateway || len(p.DNS) != 2 || len(p.NTP) != 2 {
		t.Errorf("%+v", p)
	}
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"interface: eth0 inside 192.168.10.0/24":          "f:1:24: error: interface must be",
		"interface: eth0 in!side 192.168.10.1/24":         "f:1:17: error: interface must be",
		"interface: ETH0 inside 192.168.10.1/24":          "f:1:12: error: interface must be",
		"interface: eth0":                                 "f:1:12: error: interface must be",
		"interface: eth0 inside 192.168.10.1/24 mtu 9":    "f:1:44: error: interface must have an MTU",
		"interface: eth0 inside 192.168.10.1/24 size 900": "f:1:40: error: interface must be",
		"interface: eth0 inside 192.168.10.1/24 mtu":      "f:1:40: error: interface must be",
		"  gateway :  192.0.2.x":                          "f:1:14: error: gateway must be",
		"\tdns: 192.0.2.1\thost":                          "f:1:17: error: dns must be the IPv4 address of a host\n\tdns: 192.0.2.1\thost\n\t              \t^",
		"location: Wïen!":                                 "f:1:11: error: location must have",
		"ntp: a.b c.d e.f g.h i.j k.l":                    "f:1:26: error: ntp must be one to five",
		"adminstrator-password: Correct-Horse-7":          "f:1:1: error: \"adminstrator-password\" is no key\nadminstrator-password: *****\n^",
		"Correct-Horse-7":                                 "f:1:1: error: a line is a key, a colon and its value",
		"security-password: Horse\x1b[2J":                 "f:1:20: error: security-password must have",
		"location: a\x1b[2J":                              "location: a?[2J\n",
	} {
		_, mistakes := Parse([]byte(text))
		if len(mistakes) == 0 || !strings.Contains(mistakes[0].In("f"), want) {
			t.Errorf("%q: %v, wanted %q", text, mistakes, want)
			continue
		}
		if strings.Contains(mistakes[0].In("f"), "Horse") {
			t.Errorf("%q: a password is shown: %s", text, mistakes[0].In("f"))
		}
	}
	_, mistakes := Parse([]byte(strings.Replace(good, "209.165.200.254", "10.0.0.1", 1)))
	if len(mistakes) != 1 || mistakes[0].In("f") != "f:7:10: error: gateway 10.0.0.1 is in no network of an interface\ngateway: 10.0.0.1\n         ^" {
		t.Errorf("%v", mistakes)
	}
	if m := (Mistake{Text: "dns is missing"}); m.In("f") != "f: error: dns is missing" {
		t.Error(m.In("f"))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("interface: eth0 inside 0.0.0.1/1 mtu 576\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, mistakes := Parse(data)
		if (a == nil) != (len(mistakes) > 0) {
			t.Fatal("answers with mistakes, or neither")
		}
		for _, m := range mistakes {
			text := m.In("file")
			lines := strings.Split(text, "\n")
			if !utf8.ValidString(text) && utf8.Valid(data) || len(lines) > 3 || len(lines) == 3 && utf8.RuneCountInString(lines[2]) > utf8.RuneCountInString(lines[1])+1 {
				t.Errorf("%q", text)
			}
		}
		if a == nil || a.AdministratorPassword.plain != "" || a.SecurityPassword.plain != "" { // hashing takes its time
			return
		}
		if text, err := a.Config(); err == nil {
			if _, diags := config.Load("fuzz", []byte(text)); diags.HasErrors() {
				t.Error(diags)
			}
		}
	})
}
