package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func inline(t *testing.T) string {
	t.Helper()
	return read(t, "testdata/inline.cfg")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// edit is the in-line example with pairs of old and new text exchanged.
func edit(t *testing.T, pairs ...string) string {
	t.Helper()
	text := inline(t)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the example has no %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

const secureTrunk = `crypto key generate rsa label inner
crypto ca trustpoint local-asa
 enroll self
 subject-name cn=proxy.enterprise-a.example
 keypair inner
crypto ca enroll local-asa
tls-proxy local_to_remote-ent
 server trust-point local-asa
tls-proxy remote_to_local-ent
 client trust-point local-asa
`

func TestGoodConfigurations(t *testing.T) {
	for name, text := range map[string]string{
		"empty":        "",
		"forwarding":   "hostname x\ninterface e\n nameif inside\n ip address 10.0.0.1 255.0.0.0",
		"in-line":      inline(t),
		"secure trunk": edit(t, "security-mode nonsecure", "security-mode secure", "ssl encryption", secureTrunk+"ssl encryption"),
		"global media": edit(t, " address 209.165.200.228 interface outside\n address 192.168.10.3 interface inside\n", " address 209.165.200.228\n"),
		"PAT": edit(t, " nat (inside,outside) static ucm_map_1", " nat (inside,outside) static 209.165.200.229 service tcp 5070 5571\n"+
			"object network all\n host 192.168.10.0 255.255.255.0\n nat (inside,outside) dynamic 209.165.200.229"),
		"call agents behind a router": edit(t, "192.168.10.30", "10.1.1.30", "route outside", "route inside 10.1.0.0 255.255.0.0 192.168.10.2\nroute outside"),
		"several call agents, by a subnet": edit(t, " ucm address 192.168.10.30 trunk-security-mode nonsecure\n",
			" ucm address 192.168.10.30 trunk-security-mode nonsecure\n ucm address 192.168.10.31 trunk-security-mode nonsecure\n",
			"tcp 192.168.10.30 255.255.255.255 any", "tcp 192.168.10.0 255.255.255.0 any",
			"media-termination ime-media-term\n address", "object network two\n host 192.168.10.31\n nat (inside,outside) static 209.165.200.230\n"+
				"access-list ime-inbound-sip permit tcp any object two eq 5070\nmedia-termination ime-media-term\n address"),
		"policy on one interface": edit(t, "service-policy ime-policy global", "service-policy ime-policy interface inside\nservice-policy ime-policy interface outside"),
	} {
		t.Run(name, func(t *testing.T) {
			c, found := Load("f", []byte(text))
			if len(found) > 0 {
				t.Fatal(found.Error())
			}
			fixedPoint(t, c)
			if r, _ := c.Resolve(); r == nil {
				t.Error("it does not resolve")
			}
		})
	}
}

// mistakes are edits of the in-line example, each one mistake. testdata/check.golden holds what is reported for each.
var mistakes = []struct {
	name  string
	edits []string
}{
	{"password masked", []string{"password1234", "*****"}},
	{"no ticket", []string{" ticket epoch 1 password password1234\n", ""}},
	{"reports of our own without rtcp", []string{" ticket epoch 1 password password1234\n", " ticket epoch 1 password password1234\n no rtcp\n quality-report rtcp-xr\n"}},
	{"no call agent", []string{" ucm address 192.168.10.30 trunk-security-mode nonsecure\n", ""}},
	{"no media", []string{"uc-ime local-ent-ime\n media-termination ime-media-term\n", "uc-ime local-ent-ime\n"}},
	{"unknown media", []string{"uc-ime local-ent-ime\n media-termination ime-media-term\n", "uc-ime local-ent-ime\n media-termination ime-media-trm\n"}},
	{"media named before it is", []string{"hostname proxy-a", "uc-ime local-ent-ime\n media-termination ime-media-term\n exit", "nonsecure", "non-secure", "uc-ime local-ent-ime\n media-termination ime-media-term\n ucm", "uc-ime local-ent-ime\n ucm"}},
	{"one media address", []string{" address 192.168.10.3 interface inside\n", ""}},
	{"both kinds", []string{" address 192.168.10.3 interface inside\n", " address 192.168.10.3 interface inside\n address 209.165.200.229\n"}},
	{"media elsewhere", []string{"address 192.168.10.3 interface", "address 192.168.11.3 interface"}},
	{"media is the interface", []string{"address 192.168.10.3 interface", "address 192.168.10.1 interface"}},
	{"media is the broadcast", []string{"address 192.168.10.3 interface", "address 192.168.10.255 interface"}},
	{"media is mapped", []string{"address 209.165.200.228", "address 209.165.200.227"}},
	{"media is a call agent", []string{"address 192.168.10.3 interface", "address 192.168.10.30 interface"}},
	{"media is the gateway", []string{"address 209.165.200.228", "address 209.165.200.254"}},
	{"media on no interface", []string{"address 192.168.10.3 interface inside", "address 192.168.10.3 interface insid"}},
	{"nameif twice", []string{"nameif outside", "nameif inside"}},
	{"overlapping subnets", []string{"209.165.200.225 255.255.255.224", "192.168.10.129 255.255.255.128"}},
	{"no nameif", []string{" nameif outside\n", " security-level 7\n"}},
	{"equal levels", []string{" security-level 100\n", " security-level 0\n"}},
	{"gateway elsewhere", []string{"209.165.200.254", "10.0.0.1"}},
	{"gateway is the box", []string{"209.165.200.254", "209.165.200.225"}},
	{"route to nowhere", []string{"route outside", "route outsid"}},
	{"two default routes", []string{"route outside 0 0 209.165.200.254", "route outside 0 0 209.165.200.254\nroute outside 0 0 209.165.200.253"}},
	{"mapped object unknown", []string{"static ucm_map_1", "static ucm_map_2"}},
	{"mapped object empty", []string{" host 209.165.200.227\n", ""}},
	{"mapped twice", []string{"static ucm_map_1\n", "static ucm_map_1\nobject network x\n host 192.168.10.77\n nat (inside,outside) static 209.165.200.227\n"}},
	{"mapped to the box", []string{"host 209.165.200.227", "host 209.165.200.225"}},
	{"static of a subnet", []string{"static ucm_map_1\n", "static ucm_map_1\nobject network x\n subnet 10.0.0.0 255.0.0.0\n nat (inside,outside) static 209.165.200.229\n"}},
	{"nat the wrong way round", []string{"nat (inside,outside) static ucm_map_1", "nat (outside,inside) static ucm_map_1"}},
	{"nat of nothing", []string{"static ucm_map_1\n", "static ucm_map_1\nobject network x\n nat (inside,outside) static 209.165.200.229\n"}},
	{"object unknown", []string{"access-list ime-traffic permit tcp any host 192.168.10.12", "access-list ime-traffic permit tcp any object ucm_rel_1"}},
	{"object empty", []string{"access-list ime-traffic permit tcp any host 192.168.10.12", "object network e\naccess-list ime-traffic permit tcp any object e"}},
	{"group unknown", []string{"access-group incoming", "access-group incomming"}},
	{"group elsewhere", []string{"in interface outside", "in interface outsid"}},
	{"mapped call agent", []string{"ucm address 192.168.10.30", "ucm address 209.165.200.227"}},
	{"call agent is the box", []string{"ucm address 192.168.10.30", "ucm address 192.168.10.1"}},
	{"call agents apart", []string{" ucm address 192.168.10.30 trunk-security-mode nonsecure\n", " ucm address 192.168.10.30 trunk-security-mode nonsecure\n ucm address 209.165.200.240 trunk secure\n"}},
	{"nothing leads there", []string{"ucm address 192.168.10.30", "ucm address 10.9.9.9", "route outside 0 0", "route outside 11.0.0.0 255.0.0.0"}},
	{"mapping service", []string{" fallback hold-down", " mapping-service listening-interface inside uc-ime-interface outside\n fallback hold-down"}},
	{"mapping service the wrong way", []string{" fallback hold-down", " mapping-service listening-interface outside uc-ime-interface inside\n fallback hold-down"}},
	{"mapping service without outbound calls", []string{" fallback hold-down", " mapping-service listening-interface inside uc-ime-interface outside\n fallback hold-down", " class ime-outbound-sip\n  inspect sip uc-ime local-ent-ime tls-proxy local_to_remote-ent\n  exit\n", ""}},
	{"mapping service elsewhere", []string{" fallback hold-down", " mapping-service listening-interface insde uc-ime-interface outside\n fallback hold-down"}},
	{"trustpoint unknown", []string{"server trust-point local-ent", "server trust-point local_ent"}},
	{"no key pair", []string{" keypair local-ent-key\n", ""}},
	{"cn is no domain", []string{"cn=enterprise-a.example", "cn=Ent-local-domain-name**"}},
	{"enroll without a key", []string{"ssl encryption", "crypto ca trustpoint r\n enroll terminal\n exit\ncrypto ca enroll r\nssl encryption"}},
	{"export unknown", []string{"ssl encryption", "crypto ca export local_ent identity-certificate\nssl encryption"}},
	{"certificate to come", []string{"ssl encryption", "crypto ca import local-ent certificate\ncrypto ca authenticate local-ent\nssl encryption"}},
	{"enroll unknown", []string{"ssl encryption", "crypto ca enroll remote-ent\nssl encryption"}},
	{"self without key", []string{"ssl encryption", "crypto ca trustpoint s\n enrollment self\nssl encryption"}},
	{"self without cn", []string{"ssl encryption", "crypto ca trustpoint s\n enrollment self\n keypair k\n subject-name o=x\nssl encryption"}},
	{"import without key", []string{"ssl encryption", "crypto ca trustpoint s\ncrypto ca import s certificate\n" + string(testCertificate()) + "quit\nssl encryption"}},
	{"only weak suites", []string{"cipher-suite aes128-sha1 aes256-sha1 3des-sha1\n exit\ntls-proxy rem", "cipher-suite des-sha1 null-sha1\n exit\ntls-proxy rem"}},
	{"a weak suite", []string{"cipher-suite aes128-sha1 aes256-sha1 3des-sha1\n exit\ntls-proxy rem", "cipher-suite null-sha1 aes256-sha1\n exit\ntls-proxy rem"}},
	{"weak encryption", []string{"encryption 3des-sha1 aes128-sha1", "encryption des-sha1 null-sha1"}},
	{"class list unknown", []string{"match access-list ime-inbound-sip", "match access-list ime-inbond-sip"}},
	{"class matches nothing", []string{" match access-list ime-inbound-sip\n", ""}},
	{"class unknown", []string{" class ime-inbound-sip", " class ime-inboud-sip"}},
	{"uc-ime unknown", []string{"uc-ime local-ent-ime tls-proxy remote", "uc-ime local-ime tls-proxy remote"}},
	{"tls-proxy unknown", []string{"tls-proxy remote_to_local-ent\n  exit", "tls-proxy remote_to_locl-ent\n  exit"}},
	{"sip map", []string{"inspect sip uc-ime local-ent-ime tls-proxy remote", "inspect sip m uc-ime local-ent-ime tls-proxy remote"}},
	{"policy unknown", []string{"service-policy ime-policy", "service-policy ime-polcy"}},
	{"policy not enabled", []string{"service-policy ime-policy global\n", ""}},
	{"policy nowhere", []string{"service-policy ime-policy global", "service-policy ime-policy interface dmz"}},
	{"inbound only", []string{" class ime-outbound-sip\n  inspect sip uc-ime local-ent-ime tls-proxy local_to_remote-ent\n  exit\n", ""}},
	{"outbound only", []string{" class ime-inbound-sip\n  inspect sip uc-ime local-ent-ime tls-proxy remote_to_local-ent\n  exit\n", ""}},
	{"class without action", []string{"  inspect sip uc-ime local-ent-ime tls-proxy remote_to_local-ent\n", ""}},
	{"class of the mapped", []string{"ime-inbound-sip extended permit tcp any host 192.168.10.30", "ime-inbound-sip extended permit tcp any host 209.165.200.227"}},
	{"class of another", []string{"ime-inbound-sip extended permit tcp any host 192.168.10.30", "ime-inbound-sip extended permit tcp any host 192.168.10.31"}},
	{"class without port", []string{"any host 192.168.10.30 eq 5070\naccess-list ime-out", "any host 192.168.10.30\naccess-list ime-out"}},
	{"class of all", []string{"ime-outbound-sip extended permit tcp 192.168.10.30 255.255.255.255 any", "ime-outbound-sip extended permit tcp any any"}},
	{"class of both sides", []string{"255.255.255.255 any range", "255.255.255.255 host 192.168.10.30 range"}},
	{"class of both directions", []string{"access-list ime-traffic", "access-list ime-outbound-sip permit tcp any host 192.168.10.30 eq 5070\naccess-list ime-traffic"}},
	{"class by deny", []string{"access-list ime-inbound-sip extended permit", "access-list ime-inbound-sip extended deny"}},
	{"class of udp", []string{"ime-inbound-sip extended permit tcp", "ime-inbound-sip extended permit udp"}},
	{"class of a source port", []string{"ime-inbound-sip extended permit tcp any", "ime-inbound-sip extended permit tcp any eq 5060"}},
	{"call agent not reachable", []string{" nat (inside,outside) static ucm_map_1\n", " nat (inside,outside) dynamic interface\n"}},
	{"PAT of another port", []string{" nat (inside,outside) static ucm_map_1\n", " nat (inside,outside) static 209.165.200.229 service tcp 5060 5060\nobject network all\n subnet 192.168.10.0 255.255.255.0\n nat (inside,outside) dynamic interface\n"}},
	{"call agent not hidden", []string{" nat (inside,outside) static ucm_map_1\n", " nat (inside,outside) static 209.165.200.229 service tcp 5070 5060\n"}},
	{"no client trustpoint", []string{" client trust-point local-ent\n", ""}},
	{"no server trustpoint", []string{" server trust-point local-ent\n", ""}},
	{"secure, one trustpoint", []string{"mode nonsecure", "mode secure"}},
	{"secure, the same", []string{"mode nonsecure", "mode secure", " client trust-point local-ent\n", " client trust-point local-ent\n server trust-point local-ent\n", "tls-proxy remote_to_local-ent\n server", "tls-proxy remote_to_local-ent\n client trust-point local-ent\n server"}},
	{"interface shut down", []string{" nameif outside\n", " nameif outside\n shutdown\n"}},
	{"policy where no call passes", []string{"route outside", "interface edmz\n nameif dmz\n security-level 50\n ip address 10.9.9.1 255.255.255.0\nroute outside", "service-policy ime-policy global", "service-policy ime-policy interface dmz"}},
	{"policy on two, one mistake", []string{"service-policy ime-policy global", "service-policy ime-policy interface inside\nservice-policy ime-policy interface outside", " client trust-point local-ent\n", ""}},
}

func TestCheck(t *testing.T) {
	golden := map[string]string{}
	for _, block := range strings.Split(read(t, "testdata/check.golden"), "\n## ") {
		name, text, _ := strings.Cut(strings.TrimPrefix(block, "## "), "\n")
		golden[name] = strings.TrimSpace(text)
	}
	var fresh strings.Builder
	for _, c := range mistakes {
		t.Run(c.name, func(t *testing.T) {
			cfg, found := Load("f", []byte(edit(t, c.edits...)))
			fresh.WriteString("## " + c.name + "\n" + found.Error() + "\n\n")
			if d := cmp.Diff(golden[c.name], found.Error()); d != "" && !*update {
				t.Error(d)
			}
			for _, d := range found {
				if d.Hint == "" || d.Source == "" {
					t.Errorf("no hint or no source: %s", d.Error())
				}
			}
			if r, _ := cfg.Resolve(); (r == nil) != found.HasErrors() {
				t.Error("Resolve and Load disagree")
			}
			fixedPoint(t, cfg)
		})
	}
	if *update {
		if err := os.WriteFile("testdata/check.golden", []byte(fresh.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadDoesNotReportWhatAMistakenLineMayDefine(t *testing.T) {
	_, found := Load("f", []byte(edit(t, "access-list ime-inbound-sip extended permit tcp any host", "access-list ime-inbound-sip extended permit tcp any hst", "address 209.165.200.228", "address 209.165.200.225")))
	var got []string
	for _, d := range found {
		got = append(got, d.Message)
	}
	want := []string{`unknown keyword "hst"`, "209.165.200.225 is the address of interface eout itself"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMissingNameIsGuessed(t *testing.T) {
	_, found := Load("f", []byte(edit(t, "service-policy ime-policy", "service-policy ime-polcy")))
	want := `f:69:16: error: policy-map "ime-polcy" does not exist
service-policy ime-polcy global
               ^
did you mean "ime-policy"? define it by policy-map ime-polcy`
	if got := found.Errors().Error(); got != want {
		t.Errorf("got %s", got)
	}
}
