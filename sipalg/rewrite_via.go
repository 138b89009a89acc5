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
	v, err := ParseVia(text)
	if err != nil {
		return p.sweep(s)
	}
	addr, isAddr := v.Addr()
	if p.restoreVia(&v, addr) {
		if top && p.response {
			p.seenFrom(&v)
		}
		return blanks(s) + v.String()
	}
	written, kind := v, foreign
	if isAddr {
		var to netip.Addr
		var port uint16
		if to, port, kind = p.translate(addr, uint16(v.Port)); kind != foreign {
			v.Host, v.Port = hostText(to), int(port)
		}
	} else {
		v.Host = p.sweep(v.Host)
	}
	masked := kind == foreign && p.misleading(addr)
	if masked {
		v.Host = hostText(p.SourceRemote.Addr().Unmap())
	}
	if top {
		v.Transport = p.viaTransport(v.Transport)
	}
	if top && p.response && (!p.out || kind == foreign) {
		p.seenFrom(&v)
	}
	for i, param := range v.Params {
		switch {
		case strings.EqualFold(param.Name, "branch") || strings.EqualFold(param.Name, tokenParam):
		case kind == foreign && p.misleading(literal(param.Value)):
			param.Value, masked = p.SourceRemote.Addr().Unmap().String(), true
		default:
			param.Value = p.sweep(param.Value)
		}
		v.Params = setParam(v.Params, written.Params, i, param)
	}
	if v.Transport == written.Transport && v.Host == written.Host && v.Port == written.Port && slices.Equal(v.Params, written.Params) {
		return s
	}
	result := v.String()
	if masked || p.viaNeedsToken(kind, result, &written, top) {
		secret := string(p.mark(markVia, true)) + written.Transport + secretSep +
			joinHostPort(written.Host, written.portText, written.Port) + changedParams(written.Params, v.Params)
		v.Params = append(v.Params, Param{tokenParam, p.Seal.Seal(secret), true})
		result = v.String()
	}
	return blanks(s) + result
}

// viaNeedsToken tries whether the way back gives the element as it was written.
func (p *pass) viaNeedsToken(kind hostKind, result string, written *Via, top bool) bool {
	if kind == foreign || !p.out || p.noToken {
		return false
	}
	back := pass{Rewriter: p.Rewriter, response: true, noToken: true}
	return kind == hidden || back.via(result, top) != written.String()
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
func (p *pass) seenFrom(v *Via) {
	self := p.SourceRemote
	if !p.out {
		self = p.SourceInside
	}
	if !self.IsValid() || p.noToken {
		return
	}
	port, _ := v.Param("rport")
	value, ok := v.Param("received")
	if port == "" && !ok {
		return
	}
	v.Params = slices.Clone(v.Params) // those that were written stay
	if port != "" {
		v.SetParam("rport", strconv.Itoa(int(self.Port())))
	}
	if !ok {
		return
	}
	a, err := netip.ParseAddr(strings.Trim(value, "[]"))
	if err != nil {
		return
	}
	if _, _, kind := p.translate(a.Unmap(), 0); kind != foreign {
		v.SetParam("received", self.Addr().Unmap().String())
	}
}

// restoreVia undoes a translation by its token.
func (p *pass) restoreVia(v *Via, addr netip.Addr) bool {
	fields, at, ok := p.secret(v.Params, addr, v.Port)
	if !ok || len(fields) < 2 || fields[0] == "" || fields[0][0] != p.mark(markVia, false) {
		return false
	}
	host, text, port, ok := splitHostPort(fields[1])
	if !ok {
		return false
	}
	v.Transport = fields[0][1:]
	v.Host, v.portText, v.Port = host, text, port
	v.Params = append(v.Params[:at:at], v.Params[at+1:]...)
	v.Params = restoreParams(v.Params, fields[2:])
	return true
}
