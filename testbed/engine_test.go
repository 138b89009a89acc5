package testbed

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mediaEngine is what `show media-termination` tells of the engine.
type mediaEngine struct {
	Engine   string `json:"engine"`
	Why      string `json:"engine_tproxy_cannot_be_used"`
	Wait     int    `json:"batch_wait_us"`
	Received int    `json:"packets_received"`
	Direct   int    `json:"packets_sent_direct"`
	XDP      int    `json:"packets_sent_xdp"`
	Overload int    `json:"dropped_overload"`
	Nice     int    `json:"worker_nice"`
	NoStream int    `json:"dropped_no_stream"`
	Flood    int    `json:"dropped_flood"`
	Taps     int    `json:"interfaces_tapped"`

	Fragmented int `json:"packets_fragmented"`
}

func (s *StubLab) engine(t T) (e mediaEngine) {
	t.Helper()
	s.Proxy.Show(t, "media-termination", &e)
	return e
}

// withEngine is the default configuration with commands of media-termination mode.
func (s *StubLab) withEngine(t T, commands string) string {
	t.Helper()
	return replaceOnce(s.Proxy.DefaultConfig(t), "media-termination uc-ime-media-term\n", "media-termination uc-ime-media-term\n"+commands)
}

// foremost is the place before other programs that a program of this user gets when it asks for that of media: root in a container may have to stay at 0.
func foremost(t T) int {
	t.Helper()
	out, _ := exec.Command("nice", "-n", "-15", "nice").Output() // it warns where it may not, and goes on
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatalf("nice: %v", err)
	}
	return n
}

// hear proves that media passes both ways.
func (s *StubLab) hear(t *testing.T) {
	t.Helper()
	k := s.talk(t, true, srtpSuites[0])
	k.bothWays(t, 20)
	k.end(t)
}

// The engine is the fast one where the system allows it, the portable one where it does not, and the one that the configuration names.
func TestMediaEngine(t *testing.T) {
	s := StartStubs(t)
	t.Run("fast by itself", func(t *testing.T) {
		k := s.talk(t, true, srtpSuites[0])
		k.bothWays(t, 20)
		// The first packets go by way of routing, until the kernel has told the link addresses of the next hops.
		Until(t, wait, "packets go out directly", func() bool {
			before := s.engine(t).Direct
			k.bothWays(t, 5)
			return s.engine(t).Direct >= before+10
		})
		k.end(t)
		if e := s.engine(t); e.Engine != "xdp" || e.XDP < 10 || e.Received < 50 || e.Overload != 0 || e.Nice != foremost(t) || e.Wait != 500 || e.Taps != 2 {
			t.Errorf("shown: %+v", e)
		}
	})
	t.Run("packets for free ports", func(t *testing.T) {
		before := s.engine(t).NoStream
		c, err := s.B.EdgeHost.Dial("udp", "", s.A.MediaOut.String()+":30000", wait)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("hello"))
		Until(t, wait, "the packet is counted", func() bool { return s.engine(t).NoStream == before+1 })
	})
	t.Run("reload", func(t *testing.T) {
		s.mustReload(t, s.withEngine(t, " batch-wait 0\n"))
		s.hear(t)
		if e := s.engine(t); e.Wait != 0 {
			t.Errorf("shown: %+v", e)
		}
		if said := s.reload(t, s.withEngine(t, " engine sockets\n")); !strings.Contains(said, "cannot be changed while the daemon runs") {
			t.Errorf("the log says %s", said)
		}
		s.hear(t)
	})
	t.Run("killed", func(t *testing.T) {
		s.Proxy.Kill()
		s.restart(t, s.withEngine(t, " engine tproxy\n"))
		s.hear(t)
		if e := s.engine(t); e.Engine != "tproxy" || e.XDP != 0 {
			t.Errorf("shown: %+v", e)
		}
	})
	t.Run("portable by command", func(t *testing.T) {
		s.Proxy.Stop(t)
		s.restart(t, s.withEngine(t, " engine sockets\n"))
		s.hear(t)
		if e := s.engine(t); e.Engine != "sockets" || e.Why != "" {
			t.Errorf("shown: %+v", e)
		}
		s.Proxy.Stop(t)
	})
	// Somebody's rules take the packets away before ours see them: the appliance must find that out before the first call.
	s.A.EdgeHost.MustRun(t, "nft", "add table ip operator; add chain ip operator c { type filter hook prerouting priority raw; }; add rule ip operator c iif lo udp dport 16384-32767 drop")
	t.Run("portable where the rules do not work", func(t *testing.T) {
		s.restart(t, s.Proxy.DefaultConfig(t))
		s.hear(t)
		if e := s.engine(t); e.Engine != "sockets" || !strings.Contains(e.Why, "did not come through the kernel's rules") {
			t.Errorf("shown: %+v", e)
		}
		if rules := kernelState(t, s.A.EdgeHost); strings.Contains(rules, "media_steer") {
			t.Error("rules for an engine that is not in use")
		}
		s.Proxy.Stop(t)
	})
	t.Run("demanded where it does not work", func(t *testing.T) {
		before := kernelState(t, s.A.EdgeHost)
		s.Proxy.WriteConfig(t, s.withEngine(t, " engine tproxy\n"))
		out, err := s.A.EdgeHost.Run("timeout", "-k", "1", "20", Binary(), "run", "--config", s.Proxy.ConfigFile, "--state-dir", s.Proxy.StateDir, "--control", s.Proxy.Control)
		if err == nil || !strings.Contains(out, "engine tproxy") || !strings.Contains(out, "did not come through") {
			t.Errorf("%v: %s", err, tail(out, 500))
		}
		sameState(t, "after the refused start", before, kernelState(t, s.A.EdgeHost))
		if _, err := os.Stat(s.Proxy.Control); err == nil {
			t.Error("a control socket is left")
		}
	})
}

// restart starts a daemon that has ended, with another configuration; connections of the former one are closed.
func (s *StubLab) restart(t *testing.T, text string) {
	t.Helper()
	for _, st := range []*Stub{s.Agent, s.Far} {
		for _, c := range st.Open() {
			c.Close()
		}
		st.Drain()
	}
	s.Proxy.WriteConfig(t, text)
	s.Proxy.Start(t)
	Until(t, 3*time.Second, "no stream is left", func() bool { return s.Streams(t) == 0 })
}
