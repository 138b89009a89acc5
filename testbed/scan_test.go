package testbed

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// openPort is what nmap says of a port that answers, in its greppable form: 5070/open/tcp.
var openPort = regexp.MustCompile(`(\d+)/(open|closed|unfiltered)/(tcp|udp)`)

// scan lets the outsider look for ports and gives those that answered in any way: "5070/open/tcp". Silence is no answer.
func (s *StubLab) scan(t T, at netip.Addr, args ...string) []string {
	t.Helper()
	out := s.Outsider.MustRun(t, "nmap", append([]string{"-n", "-Pn", "-oG", "-", "--max-retries", "0"}, append(args, at.String())...)...)
	if !strings.Contains(out, "Nmap done") || strings.Contains(out, "0 hosts up") {
		t.Fatalf("nmap: %s", out)
	}
	found := openPort.FindAllString(out, -1)
	slices.Sort(found)
	return slices.Compact(found)
}

// Somebody who scans the outside finds the class's port and nothing else, before, during and after a call: no media port, neither free nor in use, no port of the
// appliance, and no port of the call agent behind its mapped address.
func TestScansFindNothing(t *testing.T) {
	s := StartStubs(t)
	trunk := "5070/open/tcp"
	want := map[netip.Addr][]string{s.A.Mapped: {trunk}, s.A.OutsideIP: nil, s.A.MediaOut: nil}
	look := func(when, ports, media string) {
		t.Helper()
		for at, open := range want {
			if got := s.scan(t, at, "-sS", "-p", ports, "--min-rate", "40000"); !slices.Equal(got, open) {
				t.Errorf("%s: TCP ports of %s that answer: %v, want %v", when, at, got, open)
			}
			if got := s.scan(t, at, "-sU", "-p", "53,123,161,1024-1030,5060-5080,6084,8060,16384-16484,"+media, "--min-rate", "4000"); len(got) > 0 {
				t.Errorf("%s: UDP ports of %s that answer: %v", when, at, got)
			}
			// What a firewall without states lets through; an open port answers with a reset.
			if got := s.scan(t, at, "-sA", "-p", "1-1024,5060-5080", "--min-rate", "10000"); len(got) != len(open) {
				t.Errorf("%s: ports of %s that answer to an ACK: %v", when, at, got)
			}
		}
	}
	const all, likely = "1-65535", "1-1024,4000-9000,16384-20000"
	look("before a call", likely, "30000")
	k := s.talk(t, false, srtpSuites[0])
	k.bothWays(t, 5)
	look("during a call", all, k.out.String()[strings.LastIndex(k.out.String(), ":")+1:])
	k.bothWays(t, 5)
	k.caller.Transact(t, k.callee, "BYE", 200)
	look("after a call", likely, "30000")

	// SIP scanners ask over UDP, where nothing answers.
	for _, x := range [][]string{
		{"svmap", "-p", "5060-5080", s.A.Mapped.String(), s.A.OutsideIP.String(), s.A.MediaOut.String()},
		{"svwar", "-p", "5070", "-e", "100-110", "--force", s.A.Mapped.String()},
	} {
		out, _ := s.Outsider.Run("timeout", append([]string{"20"}, x...)...) // its exit status says whether it has found something
		if strings.Contains(out, s.A.Mapped.String()+":") || strings.Contains(out, "| SIP Device") {
			t.Errorf("%s finds %s", x[0], out)
		}
		if !strings.Contains(strings.ToLower(out), "found nothing") && !strings.Contains(out, "not found") && !strings.Contains(out, "no response") {
			t.Errorf("%s says %s", x[0], out)
		}
	}
	nothingCame(t, s.Agent)
	f, a := s.CallIn(t)
	f.Transact(t, a, "BYE", 200)
}
