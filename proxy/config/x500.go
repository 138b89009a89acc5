package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// attributes are the types of a subject name and their one spelling.
var attributes = map[string]string{
	"cn": "cn", "ou": "ou", "o": "o", "c": "c", "st": "st", "sp": "st", "l": "l", "dc": "dc",
	"ea": "ea", "e": "ea", "emailaddress": "ea", "serialnumber": "serialnumber", "ser": "serialnumber",
}

var plainValue = regexp.MustCompile(`^[A-Za-z0-9.*@:/_'()-]+$`)

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
	// A whole name in quotation marks is the name.
	if inner := unquote(rest); inner != rest && strings.Contains(inner, "=") {
		rest = inner
	}
	var out []rdn
	for {
		attribute, after, ok := strings.Cut(rest, "=")
		name, known := attributes[strings.ToLower(strings.TrimSpace(attribute))]
		if !ok {
			return nil, errors.New("ATTRIBUTE=VALUE is expected, such as cn=enterprise-a.example")
		}
		if !known {
			return nil, fmt.Errorf("%q is no attribute: expected cn, ou, o, c, st, l, dc, ea or serialnumber", strings.TrimSpace(attribute))
		}
		value, next, err := x500Value(after)
		if err != nil {
			return nil, err
		}
		if value == "" || utf8.RuneCountInString(value) > 128 {
			return nil, fmt.Errorf("%s has 1 to 128 characters", name)
		}
		if name == "c" && (len(value) != 2 || strings.Trim(strings.ToUpper(value), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
			return nil, errors.New("c is a country of two letters, such as US")
		}
		out = append(out, rdn{name, value})
		if len(out) > 32 {
			return nil, errors.New("at most 32 attributes are allowed")
		}
		if next == "" {
			return out, nil
		}
		rest = next[1:]
	}
}

// x500Value reads one value; next begins with the comma behind it or is empty.
func x500Value(s string) (value, next string, err error) {
	s = strings.TrimLeft(s, " \t")
	quoted := strings.HasPrefix(s, `"`)
	var b strings.Builder
	i := 0
	if quoted {
		i = 1
	}
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '"':
			after := strings.TrimLeft(s[i+1:], " \t")
			if after != "" && after[0] != ',' {
				return "", "", errors.New("a comma is expected behind the closing quotation mark")
			}
			return b.String(), after, nil
		case !quoted && c == ',':
			return strings.TrimRight(b.String(), " \t"), s[i:], nil
		case !quoted && c == '"':
			return "", "", errors.New("a quotation mark inside a value is written \\\"")
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errors.New("the closing quotation mark is missing")
	}
	return strings.TrimRight(b.String(), " \t"), "", nil
}
