package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// fallbackStats is what `show uc-ime fallback-notification statistics` tells.
type fallbackStats struct {
	Monitored int `json:"calls_monitored"`
	Suspect   int `json:"calls_suspect"`
	Notified  int `json:"calls_notified"`
	Sent      int `json:"notifications_sent"`
	Accepted  int `json:"notifications_accepted"`
	Deferred  int `json:"notifications_deferred"`
	Failed    int `json:"notifications_failed"`
}

func (s *StubLab) fallbackStats(t T) (f fallbackStats) {
	t.Helper()
	s.Proxy.Show(t, "uc-ime fallback-notification statistics", &f)
	return f
}

// spoken is a call whose far end speaks, and how.
type spoken struct {
	*talk
	lose func(i int) bool
	// forge sends a packet with a wrong key in the place of each lost one.
	forge bool
	// delay is by how many packet times a packet comes late; nil: none does.
	delay func(i int) int
}

// speak lets the far ends of calls send a packet every 20 ms until stop is closed.
func speak(t T, calls []*spoken, stop chan struct{}, done *sync.WaitGroup) {
	t.Helper()
	done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		forger := &MediaStub{SSRC: 1, Seq: 1}
		forger.SetKeys(t, NewStubCrypto(1, srtpSuites[0]), NewStubCrypto(1, srtpSuites[0]))
		late := make([]map[int][][]byte, len(calls))
		for n := range late {
			late[n] = make(map[int][][]byte)
		}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for n, c := range calls {
				for _, raw := range late[n][i] {
					c.far.SendRaw(t, c.out, raw)
				}
				delete(late[n], i)
				p := c.far.Packet(func(p *rtp.Packet) { p.Payload = make([]byte, 160) })
				switch {
				case !c.lose(i) && c.delay != nil && c.delay(i) > 0:
					late[n][i+c.delay(i)] = append(late[n][i+c.delay(i)], c.far.Seal(t, p))
				case !c.lose(i):
					c.far.SendRaw(t, c.out, c.far.Seal(t, p))
				case c.forge:
					forger.SSRC, forger.Seq = p.SSRC, p.SequenceNumber
					c.far.SendRaw(t, c.out, forger.Seal(t, forger.Packet()))
				}
			}
		}
	})
}

// refer waits for the notification of a call.
func (k *talk) refer(t T, limit time.Duration) *StubMessage {
	t.Helper()
	return k.s.Agent.Expect(t, func(m *StubMessage) bool {
		return ReqIs("REFER")(m) && strings.HasPrefix(m.Get("Target-Dialog"), k.caller.CallID+";")
	}, limit)
}

// agentLeg is the call agent's end of a call.
func (k *talk) agentLeg() *Leg {
	if k.way.out {
		return k.caller
	}
	return k.callee
}

func every(n int) func(int) bool { return func(i int) bool { return i%n == n-1 } }

// A call agent is told of its bad calls, and of no others.
func TestFallback(t *testing.T) {
	s := StartStubs(t)
	const holdDown = 10 * time.Second
	s.mustReload(t, replaceOnce(s.Proxy.DefaultConfig(t), " ticket epoch", " fallback hold-down timer 10\n ticket epoch"))
	level := func(n int) func(*StubMessage) {
		return func(m *StubMessage) { m.Add("X-Cisco-UC-IME-Fallback", fmt.Sprintf("sensitivity=%d", n)) }
	}
	setup := func(out bool, opening ...func(*StubMessage)) *talk {
		k := s.newTalk(t, out, NewStubCrypto(1, srtpSuites[0]))
		inv, seen := k.invite(t, append(opening, sdp(k.descr(!out)))...)
		if seen.Get("X-Cisco-UC-IME-Fallback") != "" {
			t.Errorf("the level leaves: %s", seen.Raw)
		}
		if out {
			k.pick(t, seen.Body)
		}
		k.callee.Respond(t, seen, 200, "OK", sdp(k.descr(out)))
		k.answered(t, seen, k.caller.AwaitStatus(t, inv, 200))
		k.caller.Ack(t)
		k.callee.Expect(t, "ACK")
		return k
	}
	bad := &spoken{talk: setup(true), lose: every(10)}
	inbound := &spoken{talk: setup(false, level(0)), lose: every(10)} // a level from the Internet means nothing
	busy := &spoken{talk: setup(true, level(3)), lose: every(12)}
	good := &spoken{talk: setup(true), lose: func(int) bool { return false }}
	patient := &spoken{talk: setup(true, level(2)), lose: func(i int) bool { return i/200%2 == 1 && i%8 == 7 }} // 6 %, in 4 s of 8
	never := &spoken{talk: setup(true, level(0)), lose: every(3)}
	forged := &spoken{talk: setup(true), lose: every(50), forge: true} // 2 % lost: good, whatever a forger adds
	cut := &spoken{talk: setup(true), lose: every(10)}
	cut.caller.Conn.Close() // the call stays, and its call agent is told over a new connection
	all := []*spoken{bad, cut, inbound, busy, good, patient, never, forged}
	stop, begin := make(chan struct{}), time.Now()
	var done sync.WaitGroup
	speak(t, all, stop, &done)
	defer done.Wait()
	defer close(stop)

	for _, c := range []*spoken{bad, inbound, cut} {
		m := c.refer(t, holdDown+5*time.Second)
		if d := time.Since(begin); d < holdDown {
			t.Errorf("told after %v, the hold-down is %v", d, holdDown)
		}
		checkRefer(t, c.talk, m)
		s.Agent.AnswerLeg(m).Respond(t, m, 202, "Accepted")
	}
	first := busy.refer(t, 5*time.Second)
	at := time.Now()
	s.Agent.AnswerLeg(first).Respond(t, first, 503, "Service Unavailable", func(m *StubMessage) { m.Add("Retry-After", "2") })
	again := busy.refer(t, holdDown+3*time.Second)
	if d := time.Since(at); d < holdDown-200*time.Millisecond {
		t.Errorf("told again after %v, the hold-down is %v", d, holdDown)
	}
	if again.Get("Call-ID") == first.Get("Call-ID") {
		t.Error("the second notification has the Call-ID of the first")
	}
	s.Agent.AnswerLeg(again).Respond(t, again, 603, "Decline")
	want := fallbackStats{Monitored: len(all), Notified: 4, Sent: 5, Accepted: 3, Deferred: 1, Failed: 1}
	Until(t, wait, "the last answer is counted", func() bool { return s.fallbackStats(t).Failed == 1 })
	if f := s.fallbackStats(t); f != want {
		t.Errorf("statistics: %+v, want %+v", f, want)
	}
	for _, c := range all {
		block := c.monitoring(t)
		if notified := c == bad || c == cut || c == inbound || c == busy; notified != (block.State == 2) || block.Packets == 0 {
			t.Errorf("call of %s: %+v", c.caller.CallID, block)
		}
		if c == never && block.Loss < 3000 || c == good && block.Loss != 0 {
			t.Errorf("loss of %s: %+v", c.caller.CallID, block)
		}
	}
	for _, c := range all {
		if c != cut {
			c.end(t)
		}
	}
	if _, err := s.Proxy.Shell("clear conn all"); err != nil {
		t.Error(err)
	}
	Until(t, wait, "nothing is watched any more", func() bool { return s.fallbackStats(t).Monitored == 0 })
	for _, c := range all {
		line := s.Proxy.record(t, c.caller.CallID)
		told := strings.Contains(line, `"fallback_notified":true`)
		if notified := c == bad || c == cut || c == inbound || c == busy; told != notified || !strings.Contains(line, `"quality":{"samples":`) {
			t.Errorf("record: %s", line)
		}
	}
}

// checkRefer compares a notification with the call that it is about.
func checkRefer(t *testing.T, k *talk, m *StubMessage) {
	t.Helper()
	leg := k.agentLeg()
	want := fmt.Sprintf("%s;local-tag=%s;remote-tag=%s", leg.CallID, leg.LocalTag, leg.RemoteTag)
	if got := m.Get("Target-Dialog"); got != want {
		t.Errorf("Target-Dialog is %s, want %s", got, want)
	}
	for name, value := range map[string]string{"Refer-To": "<urn:uc-ime:pstn-fallback>", "Refer-Sub": "false", "Supported": "tdialog, norefersub"} {
		if m.Get(name) != value {
			t.Errorf("%s is %q", name, m.Get(name))
		}
	}
	q := m.Get("X-Cisco-UC-IME-Quality")
	if !strings.HasPrefix(q, "level=3;loss=") || !strings.Contains(q, fmt.Sprintf(";ssrc=%08x", k.far.SSRC)) || !strings.Contains(q, ";events=8;mos=") {
		t.Errorf("quality is %q", q)
	}
	if want := "sip:" + k.s.Agent.Addr.String(); m.URI() != want {
		t.Errorf("Request-URI %s, want %s", m.URI(), want)
	}
	if m.Get("Call-ID") == leg.CallID || strings.Contains(m.Get("To"), ";tag=") {
		t.Errorf("the notification is within the dialog: %s", m.Raw)
	}
}

type monitoringBlock struct {
	State   int `json:"failover_state"`
	Packets int `json:"sum_all_packets"`
	Loss    int `json:"max_rblr_pct_x100"`
}

// monitoring is the block of a call's stream in `show uc-ime media-sessions detail`.
func (k *talk) monitoring(t T) monitoringBlock {
	t.Helper()
	var all struct {
		Sessions []struct {
			CallID  string          `json:"call_id"`
			Monitor monitoringBlock `json:"rtp_monitoring"`
		} `json:"sessions"`
	}
	k.s.Proxy.Show(t, "uc-ime media-sessions detail", &all)
	for _, m := range all.Sessions {
		if m.CallID == k.caller.CallID {
			return m.Monitor
		}
	}
	t.Fatalf("call %s has no stream", k.caller.CallID)
	return monitoringBlock{}
}

// The sensitivity file is read, read again when it changes, and refused whole when it is bad.
func TestSensitivityFile(t *testing.T) {
	s := StartStubs(t)
	file := filepath.Join(s.Proxy.StateDir, "ours.fbs")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said := func(text string) {
		t.Helper()
		Until(t, wait, "the log says "+text, func() bool { return strings.Contains(s.Proxy.Log(), text) })
	}
	s.mustReload(t, replaceOnce(s.Proxy.DefaultConfig(t), " ticket epoch", " fallback sensitivity-file ours.fbs\n ticket epoch"))
	said("ours.fbs: no such file")
	if out, _ := s.Proxy.Shell("show health"); !strings.Contains(out, "sensitivity_file") {
		t.Errorf("health: %s", out)
	}
	write("format 1\nnominal loss 1 burst 100 pdv 20 events 2\n")
	said("sensitivity file read")
	if out, _ := s.Proxy.Shell("show health"); strings.Contains(out, "sensitivity_file") {
		t.Errorf("health: %s", out)
	}
	write("format 1\nnominal loss 1\nutility loss x burst 1 pdv 1 events 1\n")
	said("line 2: burst is missing")
	said("line 3: ")
}
