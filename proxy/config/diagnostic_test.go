package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shownMistakes are texts and what an operator sees, to the letter.
var shownMistakes = map[string]struct{ text, want string }{
	"mistyped keyword": {"uc-ime x\n tiket epoch 1 password password1234", `
f:2:2: error: unknown keyword "tiket"
 tiket epoch 1 password *****
 ^
did you mean "ticket"? no such command in uc-ime mode`},
	"mistyped keyword inside": {"uc-ime x\n fallback monitorin timr 5", `
f:2:21: error: unknown keyword "timr"
 fallback monitorin timr 5
                    ^
did you mean "timer"? expected timer`},
	"ambiguous": {"t 1", `
f:1:1: error: ambiguous keyword "t"
t 1
^
it may be threat-detection, timeout or tls-proxy`},
	"range": {"uc-ime x\n ticket epoch 256 password password1234", `
f:2:15: error: invalid epoch "256"
 ticket epoch 256 password *****
              ^
the allowed range is 1-255`},
	"incomplete": {"uc-ime x\n ticket epoch 1", `
f:2:16: error: the command is not complete
 ticket epoch 1
               ^
expected password`},
	"short password": {"uc-ime x\n ticket epoch 1 password geheim123", `
f:2:26: error: invalid password "*****"
 ticket epoch 1 password *****
                         ^
a password has 10 to 64 characters, this has 9`},
	"mistake behind the password": {"uc-ime x\n ticket epoch 1 password password1234 again", `
f:2:39: error: unexpected word "*****"
 ticket epoch 1 password ***** *****
                               ^
the command ends before it`},
	"password with a control character": {"uc-ime x\n ticket epoch 1 password pass\x07word1234", `
f:2:30: error: a control character (code 7)
 ticket epoch 1 password *****
                             ^
remove it; a configuration is UTF-8 text`},
	"two mistakes, in order": {"hostname a_b\nuc-ime x\n ucm address 192.168.30 trunk-security-mode non-secure", `
f:1:10: error: invalid hostname "a_b"
hostname a_b
         ^
letters, digits and hyphens are allowed, at most 63, with a letter or digit at both ends
f:3:14: error: invalid address "192.168.30"
 ucm address 192.168.30 trunk-security-mode non-secure
             ^
an IPv4 address of four numbers is expected, such as 192.168.10.30`},
	"guide: host with three numbers": {"object network ucm-pat-config1\n host 192.168.30", `
f:2:7: error: invalid address "192.168.30"
 host 192.168.30
      ^
an IPv4 address of four numbers is expected, such as 192.168.10.30`},
	"guide: RTP port 1000": {"media-termination m\n rtp-min-port 1000 rtp-maxport 2000", `
f:2:15: error: invalid minimum "1000"
 rtp-min-port 1000 rtp-maxport 2000
              ^
the allowed range is 1024-65535`},
	"ports the wrong way round": {"media-termination m\n rtp-min-port 3000 rtp-max-port 2000", `
f:2:33: error: the range of ports ends before it begins
 rtp-min-port 3000 rtp-max-port 2000
                                ^
rtp-min-port 2000 rtp-max-port 3000`},
	"too few ports": {"media-termination m\n rtp-min-port 3001 rtp-max-port 3008", `
f:2:33: error: the range holds 3 pairs of ports
 rtp-min-port 3001 rtp-max-port 3008
                                ^
at least 4 pairs are needed, each an even port and the one above it`},
	"wildcard mask": {"access-list a permit ip 10.0.0.0 0.0.0.255 any", `
f:1:34: error: invalid mask "0.0.0.255"
access-list a permit ip 10.0.0.0 0.0.0.255 any
                                 ^
this is a wildcard; an ASA takes the network mask 255.255.255.0`},
	"host bits": {"access-list a permit ip 10.0.0.1 255.255.255.0 any", `
f:1:25: error: the address and the mask do not fit
access-list a permit ip 10.0.0.1 255.255.255.0 any
                        ^
the network with this mask is 10.0.0.0`},
	"a prompt": {"hostname(config-uc-ime)# ticket epoch 1 password password1234", `
f:1:1: error: a prompt is not part of a command
hostname(config-uc-ime)# ticket epoch 1 password *****
^
remove "hostname(config-uc-ime)#"`},
	"a prompt with a blank": {"hostname(config) # object network a", `
f:1:1: error: a prompt is not part of a command
hostname(config) # object network a
^
remove "hostname(config) #"`},
	"a mistaken mode line does not make all behind it wrong": {"uc-ime " + strings.Repeat("x", 65) + "\n media-termination m\n fallback monitoring timer 5", `
f:1:8: error: invalid name "` + strings.Repeat("x", 65) + `"
uc-ime ` + strings.Repeat("x", 65) + `
       ^
at most 64 characters are allowed, this has 65
f:3:28: error: invalid milliseconds "5"
 fallback monitoring timer 5
                           ^
the allowed range is 10-600`},
	"tabs and wide characters": {"object network o\n\tdescription “é” \n\thost “é” x", `
f:3:7: error: invalid address "“é”"
	host “é” x
	     ^
an IPv4 address of four numbers is expected, such as 192.168.10.30`},
	"old TLS": {"ssl server-version tlsv1.1", `
f:1:20: error: invalid version "tlsv1.1"
ssl server-version tlsv1.1
                   ^
this appliance speaks tlsv1.2 and tlsv1.3 only, never an older version; leave the command out to allow both`},
	"weak key": {"crypto key generate rsa label k modulus 1024", `
f:1:41: error: invalid bits "1024"
crypto key generate rsa label k modulus 1024
                                        ^
a key of less than 2048 bits is weak and refused; the allowed range is 2048-8192`},
	"export": {"crypto ca export local-asa pkcs12 geheim", `
f:1:11: error: PKCS#12 cannot be exported from a configuration: its passphrase would stand in the text
crypto ca export local-asa pkcs12 *****
          ^
use ` + "`imeproxy crypto export`"},
	"a command of another mode": {"uc-ime x\n security-level 7", `
f:2:2: error: unknown keyword "security-level"
 security-level 7
 ^
no such command in uc-ime mode; it belongs to interface mode`},
	"a command of several other modes": {"description x", `
f:1:1: error: unknown keyword "description"
description x
^
no such command in configuration mode; it belongs to interface or object network or object-group network or object-group service mode`},
	"no command at all": {"tls-proxy x\n foo", `
f:2:2: error: unknown keyword "foo"
 foo
 ^
no such command in tls-proxy mode, which has client and server`},
	"a command of an ASA": {"snmp-server location x\nno failover\nhostname a", `
f:1:1: error: unknown keyword "snmp-server"
snmp-server location x
^
an ASA's command that this product does not have: leave it out; metrics come over HTTP: ` + "`imeproxy run --metrics`" + `
f:2:4: error: unknown keyword "failover"
no failover
   ^
an ASA's command that this product does not have: leave it out; there is no pair of units: a second proxy stands by itself`},
	"a command of an ASA with lines under it": {"webvpn\n enable outside\n!\n csd image x\nhostname a_b", `
f:1:1: error: unknown keyword "webvpn"
webvpn
^
an ASA's command that this product does not have: leave it out with the lines indented under it, which were not read; this product is no VPN gateway
f:5:10: error: invalid hostname "a_b"
hostname a_b
         ^
letters, digits and hyphens are allowed, at most 63, with a letter or digit at both ends`},
	"a command of an ASA beside one that there is": {"interface eth0\n ip address 10.0.0.1 255.255.255.0 standby 10.0.0.2\ncrypto ikev1 policy 10\n hash sha", `
f:2:36: error: unknown keyword "standby"
 ip address 10.0.0.1 255.255.255.0 standby 10.0.0.2
                                   ^
an ASA's command that this product does not have: leave it out; there is no pair of units: a second proxy stands by itself
f:3:8: error: unknown keyword "ikev1"
crypto ikev1 policy 10
       ^
an ASA's command that this product does not have: leave it out with the lines indented under it, which were not read; this product is no VPN gateway`},
	"what an ASA refuses with lines under it": {"policy-map type inspect sip m\n parameters\n  max-forwards-validation action drop", `
f:1:12: error: inspection policy maps are not supported: their settings would have no effect
policy-map type inspect sip m
           ^
leave it out; malformed messages are always refused`},
	"a command of the shell": {"wr mem", `
f:1:1: error: unknown keyword "wr"
wr mem
^
a command of the shell, not of a configuration: leave it out`},
	"the head of an ASA's text": {": Saved\nASA Version 9.0(1)\n: end", `
f:2:1: error: unknown keyword "ASA"
ASA Version 9.0(1)
^
an ASA prints this around its configuration: leave it out`},
	"no command of a mode with many": {"frobnicate 5", `
f:1:1: error: unknown keyword "frobnicate"
frobnicate 5
^
no such command in configuration mode; docs/configuration.md has those that there are, and so has ` + "`?` in the shell"},
	"no of a mistyped keyword": {"uc-ime x\nno acess-group a in interface b", `
f:2:4: error: unknown keyword "acess-group"
no acess-group a in interface b
   ^
did you mean "access-group"? no such command in uc-ime mode`},
	"no of a command of another mode": {"no security-level", `
f:1:4: error: unknown keyword "security-level"
no security-level
   ^
no such command in configuration mode; it belongs to interface mode`},
	"a class with a word too many": {"policy-map p\n class c d\n  inspect sip uc-ime u tls-proxy t", `
f:2:10: error: unexpected word "d"
 class c d
         ^
the command ends before it`},
	"pkcs12": {"crypto ca import t pkcs12 geheim", `
f:1:11: error: PKCS#12 cannot be imported from a configuration: its passphrase would stand in the text
crypto ca import t pkcs12 *****
          ^
use ` + "`imeproxy crypto import`"},
	"no of nothing": {"no uc-ime x", `
f:1:11: error: there is no such uc-ime
no uc-ime x
          ^
` + "`no` removes what stands before it in the text"},
	"second uc-ime": {"uc-ime a\nuc-ime b\n no rtcp", `
f:2:8: error: only one uc-ime can be configured
uc-ime b
       ^
line 1 configures "a"`},
	"not an attribute": {"crypto ca trustpoint t\n subject-name cn=a, xx=b", `
f:2:15: error: invalid subject name "cn=a, xx=b"
 subject-name cn=a, xx=b
              ^
"xx" is no attribute: expected cn, ou, o, c, st, l, dc, ea or serialnumber`},
	"linux interface": {"interface GigabitEthernet0/0\n nameif inside", `
f:1:11: error: invalid interface "GigabitEthernet0/0"
interface GigabitEthernet0/0
          ^
the name of a Linux interface is expected, as ` + "`ip link`" + ` prints it (at most 15 characters, no "/")`},
	"timeouts": {"timeout sip 0:30:00", `
f:1:1: error: timeout is not supported: it would have no effect
timeout sip 0:30:00
^
leave it out; dialogs end by BYE, by their session timer (RFC 4028) or by silence`},
}

func TestDiagnostics(t *testing.T) {
	for name, c := range shownMistakes {
		t.Run(name, func(t *testing.T) {
			_, found := Parse("f", []byte(c.text))
			if d := cmp.Diff(strings.TrimPrefix(c.want, "\n"), found.Error()); d != "" {
				t.Error(d)
			}
			if !found.HasErrors() || found.Err() == nil {
				t.Error("these are no errors")
			}
		})
	}
}

func in(mode, line string) string { return mode + "\n " + line }

// otherMistakes are texts with one mistake each and how its message begins.
var otherMistakes = map[string]string{
	"hostname -x": "1:10: invalid hostname", "domain-name a..b": "1:13: invalid domain", "domain-name none": "1:13: invalid domain",
	"banner motd":                   "1:12: the command is not complete",
	"banner motd “”":                "1:13: invalid text",
	"no banner motd x":              "1:16: there is no such banner line",
	"hostname a\nno hostname b":     "2:13: the hostname is not b",
	"interface e\nno interface f":   "2:14: there is no such interface",
	in("interface e", "nameif a,b"): "2:9: invalid name", in("interface e", "security-level 101"): "2:17: invalid level",
	in("interface e", "ip address 10.0.0.0 255.255.255.0"):                                 "2:13: the address is that of the network itself",
	in("interface e", "ip address 10.0.0.255 255.255.255.0"):                               "2:13: the address is the broadcast address",
	in("interface e", "ip address 127.0.0.1 255.0.0.0"):                                    "2:13: the address of an interface must be that of a host",
	in("interface e", "ip address 10.0.0.1 254.0.0.0"):                                     "2:22: the mask is too short",
	in("interface e", "ip address 10.0.0.1 255.0.255.0"):                                   "2:22: invalid mask",
	in("interface e", "ip address 010.0.0.1 255.0.0.0"):                                    "2:13: invalid address",
	in("interface e", "ip address fe80::1 255.0.0.0"):                                      "2:13: invalid address",
	"interface e\n ip address 10.0.0.1 255.0.0.0\n no ip address 10.0.0.2":                 "3:16: the interface has another address",
	"route outside 10.0.0.1 255.0.0.0 1.2.3.4":                                             "1:15: the address and the mask do not fit",
	"route outside 0 0 224.0.0.1":                                                          "1:19: invalid gateway",
	"no route outside 0 0":                                                                 "1:1: there is no such route",
	"object network 10.0.0.1":                                                              "1:16: invalid name",
	"object network interface":                                                             "1:16: invalid name",
	"no object network x":                                                                  "1:19: there is no such object",
	in("object network o", "host 224.0.0.1"):                                               "2:7: the address of a host cannot be 224.0.0.1",
	in("object network o", "subnet 10.0.0.1 255.0.0.0"):                                    "2:9: the address and the mask do not fit",
	in("object network o", "nat inside,outside static x"):                                  "2:6: invalid pair",
	in("object network o", "nat (inside,inside) static x"):                                 "2:6: invalid pair",
	in("object network o", "nat (inside outside) static x"):                                "2:6: invalid pair",
	in("object network o", "nat (a,b) static 1.2.3"):                                       "2:19: invalid mapped",
	in("object network o", "nat (a,b) static interface"):                                   "2:19: invalid mapped",
	in("object network o", "nat (a,b) static x service tcp 0 1"):                           "2:33: invalid real port",
	in("object network o", "nat (a,b) dynamic x service tcp 1 1"):                          "2:22: unexpected word",
	"object network o\n nat (a,b) static x\n no nat (a,c)":                                 "3:9: the object is translated between other interfaces",
	"object network o\n host 1.2.3.4\n no host 1.2.3.5":                                    "3:10: the object has another address",
	"access-list a permit tcp any any eq 65536":                                            "1:37: invalid port",
	"access-list a permit tcp any any eq nonsense":                                         "1:37: invalid port",
	"access-list a permit tcp any any range 6000 5000":                                     "1:45: the range ends before it begins",
	"access-list a permit tcp any any lt 1":                                                "1:37: no port is below 1",
	"access-list a permit tcp any any gt 65535":                                            "1:37: no port is above 65535",
	"access-list a permit ip any any eq 5":                                                 "1:33: unknown keyword",
	"access-list a permit gre any any":                                                     "1:22: unknown keyword",
	"no access-list a":                                                                     "1:16: there is no such access list",
	"no access-list a permit ip any any":                                                   "1:16: there is no such access list",
	"access-list a permit ip any any\nno access-list a deny ip any any":                    "2:16: there is no such entry",
	"no access-group a in interface x":                                                     "1:17: there is no such access group",
	in("media-termination m", "address 0.0.0.0"):                                           "2:10: invalid address",
	"media-termination m\n address 10.0.0.1 interface i\n address 10.0.0.2 interface i":    "3:10: a media-termination has one address on each interface",
	"media-termination m\n no address 10.0.0.1":                                            "2:13: there is no such address",
	"no media-termination m":                                                               "1:22: there is no such media-termination",
	in("uc-ime u", "fallback monitoring timer 601"):                                        "2:28: invalid milliseconds",
	in("uc-ime u", "fallback hold-down timer 361"):                                         "2:27: invalid seconds",
	in("uc-ime u", "fallback sensitivity-file x.txt"):                                      "2:28: invalid file",
	in("uc-ime u", "fallback sensitivity-file ../x.fbs"):                                   "2:28: invalid file",
	in("uc-ime u", "ticket epoch 0 password password1234"):                                 "2:15: invalid epoch",
	in("uc-ime u", "ticket epoch 1 password "+strings.Repeat("x", 65)):                     "2:26: invalid password",
	in("uc-ime u", "ticket epoch 1 password pässword1234"):                                 "2:26: invalid password",
	"uc-ime u\n ticket epoch 1 password password1234\n no ticket epoch 2":                  "3:18: the epoch is another one",
	in("uc-ime u", "no ucm address 10.0.0.1"):                                              "2:17: there is no such ucm",
	in("uc-ime u", "mapping-service listening-interface i listening-port 80 uc-ime-int o"): "2:55: invalid port",
	in("uc-ime u", "mapping-service listening-interface i uc-ime-interface i"):             "2:57: both interfaces of the mapping service are the same",
	"uc-ime u\n mapping listen i uc o\n mapping listen i listening-port 9000 uc o":         "3:2: only one mapping-service",
	"logging host inside 192.168.10.9 tcp/514":                                             "1:34: invalid transport",
	"logging host inside 192.168.10.9 udp/0":                                               "1:34: invalid transport",
	"logging trap 8":                                                                       "1:14: invalid level",
	"no logging host inside 192.168.10.9":                                                  "1:24: there is no such logging host",
	in("peer-server", "enrollment url http://enroll.example"):                              "2:17: invalid url",
	in("peer-server", "enrollment url https://user:secret@enroll.example"):                 "2:17: invalid url",
	in("peer-server", "enrollment trust-file ../authority.pem"):                            "2:24: invalid file",
	in("peer-server", "enrollment trust-file authority.crt"):                               "2:24: invalid file",
	in("peer-server", "bootstrap host 127.0.0.1"):                                          "2:17: invalid host",
	in("peer-server", "vapuser ucm password short"):                                        "2:23: invalid password",
	in("peer-server", "vapserver v shutdown"):                                              "2:12: there is no vapserver",
	in("peer-server", "no vapserver v"):                                                    "2:15: there is no such vapserver",
	in("peer-server", "no vapuser u"):                                                      "2:13: there is no such vapuser",
	in("peer-server", "no bootstrap host ring.example"):                                    "2:20: there is no such bootstrap host",
	in("peer-server", "validator delay 60 30"):                                             "2:21: the longest delay is below the shortest",
	in("peer-server", "validator bucket-entropy 7"):                                        "2:27: invalid value",
	in("peer-server", "dht-port 80"):                                                       "2:11: invalid port",
	"peer-server\n ticket epoch 1 password password1234\n no ticket epoch 2":               "3:18: the epoch is another one",
	"no peer-server": "1:1: there is no such peer-server",
	in("crypto ca trustpoint t", "fqdn none"):                            "2:7: invalid fqdn",
	in("crypto ca trustpoint t", `subject-name cn="a`):                   "2:15: invalid subject name",
	in("crypto ca trustpoint t", `subject-name c=USA`):                   "2:15: invalid subject name",
	in("crypto ca trustpoint t", `subject-name example`):                 "2:15: invalid subject name",
	"crypto ca trustpoint " + strings.Repeat("x", 129):                   "1:22: invalid trustpoint",
	"no crypto ca trustpoint t":                                          "1:25: there is no such trustpoint",
	"no crypto key generate rsa label k":                                 "1:34: there is no such key pair",
	"no crypto ca enroll t":                                              "1:21: there is no such command for this trustpoint",
	"crypto key zeroize rsa":                                             "1:12: crypto key zeroize destroys",
	"crypto key generate rsa label k\ncrypto key generate ecdsa label k": "2:33: the key pair \"k\" is generated twice",
	"crypto key generate rsa label k modulus 9000":                       "1:41: invalid bits",
	"crypto key generate ecdsa label k elliptic-curve 192":               "1:50: unknown keyword",
	in("tls-proxy t", "client cipher-suite rc4-md5"):                     "2:22: unknown keyword",
	in("tls-proxy t", "client cipher-suite aes"):                         "2:22: ambiguous keyword",
	"no tls-proxy t":               "1:14: there is no such tls-proxy",
	"tls-proxy maximum-sessions 0": "1:28: invalid sessions",
	"ssl client-version any":       "1:20: invalid version",
	"ssl encryption":               "1:15: the command is not complete",
	"class-map c\n match access-list a\n match access-list b": "3:20: a class matches one access list",
	"class-map c\n match any":                                 "2:8: unknown keyword",
	"no class-map c":                                          "1:14: there is no such class map",
	"no policy-map c":                                         "1:15: there is no such policy map",
	"policy-map p\n no class c":                               "2:11: there is no such class",
	"policy-map type inspect sip m":                           "1:12: inspection policy maps are not supported",
	"policy-map p\n class c\n  inspect sip":                   "3:14: the command is not complete",
	"policy-map p\n class c\n  inspect http":                  "3:11: unknown keyword",
	"service-policy p global\nservice-policy q global":        "2:16: a policy map is enabled there already",
	"no service-policy p global":                              "1:19: there is no such service policy",
	"media-termination m\n rtp-min-port 5000":                 "2:19: the command is not complete",
	"hostname \xff":                                           "1:10: a byte that is not UTF-8",
	"hostname a\x00":                                          "1:11: a control character",
	"hostname a\u202eb":                                       "1:11: an invisible character",
	"! \x1b[2J":                                               "1:3: a control character",
	"hostname a\rhostname b":                                  "1:11: a control character",
	strings.Repeat("x", 4097):                                 "1:1: the line has 4097 bytes",
}

func TestMistakes(t *testing.T) {
	for text, want := range otherMistakes {
		_, found := Parse("f", []byte(text))
		if len(found) != 1 {
			t.Errorf("%q: %s", text, found.Error())
			continue
		}
		got, _, _ := strings.Cut(found[0].Error(), "\n")
		got = strings.Replace(strings.TrimPrefix(got, "f:"), " error:", "", 1)
		if !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
		if found[0].Hint == "" {
			t.Errorf("%q: nothing says what would be right", text)
		}
	}
}

func TestPasswordIsMaskedInEveryMistake(t *testing.T) {
	for _, line := range []string{
		"ticket epoch 1 password %", "ticket epoch 1 password % %", "ticket epoch 1 pasword %", "ticket epoch 1 %", "ticket %", "ticket epoch % password 1",
		"ticket epoch 256 password %", "tickt epoch 1 password %", "ticket epoch 1 password: %", "ticket epoch 1 pw %", "no ticket epoch 9 password %",
		"no ticket %", "host(config-uc-ime)# ticket epoch 1 password %", "t e 1 p %", "t e 1 %", "passwd %", "ticket password % epoch 1", "ticket epoch 1 password “%”",
		"ticket epoch 1 password %\x00", "\x01ticket epoch 1 password %", "ticket epoch 1\u00a0password\u00a0%\u00a0x",
	} {
		const secret = "Kx9#mmQz7!"
		for _, s := range []string{secret, "geheim", secret + strings.Repeat("y", 70)} {
			text := strings.ReplaceAll(line, "%", s)
			for _, whole := range []string{text, "uc-ime u\n " + text, "uc-ime u\n ticket epoch 1 password password1234\n " + text} {
				c, found := Load("f", []byte(whole))
				if out := found.Error() + c.String(); strings.Contains(out, s) {
					t.Errorf("%q shows the password: %s", whole, out)
				}
			}
		}
	}
}

func TestCaps(t *testing.T) {
	many := func(n int, one string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(one, "%", string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676%26))) + "\n")
		}
		return b.String()
	}
	for _, one := range []string{
		"object network o%", "interface e%", "crypto ca trustpoint %", "tls-proxy %", "class-map %", "policy-map %", "media-termination %",
		"access-list % permit ip any any", "access-list a permit ip any any", "access-list % remark x", "banner motd %", "crypto key generate rsa label %", "access-group % in interface %", "service-policy % interface %",
	} {
		// The one mistake on the last line also shows that all lines before it were taken.
		most := maxObjects
		if strings.HasPrefix(one, "access-list ") {
			most = maxEntries
		}
		_, found := Parse("f", []byte(many(most+1, one)))
		if len(found) != 1 || !strings.HasPrefix(found[0].Message, "too many") || found[0].Line != most+1 || found[0].Hint != fmt.Sprintf("at most %d are allowed", most) {
			t.Errorf("%s: %s", one, found.Error())
		}
	}
	if _, found := Parse("f", make([]byte, maxText+1)); len(found) != 1 || !strings.Contains(found[0].Error(), "the text is too long") {
		t.Errorf("a text too long: %s", found.Error())
	}
	if _, found := Parse("f", []byte("\xff\xfeh\x00o\x00s\x00t\x00\r\x00\n\x00x\x00")); found.Error() != "f:1:1: error: the text is UTF-16\nsave it as UTF-8" {
		t.Errorf("a text from Windows: %s", found.Error())
	}
	if _, found := Parse("f", []byte(strings.Repeat("!\n", maxText/2))); len(found) > 0 {
		t.Errorf("a text of the full length: %s", found.Error())
	}
	if c, found := Parse("f", []byte("banner motd "+strings.Repeat("x", maxLine-12))); len(found) > 0 || len(c.Banners) != 1 {
		t.Errorf("a line of the full length: %s", found.Error())
	}
	_, found := Parse("f", []byte(strings.Repeat("nonsense\n", 5000)))
	if len(found) != maxDiagnostics+1 || found[maxDiagnostics].Message != "too many mistakes: the rest of the text was not read" {
		t.Errorf("%d mistakes are reported", len(found))
	}
}
