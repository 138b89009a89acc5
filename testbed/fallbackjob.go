package testbed

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// FallbackReport is what became of a call that turned bad, in build/demo/report.json.
type FallbackReport struct {
	// VCRs are the records of the PSTN call, both enterprises' together; 2 is right.
	VCRs int `json:"voice_call_records"`
	// PSTNSeconds is how long that call lasted by the caller's record.
	PSTNSeconds float64 `json:"pstn_call_s"`
	// SRTP counts protected packets on the Internet while the second call was there, PlainRTP the others with sound.
	SRTP     int `json:"srtp_packets_on_internet"`
	PlainRTP int `json:"plain_rtp_on_internet"`
	// LossPercent is what the Internet lost of the media, from the moment on when it turned bad: of A's and of B's.
	LossPercent map[string]float64 `json:"loss_percent"`
	// ReferMS is the time from there to the first notification, MoveMS from it to the end of the IP leg.
	ReferMS float64 `json:"refer_after_ms"`
	MoveMS  float64 `json:"moved_after_ms"`
	// ReferLateMS is how long after they were due the notifications came, by proxy, as an independent computation says.
	ReferLateMS map[string]float64 `json:"refer_late_ms"`
	// Sound is what the phones heard, by direction.
	Sound map[string]SoundReport `json:"sound"`
	// Late counts media packets on the Internet after the IP leg's end.
	Late int `json:"media_packets_on_internet_afterwards"`
	// Successful and Failed are the call agents' counters of fallback calls, by enterprise.
	Successful map[string]int `json:"fallback_calls_successful"`
	Failed     map[string]int `json:"fallback_calls_failed"`

	hungUp  time.Time
	learned bool // the route came from the peer server, which has the records too
}

// SoundReport is one direction of a call that moved.
type SoundReport struct {
	ToneHz       float64 `json:"tone_hz"`            // of the whole call
	ToneOverPSTN float64 `json:"tone_over_pstn_hz"`  // after the move
	LongestGap   float64 `json:"longest_gap_ms"`     // of the whole call, losses before the move included
	MoveGap      float64 `json:"gap_of_the_move_ms"` // between the last sound from the Internet and the first from the PSTN; less than 0: they overlap
	PSTNSeconds  float64 `json:"over_pstn_s"`        // how long it went on
}

// shortestHoldDown is what a proxy can be configured to.
const shortestHoldDown = 10 * time.Second

// FastFallback changes a proxy's configuration to the shortest hold-down, so that nobody has to wait long for a notification.
func FastFallback(text string) string {
	return strings.Replace(text, " ticket epoch", fmt.Sprintf(" fallback hold-down timer %.0f\n ticket epoch", shortestHoldDown.Seconds()), 1)
}

// badInternet loses a fifth of the media in bursts: far beyond what level 3 bears, and no silence is longer than half a second.
func badInternet(seed uint64) Loss {
	return BurstLoss(seed, Burst{Worsen: 0.05, Recover: 0.2, Bad: 1})
}

// fallbackTaps are the captures that the job needs.
type fallbackTaps struct {
	internet, pstn      *Capture // the Internet at the edge of A, the PSTN too
	internetB           *Capture
	phoneA, phoneB      *Capture
	proxyA, proxyB      *Capture
	begun, spoilt, over time.Time // of the second call
}

func (c *fallbackTaps) all() []*Capture {
	return []*Capture{c.internet, c.internetB, c.pstn, c.phoneA, c.phoneB, c.proxyA, c.proxyB}
}

// FallbackJob lets A call B twice, with a telephone network at hand: without a route the call goes over the PSTN and leaves voice
// call records; with one it goes over the Internet, which then turns bad, and the call agents move it to the PSTN while the phones
// talk. It finds faults, but only a lab that does not work ends the test. JoinPSTN must have been called.
func FallbackJob(t T, l *Lab, say func(format string, args ...any)) (FallbackReport, []string) {
	t.Helper()
	return fallbackJob(t, l, false, say)
}

// fallbackJob is FallbackJob; with learned there is a route already, and the call over the PSTN is left out.
func fallbackJob(t T, l *Lab, learned bool, say func(format string, args ...any)) (r FallbackReport, problems []string) {
	t.Helper()
	r.learned = learned
	if say == nil {
		say = func(string, ...any) {}
	}
	problem := func(format string, args ...any) {
		problems = append(problems, "fallback: "+fmt.Sprintf(format, args...))
	}
	caps := &fallbackTaps{
		internet: l.Capture(t, l.Internet.Host, "ea"), internetB: l.Capture(t, l.Internet.Host, "eb"), pstn: l.Capture(t, l.PSTNHost, "ta"),
		phoneA: l.Capture(t, l.A.PhoneHost, "eth0"), phoneB: l.Capture(t, l.B.PhoneHost, "eth0"),
		proxyA: l.Capture(t, l.A.EdgeHost, "ein"), proxyB: l.Capture(t, l.B.EdgeHost, "ein"),
	}
	if !r.learned {
		r.viaPSTN(t, l, caps, problem, say)
	}
	r.viaInternet(t, l, caps, problem, say)
	for _, c := range caps.all() {
		c.Stop(t)
	}
	say("The call has ended. What the captures and the call agents say:")
	r.judge(t, l, caps, problem, say)
	return r, problems
}

// viaPSTN is the call without a route.
func (r *FallbackReport) viaPSTN(t T, l *Lab, caps *fallbackTaps, problem, say func(string, ...any)) {
	t.Helper()
	a, b := l.A, l.B
	say("%s of %s dials %s; its call agent knows no route", a.Number, a.Domain, b.Number)
	setup := a.Phone.Call(t, b.Phone)
	if calls := a.Agent.Calls(t); len(calls) != 1 || calls[0].Way != "pstn" {
		problem("the call without a route stands as %+v", calls)
	}
	l.TalkFor(t, time.Second, caps.phoneA, caps.phoneB)
	a.Phone.Hangup(t)
	b.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	var records [2]VCR
	for i, e := range l.Enterprises() {
		Until(t, 5*time.Second, "call agent "+e.Letter+" has its voice call record", func() bool { return len(e.Agent.VCRs(t)) > 0 })
		all := e.Agent.VCRs(t)
		records[i] = all[len(all)-1]
		r.VCRs += len(all)
		if v := records[i]; v.Role != i+1 || v.Caller != a.Number || v.Called != b.Number {
			problem("record of %s: %+v", e.Domain, v)
		}
	}
	if r.VCRs != 2 {
		problem("%d voice call records, want 2", r.VCRs)
	}
	for _, e := range l.Enterprises() {
		if tone := e.Phone.LastTone(t); math.Abs(tone.Hz-float64(e.far.Phone.Tone)) > 5 || tone.Share < 0.9 {
			problem("over the PSTN phone %s heard %+v, want %d Hz", e.Letter, tone, e.far.Phone.Tone)
		}
	}
	va, vb := records[0], records[1]
	r.PSTNSeconds = va.Stop.Sub(va.Start).Seconds()
	for _, d := range []time.Duration{va.Start.Sub(vb.Start), va.Stop.Sub(vb.Stop)} {
		if d.Abs() > time.Second {
			problem("the two records differ by %v: %+v, %+v", d, va, vb)
		}
	}
	if n := len(media(caps.internet.Packets(t))); n > 0 {
		problem("%d media packets on the Internet during the PSTN call", n)
	}
	say("  over the PSTN, answered after %d ms; the phones hear each other, no media on the Internet", setup.Milliseconds())
	say("  voice call records: %s (originating) and %s (terminating) have the same call of %.1f s", a.Domain, b.Domain, r.PSTNSeconds)
}

// viaInternet is the call that moves.
func (r *FallbackReport) viaInternet(t T, l *Lab, caps *fallbackTaps, problem, say func(string, ...any)) {
	t.Helper()
	a, b := l.A, l.B
	if !r.learned {
		a.Agent.AddRoute(t)
		say("A route to %s is entered, with a ticket that %s issued", b.Number, b.Domain)
	}
	caps.begun = time.Now()
	before := b.ticketsVerified(t)
	setup := a.Phone.Call(t, b.Phone)
	if calls := a.Agent.Calls(t); len(calls) != 1 || calls[0].Way != "ime" {
		problem("the call with a route stands as %+v", calls)
	}
	if n := b.ticketsVerified(t) - before; n != 1 {
		problem("the proxy of %s verified %d tickets, want 1", b.Domain, n)
	}
	say("  the same call goes over the Internet, answered after %d ms; the proxy of %s verified its ticket", setup.Milliseconds(), b.Domain)
	l.TalkFor(t, 2*time.Second, caps.phoneA, caps.phoneB, caps.internet)
	if err := l.Internet.Spoil(map[*Enterprise]Loss{a: badInternet(1), b: badInternet(2)}); err != nil {
		t.Fatalf("%v", err)
	}
	caps.spoilt = time.Now()
	say("The Internet turns bad: bursts of loss, both ways")
	moved := func(e *Enterprise) bool { return e.Agent.Counters(t)["FallbackCallsSuccessful"] > 0 }
	Until(t, 45*time.Second, "both call agents have moved the call", func() bool { return moved(a) && moved(b) })
	say("  after %.1f s both call agents have moved the call to the PSTN; the phones talk on", time.Since(caps.spoilt).Seconds())
	l.TalkFor(t, 3*time.Second, caps.phoneA, caps.phoneB, caps.pstn)
	r.hungUp = time.Now()
	b.Phone.Hangup(t)
	a.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	caps.over = time.Now()
	if err := l.Internet.Spoil(nil); err != nil {
		t.Fatalf("%v", err)
	}
}

// judge reads the captures of the call that moved.
func (r *FallbackReport) judge(t T, l *Lab, caps *fallbackTaps, problem, say func(string, ...any)) {
	t.Helper()
	during := func(c *Capture) []Packet { return between(c.Packets(t), caps.begun, caps.over) }
	internet, internetB, proxyA, proxyB := during(caps.internet), during(caps.internetB), during(caps.proxyA), during(caps.proxyB)
	wire := CheckWire(internet, [][]Packet{proxyA, proxyB}, l.decrypt(t, caps.internet), l.A.Inside, l.B.Inside)
	r.SRTP, r.PlainRTP = wire.SRTP, wire.PlainRTP
	if !wire.OK() || wire.SRTP < 500 {
		problem("on the Internet: %+v", wire)
	}
	say("  Internet  %d SRTP packets, %d of TLS; plain RTP: %d; inside addresses: %d", wire.SRTP, wire.TLS, wire.PlainRTP, len(wire.InsideAddresses))

	refer, bye := firstOf("REFER ", proxyA, proxyB), firstOf("BYE ", proxyA, proxyB)
	if refer.IsZero() || bye.IsZero() || refer.Before(caps.spoilt) || bye.Before(refer) {
		problem("notification at %v, end of the IP leg at %v; the Internet turned bad at %v", refer, bye, caps.spoilt)
		return
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r.ReferMS, r.MoveMS = ms(refer.Sub(caps.spoilt)), ms(bye.Sub(refer))
	r.LossPercent = map[string]float64{"a": lossOf(l.A, internet, proxyB, caps.spoilt, bye), "b": lossOf(l.B, internetB, proxyA, caps.spoilt, bye)}
	say("  REFER     %.1f s after the Internet turned bad (lost %.0f %% of A's packets, %.0f %% of B's); the IP leg ended %.1f s later",
		r.ReferMS/1000, r.LossPercent["a"], r.LossPercent["b"], r.MoveMS/1000)
	r.timing(l, map[*Enterprise][2][]Packet{l.A: {internet, proxyA}, l.B: {internetB, proxyB}}, bye, problem, say)
	r.Late = len(media(between(append(internet, internetB...), bye, caps.over)))
	if r.Late > 0 {
		problem("%d media packets on the Internet after the end of the IP leg", r.Late)
	}
	say("  Internet  %d media packets in the %.1f s after that", r.Late, caps.over.Sub(bye).Seconds())
	r.Sound = make(map[string]SoundReport)
	r.listen(l.A, during(caps.phoneB), problem, say)
	r.listen(l.B, during(caps.phoneA), problem, say)
	r.count(t, l, problem, say)
}

// timing compares the notifications with what the captures of the Internet, as it arrives at each proxy, and of the inside say.
func (r *FallbackReport) timing(l *Lab, captures map[*Enterprise][2][]Packet, bye time.Time, problem, say func(string, ...any)) {
	r.ReferLateMS = make(map[string]float64)
	for _, e := range l.Enterprises() {
		i := slices.IndexFunc(Streams(captures[e][0]), func(s *RTPStream) bool { return s.Dst.Addr() == e.MediaOut })
		if i < 0 {
			problem("no stream arrives at the proxy of %s", e.Domain)
			continue
		}
		packets := Streams(captures[e][0])[i].Packets
		refer, until := notification(captures[e][1], ""), bye
		if refer.IsZero() {
			until = bye.Add(-3 * sampleEvery) // the move may be quicker than the second proxy
		}
		late, err := referFits(refer, ReferDues(packets, refer, until, shortestHoldDown, levels[3]))
		switch {
		case err != nil:
			problem("notification of proxy %s: %v", e.Letter, err)
		case !refer.IsZero():
			r.ReferLateMS[e.Letter] = float64(late.Microseconds()) / 1000
			say("            proxy %s told its call agent %.0f ms after the sample from which on the protocol makes that due", strings.ToUpper(e.Letter), r.ReferLateMS[e.Letter])
		}
	}
}

// count reads counters and records.
func (r *FallbackReport) count(t T, l *Lab, problem, say func(string, ...any)) {
	t.Helper()
	r.Successful, r.Failed = make(map[string]int), make(map[string]int)
	for _, e := range l.Enterprises() {
		c := e.Agent.Counters(t)
		r.Successful[e.Letter], r.Failed[e.Letter] = c["FallbackCallsSuccessful"], c["FallbackCallsFailed"]
		if r.Successful[e.Letter] != 1 || r.Failed[e.Letter] != 0 || c["ActiveCalls"] != 0 {
			problem("counters of call agent %s: %v", e.Letter, c)
		}
		if n := len(e.Agent.VCRs(t)); n != 1 && !r.learned {
			problem("%s has %d voice call records after the fallback, want the one of the first call", e.Domain, n)
		}
	}
	notified := 0
	for _, e := range l.Enterprises() {
		accepted := e.Proxy.accepted(t)
		notified += accepted
		told := func() bool { return strings.Contains(e.Proxy.records(), `"fallback_notified":true`) == (accepted > 0) }
		if !eventually(loggedWithin, told) {
			problem("proxy %s had %d notifications accepted; its call records: %s", e.Letter, accepted, tail(e.Proxy.records(), 1000))
		}
	}
	if notified == 0 {
		problem("no proxy counts a notification")
	}
	say("  counters  fallback calls successful: %d and %d, failed: %d and %d; notifications accepted: %d, as the call records say too",
		r.Successful["a"], r.Successful["b"], r.Failed["a"], r.Failed["b"], notified)
}

// accepted counts the notifications that the call agent took.
func (p *Proxy) accepted(t T) int {
	t.Helper()
	var s struct {
		Accepted int `json:"notifications_accepted"`
	}
	p.Show(t, "uc-ime fallback-notification statistics", &s)
	return s.Accepted
}

// listen judges what reached the far phone of a speaker.
func (r *FallbackReport) listen(speaker *Enterprise, packets []Packet, problem, say func(string, ...any)) {
	listener, way := speaker.far, speaker.Letter+"->"+speaker.far.Letter
	var last, first, end time.Time // sound from the Internet, from the PSTN
	for _, p := range packets {
		m, ok := parseRTP(p)
		switch {
		case !ok || m.Type != 0 || p.Dst.Addr() != listener.PhoneIP || rms(DecodeULaw(m.Body)) < silence:
		case p.Src.Addr() == listener.PSTNIP:
			if first.IsZero() {
				first = p.Time
			}
			end = p.Time
		default:
			last = p.Time
		}
	}
	if last.IsZero() || first.IsZero() {
		problem("%s: last sound from the Internet at %v, first from the PSTN at %v", way, last, first)
		return
	}
	whole, err1 := Analyze(Heard(packets, listener.PhoneIP))
	after, err2 := Analyze(Heard(between(packets, first, end), listener.PhoneIP))
	if err1 != nil || err2 != nil {
		problem("%s: sound: %v, after the move: %v", way, err1, err2)
		return
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	s := SoundReport{ToneHz: whole.Hz, ToneOverPSTN: after.Hz, MoveGap: ms(first.Sub(last)), PSTNSeconds: end.Sub(first).Seconds()}
	for _, g := range whole.Gaps {
		s.LongestGap = max(s.LongestGap, ms(g.Length))
	}
	r.Sound[way] = s
	want := float64(speaker.Phone.Tone)
	if math.Abs(whole.Hz-want) > 5 || math.Abs(after.Hz-want) > 5 || after.Share < 0.9 || s.PSTNSeconds < 2.5 {
		problem("%s: heard %.0f Hz, over the PSTN %.0f Hz with %.0f %% of the energy for %.1f s, want %.0f Hz", way, whole.Hz, after.Hz, 100*after.Share, s.PSTNSeconds, want)
	}
	if s.LongestGap >= 500 || s.MoveGap >= 500 {
		problem("%s: a gap of %.0f ms, at the move of %.0f ms", way, s.LongestGap, s.MoveGap)
	}
	for _, p := range between(packets, first, r.hungUp) {
		if p.Proto == protoICMP && p.Src.Addr() == listener.PhoneIP {
			problem("%s: phone %s refuses packets", way, listener.Letter)
			break
		}
	}
	say("  %s      phone %s hears %d Hz go on: %.0f ms between the ways, longest silence of the call %.0f ms, then %.1f s over the PSTN at %.0f Hz",
		way, strings.ToUpper(listener.Letter), speaker.Phone.Tone, s.MoveGap, s.LongestGap, s.PSTNSeconds, after.Hz)
}

// media are the RTP and RTCP packets of a capture.
func media(packets []Packet) (out []Packet) {
	for _, p := range packets {
		if _, ok := parseRTP(p); ok || p.Proto == protoUDP && isRTCP(p.Payload) {
			out = append(out, p)
		}
	}
	return out
}

// firstOf is the time of the first SIP request of a method over TCP, zero when there is none.
func firstOf(method string, captures ...[]Packet) (first time.Time) {
	for _, packets := range captures {
		i := slices.IndexFunc(packets, func(p Packet) bool { return p.Proto == protoTCP && strings.HasPrefix(string(p.Payload), method) })
		if i >= 0 && (first.IsZero() || packets[i].Time.Before(first)) {
			first = packets[i].Time
		}
	}
	return first
}

// lossOf is the share of the speaker's packets, in percent, that the Internet lost: sent counts where they enter it, got behind the
// far proxy.
func lossOf(speaker *Enterprise, internet, got []Packet, from, to time.Time) float64 {
	count := func(packets []Packet, src netip.Addr) (n int) {
		for _, p := range between(packets, from, to) {
			if m, ok := parseRTP(p); ok && m.Src.Addr() == src {
				n++
			}
		}
		return n
	}
	sent, arrived := count(internet, speaker.MediaOut), count(got, speaker.far.MediaIn)
	return 100 * (1 - float64(arrived)/math.Max(1, float64(sent)))
}
