package testbed

import (
	"flag"
	"testing"
	"time"
)

var quiet = flag.Duration("quiet", 0, "how `LONG` TestQuietCall holds a call whose Internet loses less than 0.2 % (10m); without it the test is left out")

// A long call over an Internet that loses less than 0.2 %, both ways, in real time: nobody is told to fall back.
func TestQuietCall(t *testing.T) {
	if *quiet == 0 {
		t.Skip("needs -quiet 10m, and ten minutes")
	}
	lab := Start(t, Options{})
	losses := map[*Enterprise]Loss{lab.A: RandomLoss(11, 0.0015), lab.B: RandomLoss(12, 0.0015)}
	for e, l := range losses {
		if n, _ := l.Lost(); n == 0 || float64(n)/float64(len(l)) >= 0.002 {
			t.Fatalf("the pattern of %s loses %d of %d packets", e.Letter, n, len(l))
		}
	}
	lab.A.Phone.Call(t, lab.B.Phone)
	if err := lab.Internet.Spoil(losses); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(*quiet); time.Now().Before(end); {
		tap := lab.Capture(t, lab.B.PhoneHost, "eth0")
		lab.TalkFor(t, min(time.Minute, time.Until(end)), tap)
		tap.Stop(t)
		for _, e := range lab.Enterprises() {
			if n := e.Proxy.accepted(t); n != 0 {
				t.Fatalf("proxy %s told its call agent to fall back", e.Letter)
			}
		}
	}
	for _, e := range lab.Enterprises() {
		var s struct {
			Sent    int `json:"notifications_sent"`
			Suspect int `json:"calls_suspect"`
		}
		e.Proxy.Show(t, "uc-ime fallback-notification statistics", &s)
		var m struct {
			Sessions []struct {
				Outside struct {
					Lost      int `json:"lost"`
					RxPackets int `json:"rx_packets"`
				} `json:"outside"`
			} `json:"sessions"`
		}
		e.Proxy.Show(t, "uc-ime media-sessions", &m)
		t.Logf("proxy %s: %+v, %+v", e.Letter, s, m)
		if s.Sent != 0 {
			t.Errorf("proxy %s sent %d notifications", e.Letter, s.Sent)
		}
		if len(m.Sessions) != 1 || m.Sessions[0].Outside.Lost == 0 {
			t.Errorf("proxy %s counts no loss: %+v", e.Letter, m)
		}
	}
	lab.A.Phone.Hangup(t)
	lab.B.Phone.WaitEvent(t, "CALL_CLOSED", 10*time.Second)
}
