package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// attributes are the types of a subject name with the length of their values (RFC 5280 appendix A.1).
var attributes = map[string]int{
	"cn": 64, "ou": 64, "o": 64, "c": 2, "st": 128, "l": 128, "street": 128, "postalcode": 40, "dc": 63, "ea": 255,
	"serialnumber": 64, "sn": 64, "gn": 64, "t": 64, "uid": 255,
}

var attributeSpellings = map[string]string{
	"sp": "st", "s": "st", "e": "ea", "email": "ea", "emailaddress": "ea", "serial": "serialnumber", "ser": "serialnumber",
	"title": "t", "givenname": "gn", "surname": "sn",
}

const maxX500 = 1024

var plainValue = regexp.MustCompile(`^[A-Za-z0-9.*@:/_()-]+$`)

// rdn is one part of a subject name.
type rdn struct{ attribute, value string }

// subjectName gives the one spelling of an X.500 name such as cn=example.com, o="Example Corp".
func subjectName(s string) (string, error) {
	parts, err := parseX500(s)
	if err != nil {
		return "", err
	}
	var out []string
	for _, p := range parts {
		v := p.value
		if !plainValue.MatchString(v) {
			v = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
		}
		out = append(out, p.attribute+"="+v)
	}
	return strings.Join(out, ", "), nil
}

func parseX500(s string) ([]rdn, error) {
	rest := strings.TrimSpace(plainQuotes(s))
	if len(rest) > maxX500 {
		return nil, fmt.Errorf("at most %d characters are allowed", maxX500)
	}
	// A whole name in quotation marks is the name.
	if inner := unquote(rest); inner != rest && strings.Contains(inner, "=") {
		rest = inner
	}
	var out []rdn
	for {
		attribute, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, errors.New("ATTRIBUTE=VALUE is expected, such as cn=enterprise-a.example")
		}
		name := strings.ToLower(strings.TrimSpace(attribute))
		if one, ok := attributeSpellings[name]; ok {
			name = one
		}
		if _, known := attributes[name]; !known {
			return nil, fmt.Errorf("%q is no attribute: expected cn, ou, o, c, st, l, dc, ea or serialnumber", strings.TrimSpace(attribute))
		}
		value, next, err := x500Value(after)
		if err != nil {
			return nil, err
		}
		if err := checkValue(name, value); err != nil {
			return nil, err
		}
		out = append(out, rdn{name, value})
		if next == "" {
			return out, nil
		}
		rest = next[1:]
	}
}

func checkValue(name, value string) error {
	if n := utf8.RuneCountInString(value); n < 1 || n > attributes[name] {
		return fmt.Errorf("%s has 1 to %d characters", name, attributes[name])
	}
	if name == "c" && (len(value) != 2 || strings.Trim(strings.ToUpper(value), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
		return errors.New("c is a country of two letters, such as US")
	}
	for i, r := range value {
		if what := unwanted(value[i:], r); what != "" || r == '\t' || ((name == "dc" || name == "ea") && r > 0x7e) {
			return fmt.Errorf("%s holds a character that is not allowed there", name)
		}
	}
	return nil
}

// x500Value reads one value; next begins with the comma behind it or is empty. A backslash stands before a character that has a
// meaning, or before a byte in two hexadecimal digits (RFC 4514 section 2.4).
func x500Value(s string) (value, next string, err error) {
	s = strings.TrimLeft(s, " \t")
	mark := byte(0)
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		mark, s = s[0], s[1:]
	}
	var b strings.Builder
	kept := 0 // an escaped blank at the end belongs to the value, a plain one does not
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			n, raw := unescape(s[i+1:])
			if n == 0 {
				return "", "", errors.New("a backslash at the end escapes nothing")
			}
			b.WriteString(raw)
			i += n
			kept = b.Len()
			continue
		case mark != 0 && c == mark:
			after := strings.TrimLeft(s[i+1:], " \t")
			if after != "" && after[0] != ',' && after[0] != ';' {
				return "", "", errors.New("a comma is expected behind the closing quotation mark")
			}
			return b.String(), after, nil
		case mark == 0 && (c == ',' || c == ';'):
			return b.String()[:kept], s[i:], nil
		case mark == 0 && c == '"':
			return "", "", errors.New("a quotation mark inside a value is written \\\"")
		}
		b.WriteByte(c)
		if c != ' ' && c != '\t' {
			kept = b.Len()
		}
	}
	if mark != 0 {
		return "", "", errors.New("the closing quotation mark is missing")
	}
	return b.String()[:kept], "", nil
}

// unescape reads what stands behind a backslash: n bytes that mean raw.
func unescape(s string) (n int, raw string) {
	if s == "" {
		return 0, ""
	}
	if len(s) >= 2 {
		if b, err := hex.DecodeString(s[:2]); err == nil {
			return 2, string(b)
		}
	}
	_, n = utf8.DecodeRuneInString(s)
	return n, s[:n]
}
