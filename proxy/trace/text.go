package trace

import (
	"fmt"
	"strings"

	"imeproxy/proxy/observe"
)

// maxShown bounds the bytes of a message that are shown.
const maxShown = 16 << 10

// String shows an event as `debug` does: a line with the time, and for a message the message.
func (e *Event) String() string {
	at := e.At.Format("15:04:05.000")
	if e.Kind != SIP {
		who := ""
		if e.CallID != "" {
			who = " [" + observe.Clean(e.CallID) + "]"
		}
		return at + " " + e.Kind.String() + who + ": " + observe.Clean(e.Text) + "\n"
	}
	transport := "TCP"
	if e.Secure {
		transport = "TLS"
	}
	data := e.Data
	var b strings.Builder
	fmt.Fprintf(&b, "%s sip: %s -> %s %s, %d bytes\n", at, e.From, e.To, transport, len(data))
	if len(data) > maxShown {
		data = data[:maxShown]
	}
	for line := range strings.Lines(string(data)) {
		b.WriteString("  " + observe.Clean(strings.TrimRight(line, "\r\n")) + "\n")
	}
	if n := len(e.Data) - len(data); n > 0 {
		fmt.Fprintf(&b, "  ... %d bytes more\n", n)
	}
	return b.String()
}

// Summary is the first line of a message, or an event's words.
func (e *Event) Summary() string {
	if e.Kind != SIP {
		return observe.Clean(e.Text)
	}
	first, _, _ := strings.Cut(string(e.Data[:min(len(e.Data), 256)]), "\r\n")
	return observe.Clean(first)
}
