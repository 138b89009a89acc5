package sipalg

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxMultipart bounds how deep multipart bodies may nest; what is deeper stays as
// it is.
const maxMultipart = 4

// messageBody translates the bodies that hold SIP or XML.
func (p *pass) messageBody(m *Message) {
	if len(m.Body) == 0 {
		return
	}
	if now, changed := p.part(m.Get("Content-Type"), m.Body, 0); changed {
		m.Body = now
		if i := m.index("Content-Length"); i >= 0 {
			m.Headers[i].Value = strconv.Itoa(len(now))
		}
	}
}

// part translates a body of the given type.
func (p *pass) part(contentType string, body []byte, depth int) ([]byte, bool) {
	kind, params, ok := mediaType(contentType)
	if !ok {
		return body, false
	}
	var now string
	switch {
	case kind == "message/sipfrag" || kind == "message/sip":
		now = p.fragment(string(body))
	case kind == "application/simple-message-summary":
		now = p.sweep(string(body))
	case strings.HasPrefix(kind, "application/") && (strings.HasSuffix(kind, "+xml") || kind == "application/xml"):
		now = p.xml(string(body))
	case strings.HasPrefix(kind, "multipart/") && depth < maxMultipart:
		boundary, ok := boundaryOf(params)
		if !ok {
			return body, false
		}
		return p.multipart(body, boundary, depth)
	case p.out && kind != "application/sdp" && !strings.HasPrefix(kind, "multipart/") && isText(body):
		now = p.sweep(string(body)) // whatever it is, an inside address in it helps nobody outside
	default:
		return body, false
	}
	if now == string(body) {
		return body, false
	}
	return []byte(now), true
}

// fragment sweeps a SIP message within a body, but for the headers that pass
// unchanged at the top too.
func (p *pass) fragment(s string) string {
	var b strings.Builder
	for s != "" {
		line := s
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			line = s[:i+1]
		}
		s = s[len(line):]
		name, _, ok := strings.Cut(line, ":")
		if ok && classOf(trim(name)) == classKeep {
			b.WriteString(line)
			continue
		}
		b.WriteString(p.sweep(line))
	}
	return b.String()
}

// isText tells text of any type from binary content, in which four numbers and three dots may be anything.
func isText(body []byte) bool {
	for _, c := range body {
		if c < 0x20 && c != '\t' && c != '\r' && c != '\n' || c == 0x7f {
			return false
		}
	}
	return utf8.Valid(body)
}

// xml sweeps XML but for the call-id attributes of dialog information (RFC 4235),
// which must stay those of the dialogs.
func (p *pass) xml(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, "call-id=")
		if i < 0 || i+9 > len(s) {
			b.WriteString(p.sweep(s))
			return b.String()
		}
		i += len("call-id=")
		quote := s[i]
		end := strings.IndexByte(s[i+1:], quote)
		if quote != '"' && quote != '\'' || end < 0 {
			b.WriteString(p.sweep(s[:i]))
			s = s[i:]
			continue
		}
		end += i + 2
		b.WriteString(p.sweep(s[:i]))
		b.WriteString(s[i:end])
		s = s[end:]
	}
}

// multipart translates the parts of a body; preamble, delimiters and epilogue
// stay.
func (p *pass) multipart(body []byte, boundary string, depth int) ([]byte, bool) {
	var out []byte
	changed := false
	start, next, last := delimiter(body, 0, boundary)
	if start < 0 {
		return body, false
	}
	out = append(out, body[:next]...)
	for !last {
		from := next
		start, next, last = delimiter(body, from, boundary)
		if start < 0 {
			start, next, last = len(body), len(body), true
		}
		now, did := p.bodyPart(body[from:start], depth)
		changed = changed || did
		out = append(append(out, now...), body[start:next]...)
	}
	if !changed {
		return body, false
	}
	return append(out, body[next:]...), true
}

// delimiter finds the next delimiter line (RFC 2046 5.1.1): start is where the
// line break before it begins, next is after its own. last marks the final one.
func delimiter(body []byte, from int, boundary string) (start, next int, last bool) {
	mark := []byte("--" + boundary)
	for i := from; i < len(body); {
		j := bytes.Index(body[i:], mark)
		if j < 0 {
			return -1, 0, false
		}
		j += i
		i = j + len(mark)
		if j > 0 && body[j-1] != '\n' {
			continue
		}
		rest := body[i:]
		rest, last = bytes.CutPrefix(rest, []byte("--"))
		line := rest
		if k := bytes.IndexByte(rest, '\n'); k >= 0 {
			line = rest[:k+1]
		}
		if len(bytes.TrimRight(line, " \t\r\n")) > 0 {
			continue
		}
		start = j
		if start > from && body[start-1] == '\n' {
			start--
			if start > from && body[start-1] == '\r' {
				start--
			}
		}
		return start, len(body) - len(rest) + len(line), last
	}
	return -1, 0, false
}

// bodyPart translates headers and body of one part.
func (p *pass) bodyPart(part []byte, depth int) ([]byte, bool) {
	if bytes.HasPrefix(part, []byte("\r\n")) || bytes.HasPrefix(part, []byte("\n")) {
		return p.part("text/plain", part, depth+1) // no headers
	}
	var head, body []byte
	if i := bytes.Index(part, []byte("\r\n\r\n")); i >= 0 {
		head, body = part[:i+4], part[i+4:]
	} else if i := bytes.Index(part, []byte("\n\n")); i >= 0 {
		head, body = part[:i+2], part[i+2:]
	} else {
		return part, false
	}
	contentType, plain := "", true
	for line := range strings.Lines(string(head)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case sameName(trim(name), "Content-Type"):
			contentType = value
		case strings.EqualFold(trim(name), "Content-Transfer-Encoding"):
			plain = strings.EqualFold(value, "binary") || strings.EqualFold(value, "8bit") || strings.EqualFold(value, "7bit")
		}
	}
	newBody, changed := body, false
	if plain {
		newBody, changed = p.part(contentType, body, depth+1)
	}
	var b strings.Builder
	for line := range strings.Lines(string(head)) {
		name, _, _ := strings.Cut(line, ":")
		switch {
		case changed && sameName(trim(name), "Content-Length"):
			b.WriteString(name + ": " + strconv.Itoa(len(newBody)) + "\r\n")
		case classOf(trim(name)) == classKeep:
			b.WriteString(line)
		case classOf(trim(name)) == classType:
			b.WriteString(name + ":" + p.typeHeader(line[len(name)+1:]))
		default:
			b.WriteString(p.sweep(line))
		}
	}
	if !changed && b.String() == string(head) {
		return part, false
	}
	return append([]byte(b.String()), newBody...), true
}
