package sdp_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"imeproxy/sipalg/sdp"
)

func mustParse(t testing.TB, lines ...string) *sdp.Session {
	t.Helper()
	s, err := sdp.Parse([]byte(strings.Join(lines, "\r\n") + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseSession(t *testing.T) {
	s := mustParse(t, "v=0", "o=John  Doe 123456789012345678901 7 IN IP4 192.168.10.40", "s=-", "c=IN IP4 224.1.1.1/127", "a=recvonly")
	want := sdp.Origin{Username: "John  Doe", SessionID: "123456789012345678901", Version: "7", Host: "192.168.10.40", Addr: netip.MustParseAddr("192.168.10.40")}
	if diff := cmp.Diff(want, s.Origin, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	if s.Connection != netip.MustParseAddr("224.1.1.1") || s.ConnectionHost != "224.1.1.1" || s.Direction != sdp.RecvOnly || len(s.Media) != 0 {
		t.Errorf("%+v", s)
	}
	s = mustParse(t, "v=0", "o=- 1 1 IN IP4 host.example", "c=IN IP4 host.example", "m=audio 1 RTP/AVP 0")
	if s.Connection.IsValid() || s.ConnectionHost != "host.example" || s.Origin.Addr.IsValid() || s.Media[0].Connection.IsValid() || s.Media[0].ConnectionHost != "host.example" {
		t.Errorf("a name became an address: %+v %+v", s, s.Media[0])
	}
}

func TestParseMedia(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, tc := range []struct {
		name  string
		lines []string
		want  sdp.Media
	}{
		{
			"inherits from the session",
			[]string{"c=IN IP4 192.0.2.1", "a=sendonly", "m=audio 4000 RTP/AVP 0 8"},
			sdp.Media{Kind: "audio", Port: 4000, PortCount: 1, Proto: "RTP/AVP", Formats: []string{"0", "8"}, Connection: netip.MustParseAddr("192.0.2.1"), ConnectionHost: "192.0.2.1", RTCP: ap("192.0.2.1:4001"), Direction: "sendonly"},
		},
		{
			"its own values win",
			[]string{"c=IN IP4 192.0.2.1", "a=sendonly", "m=video 4000/2 RTP/AVPF 97", "c=IN IP4 192.0.2.2", "a=sendrecv", "a=rtcp-mux", "a=ptime:20", "a=rtpmap:97  VP8/90000", "a=rtcp:5000 IN IP4 192.0.2.3"},
			sdp.Media{Kind: "video", Port: 4000, PortCount: 2, Proto: "RTP/AVPF", Formats: []string{"97"}, Connection: netip.MustParseAddr("192.0.2.2"), ConnectionHost: "192.0.2.2", RTCP: ap("192.0.2.3:5000"), Mux: true, Direction: "sendrecv", Ptime: 20, Rtpmap: map[string]string{"97": "VP8/90000"}},
		},
		{
			"RTCP port without address",
			[]string{"c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "a=rtcp:5000"},
			sdp.Media{Kind: "audio", Port: 4000, PortCount: 1, Proto: "RTP/AVP", Formats: []string{"0"}, Connection: netip.MustParseAddr("192.0.2.1"), ConnectionHost: "192.0.2.1", RTCP: ap("192.0.2.1:5000"), Direction: "sendrecv"},
		},
		{
			"old hold",
			[]string{"c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0", "c=IN IP4 0.0.0.0"},
			sdp.Media{Kind: "audio", Port: 4000, PortCount: 1, Proto: "RTP/AVP", Formats: []string{"0"}, Connection: netip.MustParseAddr("0.0.0.0"), ConnectionHost: "0.0.0.0", Hold: true, RTCP: ap("0.0.0.0:4001"), Direction: "sendrecv"},
		},
		{
			"old hold of IPv6",
			[]string{"c=IN IP6 ::", "m=audio 4000 RTP/AVP 0"},
			sdp.Media{Kind: "audio", Port: 4000, PortCount: 1, Proto: "RTP/AVP", Formats: []string{"0"}, Connection: netip.MustParseAddr("::"), ConnectionHost: "::", Hold: true, RTCP: ap("[::]:4001"), Direction: "sendrecv"},
		},
		{
			"refused",
			[]string{"c=IN IP4 192.0.2.1", "m=audio 0 RTP/AVP 0"},
			sdp.Media{Kind: "audio", PortCount: 1, Proto: "RTP/AVP", Formats: []string{"0"}, Connection: netip.MustParseAddr("192.0.2.1"), ConnectionHost: "192.0.2.1", Direction: "sendrecv"},
		},
		{
			"DTLS and ICE of the session",
			[]string{"a=fingerprint:sha-1 00", "a=ice-ufrag:x", "m=audio 9 RTP/SAVPF 0"},
			sdp.Media{Kind: "audio", Port: 9, PortCount: 1, Proto: "RTP/SAVPF", Formats: []string{"0"}, RTCP: netip.AddrPortFrom(netip.Addr{}, 10), Direction: "sendrecv", DTLS: true, ICE: true},
		},
		{
			"DTLS by transport, ICE by candidate",
			[]string{"m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=Candidate:1 1 UDP 1 192.0.2.9 9 typ host"},
			sdp.Media{Kind: "audio", Port: 9, PortCount: 1, Proto: "UDP/TLS/RTP/SAVPF", Formats: []string{"0"}, RTCP: netip.AddrPortFrom(netip.Addr{}, 10), Direction: "sendrecv", DTLS: true, ICE: true},
		},
		{
			"values that cannot be read are none",
			[]string{"m=audio 4000 RTP/AVP 0", "a=ptime:x", "a=rtpmap:0", "a=rtcp:0", "a=crypto:1 x", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:short"},
			sdp.Media{Kind: "audio", Port: 4000, PortCount: 1, Proto: "RTP/AVP", Formats: []string{"0"}, RTCP: netip.AddrPortFrom(netip.Addr{}, 4001), Direction: "sendrecv", BadCryptos: 2},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := mustParse(t, append([]string{"v=0"}, tc.lines...)...).Media[0]
			opts := cmp.Options{cmpopts.IgnoreUnexported(sdp.Media{}), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty()}
			if diff := cmp.Diff(&tc.want, m, opts); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	long := func(n int) string { return "a=" + strings.Repeat("x", n-2) }
	media := func(n int) string { return strings.Repeat("m=audio 1 RTP/AVP 0\r\n", n) }
	for name, tc := range map[string]struct {
		body string
		want error
	}{
		"empty":                      {"", sdp.ErrMalformed},
		"no v=":                      {"o=- 1 1 IN IP4 1.1.1.1\r\n", sdp.ErrMalformed},
		"v=1":                        {"v=1\r\n", sdp.ErrMalformed},
		"empty line first":           {"\r\nv=0\r\n", sdp.ErrMalformed},
		"empty line between":         {"v=0\r\n\r\ns=x\r\n", sdp.ErrMalformed},
		"bare CR":                    {"v=0\r\ns=x\rm=audio 1 RTP/AVP 0\r\n", sdp.ErrMalformed},
		"CR at the end":              {"v=0\r\ns=x\r", sdp.ErrMalformed},
		"CR CR LF":                   {"v=0\r\ns=x\r\r\n", sdp.ErrMalformed},
		"NUL":                        {"v=0\r\ns=\x00\r\n", sdp.ErrMalformed},
		"no equals sign":             {"v=0\r\nhello\r\n", sdp.ErrMalformed},
		"blank before the type":      {"v=0\r\n m=audio 1 RTP/AVP 0\r\n", sdp.ErrMalformed},
		"upper-case type":            {"v=0\r\nM=audio 1 RTP/AVP 0\r\n", sdp.ErrMalformed},
		"m= of two fields":           {"v=0\r\nm=audio 1\r\n", sdp.ErrMalformed},
		"port is a word":             {"v=0\r\nm=audio x RTP/AVP 0\r\n", sdp.ErrMalformed},
		"port 65536":                 {"v=0\r\nm=audio 65536 RTP/AVP 0\r\n", sdp.ErrMalformed},
		"port with sign":             {"v=0\r\nm=audio +1 RTP/AVP 0\r\n", sdp.ErrMalformed},
		"port count 0":               {"v=0\r\nm=audio 1/0 RTP/AVP 0\r\n", sdp.ErrMalformed},
		"c= without address":         {"v=0\r\nc=IN IP4\r\n", sdp.ErrMalformed},
		"c= of another network":      {"v=0\r\nc=ATM NSAP 47.0091\r\n", sdp.ErrMalformed},
		"c= of another type":         {"v=0\r\nc=IN E164 +1\r\n", sdp.ErrMalformed},
		"c= of TTL alone":            {"v=0\r\nc=IN IP4 /127\r\n", sdp.ErrMalformed},
		"c= in a medium":             {"v=0\r\nm=audio 1 RTP/AVP 0\r\nc=IN 1.1.1.1\r\n", sdp.ErrMalformed},
		"o= of four fields":          {"v=0\r\no=1 IN IP4 1.1.1.1\r\n", sdp.ErrMalformed},
		"o= without address":         {"v=0\r\no=- 1 1\r\n", sdp.ErrMalformed},
		"two o=":                     {"v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\no=- 1 1 IN IP4 1.1.1.1\r\n", sdp.ErrMalformed},
		"o= after m=":                {"v=0\r\nm=audio 1 RTP/AVP 0\r\no=- 1 1 IN IP4 1.1.1.1\r\n", sdp.ErrMalformed},
		"33 media":                   {"v=0\r\n" + media(33), sdp.ErrTooManyMedia},
		"line of 8193 bytes":         {"v=0\r\n" + long(8193) + "\r\n", sdp.ErrTooLarge},
		"line of 8193 bytes, no end": {"v=0\r\n" + long(8193), sdp.ErrTooLarge},
		"65537 bytes":                {"v=0\r\n" + strings.Repeat(long(98)+"\r\n", 655) + long(32), sdp.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := sdp.Parse([]byte(tc.body)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	for name, body := range map[string]string{
		"32 media":           "v=0\r\n" + media(32),
		"line of 8192 bytes": "v=0\r\n" + long(8192) + "\r\n",
		"65536 bytes":        "v=0\r\n" + strings.Repeat(long(98)+"\r\n", 655) + long(31),
	} {
		if _, err := sdp.Parse([]byte(body)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProtocols(t *testing.T) {
	for _, tc := range []struct {
		proto, secure, plain string
		isSecure             bool
	}{
		{"RTP/AVP", "RTP/SAVP", "RTP/AVP", false},
		{"rtp/savp", "RTP/SAVP", "RTP/AVP", true},
		{"RTP/AVPF", "RTP/SAVPF", "RTP/AVPF", false},
		{"RTP/SAVPF", "RTP/SAVPF", "RTP/AVPF", true},
		{"UDP/TLS/RTP/SAVP", "RTP/SAVP", "RTP/AVP", false},
		{"UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "RTP/AVPF", false},
		{"udptl", "", "", false},
		{"TCP/BFCP", "", "", false},
	} {
		secure, ok := sdp.SecureProto(tc.proto)
		plain, ok2 := sdp.PlainProto(tc.proto)
		m := sdp.Media{Proto: tc.proto}
		if secure != tc.secure || plain != tc.plain || ok != (secure != "") || ok2 != ok || m.IsRTP() != ok || m.IsSecure() != tc.isSecure {
			t.Errorf("%s: %q %v, %q %v, secure %v", tc.proto, secure, ok, plain, ok2, m.IsSecure())
		}
	}
}

func TestTooManyCryptosAreCounted(t *testing.T) {
	lines := []string{"v=0", "m=audio 1 RTP/SAVP 0"}
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("a=crypto:%d AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz", i))
	}
	m := mustParse(t, lines...).Media[0]
	if len(m.Cryptos) != 32 || m.BadCryptos != 8 {
		t.Errorf("%d kept, %d counted", len(m.Cryptos), m.BadCryptos)
	}
}
