package testbed

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Two enterprises whose PBXs have no IME client: a call without a route goes over the PSTN and becomes a record; one with a route
// goes over the Internet and moves to the PSTN when that turns bad, while its phones talk.
func TestCallAgent(t *testing.T) {
	lab := Start(t, Options{PSTN: true, NoCallAgents: true, A: Side{Config: FastFallback}, B: Side{Config: FastFallback}})
	lab.JoinPSTN(t)
	r, problems := FallbackJob(t, lab, t.Logf)
	for _, p := range problems {
		t.Error(p)
	}
	t.Logf("%+v", r.Sound)
	onlyTheCalledSideHears(t, lab)
}

// onlyTheCalledSideHears that a call of A is bad: its call agent asks that of A, which is the one that can dial. The PSTN loses
// A's answer to the last step for a while, and the call is not lost with it.
func onlyTheCalledSideHears(t *testing.T, lab *Lab) {
	a, b := lab.A, lab.B
	var before [2]int
	for i, e := range lab.Enterprises() {
		before[i] = e.Proxy.accepted(t)
	}
	a.Phone.Call(t, b.Phone)
	if err := lab.Internet.Spoil(map[*Enterprise]Loss{a: badInternet(3)}); err != nil {
		t.Fatal(err)
	}
	lab.PSTNHost.MustRun(t, "nft", fmt.Sprintf("add table ip lost; add chain ip lost in { type filter hook input priority 0; }; "+
		"add rule ip lost in ip saddr %s udp dport 5060 @th,64,88 0x%x counter drop", a.UCMIP, "SIP/2.0 200"))
	phoneA, phoneB, internet := lab.Capture(t, a.PhoneHost, "eth0"), lab.Capture(t, b.PhoneHost, "eth0"), lab.Capture(t, lab.Internet.Host, "ea")
	for _, e := range lab.Enterprises() {
		Until(t, 30*time.Second, "the call has moved at call agent "+e.Letter, func() bool { return e.Agent.Counters(t)["FallbackCallsSuccessful"] == 2 })
		if c := e.Agent.Counters(t); c["FallbackCallsFailed"] != 0 || c["ActiveCalls"] != 1 {
			t.Errorf("counters of call agent %s: %v", e.Letter, c)
		}
	}
	if out := lab.PSTNHost.MustRun(t, "nft", "list table ip lost"); strings.Contains(out, "packets 0 ") {
		t.Errorf("the PSTN lost no answer: %s", out)
	}
	lab.PSTNHost.MustRun(t, "nft", "delete table ip lost")
	moved := time.Now()
	lab.TalkFor(t, time.Second, phoneA, phoneB)
	a.Phone.Hangup(t)
	b.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
	phoneA.Stop(t)
	phoneB.Stop(t)
	internet.Stop(t)
	if n := len(media(between(internet.Packets(t), moved, time.Now()))); n > 0 {
		t.Errorf("%d media packets on the Internet after the move", n)
	}
	if n := a.Proxy.accepted(t) - before[0]; n != 0 {
		t.Errorf("the proxy that heard nothing bad notified %d times", n)
	}
	if n := b.Proxy.accepted(t) - before[1]; n != 1 {
		t.Errorf("the other proxy notified %d times", n)
	}
}

// A far enterprise that takes the call and never rings, while it answers OPTIONS: the caller talks over the PSTN soon after the progress
// timer, and nothing of the call is left on the Internet.
func TestFarEnterpriseThatNeverRings(t *testing.T) {
	lab := Start(t, Options{
		PSTN: true, NoCallAgents: true,
		A: Side{AgentConfig: func(text string) string { return text + "feature\n progress-timer 3\n" }},
		B: Side{AgentConfig: func(text string) string {
			return strings.Replace(text, "ime-trunk proxy\n", "ime-trunk proxy\n inbound-called nowhere\n", 1) + "transformation nowhere\n match +! strip 15 prefix " + neverRings + "\n"
		}},
	})
	lab.JoinPSTN(t)
	a, b := lab.A, lab.B
	a.Agent.AddRoute(t)
	if setup := a.Phone.Call(t, b.Phone); setup < 3*time.Second || setup > 5*time.Second {
		t.Errorf("the call was set up in %v", setup)
	}
	c := a.Agent.Counters(t)
	if c["CallsAttempted"] != 1 || c["CallsSetup"] != 0 || c["IMESetupsFailed"] != 1 || c["PSTNCallsPlaced"] != 1 {
		t.Errorf("counters of call agent a: %v", c)
	}
	Until(t, 10*time.Second, "the far enterprise has the PSTN's call alone", func() bool { return b.Agent.Counters(t)["ActiveCalls"] == 1 })
	phoneA, phoneB := lab.Capture(t, a.PhoneHost, "eth0"), lab.Capture(t, b.PhoneHost, "eth0")
	lab.TalkFor(t, time.Second, phoneA, phoneB)
	a.Phone.Hangup(t)
	b.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
}
