package config

import (
	"strings"
	"testing"
)

func TestSubjectName(t *testing.T) {
	for in, want := range map[string]string{
		"cn=a.example":                                  "cn=a.example",
		"CN = a.example , O=Example":                    "cn=a.example, o=Example",
		`cn=Ent-local-domain-name**., o="Example Corp"`: `cn=Ent-local-domain-name**., o="Example Corp"`,
		"cn=a, o=“Example Corp”":                        `cn=a, o="Example Corp"`,
		"cn=a, o=‘Example Corp’":                        `cn=a, o="Example Corp"`,
		"cn=a; o='Example, Inc.'":                       `cn=a, o="Example, Inc."`,
		"“cn=a, o=b”":                                   "cn=a, o=b",
		"o=Example Corp":                                `o="Example Corp"`,
		`o=Example\, Inc.`:                              `o="Example, Inc."`,
		`o="a\"b\\c"`:                                   `o="a\"b\\c"`,
		`o=O'Brien`:                                     `o="O'Brien"`,
		`o=\41\c3\a9`:                                   `o="Aé"`,
		`o=a\ , cn=b`:                                   `o="a ", cn=b`,
		"e=x@y.example, emailaddress=z@y.example":       "ea=x@y.example, ea=z@y.example",
		"c=us, sp=CA, l=x, ou=y, dc=z, serialnumber=1":  "c=us, st=CA, l=x, ou=y, dc=z, serialnumber=1",
	} {
		got, err := subjectName(in)
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", in, got, err, want)
			continue
		}
		if again, err := subjectName(got); err != nil || again != got {
			t.Errorf("%s changes to %s, %v", got, again, err)
		}
	}
	for in, want := range map[string]string{
		"":                                     "ATTRIBUTE=VALUE is expected",
		"a.example":                            "ATTRIBUTE=VALUE is expected",
		"cn=a,":                                "ATTRIBUTE=VALUE is expected",
		"xx=a":                                 "is no attribute",
		"cn=":                                  "cn has 1 to 64 characters",
		"cn=" + strings.Repeat("x", 65):        "cn has 1 to 64 characters",
		"c=U1":                                 "country of two letters",
		`cn="a`:                                "closing quotation mark is missing",
		`cn="a"b`:                              "a comma is expected",
		`cn=a"b`:                               "a quotation mark inside",
		`cn=a\`:                                "a backslash at the end",
		`cn=\ff`:                               "not allowed there",
		`cn=\00`:                               "not allowed there",
		"dc=é":                                 "not allowed there",
		"cn=a, o=" + strings.Repeat("x", 1100): "at most 1024",
	} {
		if got, err := subjectName(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %s, %v; want %s", in, got, err, want)
		}
	}
}
