package sipalg

import (
	"net/netip"
	"slices"
	"strings"
)

// uriRole says where a URI stands.
type uriRole struct {
	leg   bool // its transport follows the leg whoever's host it names
	token bool // a token may be added
	bare  bool // it has no brackets around it
}

// host kinds.
type hostKind uint8

const (
	foreign hostKind = iota // no address, or not one of ours
	mapped                  // has a static translation
	hidden                  // inside and without translation
)

// translate gives what stands for an address on the other side.
func (p *pass) translate(a netip.Addr, port uint16) (netip.Addr, uint16, hostKind) {
	if p.out {
		if b, bport, ok := p.Map.ToOutside(a, port); ok {
			return b, bport, mapped
		}
		if p.Map.IsInside(a) {
			return p.Map.Hide(), port, hidden
		}
		return a, port, foreign
	}
	if b, bport, ok := p.Map.ToInside(a, port); ok {
		return b, bport, mapped
	}
	return a, port, foreign
}

// uri translates one URI. On the way back, bare says that the token was given to
// a URI without brackets.
func (p *pass) uri(text string, role uriRole) (result string, bare bool) {
	var parsed, changed [roomForParams]Param
	u, err := parseURI(text, parsed[:0])
	if err != nil || !u.IsSIP() {
		return p.sweep(text), false
	}
	addr, isAddr := u.Addr()
	if was, bare, ok := p.restoreURI(u, addr); ok {
		u = was
		u.Headers = p.uriHeaders(u.Headers)
		return p.texts.uri(&u), bare
	}
	was, kind := u, foreign
	if isAddr {
		var to netip.Addr
		var port uint16
		to, port, kind = p.translate(addr, uint16(u.Port))
		if kind == hidden && u.Port != 0 && p.HidePort != 0 {
			port = p.HidePort
		}
		if kind != foreign {
			u.Host, u.Port = p.texts.host(to), int(port)
		}
	} else if strings.IndexByte(u.Host, '.') >= 0 {
		u.Host = p.sweep(u.Host) // "192.0.2.1.example.com"
	}
	masked := false
	if kind == foreign && role.token && p.misleading(addr) {
		u.Host, masked = p.texts.host(p.SourceRemote.Addr().Unmap()), true
	}
	if u.HasUser {
		u.User = p.sweep(u.User)
	}
	for i, param := range was.Params {
		switch {
		case strings.EqualFold(param.Name, "transport"):
			if kind != foreign || role.leg {
				param.Value = p.transport(u.Scheme, param.Value, kind != foreign)
			}
		case strings.EqualFold(param.Name, tokenParam):
		case role.token && strings.EqualFold(param.Name, "maddr") && p.misleading(literal(param.Value)):
			param.Value, masked = p.texts.host(p.SourceRemote.Addr().Unmap()), true
		default:
			param.Value = p.sweep(param.Value)
			param.Name = p.sweep(param.Name)
		}
		u.Params = setParam(u.Params, was.Params, i, param, changed[:0])
	}
	if masked || kind == hidden || p.out && kind == mapped && role.token && !p.noToken && !p.reversible(u, text, role) {
		if role.token {
			u.Params = append(u.Params, Param{tokenParam, p.Seal.Seal(p.uriSecret(&was, &u, role.bare)), true})
		}
	}
	if u.Headers == "" && u.Host == was.Host && u.Port == was.Port && u.User == was.User && slices.Equal(u.Params, was.Params) {
		return text, false
	}
	u.Headers = p.uriHeaders(u.Headers)
	return p.texts.uri(&u), false
}

// setParam changes one of the parameters. The first change is to a copy, in the room if that is enough: those that were parsed stay.
func setParam(params, parsed []Param, i int, to Param, room []Param) []Param {
	if params[i] == to {
		return params
	}
	if &params[0] == &parsed[0] {
		params = append(room, parsed...)
	}
	params[i] = to
	return params
}

// reversible tries whether the way back gives the URI as it was written, headers
// apart, without a token.
func (p *pass) reversible(u URI, text string, role uriRole) bool {
	if u.HasHeaders {
		text = text[:len(text)-len(u.Headers)-1]
		u.Headers, u.HasHeaders = "", false
	}
	back := pass{Rewriter: p.Rewriter, response: p.response, noToken: true, texts: p.texts} // what it makes there is not kept
	was, _ := back.uri(back.texts.uri(&u), role)
	return was == text
}

// transport translates a transport word. For hosts of our own every word gives
// way to that of the leg; a token brings the exceptions back.
func (p *pass) transport(scheme, word string, ours bool) string {
	if strings.EqualFold(scheme, "sips") {
		return word // "tcp" means TLS over TCP there (RFC 3261 26.2.2)
	}
	from, to := p.InsideTransport, "TLS"
	if !p.out {
		from, to = to, from
	}
	if !strings.EqualFold(word, from) && !(ours && p.out) || strings.EqualFold(word, to) {
		return word
	}
	if word == strings.ToUpper(word) {
		return strings.ToUpper(to)
	}
	return strings.ToLower(to)
}

// secretSep separates the fields of a token's text; no URI or Via holds it.
const secretSep = "\x01"

// Marks at the beginning of a token's text. Tokens made on the way out are obeyed
// on the way in alone, and the other way round.
const (
	markURI  = 0
	markBare = 1
	markVia  = 2
	markCall = 3
)

func (p *pass) mark(which int, made bool) byte {
	if p.out == made {
		return "ubvc"[which]
	}
	return "UBVC"[which]
}

// uriSecret writes what the way back must restore: host and port, the user part
// and the parameters that were changed.
func (p *pass) uriSecret(before, after *URI, bare bool) string {
	s := string(p.mark(markURI, true))
	if bare {
		s = string(p.mark(markBare, true))
	}
	s += before.hostport()
	if before.User != after.User {
		s += secretSep + "u" + before.User
	}
	return s + changedParams(before.Params, after.Params)
}

func changedParams(before, after []Param) string {
	s := ""
	for i, b := range before {
		if b != after[i] {
			s += secretSep + "p" + after[i].Name + secretSep + b.Name
			if b.HasValue {
				s += "=" + b.Value
			}
		}
	}
	return s
}

// misleading reports whether a foreigner's address looks like one of the inside: a
// private one behind the peer, perhaps of the same network as ours. The call agent
// must not send anything there, and the way out must not take it for ours. It
// gives way to the peer's address and a token.
func (p *pass) misleading(a netip.Addr) bool {
	return !p.out && !p.noToken && a.IsValid() && p.SourceRemote.IsValid() && p.Map.IsInside(a)
}

// literal reads an address with or without brackets; the result is invalid for
// anything else.
func literal(s string) netip.Addr {
	if s == "" || s[0] != '[' && s[0] != ':' && charClass[s[0]]&classHex == 0 {
		return netip.Addr{}
	}
	a, ok := parseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if !ok {
		return netip.Addr{}
	}
	return a.Unmap()
}

// secret opens the token among params; at is its place. On the way in the host
// must be one of ours. On the way out the token alone decides: it was made for the
// inside, and the connection to the peer may have changed since.
func (p *pass) secret(params []Param, addr netip.Addr, port int) (fields []string, at int, ok bool) {
	for at = len(params) - 1; at >= 0; at-- {
		if strings.EqualFold(params[at].Name, tokenParam) {
			break
		}
	}
	if at < 0 || p.noToken {
		return nil, 0, false
	}
	if !p.out && addr != p.Map.Hide() {
		if _, _, ours := p.Map.ToInside(addr, uint16(port)); !ours || !addr.IsValid() {
			return nil, 0, false
		}
	}
	plain, ok := p.Seal.Open(params[at].Value)
	if !ok || plain == "" {
		return nil, 0, false
	}
	return strings.Split(plain, secretSep), at, true
}

// restoreParams puts back what changedParams wrote.
func restoreParams(params []Param, fields []string) []Param {
	for i := 0; i+1 < len(fields); i++ {
		name, ok := strings.CutPrefix(fields[i], "p")
		if !ok {
			continue
		}
		i++
		var was Param
		was.Name, was.Value, was.HasValue = strings.Cut(fields[i], "=")
		at := len(params)
		for j := range params {
			if strings.EqualFold(params[j].Name, name) {
				at = j
				break
			}
		}
		if at == len(params) {
			params = append(params, Param{})
		}
		params[at] = was
	}
	return params
}

// restoreURI undoes a translation by its token.
func (p *pass) restoreURI(u URI, addr netip.Addr) (was URI, bare, ok bool) {
	fields, at, ok := p.secret(u.Params, addr, u.Port)
	if !ok || fields[0] == "" {
		return u, false, false
	}
	bare = fields[0][0] == p.mark(markBare, false)
	if !bare && fields[0][0] != p.mark(markURI, false) {
		return u, false, false
	}
	host, text, port, ok := splitHostPort(fields[0][1:])
	if !ok {
		return u, false, false
	}
	u.Host, u.portText, u.Port = host, text, port
	u.Params = slices.Delete(u.Params, at, at+1)
	rest := fields[1:]
	if len(rest) > 0 && strings.HasPrefix(rest[0], "u") {
		u.User, rest = rest[0][1:], rest[1:]
	}
	u.Params = restoreParams(u.Params, rest)
	return u, bare, true
}

// uriHeaders translates the headers that a URI asks for (RFC 3261 19.1.1), each
// as what it is.
func (p *pass) uriHeaders(headers string) string {
	if headers == "" {
		return ""
	}
	parts := strings.Split(strings.Clone(headers), "&") // the URI stays on the stack
	for i, part := range parts {
		name, value, _ := strings.Cut(part, "=")
		plain := unescape(value)
		if plainName := unescape(name); isToken(plainName) {
			name = plainName
		}
		class := classOf(name)
		var now string
		if class == classVia {
			now = p.vias(plain, false)
		} else {
			now = p.header(class, plain)
		}
		if now != plain {
			parts[i] = part[:strings.IndexByte(part, '=')+1] + escape(now)
		}
	}
	return strings.Join(parts, "&")
}

func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && charClass[s[i+1]]&charClass[s[i+2]]&classHex != 0 {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

// escape writes a header value of a URI: unreserved characters as they are, all
// others as %XX.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+32)
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z'
		if alnum || strings.IndexByte("-_.!~*'()", c) >= 0 {
			b = append(b, c)
			continue
		}
		b = append(b, '%', hex[c>>4], hex[c&15])
	}
	return string(b)
}
