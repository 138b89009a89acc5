package config

import (
	"slices"
	"strings"
	"testing"
)

// guideLines are the command lines of the guide's chapter in its order, as printed, typographical variants included. A line that
// begins with "?" is refused on purpose, with the words behind "=>".
const guideLines = `
object network ucm_real_1
host 192.168.10.30
description “Cisco UCM #1 Real IP Address”
object network ucm_map_1
host 209.165.200.227
description “Cisco UCM Translated IP Address”
object network ucm_real_1
nat (inside,outside) static ucm_map_1
exit
object network ucm_real_2
nat (inside,outside) static ucm_map_2
object network ucm-pat-config1
? host 192.168.30 => invalid address
description “PAT for Inbound Calls”
nat (inside,outside) static 209.165.200.228 service tcp 5570 5571
exit
object network ucm-pat-config2
host 192.168.10.0 255.255.255.0
description “PAT for Outbound Calls”
nat (inside,outside) dynamic 209.165.200.228
access-list incoming extended permit tcp any host 192.168.10.30 eq 5070
access-group incoming in interface outside
access-list ime-inbound-sip extended permit tcp any host 192.168.10.30 eq 5070
access-list ime-outbound-sip extended permit tcp 192.168.10.30 255.255.255.255 any range 5000 6000
access-list ime-traffic permit tcp any host 192.168.10.12 eq 6084
access-list ime-bootserver-traffic permit tcp any host 192.168.10.12 eq 8470
media-termination uc-ime-media-term
address 209.165.200.228 interface outside
address 192.168.10.3 interface inside
? rtp-min-port 1000 rtp-maxport 2000 => invalid minimum
rtp-min-port 1024 rtp-maxport 65535
uc-ime local-ent-ime
media-termination ime-media-term
ucm address 192.168.10.30 trunk-security-mode non-secure
ucm address 192.168.10.30 trunk-security-mode nonsecure
ticket epoch 1 password password1234
fallback monitoring timer 120
fallback hold-down timer 30
fallback sensitivity-file ime-fallback-sensitvity.fbs
crypto key generate rsa label local-ent-key modulus 2048
crypto ca trustpoint local_ent
subject-name cn=Ent-local-domain-name**
keypair local-ent-key
enroll terminal
exit
crypto ca enroll remote-ent
crypto ca import remote-ent certificate
crypto ca authenticate remote-ent
tls-proxy local_to_remote-ent
client trust-point local-ent
client cipher-suite aes128-sha1 aes256-sha1 3des-sha1
client cipher-suite aes128-sha1 aes256-sha1 3des-sha1 null-sha1
exit
tls-proxy remote_to_local-ent
server trust-point local-ent
exit
ssl encryption 3des-sha1 aes128-sha1
class-map ime-inbound-sip
match access-list ime-inbound-sip
exit
class-map ime-outbound-sip
match access-list ime-outbound-sip
exit
policy-map ime-policy
class ime-outbound-sip
inspect sip uc-ime local-ent-ime tls-proxy local_to_remote-ent
exit
class ime-inbound-sip
inspect sip uc-ime local-ent-ime tls-proxy remote_to_local-ent
exit
exit
service-policy ime-policy global
no service-policy ime-policy global
no media-termination uc-ime-media-term
crypto key generate rsa label local-ent-key
crypto ca trustpoint local-asa
enroll self
keypair key-local-asa
subject-name cn=Ent-local-domain-name**., o="Example Corp"
exit
crypto ca enroll local-asa
crypto ca export local-asa identity-certificate
crypto ca trustpoint local-ent-ucm
enroll terminal
exit
crypto ca authenticate local-ent-ucm
tls-proxy local_to_remote-ent
server trust-point local-asa
client trust-point local-ent
exit
tls-proxy remote_to_local-ent
server trust-point local-ent
client trust-point local-asa
exit
uc-ime local-ent-ime
ucm address 192.168.10.30 trunk-security-mode secure
object network outside-any
subnet 0.0.0.0 0.0.0.0
nat (outside, inside) dynamic interface
exit
uc-ime local-ent-ime
mapping-service listening-interface inside listening-port 8060 uc-ime-interface outside
mapping-service listening-interface inside uc-ime-interface outside
`

func TestGuideLines(t *testing.T) {
	var text []string
	want := map[int]string{}
	for _, line := range strings.Split(strings.TrimSpace(guideLines), "\n") {
		if refused, ok := strings.CutPrefix(line, "? "); ok {
			var words string
			line, words, _ = strings.Cut(refused, " => ")
			want[len(text)+1] = words
		}
		text = append(text, line)
	}
	c, found := Parse("guide", []byte(strings.Join(text, "\n")))
	for _, d := range found {
		if w, ok := want[d.Line]; !ok || !strings.Contains(d.Message, w) {
			t.Errorf("not expected: %s", d.Error())
		}
		delete(want, d.Line)
	}
	for line, w := range want {
		t.Errorf("line %d is accepted, although %s", line, w)
	}
	fixedPoint(t, c)
	if !c.UCIME.UCMs[0].Secure || c.TLSProxy("local_to_remote-ent").ServerTrustpoint != "local-asa" || c.UCIME.Mapping == nil || len(c.CryptoActions) != 7 {
		t.Errorf("the last lines are lost: %s", c)
	}
	// The lines hold in upper case, indented, and with Windows line ends too.
	for i, line := range text {
		if word, rest, ok := strings.Cut(line, " "); ok {
			text[i] = "\t " + strings.ToUpper(word) + "  " + rest + " \r"
		}
	}
	c2, found2 := Parse("guide", []byte(strings.Join(text, "\n")))
	if len(found2) != len(found) || c2.String() != c.String() {
		t.Errorf("written otherwise: %s", found2.Error())
	}
}

// TestGuideDeployment reads the guide's commands as one configuration with a secure trunk. Where the guide calls one thing by two names
// (uc-ime-media-term, local_ent, local-ent-key) or prints values out of range, testdata/guide.cfg has one name and a good value.
func TestGuideDeployment(t *testing.T) {
	c, found := Load("guide.cfg", []byte(read(t, "testdata/guide.cfg")))
	if found.HasErrors() {
		t.Fatal(found.Errors().Error())
	}
	fixedPoint(t, c)
	var warned []string
	for _, d := range found {
		warned = append(warned, d.Message)
	}
	want := []string{
		"no certificate follows the command", // of the enterprise's own, which imeproxy crypto imports
		"no certificate follows the command", // of the remote enterprise
		"no certificate follows the command", // of the call agent
		"null-sha1 is never negotiated",
		"null-sha1 is never negotiated",
		`cn "Ent-local-domain-name**" of trustpoint "local-ent" is not a domain name`,
		`cn "Ent-local-domain-name**." of trustpoint "local-asa" is not a domain name`,
	}
	for _, w := range want {
		i := slices.Index(warned, w)
		if i < 0 {
			t.Errorf("no warning: %s", w)
			continue
		}
		warned = slices.Delete(warned, i, i+1)
	}
	if len(warned) > 0 {
		t.Errorf("further warnings: %q", warned)
	}
	r, _ := c.Resolve()
	if len(r.Inbound) != 1 || len(r.Outbound) != 1 || len(r.Inbound[0].Flows) != 1 || r.Outbound[0].Flows[0].Mapped.String() != "209.165.200.227" {
		t.Errorf("calls do not go both ways: %+v %+v", r.Inbound, r.Outbound)
	}
}
