package sipalg

import (
	"errors"
	"net/netip"
	"strings"
)

// ErrMalformedVia is what ParseVia returns.
var ErrMalformedVia = errors.New("malformed Via")

// Via is one Via element (RFC 3261 20.42).
type Via struct {
	// Transport is spelt as written.
	Transport string
	// Host is a name, an IPv4 address or a bracketed IPv6 address.
	Host string
	// Port is 0 when none was written.
	Port int
	// Branch is the value of the parameter; it is written from Params.
	Branch string
	Params []Param

	portText string
}

// ParseVia reads one element. White space around "/", ":", ";" and "=" is legal
// and not kept.
func ParseVia(s string) (Via, error) { return parseVia(s, nil) }

// parseVia is ParseVia with room for the parameters.
func parseVia(s string, room []Param) (Via, error) {
	name, rest, ok1 := cutSlash(s)
	version, rest, ok2 := cutSlash(rest)
	if !ok1 || !ok2 || !strings.EqualFold(name, "SIP") || version != "2.0" {
		return Via{}, ErrMalformedVia
	}
	end := blank.index(rest)
	if end < 0 || !isToken(rest[:end]) {
		return Via{}, ErrMalformedVia
	}
	v := Via{Transport: rest[:end]}
	rest = trim(rest[end:])
	sentBy := rest
	if i := strings.IndexByte(rest, ';'); i >= 0 {
		sentBy, rest = trim(rest[:i]), rest[i:]
	} else {
		rest = ""
	}
	if blank.index(sentBy) >= 0 { // "host : 5060"
		sentBy = strings.Join(strings.Fields(sentBy), " ")
		sentBy = strings.ReplaceAll(strings.ReplaceAll(sentBy, " :", ":"), ": ", ":")
	}
	var ok bool
	if v.Host, v.portText, v.Port, ok = splitHostPort(sentBy); !ok {
		return Via{}, ErrMalformedVia
	}
	if rest != "" {
		if v.Params = room; strings.Count(rest, ";") > cap(room) {
			v.Params = make([]Param, 0, strings.Count(rest, ";"))
		}
	}
	for {
		p, r, ok := cutParam(rest)
		if !ok {
			break
		}
		v.Params = append(v.Params, Param{p.name, p.value, p.hasValue})
		if v.Branch == "" && strings.EqualFold(p.name, "branch") {
			v.Branch = p.value
		}
		rest = r
	}
	if trim(rest) != "" {
		return Via{}, ErrMalformedVia
	}
	return v, nil
}

func cutSlash(s string) (before, after string, ok bool) {
	i := strings.IndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return trim(s[:i]), trim(s[i+1:]), true
}

// Addr returns the host as an address, if it is one.
func (v *Via) Addr() (netip.Addr, bool) { return hostAddr(v.Host) }

// Param returns the value of a parameter, without regard to case.
func (v *Via) Param(name string) (string, bool) {
	for _, p := range v.Params {
		if strings.EqualFold(p.Name, name) {
			return p.Value, true
		}
	}
	return "", false
}

// SetParam gives a parameter a value, adding it at the end where it is absent.
func (v *Via) SetParam(name, value string) {
	for i := range v.Params {
		if strings.EqualFold(v.Params[i].Name, name) {
			v.Params[i].Value, v.Params[i].HasValue = value, true
			return
		}
	}
	v.Params = append(v.Params, Param{name, value, true})
}

// String writes the element. A Via made by hand needs no branch in Params: Branch
// is added.
func (v *Via) String() string { return string(v.append(make([]byte, 0, 128))) }

func (v *Via) append(b []byte) []byte {
	b = append(append(append(b, "SIP/2.0/"...), v.Transport...), ' ')
	b = appendParams(appendHostPort(b, v.Host, v.portText, v.Port), v.Params)
	if _, ok := v.Param("branch"); !ok && v.Branch != "" {
		b = append(append(b, ";branch="...), v.Branch...)
	}
	return b
}
