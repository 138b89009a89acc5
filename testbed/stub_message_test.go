package testbed

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// StubHeader is one header line of a StubMessage, its value unfolded.
type StubHeader struct{ Name, Value string }

// StubMessage is a SIP message written or read by hand: nothing in it is
// checked, so that tests can send what no stack would.
type StubMessage struct {
	Start   string // request or status line; "PING" and "PONG" for RFC 5626 keep-alives
	Headers []StubHeader
	Body    string
	// Raw is what was received, to the byte; empty in messages of our own.
	Raw string
	// Conn is where a received message came on.
	Conn *StubConn
}

// compactNames are the short forms of RFC 3261 section 7.3.3 and of its extensions.
var compactNames = map[string]string{
	"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length", "c": "content-type", "s": "subject",
	"k": "supported", "e": "content-encoding", "o": "event", "r": "refer-to", "u": "allow-events", "x": "session-expires", "b": "referred-by",
}

func canonicalName(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if long, ok := compactNames[name]; ok {
		return long
	}
	return name
}

// All gives the values of a header, one a line.
func (m *StubMessage) All(name string) []string {
	var out []string
	for _, h := range m.Headers {
		if canonicalName(h.Name) == canonicalName(name) {
			out = append(out, h.Value)
		}
	}
	return out
}

// Get gives the first value of a header, "" when there is none.
func (m *StubMessage) Get(name string) string {
	if v := m.All(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set replaces every header of that name by one; Add appends one; Del removes all. They return m.
func (m *StubMessage) Set(name, value string) *StubMessage {
	at := slices.IndexFunc(m.Headers, func(h StubHeader) bool { return canonicalName(h.Name) == canonicalName(name) })
	if at < 0 {
		return m.Add(name, value)
	}
	m.Headers[at].Value = value
	rest := slices.DeleteFunc(m.Headers[at+1:], func(h StubHeader) bool { return canonicalName(h.Name) == canonicalName(name) })
	m.Headers = m.Headers[:at+1+len(rest)]
	return m
}

// Add appends a header.
func (m *StubMessage) Add(name, value string) *StubMessage {
	m.Headers = append(m.Headers, StubHeader{name, value})
	return m
}

// Del removes every header of that name.
func (m *StubMessage) Del(name string) *StubMessage {
	m.Headers = slices.DeleteFunc(m.Headers, func(h StubHeader) bool { return canonicalName(h.Name) == canonicalName(name) })
	return m
}

// WithBody sets body and Content-Type; WithSDP a session description. They return m.
func (m *StubMessage) WithBody(contentType, body string) *StubMessage {
	m.Body = body
	return m.Set("Content-Type", contentType)
}

// WithSDP sets a session description.
func (m *StubMessage) WithSDP(s string) *StubMessage { return m.WithBody("application/sdp", s) }

// Clone copies a message.
func (m *StubMessage) Clone() *StubMessage {
	c := *m
	c.Headers = slices.Clone(m.Headers)
	return &c
}

// Bytes writes the message; a Content-Length is added unless one stands there.
func (m *StubMessage) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\r\n", m.Start)
	for _, h := range m.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	if m.Get("Content-Length") == "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(m.Body))
	}
	b.WriteString("\r\n" + m.Body)
	return b.Bytes()
}

// Method is that of a request, "" in a response.
func (m *StubMessage) Method() string {
	w, _, _ := strings.Cut(m.Start, " ")
	if w == "SIP/2.0" {
		return ""
	}
	return w
}

// Status is that of a response, 0 in a request.
func (m *StubMessage) Status() int {
	f := strings.Fields(m.Start)
	if len(f) < 2 || f[0] != "SIP/2.0" {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

// URI is the Request-URI.
func (m *StubMessage) URI() string {
	f := strings.Fields(m.Start)
	if m.Method() == "" || len(f) < 2 {
		return ""
	}
	return f[1]
}

// CSeq splits the CSeq header.
func (m *StubMessage) CSeq() (n int, method string) {
	fmt.Sscanf(m.Get("CSeq"), "%d %s", &n, &method)
	return n, method
}

var (
	tagParam    = regexp.MustCompile(`;\s*tag=([^;\s>]+)`)
	branchParam = regexp.MustCompile(`;\s*branch=([^;,\s]+)`)
	bracketURI  = regexp.MustCompile(`<([^>]*)>`)
)

func tagOf(value string) string {
	if m := tagParam.FindStringSubmatch(value); m != nil {
		return m[1]
	}
	return ""
}

func uriOf(value string) string {
	if m := bracketURI.FindStringSubmatch(value); m != nil {
		return m[1]
	}
	u, _, _ := strings.Cut(value, ";")
	return strings.TrimSpace(u)
}

// Branch is that of the topmost Via.
func (m *StubMessage) Branch() string {
	if b := branchParam.FindStringSubmatch(m.Get("Via")); b != nil {
		return b[1]
	}
	return ""
}

// parseStub reads the header part of a received message.
func parseStub(head string) *StubMessage {
	m := &StubMessage{}
	lines := strings.Split(head, "\r\n")
	m.Start = lines[0]
	for _, line := range lines[1:] {
		if line != "" && (line[0] == ' ' || line[0] == '\t') && len(m.Headers) > 0 {
			m.Headers[len(m.Headers)-1].Value += " " + strings.TrimSpace(line)
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok {
			m.Headers = append(m.Headers, StubHeader{strings.TrimSpace(name), strings.TrimSpace(value)})
		}
	}
	return m
}

// Match says which message a test waits for.
type Match func(*StubMessage) bool

// ReqIs matches a request by its method, RespIs a response by status and method ("" = any).
func ReqIs(method string) Match {
	return func(m *StubMessage) bool { return m.Method() == method }
}

// RespIs matches a response.
func RespIs(status int, method string) Match {
	return func(m *StubMessage) bool {
		_, cm := m.CSeq()
		return m.Status() == status && (method == "" || cm == method)
	}
}

// FinalIs matches any final response to a method.
func FinalIs(method string) Match {
	return func(m *StubMessage) bool {
		_, cm := m.CSeq()
		return m.Status() >= 200 && cm == method
	}
}

// InCall narrows a match to one Call-ID.
func InCall(callID string, match Match) Match {
	return func(m *StubMessage) bool { return m.Get("Call-ID") == callID && match(m) }
}
