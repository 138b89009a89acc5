package sdp_test

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imeproxy/sipalg/sdp"
)

// FuzzRewrite reads anything, rewrites it and checks what the other side may
// rely on.
func FuzzRewrite(f *testing.F) {
	for _, g := range readGolden(f) {
		f.Add([]byte(g.given), uint16(20000), true)
	}
	f.Add([]byte("v=0\no=a 1 1 IN IP6 ::\nc=IN IP4 0.0.0.0\nm=x 1/1 y\na=rtcp:1 IN IP4 x\nk=\n\n"), uint16(0), false)
	addr := netip.MustParseAddr("209.165.200.228")
	f.Fuzz(func(t *testing.T, body []byte, port uint16, secure bool) {
		s, err := sdp.Parse(body)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Bytes(), body) {
			t.Fatalf("kept %q of %q", s.Bytes(), body)
		}
		e := sdp.Edit{Addr: addr}
		for range s.Media {
			m := sdp.MediaEdit{Port: int(port)}
			if secure {
				m.Proto = "RTP/SAVP"
				m.Cryptos = []sdp.Crypto{sdp.NewCrypto(1, suite80, seq(1, 16), seq(2, 14))}
			}
			e.Media = append(e.Media, m)
		}
		out, err := s.Rewrite(e)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		checkRewritten(t, s, out, e)
	})
}

func checkRewritten(t *testing.T, s *sdp.Session, out []byte, e sdp.Edit) {
	t.Helper()
	got, err := sdp.Parse(out)
	if err != nil && len(out) <= sdp.MaxBody {
		long := false
		for l := range strings.Lines(string(out)) {
			long = long || len(l) > sdp.MaxLine
		}
		if !long {
			t.Fatalf("made %q: %v", out, err)
		}
	}
	if err != nil {
		return
	}
	if len(got.Media) != len(s.Media) {
		t.Fatalf("%d media became %d", len(s.Media), len(got.Media))
	}
	gone := []string{"candidate", "remote-candidates", "ice-ufrag", "fingerprint", "setup", "key-mgmt", "zrtp-hash"}
	for _, l := range got.Lines {
		name, _, _ := strings.Cut(strings.TrimPrefix(l.Text, "a="), ":")
		if strings.HasPrefix(l.Text, "k=") || slices.Contains(gone, strings.ToLower(strings.TrimSpace(name))) {
			t.Fatalf("%q is left in %q", l.Text, out)
		}
	}
	for i, m := range got.Media {
		was := s.Media[i]
		refused := was.Port == 0 || e.Media[i].Port == 0
		switch {
		case refused && (m.Port != 0 || len(m.Cryptos) != 0):
			t.Fatalf("refused medium %d is %+v", i, m)
		case !refused && (m.Port != e.Media[i].Port || len(m.Cryptos) != len(e.Media[i].Cryptos)):
			t.Fatalf("medium %d is %+v", i, m)
		case m.Hold != was.Hold, m.Direction != was.Direction, m.Kind != was.Kind, m.BadCryptos != 0, m.ICE:
			t.Fatalf("medium %d was %+v, is %+v", i, was, m)
		case !refused && !m.Hold && m.Connection != e.Addr:
			t.Fatalf("medium %d goes to %v", i, m.Connection)
		case refused && m.ConnectionHost != "" && !m.Hold && m.Connection != e.Addr:
			t.Fatalf("refused medium %d names %v", i, m.ConnectionHost)
		}
	}
	if s.Origin.Host != "" && got.Origin.Addr != e.Addr {
		t.Fatalf("origin is %v", got.Origin)
	}
}

func FuzzParseCrypto(f *testing.F) {
	k := b64(0, 30)
	for _, s := range []string{
		"a=crypto:1 " + suite80 + " inline:" + k, "1 AEAD_AES_128_GCM inline:" + b64(0, 28) + "==|2^20|1:4 WSH=128",
		"1 " + suite80 + " inline:" + k + "|1000|00012:4;inline:" + k + "|2:4 FEC_ORDER=FEC_SRTP", "1 X inline:AA",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := sdp.ParseCrypto(line)
		if err != nil {
			return
		}
		again, err := sdp.ParseCrypto(c.String())
		if err != nil {
			t.Fatalf("%q printed as %q: %v", line, c, err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("%q printed as %q: %s", line, c, diff)
		}
		_ = c.Usable()
	})
}

func FuzzFindPart(f *testing.F) {
	f.Add("application/sdp", []byte("v=0\r\n"))
	f.Add("multipart/mixed;boundary=b", []byte("--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n"))
	f.Add(`multipart/mixed; x="\""; boundary="b c"`, []byte("p\r\n--b c\r\nc: multipart/mixed;\r\n boundary=d\r\n\r\n--d\r\nC:application/sdp\r\n\r\nv=0\r\n--d--\r\n--b c--"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		part, replace, ok, err := sdp.FindPart(contentType, body)
		if err != nil || !ok {
			return
		}
		if !bytes.Equal(replace(part), body) {
			t.Fatalf("%q: the same part gives another body", body)
		}
		mark := []byte("v=0\r\ns=MARK")
		after, _, ok, err := sdp.FindPart(contentType, replace(mark))
		if err != nil || !ok || !bytes.Equal(after, mark) {
			t.Fatalf("%q: replaced, found %q, %v, %v", body, after, ok, err)
		}
	})
}
