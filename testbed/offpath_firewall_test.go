package testbed

import (
	"fmt"
	"strings"
	"testing"
)

// corporate are the rules of a firewall between a host of the enterprise and the proxy, after guide lines 614-942: the ports of its tables and no others.
func corporate(out, in []string) string {
	return "add table inet firewall\ndelete table inet firewall\ntable inet firewall {\n" +
		" chain out { type filter hook output priority 0; policy accept;\n  oifname \"lo\" accept\n  meta l4proto ipv6-icmp accept\n  ct state established accept\n  " + strings.Join(out, "\n  ") + "\n  counter drop comment \"refused\"\n }\n" +
		" chain in { type filter hook input priority 0; policy accept;\n  iifname \"lo\" accept\n  meta l4proto ipv6-icmp accept\n  ct state established accept\n  " + strings.Join(in, "\n  ") + "\n  counter drop comment \"refused\"\n }\n}\n"
}

// Off-path, a firewall between the enterprise and the proxy, and another before the Internet, pass the ports of the guide's tables alone: calls with media
// both ways need no more.
func TestOffPathBehindFirewalls(t *testing.T) {
	s := StartStubs(t)
	for _, h := range []*Host{s.A.UCMHost, s.A.PhoneHost} {
		h.MustRun(t, "ip", "route", "del", "default")
	}
	s.mustReload(t, s.withMappings(t, ""))
	inside, media := s.A.InsideIP, s.A.MediaIn
	for h, rules := range map[*Host]string{
		s.A.UCMHost: corporate(
			[]string{fmt.Sprintf("ip daddr %s tcp dport { 8060, 20000-39999 } accept", inside)},
			[]string{fmt.Sprintf("ip saddr %s tcp dport %d accept", inside, TrunkPort)},
		),
		s.A.PhoneHost: corporate(
			[]string{fmt.Sprintf("ip daddr %s udp dport 16384-32767 accept", media)},
			[]string{fmt.Sprintf("ip saddr %s udp sport 16384-32767 accept", media)},
		),
	} {
		h.MustRun(t, "nft", rules)
	}
	if err := s.Internet.Impair(
		"ct state established,related accept",
		fmt.Sprintf("ip daddr %s tcp dport %d accept", s.A.Mapped, TrunkPort),
		fmt.Sprintf("iifname \"ea\" ip saddr %s tcp dport %d accept", s.A.Mapped, TrunkPort),
		fmt.Sprintf("ip daddr %s udp dport 16384-32767 accept", s.A.MediaOut),
		fmt.Sprintf("ip saddr %s udp sport 16384-32767 accept", s.A.MediaOut),
		"counter drop comment \"refused\"",
	); err != nil {
		t.Fatal(err)
	}
	defer s.Internet.Impair()

	c := s.mappingDial(t)
	conn := s.Agent.Dial(t, s.mappedFar(t, c), nil)
	out := &talk{way: way{s, true}, farKey: NewStubCrypto(1, srtpSuites[0])}
	out.phone, out.far = out.newEnds(t)
	out.caller = s.Outbound(conn)
	inv, seen := out.invite(t, sdp(out.descr(false)))
	out.pick(t, seen.Body)
	out.callee.Respond(t, seen, 200, "OK", sdp(out.descr(true)))
	out.answered(t, seen, out.caller.AwaitStatus(t, inv, 200))
	out.caller.Ack(t)
	out.callee.Expect(t, "ACK")
	in := s.talk(t, false, srtpSuites[0])
	for _, k := range []*talk{out, in} {
		k.bothWays(t, 20)
		if at := k.in.Addr(); at != media {
			t.Errorf("a phone is told to send to %s, want %s", at, media)
		}
	}
	out.caller.Transact(t, out.callee, "BYE", 200)
	in.caller.Transact(t, in.callee, "BYE", 200)
	for h, table := range map[*Host]string{s.A.UCMHost: "inet firewall", s.A.PhoneHost: "inet firewall", s.Internet.Host: "ip lab_impair"} {
		list := h.MustRun(t, "nft", append([]string{"list", "table"}, strings.Fields(table)...)...)
		refused := 0
		for line := range strings.Lines(list) {
			if strings.Contains(line, "refused") {
				refused++
				if !strings.Contains(line, "counter packets 0 ") {
					t.Errorf("the firewall at %s has refused packets: %s", h.Name, strings.TrimSpace(line))
				}
			}
		}
		if refused == 0 {
			t.Errorf("no counter at %s in\n%s", h.Name, list)
		}
	}
	// The counters do count.
	if d, err := s.A.UCMHost.Dial("tcp", "", inside.String()+":22", wait/50); err == nil {
		d.Close()
		t.Error("the firewall lets another port through")
	}
	if list := s.A.UCMHost.MustRun(t, "nft", "list", "chain", "inet", "firewall", "out"); strings.Contains(list, "counter packets 0 ") {
		t.Errorf("what the firewall refuses is not counted:\n%s", list)
	}
}
