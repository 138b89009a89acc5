package sipalg

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// testMap is the network of the guide's figure: the call agent has a static
// translation, all else of 192.168.10.0/24 and fd00::/64 is hidden.
type testMap struct{ pat bool }

var (
	agentReal   = netip.MustParseAddr("192.168.10.30")
	agentMapped = netip.MustParseAddr("209.165.200.227")
	insideNet   = netip.MustParsePrefix("192.168.10.0/24")
	insideNet6  = netip.MustParsePrefix("fd00::/64")
)

func (m testMap) ToOutside(a netip.Addr, port uint16) (netip.Addr, uint16, bool) {
	if a != agentReal {
		return a, port, false
	}
	if m.pat && (port == 0 || port == 5060) {
		port = 5070
	}
	return agentMapped, port, true
}

func (m testMap) ToInside(a netip.Addr, port uint16) (netip.Addr, uint16, bool) {
	if a != agentMapped {
		return a, port, false
	}
	if m.pat && port == 5070 {
		port = 5060
	}
	return agentReal, port, true
}

func (m testMap) IsInside(a netip.Addr) bool { return insideNet.Contains(a) || insideNet6.Contains(a) }
func (m testMap) Hide() netip.Addr           { return agentMapped }

func testRewriter() *Rewriter {
	return &Rewriter{
		Map: testMap{}, Seal: NewSealer([32]byte{1}), InsideTransport: "TCP",
		SourceRemote: netip.MustParseAddrPort("198.51.100.9:33333"),
	}
}

// mask replaces tokens, which depend on the key, by T.
func mask(s string) string {
	for from := 0; ; {
		i := strings.Index(s[from:], "x-ime=")
		if i < 0 {
			return s
		}
		i += from + len("x-ime=")
		j := i
		for j < len(s) && charClass[s[j]]&classToken != 0 {
			j++
		}
		s, from = s[:i]+"T"+s[j:], i
	}
}

func request(uri string, headers ...Header) *Message {
	return &Message{Method: "INVITE", URI: uri, Headers: headers}
}

func response(headers ...Header) *Message {
	return &Message{Status: 200, Phrase: "OK", Headers: headers}
}

const outsideURI = "sip:+14085550100@b.example"

// Each row is one header of a request: what leaves, and that the way back (in an
// answer for those that are echoed) gives what was written.
func TestOutboundHeaders(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"Contact", "<sip:100@192.168.10.30:5060;transport=tcp>", "<sip:100@209.165.200.227:5060;transport=tls>"},
		{"Contact", "<sip:100@192.168.10.30;transport=TCP;ob>;expires=5", "<sip:100@209.165.200.227;transport=TLS;ob>;expires=5"},
		{"m", `"Phone 2" <sip:200@192.168.10.50:5062>`, `"Phone 2" <sip:200@209.165.200.227:5062;x-ime=T>`},
		{"Contact", "<sip:200@192.168.10.50:05062;transport=udp>", "<sip:200@209.165.200.227:05062;transport=tls;x-ime=T>"},
		{"Contact", "<sip:200@192.168.10.50:5062;alias=192.168.10.50~5062~1>", "<sip:200@209.165.200.227:5062;alias=209.165.200.227~5062~1;x-ime=T>"},
		{"Contact", "<sip:100@192.168.10.30;transport=udp>", "<sip:100@209.165.200.227;transport=tls;x-ime=T>"},
		{"Contact", "<sip:192.168.10.30-7@192.168.10.30>", "<sip:209.165.200.227-7@209.165.200.227>"},
		{"Contact", "<sip:192.168.10.50-7@192.168.10.50>", "<sip:209.165.200.227-7@209.165.200.227;x-ime=T>"},
		{"Contact", "<sip:200@[fd00::50]:5062>", "<sip:200@209.165.200.227:5062;x-ime=T>"},
		{"Contact", "<sip:200@[::ffff:192.168.10.50]>", "<sip:200@209.165.200.227;x-ime=T>"},
		{"Contact", "<sips:200@192.168.10.30;transport=tcp>", "<sips:200@209.165.200.227;transport=tcp>"},
		{"Contact", "<sip:100@ucm.a.example;transport=tcp>", "<sip:100@ucm.a.example;transport=tls>"},
		{"Contact", "sip:200@192.168.10.50;expires=30", "<sip:200@209.165.200.227;x-ime=T>;expires=30"},
		{"Contact", "sip:100@192.168.10.30;expires=30", "sip:100@209.165.200.227;expires=30"},
		{"Record-Route", "<sip:192.168.10.30;transport=tcp;lr>, <sip:192.168.10.7;lr;r2=on>", "<sip:209.165.200.227;transport=tls;lr>, <sip:209.165.200.227;lr;r2=on;x-ime=T>"},
		{"Route", "<sip:198.51.100.9:5061;transport=tcp;lr>", "<sip:198.51.100.9:5061;transport=tls;lr>"},
		{"Path", "<sip:192.168.10.7;lr>", "<sip:209.165.200.227;lr;x-ime=T>"},
		{"Service-Route", "<sip:192.168.10.30;lr>", "<sip:209.165.200.227;lr>"},
		{"From", `"192.168.10.50" <sip:100@192.168.10.50>;tag=192.168.10.50-a`, `"209.165.200.227" <sip:100@209.165.200.227;x-ime=T>;tag=192.168.10.50-a`},
		{"f", "sip:100@192.168.10.30;tag=x", "sip:100@209.165.200.227;tag=x"},
		{"To", "<sip:+1@198.51.100.9;transport=tcp>", "<sip:+1@198.51.100.9;transport=tcp>"},
		{"To", "<tel:+14085550100;phone-context=192.168.10.30>", "<tel:+14085550100;phone-context=209.165.200.227>"},
		{"Reply-To", "<sip:100@192.168.10.30>", "<sip:100@209.165.200.227>"},
		{"P-Asserted-Identity", `"A" <sip:100@192.168.10.30>, <tel:+1408>`, `"A" <sip:100@209.165.200.227>, <tel:+1408>`},
		{"P-Preferred-Identity", "<sip:100@192.168.10.50>", "<sip:100@209.165.200.227;x-ime=T>"},
		{"Remote-Party-ID", "<sip:100@192.168.10.30>;party=calling", "<sip:100@209.165.200.227>;party=calling"},
		{"Referred-By", "<sip:100@192.168.10.30>", "<sip:100@209.165.200.227>"},
		{
			"Refer-To", "<sip:3@198.51.100.9?Replaces=a%40192.168.10.30%3Bto-tag%3D1%3Bfrom-tag%3D2&Route=%3Csip:192.168.10.50%3Blr%3E>",
			"<sip:3@198.51.100.9?Replaces=a%40192.168.10.30%3Bto-tag%3D1%3Bfrom-tag%3D2&Route=%3Csip%3A209.165.200.227%3Blr%3Bx-ime%3DTOKEN>",
		},
		{"Refer-To", "<sip:3@192.168.10.30?Subject=at%20192.168.10.50>", "<sip:3@209.165.200.227?Subject=at%20209.165.200.227>"},
		{"Replaces", "a@192.168.10.30;to-tag=192.168.10.30;from-tag=2;x=192.168.10.30", "a@192.168.10.30;to-tag=192.168.10.30;from-tag=2;x=209.165.200.227"},
		{"Target-Dialog", "a@192.168.10.30;local-tag=1;remote-tag=2", "a@192.168.10.30;local-tag=1;remote-tag=2"},
		{"Event", "dialog;call-id=a@192.168.10.30;from-tag=1;x=192.168.10.30", "dialog;call-id=a@192.168.10.30;from-tag=1;x=209.165.200.227"},
		{"Authorization", `Digest xuri="1", URI="sip:192.168.10.50", x=192.168.10.50`, `Digest xuri="1", URI="sip:209.165.200.227", x=209.165.200.227`},
		{"Authorization", `Digest uri="sip:192.168.10.50`, `Digest uri="sip:209.165.200.227`},
		{"Diversion", "<sip:100@192.168.10.50>;reason=unconditional", "<sip:100@209.165.200.227;x-ime=T>;reason=unconditional"},
		{"History-Info", "<sip:1@192.168.10.30?Reason=SIP%3Bcause%3D302>;index=1,<sip:2@192.168.10.50>;index=1.1", "<sip:1@209.165.200.227?Reason=SIP%3Bcause%3D302>;index=1,<sip:2@209.165.200.227;x-ime=T>;index=1.1"},
		{"Warning", `399 192.168.10.30:5060 "from 192.168.10.50."`, `399 209.165.200.227:5060 "from 209.165.200.227."`},
		{"Call-Info", "<http://192.168.10.30/p.jpg>;purpose=icon", "<http://209.165.200.227/p.jpg>;purpose=icon"},
		{"Alert-Info", "<http://192.168.10.50:80/ring>", "<http://209.165.200.227:80/ring>"},
		{"Error-Info", "<sip:busy@192.168.10.30>", "<sip:busy@209.165.200.227>"},
		{"P-Called-Party-ID", "<sip:100@192.168.10.30>", "<sip:100@209.165.200.227>"},
		{"Authorization", `Digest username="a", realm="192.168.10.30", uri="sip:192.168.10.30;transport=tcp", nonce="x"`, `Digest username="a", realm="209.165.200.227", uri="sip:209.165.200.227;transport=tls", nonce="x"`},
		{"Proxy-Authorization", `Digest uri="sip:b@b.example;transport=tcp"`, `Digest uri="sip:b@b.example;transport=tcp"`},
		{"X-Note", "at 192.168.10.30:5060 and %40192.168.10.50, not 1192.168.10.30 or 192.168.10.300 or 1.192.168.10.30", "at 209.165.200.227:5060 and %40209.165.200.227, not 1192.168.10.30 or 192.168.10.300 or 1.192.168.10.30"},
		{"User-Agent", "Phone (fd00::50) [fd00::50]:5060 on:fd00::5.", "Phone (209.165.200.227) 209.165.200.227:5060 on:209.165.200.227."},
		{"Server", "12:30:45 std::abc 198.51.100.9", "12:30:45 std::abc 198.51.100.9"},
		{"Call-ID", "a@192.168.10.30", "a@192.168.10.30"},
		{"i", "a@192.168.10.50", "a@192.168.10.50"},
		{"In-Reply-To", "a@192.168.10.30", "a@192.168.10.30"},
		{HeaderTicket, "AAEAAQE=192.168.10.30", "AAEAAQE=192.168.10.30"},
		{HeaderFallbackTarget, "<tel:+14085550100>;dtmf=1234", "<tel:+14085550100>;dtmf=1234"},
		{"Via", "SIP/2.0/TCP 192.168.10.30:5060;branch=z9hG4bK1;rport", "SIP/2.0/TLS 209.165.200.227:5060;branch=z9hG4bK1;rport"},
		{"v", "SIP/2.0/TCP 192.168.10.50;branch=z9hG4bK192.168.10.50", "SIP/2.0/TLS 209.165.200.227;branch=z9hG4bK192.168.10.50;x-ime=T"},
		{
			"Via", "SIP/2.0/TCP 192.168.10.30;branch=1, SIP/2.0/UDP 192.168.10.50:5062;received=192.168.10.51;rport=9;branch=2,SIP/2.0/UDP 198.51.100.1;branch=3",
			"SIP/2.0/TLS 209.165.200.227;branch=1, SIP/2.0/UDP 209.165.200.227:5062;received=209.165.200.227;rport=9;branch=2;x-ime=T,SIP/2.0/UDP 198.51.100.1;branch=3",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.in, func(t *testing.T) {
			rw := testRewriter()
			m := request(outsideURI, Header{tt.name, tt.in})
			if err := rw.Outbound(m); err != nil {
				t.Fatal(err)
			}
			got := mask(m.Headers[0].Value)
			if i := strings.Index(got, "x-ime%3D"); i >= 0 { // a nested token
				got = got[:i] + "x-ime%3DTOKEN" + got[strings.LastIndexByte(got, '>'):]
			}
			if got != tt.want {
				t.Fatalf("left as\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What the outside echoes comes back as it was written, to the letter.
func TestEchoRestores(t *testing.T) {
	echoes := []Header{
		{"Via", "SIP/2.0/TCP 192.168.10.30:5060;branch=z9hG4bK1;rport"},
		{"Via", "SIP/2.0/TCP 192.168.10.50;received=192.168.10.51;rport=5;branch=2, SIP/2.0/UDP [fd00::9]:5060;maddr=192.168.10.30;branch=3"},
		{"Via", "SIP/2.0/UDP 198.51.100.1;branch=4"},
		{"Record-Route", "<sip:192.168.10.30;transport=tcp;lr>, <sip:192.168.10.30;lr;r2=on>,<sip:192.168.10.30:5060;transport=UDP;lr>"},
		{"Record-Route", "<sip:7@192.168.10.7:5061;transport=tls;lr>"},
		{"From", `"192.168.10.30" <sip:100@192.168.10.50:5060;transport=Tcp;maddr=192.168.10.51>;tag=192.168.10.30`},
		{"To", "sip:200@192.168.10.50"},
		{"Call-ID", "a@192.168.10.30"},
	}
	for name, rw := range map[string]*Rewriter{"TCP": testRewriter(), "TLS": testRewriter(), "PAT": testRewriter(), "hide port": testRewriter()} {
		t.Run(name, func(t *testing.T) {
			switch name {
			case "TLS":
				rw.InsideTransport = "TLS"
				echoes[0].Value = strings.Replace(echoes[0].Value, "/TCP", "/TLS", 1)
			case "PAT":
				rw.Map = testMap{pat: true}
			case "hide port":
				rw.HidePort = 5070
			}
			req := request(outsideURI, echoes...).Clone()
			want := append([]Header(nil), req.Headers...)
			if err := rw.Outbound(req); err != nil {
				t.Fatal(err)
			}
			if text := req.String(); strings.Contains(strings.Split(text, "Call-ID")[0], "@192.168.10.") {
				t.Errorf("an inside address leaves: %s", text)
			}
			resp := response(req.Headers...)
			if err := rw.Inbound(resp); err != nil {
				t.Fatal(err)
			}
			for i, h := range resp.Headers {
				if h != want[i] {
					t.Errorf("%s came back as\n%s\nwas\n%s", h.Name, h.Value, want[i].Value)
				}
			}
		})
	}
}

// A request within the dialog brings Contact and Record-Route back as Request-URI
// and Route.
func TestInDialogRequestRestores(t *testing.T) {
	rw := testRewriter()
	for _, uri := range []string{
		"sip:100@192.168.10.30:5060;transport=tcp", "sip:100@192.168.10.30", "sip:200@192.168.10.50;transport=udp",
		"sip:200@192.168.10.50:43211", "sip:200@[fd00::50]:5062;transport=tls;ob", "sips:200@192.168.10.50;transport=tcp",
	} {
		resp := response(Header{"Contact", "<" + uri + ">"}, Header{"Record-Route", "<" + uri + ";lr>"})
		if err := rw.Outbound(resp); err != nil {
			t.Fatal(err)
		}
		target, _, _ := AddressURI(resp.Get("Contact"))
		bye := request(target, Header{"Route", resp.Get("Record-Route")})
		if err := rw.Inbound(bye); err != nil {
			t.Fatal(err)
		}
		if bye.URI != uri || bye.Get("Route") != "<"+uri+";lr>" {
			t.Errorf("%s came back as %s with Route %s", uri, bye.URI, bye.Get("Route"))
		}
	}
}

func TestInboundRequest(t *testing.T) {
	rw := testRewriter()
	m := request("sip:+1408@209.165.200.227:5070;transport=tls",
		Header{"Via", "SIP/2.0/TLS 198.51.100.9:5061;branch=z9hG4bK7;rport"},
		Header{"Via", "SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK6"},
		Header{"Route", "<sip:209.165.200.227:5070;transport=tls;lr>"},
		Header{"Record-Route", "<sip:198.51.100.9:5061;transport=tls;lr>"},
		Header{"Contact", "<sip:b@198.51.100.9:5061;transport=tls;x-ime=0abc>"},
		Header{"From", "<sip:b@b.example>;tag=1"},
		Header{"To", "<sip:+1408@209.165.200.227>"},
		Header{"Refer-To", "<sip:c@198.51.100.77;transport=tls>"},
		Header{HeaderFallback, "sensitivity=0"},
		Header{"Subject", "for 209.165.200.227"},
		Header{"Call-ID", "x@209.165.200.227"},
	)
	if err := rw.Inbound(m); err != nil {
		t.Fatal(err)
	}
	want := crlf(`INVITE sip:+1408@192.168.10.30:5070;transport=tcp SIP/2.0
Via: SIP/2.0/TCP 198.51.100.9:5061;branch=z9hG4bK7;rport
Via: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK6
Route: <sip:192.168.10.30:5070;transport=tcp;lr>
Record-Route: <sip:198.51.100.9:5061;transport=tcp;lr>
Contact: <sip:b@198.51.100.9:5061;transport=tcp;x-ime=0abc>
From: <sip:b@b.example>;tag=1
To: <sip:+1408@192.168.10.30>
Refer-To: <sip:c@198.51.100.77;transport=tls>
Subject: for 192.168.10.30
Call-ID: x@209.165.200.227
Content-Length: 0

`)
	if got := m.String(); got != want {
		t.Fatalf("came in as\n%s\nwant\n%s", got, want)
	}
	// The answer: what the peer wrote goes back to it as it wrote it, and what
	// the call agent noted about our inside end does not.
	resp := NewResponse(m, 180, "Ringing at 192.168.10.50", Header{"Record-Route", m.Get("Record-Route")}, Header{HeaderFallback, "sensitivity=3"})
	resp.Headers[0].Value = strings.Replace(resp.Headers[0].Value, ";rport", ";received=192.168.10.1;rport=40000", 1)
	if err := rw.Outbound(resp); err != nil {
		t.Fatal(err)
	}
	text := resp.String()
	for _, line := range []string{
		"SIP/2.0 180 Ringing at 209.165.200.227", "Via: SIP/2.0/TLS 198.51.100.9:5061;branch=z9hG4bK7;received=198.51.100.9;rport=33333",
		"Via: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bK6", "To: <sip:+1408@209.165.200.227>;tag=", "Record-Route: <sip:198.51.100.9:5061;transport=tls;lr>",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the answer lacks %q:\n%s", line, text)
		}
	}
	if strings.Contains(text, HeaderFallback) {
		t.Errorf("the sensitivity header leaves:\n%s", text)
	}
}

// A peer that lives in a private network, perhaps with our own numbers, writes
// them into its messages. Inside they must mislead nobody; the echo must be exact.
func TestPeerWithPrivateAddresses(t *testing.T) {
	rw := testRewriter()
	m := request("sip:+1408@209.165.200.227:5070;transport=tls",
		Header{"Via", "SIP/2.0/TLS 192.168.10.1:5061;branch=z9hG4bK7;rport"},
		Header{"Via", "SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK6;received=192.168.10.44;rport=5"},
		Header{"Via", "SIP/2.0/UDP 192.168.10.30;branch=z9hG4bK5"},
		Header{"Record-Route", "<sip:192.168.10.1:5061;transport=tls;lr>,<sip:198.51.100.9;transport=tls;lr;maddr=192.168.10.9>"},
		Header{"Contact", "<sip:b@192.168.10.50:5062;transport=tls>"},
		Header{"From", "sip:b@192.168.10.50;tag=1"},
		Header{"To", "<sip:+1408@209.165.200.227>"},
		Header{"Call-ID", "x"}, Header{"CSeq", "1 INVITE"},
	)
	sent := m.Clone()
	if err := rw.Inbound(m); err != nil {
		t.Fatal(err)
	}
	want := crlf(`INVITE sip:+1408@192.168.10.30:5070;transport=tcp SIP/2.0
Via: SIP/2.0/TCP 198.51.100.9:5061;branch=z9hG4bK7;rport;x-ime=T
Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK6;received=198.51.100.9;rport=5;x-ime=T
Via: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bK5;x-ime=T
Record-Route: <sip:198.51.100.9:5061;transport=tcp;lr;x-ime=T>,<sip:198.51.100.9;transport=tcp;lr;maddr=198.51.100.9;x-ime=T>
Contact: <sip:b@198.51.100.9:5062;transport=tcp;x-ime=T>
From: <sip:b@198.51.100.9;x-ime=T>;tag=1
To: <sip:+1408@192.168.10.30>
Call-ID: x
CSeq: 1 INVITE
Content-Length: 0

`)
	if got := mask(m.String()); got != want {
		t.Fatalf("came in as\n%s\nwant\n%s", got, want)
	}
	target, _, _ := AddressURI(m.Get("Contact"))
	for _, moved := range []bool{false, true} { // the dialog may go on over another connection
		if moved {
			rw.SourceRemote = netip.MustParseAddrPort("198.51.100.10:1")
		}
		resp := NewResponse(m, 100, "Trying", Header{"Record-Route", m.Get("Record-Route")})
		bye := request(target, Header{"Route", m.Get("Record-Route")}, Header{"To", m.Get("From")})
		if err := errors.Join(rw.Outbound(resp), rw.Outbound(bye)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Via", "From", "To", "Record-Route"} {
			if got, was := strings.Join(resp.Values(name), "|"), strings.Join(sent.Values(name), "|"); got != was {
				t.Errorf("%s goes back as %s, was %s", name, got, was)
			}
		}
		if bye.URI != "sip:b@192.168.10.50:5062;transport=tls" || bye.Get("Route") != sent.Get("Record-Route") || bye.Get("To") != sent.Get("From") {
			t.Errorf("request within the dialog:\n%s", bye)
		}
	}
	// A token made for the outside opens nothing on the way out, and vice versa.
	out := response(Header{"Contact", "<sip:200@192.168.10.50>"})
	if err := rw.Outbound(out); err != nil {
		t.Fatal(err)
	}
	again := out.Get("Contact")
	if err := rw.Outbound(out); err != nil || out.Get("Contact") != again {
		t.Errorf("on the way out %s became %s", again, out.Get("Contact"))
	}
}

func TestForeignTokenIsAnOrdinaryParameter(t *testing.T) {
	rw := testRewriter()
	other := NewSealer([32]byte{2}).Seal("u192.168.10.99:5060")
	own := rw.Seal.Seal("v" + "TCP" + secretSep + "192.168.10.99") // a Via's, not a URI's
	stolen := rw.Seal.Seal("u192.168.10.99:5060")
	tests := []struct{ in, want string }{
		{"sip:a@209.165.200.227:5060;x-ime=" + other, "sip:a@192.168.10.30:5060;x-ime=" + other},
		{"sip:a@209.165.200.227:5060;x-ime=" + own, "sip:a@192.168.10.30:5060;x-ime=" + own},
		{"sip:a@209.165.200.227;x-ime", "sip:a@192.168.10.30;x-ime"},
		{"sip:a@198.51.100.9;x-ime=" + stolen, "sip:a@198.51.100.9;x-ime=" + stolen},
		{"sip:a@209.165.200.227;x-ime=" + stolen, "sip:a@192.168.10.99:5060"},
	}
	for _, tt := range tests {
		m := request(tt.in)
		if err := rw.Inbound(m); err != nil {
			t.Fatal(err)
		}
		if m.URI != tt.want {
			t.Errorf("%s became %s, want %s", tt.in, m.URI, tt.want)
		}
	}
}

func TestRewriterRefusesWhatItCannotDo(t *testing.T) {
	if err := (&Rewriter{}).Outbound(request(outsideURI)); err != ErrNoAddressMap {
		t.Errorf("without a map: %v", err)
	}
	m := request(outsideURI)
	for range 1500 {
		m.Add("Contact", "<sip:a@192.168.10.5>")
	}
	if err := testRewriter().Outbound(m); err != ErrRewrittenTooLarge {
		t.Errorf("message that grows over the limit: %v", err)
	}
}

func TestBodies(t *testing.T) {
	part := func(kind, body string) string {
		return "--b1\r\nContent-Type: " + kind + "\r\nContent-ID: <1@192.168.10.30>\r\n\r\n" + body + "\r\n"
	}
	gone := func(s string) string {
		return strings.ReplaceAll(strings.ReplaceAll(s, "192.168.10.30", "209.165.200.227"), "192.168.10.50", "209.165.200.227")
	}
	xml := `<dialog id="1" call-id="a@192.168.10.30"><target uri="sip:1@192.168.10.50"/></dialog>`
	xmlOut := `<dialog id="1" call-id="a@192.168.10.30"><target uri="sip:1@209.165.200.227"/></dialog>`
	tests := []struct{ name, kind, in, want string }{
		{"sipfrag", "message/sipfrag;version=2.0", "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.168.10.50\r\nCall-ID: a@192.168.10.30\r\n", "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 209.165.200.227\r\nCall-ID: a@192.168.10.30\r\n"},
		{"xml", "application/dialog-info+xml", xml, xmlOut},
		{"waiting messages", "application/simple-message-summary", "Message-Account: sip:1@192.168.10.30\r\n", "Message-Account: sip:1@209.165.200.227\r\n"},
		{"sdp", "application/sdp", "v=0\r\nc=IN IP4 192.168.10.50\r\n", "v=0\r\nc=IN IP4 192.168.10.50\r\n"},
		{"text", "text/plain", "at 192.168.10.50", "at 209.165.200.227"},
		{"unknown text", "application/x-phone", "ip=192.168.10.50\n", "ip=209.165.200.227\n"},
		{"binary", "application/isup", "\x01192.168.10.50", "\x01192.168.10.50"},
		{"part without header", "multipart/mixed;boundary=b1", "--b1\r\n\r\n192.168.10.50\r\n--b1--", "--b1\r\n\r\n209.165.200.227\r\n--b1--"},
		{
			"types with addresses", "multipart/mixed;boundary=b1", "--b1\r\nContent-Type: message/external-body;URL=\"http://192.168.10.50/\"\r\n\r\n\r\n--b1--",
			"--b1\r\nContent-Type: message/external-body;URL=\"http://209.165.200.227/\"\r\n\r\n\r\n--b1--",
		},
		{
			"multipart", `multipart/mixed;boundary="b1"`, "pre\r\n" + part("application/x+xml", xml) + part("application/sdp", "v=0\r\nc=IN IP4 192.168.10.50") + "--b1--\r\nend",
			"pre\r\n" + strings.Replace(part("application/x+xml", xmlOut), "<1@192.168.10.30>", "<1@209.165.200.227>", 1) +
				strings.Replace(part("application/sdp", "v=0\r\nc=IN IP4 192.168.10.50"), "<1@192.168.10.30>", "<1@209.165.200.227>", 1) + "--b1--\r\nend",
		},
		{
			"multipart within", "multipart/mixed;boundary=b2", "--b2\r\nContent-Type: multipart/related;boundary=b1\r\n\r\n" + part("message/sipfrag", "192.168.10.30") + "--b1--\r\n--b2--",
			"--b2\r\nContent-Type: multipart/related;boundary=b1\r\n\r\n" + gone(part("message/sipfrag", "192.168.10.30")) + "--b1--\r\n--b2--",
		},
		{"coded part", "multipart/mixed;boundary=b1", "--b1\r\nContent-Type: message/sipfrag\r\nContent-Transfer-Encoding: base64\r\n\r\n192.168.10.30\r\n--b1--", "--b1\r\nContent-Type: message/sipfrag\r\nContent-Transfer-Encoding: base64\r\n\r\n192.168.10.30\r\n--b1--"},
		{"part with its length", "multipart/mixed;boundary=b1", "--b1\r\nContent-Type: message/sipfrag\r\nContent-Length: 13\r\n\r\n192.168.10.30\r\n--b1--", "--b1\r\nContent-Type: message/sipfrag\r\nContent-Length: 15\r\n\r\n209.165.200.227\r\n--b1--"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := request(outsideURI, Header{"Content-Type", tt.kind}, Header{"Content-Length", "1"})
			m.Body = []byte(tt.in)
			if err := testRewriter().Outbound(m); err != nil {
				t.Fatal(err)
			}
			if string(m.Body) != tt.want {
				t.Errorf("left as\n%s\nwant\n%s", m.Body, tt.want)
			}
		})
	}
}

func TestMultipartDepthIsBounded(t *testing.T) {
	nest := func(depth int) *Message {
		kind, body := "message/sipfrag", "192.168.10.30"
		for i := range depth {
			b := strings.Repeat("b", i+1)
			body = "--" + b + "\r\nContent-Type: " + kind + "\r\n\r\n" + body + "\r\n--" + b + "--\r\n"
			kind = "multipart/mixed;boundary=" + b
		}
		m := request(outsideURI, Header{"Content-Type", kind})
		m.Body = []byte(body)
		return m
	}
	for depth, translated := range map[int]bool{0: true, maxMultipart: true, maxMultipart + 1: false} {
		m := nest(depth)
		if err := testRewriter().Outbound(m); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(m.Body), "209.165.200.227"); got != translated {
			t.Errorf("depth %d: translated %v, want %v\n%s", depth, got, translated, m.Body)
		}
	}
}

func TestFilterFallbackTarget(t *testing.T) {
	good := Header{HeaderFallbackTarget, "<tel:+14085550100>;dtmf=1234"}
	invite := Header{"CSeq", "1 INVITE"}
	answer := func(status int, cseq Header, hs ...Header) *Message {
		return &Message{Status: status, Headers: append([]Header{cseq}, hs...)}
	}
	tests := []struct {
		name   string
		m      *Message
		inside bool
		stays  bool
	}{
		{"200", answer(200, invite, good), true, true},
		{"183", answer(183, invite, good), true, true},
		{"189", answer(189, invite, good), true, true},
		{"190", answer(190, invite, good), true, false},
		{"100", answer(100, invite, good), true, false},
		{"202", answer(202, invite, good), true, false},
		{"486", answer(486, invite, good), true, false},
		{"call from outside", answer(200, invite, good), false, false},
		{"200 to UPDATE", answer(200, Header{"CSeq", "2 UPDATE"}, good), true, false},
		{"request", &Message{Method: "INVITE", Headers: []Header{invite, good}}, true, false},
		{"twice", answer(200, invite, good, good), true, false},
		{"15 digits", answer(200, invite, Header{HeaderFallbackTarget, "<tel:+123456789012345>;dtmf=12345678901234567890"}), true, true},
		{"16 digits", answer(200, invite, Header{HeaderFallbackTarget, "<tel:+1234567890123456>;dtmf=1234"}), true, false},
		{"no plus", answer(200, invite, Header{HeaderFallbackTarget, "<tel:14085550100>;dtmf=1234"}), true, false},
		{"no digits", answer(200, invite, Header{HeaderFallbackTarget, "<tel:+>;dtmf=1234"}), true, false},
		{"short dtmf", answer(200, invite, Header{HeaderFallbackTarget, "<tel:+1>;dtmf=123"}), true, false},
		{"long dtmf", answer(200, invite, Header{HeaderFallbackTarget, "<tel:+1>;dtmf=123456789012345678901"}), true, false},
		{"star", answer(200, invite, Header{HeaderFallbackTarget, "<tel:+1>;dtmf=12*4"}), true, false},
		{"tail", answer(200, invite, Header{HeaderFallbackTarget, "<tel:+1>;dtmf=1234;x"}), true, false},
		{"sip", answer(200, invite, Header{HeaderFallbackTarget, "<sip:+1>;dtmf=1234"}), true, false},
	}
	for _, tt := range tests {
		removed := FilterFallbackTarget(tt.m, tt.inside)
		if got := tt.m.Has(HeaderFallbackTarget); got != tt.stays || removed == got {
			t.Errorf("%s: stays %v (reported removed %v), want %v", tt.name, got, removed, tt.stays)
		}
	}
}

// What a call agent has from its own proxy alone comes from nobody on the Internet, under whatever name.
func TestFilterOwn(t *testing.T) {
	m := request("sip:1@a.example", Header{"X-Cisco-UC-IME-Quality", "mos=1.0"}, Header{"Subject", "x"}, Header{"x-cisco-uc-ime-dial", "+19005550100"}, Header{HeaderTicket, "t"},
		Header{"X-CISCO-UC-IME-Dial", "again"}, Header{HeaderFallbackTarget, "<tel:+1>;dtmf=1234"}, Header{"X-Cisco-UC-IM", "y"}, Header{HeaderFallback, "sensitivity=5"})
	FilterOwn(m)
	for name, want := range map[string]int{"X-Cisco-UC-IME-Quality": 0, "Subject": 1, "X-Cisco-UC-IME-Dial": 0, HeaderTicket: 1, HeaderFallbackTarget: 1, "X-Cisco-UC-IM": 1, HeaderFallback: 0} {
		if got := m.Count(name); got != want {
			t.Errorf("%d of %s are left, want %d", got, name, want)
		}
	}
}
