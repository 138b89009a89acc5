package callagent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/callagent/leg"
	"imeproxy/ucime/learn"
)

func TestACallWithARouteGoesByIP(t *testing.T) {
	w := newWorld(t, "")
	ticket := w.route(other, w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	if !has(s.req, ticketHeader, ticket) || !has(s.req, sensitivityHeader, "sensitivity=3") {
		t.Errorf("%s", s.req)
	}
	if id := s.req.CallID().Value(); strings.Contains(id, w.imeAt.Addr().String()) {
		t.Errorf("Call-ID %s tells an inside address", id)
	}
	if u := s.req.Recipient.String(); u != "sip:"+other+"@b.example" {
		t.Errorf("Request-URI %s", u)
	}
	if f := s.req.From().Address.String(); f != "sip:"+own+"@a.example" {
		t.Errorf("From %s", f)
	}
	if body := string(s.req.Body()); !strings.Contains(body, "m=audio 4000 RTP/AVP 0 101") || !strings.Contains(body, "c=IN IP4 127.0.0.99") {
		t.Errorf("description %s", body)
	}
	l := w.far.leg(s)
	if err := l.Respond(s.req, s.tx, 200, "OK", anySDP, "", nil); err != nil {
		t.Fatal(err)
	}
	if res := final(t, out); res.StatusCode != 200 || !strings.Contains(string(res.Body()), "127.0.0.99") {
		t.Errorf("%s", res)
	}
	take(t, w.far.acks, "the ACK")
	// A request within the dialog crosses, and so does the end.
	res, err := out.Leg.Do(context.Background(), sip.BYE, nil, "", nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	take(t, w.far.byes, "the BYE")
	w.counts(map[string]uint64{"CallsAttempted": 1, "CallsSetup": 1, "IMESetupsFailed": 0, "VCRsWritten": 0, "ActiveCalls": 0})
}

// toPSTN answers the call that comes to the PSTN and tells when it came.
func (w *world) toPSTN(out *leg.Outgoing, called string) (at time.Time, there *leg.Leg) {
	w.t.Helper()
	s := w.pstn.expect()
	at = time.Now()
	if s.req.Recipient.User != called || s.req.GetHeader(ticketHeader) != nil {
		w.t.Errorf("%s", s.req)
	}
	there = w.pstn.leg(s)
	if err := there.Respond(s.req, s.tx, 200, "OK", anySDP, "", nil); err != nil {
		w.t.Fatal(err)
	}
	if res := final(w.t, out); res.StatusCode != 200 {
		w.t.Errorf("the caller hears of it: %s", res)
	}
	take(w.t, w.pstn.acks, "the ACK")
	return at, there
}

func TestAnyFailureOfTheIPPathGoesToThePSTN(t *testing.T) {
	closed := netip.MustParseAddrPort("127.0.0.4:1")
	silent, err := net.Listen("tcp4", "127.0.0.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	mute := silent.Addr().(*net.TCPAddr).AddrPort()
	for name, x := range map[string]struct {
		uris   []netip.AddrPort
		answer int
	}{
		"nobody listens": {[]netip.AddrPort{closed}, 0}, "nobody answers": {[]netip.AddrPort{mute}, 0},
		"nobody of six answers": {[]netip.AddrPort{mute, mute, mute, mute, mute, mute}, 0},
		"503":                   {nil, 503}, "403": {nil, 403}, "404": {nil, 404}, "500": {nil, 500}, "488": {nil, 488},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			if x.uris == nil {
				x.uris = []netip.AddrPort{w.far.at}
			}
			w.route(other, x.uris...)
			begin := time.Now()
			out := w.pbx.call(w.pbxAt, own, other, anySDP)
			if x.answer > 0 {
				s := w.far.expect()
				answer(s.req, s.tx, x.answer, "No")
			}
			if at, _ := w.toPSTN(out, other); at.Sub(begin) > 2*time.Second {
				t.Errorf("on the PSTN after %v", at.Sub(begin))
			}
			w.counts(map[string]uint64{"CallsAttempted": 1, "CallsSetup": 0, "IMESetupsFailed": 1})
		})
	}
}

func TestThePathDiesWhileThePhoneRings(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	l := w.far.leg(s)
	if err := l.Respond(s.req, s.tx, 180, "Ringing", nil, "", nil); err != nil {
		t.Fatal(err)
	}
	for res := take(t, out.Tx.Responses(), "ringing"); res.StatusCode != 180; res = take(t, out.Tx.Responses(), "ringing") {
	}
	w.far.setMute(true)
	begin := time.Now()
	if at, _ := w.toPSTN(out, other); at.Sub(begin) > 2*time.Second {
		t.Errorf("on the PSTN after %v", at.Sub(begin))
	}
}

// A far enterprise that answers 100 and OPTIONS and does no more holds the call for the progress timer.
func TestAFarEnterpriseThatNeverRings(t *testing.T) {
	w := newWorld(t, "feature\n progress-timer 2\n")
	w.route(other, w.far.at, netip.MustParseAddrPort("127.0.0.4:1"))
	begin := time.Now()
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	answer(s.req, s.tx, 100, "Trying")
	at, _ := w.toPSTN(out, other)
	if d := at.Sub(begin); d < 2*time.Second || d > 3*time.Second {
		t.Errorf("on the PSTN after %v", d)
	}
	until(t, "the far enterprise's call is cancelled", func() bool { return s.tx.OnCancel(func(*sip.Request) {}) == false })
	w.counts(map[string]uint64{"CallsAttempted": 1, "CallsSetup": 0, "IMESetupsFailed": 1, "PSTNCallsPlaced": 1})
}

// A phone that rings may do so for longer than the progress timer.
func TestAPhoneMayRingLongerThanTheProgressTimer(t *testing.T) {
	w := newWorld(t, "feature\n progress-timer 2\n")
	w.route(other, w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	l := w.far.leg(s)
	_ = l.Respond(s.req, s.tx, 180, "Ringing", nil, "", nil)
	select {
	case <-w.pstn.got:
		t.Fatal("on the PSTN while the phone rings")
	case <-time.After(2500 * time.Millisecond):
	}
	_ = l.Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
	if res := final(t, out); res.StatusCode != 200 {
		t.Errorf("%s", res)
	}
	w.counts(map[string]uint64{"CallsSetup": 1, "IMESetupsFailed": 0, "PSTNCallsPlaced": 0})
}

// What a far phone said before its path died must not keep the caller from hearing the one that answers: it is of another early dialog.
func TestThePSTNAnswersInADialogOfItsOwn(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	_ = w.far.leg(s).Respond(s.req, s.tx, 183, "Session Progress", anySDP, "", nil)
	early := take(t, out.Tx.Responses(), "early media")
	for ; early.StatusCode != 183; early = take(t, out.Tx.Responses(), "early media") {
	}
	answer(s.req, s.tx, 503, "Service Unavailable")
	s = w.pstn.expect()
	l := w.pstn.leg(s)
	if err := l.Respond(s.req, s.tx, 200, "OK", anySDP, "", nil); err != nil {
		t.Fatal(err)
	}
	res := final(t, out)
	one, _ := early.To().Params.Get("tag")
	two, _ := res.To().Params.Get("tag")
	if res.StatusCode != 200 || one == "" || one == two {
		t.Errorf("tags %s and %s", one, two)
	}
	take(t, w.pstn.acks, "the ACK")
	out.Leg.Bye(context.Background()) // of the dialog that was answered
	take(t, w.pstn.byes, "the BYE")
	w.counts(map[string]uint64{"ActiveCalls": 0})
}

// deaf is a place where nobody answers, not even that he tries.
func deaf(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.7:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func peerLine(at netip.AddrPort) string {
	return fmt.Sprintf(" peer udp %s port %d\n", at.Addr(), at.Port())
}

// second gives the agent another PSTN trunk, whose peer it returns.
func second(t *testing.T) (*peer, string) {
	t.Helper()
	p := newPeer(t, "127.0.0.6", "udp")
	return p, fmt.Sprintf("pstn-trunk u\n listen udp 127.0.0.1 port %d\n", port(t, "127.0.0.1", "udp")) + peerLine(p.at)
}

func TestAnotherTrunkTakesTheCall(t *testing.T) {
	for name, refuse := range map[string]int{"the first is silent": 0, "the first is full": 503, "the number is busy": 486} {
		t.Run(name, func(t *testing.T) {
			two, lines := second(t)
			w := newWorld(t, lines)
			if refuse == 0 {
				w.reload(strings.Replace(w.cfg, peerLine(w.pstn.at), peerLine(deaf(t)), 1))
			}
			out := w.pbx.call(w.pbxAt, own, other, anySDP)
			if refuse > 0 {
				s := w.pstn.expect()
				answer(s.req, s.tx, refuse, "No")
			}
			if refuse == 486 {
				if res := final(t, out); res.StatusCode != 486 {
					t.Errorf("%s", res)
				}
				return
			}
			begin := time.Now()
			s := two.expect()
			if d := time.Since(begin); d > 3*time.Second {
				t.Errorf("after %v", d)
			}
			_ = two.leg(s).Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
			if res := final(t, out); res.StatusCode != 200 {
				t.Errorf("%s", res)
			}
		})
	}
}

func TestTheNextURI(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, netip.MustParseAddrPort("127.0.0.4:1"), w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	l := w.far.leg(s)
	_ = l.Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
	if res := final(t, out); res.StatusCode != 200 {
		t.Error(res)
	}
	w.counts(map[string]uint64{"IMESetupsFailed": 0, "CallsSetup": 1})
}

func TestTheCalledUsersRefusalIsTold(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	answer(s.req, s.tx, 486, "Busy Here")
	if res := final(t, out); res.StatusCode != 486 {
		t.Error(res)
	}
	w.counts(map[string]uint64{"IMESetupsFailed": 0, "PSTNCallsPlaced": 0, "ActiveCalls": 0})
}

func TestACallWithoutARouteBecomesARecord(t *testing.T) {
	w := newWorld(t, "transformation us\n match 1XXXXXXXXXX prefix +\n")
	w.reload(strings.Replace(w.cfg, "pstn-trunk t\n", "e164-transformation e\n outgoing-called us\npstn-trunk t\n e164-transformation e\n", 1))
	out := w.pbx.call(w.pbxAt, own, "12125552222", anySDP)
	_, there := w.toPSTN(out, "12125552222")
	there.Bye(context.Background())
	take(t, w.pbx.byes, "the BYE")
	w.counts(map[string]uint64{"VCRsWritten": 1, "VCRsWaiting": 1, "CallsAttempted": 0})
	got, _ := w.a.Records().Take(9)
	if v := got[0]; v.Role != learn.Originating || v.Called != other || v.Caller != own || v.Start.IsZero() || v.Stop.Before(v.Start) {
		t.Errorf("%+v", v)
	}
	// The other role: from the PSTN to the PBX.
	in := w.pstn.call(w.pstnAt, other, own, anySDP)
	s := w.pbx.expect()
	_ = w.pbx.leg(s).Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
	final(t, in)
	in.Leg.Bye(context.Background())
	take(t, w.pbx.byes, "the BYE")
	w.counts(map[string]uint64{"VCRsWaiting": 2})
	if got, _ := w.a.Records().Take(9); got[1].Role != learn.Terminating || got[1].Called != own || got[1].Caller != other {
		t.Errorf("%+v", got[1])
	}
}

func (w *world) reload(text string) {
	w.t.Helper()
	cfg, err := config.Parse("test.cfg", []byte(text))
	if err == nil {
		err = w.a.Reload(cfg)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestWhoMayNotUseTheServiceGoesToThePSTN(t *testing.T) {
	w := newWorld(t, "exclusion-group x\n number +14085551112\ntrust-group g untrusted\n prefix +1213!\n")
	w.reload(strings.Replace(w.cfg, " activated\n", " activated\n exclusion-group x\n trust-group g\n", 1))
	w.route(other, w.far.at)
	for _, caller := range []string{"+14085551112", "+19995551111"} {
		out := w.pbx.call(w.pbxAt, caller, other, anySDP)
		_, there := w.toPSTN(out, other)
		there.Bye(context.Background())
		take(t, w.pbx.byes, "the BYE")
	}
	if err := w.a.Learn(learn.Route{Number: "+12135550000", Domain: "b.example", URIs: []string{"sip:x"}, Ticket: testTicket(t, "+12135550000")}); err == nil {
		t.Error("a route that is not trusted was learned")
	}
	w.counts(map[string]uint64{"CallsAttempted": 0, "RoutesRejected": 1, "VCRsWritten": 0})
}

func TestRoutesAreDisabledAndExpire(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, w.far.at)
	for _, command := range []string{"disable", "enable", "expire", "delete"} {
		if _, err := w.a.Command([]string{"routes", command, other}, false); err != nil {
			t.Fatal(err)
		}
		out := w.pbx.call(w.pbxAt, own, other, anySDP)
		if command == "enable" {
			s := w.far.expect()
			answer(s.req, s.tx, 486, "Busy Here")
			final(t, out)
			continue
		}
		_, there := w.toPSTN(out, other)
		there.Bye(context.Background())
		take(t, w.pbx.byes, "the BYE")
	}
	if _, err := w.a.Command([]string{"routes", "enable", other}, false); err == nil {
		t.Error("a deleted route was enabled")
	}
}

func TestInboundCallsReachThePBXAlone(t *testing.T) {
	w := newWorld(t, "")
	out := w.far.call(w.imeAt, other, own, anySDP, [2]string{ticketHeader, "x"})
	s := w.pbx.expect()
	if s.req.Recipient.User != "1111" || s.req.From().Address.User != other || s.req.GetHeader(ticketHeader) != nil || s.req.GetHeader(sensitivityHeader) != nil {
		t.Errorf("%s", s.req)
	}
	l := w.pbx.leg(s)
	_ = l.Respond(s.req, s.tx, 180, "Ringing", nil, "", nil)
	ringing := take(t, out.Tx.Responses(), "ringing")
	for ; ringing.StatusCode < 180; ringing = take(t, out.Tx.Responses(), "ringing") {
	}
	_ = l.Respond(s.req, s.tx, 200, "OK", anySDP, "", nil)
	res := final(t, out)
	for _, r := range []*sip.Response{ringing, res} {
		h := r.GetHeader(targetHeader)
		if h == nil || !strings.HasPrefix(h.Value(), "<tel:+14085559999>;dtmf=") || len(h.Value()) != len("<tel:+14085559999>;dtmf=")+4 {
			t.Errorf("%v", h)
		}
		if h := r.GetHeader(sensitivityHeader); h == nil || h.Value() != "sensitivity=3" {
			t.Errorf("%v", h)
		}
	}
	take(t, w.pbx.acks, "the ACK")
	out.Leg.Bye(context.Background())
	take(t, w.pbx.byes, "the BYE")
	w.counts(map[string]uint64{"CallsReceived": 1, "CallsAccepted": 1})
	stranger := w.far.call(w.imeAt, other, "+19995550000", anySDP)
	if res := final(t, stranger); res.StatusCode != 404 {
		t.Error(res)
	}
	w.counts(map[string]uint64{"RequestsRefused": 1, "PSTNCallsPlaced": 0, "ActiveCalls": 0})
}

func TestStrangersAreRefused(t *testing.T) {
	w := newWorld(t, "")
	x := newPeer(t, "127.0.0.9", "udp")
	for _, at := range []netip.AddrPort{w.pbxAt, w.pstnAt} {
		if res := final(t, x.call(at, own, other, anySDP)); res.StatusCode != 403 {
			t.Error(res)
		}
	}
	w.counts(map[string]uint64{"RequestsRefused": 2, "ActiveCalls": 0})
}

func TestACancelledCallIsCancelledThere(t *testing.T) {
	w := newWorld(t, "")
	w.route(other, w.far.at)
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	s := w.far.expect()
	cancelled := make(chan struct{})
	s.tx.OnCancel(func(*sip.Request) { close(cancelled) })
	_ = w.far.leg(s).Respond(s.req, s.tx, 180, "Ringing", nil, "", nil)
	for take(t, out.Tx.Responses(), "ringing").StatusCode != 180 {
	}
	out.Cancel()
	take(t, cancelled, "the CANCEL")
	w.counts(map[string]uint64{"ActiveCalls": 0, "PSTNCallsPlaced": 0})
}

func TestMoreCallsThanTheMaximum(t *testing.T) {
	w := newWorld(t, "maximum-calls 1\n")
	out := w.pbx.call(w.pbxAt, own, other, anySDP)
	w.pstn.expect()
	if res := final(t, w.pbx.call(w.pbxAt, own, other, anySDP)); res.StatusCode != 503 {
		t.Error(res)
	}
	w.counts(map[string]uint64{"CallsRefused": 1})
	out.Cancel()
	w.counts(map[string]uint64{"ActiveCalls": 0})
}

func TestTheCallRateHolds(t *testing.T) {
	w := newWorld(t, "")
	w.reload(strings.Replace(w.cfg, "pstn-trunk t\n", "pstn-trunk t\n call-rate 2\n", 1))
	begin := time.Now()
	var outs []*leg.Outgoing
	for range 6 { // the first at once, then one each half second, the sixth would wait longer than two seconds
		outs = append(outs, w.pbx.call(w.pbxAt, own, other, anySDP))
	}
	var times []time.Duration
	for range 5 {
		s := w.pstn.expect()
		times = append(times, time.Since(begin))
		answer(s.req, s.tx, 486, "Busy Here")
	}
	for i, d := range times {
		if least := time.Duration(i)*500*time.Millisecond - 20*time.Millisecond; d < least {
			t.Errorf("call %d after %v", i, d)
		}
	}
	refused := 0
	for _, o := range outs {
		if final(t, o).StatusCode == 503 {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d calls were refused", refused)
	}
	w.counts(map[string]uint64{"PSTNCallsRefused": 1})
}

func TestAReloadThatWouldNeedARestartIsRefused(t *testing.T) {
	w := newWorld(t, "")
	cfg, err := config.Parse("x", []byte(strings.Replace(w.cfg, "control ", "control /elsewhere", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.a.Reload(cfg); err == nil {
		t.Error("the control socket moved")
	}
}

func TestQualityAlert(t *testing.T) {
	w := newWorld(t, "")
	w.a.counters.CallsAttempted.Add(2)
	w.a.counters.IMESetupsFailed.Add(1)
	w.a.evaluate() // 50 % is not more than 50 %
	w.a.counters.CallsAttempted.Add(3)
	w.a.counters.IMESetupsFailed.Add(2)
	if out, _ := w.a.Command([]string{"show", "alerts"}, false); out != "" {
		t.Error(out)
	}
	w.a.evaluate()
	if out, _ := w.a.Command([]string{"show", "alerts"}, true); !strings.Contains(out, `"active": true`) || !strings.Contains(out, "2 of 3 calls") {
		t.Error(out)
	}
	w.a.evaluate()
	if out, _ := w.a.Command([]string{"show", "alerts"}, true); !strings.Contains(out, `"active": false`) {
		t.Error(out)
	}
}
