package sipalg

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// ErrMalformedURI is wrapped by what ParseURI returns.
var ErrMalformedURI = errors.New("malformed URI")

// ErrControlCharacter says that a URI holds a control character, plain or as
// %00 to %1f or %7f. It is an ErrMalformedURI too.
var ErrControlCharacter error = controlError{}

type controlError struct{}

func (controlError) Error() string        { return "control character in URI" }
func (controlError) Is(target error) bool { return target == ErrMalformedURI }

// Param is a parameter of a URI or a Via.
type Param struct {
	Name, Value string
	// HasValue tells ";name=" and ";name=x" from ";name".
	HasValue bool
}

// URI is a SIP or SIPS URI (RFC 3261 19.1), or any other URI with its part after
// the scheme in Opaque. String gives back the parsed text but for what was
// changed.
type URI struct {
	// Scheme is spelt as written.
	Scheme string
	// User is all before the "@", password included, still escaped; HasUser
	// tells "sip:@h" from "sip:h".
	User    string
	HasUser bool
	// Host is a name, an IPv4 address or a bracketed IPv6 address.
	Host string
	// Port is 0 when none was written.
	Port   int
	Params []Param
	// Headers is what follows the question mark, still escaped.
	Headers    string
	HasHeaders bool
	// Opaque is set for other schemes than sip and sips.
	Opaque string

	portText string
}

// IsSIP reports whether the scheme is sip or sips.
func (u *URI) IsSIP() bool { return isSIPScheme(u.Scheme) }

func isSIPScheme(s string) bool {
	return strings.EqualFold(s, "sip") || strings.EqualFold(s, "sips")
}

// ParseURI reads an absolute URI. It checks the characters and escapes of every
// scheme, and host, port and parameters of sip and sips.
func ParseURI(s string) (URI, error) { return parseURI(s, nil) }

// roomForParams is for as many parameters as URIs and Vias commonly have, on the stack.
const roomForParams = 8

// parseURI is ParseURI with room for the parameters.
func parseURI(s string, room []Param) (URI, error) {
	if err := checkURIText(s); err != nil {
		return URI{}, err
	}
	colon := strings.IndexByte(s, ':')
	if colon <= 0 || !schemeOK(s[:colon]) || colon+1 == len(s) {
		return URI{}, ErrMalformedURI
	}
	u := URI{Scheme: s[:colon]}
	rest := s[colon+1:]
	if !u.IsSIP() {
		u.Opaque = rest
		return u, nil
	}
	// The user part may hold ";" and "?" (RFC 3261 25.1 user-unreserved), so
	// the "@" is looked for first; no other part may hold one.
	if at := strings.IndexByte(rest, '@'); at >= 0 {
		u.User, u.HasUser, rest = rest[:at], true, rest[at+1:]
		if u.User == "" || u.User[0] == ':' || strings.IndexByte(rest, '@') >= 0 {
			return URI{}, ErrMalformedURI
		}
	}
	if q := strings.IndexByte(rest, '?'); q >= 0 {
		headers := rest[q+1:]
		if !uriHeadersOK(headers) {
			return URI{}, ErrMalformedURI
		}
		u.Headers, u.HasHeaders, rest = headers, true, rest[:q]
	}
	hostport := rest
	if semi := strings.IndexByte(rest, ';'); semi >= 0 {
		hostport = rest[:semi]
		var ok bool
		if u.Params, ok = parseURIParams(rest[semi:], room); !ok {
			return URI{}, ErrMalformedURI
		}
	}
	var ok bool
	if u.Host, u.portText, u.Port, ok = splitHostPort(hostport); !ok {
		return URI{}, ErrMalformedURI
	}
	return u, nil
}

// checkURIText refuses characters that no URI holds, and escapes that are none
// or hide a control character.
func checkURIText(s string) error {
	malformed := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if charClass[c]&classURI == 0 {
			if c < 0x20 || c == 0x7f {
				return ErrControlCharacter
			}
			malformed = true
		}
		if c != '%' {
			continue
		}
		if i+2 >= len(s) || charClass[s[i+1]]&classHex == 0 || charClass[s[i+2]]&classHex == 0 {
			malformed = true
			continue
		}
		if d := unhex(s[i+1])<<4 | unhex(s[i+2]); d < 0x20 || d == 0x7f {
			return ErrControlCharacter
		}
	}
	if malformed {
		return ErrMalformedURI
	}
	return nil
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	default:
		return c&^0x20 - 'A' + 10
	}
}

func schemeOK(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		alpha := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !alpha && (i == 0 || !isDigit(c) && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

func uriHeadersOK(s string) bool {
	for part := range strings.SplitSeq(s, "&") {
		name, _, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return false
		}
	}
	return true
}

func parseURIParams(s string, params []Param) ([]Param, bool) {
	if n := strings.Count(s, ";"); n > cap(params) {
		params = make([]Param, 0, n)
	}
	for s != "" {
		s = s[1:] // the semicolon
		text := s
		if i := strings.IndexByte(s, ';'); i >= 0 {
			text, s = s[:i], s[i:]
		} else {
			s = ""
		}
		name, value, has := strings.Cut(text, "=")
		if name == "" {
			return nil, false
		}
		params = append(params, Param{name, value, has})
	}
	return params, true
}

// splitHostPort reads host[:port]. A host whose last label is a number and that
// is no IPv4 address is refused: some resolvers would take it for one.
func splitHostPort(s string) (host, portText string, port int, ok bool) {
	host = s
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", 0, false
		}
		host, s = s[:end+1], s[end+1:]
		a, ok := parseAddr(host[1:end])
		if !ok || !a.Is6() || a.Zone() != "" {
			return "", "", 0, false
		}
	} else {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, s = s[:i], s[i:]
		} else {
			s = ""
		}
		if !hostOK(host) {
			return "", "", 0, false
		}
	}
	if s == "" {
		return host, "", 0, true
	}
	n, ok := number(strings.TrimPrefix(s, ":"), 65535)
	if s[0] != ':' || !ok || n == 0 {
		return "", "", 0, false
	}
	return host, s[1:], int(n), true
}

func hostOK(h string) bool {
	if h == "" || len(h) > 255 || !allOf(h, classHost) || h[0] == '.' || h[0] == '-' || strings.Contains(h, "..") {
		return false
	}
	name := strings.TrimSuffix(h, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	if !isDigits(last) {
		return last != ""
	}
	_, ok := parseAddr(h)
	return ok
}

// parseAddr is netip.ParseAddr for texts whose memory must not leave the stack because of an error that could hold them; a copy is made of IPv6
// addresses alone.
func parseAddr(s string) (netip.Addr, bool) {
	if a, end, ok := literal4(s, 0); ok && end == len(s) {
		return a, true
	}
	a, err := netip.ParseAddr(strings.Clone(s))
	return a, err == nil
}

// hostAddr returns the address that a host is, if it is one, IPv4 in IPv6
// unwrapped.
func hostAddr(host string) (netip.Addr, bool) {
	if host == "" || !isDigit(host[0]) && host[0] != '[' {
		return netip.Addr{}, false
	}
	if host[0] == '[' {
		host = strings.TrimSuffix(host[1:], "]")
	}
	a, ok := parseAddr(host)
	return a.Unmap(), ok
}

// Addr returns the host as an address, if it is one.
func (u *URI) Addr() (netip.Addr, bool) { return hostAddr(u.Host) }

// Param returns the value of a parameter, without regard to case.
func (u *URI) Param(name string) (string, bool) {
	if i := u.paramIndex(name); i >= 0 {
		return u.Params[i].Value, true
	}
	return "", false
}

// SetParam gives a parameter a value, adding it at the end where it is absent.
func (u *URI) SetParam(name, value string) {
	if i := u.paramIndex(name); i >= 0 {
		u.Params[i].Value, u.Params[i].HasValue = value, true
		return
	}
	u.Params = append(u.Params, Param{name, value, true})
}

// DelParam removes a parameter.
func (u *URI) DelParam(name string) {
	kept := u.Params[:0]
	for _, p := range u.Params {
		if !strings.EqualFold(p.Name, name) {
			kept = append(kept, p)
		}
	}
	u.Params = kept
}

func (u *URI) paramIndex(name string) int {
	for i := range u.Params {
		if strings.EqualFold(u.Params[i].Name, name) {
			return i
		}
	}
	return -1
}

// hostport writes host[:port] with the port as it was written.
func (u *URI) hostport() string { return joinHostPort(u.Host, u.portText, u.Port) }

func joinHostPort(host, text string, port int) string {
	if port == 0 {
		return host
	}
	if n, ok := number(text, 65535); ok && int(n) == port {
		return host + ":" + text
	}
	return host + ":" + strconv.Itoa(port)
}

// appendHostPort is joinHostPort into a text that is being written.
func appendHostPort(b []byte, host, text string, port int) []byte {
	b = append(b, host...)
	if port == 0 {
		return b
	}
	b = append(b, ':')
	if n, ok := number(text, 65535); ok && int(n) == port {
		return append(b, text...)
	}
	return strconv.AppendInt(b, int64(port), 10)
}

func appendParams(b []byte, params []Param) []byte {
	for i := range params {
		p := &params[i]
		b = append(append(b, ';'), p.Name...)
		if p.HasValue {
			b = append(append(b, '='), p.Value...)
		}
	}
	return b
}

// String writes the URI.
func (u *URI) String() string { return string(u.append(make([]byte, 0, 128))) }

func (u *URI) append(b []byte) []byte {
	b = append(append(b, u.Scheme...), ':')
	if !u.IsSIP() {
		return append(b, u.Opaque...)
	}
	if u.HasUser {
		b = append(append(b, u.User...), '@')
	}
	b = appendParams(appendHostPort(b, u.Host, u.portText, u.Port), u.Params)
	if u.HasHeaders {
		b = append(append(b, '?'), u.Headers...)
	}
	return b
}
