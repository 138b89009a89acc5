package sipalg

import (
	"errors"
	"net/netip"
	"strings"
)

// AddressMap is what the rewriter knows of the two networks. Its methods are
// called many times a message and must not block.
type AddressMap interface {
	// ToOutside gives the mapped address of a real one that has a static
	// translation. Port 0 means that none was written; a port of 0 in the
	// result writes none.
	ToOutside(addr netip.Addr, port uint16) (mapped netip.Addr, mport uint16, ok bool)
	// ToInside is the reverse.
	ToInside(addr netip.Addr, port uint16) (real netip.Addr, rport uint16, ok bool)
	// IsInside reports whether an address belongs to a network of the inside.
	IsInside(addr netip.Addr) bool
	// Hide is the mapped address that stands for inside addresses which have no
	// translation.
	Hide() netip.Addr
}

// Rewriter translates the addresses of messages that cross the border. It keeps
// Call-ID, tags, branches and everything else that identifies a dialog or a
// transaction.
//
// An inside address with a static translation becomes the mapped one. Where the
// way back would not give exactly what was written (an address without
// translation, a port that was translated, a transport that the leg does not
// show), the URI or Via gets a parameter "x-ime" with a sealed token, from which
// the way back restores it. Tokens are obeyed only where the host is ours; one
// that does not open is left alone. On the way in, a foreigner's address that looks
// like one of the inside gets the same treatment: SourceRemote and a token stand for
// it (in the Request-URI it stays; the caller decides what to do with that).
type Rewriter struct {
	Map  AddressMap
	Seal *Sealer
	// InsideTransport is "TCP" or "TLS"; the outside is TLS always.
	InsideTransport string
	// SourceRemote is the outside peer's own address and port. It replaces an
	// inside address that the call agent noted as "received" in the peer's Via
	// (the zero value lets Map.Hide stand there), and stands for foreigners'
	// addresses that look like ours (the zero value lets them pass).
	SourceRemote netip.AddrPort
	// SourceInside is the inside end's own address and port as it connected to us. It stands in
	// "rport" of answers in place of the port that the peer saw (the zero value keeps that one).
	SourceInside netip.AddrPort
	// KnownCall tells whether a Call-ID is that of a call which crosses the border, so that both sides
	// know it as it is. The Call-IDs of other calls get a token in headers that refer to them (Replaces)
	// when they hold an inside address; nil keeps all.
	KnownCall func(callID string) bool
	// HidePort is written for the port of a hidden host in URIs, so that the
	// outside connects to a port that is open; 0 keeps the written port.
	HidePort uint16
}

// ErrRewrittenTooLarge says that a message exceeds MaxFrame after its translation.
var ErrRewrittenTooLarge = errors.New("rewritten message exceeds 64 KiB")

// ErrNoAddressMap says that a Rewriter lacks Map, a valid Map.Hide, or Seal.
var ErrNoAddressMap = errors.New("rewriter without address map or sealer")

// Outbound translates a message that goes from inside to outside: start line,
// headers, and bodies that are SIP fragments or XML. Session descriptions are not
// touched. After an error the message must not be sent.
func (rw *Rewriter) Outbound(m *Message) error { return rw.run(m, true) }

// Inbound translates a message that goes from outside to inside.
func (rw *Rewriter) Inbound(m *Message) error { return rw.run(m, false) }

// RequestURI gives the Request-URI of a request from outside as Inbound writes it. It may name another user than the sender wrote: a token
// brings back what stood where it was made. A message's own is found out once: see [Rewriter.RequestURIOf].
func (rw *Rewriter) RequestURI(uri string) string {
	p := &pass{Rewriter: rw}
	uri, _ = p.uri(uri, uriRole{leg: true})
	return uri
}

// InboundValue gives the value of a header of any name but Via from outside as Inbound writes it.
func (rw *Rewriter) InboundValue(name, value string) string {
	p := &pass{Rewriter: rw}
	return p.header(classOf(name), value)
}

// RequestURIOf is RequestURI for that of a message, which remembers it for the next time and for Inbound.
func (rw *Rewriter) RequestURIOf(m *Message) string {
	if m.inside.by != rw || m.inside.of != m.URI {
		m.inside = requestURI{by: rw, of: m.URI, now: rw.RequestURI(m.URI)}
	}
	return m.inside.now
}

// pass is one translation of one message.
type pass struct {
	*Rewriter
	out      bool
	response bool
	noToken  bool // the trial of the way back
	texts    texts
}

func (rw *Rewriter) run(m *Message, out bool) error {
	if rw.Map == nil || rw.Seal == nil || !rw.Map.Hide().IsValid() {
		return ErrNoAddressMap
	}
	p := &pass{Rewriter: rw, out: out, response: !m.IsRequest()}
	m.Del(HeaderFallback)
	if p.response {
		m.Phrase = p.sweep(m.Phrase)
	} else if !out {
		m.URI = rw.RequestURIOf(m)
	} else {
		m.URI, _ = p.uri(m.URI, uriRole{leg: true})
	}
	top := true
	for i := range m.Headers {
		h := &m.Headers[i]
		class := classOf(h.Name)
		if strings.Count(h.Name, ".") >= 3 {
			h.Name = p.sweep(h.Name)
		}
		if class == classVia {
			h.Value = p.vias(h.Value, top)
			top = false
			continue
		}
		h.Value = p.header(class, h.Value)
	}
	p.messageBody(m)
	size := len(m.URI) + len(m.Phrase) + len(m.Body) + 64
	for i := range m.Headers {
		size += len(m.Headers[i].Name) + len(m.Headers[i].Value) + 4
	}
	if size > MaxFrame {
		return ErrRewrittenTooLarge
	}
	return nil
}

// headerClass says how a header is translated.
type headerClass uint8

const (
	classText    headerClass = iota // address literals anywhere
	classKeep                       // unchanged
	classVia                        // Via elements
	classLeg                        // addresses whose transport follows the leg
	classAddress                    // other addresses
	classAuth                       // Digest credentials: the uri parameter
	classEvent                      // a word to keep with parameters
	classCallID                     // Call-IDs of calls that may be other ones, with parameters
	classType                       // a media type
)

// headerClasses names the headers of each class but classText.
var headerClasses = [...]string{
	classKeep: "Call-ID Content-Length CSeq Max-Forwards " + HeaderTicket,
	classVia:  "Via",
	classLeg:  "Contact Route Record-Route Path Service-Route",
	classAddress: "From To Reply-To P-Asserted-Identity P-Preferred-Identity Remote-Party-ID Refer-To " +
		"Referred-By Diversion History-Info Call-Info Alert-Info Error-Info P-Called-Party-ID P-Associated-URI",
	classAuth:   "Authorization Proxy-Authorization",
	classEvent:  "Event",
	classCallID: "Replaces Join Target-Dialog In-Reply-To",
	classType:   "Content-Type",
}

func classOf(name string) headerClass { return headerOf(name).class }

// header translates a value of any class but classVia.
func (p *pass) header(class headerClass, value string) string {
	switch class {
	case classKeep:
		return value
	case classLeg:
		return eachElement(value, func(s string) string { return p.address(s, uriRole{leg: true, token: true}) })
	case classAddress:
		return eachElement(value, func(s string) string { return p.address(s, uriRole{token: true}) })
	case classAuth:
		return p.credentials(value)
	case classEvent:
		word, params := cutParams(value)
		return word + p.params(params)
	case classCallID:
		return eachElement(value, func(s string) string {
			id, params := cutParams(s)
			return p.callID(id) + p.params(params)
		})
	case classType:
		return p.typeHeader(value)
	}
	return p.sweep(value)
}

// cutParams cuts a value before its first semicolon.
func cutParams(s string) (word, params string) {
	if i := strings.IndexByte(s, ';'); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// callIDMark begins a Call-ID that stands for another one.
const callIDMark = tokenParam + "-"

// callID translates a Call-ID that refers to a call. That of a call which both sides know must stay (RFC 3891 section
// 3: it is matched as it is); another one that holds an inside address becomes a token, which the way back opens.
func (p *pass) callID(s string) string {
	id := trim(s)
	if p.out {
		if p.KnownCall == nil || p.sweep(id) == id || p.KnownCall(id) {
			return s
		}
		return blanks(s) + callIDMark + p.Seal.Seal(string(p.mark(markCall, true))+id)
	}
	token, ok := strings.CutPrefix(id, callIDMark)
	if !ok {
		return s
	}
	if was, ok := p.Seal.Open(token); ok && was != "" && was[0] == p.mark(markCall, false) {
		return blanks(s) + was[1:]
	}
	return s
}

// typeHeader sweeps the parameters of a media type (RFC 2017: a URL); the boundary of a multipart body is part of the
// body and stays. The value may end with its line end.
func (p *pass) typeHeader(value string) string {
	if kind, _, ok := mediaType(strings.TrimRight(value, "\r\n")); ok && strings.HasPrefix(kind, "multipart/") {
		return value
	}
	return p.sweep(value)
}

// eachElement replaces the elements of a comma-separated value in place.
func eachElement(value string, replace func(string) string) string {
	first, rest, more := cutList(value)
	if !more {
		return replace(value)
	}
	var b strings.Builder
	b.Grow(len(value) + 64)
	b.WriteString(replace(first))
	for more {
		first, rest, more = cutList(rest)
		b.WriteByte(',')
		b.WriteString(replace(first))
	}
	return b.String()
}

// address translates one name-addr or addr-spec with its parameters. A URI that
// gets a token needs brackets, which the way back takes away again.
func (p *pass) address(s string, role uriRole) string {
	a, ok := splitAddress(s)
	if !ok {
		return p.sweep(s)
	}
	role.bare = !a.bracketed()
	uri, bare := p.uri(a.uri, role)
	pre, params := p.sweep(a.pre), p.params(a.post)
	if !bare && uri == a.uri && pre == a.pre && params == a.post {
		return s
	}
	switch {
	case role.bare && strings.IndexByte(uri, ';') >= 0:
		pre, params = pre+"<", p.params(">"+a.post)
	case bare && a.bracketed() && trim(pre) == "<" && !strings.ContainsAny(uri, ";,?"):
		pre, params = pre[:len(pre)-1], p.params(a.post[1:])
	}
	return p.texts.join(pre, uri, params)
}

// keptParams identify dialogs and transactions; call-id is that of an Event (RFC
// 4235).
var keptParams = newNameSet("call-id", "tag", "to-tag", "from-tag", "local-tag", "remote-tag", "branch")

// params sweeps header parameters but for those in keptParams; s may begin with
// the closing bracket of the address before them.
func (p *pass) params(s string) string {
	if strings.IndexByte(s, '.') < 0 && strings.Count(s, ":") < 2 {
		return s
	}
	var b strings.Builder
	if strings.HasPrefix(s, ">") {
		b.WriteByte('>')
		s = s[1:]
	}
	for {
		param, rest, ok := cutParam(s)
		if !ok {
			break
		}
		if keptParams.has(param.name) {
			b.WriteString(param.text)
		} else {
			b.WriteString(p.sweep(param.text))
		}
		s = rest
	}
	b.WriteString(p.sweep(s))
	return b.String()
}

// credentials translates the uri parameter of Digest credentials as a URI, the
// rest as text. A foreign URI stays as it is, since the response covers it.
func (p *pass) credentials(value string) string {
	const key = `uri="`
	lower := strings.ToLower(value)
	for from := 0; ; {
		i := strings.Index(lower[from:], key)
		if i < 0 || len(lower) != len(value) {
			return p.sweep(value)
		}
		i += from
		from = i + len(key)
		if i == 0 || strings.IndexByte(" ,\t", value[i-1]) < 0 {
			continue // the end of another name
		}
		end := strings.IndexByte(value[from:], '"')
		if end < 0 {
			return p.sweep(value)
		}
		end += from
		uri, _ := p.uri(value[from:end], uriRole{})
		return p.sweep(value[:from]) + uri + p.sweep(value[end:])
	}
}
