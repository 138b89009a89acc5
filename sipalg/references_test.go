package sipalg

import (
	"net/netip"
	"strings"
	"testing"
)

// A header that refers to a call names it by its Call-ID. The border knows one call; the Call-IDs of the others are of the
// inside alone and must not tell its addresses, yet come back whole when the far end refers to them.
func TestReferencesToCalls(t *testing.T) {
	const known, other, plain = "known@192.168.10.30", "other@192.168.10.50", "7f3a@ucm.a.example"
	rw := testRewriter()
	rw.KnownCall = func(id string) bool { return id == known }
	headers := []Header{
		{"Replaces", known + ";to-tag=1;from-tag=2"},
		{"Replaces", other + ";to-tag=1;from-tag=2;early-only"},
		{"Replaces", plain + ";to-tag=1;from-tag=2"},
		{"Join", other + " ;to-tag=1;from-tag=2"},
		{"Target-Dialog", other + ";local-tag=1;remote-tag=2"},
		{"In-Reply-To", known + ", " + other + "," + plain},
		{"Refer-To", "<sip:3@b.example?Replaces=" + escape(other+";to-tag=1;from-tag=2") + ">"},
		{"Call-ID", other},
	}
	out := request(outsideURI, headers...).Clone()
	if err := rw.Outbound(out); err != nil {
		t.Fatal(err)
	}
	for i, h := range out.Headers {
		hidden := strings.Contains(headers[i].Value, "192.168.10.50") && h.Name != "Call-ID"
		if hidden && strings.Contains(h.Value, "192.168.10.50") || !hidden && h != headers[i] {
			t.Errorf("%s: %s left as %s", h.Name, headers[i].Value, h.Value)
		}
	}
	// The far end uses what it was told, in a request of its own.
	back := request("sip:+1408@209.165.200.227:5070", out.Headers[:6]...).Clone()
	uri, _, _ := AddressURI(out.Headers[6].Value)
	_, value, _ := strings.Cut(uri, "Replaces=")
	back.Add("Replaces", unescape(value))
	if err := rw.Inbound(back); err != nil {
		t.Fatal(err)
	}
	want := append(append([]Header(nil), headers[:6]...), Header{"Replaces", other + ";to-tag=1;from-tag=2"})
	want[3].Value = other + ";to-tag=1;from-tag=2"
	for i, h := range back.Headers {
		if h != want[i] {
			t.Errorf("%s came back as %s, was %s", h.Name, h.Value, want[i].Value)
		}
	}
}

func TestForgedReferencesStay(t *testing.T) {
	rw := testRewriter()
	rw.KnownCall = func(string) bool { return false }
	// A token of a URI is no token of a call.
	seen := response(Header{"Contact", "<sip:1@192.168.10.50>"})
	if err := rw.Outbound(seen); err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(strings.TrimSuffix(seen.Get("Contact"), ">"), "x-ime=")
	for _, value := range []string{callIDMark, callIDMark + "0", callIDMark + token, callIDMark + token + ";to-tag=1;from-tag=2"} {
		m := request("sip:1@a.example", Header{"Replaces", value})
		if err := rw.Inbound(m); err != nil {
			t.Fatal(err)
		}
		if m.Get("Replaces") != value {
			t.Errorf("%s became %s", value, m.Get("Replaces"))
		}
	}
}

// Each end asks where its request seemed to come from (RFC 3581) and must be told its own address and port, not those of
// our connections.
func TestAnswersTellWhereRequestsCameFrom(t *testing.T) {
	rw := testRewriter()
	rw.SourceInside = netip.MustParseAddrPort("192.168.10.30:43581")
	for _, tt := range []struct {
		name, sent   string // the topmost Via as its sender wrote it
		out          bool   // its request went out
		noted, wants string // what the other end adds, what must come back
	}{
		{"call agent", "SIP/2.0/TCP 192.168.10.30:5060;branch=z9hG4bK1;rport", true, ";received=209.165.200.227;rport=48556", "SIP/2.0/TCP 192.168.10.30:5060;branch=z9hG4bK1;rport=43581;received=192.168.10.30"},
		{"phone's Via behind it", "SIP/2.0/TCP 192.168.10.50:5060;branch=z9hG4bK1;rport", true, ";received=209.165.200.227;rport=48556", "SIP/2.0/TCP 192.168.10.50:5060;branch=z9hG4bK1;rport=43581;received=192.168.10.30"},
		{"nothing asked", "SIP/2.0/TCP 192.168.10.30:5060;branch=z9hG4bK1", true, ";received=209.165.200.227", "SIP/2.0/TCP 192.168.10.30:5060;branch=z9hG4bK1;received=192.168.10.30"},
		{"peer", "SIP/2.0/TLS 198.51.100.9:5070;branch=z9hG4bK2;rport", false, ";received=198.51.100.9;rport=40001", "SIP/2.0/TLS 198.51.100.9:5070;branch=z9hG4bK2;rport=33333;received=198.51.100.9"},
		{"peer seen as inside", "SIP/2.0/TLS 198.51.100.9:5070;branch=z9hG4bK2;rport", false, ";received=192.168.10.1;rport=40001", "SIP/2.0/TLS 198.51.100.9:5070;branch=z9hG4bK2;rport=33333;received=198.51.100.9"},
		{"peer behind a NAT", "SIP/2.0/TLS b.example;branch=z9hG4bK2;rport", false, ";received=198.51.100.9;rport=40001", "SIP/2.0/TLS b.example;branch=z9hG4bK2;rport=33333;received=198.51.100.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			there, back := rw.Outbound, rw.Inbound
			if !tt.out {
				there, back = rw.Inbound, rw.Outbound
			}
			req := request(outsideURI, Header{"Via", tt.sent})
			if err := there(req); err != nil {
				t.Fatal(err)
			}
			via, err := ParseVia(req.Get("Via"))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range strings.Split(tt.noted, ";")[1:] {
				name, value, _ := strings.Cut(p, "=")
				if _, asked := via.Param("rport"); name != "rport" || asked {
					via.SetParam(name, value)
				}
			}
			resp := response(Header{"Via", via.String()})
			if err := back(resp); err != nil {
				t.Fatal(err)
			}
			if got := resp.Get("Via"); got != tt.wants {
				t.Errorf("came back as\n%s\nwant\n%s", got, tt.wants)
			}
		})
	}
}
