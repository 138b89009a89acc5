package sipalg

import (
	"bytes"
	"strings"
	"unsafe"
)

// Limits that hold for every message.
const (
	// MaxFrame is the size in bytes of head and body together.
	MaxFrame = 64 << 10
	// MaxLine is the size in bytes of a header line when unfolded, its name
	// included, and of the start line.
	MaxLine = 8 << 10
	// MaxHeaders is the number of headers of a message.
	MaxHeaders = 256
)

// Parse reads one whole message, as the Framer delivers it. When the message is
// malformed it reads on as far as it can, so that the Violation holds what an
// answer needs. Header contents beyond Content-Length are the business of Check.
// The message refers to frame, which must not be changed any more.
func Parse(frame []byte) (*Message, *Violation) {
	var scanner headScanner
	end, strict, ok := scanner.scan(frame)
	if !ok {
		m, _ := parseHead(textOf(frame))
		v := refuse(m, CauseTruncated, 400, "Truncated Message")
		v.Close = true
		return nil, v
	}
	return parse(frame, end, strict)
}

// parse is Parse for a message whose head ends at an index.
func parse(frame []byte, end int, strict bool) (*Message, *Violation) {
	m, v := parseHead(textOf(frame[:end]))
	m.Body = frame[end:len(frame):len(frame)]
	if v == nil && !strict {
		v = refuse(m, CauseLineEnd, 400, "Bare CR Or LF In Head")
	}
	if v != nil {
		return nil, v
	}
	if v := checkLength(m); v != nil {
		return nil, v
	}
	return m, nil
}

func checkLength(m *Message) *Violation {
	i := m.index("Content-Length")
	if i < 0 {
		v := refuse(m, CauseNoContentLength, 400, "Content-Length Missing")
		v.Close = true
		return v
	}
	if n, ok := number(m.Headers[i].Value, MaxFrame); !ok || int(n) != len(m.Body) {
		v := refuse(m, CauseBadContentLength, 400, "Bad Content-Length")
		v.Close = true
		return v
	}
	return nil
}

// headScanner finds the end of a head in a growing buffer and looks at each byte
// about once. Bare CR and bare LF end a line too, so that a message that uses them
// gets its answer instead of a time-out.
type headScanner struct {
	pos  int  // first byte not looked at
	line int  // start of the current line
	bare bool // the line before ended with a bare CR or LF
}

// scan returns the index after the empty line that ends the head. strict is false
// when that line owes its existence to a bare CR or LF.
func (s *headScanner) scan(b []byte) (end int, strict, ok bool) {
	for s.pos < len(b) {
		rest := b[s.pos:]
		cr := bytes.IndexByte(rest, '\r')
		if cr >= 0 {
			rest = rest[:cr]
		}
		lf := bytes.IndexByte(rest, '\n')
		if cr < 0 && lf < 0 {
			s.pos = len(b)
			break
		}
		var eol, next int
		bare := true
		switch {
		case lf >= 0:
			eol = s.pos + lf
			next = eol + 1
		case s.pos+cr+1 == len(b):
			s.pos += cr
			// After a bare end this CR ends the head whatever follows it.
			return len(b), false, s.bare && s.pos == s.line
		default:
			eol = s.pos + cr
			next = eol + 1
			if b[next] == '\n' {
				next, bare = next+1, false
			}
		}
		if eol == s.line {
			return next, !bare && !s.bare, true
		}
		s.pos, s.line, s.bare = next, next, bare
	}
	return 0, false, false
}

// headParser collects headers and the first thing that is wrong.
type headParser struct {
	m      *Message
	folded []byte // value of the last header, which has continuation lines
	cause  Cause
	status int
	phrase string
}

func (p *headParser) fail(cause Cause, status int, phrase string) {
	if p.cause == "" {
		p.cause, p.status, p.phrase = cause, status, phrase
	}
}

// textOf is bytes that nobody changes as text, without a copy.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// parseHead reads start line and headers. The message is never nil.
func parseHead(text string) (*Message, *Violation) {
	p := headParser{m: &Message{Headers: make([]Header, 0, min(strings.Count(text, "\n"), MaxHeaders))}}
	if strings.IndexByte(text, 0) >= 0 {
		p.fail(CauseNUL, 400, "NUL In Head")
		// Removed, so that an answer made from these headers is clean.
		text = strings.ReplaceAll(text, "\x00", "")
	}
	line, rest := p.cutLine(text)
	p.startLine(line)
	for rest != "" {
		line, rest = p.cutLine(rest)
		if line == "" {
			break
		}
		p.headerLine(line)
	}
	p.unfold()
	for i := range p.m.Headers {
		h := &p.m.Headers[i]
		h.Value = trim(h.Value)
		if len(h.Name)+len(h.Value)+2 > MaxLine {
			p.fail(CauseHeaderTooLong, 400, "Header Too Long")
		}
	}
	if p.cause == "" {
		return p.m, nil
	}
	return p.m, refuse(p.m, p.cause, p.status, p.phrase)
}

// cutLine cuts the first line off and notes an end that is not CRLF.
func (p *headParser) cutLine(s string) (line, rest string) {
	i := strings.IndexByte(s, '\n')
	if i < 0 {
		i = len(s)
	} else if i > 0 && s[i-1] == '\r' && strings.IndexByte(s[:i-1], '\r') < 0 {
		return s[:i-1], s[i+1:]
	}
	if cr := strings.IndexByte(s[:i], '\r'); cr >= 0 {
		p.fail(CauseLineEnd, 400, "Bare CR In Head")
		return s[:cr], s[cr+1:]
	}
	p.fail(CauseLineEnd, 400, "Bare LF In Head")
	if i == len(s) {
		return s, ""
	}
	return s[:i], s[i+1:]
}

// startLine reads "METHOD SP URI SP SIP/2.0" or "SIP/2.0 SP 3DIGIT SP phrase"
// (RFC 3261 7.1, 7.2): single blanks, nothing before or after.
func (p *headParser) startLine(line string) {
	if len(line) > MaxLine {
		p.fail(CauseHeaderTooLong, 400, "Start Line Too Long")
	}
	m := p.m
	if len(line) >= 4 && strings.EqualFold(line[:4], "SIP/") {
		m.response = true
		version, rest, _ := strings.Cut(line, " ")
		code, phrase, ok := strings.Cut(rest, " ")
		n, numeric := number(code, 699)
		switch {
		case !ok || len(code) != 3 || !numeric || n < 100:
			p.fail(CauseStartLine, 400, "Bad Status Line")
		case !strings.EqualFold(version, "SIP/2.0"):
			p.fail(CauseVersion, 505, "Version Not Supported")
		default:
			m.Status, m.Phrase = int(n), phrase
		}
		return
	}
	method, rest, _ := strings.Cut(line, " ")
	if !isToken(method) {
		p.fail(CauseStartLine, 400, "Bad Request Line")
		return
	}
	m.Method = method
	uri, version, ok := strings.Cut(rest, " ")
	switch {
	case !ok || uri == "" || blank.index(version) >= 0:
		p.fail(CauseStartLine, 400, "Bad Request Line")
	case strings.EqualFold(version, "SIP/2.0"):
		m.URI = uri
	case len(version) > 4 && strings.EqualFold(version[:4], "SIP/") && versionOK(version[4:]):
		p.fail(CauseVersion, 505, "Version Not Supported")
	default:
		p.fail(CauseStartLine, 400, "Bad Request Line")
	}
}

func versionOK(s string) bool {
	major, minor, ok := strings.Cut(s, ".")
	return ok && isDigits(major) && isDigits(minor)
}

// headerLine adds a header or continues the last one.
func (p *headParser) headerLine(line string) {
	m := p.m
	if isBlank(line[0]) {
		if len(m.Headers) == 0 {
			p.fail(CauseStrayFold, 400, "Continuation Without Header")
			return
		}
		// Collected: thousands of small continuations must not be copied over and over.
		if p.folded == nil {
			p.folded = append(p.folded, trim(m.Headers[len(m.Headers)-1].Value)...)
		}
		if len(p.folded)+len(line) > MaxLine {
			p.fail(CauseHeaderTooLong, 400, "Header Too Long")
			return
		}
		if line = trim(line); line != "" {
			p.folded = append(append(p.folded, ' '), line...)
		}
		return
	}
	p.unfold()
	colon := strings.IndexByte(line, ':')
	if colon < 0 {
		p.fail(CauseNoColon, 400, "Header Without Colon")
		return
	}
	// HCOLON allows white space before the colon (RFC 3261 25.1).
	name := trim(line[:colon])
	if !isToken(name) {
		p.fail(CauseHeaderName, 400, "Bad Header Name")
		return
	}
	if len(m.Headers) >= MaxHeaders {
		p.fail(CauseTooManyHeaders, 400, "Too Many Headers")
		return
	}
	m.Headers = append(m.Headers, Header{name, line[colon+1:]})
}

// unfold gives the last header the value that its continuation lines make up.
func (p *headParser) unfold() {
	if p.folded != nil {
		p.m.Headers[len(p.m.Headers)-1].Value, p.folded = string(p.folded), nil
	}
}
