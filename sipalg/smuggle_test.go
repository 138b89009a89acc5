package sipalg

import (
	"strings"
	"testing"
)

// A stranger who was shown a token can put it into a Request-URI: what it brings back, a user part included, is what the call agent gets,
// and so what must be judged.
func TestRequestURIShowsWhatATokenBringsBack(t *testing.T) {
	rw := testRewriter()
	// The stranger calls with this From; the call agent gets and repeats it with its own address in the places of the mapped one.
	m := request(outsideURI, Header{"From", "<sip:+19005550100:209.165.200.227@209.165.200.227;transport=udp>;tag=x"})
	if err := rw.Inbound(m); err != nil {
		t.Fatal(err)
	}
	answer := response(Header{"From", m.Get("From")})
	if err := rw.Outbound(answer); err != nil {
		t.Fatal(err)
	}
	_, token, ok := strings.Cut(answer.Get("From"), "x-ime=")
	if !ok {
		t.Skip("no token is shown: " + answer.Get("From"))
	}
	token, _, _ = strings.Cut(token, ">")
	uri := "sip:+14085550100@209.165.200.227;transport=tls;x-ime=" + token
	inv := request(uri)
	if err := rw.Inbound(inv); err != nil {
		t.Fatal(err)
	}
	if got := rw.RequestURI(uri); got != inv.URI {
		t.Errorf("%s is judged as\n%s, the call agent gets\n%s", uri, got, inv.URI)
	}
	again := request(uri) // what is remembered is that of the Request-URI in force
	if got := rw.RequestURIOf(again); got != inv.URI || rw.Inbound(again) != nil || again.URI != inv.URI {
		t.Errorf("%s is judged as\n%s, the call agent gets\n%s", uri, got, again.URI)
	}
	again.URI = "sip:bob@209.165.200.227"
	if got := rw.RequestURIOf(again); got != rw.RequestURI(again.URI) || rw.Inbound(again) != nil || again.URI != got {
		t.Errorf("another Request-URI is judged as\n%s, the call agent gets\n%s", got, again.URI)
	}
	if !strings.Contains(inv.URI, "+19005550100") {
		t.Errorf("the token does not bring its user back: %s", inv.URI)
	}
}

// Small continuation lines are copied once, not once for each that follows: a message of them would cost megabytes.
func TestFoldedHeaderIsCopiedOnce(t *testing.T) {
	frame := []byte("OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bKa\r\nSubject: s" + strings.Repeat("\r\n x", 4000) + "\r\nContent-Length: 0\r\n\r\n")
	var m *Message
	n := testing.AllocsPerRun(10, func() {
		var v *Violation
		if m, v = Parse(frame); v != nil {
			t.Fatal(v)
		}
	})
	if want := "s" + strings.Repeat(" x", 4000); m.Get("Subject") != want {
		t.Errorf("unfolded to %.40q, %d bytes, want %d", m.Get("Subject"), len(m.Get("Subject")), len(want))
	}
	if n > 100 {
		t.Errorf("%.0f allocations for one header of 4000 lines", n)
	}
}

func TestContactOfAllIsForREGISTER(t *testing.T) {
	for method, ok := range map[string]bool{"REGISTER": true, "INVITE": false, "SUBSCRIBE": false} {
		m, v := Parse([]byte(method + " sip:a@b SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: i\r\nCSeq: 1 " + method +
			"\r\nContact: *\r\nContent-Length: 0\r\n\r\n"))
		if v != nil {
			t.Fatal(v)
		}
		if v := Check(m); (v == nil) != ok {
			t.Errorf("%s with Contact: *: %v", method, v)
		}
	}
}
