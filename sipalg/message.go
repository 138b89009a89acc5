package sipalg

import (
	"strconv"
	"strings"
)

// Header is one header of a message.
type Header struct {
	// Name is spelt as received, compact or not.
	Name string
	// Value is unfolded and without white space at its ends.
	Value string
}

// Is reports whether the header is the named one, in any case and in either its
// full or its compact form.
func (h Header) Is(name string) bool { return sameName(h.Name, name) }

func sameName(a, b string) bool {
	if len(a) == len(b) { // most names differ in their first letter, and are spelt as here where they do not
		return a == b || a != "" && a[0]|0x20 == b[0]|0x20 && strings.EqualFold(a, b)
	}
	if len(a) != 1 && len(b) != 1 {
		return false
	}
	return strings.EqualFold(fullName(a), fullName(b))
}

// Message is a SIP request or response. Order and spelling of the headers are
// those of the sender.
type Message struct {
	// Method and URI are set in requests alone.
	Method string
	URI    string
	// Status (100 to 699) and Phrase are set in responses alone.
	Status int
	Phrase string

	Headers []Header
	Body    []byte

	// response marks a status line of which Status could not be read.
	response bool
	// keys are of a message that Check has passed, and that lost and got no header since.
	keys messageKeys
	// inside is the Request-URI as the other side sees it, if that has been asked for.
	inside requestURI
}

// messageKeys are what tells the dialog and the transaction of a message; it is asked for time and again. A translation changes none of it.
type messageKeys struct {
	known                  bool
	fromTag, toTag, branch string
	cseq                   uint32
	method                 string
}

// requestURI is what a rewriter has made of a Request-URI.
type requestURI struct {
	by      *Rewriter
	of, now string
}

// IsRequest reports whether the message is a request.
func (m *Message) IsRequest() bool { return m.Status == 0 && !m.response }

// Clone makes a copy whose headers may be changed without a change of the other's. They share the body: a body is replaced, its bytes are never
// changed.
func (m *Message) Clone() *Message {
	c := *m
	c.Headers = append([]Header(nil), m.Headers...)
	return &c
}

// CopyTo makes c what Clone gives, in the memory of the headers that c has had.
func (m *Message) CopyTo(c *Message) {
	headers := append(c.Headers[:0], m.Headers...)
	*c = *m
	c.Headers = headers
}

// Size is about as many bytes as the message keeps in memory.
func (m *Message) Size() int {
	n := len(m.URI) + len(m.Body)
	for i := range m.Headers {
		n += len(m.Headers[i].Name) + len(m.Headers[i].Value)
	}
	return n
}

// Bytes writes the message with CRLF line ends. Content-Length is that of the
// body whatever the headers say: a wrong one is corrected in its place, a missing
// one is added at the end, a second one is left out.
func (m *Message) Bytes() []byte {
	n := len(m.Method) + len(m.URI) + len(m.Phrase) + len(m.Body) + 48
	for i := range m.Headers {
		n += len(m.Headers[i].Name) + len(m.Headers[i].Value) + 4
	}
	return m.Append(make([]byte, 0, n))
}

// Append writes what Bytes gives after b.
func (m *Message) Append(b []byte) []byte {
	if m.IsRequest() {
		b = append(b, m.Method...)
		b = append(b, ' ')
		b = append(b, m.URI...)
		b = append(b, " SIP/2.0\r\n"...)
	} else {
		b = append(b, "SIP/2.0 "...)
		b = strconv.AppendInt(b, int64(m.Status), 10)
		b = append(b, ' ')
		b = append(b, m.Phrase...)
		b = append(b, "\r\n"...)
	}
	length := false
	for _, h := range m.Headers {
		isLength := h.Is("Content-Length")
		if isLength && length {
			continue
		}
		b = append(b, h.Name...)
		b = append(b, ": "...)
		if isLength {
			length = true
			b = strconv.AppendInt(b, int64(len(m.Body)), 10)
		} else {
			b = append(b, h.Value...)
		}
		b = append(b, "\r\n"...)
	}
	if !length {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(m.Body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, m.Body...)
}

// String is Bytes as text.
func (m *Message) String() string { return string(m.Bytes()) }

func (m *Message) index(name string) int {
	for i := range m.Headers {
		if m.Headers[i].Is(name) {
			return i
		}
	}
	return -1
}

// Get returns the value of the first header of that name, "" if there is none.
func (m *Message) Get(name string) string {
	if i := m.index(name); i >= 0 {
		return m.Headers[i].Value
	}
	return ""
}

// Has reports whether a header of that name exists.
func (m *Message) Has(name string) bool { return m.index(name) >= 0 }

// Count returns the number of header lines of that name.
func (m *Message) Count(name string) int {
	n := 0
	for i := range m.Headers {
		if m.Headers[i].Is(name) {
			n++
		}
	}
	return n
}

// Values returns the values of all headers of that name in order. Where the
// header is a list by its grammar, each element stands apart.
func (m *Message) Values(name string) []string {
	var out []string
	list := headerOf(name).list
	for i := range m.Headers {
		if !m.Headers[i].Is(name) {
			continue
		}
		if !list {
			out = append(out, m.Headers[i].Value)
			continue
		}
		for rest, more := m.Headers[i].Value, true; more; {
			var element string
			element, rest, more = cutList(rest)
			out = append(out, trim(element))
		}
	}
	return out
}

// Set gives the first header of that name the value, removes the others, and
// adds the header at the end where there is none.
func (m *Message) Set(name, value string) {
	i := m.index(name)
	if i < 0 {
		m.Add(name, value)
		return
	}
	m.Headers[i].Value = value
	m.keys = messageKeys{}
	m.del(name, i+1)
}

// Add appends a header after all others.
func (m *Message) Add(name, value string) {
	m.keys = messageKeys{}
	m.Headers = append(m.Headers, Header{name, value})
}

// Prepend puts a header before the first one of that name, or before all others.
func (m *Message) Prepend(name, value string) {
	m.keys = messageKeys{}
	i := max(m.index(name), 0)
	m.Headers = append(m.Headers, Header{})
	copy(m.Headers[i+1:], m.Headers[i:])
	m.Headers[i] = Header{name, value}
}

// Del removes every header of that name and returns how many there were.
func (m *Message) Del(name string) int { return m.del(name, 0) }

func (m *Message) del(name string, from int) int {
	kept := m.Headers[:from]
	for _, h := range m.Headers[from:] {
		if !h.Is(name) {
			kept = append(kept, h)
		}
	}
	n := len(m.Headers) - len(kept)
	if m.Headers = kept; n > 0 {
		m.keys = messageKeys{}
	}
	return n
}

// CallID returns the Call-ID, "" if there is none.
func (m *Message) CallID() string { return m.Get("Call-ID") }

// FromTag returns the tag of From, "" if there is none.
func (m *Message) FromTag() string {
	if m.keys.known {
		return m.keys.fromTag
	}
	return addressParam(m.Get("From"), "tag")
}

// TagOf is the tag of a From or To value, empty without.
func TagOf(value string) string { return addressParam(value, "tag") }

// ToTag returns the tag of To, "" if there is none.
func (m *Message) ToTag() string {
	if m.keys.known {
		return m.keys.toTag
	}
	return addressParam(m.Get("To"), "tag")
}

// CSeq returns number and method of CSeq, zero values when it is absent or
// malformed.
func (m *Message) CSeq() (uint32, string) {
	if m.keys.known {
		return m.keys.cseq, m.keys.method
	}
	n, method, ok := parseCSeq(m.Get("CSeq"))
	if !ok {
		return 0, ""
	}
	return n, method
}

// parseCSeq reads "1*DIGIT LWS Method"; the number is below 2^31 (RFC 3261
// 8.1.1.5).
func parseCSeq(v string) (uint32, string, bool) {
	i := blank.index(v)
	if i < 0 {
		return 0, "", false
	}
	n, ok := number(v[:i], 1<<31-1)
	method := trim(v[i:])
	if !ok || !isToken(method) {
		return 0, "", false
	}
	return uint32(n), method, true
}

// MaxForwards returns the value of Max-Forwards (0 to 255); ok is false when the
// header is absent or no such number.
func (m *Message) MaxForwards() (hops int, ok bool) {
	n, ok := number(m.Get("Max-Forwards"), 255)
	return int(n), ok
}

// Branch returns the branch of the first Via element, "" where it has none or is malformed.
func (m *Message) Branch() string {
	if m.keys.known {
		return m.keys.branch
	}
	i := m.index("Via")
	if i < 0 {
		return ""
	}
	element, _, _ := cutList(m.Headers[i].Value)
	params := strings.IndexByte(element, ';')
	if params < 0 {
		return ""
	}
	branch, _ := findParam(element[params:], "branch")
	return branch
}

// TopVia returns the first Via element.
func (m *Message) TopVia() (Via, bool) {
	i := m.index("Via")
	if i < 0 {
		return Via{}, false
	}
	element, _, _ := cutList(m.Headers[i].Value)
	v, err := ParseVia(trim(element))
	return v, err == nil
}
