package trace

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

const invite = "INVITE sip:+14085550100@b.example SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK1\r\nFrom: \"A\" <sip:+14085551212@a.example>;tag=1\r\n" +
	"t: <sip:+14085550100@b.example>\r\ni: one@a\r\nCSeq: 1 INVITE\r\nContent-Length: 99\r\n\r\nv=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 INLINE:c2VjcmV0c2VjcmV0|2^20|1:4\r\n"

var (
	inside  = &net.TCPAddr{IP: net.IPv4(192, 168, 10, 30), Port: 5060}
	outside = &net.TCPAddr{IP: net.IPv4(209, 165, 201, 3), Port: 5061}
)

func subscribe(t *testing.T, h *Hub, k Kind, f Filter) *Subscription {
	t.Helper()
	s, err := h.Subscribe(k, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// taken gives what has come so far.
func taken(s *Subscription) (out []*Event) {
	done := make(chan struct{})
	close(done)
	for {
		e, ok := s.Next(done)
		if !ok {
			return out
		}
		out = append(out, e)
	}
}

func TestMessageIsShownWithoutKeys(t *testing.T) {
	var h Hub
	h.Message(inside, outside, false, []byte(invite)) // nobody looks
	s := subscribe(t, &h, SIP, Filter{})
	h.Message(inside, outside, true, []byte(invite))
	got := taken(s)
	if len(got) != 1 {
		t.Fatalf("%d events", len(got))
	}
	text := got[0].String()
	for _, want := range []string{"192.168.10.30:5060 -> 209.165.201.3:5061 TLS, ", "\n  INVITE sip:+14085550100@b.example SIP/2.0\n", "INLINE:xxxxxxxxxxxxxxxx|2^20|1:4\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "c2VjcmV0") || len(got[0].Data) != len(invite) {
		t.Errorf("the key is shown, or the length is another:\n%s", text)
	}
	if got[0].CallID != "one@a" || got[0].Summary() != "INVITE sip:+14085550100@b.example SIP/2.0" {
		t.Errorf("call %q, summary %q", got[0].CallID, got[0].Summary())
	}
}

// A terminal is not disturbed by what the network sends.
func TestShownTextIsClean(t *testing.T) {
	e := &Event{Kind: SIP, Data: []byte("OPTIONS sip:\x1b[2J SIP/2.0\r\n\r\n\x07" + strings.Repeat("a", 2*maxShown))}
	if text := e.String(); strings.ContainsAny(text, "\x1b\x07") || !strings.Contains(text, "bytes more\n") || len(text) > 2*maxShown {
		t.Errorf("got %q", text[:200])
	}
}

func TestFilters(t *testing.T) {
	bye := []byte("BYE sip:192.0.2.9 SIP/2.0\r\nCall-ID: one@a\r\n\r\n")
	other := []byte("OPTIONS sip:c.example SIP/2.0\r\nCall-ID: two@a\r\nFrom: <sip:x@d.example>\r\nTo: <tel:+15555>\r\n\r\n")
	third := &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 5061}
	for name, c := range map[string]struct {
		f    Filter
		want string // calls of INVITE, BYE, OPTIONS, and the event of a ticket
	}{
		"all":                 {Filter{}, "one one two one"},
		"a call":              {Filter{CallID: "one@a"}, "one one one"},
		"another call":        {Filter{CallID: "one"}, ""},
		"called":              {Filter{Number: "14085550100"}, "one one one"},
		"caller":              {Filter{Number: "+14085551212"}, "one one one"},
		"a telephone URI":     {Filter{Number: "15555"}, "two"},
		"part of a number":    {Filter{Number: "1408555"}, ""},
		"address":             {Filter{Peer: "209.165.201.3"}, "one one one"},
		"another address":     {Filter{Peer: "198.51.100.7"}, "two"},
		"domain":              {Filter{Peer: "A.example"}, "one one one"},
		"domain of the other": {Filter{Peer: "d.example"}, "two"},
		"both":                {Filter{Peer: "a.example", Number: "15555"}, ""},
	} {
		var h Hub
		s := subscribe(t, &h, SIP|Ticket, c.f)
		h.Message(inside, outside, false, []byte(invite))
		h.Message(outside, inside, true, bye)
		h.Message(inside, third, true, other)
		h.Event(Ticket, "one@a", "", "verified")
		var got []string
		for _, e := range taken(s) {
			got = append(got, strings.TrimSuffix(e.CallID, "@a"))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: got %q, want %q", name, g, c.want)
		}
	}
}

func TestKindsAreKeptApart(t *testing.T) {
	var h Hub
	if h.Wants(SIP) || (*Hub)(nil).Wants(SIP) {
		t.Error("somebody looks")
	}
	for i, name := range Names() {
		s := subscribe(t, &h, KindOf(name), Filter{})
		for _, k := range []Kind{Ticket, Signaling, Media, Fallback, Mapping} {
			h.Event(k, "", "", "%s it is", k)
		}
		if got := taken(s); len(got) != 1 || got[0].Text != name+" it is" || got[0].Kind != Ticket<<i {
			t.Errorf("%s: got %v", name, got)
		}
		s.Close()
		if h.Wants(KindOf(name)) {
			t.Errorf("somebody looks at %s although nobody is there", name)
		}
	}
	if k := KindOf(""); k&SIP != 0 || k != Ticket|Signaling|Media|Fallback|Mapping {
		t.Errorf("all of uc-ime are %b", k)
	}
}

// A subscriber who takes nothing costs events, not memory, and nobody waits for him; he is told how many.
func TestSlowSubscriberLosesAndIsTold(t *testing.T) {
	var h Hub
	s := subscribe(t, &h, SIP|Ticket, Filter{})
	for range MaxWaiting + 7 {
		h.Event(Ticket, "", "", "x")
	}
	if n := s.Lost(); n != 7 {
		t.Errorf("%d lost, want 7", n)
	}
	if n := s.Lost(); n != 0 {
		t.Errorf("%d lost are told twice", n)
	}
	taken(s)
	big := []byte(invite + strings.Repeat("x", 1<<20))
	for range 20 {
		h.Message(inside, outside, true, big)
	}
	if n := s.Lost(); n != 20-MaxBytes/(1<<20)+1 {
		t.Errorf("%d of 20 messages of a megabyte are lost", n)
	}
	if taken(s); s.bytes.Load() != 0 {
		t.Errorf("%d bytes are counted of nothing", s.bytes.Load())
	}
}

func TestCaps(t *testing.T) {
	var h Hub
	for range MaxSubscriptions {
		subscribe(t, &h, SIP, Filter{})
	}
	if _, err := h.Subscribe(SIP, Filter{}); err == nil {
		t.Error("no limit of subscriptions")
	}
	tr := tracker{Filter: Filter{Number: "1"}}
	for i := range MaxCalls + 5 {
		tr.follow(fmt.Sprint(i))
	}
	if len(tr.calls) != MaxCalls || len(tr.order) != MaxCalls {
		t.Errorf("%d calls are followed", len(tr.calls))
	}
	if tr.passes(&Event{CallID: "4"}) || !tr.passes(&Event{CallID: "5"}) {
		t.Error("not the oldest call was forgotten")
	}
}

func TestNextEndsWithItsChannel(t *testing.T) {
	var h Hub
	s := subscribe(t, &h, SIP, Filter{})
	done := make(chan struct{})
	time.AfterFunc(10*time.Millisecond, func() { close(done) })
	if e, ok := s.Next(done); ok {
		t.Errorf("got %v", e)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(invite), "+14085550100", "a.example")
	f.Add([]byte("inline:inline:"), "", "[::1]")
	f.Fuzz(func(t *testing.T, data []byte, number, peer string) {
		var h Hub
		s, err := h.Subscribe(SIP, Filter{Number: number, Peer: peer})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		h.Message(inside, outside, true, data)
		for _, e := range taken(s) {
			if len(e.Data) != len(data) {
				t.Errorf("%d bytes became %d", len(data), len(e.Data))
			}
			if strings.ContainsAny(e.String()+e.Summary(), "\x00\x07\x1b\r") {
				t.Errorf("control characters in %q", e.String())
			}
		}
	})
}
