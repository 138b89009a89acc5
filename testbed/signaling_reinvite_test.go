package testbed

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What a call may do to its media while it stands (RFC 3264 section 8).
func TestSignalingReinvite(t *testing.T) {
	s := StartStubs(t)
	eachWay(t, s, "hold and resume by direction", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		for _, hold := range []struct{ offer, answer string }{{"sendonly", "recvonly"}, {"inactive", "inactive"}, {"sendrecv", "sendrecv"}} {
			for _, byCaller := range []bool{true, false} {
				from, to := caller, callee
				if !byCaller {
					from, to = callee, caller
				}
				seen, back := reoffer(t, from, to, w.desc(byCaller, 4000, "a="+hold.offer), w.desc(!byCaller, 20000, "a="+hold.answer))
				w.checkSDP(t, seen, !byCaller)
				w.checkSDP(t, back, byCaller)
				if !strings.Contains(seen.Body, "a="+hold.offer+"\r\n") || !strings.Contains(back.Body, "a="+hold.answer+"\r\n") {
					t.Errorf("direction lost:\n%s\n%s", seen.Body, back.Body)
				}
			}
		}
		caller.Transact(t, callee, "BYE", 200)
	})
	eachWay(t, s, "old hold", reinviteOldHold)
	eachWay(t, s, "new ports and codec", reinviteCodec)
	eachWay(t, s, "added and removed lines", reinviteLines)
	eachWay(t, s, "late offer", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		inv := callee.Request(t, "INVITE")
		seen := caller.Expect(t, "INVITE")
		caller.Respond(t, seen, 200, "OK", w.offer(4000))
		ok := callee.AwaitStatus(t, inv, 200)
		w.checkSDP(t, ok, false)
		callee.Ack(t, w.answer(20000))
		w.checkSDP(t, caller.Expect(t, "ACK"), true)
		caller.Transact(t, callee, "BYE", 200)
	})
	eachWay(t, s, "refused", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		inv := caller.Request(t, "INVITE", w.offer(4100))
		seen := callee.Expect(t, "INVITE")
		callee.Respond(t, seen, 488, "Not Acceptable Here")
		resp := caller.AwaitStatus(t, inv, 488)
		caller.AckFailure(t, inv, resp)
		callee.Expect(t, "ACK")
		// The call goes on as it was (RFC 3261 14.1).
		reoffer(t, callee, caller, w.desc(false, 20000), w.desc(true, 4000))
		caller.Transact(t, callee, "BYE", 200)
	})
	eachWay(t, s, "glare", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		one := caller.Request(t, "INVITE", w.offer(4000))
		seen := callee.Expect(t, "INVITE")
		two := callee.Request(t, "INVITE", w.answer(20000))
		resp := callee.AwaitStatus(t, two, 491)
		callee.AckFailure(t, two, resp)
		callee.Respond(t, seen, 200, "OK", w.answer(20000))
		caller.AwaitStatus(t, one, 200)
		caller.Ack(t)
		callee.Expect(t, "ACK")
		reoffer(t, callee, caller, w.desc(false, 20000), w.desc(true, 4000))
		caller.Transact(t, callee, "BYE", 200)
	})
	eachWay(t, s, "wrong tags, old numbers, unknown calls", func(t *testing.T, w way) {
		caller, callee := w.up(t)
		for what, change := range map[string]func(*Leg){
			"local tag":  func(l *Leg) { l.LocalTag = "stranger" },
			"remote tag": func(l *Leg) { l.RemoteTag = "stranger" },
			"call":       func(l *Leg) { l.CallID = token("other-") },
		} {
			for _, method := range []string{"BYE", "INFO", "INVITE", "UPDATE", "NOTIFY", "REFER", "OPTIONS"} {
				other := *caller
				change(&other)
				req := other.Request(t, method, with("Refer-To", "<sip:x@example.com>"), with("Event", "refer"), with("Subscription-State", "active"))
				if got := other.Final(t, req).Status(); got != 481 {
					t.Errorf("%s with a wrong %s: %d", method, what, got)
				}
			}
		}
		old := *caller
		old.CSeq = 1
		old.AwaitStatus(t, old.Request(t, "INFO"), 500)
		caller.Transact(t, callee, "BYE", 200) // a barrier too: nothing else has come before it
		callee.Stub.NoneOf(t, func(m *StubMessage) bool { return m.Method() != "" && m.Get("Call-ID") == caller.CallID })
	})
	Until(t, 3*time.Second, "no media session is left", func() bool { return s.Streams(t) == 0 })
}

func reinviteOldHold(t *testing.T, w way) {
	caller, callee := w.up(t)
	hold := func(body string) string {
		return strings.Replace(body, "c=IN IP4 "+MediaLines(t, body)[0].Addr().String(), "c=IN IP4 0.0.0.0", 1)
	}
	for _, byCaller := range []bool{true, false} {
		from, to := caller, callee
		if !byCaller {
			from, to = callee, caller
		}
		seen, back := reoffer(t, from, to, hold(w.desc(byCaller, 4000)), w.desc(!byCaller, 20000))
		if !strings.Contains(seen.Body, "c=IN IP4 0.0.0.0\r\n") {
			t.Errorf("the hold did not pass:\n%s", seen.Body)
		}
		w.checkSDP(t, back, byCaller)
		seen, _ = reoffer(t, from, to, w.desc(byCaller, 4000), w.desc(!byCaller, 20000))
		w.checkSDP(t, seen, !byCaller)
		if strings.Contains(seen.Body, "0.0.0.0") {
			t.Errorf("not resumed:\n%s", seen.Body)
		}
	}
	caller.Transact(t, callee, "BYE", 200)
}

// codec replaces the one codec of a description.
func codecOf(body string, pt int, name string) string {
	return strings.NewReplacer("AVP 0\r\n", fmt.Sprintf("AVP %d\r\n", pt), "a=rtpmap:0 PCMU/8000", fmt.Sprintf("a=rtpmap:%d %s", pt, name)).Replace(body)
}

func reinviteCodec(t *testing.T, w way) {
	caller, callee := w.up(t)
	first, _ := reoffer(t, caller, callee, w.desc(true, 4000), w.desc(false, 20000))
	seen, back := reoffer(t, caller, callee, codecOf(w.desc(true, 4444), 8, "PCMA/8000"), codecOf(w.desc(false, 20444), 8, "PCMA/8000"))
	for _, m := range []*StubMessage{seen, back} {
		if !strings.Contains(m.Body, "AVP 8\r\n") || !strings.Contains(m.Body, "a=rtpmap:8 PCMA/8000") {
			t.Errorf("codec lost:\n%s", m.Body)
		}
	}
	if was, now := w.checkSDP(t, first, false), w.checkSDP(t, seen, false); was[0] != now[0] {
		t.Errorf("our port went from %d to %d although the line is the same", was[0], now[0])
	}
	// Our keys stay through re-offers, so that no rollover counter starts anew under a key in use.
	outside, before := seen, first
	if !w.out {
		outside, before = back, nil
	}
	if before != nil && CryptosOf(t, outside.Body)[0].Line() != CryptosOf(t, before.Body)[0].Line() {
		t.Error("our key changed in a re-offer")
	}
	caller.Transact(t, callee, "BYE", 200)
}

func reinviteLines(t *testing.T, w way) {
	caller, callee := w.up(t)
	video := func(body string, port int, plain bool) string {
		if plain {
			return body + fmt.Sprintf("m=video %d RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n", port)
		}
		return body + fmt.Sprintf("m=video %d RTP/SAVP 99\r\na=rtpmap:99 H264/90000\r\n%s\r\n", port, goodCrypto)
	}
	desc := func(ofCaller bool, audio, vid int) string {
		return video(w.desc(ofCaller, audio), vid, w.plain(ofCaller))
	}
	seen, back := reoffer(t, caller, callee, desc(true, 4000, 4010), desc(false, 20000, 20010))
	ports := w.checkSDP(t, seen, false)
	if len(ports) != 2 || ports[0] == 0 || ports[1] == 0 || ports[0] == ports[1] || ports[0]%2 != 0 || ports[1]%2 != 0 {
		t.Errorf("ports %v of the two lines", ports)
	}
	w.checkSDP(t, back, true)
	if n := w.s.Streams(t); n != 2 {
		t.Errorf("%d streams with audio and video", n)
	}
	// Removed by port 0 (RFC 3264 8.2), from the other end.
	seen, back = reoffer(t, callee, caller, desc(false, 20000, 0), desc(true, 4000, 0))
	for _, m := range []*StubMessage{seen, back} {
		if p := MediaLines(t, m.Body); len(p) != 2 || p[1].Port() != 0 {
			t.Errorf("the line was not removed: %v", p)
		}
	}
	if n := w.s.Streams(t); n != 1 {
		t.Errorf("%d streams after the video went", n)
	}
	// The place of the removed line is used again, and refused by the far end.
	seen, back = reoffer(t, caller, callee, desc(true, 4000, 4020), desc(false, 20000, 0))
	if p := w.checkSDP(t, seen, false); p[1] == 0 {
		t.Errorf("the line did not come back: %v", p)
	}
	if p := w.checkSDP(t, back, true); p[1] != 0 {
		t.Errorf("the refusal did not pass: %v", p)
	}
	if n := w.s.Streams(t); n != 1 {
		t.Errorf("%d streams after the video was refused", n)
	}
	caller.Transact(t, callee, "BYE", 200)
}
