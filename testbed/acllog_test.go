package testbed

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// flowLists has the list of the way in with entries of every kind of log in front.
func (s *StubLab) flowLists(t T, interval int, more string) string {
	t.Helper()
	return s.edit(t, "access-list incoming extended permit tcp any host", fmt.Sprintf(`access-list incoming extended deny udp any host %[1]s eq 7001 log critical interval %[2]d
access-list incoming extended permit udp any host %[1]s eq 7002 log notifications interval %[2]d
access-list incoming extended deny udp any host %[1]s range 7003 7999 log interval %[2]d
access-list incoming extended deny udp any host %[1]s eq 8001 log disable
access-list incoming extended deny udp any host %[1]s eq 8002 log default
%[3]saccess-list incoming extended permit tcp any host`, s.A.UCMIP, interval, more))
}

// flowSender sends datagrams from a stranger's port.
func (s *StubLab) flowSender(t T, port int) (send func(to, n int), from netip.AddrPort) {
	t.Helper()
	c, err := s.Outsider.ListenUDP(fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { c.Close() })
	out, err := s.Outsider.Run("ip", "-4", "route", "get", s.A.Mapped.String())
	if err != nil {
		t.Fatalf("%v", err)
	}
	src := regexp.MustCompile(`src (\S+)`).FindStringSubmatch(out)
	if src == nil {
		t.Fatalf("no source in %q", out)
	}
	return func(to, n int) {
		t.Helper()
		for range n {
			if _, err := c.WriteToUDP([]byte("x"), &net.UDPAddr{IP: s.A.Mapped.AsSlice(), Port: to}); err != nil {
				t.Fatalf("%v", err)
			}
		}
	}, netip.AddrPortFrom(netip.MustParseAddr(src[1]), uint16(port))
}

// TestEntriesLogTheirFlows sends packets that entries with log decide on: the first of a flow is told at once, the others by their number at the end of the interval, each at its
// entry's level, in the log and at a syslog server; a reload changes nothing of it.
func TestEntriesLogTheirFlows(t *testing.T) {
	const interval = 5
	s := StartStubs(t)
	syslog, err := s.A.UCMHost.ListenUDP(s.A.UCMIP.String() + ":5514")
	if err != nil {
		t.Fatal(err)
	}
	defer syslog.Close()
	log := fmt.Sprintf("logging enable\nlogging trap debugging\nlogging host inside %s udp/5514\n", s.A.UCMIP)
	s.mustReload(t, s.flowLists(t, interval, "")+log)
	send, from := s.flowSender(t, 4000)
	// line is the text of a message but for the entry's number.
	line := func(level int, word string, port, hits int, when string) string {
		return fmt.Sprintf("%%ASA-%d-106100: access-list incoming %s udp outside/%s(%d) -> inside/%s(%d) hit-cnt %d %s [0x", level, word, from.Addr(), from.Port(), s.A.UCMIP, port, hits, when)
	}
	span := fmt.Sprintf("%d-second interval", interval)

	summed := func(text string) {
		t.Helper()
		Until(t, 2*interval*time.Second+loggedWithin, fmt.Sprintf("the log holds %q", text), func() bool { return strings.Contains(s.Proxy.Log(), text) })
	}

	send(7001, 1)
	s.Proxy.Says(t, "level=ERROR msg=\""+line(2, "denied", 7001, 1, "first hit"))
	send(7001, 6)
	send(7002, 1)
	s.Proxy.Says(t, "level=INFO msg=\""+line(5, "permitted", 7002, 1, "first hit"))
	send(7003, 3)
	s.Proxy.Says(t, line(6, "denied", 7003, 1, "first hit"))
	// A change of something else: neither the flows nor the hits begin anew.
	s.mustReload(t, s.flowLists(t, interval, "access-list incoming extended permit tcp any any eq 9\n")+log)
	send(7001, 4)
	summed(line(2, "denied", 7001, 11, span))
	summed(line(6, "denied", 7003, 3, span))
	show := func(command string) string {
		t.Helper()
		out, err := s.Proxy.Shell(command)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	out := show("show access-list")
	entry := fmt.Sprintf("line 1 extended deny udp any host %s eq 7001 log critical interval %d (hitcnt=11) 0x", s.A.UCMIP, interval)
	if !strings.HasPrefix(out, "access-list cached ACL log flows: total ") || !strings.Contains(out, "(deny-flow-max 4096)\n            alert-interval 300\n") || !strings.Contains(out, entry) {
		t.Errorf("%s", out)
	}
	// The number in the message is that of the entry.
	if id := regexp.MustCompile(regexp.QuoteMeta(entry) + `(\w+)`).FindStringSubmatch(out); id == nil || !strings.Contains(s.Proxy.Log(), line(2, "denied", 7001, 11, span)+id[1]+", 0x0]") {
		t.Errorf("%v is not in the log", id)
	}
	send(7001, 2)
	summed(line(2, "denied", 7001, 2, span))
	Until(t, 5*interval*time.Second, "flows without packets are forgotten", func() bool {
		return strings.HasPrefix(show("show access-list"), "access-list cached ACL log flows: total 0, denied 0 ")
	})
	send(7001, 1)
	Until(t, loggedWithin, "a flow that was forgotten begins anew", func() bool { return strings.Count(s.Proxy.Log(), line(2, "denied", 7001, 1, "first hit")) == 2 })
	if strings.Contains(s.Proxy.Log(), "permitted udp outside/"+from.Addr().String()+"(4000) -> inside/"+s.A.UCMIP.String()+"(7002) hit-cnt 1 "+span) {
		t.Error("a flow of one packet has another line")
	}

	send(8001, 3)
	send(8002, 3)
	s.Proxy.Says(t, fmt.Sprintf("%%ASA-4-106023: Deny udp src outside:%s/4000 dst inside:%s/8002 by access-group", from.Addr(), s.A.UCMIP))
	if regexp.MustCompile(`[(/]8001\b`).MatchString(s.Proxy.Log()) {
		t.Error("an entry logs that says log disable")
	}
	// What syslog servers get has the severity of the entry: facility 20.
	want := map[string]string{line(2, "denied", 7001, 11, span): "<162>1 ", line(5, "permitted", 7002, 1, "first hit"): "<165>1 ", line(6, "denied", 7003, 3, span): "<166>1 "}
	b := make([]byte, 4096)
	_ = syslog.SetReadDeadline(time.Now().Add(loggedWithin))
	for len(want) > 0 {
		n, err := syslog.Read(b)
		if err != nil {
			t.Fatalf("not at the syslog server: %v", want)
		}
		for text, priority := range want {
			if strings.Contains(string(b[:n]), text) {
				if delete(want, text); !strings.HasPrefix(string(b[:n]), priority) {
					t.Errorf("%q has another priority: %s", text, b[:n])
				}
			}
		}
	}
	if run := show("show running-config access-list"); !strings.Contains(run, "eq 7001 log critical interval 5\n") || !strings.Contains(run, "eq 8001 log disable\n") || !strings.Contains(run, "eq 8002\n") {
		t.Errorf("%s", run)
	}
}

// TestFloodOfLoggedDenials denies packets of more flows than are followed, at full speed: the log gets a bounded number of lines and one alert, all is counted, and the daemon has little to do,
// also where flows are over after a second and make room for others.
func TestFloodOfLoggedDenials(t *testing.T) {
	s := StartStubs(t)
	for _, c := range []struct {
		most, interval int
		lines          float64 // in a second, at most
		share          float64 // of a core that the daemon may take
	}{{100, 600, 100.0 / 6, 0.05}, {4096, 1, 100, 0.1}} {
		t.Run(fmt.Sprintf("%d flows, %d s", c.most, c.interval), func(t *testing.T) {
			s.mustReload(t, s.flowLists(t, c.interval, "")+fmt.Sprintf("access-list deny-flow-max %d\n", c.most))
			s.floodLogged(t, c.most, c.lines, c.share)
		})
	}
}

// accessFlows is what is read of `show access-list | json`.
type accessFlows struct {
	Log struct {
		Total  int    `json:"total"`
		Denied int    `json:"denied"`
		Beside uint64 `json:"denied_packets_not_followed"`
	} `json:"log_flows"`
	Lists []struct {
		Entries []struct {
			Text string `json:"text"`
			Hits uint64 `json:"hits"`
		} `json:"entries"`
	} `json:"access_lists"`
}

// flowsAndHits gives what is followed, and the hits of the entry that the flood meets.
func (s *StubLab) flowsAndHits(t T) (f accessFlows, hits uint64) {
	t.Helper()
	s.Proxy.Show(t, "access-list", &f)
	for _, l := range f.Lists {
		for _, e := range l.Entries {
			if strings.Contains(e.Text, "range 7003 7999") {
				hits = e.Hits
			}
		}
	}
	return f, hits
}

func (s *StubLab) floodLogged(t T, most int, lines, share float64) {
	t.Helper()
	f, hits := s.flowsAndHits(t)
	said := len(s.Proxy.Log())
	before, err := s.Proxy.Process().Usage()
	if err != nil {
		t.Fatalf("%v", err)
	}
	begin := time.Now()
	stop := s.hping(t, "--udp", "-p", "7500", "--faster", s.A.Mapped.String()) // of each source port a flow
	time.Sleep(6 * time.Second)
	stop()
	took := time.Since(begin)
	after, err := s.Proxy.Process().Usage()
	if err != nil {
		t.Fatalf("%v", err)
	}
	now, count := s.flowsAndHits(t)
	count -= hits
	beside := now.Log.Beside - f.Log.Beside
	if now.Log.Denied > most || now.Log.Denied < most/4 || count < 10000 || beside > count || beside < count/2 {
		t.Errorf("%d packets denied, %d flows followed, %d packets of others", count, now.Log.Denied, beside)
	}
	alert := "level=ERROR msg=\"%ASA-1-106101: Number of cached deny-flows for ACL log has reached limit (" + strconv.Itoa(most) + ")\" severity=alert"
	log := s.Proxy.Log()
	if !strings.Contains(log[:said], "-106101:") { // else it is not time for another
		s.Proxy.Says(t, alert)
	}
	if n := strings.Count(s.Proxy.Log(), "-106101:"); n != 1 {
		t.Errorf("%d alerts", n)
	}
	n := strings.Count(log[said:], "-106100:")
	if most := lines * (took.Seconds() + 2); n == 0 || float64(n) > most {
		t.Errorf("%d lines, at most %.0f may be", n, most)
	}
	used := float64(after.CPU-before.CPU) / float64(took)
	t.Logf("%d packets in %s (%.0f a second), %d lines, the daemon took %.2f %% of a core", count, took.Round(time.Millisecond), float64(count)/took.Seconds(), n, 100*used)
	if used > share {
		t.Errorf("the daemon took %.1f %% of a core", 100*used)
	}
}
