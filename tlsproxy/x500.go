package tlsproxy

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxX500 bounds the text of a name; an attribute's own bound (RFC 5280 appendix A.1) is in x500Attributes.
const maxX500 = 1024

type x500Attribute struct {
	oid asn1.ObjectIdentifier
	max int
	ia5 bool
}

// x500Attributes holds the keywords of an ASA (EA for the e-mail address) and of RFC 4514.
var x500Attributes = map[string]x500Attribute{
	"cn":           {oid: asn1.ObjectIdentifier{2, 5, 4, 3}, max: 64},
	"sn":           {oid: asn1.ObjectIdentifier{2, 5, 4, 4}, max: 64},
	"serialnumber": {oid: asn1.ObjectIdentifier{2, 5, 4, 5}, max: 64},
	"c":            {oid: asn1.ObjectIdentifier{2, 5, 4, 6}, max: 2},
	"l":            {oid: asn1.ObjectIdentifier{2, 5, 4, 7}, max: 128},
	"st":           {oid: asn1.ObjectIdentifier{2, 5, 4, 8}, max: 128},
	"street":       {oid: asn1.ObjectIdentifier{2, 5, 4, 9}, max: 128},
	"o":            {oid: asn1.ObjectIdentifier{2, 5, 4, 10}, max: 64},
	"ou":           {oid: asn1.ObjectIdentifier{2, 5, 4, 11}, max: 64},
	"t":            {oid: asn1.ObjectIdentifier{2, 5, 4, 12}, max: 64},
	"postalcode":   {oid: asn1.ObjectIdentifier{2, 5, 4, 17}, max: 40},
	"gn":           {oid: asn1.ObjectIdentifier{2, 5, 4, 42}, max: 64},
	"dc":           {oid: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, max: 63, ia5: true},
	"uid":          {oid: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, max: 256},
	"ea":           {oid: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, max: 255, ia5: true},
}

var x500Aliases = map[string]string{
	"sp": "st", "s": "st", "title": "t", "givenname": "gn", "surname": "sn",
	"email": "ea", "e": "ea", "emailaddress": "ea", "serial": "serialnumber",
}

// quotes maps an opening quotation mark to its closing one; the typographic ones come with text copied out of a document.
var quotes = map[rune]rune{'"': '"', '\'': '\'', '“': '”', '”': '”', '‘': '’', '’': '’'}

// ParseSubject reads an X.500 name as the configuration has it, for instance cn=example.com, o="Example Corp": attributes
// divided by commas or semicolons, keywords in any case, values in quotation marks of either kind where they hold a divider, and backslash
// escapes (RFC 4514 section 2.4). It returns the DER form (first attribute written = last in the DER sequence, as RFC 4514 orders them) and the common name.
// Errors wrap [ErrMalformed] and say where.
func ParseSubject(text string) (der []byte, commonName string, err error) {
	if len(text) > maxX500 {
		return nil, "", fmt.Errorf("%w: X.500 name longer than %d characters", ErrMalformed, maxX500)
	}
	if !utf8.ValidString(text) {
		return nil, "", fmt.Errorf("%w: X.500 name is not valid UTF-8", ErrMalformed)
	}
	p := x500Parser{in: []rune(text)}
	var names pkix.RDNSequence
	for {
		attr, value, err := p.attribute()
		if err != nil {
			return nil, "", err
		}
		if attr.oid.Equal(x500Attributes["cn"].oid) && commonName == "" {
			commonName = value
		}
		var v any = value
		if attr.ia5 {
			v = asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(value)}
		}
		names = append(pkix.RDNSequence{{{Type: attr.oid, Value: v}}}, names...)
		if p.at >= len(p.in) {
			break
		}
		p.at++ // the divider
	}
	if der, err = asn1.Marshal(names); err != nil {
		return nil, "", fmt.Errorf("%w: X.500 name: %w", ErrMalformed, err)
	}
	return der, commonName, nil
}

type x500Parser struct {
	in []rune
	at int
}

func (p *x500Parser) fail(format string, args ...any) error {
	return fmt.Errorf("%w: X.500 name, character %d: %s", ErrMalformed, p.at+1, fmt.Sprintf(format, args...))
}

func (p *x500Parser) spaces() {
	for p.at < len(p.in) && (p.in[p.at] == ' ' || p.in[p.at] == '\t') {
		p.at++
	}
}

// attribute reads one keyword=value and stops at the divider or the end.
func (p *x500Parser) attribute() (x500Attribute, string, error) {
	p.spaces()
	start := p.at
	for p.at < len(p.in) && !strings.ContainsRune("=,;", p.in[p.at]) {
		p.at++
	}
	keyword := strings.ToLower(strings.TrimSpace(string(p.in[start:p.at])))
	if p.at >= len(p.in) || p.in[p.at] != '=' {
		p.at = start
		return x500Attribute{}, "", p.fail("KEYWORD=VALUE is due, as in cn=example.com")
	}
	if alias, ok := x500Aliases[keyword]; ok {
		keyword = alias
	}
	attr, ok := x500Attributes[keyword]
	if !ok {
		p.at = start
		return x500Attribute{}, "", p.fail("unknown attribute %q; cn, o, ou, c, st, l, street, serialnumber, dc, ea are known among others", keyword)
	}
	p.at++
	value, err := p.value()
	if err != nil {
		return x500Attribute{}, "", err
	}
	return attr, value, p.checkValue(keyword, attr, value)
}

func (p *x500Parser) checkValue(keyword string, attr x500Attribute, value string) error {
	switch n := utf8.RuneCountInString(value); {
	case n == 0:
		return p.fail("%s has no value", keyword)
	case n > attr.max:
		return p.fail("%s is longer than %d characters", keyword, attr.max)
	case keyword == "c" && n != 2:
		return p.fail("c takes a country code of two letters")
	case keyword == "c" && strings.Trim(strings.ToUpper(value), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		return p.fail("c takes a country code of two letters")
	case !utf8.ValidString(value):
		return p.fail("%s is not valid UTF-8", keyword)
	}
	for _, r := range value {
		if r < 0x20 || r == 0x7f || attr.ia5 && r > 0x7e {
			return p.fail("%s holds a character that is not allowed there", keyword)
		}
	}
	return nil
}

func (p *x500Parser) value() (string, error) {
	p.spaces()
	var out []byte
	if p.at < len(p.in) && quotes[p.in[p.at]] != 0 {
		opened, closing := p.at, quotes[p.in[p.at]]
		for p.at++; ; {
			if p.at >= len(p.in) {
				p.at = opened
				return "", p.fail("the quotation mark is not closed")
			}
			if p.in[p.at] == closing {
				p.at++
				break
			}
			var err error
			if out, err = p.char(out); err != nil {
				return "", err
			}
		}
		if p.spaces(); p.at < len(p.in) && !strings.ContainsRune(",;", p.in[p.at]) {
			return "", p.fail("a comma is due after the closing quotation mark")
		}
		return string(out), nil
	}
	kept := 0 // an escaped space at the end belongs to the value, a plain one does not
	for p.at < len(p.in) && !strings.ContainsRune(",;", p.in[p.at]) {
		plainSpace := p.in[p.at] == ' ' || p.in[p.at] == '\t'
		if p.in[p.at] == '"' {
			return "", p.fail("a quotation mark inside a value needs a backslash before it")
		}
		var err error
		if out, err = p.char(out); err != nil {
			return "", err
		}
		if !plainSpace {
			kept = len(out)
		}
	}
	return string(out[:kept]), nil
}

// char appends one character, or what a backslash stands for: the character after it, or a byte in two hexadecimal digits.
func (p *x500Parser) char(out []byte) ([]byte, error) {
	r := p.in[p.at]
	if r != '\\' {
		p.at++
		return utf8.AppendRune(out, r), nil
	}
	if p.at+1 >= len(p.in) {
		return nil, p.fail("a backslash at the end escapes nothing")
	}
	if p.at+2 < len(p.in) {
		if b, err := hex.DecodeString(string(p.in[p.at+1 : p.at+3])); err == nil {
			p.at += 3
			return append(out, b...), nil
		}
	}
	if next := p.in[p.at+1]; !strings.ContainsRune(` ",;+<>=#\'`, next) {
		return nil, p.fail("\\%c is no escape; two hexadecimal digits or one of \" , ; + < > = # \\ ' and space may follow a backslash", next)
	}
	out = utf8.AppendRune(out, p.in[p.at+1])
	p.at += 2
	return out, nil
}
