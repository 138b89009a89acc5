package testbed

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report is what `make demo` writes to build/demo/report.json.
type Report struct {
	// Calls holds an entry for each call and direction of its sound.
	Calls []CallReport `json:"calls"`
	// Fallback tells of the call that moved to the PSTN; nil when the lab has none.
	Fallback *FallbackReport `json:"fallback,omitempty"`
	// Story tells how the route of that call was learned; nil when the lab has no PSTN.
	Story *StoryReport `json:"story,omitempty"`
	OK    bool         `json:"ok"`
	// Problems says in words why OK is false.
	Problems []string `json:"problems,omitempty"`
}

// CallReport is one direction of the sound of one call.
type CallReport struct {
	From      string `json:"from"`      // caller, E.164
	To        string `json:"to"`        // called number
	Direction string `json:"direction"` // of the sound: "a->b" or "b->a"
	// Ticket is the result of verification in the called enterprise.
	Ticket             string  `json:"ticket"`
	SRTPSuite          string  `json:"srtp_suite"`
	TLSSuite           string  `json:"tls_suite"`
	SetupMS            float64 `json:"setup_ms"`
	ToneExpectedHz     int     `json:"tone_expected_hz"`
	ToneFoundHz        float64 `json:"tone_found_hz"`
	GapsMS             float64 `json:"gaps_ms"`
	PacketsSent        int     `json:"packets_sent"`
	PacketsReceived    int     `json:"packets_received"`
	PlainRTP           int     `json:"plain_rtp_on_internet"`
	InsideAddresses    int     `json:"inside_addresses_on_internet"`
	UnexpectedPackets  int     `json:"unexpected_packets_on_internet"`
	ProtectedPackets   int     `json:"srtp_packets_on_internet"`
	DecryptedSIPOnWire int     `json:"sip_messages_on_internet"`
}

// MainJobOptions of the appliance's main job.
type MainJobOptions struct {
	// Talk is how long each call's sound lasts; 0 is 3 s.
	Talk time.Duration
	// Say receives the timeline, line by line; nil is silence.
	Say func(format string, args ...any)
}

// taps are the captures that the main job needs from its first packet on.
type taps struct {
	insideA, insideB, internet *Capture
}

// placedCall is what is known of a call when it has ended.
type placedCall struct {
	from, to   *Enterprise
	id         string // Call-ID
	setup      time.Duration
	begin, end time.Time
	heard      map[*Enterprise]Tone
	// verified is how many tickets the called proxy accepted meanwhile.
	verified int
}

// MainJob lets A call B and B call A, each phone playing its tone and
// recording the other's, and judges what the phones heard and what crossed
// the Internet. It finds faults, but only a lab that does not work ends the
// test: read Report.OK.
func MainJob(t T, l *Lab, o MainJobOptions) Report {
	t.Helper()
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.Talk == 0 {
		o.Talk = 3 * time.Second
	}
	// One capture over both calls: the second may use the TLS connection of
	// the first, and its keys come from the beginning.
	caps := taps{
		insideA: l.Capture(t, l.A.EdgeHost, "ein"), insideB: l.Capture(t, l.B.EdgeHost, "ein"),
		internet: l.Capture(t, l.Internet.Host, "ea"),
	}
	var calls []placedCall
	for i, caller := range l.Enterprises() {
		o.Say("Call %d: %s of %s dials %s", i+1, caller.Number, caller.Domain, caller.far.Number)
		calls = append(calls, l.placeCall(t, caller, o, caps))
	}
	for _, c := range []*Capture{caps.insideA, caps.insideB, caps.internet} {
		c.Stop(t)
	}
	o.Say("Both calls have ended. What the recordings and the captures say:")
	var r Report
	messages := l.decrypt(t, caps.internet)
	for i, c := range calls {
		r.judge(t, l, i+1, c, caps, messages, o.Say)
	}
	r.OK = len(r.Problems) == 0
	return r
}

// placeCall makes one call; its caller hangs up.
func (l *Lab) placeCall(t T, caller *Enterprise, o MainJobOptions, caps taps) placedCall {
	t.Helper()
	c := placedCall{from: caller, to: caller.far, begin: time.Now(), heard: make(map[*Enterprise]Tone)}
	before := caller.far.ticketsVerified(t)
	c.setup = caller.Phone.Call(t, caller.far.Phone)
	c.id = caller.Phone.CallID()
	o.Say("  answered after %d ms", c.setup.Milliseconds())
	l.TalkFor(t, o.Talk, caps.insideA, caps.insideB)
	caller.Phone.Hangup(t)
	caller.far.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	o.Say("  talked for %v; %s hung up, the other phone knows", o.Talk, caller.Number)
	c.end = time.Now()
	c.verified = caller.far.ticketsVerified(t) - before
	for _, e := range l.Enterprises() {
		c.heard[e] = e.Phone.LastTone(t)
	}
	return c
}

// ticketsVerified is the proxy's own count; 0 with an edge of other make.
func (e *Enterprise) ticketsVerified(t T) int {
	t.Helper()
	if e.Proxy == nil {
		return 0
	}
	var stats struct {
		TicketsVerified int `json:"tickets_verified"`
	}
	e.Proxy.Show(t, "uc-ime signaling-sessions statistics", &stats)
	return stats.TicketsVerified
}

// decrypt reads the SIP of the Internet with the key logs of the proxies.
func (l *Lab) decrypt(t T, internet *Capture) []SIPMessage {
	t.Helper()
	var logs []string
	for _, e := range l.Enterprises() {
		if e.Proxy != nil {
			logs = append(logs, e.Proxy.KeyLog)
		}
	}
	if logs == nil {
		return nil
	}
	return internet.TLSMessages(t, logs...)
}

// judge adds one call to the report and tells it.
func (r *Report) judge(t T, l *Lab, number int, c placedCall, caps taps, all []SIPMessage, say func(string, ...any)) {
	t.Helper()
	problem := func(format string, args ...any) {
		r.Problems = append(r.Problems, fmt.Sprintf("call %d: ", number)+fmt.Sprintf(format, args...))
	}
	during := func(capture *Capture) []Packet { return between(capture.Packets(t), c.begin, c.end) }
	insideA, insideB := during(caps.insideA), during(caps.insideB)
	messages := ofCall(all, c.id)
	base := CallReport{From: c.from.Number, To: c.to.Number, SetupMS: float64(c.setup.Microseconds()) / 1000, DecryptedSIPOnWire: len(messages)}
	base.TLSSuite = tlsNames(caps.internet.TLSSuites(t))
	if l.A.Proxy != nil || l.B.Proxy != nil {
		base.SRTPSuite = answeredSuite(messages)
		base.Ticket = verifyTicket(t, c, messages)
		if base.SRTPSuite == "" {
			problem("no SRTP suite was agreed on the Internet side")
		}
		if base.Ticket != "ok" {
			problem("ticket: %s", base.Ticket)
		}
		if c.to.Proxy != nil && c.verified != 1 {
			problem("the proxy of %s verified %d tickets, want 1", c.to.Domain, c.verified)
		}
	}
	// An edge of other make does not hide what is behind it.
	var hidden []netip.Prefix
	for _, e := range l.Enterprises() {
		if e.side.Edge == EdgeImeproxy || e.side.Edge == EdgeMachine {
			hidden = append(hidden, e.Inside)
		}
	}
	wire := CheckWire(during(caps.internet), [][]Packet{insideA, insideB}, messages, hidden...)
	base.PlainRTP, base.InsideAddresses = wire.PlainRTP, len(wire.InsideAddresses)
	base.UnexpectedPackets, base.ProtectedPackets = len(wire.Unexpected), wire.SRTP
	if !wire.OK() {
		problem("on the Internet: %d packets of plain RTP; %q; %q", wire.PlainRTP, wire.Unexpected, wire.InsideAddresses)
	}
	say("Call %d, %s to %s", number, c.from.Number, c.to.Number)
	if base.Ticket != "" {
		say("  ticket    %s showed the one that %s gave it: %s", c.from.Domain, c.to.Domain, base.Ticket)
	}
	if base.TLSSuite != "" {
		say("  signaling TLS %s between the edges; %d messages decrypted and read", base.TLSSuite, len(messages))
	}
	if base.SRTPSuite != "" {
		say("  media     SRTP %s between the edges, plain RTP inside", base.SRTPSuite)
	}
	in := map[*Enterprise][]Packet{l.A: insideA, l.B: insideB}
	for _, speaker := range l.Enterprises() {
		d := base
		d.Direction = speaker.Letter + "->" + speaker.far.Letter
		r.listen(&d, c, speaker, in, problem, say)
		r.Calls = append(r.Calls, d)
	}
	say("  Internet  %d SRTP packets, %d SRTCP, %d of TLS; plain RTP: %d; inside addresses: %d; others: %d",
		wire.SRTP, wire.SRTCP, wire.TLS, wire.PlainRTP, len(wire.InsideAddresses), len(wire.Unexpected))
}

// listen judges one direction: what the speaker sent and the listener heard.
func (r *Report) listen(d *CallReport, c placedCall, speaker *Enterprise, in map[*Enterprise][]Packet, problem func(string, ...any), say func(string, ...any)) {
	listener := speaker.far
	var lost int
	for _, s := range Streams(in[speaker]) {
		if s.Src.Addr() == speaker.PhoneIP {
			d.PacketsSent += len(s.Packets)
		}
	}
	for _, s := range Streams(in[listener]) {
		if s.Dst.Addr() == listener.PhoneIP {
			d.PacketsReceived += len(s.Packets)
			lost += s.Lost()
		}
	}
	tone := c.heard[listener]
	d.ToneExpectedHz, d.ToneFoundHz = speaker.Phone.Tone, math.Round(tone.Hz*10)/10
	d.GapsMS = float64(tone.GapTotal().Milliseconds())
	if math.Abs(tone.Hz-float64(speaker.Phone.Tone)) > 5 || tone.Share < 0.9 {
		problem("%s: heard %.0f Hz with %.0f %% of the energy, want %d Hz", d.Direction, tone.Hz, 100*tone.Share, speaker.Phone.Tone)
	}
	if tone.GapTotal() > 200*time.Millisecond || tone.LevelDB < -40 {
		problem("%s: gaps of %v, level %.0f dB", d.Direction, tone.GapTotal(), tone.LevelDB)
	}
	// The first and last packets may meet a call that is not up any more.
	if d.PacketsSent < 50 || d.PacketsReceived < d.PacketsSent-10 || lost > 2 {
		problem("%s: %d packets sent, %d received, %d lost", d.Direction, d.PacketsSent, d.PacketsReceived, lost)
	}
	say("  %s      phone %s played %d Hz in %d packets; phone %s received %d, lost %d, and recorded %.0f Hz, gaps %.0f ms",
		d.Direction, strings.ToUpper(speaker.Letter), speaker.Phone.Tone, d.PacketsSent,
		strings.ToUpper(listener.Letter), d.PacketsReceived, lost, tone.Hz, d.GapsMS)
}

// between selects packets by time.
func between(packets []Packet, begin, end time.Time) []Packet {
	return slices.DeleteFunc(slices.Clone(packets), func(p Packet) bool { return p.Time.Before(begin) || p.Time.After(end) })
}

// ofCall selects messages by Call-ID.
func ofCall(all []SIPMessage, id string) []SIPMessage {
	var out []SIPMessage
	for _, m := range all {
		if m.Get("Call-ID") == id {
			out = append(out, m)
		}
	}
	return out
}

// answeredSuite is the suite of the answer to the INVITE.
func answeredSuite(messages []SIPMessage) string {
	for _, m := range messages {
		if s := m.CryptoSuites(); m.Status() >= 180 && m.Status() < 300 && len(s) > 0 {
			return s[0]
		}
	}
	return ""
}

// verifyTicket checks the ticket that crossed the Internet with the command
// that the called enterprise's administrator has.
func verifyTicket(t T, c placedCall, messages []SIPMessage) string {
	t.Helper()
	for _, m := range messages {
		ticket := m.Get("X-Cisco-UC-IME-Ticket")
		if m.Method() != "INVITE" || ticket == "" {
			continue
		}
		file := filepath.Join(c.to.lab.Dir, "called-password")
		if err := os.WriteFile(file, []byte(c.to.TicketPassword), 0o600); err != nil {
			t.Fatalf("%v", err)
		}
		defer os.Remove(file)
		out, err := Imeproxy("ticket", "verify", "--password-file", file, "--epoch", strconv.Itoa(c.to.TicketEpoch),
			"--own-domain", c.to.Domain, "--called", c.to.Number, "--peer-domain", c.from.Domain, ticket)
		var v struct {
			Result string `json:"result"`
		}
		if jsonErr := json.Unmarshal([]byte(out), &v); jsonErr != nil {
			t.Fatalf("ticket verify: %v", errors.Join(err, jsonErr))
		}
		return v.Result
	}
	return "no ticket crossed the Internet"
}

// tlsNames turns the numbers of cipher suites into names.
func tlsNames(numbers []string) string {
	var out []string
	for _, n := range numbers {
		if v, err := strconv.ParseUint(n, 0, 16); err == nil {
			n = tls.CipherSuiteName(uint16(v))
		}
		out = append(out, n)
	}
	return strings.Join(out, ", ")
}
