package sipalg

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// vias translates a Via header; top says that its first element is the topmost of
// the message.
func (p *pass) vias(value string, top bool) string {
	return eachElement(value, func(s string) string {
		now := p.via(s, top)
		top = false
		return now
	})
}

// via translates one element. The topmost one is that of the message's sender (in
// a request) or receiver (in a response) on this leg, so its transport follows
// the leg; the others keep theirs. Sent-by of the far side stays as it is.
func (p *pass) via(s string, top bool) string {
	text := trim(s)
	var parsed, changed [roomForParams]Param
	v, err := parseVia(text, parsed[:0])
	if err != nil {
		return p.sweep(s)
	}
	addr, isAddr := v.Addr()
	if was, ok := p.restoreVia(v, addr); ok {
		if v = was; top && p.response {
			v.Params = p.seenFrom(v.Params)
		}
		return p.texts.join(blanks(s), p.texts.via(&v))
	}
	written, kind := v, foreign
	if isAddr {
		var to netip.Addr
		var port uint16
		if to, port, kind = p.translate(addr, uint16(v.Port)); kind != foreign {
			v.Host, v.Port = p.texts.host(to), int(port)
		}
	} else {
		v.Host = p.sweep(v.Host)
	}
	masked := kind == foreign && p.misleading(addr)
	if masked {
		v.Host = p.texts.host(p.SourceRemote.Addr().Unmap())
	}
	if top {
		v.Transport = p.viaTransport(v.Transport)
	}
	if top && p.response && (!p.out || kind == foreign) {
		v.Params = p.seenFrom(v.Params)
	}
	for i, param := range v.Params {
		switch {
		case strings.EqualFold(param.Name, "branch") || strings.EqualFold(param.Name, tokenParam):
		case kind == foreign && p.misleading(literal(param.Value)):
			param.Value, masked = p.SourceRemote.Addr().Unmap().String(), true
		default:
			param.Value = p.sweep(param.Value)
		}
		v.Params = setParam(v.Params, written.Params, i, param, changed[:0])
	}
	if v.Transport == written.Transport && v.Host == written.Host && v.Port == written.Port && slices.Equal(v.Params, written.Params) {
		return s
	}
	result := p.texts.via(&v)
	if masked || p.viaNeedsToken(kind, result, &written, top) {
		secret := string(p.mark(markVia, true)) + written.Transport + secretSep +
			joinHostPort(written.Host, written.portText, written.Port) + changedParams(written.Params, v.Params)
		v.Params = append(v.Params, Param{tokenParam, p.Seal.Seal(secret), true})
		result = p.texts.via(&v)
	}
	if s[0] != ' ' && s[0] != '\t' {
		return result
	}
	return blanks(s) + result
}

// viaNeedsToken tries whether the way back gives the element as it was written.
func (p *pass) viaNeedsToken(kind hostKind, result string, written *Via, top bool) bool {
	if kind == foreign || !p.out || p.noToken {
		return false
	}
	if kind == hidden {
		return true
	}
	back := pass{Rewriter: p.Rewriter, response: true, noToken: true, texts: p.texts} // what it makes there is not kept
	return back.via(result, top) != back.texts.via(written)
}

// blanks returns the white space before an element.
func blanks(s string) string {
	i := 0
	for i < len(s) && isBlank(s[i]) {
		i++
	}
	return s[:i]
}

// viaTransport translates the transport of the topmost Via. A request's sender
// spoke the transport of its leg whatever it wrote; in a response only the word
// that this rewriter has put there is taken back.
func (p *pass) viaTransport(word string) string {
	from, to := strings.ToUpper(p.InsideTransport), "TLS"
	if !p.out {
		from, to = to, from
	}
	if p.response && !strings.EqualFold(word, from) {
		return word
	}
	return to
}

// seenFrom translates what the answering end noted of the address that it got the request from (RFC 3261 18.2.1, RFC
// 3581): it saw one of our connections, and the end that the answer goes to must find its own.
func (p *pass) seenFrom(params []Param) []Param {
	self := p.SourceRemote
	if !p.out {
		self = p.SourceInside
	}
	if !self.IsValid() || p.noToken {
		return params
	}
	rport, received := findParamIn(params, "rport"), findParamIn(params, "received")
	if rport >= 0 && params[rport].Value == "" {
		rport = -1
	}
	if rport < 0 && received < 0 {
		return params
	}
	seen := slices.Clone(params) // those that were written stay
	if rport >= 0 {
		seen[rport].Value = strconv.Itoa(int(self.Port()))
	}
	if received < 0 {
		return seen
	}
	a, err := netip.ParseAddr(strings.Trim(params[received].Value, "[]"))
	if err != nil {
		return seen
	}
	if _, _, kind := p.translate(a.Unmap(), 0); kind != foreign {
		seen[received].Value, seen[received].HasValue = self.Addr().Unmap().String(), true
	}
	return seen
}

// findParamIn gives the place of a parameter, -1 where it is absent.
func findParamIn(params []Param, name string) int {
	return slices.IndexFunc(params, func(p Param) bool { return strings.EqualFold(p.Name, name) })
}

// restoreVia undoes a translation by its token.
func (p *pass) restoreVia(v Via, addr netip.Addr) (was Via, ok bool) {
	fields, at, ok := p.secret(v.Params, addr, v.Port)
	if !ok || len(fields) < 2 || fields[0] == "" || fields[0][0] != p.mark(markVia, false) {
		return v, false
	}
	host, text, port, ok := splitHostPort(fields[1])
	if !ok {
		return v, false
	}
	v.Transport = fields[0][1:]
	v.Host, v.portText, v.Port = host, text, port
	v.Params = append(v.Params[:at:at], v.Params[at+1:]...)
	v.Params = restoreParams(v.Params, fields[2:])
	return v, true
}
