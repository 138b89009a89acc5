package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"imeproxy/proxy/config"
)

// edgeConfig is a whole edge, as in the guide's figure.
const edgeConfig = `hostname edge
domain-name a.example
interface ein
 nameif inside
 security-level 100
 ip address 192.168.10.1 255.255.255.0
interface eout
 nameif outside
 security-level 0
 ip address 209.165.200.225 255.255.255.224
route outside 0.0.0.0 0.0.0.0 209.165.200.254
route inside 10.20.0.0 255.255.0.0 192.168.10.254
object network ucm_map_1
 host 209.165.200.227
object network ucm_real_1
 host 192.168.10.30
 nat (inside,outside) static ucm_map_1
object network ucm_real_2
 host 192.168.10.31
 nat (inside,outside) static 209.165.200.229 service tcp 5570 5571
access-list incoming extended permit tcp any host 192.168.10.30 eq 5070
access-list incoming extended permit tcp any host 192.168.10.31 eq 5570
access-group incoming in interface outside
access-list ime-inbound-sip extended permit tcp any host 192.168.10.30 eq 5070
access-list ime-inbound-sip extended permit tcp any host 192.168.10.31 eq 5570
access-list ime-outbound-sip extended permit tcp host 192.168.10.30 any range 5000 6000
media-termination mt
 address 209.165.200.228 interface outside
 address 192.168.10.3 interface inside
crypto ca trustpoint local_ent
 enrollment terminal
 subject-name cn=a.example
 keypair k
tls-proxy out
 client trust-point local_ent
tls-proxy in
 server trust-point local_ent
uc-ime ime
 media-termination mt
 ucm address 192.168.10.30 trunk-security-mode non-secure
 ucm address 192.168.10.31 trunk-security-mode non-secure
 ticket epoch 1 password password1234
class-map ime-inbound-sip
 match access-list ime-inbound-sip
class-map ime-outbound-sip
 match access-list ime-outbound-sip
policy-map ime-policy
 class ime-outbound-sip
  inspect sip uc-ime ime tls-proxy out
 class ime-inbound-sip
  inspect sip uc-ime ime tls-proxy in
service-policy ime-policy global
`

func testPlan(t testing.TB, text string) *plan {
	t.Helper()
	cfg, diags := config.Parse("test.cfg", []byte(text))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	p, err := newPlan(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAddressMap(t *testing.T) {
	p := testPlan(t, edgeConfig)
	m := &addressMap{plan: p, statics: p.translations(), hide: netip.MustParseAddr("209.165.200.227"), remote: netip.MustParseAddr("209.165.201.3")}
	for _, x := range []struct {
		in   string
		port uint16
		want string
	}{
		{"192.168.10.30", 5070, "209.165.200.227:5070"},
		{"192.168.10.30", 0, "209.165.200.227:0"},
		{"192.168.10.31", 5570, "209.165.200.229:5571"},
		{"192.168.10.31", 0, "none"},
		{"192.168.10.31", 5060, "none"},
		{"192.168.10.21", 5060, "none"},
	} {
		a, port, ok := m.ToOutside(netip.MustParseAddr(x.in), x.port)
		got := "none"
		if ok {
			got = netip.AddrPortFrom(a, port).String()
		}
		if got != x.want {
			t.Errorf("to the outside %s:%d becomes %s, want %s", x.in, x.port, got, x.want)
		}
		if ok {
			if back, bp, ok := m.ToInside(a, port); !ok || back.String() != x.in || bp != x.port {
				t.Errorf("%s does not lead back to %s:%d", x.want, x.in, x.port)
			}
		}
	}
	inside := map[string]bool{
		"192.168.10.21": true, "10.20.1.1": true, "172.16.0.1": true, "127.0.0.1": true, "169.254.1.1": true, "100.64.3.4": true,
		"209.165.200.227": false, "209.165.201.3": false, "8.8.8.8": false,
	}
	for a, want := range inside {
		if got := m.IsInside(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s inside: %v, want %v", a, got, want)
		}
	}
	m.remote = netip.MustParseAddr("172.16.9.9")
	if m.IsInside(netip.MustParseAddr("172.16.0.1")) || !m.IsInside(netip.MustParseAddr("10.20.1.1")) {
		t.Error("towards a far end with a private address only our own networks are inside")
	}
}

func TestPlanTranslatesToTheCallAgent(t *testing.T) {
	p := testPlan(t, edgeConfig)
	for in, want := range map[string]string{
		"209.165.200.227:5070": "192.168.10.30:5070", "209.165.200.229:5571": "192.168.10.31:5570",
		"209.165.200.229:5570": "none", "209.165.200.225:5070": "none",
	} {
		a, port, ok := p.realOf(netip.MustParseAddrPort(in))
		got := "none"
		if ok {
			got = netip.AddrPortFrom(a, port).String()
		}
		if got != want {
			t.Errorf("%s leads to %s, want %s", in, got, want)
		}
	}
	two := p.agents[netip.MustParseAddr("192.168.10.31")]
	if got := p.trunkPort(two); got != 5571 {
		t.Errorf("the Internet reaches the second call agent at port %d, want 5571", got)
	}
	if got := p.agentPort(two); got != 5570 {
		t.Errorf("it listens at %d, want 5570", got)
	}
}

func TestForbiddenMedia(t *testing.T) {
	p := testPlan(t, edgeConfig)
	for a, ok := range map[string]bool{
		"198.51.100.1": true, "172.16.1.1": true, "192.168.10.77": false, "10.20.3.4": false, "209.165.200.225": false, "209.165.200.227": false,
		"209.165.200.228": false, "192.168.10.3": false, "209.165.200.255": false, "209.165.200.224": false, "209.165.200.254": true,
	} {
		if why := p.forbiddenMedia(netip.MustParseAddr(a)); (why == "") != ok {
			t.Errorf("media to %s: %q", a, why)
		}
	}
}

func TestPlanKeepsTheTicketKey(t *testing.T) {
	p := testPlan(t, edgeConfig)
	cfg, _ := config.Parse("test.cfg", []byte(edgeConfig))
	q, err := newPlan(cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	if q.ticketKey != p.ticketKey {
		t.Error("the key of an unchanged password was derived again, or lost")
	}
	cfg, _ = config.Parse("test.cfg", []byte(strings.Replace(edgeConfig, "epoch 1", "epoch 2", 1)))
	if q, err = newPlan(cfg, p); err != nil || q.ticketKey == p.ticketKey {
		t.Errorf("a new epoch keeps the old key: %v", err)
	}
	cfg, _ = config.Parse("test.cfg", []byte(strings.Replace(edgeConfig, "password1234", "*****", 1)))
	if _, err = newPlan(cfg, nil); err == nil {
		t.Error("a masked password starts the appliance")
	}
}
