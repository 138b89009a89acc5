package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The text with all defaults means the same as the one without, and has settings that nobody made.
func TestAllMeansTheSame(t *testing.T) {
	for _, file := range []string{"testdata/inline.cfg", "testdata/guide.cfg"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, found := Load(file, text)
		if found.HasErrors() {
			t.Fatal(found.Error())
		}
		all := c.print(writer{all: true, reveal: true})
		again, found := Load("all", []byte(all))
		if found.HasErrors() {
			t.Fatalf("%s:\n%s", found.Error(), all)
		}
		if again.All() != c.All() {
			t.Errorf("%s: read again it is\n%s", file, again.All())
		}
		for _, want := range []string{" no shutdown\n", "tls-proxy maximum-sessions 10000\n", " rtp-min-port ", " fallback monitoring timer ", " rtcp\n", "ssh port 2022\n", "ssl server-version tlsv1.", "ssl client-version tlsv1."} {
			if !strings.Contains(c.All(), want) {
				t.Errorf("%s: no %q in\n%s", file, want, c.All())
			}
		}
		if strings.Contains(c.All(), c.UCIME.TicketPassword.Reveal()) {
			t.Error("a secret is shown")
		}
	}
}

// unset are the commands, by mode, that do not stand in `show running-config all` unless somebody has entered them, and why. Every other one must.
var unset = map[string]string{
	"it makes something, of which there may be none": `
configuration: access-group NAME global, access-group, access-list, banner, crypto ca authenticate, crypto ca enroll, crypto ca export NAME identity-certificate,
crypto ca import NAME certificate, crypto key generate ecdsa label, crypto key generate rsa label, logging host, route, service-policy, username NAME password,
username NAME privilege, username NAME publickey
object network: host, range, subnet, nat NAME dynamic, nat NAME static
object-group network: group-object, network-object, network-object host, network-object object
object-group service: group-object, port-object, service-object
media-termination: address
uc-ime: transfer permit, ucm address NAME trunk-security-mode
peer-server: bootstrap host, vapuser NAME password
policy-map class: inspect sip, set dscp`,
	"there is no value unless one is given": `
configuration: hostname, domain-name, enable password
interface: description, ip address
object network: description
object-group network: description
object-group service: description
uc-ime: fallback sensitivity-file, mapping-service listening-interface, quality-report collector, ticket epoch NAME password
peer-server: alert webhook, customer-info, domain, enrollment trust-file, enrollment url, listening-interface, public-address, ticket epoch NAME password
crypto ca trustpoint: enrollment, fqdn, keypair, subject-name
tls-proxy: client trust-point, server trust-point
class-map: match access-list`,
	"none of its words means what holds without it": `
configuration: ssl encryption
media-termination: engine
tls-proxy: client cipher-suite`,
}

// Each command of the reference stands in the text with all defaults, or it is one whose absence is no value.
func TestAllHasEveryDefault(t *testing.T) {
	absent := map[string]bool{}
	for _, list := range unset {
		mode := ""
		for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == '\n' || r == ',' }) {
			if before, after, ok := strings.Cut(name, ": "); ok {
				mode, name = before, after
			}
			absent[mode+": "+strings.TrimSpace(name)] = true
		}
	}
	c, found := Parse("all", []byte(`interface e
 nameif inside
object network o
object-group network g
object-group service s
media-termination m
uc-ime u
peer-server
 vapserver v interface inside port 5620 authentication-mode authenticated
crypto ca trustpoint t
tls-proxy p
class-map k
policy-map q
 class k
`))
	if found.HasErrors() {
		t.Fatal(found)
	}
	begins := func(line, words string) bool {
		return regexp.MustCompile(`^ *(no )?` + strings.ReplaceAll(regexp.QuoteMeta(words), "NAME", "[^ ]+") + `( |$)`).MatchString(line)
	}
	lines := strings.Split(c.All(), "\n")
	has := func(words string) bool {
		return slices.ContainsFunc(lines, func(line string) bool {
			// The name of a list stands where these commands have a word of theirs.
			return begins(line, words) && !(words == "access-list" && (begins(line, "access-list "+flowNames[0]) || begins(line, "access-list "+flowNames[1])))
		})
	}
	known := map[string]bool{}
	for _, m := range modes().list() {
		for _, cmd := range m.all {
			if cmd.refused || strings.HasPrefix(cmd.pattern, "no ") || slices.Contains([]string{"exit", "quit", "end"}, cmd.pattern) {
				continue
			}
			words := aliasRE.ReplaceAllString(argumentRE.ReplaceAllString(cmd.pattern, "NAME"), "$1")
			if at := strings.IndexAny(words, "{["); at >= 0 {
				words = words[:at]
			}
			words = strings.TrimRight(words, "NAME ")
			name := m.name + ": " + words
			known[name] = true
			if has(words) == absent[name] {
				t.Errorf("%s: in the text of all defaults: %t, listed as without a value: %t", name, has(words), absent[name])
			}
		}
	}
	for name := range absent {
		if !known[name] {
			t.Errorf("%s is no command", name)
		}
	}
}
