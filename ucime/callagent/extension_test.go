package callagent

import (
	"context"
	"net/netip"
	"strconv"
	"testing"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/leg"
)

func header(m message, name string) string {
	if h := m.GetHeader(name); h != nil {
		return h.Value()
	}
	return ""
}

func uint32At(t *testing.T, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// provisional waits for an answer above 100.
func provisional(t *testing.T, out *leg.Outgoing) *sip.Response {
	t.Helper()
	for {
		if res := take(t, out.Tx.Responses(), "a provisional answer"); res.StatusCode > 100 {
			out.Learn(res)
			return res
		}
	}
}

// A numbered answer of whoever is called crosses with a number of the caller's dialog, and its PRACK with the number that it had; descriptions
// cross in both.
func TestReliableProvisionalAnswersCross(t *testing.T) {
	for name, ip := range map[string]bool{"by IP": true, "by the PSTN": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			there := w.pstn
			if ip {
				w.route(other, w.far.at)
				there = w.far
			}
			out := w.pbx.call(w.pbxAt, own, other, nil, [2]string{"Supported", "100rel, replaces, timer"})
			s := there.expect()
			if got := header(s.req, "Supported"); got != "100rel, timer" {
				t.Errorf("Supported: %s", got)
			}
			l := there.leg(s)
			var last uint32
			for i, rseq := range []string{"7001", "7002"} {
				if err := l.Respond(s.req, s.tx, 183, "Session Progress", anySDP, "", leg.Extra{{"Require", "100rel"}, {"RSeq", rseq}}); err != nil {
					t.Fatal(err)
				}
				res := provisional(t, out)
				if header(res, "Require") != "100rel" || len(res.Body()) == 0 {
					t.Errorf("%s", res)
				}
				// One that comes again has its number again.
				_ = l.Respond(s.req, s.tx, 183, "Session Progress", anySDP, "", leg.Extra{{"Require", "100rel"}, {"RSeq", rseq}})
				if again := provisional(t, out); header(again, "RSeq") != header(res, "RSeq") {
					t.Errorf("RSeq %s, and again %s", header(res, "RSeq"), header(again, "RSeq"))
				}
				done := make(chan *sip.Response, 1)
				go func() {
					got, err := out.Leg.Do(context.Background(), sip.PRACK, anySDP, "", leg.Extra{{"RAck", header(res, "RSeq") + " " + strconv.Itoa(int(res.CSeq().SeqNo)) + " INVITE"}})
					if err != nil {
						t.Error(err)
					}
					done <- got
				}()
				p := there.expect()
				if want := rseq + " " + strconv.Itoa(int(s.req.CSeq().SeqNo)) + " INVITE"; p.req.Method != sip.PRACK || header(p.req, "RAck") != want || len(p.req.Body()) == 0 {
					t.Errorf("%s\nwant %s", p.req, want)
				}
				_ = l.Respond(p.req, p.tx, 200, "OK", anySDP, "", nil)
				if got := take(t, done, "the answer to PRACK"); got.StatusCode != 200 || len(got.Body()) == 0 {
					t.Errorf("%s", got)
				}
				n := uint32At(t, header(res, "RSeq"))
				if i > 0 && n != last+1 {
					t.Errorf("RSeq %d after %d", n, last)
				}
				last = n
			}
			if res, err := out.Leg.Do(context.Background(), sip.PRACK, nil, "", leg.Extra{{"RAck", "1 1 INVITE"}}); err != nil || res.StatusCode != 481 {
				t.Errorf("a PRACK for nothing: %v %v", res, err)
			}
			// Before it answers, the called side may change its description.
			go func() {
				_, _ = l.Do(context.Background(), sip.UPDATE, anySDP, "", nil)
			}()
			u := w.pbx.expect()
			if u.req.Method != sip.UPDATE {
				t.Errorf("%s", u.req)
			}
			_ = out.Leg.Respond(u.req, u.tx, 200, "OK", anySDP, "", nil)
			if err := l.Respond(s.req, s.tx, 200, "OK", nil, "", nil); err != nil {
				t.Fatal(err)
			}
			if res := final(t, out); res.StatusCode != 200 {
				t.Errorf("%s", res)
			}
			take(t, there.acks, "the ACK")
			out.Leg.Bye(context.Background())
			take(t, there.byes, "the BYE")
			w.counts(map[string]uint64{"ActiveCalls": 0})
		})
	}
}

// An acknowledgement of one who did not answer after all is of no dialog that there is.
func TestAPRACKAfterThePathFailed(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP, [2]string{"Supported", "100rel"})
	s := w.far.expect()
	_ = w.far.leg(s).Respond(s.req, s.tx, 180, "Ringing", nil, "", leg.Extra{{"Require", "100rel"}, {"RSeq", "5"}})
	ringing := provisional(t, out)
	answer(s.req, s.tx, 503, "Service Unavailable")
	s = w.pstn.expect()
	res, err := out.Leg.Do(context.Background(), sip.PRACK, nil, "", leg.Extra{{"RAck", header(ringing, "RSeq") + " " + strconv.Itoa(int(ringing.CSeq().SeqNo)) + " INVITE"}})
	if err != nil || res.StatusCode != 481 {
		t.Errorf("%v %v", res, err)
	}
	_ = w.pstn.leg(s).Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
	final(t, out)
}

// Session timers are between the ends: intervals, who refreshes, and the refreshing itself cross.
func TestSessionTimersCross(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, w.far.at)
	timer := [][2]string{{"Supported", "timer"}, {"Session-Expires", "600"}, {"Min-SE", "90"}}
	out := w.pbx.call(w.pbxAt, own, other, anySDP, timer...)
	s := w.far.expect()
	if header(s.req, "Session-Expires") != "600" || header(s.req, "Min-SE") != "90" || header(s.req, "Supported") != "timer" {
		t.Errorf("%s", s.req)
	}
	// Too short: the PBX learns what is not, and calls again. It is no failure of the path.
	answer(s.req, s.tx, 422, "Session Interval Too Small", "Min-SE", "1200")
	if res := final(t, out); res.StatusCode != 422 || header(res, "Min-SE") != "1200" {
		t.Errorf("%s", res)
	}
	w.counts(map[string]uint64{"IMESetupsFailed": 0, "PSTNCallsPlaced": 0})
	out = w.pbx.call(w.pbxAt, own, other, anySDP, [2]string{"Supported", "timer"}, [2]string{"x", "1200;refresher=uac"})
	s = w.far.expect()
	if header(s.req, "Session-Expires") != "1200;refresher=uac" {
		t.Errorf("%s", s.req)
	}
	l := w.far.leg(s)
	_ = l.Respond(s.req, s.tx, 200, "OK", anySDP, "", leg.Extra{{"Require", "timer"}, {"Session-Expires", "1200;refresher=uac"}})
	if res := final(t, out); header(res, "Require") != "timer" || header(res, "Session-Expires") != "1200;refresher=uac" {
		t.Errorf("%s", res)
	}
	done := make(chan *sip.Response, 1)
	go func() {
		res, err := out.Leg.Do(context.Background(), sip.UPDATE, nil, "", leg.Extra{{"Require", "timer"}, {"Session-Expires", "1200;refresher=uac"}})
		if err != nil {
			t.Error(err)
		}
		done <- res
	}()
	u := w.far.expect()
	if u.req.Method != sip.UPDATE || header(u.req, "Session-Expires") != "1200;refresher=uac" || header(u.req, "Require") != "timer" {
		t.Errorf("%s", u.req)
	}
	_ = l.Respond(u.req, u.tx, 200, "OK", nil, "", leg.Extra{{"Session-Expires", "1200;refresher=uac"}})
	if res := take(t, done, "the answer to UPDATE"); res.StatusCode != 200 || header(res, "Session-Expires") != "1200;refresher=uac" {
		t.Errorf("%s", res)
	}
}

func TestWhatIsRequiredAndUnknownIsRefused(t *testing.T) {
	w := newWorld(t, "")
	for _, at := range []struct {
		p  *peer
		to netip.AddrPort
	}{{w.pbx, w.pbxAt}, {w.pstn, w.pstnAt}} {
		res := final(t, at.p.call(at.to, own, other, anySDP, [2]string{"Require", "100REL, precondition"}))
		if res.StatusCode != 420 || header(res, "Unsupported") != "precondition" {
			t.Errorf("%s", res)
		}
	}
}

func TestNumberedAnswersAreBounded(t *testing.T) {
	c, l := &call{}, &leg.Leg{}
	res := sip.NewResponse(183, "Session Progress")
	res.AppendHeader(sip.NewHeader("Require", "100rel"))
	res.AppendHeader(sip.NewHeader("RSeq", "1"))
	res.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.INVITE})
	for i := range maximumReliable + 1 {
		res.ReplaceHeader(sip.NewHeader("RSeq", strconv.Itoa(i+1)))
		if x := c.number(l, res); (x == nil) != (i == maximumReliable) {
			t.Fatalf("answer %d: %v", i, x)
		}
	}
	for _, bad := range []string{"0", "-1", "x", "4294967296", ""} {
		res.ReplaceHeader(sip.NewHeader("RSeq", bad))
		if x := (&call{}).number(l, res); x != nil {
			t.Errorf("%q: %v", bad, x)
		}
	}
}
