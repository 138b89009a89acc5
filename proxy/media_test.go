package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"imeproxy/mediaterm"
	"imeproxy/sipalg/dialog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testInside  = netip.MustParseAddr("127.0.10.3")
	testOutside = netip.MustParseAddr("127.0.20.3")
)

func testMedia(t *testing.T, secure bool, ports uint16) *media {
	t.Helper()
	term, err := mediaterm.New(mediaterm.Config{Addresses: []netip.Addr{testInside, testOutside}, MinPort: 23000, MaxPort: 23000 + ports - 1, Rest: -1})
	if err != nil {
		t.Fatal(err)
	}
	m := newMedia(mediaPolicy{
		term: term, addr: [2]netip.Addr{testInside, testOutside}, secureIn: secure, callID: "c",
		forbidden: func(a netip.Addr) string {
			if netip.MustParsePrefix("192.168.10.0/24").Contains(a) {
				return "inside"
			}
			return ""
		},
		sweep: func(_ dialog.Side, line string) string {
			return strings.ReplaceAll(line, "192.168.10.21", "203.0.113.9")
		},
	})
	t.Cleanup(func() {
		m.close()
		if err := term.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// body makes a description: an address, then m= lines with their attributes.
func body(addr string, lines ...string) []byte {
	return []byte("v=0\r\no=- 1 1 IN IP4 " + addr + "\r\ns=-\r\nc=IN IP4 " + addr + "\r\nt=0 0\r\n" + strings.Join(lines, "\r\n") + "\r\n")
}

var (
	portRE = regexp.MustCompile(`(m=\w+ )2[0-9]{4} `)
	keyRE  = regexp.MustCompile(`inline:[A-Za-z0-9+/=]+`)
)

// masked hides what differs from run to run: ports and keys.
func masked(b []byte) string {
	s := portRE.ReplaceAllString(string(b), "${1}PORT ")
	return strings.ReplaceAll(keyRE.ReplaceAllString(s, "inline:KEY"), "\r\n", "\n")
}

const (
	key80  = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5"
	key32  = "a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEw"
	gcm128 = "a=crypto:3 AEAD_AES_128_GCM inline:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nw=="
)

func TestOfferFromInside(t *testing.T) {
	m := testMedia(t, false, 100)
	_, out, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 RTP/AVP 0 101", "a=candidate:1 1 UDP 1 192.168.10.21 4000 typ host", "a=x-from:192.168.10.21"), dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"v=0", "o=- 1 1 IN IP4 127.0.20.3", "s=-", "c=IN IP4 127.0.20.3", "t=0 0", "m=audio PORT RTP/SAVP 0 101",
		"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:KEY", "a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:KEY",
		"a=crypto:3 AEAD_AES_128_GCM inline:KEY", "a=crypto:4 AEAD_AES_256_GCM inline:KEY", "a=x-from:203.0.113.9", "",
	}, "\n")
	if got := masked(out); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAnswerFromOutside(t *testing.T) {
	m := testMedia(t, false, 100)
	x, _, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.makeAnswer(x, body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key32), "tag")
	if err != nil {
		t.Fatal(err)
	}
	if got := masked(out); !strings.Contains(got, "m=audio PORT RTP/AVP 0\n") || strings.Contains(got, "crypto") || strings.Contains(got, "198.51.100") {
		t.Errorf("answer for the inside:\n%s", got)
	}
	st := m.lines[0].stream.Stats()
	if st.Outside.Suite != "AES_CM_128_HMAC_SHA1_32" || st.Outside.Remote != "198.51.100.7:6000" || st.Inside.Remote != "192.168.10.21:4000" || st.Inside.Secure {
		t.Errorf("stream: %+v", st)
	}
}

func TestAnswerFromInsideTakesTheFirstUsableSuite(t *testing.T) {
	m := testMedia(t, false, 100)
	x, offer, err := m.makeOffer(body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "a=crypto:9 F8_128_HMAC_SHA1_80 inline:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5", gcm128, key80), dialog.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if got := masked(offer); !strings.Contains(got, "m=audio PORT RTP/AVP 0\n") || strings.Contains(got, "crypto") {
		t.Errorf("offer for the inside:\n%s", got)
	}
	out, err := m.makeAnswer(x, body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), "tag")
	if err != nil {
		t.Fatal(err)
	}
	if got := masked(out); !strings.Contains(got, "m=audio PORT RTP/SAVP 0\n") || strings.Count(got, "a=crypto") != 1 || !strings.Contains(got, "a=crypto:3 AEAD_AES_128_GCM inline:KEY\n") {
		t.Errorf("answer for the outside:\n%s", got)
	}
}

// nobodysAddresses are no host's on the Internet (RFC 6890), or everybody's: c=0.0.0.0 alone is the old way to say hold.
var nobodysAddresses = []string{
	"0.0.0.1", "127.0.0.1", "127.255.255.254", "169.254.1.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", testInside.String(), testOutside.String(), "192.168.10.30",
}

func TestUnusableDescriptions(t *testing.T) {
	offers := map[string][]byte{
		"no crypto":            body("198.51.100.7", "m=audio 6000 RTP/SAVP 0"),
		"plain RTP":            body("198.51.100.7", "m=audio 6000 RTP/AVP 0"),
		"plain RTP beside":     body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80, "m=video 6002 RTP/AVP 96"),
		"unknown suite":        body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "a=crypto:1 F8_128_HMAC_SHA1_80 inline:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5"),
		"short key":            body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MDEy"),
		"DTLS":                 body("198.51.100.7", "m=audio 6000 UDP/TLS/RTP/SAVP 0", "a=fingerprint:sha-1 00"),
		"loopback":             body("127.0.0.1", "m=audio 6000 RTP/SAVP 0", key80),
		"multicast":            body("224.1.2.3", "m=audio 6000 RTP/SAVP 0", key80),
		"broadcast":            body("255.255.255.255", "m=audio 6000 RTP/SAVP 0", key80),
		"inside":               body("192.168.10.30", "m=audio 6000 RTP/SAVP 0", key80),
		"our own":              body(testOutside.String(), "m=audio 6000 RTP/SAVP 0", key80),
		"a name":               body("media.example", "m=audio 6000 RTP/SAVP 0", key80),
		"RTCP to the inside":   body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "a=rtcp:6001 IN IP4 192.168.10.30", key80),
		"fax alone":            body("198.51.100.7", "m=image 6000 udptl t38"),
		"no description":       []byte("hello"),
		"a bad address inside": body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "c=IN IP4 192.168.10.1", key80),
	}
	for name, b := range offers {
		t.Run(name, func(t *testing.T) {
			m := testMedia(t, false, 100)
			if _, out, err := m.makeOffer(b, dialog.Outside); !errors.Is(err, errUnusable) {
				t.Errorf("taken: %v\n%s", err, out)
			}
			if n := m.term.Counters().Streams; n != 0 {
				t.Errorf("%d streams are left of a refused offer", n)
			}
		})
	}
	for _, a := range nobodysAddresses {
		offers["media to "+a] = body(a, "m=audio 6000 RTP/SAVP 0", key80)
		offers["mapped media to "+a] = body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "c=IN IP6 ::ffff:"+a, key80)
		offers["RTCP to "+a] = body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "a=rtcp:6001 IN IP4 "+a, key80)
		offers["mapped RTCP to "+a] = body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "a=rtcp:6001 IN IP6 ::ffff:"+a, key80)
	}
	answers := map[string][]byte{
		"plain RTP":         body("198.51.100.7", "m=audio 6000 RTP/AVP 0"),
		"no crypto":         body("198.51.100.7", "m=audio 6000 RTP/SAVP 0"),
		"two keys":          body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80, key32),
		"suite not of tag":  body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", strings.Replace(key80, "crypto:1", "crypto:2", 1)),
		"tag not offered":   body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", strings.Replace(key80, "crypto:1", "crypto:77", 1)),
		"loopback":          body("127.0.0.1", "m=audio 6000 RTP/SAVP 0", key80),
		"another line more": body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80, "m=video 1 RTP/SAVP 1"),
		"another kind":      body("198.51.100.7", "m=video 6000 RTP/SAVP 0", key80),
	}
	for _, a := range nobodysAddresses {
		answers["media to "+a] = body(a, "m=audio 6000 RTP/SAVP 0", key80)
		answers["RTCP to "+a] = body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", "a=rtcp:6001 IN IP4 "+a, key80)
	}
	for name, b := range answers {
		t.Run("answer/"+name, func(t *testing.T) {
			m := testMedia(t, false, 100)
			x, _, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), dialog.Inside)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := m.makeAnswer(x, b, "tag"); !errors.Is(err, errUnusable) {
				t.Errorf("taken: %v\n%s", err, out)
			}
		})
	}
}

// A phone that would agree on keys by DTLS gets no answer that it can use: better 488 than a call without sound.
func TestDTLSInside(t *testing.T) {
	for _, secure := range []bool{false, true} {
		m := testMedia(t, secure, 100)
		if _, out, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 UDP/TLS/RTP/SAVP 0", "a=fingerprint:sha-1 00"), dialog.Inside); !errors.Is(err, errUnusable) {
			t.Errorf("secure %v: offer taken: %v\n%s", secure, err, out)
		}
		x, _, err := m.makeOffer(body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80), dialog.Outside)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := m.makeAnswer(x, body("192.168.10.21", "m=audio 4000 UDP/TLS/RTP/SAVP 0", "a=fingerprint:sha-1 00"), "tag"); !errors.Is(err, errUnusable) {
			t.Errorf("secure %v: answer taken: %v\n%s", secure, err, out)
		}
	}
}

// The highest port has none after it for RTCP; that is no reason to refuse the sound.
func TestHighestPort(t *testing.T) {
	m := testMedia(t, false, 100)
	x, _, err := m.makeOffer(body("198.51.100.7", "m=audio 65535 RTP/SAVP 0", key80), dialog.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.makeAnswer(x, body("192.168.10.21", "m=audio 65535 RTP/AVP 0"), "tag"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.makeOffer(body("198.51.100.7", "m=audio 65535 RTP/SAVP 0", key80, "a=rtcp:9 IN IP4 media.example"), dialog.Outside); !errors.Is(err, errUnusable) {
		t.Errorf("RTCP to a name is taken: %v", err)
	}
}

func TestHold(t *testing.T) {
	m := testMedia(t, false, 100)
	x, _, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = m.makeAnswer(x, body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80), "tag"); err != nil {
		t.Fatal(err)
	}
	x, out, err := m.makeOffer(body("0.0.0.0", "m=audio 6000 RTP/SAVP 0", key80), dialog.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "c=IN IP4 0.0.0.0") {
		t.Errorf("c=0.0.0.0 does not pass:\n%s", out)
	}
	if _, err = m.makeAnswer(x, body("192.168.10.21", "m=audio 4000 RTP/AVP 0", "a=recvonly"), "tag"); err != nil {
		t.Fatal(err)
	}
	if st := m.lines[0].stream.Stats(); st.Outside.Remote != "" || st.Inside.Remote != "192.168.10.21:4000" {
		t.Errorf("on hold packets go to outside %q and inside %q", st.Outside.Remote, st.Inside.Remote)
	}
}

func TestLinesComeAndGo(t *testing.T) {
	m := testMedia(t, false, 100)
	talk := func(from dialog.Side, offer, answer []byte) (string, string) {
		t.Helper()
		x, o, err := m.makeOffer(offer, from)
		if err != nil {
			t.Fatal(err)
		}
		a, err := m.makeAnswer(x, answer, "tag")
		if err != nil {
			t.Fatal(err)
		}
		return masked(o), masked(a)
	}
	in, out := "192.168.10.21", "198.51.100.7"
	talk(dialog.Inside, body(in, "m=audio 4000 RTP/AVP 0"), body(out, "m=audio 6000 RTP/SAVP 0", key80))
	if n := m.term.Counters().Streams; n != 1 {
		t.Fatalf("%d streams", n)
	}
	o, a := talk(dialog.Inside, body(in, "m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP 96", "m=application 9 TCP/BFCP *"),
		body(out, "m=audio 6000 RTP/SAVP 0", key80, "m=video 6002 RTP/SAVP 96", key32, "m=application 9 TCP/BFCP *"))
	if !strings.Contains(o, "m=video PORT RTP/SAVP 96") || !strings.Contains(o, "m=application 0 ") || !strings.Contains(a, "m=application 0 ") {
		t.Errorf("offer\n%s\nanswer\n%s", o, a)
	}
	if n := m.term.Counters().Streams; n != 2 {
		t.Errorf("%d streams with video", n)
	}
	_, a = talk(dialog.Outside, body(out, "m=audio 6000 RTP/SAVP 0", key80, "m=video 0 RTP/SAVP 96", "m=application 0 TCP/BFCP *"),
		body(in, "m=audio 4000 RTP/AVP 0", "m=video 0 RTP/AVP 96", "m=application 0 TCP/BFCP *"))
	if !strings.Contains(a, "m=video 0 ") || m.term.Counters().Streams != 1 {
		t.Errorf("after video was removed: %d streams\n%s", m.term.Counters().Streams, a)
	}
	if _, _, err := m.makeOffer(body(in, "m=audio 4000 RTP/AVP 0"), dialog.Inside); !errors.Is(err, errUnusable) {
		t.Errorf("an offer with fewer m= lines than before is taken: %v", err)
	}
	x, _, err := m.makeOffer(body(in, "m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP 96", "m=application 0 x y", "m=audio 4004 RTP/AVP 8"), dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	m.undo(x)
	if n := m.term.Counters().Streams; n != 1 || len(m.lines) != 3 {
		t.Errorf("a refused re-offer leaves %d streams and %d lines", n, len(m.lines))
	}
}

func TestKeysStayThroughReoffers(t *testing.T) {
	m := testMedia(t, false, 100)
	offer := body("192.168.10.21", "m=audio 4000 RTP/AVP 0")
	x, first, err := m.makeOffer(offer, dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = m.makeAnswer(x, body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80), "tag"); err != nil {
		t.Fatal(err)
	}
	m.forget() // as of a call that has stood for a while
	_, second, err := m.makeOffer(offer, dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("the same offer again has another port or another key:\n%s\n%s", first, second)
	}
}

func TestForksEachHaveTheirAnswer(t *testing.T) {
	m := testMedia(t, false, 100)
	x, _, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	for tag, addr := range map[string]string{"one": "198.51.100.7", "two": "198.51.100.8"} {
		if _, err := m.makeAnswer(x, body(addr, "m=audio 6000 RTP/SAVP 0", key80), tag); err != nil {
			t.Fatal(err)
		}
	}
	for tag, addr := range map[string]string{"one": "198.51.100.7", "two": "198.51.100.8"} {
		if err := m.prefer(tag); err != nil {
			t.Fatal(err)
		}
		if got := m.lines[0].stream.Stats().Outside.Remote; got != addr+":6000" {
			t.Errorf("fork %s: packets go to %s", tag, got)
		}
	}
}

// Up to 32 forks answer while a call rings. Their answers are kept within bounds; a fork whose answer was not kept must bring it again.
func TestForksAnswersAreBounded(t *testing.T) {
	m := testMedia(t, false, 100)
	m.described = new(atomic.Int64)
	x, _, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), dialog.Inside)
	if err != nil {
		t.Fatal(err)
	}
	m.begin(&dialog.Transaction{}, x)
	answer := func(n, size int) error {
		long := strings.Repeat("a=x:"+strings.Repeat("x", 120)+"\r\n", size/128)
		_, err := m.makeAnswer(x, body(fmt.Sprint("198.51.100.", n+1), "m=audio 6000 RTP/SAVP 0", key80+"\r\n"+long+"a=sendrecv"), fmt.Sprint("fork", n))
		m.weigh()
		return err
	}
	kept := func() (n int) {
		for _, y := range m.applied {
			n += y.answer.Size()
		}
		return n
	}
	for n := range dialog.MaxDialogs {
		for range 2 { // in a 18x, and again
			if err := answer(n, 8<<10); err != nil {
				t.Fatal(err)
			}
		}
		if kept() > maxForked {
			t.Fatalf("%d forks keep %d bytes of their answers, at most %d are due", n+1, kept(), maxForked)
		}
	}
	if n := len(m.applied); n < 4 || n == dialog.MaxDialogs {
		t.Fatalf("the answers of %d forks are kept", n)
	}
	last := dialog.MaxDialogs - 1 // whose answer is in force
	for _, x := range []struct {
		fork int
		ok   bool
	}{{last, true}, {0, true}, {last, false}, {last - 1, false}, {3, true}} {
		if err := m.prefer(fmt.Sprint("fork", x.fork)); (err == nil) != x.ok {
			t.Errorf("a 2xx without description of fork %d: %v", x.fork, err)
		}
	}
	if got := m.lines[0].stream.Stats().Outside.Remote; got != "198.51.100.4:6000" {
		t.Errorf("packets go to %s, of a fork that was not preferred", got)
	}

	// In all calls together: what is kept is counted, and no more once that is too much.
	if n := m.described.Load(); n < int64(kept()/2) || n > 2*maxForked {
		t.Errorf("%d bytes are counted, the call keeps %d", n, kept())
	}
	m.applied, m.current, m.unkept = nil, nil, false
	m.weigh()
	base := m.described.Load()
	m.described.Add(maxDescribed + 1)
	if err := answer(0, 1<<10); err != nil {
		t.Errorf("an answer of usual size is refused: %v", err)
	}
	if err := answer(1, 1<<10); err != nil || len(m.applied) != 1 {
		t.Errorf("%d forks' answers are kept beyond the cap of all calls: %v", len(m.applied), err)
	}
	if err := answer(2, 32<<10); !errors.Is(err, errUnusable) {
		t.Errorf("a large answer beyond the cap of all calls: %v", err)
	}
	if _, _, err := m.makeOffer(body("192.168.10.21", "m=audio 4000 RTP/AVP 0", strings.Repeat("a=x\r\n", 300)+"a=sendrecv"), dialog.Inside); !errors.Is(err, errUnusable) {
		t.Errorf("an offer with very many lines beyond the cap of all calls: %v", err)
	}
	m.described.Add(-maxDescribed - 1)
	if err := answer(2, 32<<10); err != nil || m.described.Load() < base+32<<10 {
		t.Errorf("a large answer: %v, %d bytes are counted", err, m.described.Load())
	}
	m.forget()
	if n := m.described.Load(); n != 0 {
		t.Errorf("%d bytes are counted when all is forgotten", n)
	}
}

func TestSecureTrunk(t *testing.T) {
	m := testMedia(t, true, 100)
	x, offer, err := m.makeOffer(body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80), dialog.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if got := masked(offer); !strings.Contains(got, "RTP/SAVP") || strings.Count(got, "a=crypto") != 4 {
		t.Errorf("offer for a secure trunk:\n%s", got)
	}
	if _, err := m.makeAnswer(x, body("192.168.10.21", "m=audio 4000 RTP/AVP 0"), "tag"); err != nil {
		t.Fatalf("fall-back to RTP: %v", err)
	}
	if st := m.lines[0].stream.Stats(); st.Inside.Secure || !st.Outside.Secure {
		t.Errorf("after the fall-back inside secure %v, outside secure %v", st.Inside.Secure, st.Outside.Secure)
	}
	x, _, err = m.makeOffer(body("198.51.100.7", "m=audio 6000 RTP/SAVP 0", key80), dialog.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.makeAnswer(x, body("192.168.10.21", "m=audio 4000 RTP/SAVP 0", gcm128), "tag"); err != nil {
		t.Fatal(err)
	}
	if st := m.lines[0].stream.Stats(); st.Inside.Suite != "AEAD_AES_128_GCM" || st.Outside.Suite != "AES_CM_128_HMAC_SHA1_80" {
		t.Errorf("suites inside %s, outside %s", st.Inside.Suite, st.Outside.Suite)
	}
}

func TestPortsRunOut(t *testing.T) {
	m := testMedia(t, false, 4)
	lines := []string{"m=audio 4000 RTP/AVP 0", "m=video 4002 RTP/AVP 96", "m=video 4004 RTP/AVP 97"}
	_, _, err := m.makeOffer(body("192.168.10.21", lines...), dialog.Inside)
	if err == nil || errors.Is(err, errUnusable) {
		t.Errorf("three streams on two port pairs: %v", err)
	}
	if n := m.term.Counters().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// Two offers may be under way, one in a re-INVITE and one in an UPDATE, and either may come to nothing first. The other one keeps what it needs,
// and nothing is left in the end.
func TestOffersThatCross(t *testing.T) {
	lines := []string{"m=audio 4000 RTP/SAVP 0\r\n" + key80, "m=video 4002 RTP/SAVP 96\r\n" + key80, "m=video 4004 RTP/SAVP 96\r\n" + key80}
	plain := []string{"m=audio 5000 RTP/AVP 0", "m=video 5002 RTP/AVP 96", "m=video 5004 RTP/AVP 96"}
	type step func(t *testing.T, m *media, invite, update *exchange)
	undoInvite := func(_ *testing.T, m *media, invite, _ *exchange) { m.undo(invite); m.drop(invite.tx) }
	undoUpdate := func(_ *testing.T, m *media, _, update *exchange) { m.undo(update); m.drop(update.tx) }
	answerUpdate := func(t *testing.T, m *media, _, update *exchange) {
		if _, err := m.makeAnswer(update, body("192.168.10.21", plain...), "b"); err != nil {
			t.Error(err)
		}
		m.drop(update.tx)
	}
	for name, x := range map[string]struct {
		steps   []step
		streams int
	}{
		"the INVITE fails, then the UPDATE":             {[]step{undoInvite, undoUpdate}, 1},
		"the UPDATE fails, then the INVITE":             {[]step{undoUpdate, undoInvite}, 1},
		"the INVITE fails, the UPDATE is answered":      {[]step{undoInvite, answerUpdate}, 3},
		"the UPDATE is answered, then the INVITE fails": {[]step{answerUpdate, undoInvite}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			m := testMedia(t, false, 100)
			first, _, err := m.makeOffer(body("198.51.100.1", lines[0]), dialog.Outside)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.makeAnswer(first, body("192.168.10.21", plain[0]), "b"); err != nil {
				t.Fatal(err)
			}
			invite, _, err := m.makeOffer(body("192.168.10.21", plain[:2]...), dialog.Inside)
			if err != nil {
				t.Fatal(err)
			}
			m.begin(new(dialog.Transaction), invite)
			update, _, err := m.makeOffer(body("198.51.100.1", lines...), dialog.Outside)
			if err != nil {
				t.Fatal(err)
			}
			m.begin(new(dialog.Transaction), update)
			for _, s := range x.steps {
				s(t, m, invite, update)
			}
			if got := m.term.Counters().Streams; int(got) != x.streams || len(m.lines) != x.streams {
				t.Errorf("%d streams and %d lines are left, want %d", got, len(m.lines), x.streams)
			}
			m.close()
			if got := m.term.Counters().Streams; got != 0 {
				t.Errorf("%d streams are left after the call", got)
			}
		})
	}
}
