package proxy

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"

	"imeproxy/sipalg"
)

// TestRefusedMessageNamesItsCall refuses a message whose Call-ID could be read: an operator who looks for the call finds the line.
func TestRefusedMessageNamesItsCall(t *testing.T) {
	counters, err := newCounters()
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	log := new(bytes.Buffer)
	s := &session{id: 7, a: &Appliance{log: slog.New(slog.NewTextHandler(log, nil)), counters: counters}}
	m := &sipalg.Message{}
	for _, want := range []string{"", "call_id=x@192.0.2.1"} {
		log.Reset()
		s.violation(&conn{Conn: here}, &sipalg.Violation{Cause: sipalg.Causes()[0], Message: m})
		if !strings.Contains(log.String(), want) || strings.Contains(log.String(), "call_id") != (want != "") {
			t.Errorf("%q is not in %q", want, log)
		}
		m.Headers = append(m.Headers, sipalg.Header{Name: "Call-ID", Value: "x@192.0.2.1"})
	}
}
