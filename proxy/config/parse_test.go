package config

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// noPlaces leaves out where things stand, so that a table shows their meaning alone.
var noPlaces = cmp.Options{
	cmpopts.IgnoreTypes(Pos{}, Places{}),
	cmpopts.EquateEmpty(),
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}),
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, found := Parse("test.cfg", []byte(text))
	if len(found) > 0 {
		t.Fatalf("%s\nof:\n%s", found.Error(), text)
	}
	fixedPoint(t, c)
	return c
}

// fixedPoint checks that the canonical text means itself.
func fixedPoint(t *testing.T, c *Config) {
	t.Helper()
	once := c.String()
	c2, found := Parse("canonical", []byte(once))
	if len(found) > 0 {
		t.Fatalf("the canonical text is refused: %s\n%s", found.Error(), once)
	}
	if d := cmp.Diff(once, c2.String()); d != "" {
		t.Fatalf("the canonical text changes: %s", d)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func TestInterfaceValues(t *testing.T) {
	inside := &Interface{Name: "ein", Nameif: "inside", SecurityLevel: 100, Address: prefix("192.168.10.1/24")}
	for name, c := range map[string]struct {
		text string
		want []*Interface
	}{
		"inside is trusted by default": {"interface ein\n nameif inside\n ip address 192.168.10.1 255.255.255.0", []*Interface{inside}},
		"abbreviated, any case, CRLF":  {"INT ein\r\n NAMEIF inside\r\n IP ADD 192.168.10.1 255.255.255.0\r\n", []*Interface{inside}},
		"others are not":               {"interface eout\n nameif dmz", []*Interface{{Name: "eout", Nameif: "dmz"}}},
		"level before the name":        {"interface e\n security-level 30\n nameif inside", []*Interface{{Name: "e", Nameif: "inside", SecurityLevel: 30}}},
		"entered twice":                {"interface ein\n nameif inside\n!\ninterface ein\n ip address 192.168.10.1 255.255.255.0", []*Interface{inside}},
		"removed":                      {"interface e\n nameif x\n exit\nno interface e", nil},
		"settings taken back": {
			"interface e\n nameif inside\n security-level 3\n ip address 10.0.0.1 255.0.0.0\n description x\n shutdown\n" +
				" no nameif\n no security-level\n no ip address\n no description\n no shutdown", []*Interface{{Name: "e"}},
		},
		"all of it": {
			"interface e\n nameif a\n security-level 5\n ip address 10.0.0.1 255.255.255.252\n description  “up  link”\n shutdown",
			[]*Interface{{Name: "e", Nameif: "a", SecurityLevel: 5, Address: prefix("10.0.0.1/30"), Description: "up  link", Shutdown: true}},
		},
		"point to point": {"interface e\n ip address 10.0.0.0 255.255.255.254", []*Interface{{Name: "e", Address: prefix("10.0.0.0/31")}}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, mustParse(t, c.text).Interfaces, noPlaces); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestObjectValues(t *testing.T) {
	for text, want := range map[string]*NetworkObject{
		" host 192.168.10.30":                           {Prefix: prefix("192.168.10.30/32"), IsHost: true},
		" host 192.168.10.30 255.255.255.255":           {Prefix: prefix("192.168.10.30/32"), IsHost: true},
		" host 192.168.10.0 255.255.255.0":              {Prefix: prefix("192.168.10.0/24")},
		" subnet 10.0.0.0 255.0.0.0":                    {Prefix: prefix("10.0.0.0/8")},
		" nat (inside,outside) static ucm_map_1":        {NAT: &NAT{Real: "inside", Mapped: "outside", MappedObject: "ucm_map_1"}},
		" nat (outside, inside) static 1.2.3.4":         {NAT: &NAT{Real: "outside", Mapped: "inside", MappedAddr: addr("1.2.3.4")}},
		" nat ( a , b ) dynamic interface":              {NAT: &NAT{Real: "a", Mapped: "b", Dynamic: true, MappedInterface: true}},
		" nat (a,b) dyn 209.165.200.228":                {NAT: &NAT{Real: "a", Mapped: "b", Dynamic: true, MappedAddr: addr("209.165.200.228")}},
		" host 10.0.0.1\n nat (a,b) static m\n no nat":  {Prefix: prefix("10.0.0.1/32"), IsHost: true},
		" host 10.0.0.1\n no host 10.0.0.1\n no subnet": {},
		" nat (inside,outside) static 209.165.200.228 service tcp 5570 5571": {NAT: &NAT{
			Real: "inside", Mapped: "outside", MappedAddr: addr("209.165.200.228"),
			Service: &NATService{Proto: "tcp", RealPort: 5570, MappedPort: 5571},
		}},
		" nat (a,b) static m service udp sip 65535\n desc x y": {Description: "x y", NAT: &NAT{
			Real: "a", Mapped: "b", MappedObject: "m", Service: &NATService{Proto: "udp", RealPort: 5060, MappedPort: 65535},
		}},
		" nat (a,b) static m\n no nat ( a, b ) static m": {},
	} {
		c := mustParse(t, "object network o\n"+text)
		want.Name = "o"
		if d := cmp.Diff([]*NetworkObject{want}, c.Objects, noPlaces); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
	if c := mustParse(t, "object network o\n host 10.0.0.1\nno object network o"); len(c.Objects) != 0 {
		t.Errorf("the object is still there: %+v", c.Objects)
	}
}

func TestAccessListValues(t *testing.T) {
	host := Endpoint{Prefix: prefix("192.168.10.30/32")}
	anyone := Endpoint{Any: true}
	tcp := ACE{Extended: true, Permit: true, Proto: "tcp", Src: anyone, Dst: host, DstPorts: PortRange{5070, 5070}}
	with := func(change func(*ACE)) ACE {
		e := tcp
		change(&e)
		return e
	}
	for line, want := range map[string]ACE{
		"extended permit tcp any host 192.168.10.30 eq 5070":   tcp,
		"permit tcp any4 host 192.168.10.30 eq 5070":           tcp,
		"perm tcp 0.0.0.0 0.0.0.0 host 192.168.10.30 eq 5070":  tcp,
		"permit tcp any 192.168.10.30 255.255.255.255 eq 5070": tcp,
		"deny udp any host 192.168.10.30 eq 5070":              with(func(e *ACE) { e.Permit, e.Proto = false, "udp" }),
		"permit tcp any host 192.168.10.30 eq sip":             with(func(e *ACE) { e.DstPorts = PortRange{5060, 5060} }),
		"permit tcp any host 192.168.10.30 eq https":           with(func(e *ACE) { e.DstPorts = PortRange{443, 443} }),
		"permit tcp any host 192.168.10.30 lt 1024":            with(func(e *ACE) { e.DstPorts = PortRange{1, 1023} }),
		"permit tcp any host 192.168.10.30 gt 1023":            with(func(e *ACE) { e.DstPorts = PortRange{1024, 65535} }),
		"permit tcp any host 192.168.10.30 range 5000 6000":    with(func(e *ACE) { e.DstPorts = PortRange{5000, 6000} }),
		"permit tcp any host 192.168.10.30":                    with(func(e *ACE) { e.DstPorts = PortRange{} }),
		"permit tcp any eq 7 host 192.168.10.30 eq 5070":       with(func(e *ACE) { e.SrcPorts = PortRange{7, 7} }),
		"permit tcp any eq 7 host 192.168.10.30":               with(func(e *ACE) { e.SrcPorts, e.DstPorts = PortRange{7, 7}, PortRange{} }),
		"permit tcp object o object p eq 5070":                 with(func(e *ACE) { e.Src, e.Dst = Endpoint{Object: "o"}, Endpoint{Object: "p"} }),
		"permit ip 10.0.0.0 255.0.0.0 any":                     {Extended: true, Permit: true, Proto: "ip", Src: Endpoint{Prefix: prefix("10.0.0.0/8")}, Dst: anyone},
		"deny icmp any any":                                    {Extended: true, Proto: "icmp", Src: anyone, Dst: anyone},
		"remark “from the Internet”":                           {Remark: "from the Internet"},
	} {
		c := mustParse(t, "access-list in "+line)
		if d := cmp.Diff([]*AccessList{{Name: "in", Entries: []ACE{want}}}, c.AccessLists, noPlaces); d != "" {
			t.Errorf("%s: %s", line, d)
		}
		if c := mustParse(t, "access-list in "+line+"\nno access-list in "+line); len(c.AccessLists) != 0 {
			t.Errorf("no %s: the entry is still there", line)
		}
	}
	c := mustParse(t, "access-list a permit ip any any\naccess-list b permit ip any any\naccess-list a deny ip any any\nno access-list b")
	if len(c.AccessLists) != 1 || len(c.AccessLists[0].Entries) != 2 {
		t.Errorf("lists: %+v", c.AccessLists)
	}
	c = mustParse(t, "access-group a in interface x\naccess-group b out interface x\naccess-group c in interface x\nno access-group b out interface x")
	if d := cmp.Diff([]AccessGroup{{ACL: "c", Direction: "in", Interface: "x"}}, c.AccessGroups, noPlaces); d != "" {
		t.Error(d)
	}
}

func TestUCIMEValues(t *testing.T) {
	base := func(change func(*UCIME)) *UCIME {
		u := &UCIME{Name: "x", MonitoringTimer: 100 * time.Millisecond, HoldDownTimer: 20 * time.Second, NotificationRate: 10, MappingQuota: 2000, MappingLow: 20000, MappingHigh: 39999, MappingLifetime: 600 * time.Second}
		change(u)
		return u
	}
	same := func(*UCIME) {}
	for text, change := range map[string]func(*UCIME){
		"":                     same,
		"media-termination m":  func(u *UCIME) { u.MediaTermination = "m" },
		"ticket reject drop":   func(u *UCIME) { u.TicketRejectDrop = true },
		"ticket reject reject": same,
		"no rtcp":              func(u *UCIME) { u.NoRTCP = true },
		"transfer permit +1408555\n transfer permit +\n tra per +1408555":        func(u *UCIME) { u.Transfers = []string{"+1408555", "+"} },
		"transfer permit +1408555\n no transfer permit +1408555":                 func(u *UCIME) { u.Transfers = []string{} },
		"ucm address 192.168.10.30 trunk-security-mode non-secure":               func(u *UCIME) { u.UCMs = []UCM{{Addr: addr("192.168.10.30")}} },
		"ucm address 192.168.10.30 trunk-security-mode nonsecure":                func(u *UCIME) { u.UCMs = []UCM{{Addr: addr("192.168.10.30")}} },
		"ucm address 192.168.10.30 trunk secure":                                 func(u *UCIME) { u.UCMs = []UCM{{Addr: addr("192.168.10.30"), Secure: true}} },
		"ucm add 10.0.0.9 tr secure\n ucm add 10.0.0.9 tr non-secure":            func(u *UCIME) { u.UCMs = []UCM{{Addr: addr("10.0.0.9")}} },
		"ticket epoch 255 password password1234":                                 func(u *UCIME) { u.TicketEpoch, u.TicketPassword = 255, "password1234" },
		"ticket epoch 1 password *****":                                          func(u *UCIME) { u.TicketEpoch, u.TicketPassword = 1, "*****" },
		"fallback monitoring timer 10":                                           func(u *UCIME) { u.MonitoringTimer = 10 * time.Millisecond },
		"fallback hold-down timer 360":                                           func(u *UCIME) { u.HoldDownTimer = 360 * time.Second },
		"quality-report collector 10.0.0.9":                                      func(u *UCIME) { u.Collector = netip.MustParseAddrPort("10.0.0.9:5060") },
		"quality coll 10.0.0.9 port 5090":                                        func(u *UCIME) { u.Collector = netip.MustParseAddrPort("10.0.0.9:5090") },
		"quality-report collector 10.0.0.9 port 7\n no quality-report collector": same,
		"quality-report rtcp-xr":                                                 func(u *UCIME) { u.ReportXR = true },
		"quality-report rtcp-xr\n no quality-report rtcp-xr":                     same,
		"fallback notification rate 25":                                          func(u *UCIME) { u.NotificationRate = 25 },
		"fallback notif rate 25\n no fallback notif rate":                        same,
		"fallback sensitivity-file ime-fallback-sensitvity.fbs":                  func(u *UCIME) { u.SensitivityFile = "ime-fallback-sensitvity.fbs" },
		"mapping-service listening-interface in uc-ime-interface out": func(u *UCIME) {
			u.Mapping = &MappingService{ListenInterface: "in", ListenPort: 8060, UCIMEInterface: "out"}
		},
		"mapping listening-int in listening-port 1024 uc-ime-interface ou": func(u *UCIME) {
			u.Mapping = &MappingService{ListenInterface: "in", ListenPort: 1024, UCIMEInterface: "ou"}
		},
		"mapping-service quota 7":              func(u *UCIME) { u.MappingQuota = 7 },
		"mapping-service port-range 5000 6000": func(u *UCIME) { u.MappingLow, u.MappingHigh = 5000, 6000 },
		"mapping-service lifetime 90":          func(u *UCIME) { u.MappingLifetime = 90 * time.Second },
		"mapping-service allow-private":        func(u *UCIME) { u.MappingAllowPrivate = true },
		"mapping q 7\n mapping port 5000 6000\n mapping life 90\n mapping allow\n no mapping q\n no mapping port\n no mapping life\n no mapping allow": same,
		"media m\n no media\n no rtcp\n rtcp\n ticket rej drop\n no ticket rej":                                                                        same,
		"ticket epoch 1 password password1234\n no ticket epoch 1 password password1234":                                                               same,
		"ticket epoch 1 password password1234\n no ticket":                                                                                             same,
		"ucm address 10.0.0.9 trunk-security-mode secure\n no ucm address 10.0.0.9":                                                                    same,
		"fallback mon timer 50\n no fallback mon timer\n fallback hold timer 50\n no fallback hold timer":                                              same,
		"fallback sens a.fbs\n no fallback sens\n mapping listen a uc b\n no mapping-service":                                                          same,
	} {
		c := mustParse(t, "uc-ime x\n "+text)
		if d := cmp.Diff(base(change), c.UCIME, noPlaces, cmp.Comparer(func(a, b Secret) bool { return a == b })); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
	if c := mustParse(t, "uc-ime x\n exit\nno uc-ime x"); c.UCIME != nil {
		t.Error("the uc-ime is still there")
	}
}

func TestOtherValues(t *testing.T) {
	for text, want := range map[string]*Config{
		"hostname proxy-a\ndomain-name a.example":                                   {Hostname: "proxy-a", DomainName: "a.example"},
		"hostname a\ndomain-name b.c\nno hostname\nno domain-name b.c\nno hostname": {},
		"banner motd “Hello”\nbanner exec two  words\nbanner login a\nno banner login": {
			Banners: []Banner{{Kind: "motd", Text: "Hello"}, {Kind: "exec", Text: "two  words"}},
		},
		"route outside 0 0 209.165.200.254": {Routes: []Route{{Interface: "outside", Dst: prefix("0.0.0.0/0"), Gateway: addr("209.165.200.254"), Metric: 1}}},
		"route a 10.1.0.0 255.255.0.0 10.0.0.1 5\nroute b 0 0 1.2.3.4\nno route b 0.0.0.0 0.0.0.0": {
			Routes: []Route{{Interface: "a", Dst: prefix("10.1.0.0/16"), Gateway: addr("10.0.0.1"), Metric: 5}},
		},
		"media-termination m\n address 209.165.200.228 interface outside\n address 192.168.10.3 interface inside\n rtp-min-port 1024 rtp-maxport 65535": {
			MediaTerminations: []*MediaTermination{{Name: "m", MinPort: 1024, MaxPort: 65535, BatchWait: DefaultBatchWait, Addresses: []MediaAddress{
				{Addr: addr("209.165.200.228"), Interface: "outside"}, {Addr: addr("192.168.10.3"), Interface: "inside"},
			}}},
		},
		"media-termination m\n address 10.0.0.9\n rtp-min-port 2000 rtp-max-port 2100\n no rtp-min-port\n no address 10.0.0.9": {
			MediaTerminations: []*MediaTermination{{Name: "m", MinPort: 16384, MaxPort: 32767, BatchWait: DefaultBatchWait}},
		},
		"media-termination m\nno media-termination m": {},
		"crypto key generate rsa label k\ncrypto key gen rsa label l mod 4096\ncrypto key gen ecdsa label m\ncrypto key gen ecdsa label n ell 521": {
			CryptoActions: []CryptoAction{
				{Kind: GenerateKey, Algorithm: "rsa", Label: "k", Bits: 2048},
				{Kind: GenerateKey, Algorithm: "rsa", Label: "l", Bits: 4096},
				{Kind: GenerateKey, Algorithm: "ecdsa", Label: "m", Bits: 256},
				{Kind: GenerateKey, Algorithm: "ecdsa", Label: "n", Bits: 521},
			},
		},
		"crypto key generate rsa label k\nno crypto key generate rsa label k": {},
		"crypto ca trustpoint local-asa\n enroll self\n keypair key-local-asa\n fqdn a.example\n subject-name cn=Ent-local-domain-name**., o=“Example Corp”\ncrypto ca enroll local-asa": {
			Trustpoints:   []*Trustpoint{{Name: "local-asa", Enrollment: "self", KeyPair: "key-local-asa", FQDN: "a.example", SubjectName: `cn=Ent-local-domain-name**., o="Example Corp"`}},
			CryptoActions: []CryptoAction{{Kind: Enroll, Trustpoint: "local-asa"}},
		},
		"crypto ca trustpoint a\n enrollment terminal\n fqdn b.c\n keypair k\n subject cn=x\n no enr\n no fqdn\n no keypair k\n no subj": {Trustpoints: []*Trustpoint{{Name: "a"}}},
		"crypto ca trustpoint a\ncrypto ca enroll a\nno crypto ca trustpoint a":                                                          {},
		"tls-proxy p\n server trust-point a\n client trust-point b\n client cipher-suite aes128-sha1 aes256-sha1 3des-sha1 null-sha1": {TLSProxies: []*TLSProxy{{
			Name: "p", ServerTrustpoint: "a", ClientTrustpoint: "b", ClientCipherSuites: []string{"aes128-sha1", "aes256-sha1", "3des-sha1", "null-sha1"},
		}}},
		"tls-proxy p\n server trust-point a\n client trust-point b\n client cipher aes1\n no server trust-point\n no client trust-point b\n no client cipher-suite": {TLSProxies: []*TLSProxy{{Name: "p"}}},
		"tls-proxy p\nno tls-proxy p\ntls-proxy maximum-sessions 500": {TLSProxyMaxSessions: 500},
		"tls-proxy max 500\nno tls-proxy max":                         {},
		"ssl encryption 3des-sha1 aes128-sha1 3des-sha1\nssl client-version tlsv1.2\nssl server-version TLSv1.3": {
			SSLEncryption: []string{"3des-sha1", "aes128-sha1"}, SSLClientVersion: "tlsv1.2", SSLServerVersion: "tlsv1.3",
		},
		"ssl enc aes128-sha1\nssl client-version tlsv1.2\nno ssl enc\nno ssl client-version": {},
		"class-map c\n match access-list a\n no match access-list\nclass-map d\n match access-list b": {
			ClassMaps: []*ClassMap{{Name: "c"}, {Name: "d", AccessList: "b"}},
		},
		"policy-map p\n class c\n  inspect sip uc-ime u tls-proxy t\n class d\n  inspect sip m uc-ime u tls-proxy t\n  exit\n class e\n  inspect sip uc-ime u tls-proxy t\n  no inspect sip\n no class c": {
			PolicyMaps: []*PolicyMap{{Name: "p", Classes: []*PolicyClass{
				{Class: "d", Inspect: &InspectSIP{Map: "m", UCIME: "u", TLSProxy: "t"}}, {Class: "e"},
			}}},
		},
		"service-policy p global\nservice-policy q interface i\nservice-policy r interface j\nno service-policy r interface j": {
			ServicePolicies: []ServicePolicy{{Policy: "p", Global: true}, {Policy: "q", Interface: "i"}},
		},
		"class-map c\npolicy-map p\nno class-map c\nno policy-map p": {},
		": Saved\n!\n\n \t\nend\nexit\nhostname\u00a0x":              {Hostname: "x"},
		"\ufeffhostname x":                    {Hostname: "x"},
		"uc-ime x\n end\nmedia-termination m": {UCIME: newUCIME("x", Pos{}), MediaTerminations: []*MediaTermination{{Name: "m", MinPort: 16384, MaxPort: 32767, BatchWait: DefaultBatchWait}}},
		"policy-map p\n class c\n  inspect sip uc-ime u tls-proxy t\nhostname h": {Hostname: "h", PolicyMaps: []*PolicyMap{{Name: "p", Classes: []*PolicyClass{{Class: "c", Inspect: &InspectSIP{UCIME: "u", TLSProxy: "t"}}}}}},
	} {
		if d := cmp.Diff(want, mustParse(t, text), noPlaces, cmpopts.IgnoreUnexported(Config{})); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

func TestNamesOfSubModeAndGlobalCommands(t *testing.T) {
	// Inside uc-ime, media-termination names an instance; behind exit it makes one.
	c := mustParse(t, "uc-ime x\n media-termination m\n exit\nmedia-termination m\n address 10.0.0.9")
	if c.UCIME.MediaTermination != "m" || len(c.MediaTerminations) != 1 || len(c.MediaTerminations[0].Addresses) != 1 {
		t.Errorf("got %+v, %+v", c.UCIME, c.MediaTerminations)
	}
}

func TestInlineExample(t *testing.T) {
	text, err := os.ReadFile("testdata/inline.cfg")
	if err != nil {
		t.Fatal(err)
	}
	c, found := Load("inline.cfg", text)
	if len(found) > 0 {
		t.Fatal(found.Error())
	}
	fixedPoint(t, c)
	want, err := os.ReadFile("testdata/inline.golden")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), c.String()); d != "" {
		t.Error(d)
	}
	s, ok := c.Section("uc-ime")
	if !ok || !strings.HasPrefix(s, "uc-ime local-ent-ime\n media-termination ime-media-term\n ucm address 192.168.10.30 trunk-security-mode non-secure\n ticket epoch 1 password *****\n") {
		t.Errorf("section uc-ime: %v %s", ok, s)
	}
	if _, ok := c.Section("nonsense"); ok {
		t.Error("there is a section nonsense")
	}
	all := ""
	for _, n := range SectionNames() {
		s, ok := c.Section(n)
		if !ok {
			t.Errorf("no section %s", n)
		}
		all += s
	}
	if !strings.Contains(all, "nat (inside,outside) static ucm_map_1") {
		t.Error("no section holds the translation")
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	c := mustParse(t, "uc-ime x\n ticket epoch 1 password TopSecret99")
	if c.UCIME.TicketPassword.Reveal() != "TopSecret99" {
		t.Fatal("the password is lost")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		if out := fmt.Sprintf(verb, c.UCIME.TicketPassword) + fmt.Sprintf(verb, *c.UCIME) + fmt.Sprintf(verb, *c); strings.Contains(out, "TopSecret") || strings.Contains(out, "546f70536563726574") {
			t.Errorf("%s shows the password: %s", verb, out)
		}
	}
}
