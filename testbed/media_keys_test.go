package testbed

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// srtpSuites in the order in which the proxy offers them.
var srtpSuites = []string{"AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_128_GCM", "AEAD_AES_256_GCM"}

// Each suite carries media and reports both ways, whoever calls, and the keys
// that the SDP gives are those of the packets (RFC 4568, 7714).
func TestMediaSuites(t *testing.T) {
	s := StartStubs(t)
	for _, suite := range srtpSuites {
		for _, out := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/outbound %v", suite, out), func(t *testing.T) {
				defer checkReturned(t, s)
				k := s.talk(t, out, suite)
				k.far.UseLibsrtp(t, k.farKey, k.ourKey)
				k.bothWays(t, 10)
				k.reports(t, false)
				if m := k.shown(t); m.Outside.Suite != suite || m.Inside.Suite != "" || m.Outside.Rx != 10 || m.Outside.Tx != 10 || m.Outside.RxRTCP != 1 || m.Inside.RxRTCP != 1 {
					t.Errorf("shown: %+v", m)
				}
				noTrace(t, "the log", s.Proxy.Log(), k.farKey, k.ourKey)
				k.end(t)
			})
		}
	}
	t.Run("offer", func(t *testing.T) {
		a := s.Outbound(s.AgentDial(t))
		inv := a.Request(t, "INVITE", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
		seen := s.Far.Expect(t, InCall(a.CallID, ReqIs("INVITE")), wait)
		var suites []string
		keys := map[string]bool{}
		for i, c := range CryptosOf(t, seen.Body) {
			suites = append(suites, c.Suite)
			keys[string(c.Key)] = true
			if p := srtpProfiles[c.Suite]; len(c.Key) != p.key+p.salt || c.Tag != i+1 {
				t.Errorf("%s with tag %d has a key of %d bytes", c.Suite, c.Tag, len(c.Key))
			}
		}
		if !slices.Equal(suites, srtpSuites) || len(keys) != 4 {
			t.Errorf("offered: %v, %d different keys", suites, len(keys))
		}
		s.Far.AnswerLeg(seen).Respond(t, seen, 486, "Busy Here")
		a.AckFailure(t, inv, a.AwaitStatus(t, inv, 486))
	})
	t.Run("lines", func(t *testing.T) { mediaKeyLines(t, s) })
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

// mediaKeyLines: the ways to write an a=crypto line that other makes use.
func mediaKeyLines(t *testing.T, s *StubLab) {
	key := func(suite string, change func(*StubCrypto)) StubCrypto {
		c := NewStubCrypto(3, suite)
		change(&c)
		return c
	}
	mki := func(params string, id ...byte) func(*StubCrypto) {
		return func(c *StubCrypto) { c.Params, c.MKI = params, id }
	}
	for name, c := range map[string]StubCrypto{
		"lifetime as a power":        key(srtpSuites[0], mki("|2^31")),
		"lifetime as a number":       key(srtpSuites[1], mki("|1048576")),
		"lifetime and MKI":           key(srtpSuites[0], mki("|2^20|259:4", 0, 0, 1, 3)),
		"MKI alone":                  key(srtpSuites[1], mki("|1:1", 1)),
		"MKI with GCM":               key(srtpSuites[2], mki("|2^48|7:2", 0, 7)),
		"no padding, 28 bytes":       key(srtpSuites[2], func(c *StubCrypto) { c.Bare = true }),
		"no padding, 44 bytes, MKI":  key(srtpSuites[3], func(c *StubCrypto) { c.Bare = true; mki("|1:4", 0, 0, 0, 1)(c) }),
		"window size hint":           key(srtpSuites[0], mki(" WSH=128")),
		"unknown optional parameter": key(srtpSuites[0], mki(" -VENDOR=1")),
	} {
		for _, out := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/outbound %v", name, out), func(t *testing.T) {
				k := s.talkWith(t, out, c)
				k.bothWays(t, 3)
				k.reports(t, false)
				k.end(t)
			})
		}
	}
	t.Run("first usable of several", func(t *testing.T) {
		good := NewStubCrypto(9, srtpSuites[2])
		f := s.Inbound(s.FarDial(t))
		inv := f.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000,
			"a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NQ==",
			"a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:tooshort", "a=crypto:5 F8_128_HMAC_SHA1_80 inline:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5",
			NewStubCrypto(6, srtpSuites[0]).Line()+" UNENCRYPTED_SRTP", good.Line(), NewStubCrypto(10, srtpSuites[0]).Line())))
		seen := s.Agent.Expect(t, InCall(f.CallID, ReqIs("INVITE")), wait)
		a := s.Agent.AnswerLeg(seen)
		a.Respond(t, seen, 200, "OK", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
		ok := f.AwaitStatus(t, inv, 200)
		if keys := CryptosOf(t, ok.Body); len(keys) != 1 || keys[0].Tag != 9 || keys[0].Suite != srtpSuites[2] || string(keys[0].Key) == string(good.Key) {
			t.Errorf("answered:\n%s", ok.Body)
		}
		f.Learn(ok)
		f.Ack(t)
		a.Expect(t, "ACK")
		f.Transact(t, a, "BYE", 200)
	})
}

// brokenSDP cannot be read, though it begins as it should.
const brokenSDP = "v=0\r\nm=audio twenty RTP/SAVP 0\r\n"

// Offers that cannot be used get 488; nothing of them reaches the other side.
func TestMediaUnusableOffers(t *testing.T) {
	s := StartStubs(t)
	far := s.B.MediaOut.String()
	offers := map[string]string{}
	for name, addr := range map[string]string{
		"loopback": "127.0.0.1", "loopback beyond the first": "127.8.8.8", "multicast": "224.2.1.1", "broadcast": "255.255.255.255",
		"this network": "0.1.2.3", "future use": "240.0.0.1",
		"inside phone": s.A.PhoneIP.String(), "inside call agent": s.A.UCMIP.String(), "own inside media": s.A.MediaIn.String(),
		"own outside media": s.A.MediaOut.String(), "own interface": s.A.OutsideIP.String(), "own mapped": s.A.Mapped.String(),
	} {
		offers["address: "+name] = secureOffer(addr, 20000)
		offers["RTCP address: "+name] = secureOffer(far, 20000, goodCrypto, "a=rtcp:20001 IN IP4 "+addr)
		offers["address of one line: "+name] = secureOffer(far, 20000) + "m=video 20010 RTP/SAVP 99\r\nc=IN IP4 " + addr + "\r\na=rtpmap:99 H264/90000\r\n" + goodCrypto + "\r\n"
	}
	for name, line := range map[string]string{
		"none":                   "a=sendrecv",
		"suite of nobody":        "a=crypto:1 ROT13 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
		"suite that we have not": "a=crypto:1 F8_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
		"short key":              "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGU=",
		"long key":               "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVzAA==",
		"key of another suite":   "a=crypto:1 AEAD_AES_256_GCM inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
		"no base64":              "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNf*19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
		"no key":                 "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:",
		"no inline":              "a=crypto:1 AES_CM_128_HMAC_SHA1_80 clear:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz",
		"lifetime too long":      goodCrypto + "|2^49",
		"MKI too long":           goodCrypto + "|2^20|1:129",
		"MKI over its length":    goodCrypto + "|2^20|256:1",
		"no encryption":          goodCrypto + " UNENCRYPTED_SRTP",
		"no RTCP encryption":     goodCrypto + " UNENCRYPTED_SRTCP",
		"no authentication":      goodCrypto + " UNAUTHENTICATED_SRTP",
		"unknown parameter":      goodCrypto + " MAGIC=1",
	} {
		offers["crypto: "+name] = secureOffer(far, 20000, line)
	}
	offers["plain RTP"] = plainOffer(far, 20000)
	offers["one plain line beside"] = secureOffer(far, 20000) + "m=video 20010 RTP/AVP 99\r\n"
	offers["DTLS"] = strings.Replace(secureOffer(far, 20000, "a=fingerprint:sha-256 00"), "RTP/SAVP", "UDP/TLS/RTP/SAVP", 1)
	offers["no RTP at all"] = strings.Replace(secureOffer(far, 20000), "audio 20000 RTP/SAVP 0", "image 20000 udptl t38", 1)
	offers["33 lines"] = secureOffer(far, 20000) + strings.Repeat("m=audio 0 RTP/SAVP 0\r\n", 32)
	offers["IPv6"] = strings.ReplaceAll(secureOffer("2001:db8::1", 20000), "IP4", "IP6")
	offers["a name"] = secureOffer("media.b.example", 20000)
	offers["no connection line"] = strings.Replace(secureOffer(far, 20000), "c=IN IP4 "+far+"\r\n", "", 1)
	offers["garbage"] = brokenSDP
	offers["port over 65535"] = secureOffer(far, 65536)

	c := s.FarDial(t)
	for name, body := range offers {
		t.Run(name, func(t *testing.T) {
			before := s.counters(t)
			f := s.Inbound(c)
			inv := f.Request(t, "INVITE", s.WithTicket, sdp(body))
			resp := f.AwaitStatus(t, inv, 488)
			f.AckFailure(t, inv, resp)
			c.Ping(t)
			if got := s.counters(t).since(before); got["unusable_offer"] != 1 {
				t.Errorf("counters grew by %v", got)
			}
		})
	}
	s.syncInside(t, c)
	nothingCame(t, s.Agent)
	if n := s.Streams(t); n != 0 {
		t.Errorf("%d streams are left of refused offers", n)
	}
	agent := s.AgentDial(t)
	for name, body := range map[string]string{
		"SRTP on a non-secure trunk":        secureOffer(s.A.PhoneIP.String(), 4000),
		"SRTP without keys":                 secureOffer(s.A.PhoneIP.String(), 4000, "a=sendrecv"),
		"DTLS on a non-secure trunk":        strings.Replace(plainOffer(s.A.PhoneIP.String(), 4000, "a=fingerprint:sha-256 00"), "RTP/AVP", "UDP/TLS/RTP/SAVP", 1),
		"loopback":                          plainOffer("127.0.0.1", 4000),
		"the address where the phone sends": plainOffer(s.A.MediaIn.String(), 4000),
	} {
		t.Run("inside/"+name, func(t *testing.T) {
			a := s.Outbound(agent)
			inv := a.Request(t, "INVITE", sdp(body))
			a.AckFailure(t, inv, a.AwaitStatus(t, inv, 488))
		})
	}
	s.syncOutside(t, agent)
	nothingCame(t, s.Far)
	t.Run("old hold passes", func(t *testing.T) { offerOnHold(t, s) })
}

// offerOnHold: c=0.0.0.0 passes unchanged, and nothing is sent there.
func offerOnHold(t *testing.T, s *StubLab) {
	for _, out := range []bool{true, false} {
		w := way{s, out}
		caller := w.caller(t)
		body := strings.Replace(w.desc(true, 4000), "c=IN IP4 "+MediaLines(t, w.desc(true, 4000))[0].Addr().String(), "c=IN IP4 0.0.0.0", 1)
		inv := caller.Request(t, "INVITE", w.open, sdp(body))
		seen := w.callee().Expect(t, InCall(caller.CallID, ReqIs("INVITE")), wait)
		if !strings.Contains(seen.Body, "c=IN IP4 0.0.0.0\r\n") {
			t.Errorf("the hold did not pass:\n%s", seen.Body)
		}
		callee := w.callee().AnswerLeg(seen)
		w.pick(t, caller, callee, inv, seen)
		caller.Transact(t, callee, "BYE", 200)
	}
}

// Answers that cannot be used end the call: ACK and BYE to who answered, 488
// to who asked (DESIGN, "How the edge decides").
func TestMediaUnusableAnswers(t *testing.T) {
	s := StartStubs(t)
	far := s.B.MediaOut.String()
	for name, body := range map[string]string{
		"no crypto":         secureOffer(far, 20000, "a=sendrecv"),
		"unknown suite":     secureOffer(far, 20000, "a=crypto:1 ROT13 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"),
		"suite not of tag":  secureOffer(far, 20000, strings.Replace(goodCrypto, "crypto:1", "crypto:2", 1)),
		"tag not offered":   secureOffer(far, 20000, strings.Replace(goodCrypto, "crypto:1", "crypto:5", 1)),
		"two keys":          secureOffer(far, 20000, goodCrypto, NewStubCrypto(2, srtpSuites[1]).Line()),
		"bad base64":        secureOffer(far, 20000, goodCrypto+"*"),
		"short key":         secureOffer(far, 20000, "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNf"),
		"plain RTP":         plainOffer(far, 20000),
		"inside address":    secureOffer(s.A.UCMIP.String(), 20000),
		"loopback":          secureOffer("127.0.0.1", 20000),
		"own media address": secureOffer(s.A.MediaOut.String(), 20000),
		"a line too many":   secureOffer(far, 20000) + "m=video 20010 RTP/SAVP 99\r\n" + goodCrypto + "\r\n",
		"another kind":      strings.Replace(secureOffer(far, 20000), "m=audio", "m=video", 1),
	} {
		t.Run("outbound/"+name, func(t *testing.T) {
			defer checkReturned(t, s)
			unusableAnswer(t, way{s, true}, body)
		})
	}
	for name, body := range map[string]string{
		"SRTP":     secureOffer(s.A.PhoneIP.String(), 4000),
		"loopback": plainOffer("127.0.0.1", 4000),
		"garbage":  brokenSDP,
	} {
		t.Run("inbound/"+name, func(t *testing.T) {
			defer checkReturned(t, s)
			unusableAnswer(t, way{s, false}, body)
		})
	}
	t.Run("the key that was offered", func(t *testing.T) {
		w := way{s, true}
		caller, callee, inv, seen := w.ring(t)
		callee.Respond(t, seen, 200, "OK", sdp(secureOffer(far, 20000, CryptosOf(t, seen.Body)[0].Line())))
		callEnded(t, caller, callee, inv)
	})
	eachWay(t, s, "early", func(t *testing.T, w way) {
		caller, callee, inv, seen := w.ring(t)
		callee.Respond(t, seen, 183, "Session Progress", sdp(strings.Replace(w.desc(false, 20000), "c=IN IP4 ", "c=IN IP4 127.0.0.1\r\nb=AS:64\r\ni=", 1)))
		cancel := callee.Expect(t, "CANCEL")
		caller.AckFailure(t, inv, caller.AwaitStatus(t, inv, 488))
		callee.Respond(t, cancel, 200, "OK")
		callee.Respond(t, seen, 487, "Request Terminated")
		callee.Expect(t, "ACK")
	})
	eachWay(t, s, "re-INVITE", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		inv := caller.Request(t, "INVITE", w.offer(4000))
		seen := callee.Expect(t, "INVITE")
		callee.Respond(t, seen, 200, "OK", sdp(brokenSDP))
		callEnded(t, caller, callee, inv)
		bye := caller.Expect(t, "BYE")
		caller.Respond(t, bye, 200, "OK")
	})
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

func unusableAnswer(t *testing.T, w way, body string) {
	t.Helper()
	caller, callee, inv, seen := w.ring(t)
	callee.Respond(t, seen, 200, "OK", sdp(body))
	callEnded(t, caller, callee, inv)
	gone(t, callee)
}

// callEnded demands ACK and BYE at the callee and 488 at the caller.
func callEnded(t *testing.T, caller, callee *Leg, inv *StubMessage) {
	t.Helper()
	callee.Expect(t, "ACK")
	bye := callee.Expect(t, "BYE")
	callee.Respond(t, bye, 200, "OK")
	caller.AckFailure(t, inv, caller.AwaitStatus(t, inv, 488))
}
