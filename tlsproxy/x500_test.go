package tlsproxy

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
)

func TestParseSubject(t *testing.T) {
	tests := []struct{ in, want, cn string }{
		{"cn=Ent-local-domain-name**", "CN=Ent-local-domain-name**", "Ent-local-domain-name**"},
		{`cn=Ent-local-domain-name**., o="Example Corp"`, "CN=Ent-local-domain-name**.,O=Example Corp", "Ent-local-domain-name**."},
		{"CN=a.example,OU=x,O=y,C=DE", "CN=a.example,OU=x,O=y,C=DE", "a.example"},
		{"cn = a.example ; o = y ", "CN=a.example,O=y", "a.example"},
		{"o='Smith, Jones', cn=b", `O=Smith\, Jones,CN=b`, "b"},
		{"o=“Example Corp”,cn=b", "O=Example Corp,CN=b", "b"},
		{"o=O'Brien & Söhne", "O=O'Brien & Söhne", ""},
		{`o=a\, b\=c,cn=\41B`, `O=a\, b=c,CN=AB`, "AB"},
		{`cn=x\ `, `CN=x\ `, "x "},
		{`cn="a \"quoted\" word"`, `CN=a \"quoted\" word`, `a "quoted" word`},
		{"cn=a,dc=corp,dc=example", "CN=a,0.9.2342.19200300.100.1.25=#1604636f7270,0.9.2342.19200300.100.1.25=#16076578616d706c65", "a"},
	}
	for _, tt := range tests {
		der, cn, err := ParseSubject(tt.in)
		if err != nil {
			t.Errorf("ParseSubject(%q): %v", tt.in, err)
			continue
		}
		var seq pkix.RDNSequence
		if _, err := asn1.Unmarshal(der, &seq); err != nil {
			t.Errorf("ParseSubject(%q): %v", tt.in, err)
		}
		if got := seq.String(); got != tt.want && !strings.HasPrefix(tt.in, "cn=a,dc") || cn != tt.cn {
			t.Errorf("ParseSubject(%q) = %q, cn %q; want %q, cn %q", tt.in, got, cn, tt.want, tt.cn)
		}
	}
}

func TestParseSubjectErrors(t *testing.T) {
	tests := []struct{ in, text string }{
		{"", "character 1"},
		{"a.example", "KEYWORD=VALUE"},
		{"cn=a,", "character 6"},
		{"cn=a,,o=b", "KEYWORD=VALUE"},
		{"xx=a", `unknown attribute "xx"`},
		{"cn=", "no value"},
		{`cn=""`, "no value"},
		{`cn="a`, "not closed"},
		{`cn="a'`, "not closed"},
		{`cn="a" b`, "comma is due"},
		{`cn=a"b`, "needs a backslash"},
		{`cn=a\`, "escapes nothing"},
		{`cn=a\zb`, `\z is no escape`},
		{`cn=\ff`, "not valid UTF-8"},
		{`cn=\00`, "not allowed"},
		{"c=DEU", "longer than 2"},
		{"c=D", "two letters"},
		{"c=12", "two letters"},
		{"ea=ü@a.example", "not allowed"},
		{"cn=" + strings.Repeat("x", 65), "longer than 64"},
		{"o=" + strings.Repeat("x", 1030), "1024"},
		{"cn=\xff", "UTF-8"},
	}
	for _, tt := range tests {
		if _, _, err := ParseSubject(tt.in); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("ParseSubject(%q) = %v, want %q", tt.in, err, tt.text)
		}
	}
}
