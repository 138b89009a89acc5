package testbed

import (
	"path/filepath"
	"strings"
	"testing"
)

// timesIn counts the lines that hold two texts.
func timesIn(text, one, other string) (n int) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, one) && strings.Contains(line, other) {
			n++
		}
	}
	return n
}

// The daemon is killed as soon as many calls at once have ended, when the records and log lines of most wait to be written together. The next one has them
// all: each record once, and each line, twice only where it says that it may be.
func TestKilledWhileRecordsWait(t *testing.T) {
	s := StartStubs(t)
	const (
		calls     = 25
		ofRecords = "the run before ended without writing its last call records"
		ofLines   = "the run before ended without writing its last lines, which follow"
	)
	waited := 0 // how often; it depends on how long before the kill a beat was
	for round := 0; waited < 3; round++ {
		if round == 30 {
			t.Fatalf("records and lines waited %d times in %d rounds", waited, round)
		}
		conn := s.FarDial(t)
		var all []*Leg
		for range calls {
			far := s.Inbound(conn)
			inv := far.Request(t, "INVITE", s.WithTicket, sdp(secureOffer(s.B.MediaOut.String(), 20000)))
			seen := s.Agent.Expect(t, InCall(far.CallID, ReqIs("INVITE")), wait)
			s.Agent.AnswerLeg(seen).Respond(t, seen, 200, "OK", sdp(plainOffer(s.A.PhoneIP.String(), 4000)))
			far.Learn(far.AwaitStatus(t, inv, 200))
			far.Ack(t)
			all = append(all, far)
		}
		for _, far := range all {
			far.Request(t, "BYE")
		}
		// One connection's messages come one after the other: when the last BYE has gone on, all calls but that one are over.
		s.Agent.Expect(t, InCall(all[calls-1].CallID, ReqIs("BYE")), wait)
		s.Proxy.Kill()
		all = all[:calls-1]
		file, log := s.Proxy.records(), s.Proxy.Log()
		told := [2]int{strings.Count(log, ofRecords), strings.Count(log, ofLines)}
		missing := [2]int{len(all), len(all)}
		for _, far := range all {
			missing[0] -= timesIn(file, far.CallID, `"call_id"`)
			missing[1] -= timesIn(log, far.CallID, "call ended")
		}
		t.Logf("round %d: %d records and %d last lines of %d calls had not been written when it was killed", round, missing[0], missing[1], len(all))
		if missing[0] > 0 && missing[1] > 0 {
			waited++
		}
		for _, st := range []*Stub{s.Agent, s.Far} {
			for _, c := range st.Open() {
				c.Close()
			}
			st.Drain()
		}
		s.Proxy.Start(t)
		file, log = s.Proxy.records(), s.Proxy.Log()
		for _, far := range all {
			if n := timesIn(file, far.CallID, `"end_reason":"bye"`); n != 1 {
				t.Errorf("round %d: the record of %s is there %d times", round, far.CallID, n)
			}
			if n := timesIn(log, far.CallID, "call ended"); n < 1 || n > 1+strings.Count(log, "perhaps_written=true") {
				t.Errorf("round %d: the last line of %s is there %d times", round, far.CallID, n)
			}
		}
		if missing[0] > 0 && strings.Count(log, ofRecords) == told[0] || missing[1] > 0 && strings.Count(log, ofLines) == told[1] {
			t.Errorf("round %d: the log does not tell what is of the run before", round)
		}
	}
	if log := s.Proxy.Log(); strings.Count(log, ofLines) != strings.Count(log, "the last lines of the run before end here") {
		t.Error("the log does not tell where the lines of the run before end")
	}
	before := s.Proxy.records()
	s.Proxy.Stop(t)
	s.Proxy.Start(t)
	if s.Proxy.records() != before {
		t.Error("an orderly end left records")
	}
	for _, name := range []string{"log", "calls"} {
		if got := s.A.EdgeHost.MustRun(t, "stat", "-c", "%a %F", filepath.Join(s.Proxy.StateDir, "backlog", name)); strings.TrimSpace(got) != "600 regular file" {
			t.Errorf("%s: %s", name, got)
		}
	}
}
