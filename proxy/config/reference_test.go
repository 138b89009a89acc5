package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	reference      = "../../docs/configuration.md"
	referenceBegin = "<!-- made by proxy/config/reference_test.go from the commands that are parsed; go test ./proxy/config -update writes it -->\n"
	referenceEnd   = "<!-- end -->\n"
)

// kindWords says of each kind of argument what it may be.
var kindWords = map[string]string{
	"NAME64":        "a name of up to 64 printable ASCII characters",
	"NAME128":       "a name of up to 128 printable ASCII characters",
	"NAME241":       "a name of up to 241 printable ASCII characters",
	"WORD":          "a word",
	"OBJECT":        "a name of up to 64 printable ASCII characters that does not look like an address, nor `interface`",
	"NAMEIF":        "the name that `nameif` gives to an interface, up to 48 printable ASCII characters, no parentheses or comma",
	"LOGIN":         "up to 32 letters, digits, `.`, `_` and `-`",
	"LOGINPASSWORD": "8 to 72 printable ASCII characters; with `encrypted` a bcrypt hash",
	"KEY":           "the base64 of a public key, as in a `.pub` file",
	"LINK":          "the name of a Linux interface, up to 15 characters",
	"HOSTNAME":      "up to 63 letters, digits and hyphens",
	"DOMAIN":        "a domain name",
	"ADDRESS":       "an IPv4 address",
	"HOST":          "the IPv4 address of a host",
	"NET":           "the IPv4 address of a network; 0 is 0.0.0.0",
	"MASK":          "a network mask; 0 is 0.0.0.0",
	"MAPPED":        "the IPv4 address of a host, or the name of an object",
	"PAIR":          "two names of interfaces, `(REAL,MAPPED)`",
	"PASSWORD":      "10 to 64 characters of codes 0x21 to 0x7e",
	"FBS":           "the name of a file that ends in `.fbs`",
	"PREFIX":        "the beginning of numbers, + and up to 15 digits; `+` alone is that of all",
	"SYSLOGPORT":    "`udp/` and a port, such as `udp/514`",
	"DSCP":          "`0` to `63`, `default`, `ef`, `af11` to `af43`, `cs0` to `cs7`, or `keep`",
	"PEERHOST":      "the IPv4 address or the name of a host",
	"HTTPSURL":      "a URL of scheme `https`",
	"WEBURL":        "a URL of scheme `https` or `http`",
	"PEMFILE":       "the name of a file that ends in `.pem` or `.txt`",
	"VAPPASSWORD":   "8 to 128 characters of codes 0x21 to 0x7e",
	"MODULUS":       "2048-8192, in steps of 8",
	"PORT":          "1-65535, or a port's name such as `sip`",
	"TLSVERSION":    "`tlsv1.2` or `tlsv1.3`",
	"TEXT":          "text up to the end of the line",
	"LINE":          "text up to the end of the line",
	"X500":          "an X.500 name up to the end of the line, up to 1024 characters",
}

var rangeRE = regexp.MustCompile(`^[0-9]+-[0-9]+$`)

// describeMode writes the commands of a mode with the values that they take.
func describeMode(t *testing.T, m *mode) string {
	t.Helper()
	var lines []string
	values, also := map[string][]string{}, map[string]string{}
	for _, c := range m.all {
		if c.refused || slices.Contains([]string{"exit", "quit", "end"}, c.pattern) {
			continue
		}
		for _, a := range argumentRE.FindAllStringSubmatch(c.pattern, -1) {
			words, known := kindWords[a[2]]
			switch {
			case rangeRE.MatchString(a[2]):
				words = a[2]
			case !known:
				t.Errorf("%s mode: kind %s of %q is not described", m.name, a[2], c.pattern)
			}
			if !strings.HasPrefix(c.pattern, "no ") && !slices.Contains(values[a[1]], words) {
				values[a[1]] = append(values[a[1]], words)
			}
		}
		if strings.Contains(c.pattern, cipherPattern()) {
			values["suite"] = []string{"`" + strings.Join(ciphers, "`, `") + "`; the dots mean several"}
		}
		for _, a := range aliasRE.FindAllStringSubmatch(argumentRE.ReplaceAllString(c.pattern, ""), -1) {
			also[a[1]] = a[2]
		}
		lines = append(lines, usage(c.pattern))
	}
	// A command and its `no` stand together.
	sort.SliceStable(lines, func(i, j int) bool { return strings.TrimPrefix(lines[i], "no ") < strings.TrimPrefix(lines[j], "no ") })
	var b strings.Builder
	fmt.Fprintf(&b, "### Commands of %s mode\n\n```syntax\n%s\n```\n\n", m.name, strings.Join(lines, "\n"))
	for _, name := range sortedKeysOf(values) {
		fmt.Fprintf(&b, "- %s: %s\n", label(name), strings.Join(values[name], "; or "))
	}
	for _, k := range sortedKeysOf(also) {
		fmt.Fprintf(&b, "- `%s`: `%s` is taken for it\n", k, also[k])
	}
	return b.String() + "\n"
}

func sortedKeysOf[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// TestReferenceIsComplete compares the operator's reference with the commands that the parser knows, in all modes.
func TestReferenceIsComplete(t *testing.T) {
	var want strings.Builder
	for _, m := range modes().list() {
		want.WriteString(describeMode(t, m))
	}
	text := read(t, reference)
	before, rest, found := strings.Cut(text, referenceBegin)
	got, after, closed := strings.Cut(rest, referenceEnd)
	if !found || !closed {
		t.Fatal("the reference has no place for the commands")
	}
	if *update {
		if err := os.WriteFile(reference, []byte(before+referenceBegin+"\n"+want.String()+referenceEnd+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff("\n"+want.String(), got); d != "" {
		t.Errorf("%s is not what the parser knows (-parser +text):\n%s", reference, d)
	}
}

// TestReferenceShowsEveryCommand reads the examples of the reference: each command that the parser knows, `no` forms included, stands in
// one of them, the refused ones in those of refused commands.
func TestReferenceShowsEveryCommand(t *testing.T) {
	shown := map[string]bool{}
	parts := strings.Split(read(t, reference), "```")
	for i := 1; i < len(parts); i += 2 {
		if kind, body, _ := strings.Cut(parts[i], "\n"); strings.HasPrefix(kind, "asa") {
			parse("docs", []byte(body), func(m *mode, c command) { shown[m.name+": "+c.pattern] = true })
		}
	}
	for _, m := range modes().list() {
		for _, c := range m.all {
			if c.pattern != "exit" && c.pattern != "quit" && c.pattern != "end" && !shown[m.name+": "+c.pattern] {
				t.Errorf("no example has %q of %s mode", c.pattern, m.name)
			}
		}
	}
}
