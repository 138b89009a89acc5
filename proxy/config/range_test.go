package config

import (
	"strings"
	"testing"
)

// TestRangesAtBothEnds tries each value range of the guide at its ends and one step beyond.
func TestRangesAtBothEnds(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for line, values := range map[string]struct{ good, bad []string }{
		"uc-ime u\n ticket epoch % password password1234":                                      {[]string{"1", "255"}, []string{"0", "256", "-1", "1.5", "one", "0x1", "99999999999999999999"}},
		"uc-ime u\n ticket epoch 1 password %":                                                 {[]string{x(10), x(64), "!~#$%&/()=", `"quoted!!"`, "*********1"}, []string{x(9), x(65), "pass word12", "password\x7f12", "passwörd1234"}},
		"uc-ime u\n fallback monitoring timer %":                                               {[]string{"10", "600"}, []string{"9", "601", "0", "-10", "100ms"}},
		"uc-ime u\n fallback hold-down timer %":                                                {[]string{"10", "360"}, []string{"9", "361", "0"}},
		"uc-ime u\n fallback notification rate %":                                              {[]string{"1", "1000"}, []string{"0", "1001", "1.5"}},
		"uc-ime u\n quality-report collector 10.0.0.9 port %":                                  {[]string{"1", "65535"}, []string{"0", "65536"}},
		"uc-ime u\n fallback sensitivity-file %":                                               {[]string{"a.fbs", "disk0:a.fbs"}, []string{"a", ".fbs", "a.fbs.txt", "../a.fbs"}},
		"uc-ime u\n mapping-service listening-interface i listening-port % uc-ime-interface o": {[]string{"1024", "65535"}, []string{"1023", "65536", "0"}},
		"uc-ime u\n mapping-service quota %":                                                   {[]string{"1", "60000"}, []string{"0", "60001"}},
		"uc-ime u\n mapping-service lifetime %":                                                {[]string{"5", "86400"}, []string{"4", "86401"}},
		"uc-ime u\n mapping-service port-range % 30000":                                        {[]string{"1024", "30000"}, []string{"1023", "30001", "65536"}},
		"uc-ime u\n mapping-service port-range 30000 %":                                        {[]string{"30000", "65535"}, []string{"29999", "65536"}},
		"timeout uc-ime-mapping %":                                                             {[]string{"5", "60"}, []string{"4", "61", "0:10:00"}},
		"uc-ime u\n timeout uc-ime-mapping %":                                                  {[]string{"5", "60"}, []string{"4", "61"}},
		"media-termination m\n rtp-min-port % rtp-max-port 65535":                              {[]string{"1024", "65528"}, []string{"1023", "1000", "65536", "65530"}},
		"media-termination m\n rtp-min-port 1024 rtp-maxport %":                                {[]string{"1031", "65535"}, []string{"1023", "1024", "65536"}},
		"uc-ime %":                        {[]string{x(1), x(64)}, []string{x(65)}},
		"media-termination %":             {[]string{x(64)}, []string{x(65)}},
		"tls-proxy %":                     {[]string{x(64)}, []string{x(65)}},
		"object network %":                {[]string{x(64)}, []string{x(65), "10.0.0.1"}},
		"class-map %":                     {[]string{x(64)}, []string{x(65)}},
		"policy-map %":                    {[]string{x(64)}, []string{x(65)}},
		"crypto ca trustpoint %":          {[]string{x(128)}, []string{x(129)}},
		"crypto key generate rsa label %": {[]string{x(128)}, []string{x(129)}},
		"crypto key generate rsa label k modulus %":                      {[]string{"2048", "4096", "8192"}, []string{"512", "1024", "2047", "2049", "8200"}},
		"tls-proxy maximum-sessions %":                                   {[]string{"1", "65535"}, []string{"0", "65536"}},
		"hostname %":                                                     {[]string{x(63), "a", "a-1"}, []string{x(64), "-a", "a_b", "a.b"}},
		"interface e\n security-level %":                                 {[]string{"0", "100"}, []string{"101", "-1", "high"}},
		"interface e\n nameif %":                                         {[]string{x(48)}, []string{x(49), "a,b"}},
		"interface %":                                                    {[]string{x(15), "eth0.100"}, []string{x(16), "a/b", ".."}},
		"interface e\n ip address 10.0.0.1 %":                            {[]string{"255.0.0.0", "255.255.255.252", "255.255.255.255"}, []string{"254.0.0.0", "0.0.0.0", "255.0.255.0", "0.0.0.255", "/24"}},
		"interface e\n ip address % 255.255.255.0":                       {[]string{"10.0.0.1", "10.0.0.254"}, []string{"10.0.0.0", "10.0.0.255", "10.0.0.256", "10.0.0", "127.0.0.1", "224.0.0.1", "0.0.0.1", "::1"}},
		"route i 0 0 10.0.0.1 %":                                         {[]string{"1", "255"}, []string{"0", "256"}},
		"object network o\n host %":                                      {[]string{"192.168.10.30"}, []string{"192.168.30", "192.168.10.300", "224.0.0.1", "255.255.255.255", "0.0.0.0"}},
		"object network o\n nat (a,b) static 1.2.3.4 service tcp % 5571": {[]string{"1", "65535", "sip"}, []string{"0", "65536"}},
		"access-list a permit tcp any any eq %":                          {[]string{"1", "65535", "https"}, []string{"0", "65536", "nonsense"}},
		"uc-ime u\n transfer permit %":                                   {[]string{"+", "+1408", "+123456789012345"}, []string{"1408", "+1234567890123456", "+1 408", "+1x", "any"}},
		"uc-ime u\n ucm address 10.0.0.1 trunk-security-mode %":          {[]string{"secure", "nonsecure", "non-secure"}, []string{"unsecure", "none"}},
	} {
		for _, v := range values.good {
			text := strings.Replace(line, "%", v, 1)
			c, found := Parse("f", []byte(text))
			if len(found) > 0 {
				t.Errorf("%q is refused: %s", text, found.Error())
				continue
			}
			fixedPoint(t, c)
		}
		for _, v := range values.bad {
			text := strings.Replace(line, "%", v, 1)
			if _, found := Parse("f", []byte(text)); len(found) != 1 || found[0].Line != strings.Count(line, "\n")+1 || found[0].Hint == "" {
				t.Errorf("%q gives %d mistakes: %s", text, len(found), found.Error())
			}
		}
	}
}
