package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const minimal = `pbx p
 listen udp 127.0.0.1 port 5060
 peer udp 127.0.0.2
pstn-trunk t
 listen tcp 127.0.0.1 port 5061
 peer tcp 127.0.0.3 port 5070
ime-trunk i
 listen tcp 127.0.0.1 port 5070
service s
 domain A.example
`

func TestMinimalHasTheGuidesDefaults(t *testing.T) {
	c, err := Parse("x.cfg", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if c.Service.Domain != "a.example" || c.Service.Activated || c.PBX.Peer.Addr.Port() != 5060 || c.Media.Addr.String() != "127.0.0.1" {
		t.Errorf("%+v", c)
	}
	if c.Feature.ConnectionTimer != 2*time.Second || c.Feature.QualityInterval != 120*time.Second || !c.Feature.OutboundCalls || c.Feature.Intradomain ||
		c.Feature.FailedCallThreshold != 50 || c.Feature.FirewallIdleTimer != 10*time.Minute {
		t.Errorf("feature: %+v", c.Feature)
	}
	if f := c.Fallback; !f.Enable || f.Sensitivity != Nominal || f.Digits != 4 || f.CollectionTimer != 3*time.Second || f.AnswerTimer != 3*time.Second {
		t.Errorf("fallback: %+v", f)
	}
}

func TestTheLargerAnswerTimerHolds(t *testing.T) {
	c, err := Parse("x.cfg", []byte(minimal+"fallback-profile f\n advertised-number +14085550100\n answer-timer 2\nfallback-feature\n answer-timer 5\n sensitivity moderate\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Profiles["f"]; p.AnswerTimer != 5*time.Second || p.Sensitivity != Moderate || p.CallerIDDigits != 5 {
		t.Errorf("%+v", p)
	}
}

func TestMistakesHaveTheirPlace(t *testing.T) {
	for _, x := range []struct{ add, want string }{
		{"nonsense\n", "x.cfg:11:1: error: unknown word \"nonsense\""},
		{"feature\n connection-timer 6\n", "x.cfg:12:19: error: \"6\": want a number from 1 to 5\n   connection-timer 6\n                    ^"},
		{"feature\n connection-timer\n", "x.cfg:12:2: error: want connection-timer 1-5"},
		{"feature\n connection-timer 2 3\n", "x.cfg:12:21: error: want connection-timer 1-5"},
		{"feature\n connection-timer 2\n connection-timer 2\n", "x.cfg:13:2: error: connection-timer stands twice"},
		{"fallback-feature\n dtmf-digits 3\n", "x.cfg:12:14: error: \"3\": want a number from 4 to 20"},
		{"fallback-feature\n sensitivity high\n", "want disable, utility"},
		{"enrolled-group g\n pattern +1408XXXX\n", "x.cfg:12:10: error:"},
		{"enrolled-group g\n pattern 1408\n", "x.cfg:12:10: error:"},
		{"enrolled-group g\n all-patterns-are-aliases\n pattern +1408X\n", "x.cfg:13:10: error: \"+1408X\": aliases are exact numbers"},
		{"enrolled-group g\n fallback-profile none\n", "x.cfg:12:19: error: there is no fallback-profile \"none\""},
		{"trust-group g\n", "x.cfg:11:13: error: want trust-group NAME trusted|untrusted"},
		{"trust-group g trusted\n prefix 1408\n", "x.cfg:12:9: error:"},
		{"transformation t\n match 9! strip 1 prefix +14085551212\n", "x.cfg:12:26: error:"},
		{"pbx q\n peer udp 127.0.0.1\n", "there is a pbx already"},
		{"service s\n", "service s stands in line 9 already"},
		{"firewall f\n", "firewall f has no address"},
		{"pstn-trunk u\n listen tcp 127.0.0.1 port 5070\n peer tcp 127.0.0.9\n", "listen at the same tcp address 127.0.0.1:5070"},
		{"pstn-trunk u\n listen udp 127.0.0.1 port 5071\n peer tcp 127.0.0.9\n", "does not listen by tcp"},
		{"ime-server n\n address 127.0.0.1\n application-user u\n", "ime-server n has no password"},
		{"ime-server n\n application-user u\n password 12345678\n", "ime-server n has no address"},
		{"ime-server n\n address 127.0.0.1\n application-user u\n password 12345678\n security-mode encrypted\n", "ime-server n has no certificate"},
		{"ime-server n\n address 127.0.0.1\n application-user u\n password 12345678\n certificate /x\n", "a certificate is for security-mode encrypted"},
		{"ime-server n\n reconnect-interval 601\n", "x.cfg:12:21: error: \"601\": want a number from 1 to 600"},
		{"ime-server n\n security-mode tls\n", "x.cfg:12:16: error: \"tls\": want authenticated or encrypted"},
		{"control relative\n", "x.cfg:11:9: error: \"relative\": want an absolute path"},
	} {
		_, err := Parse("x.cfg", []byte(minimal+x.add))
		var all Errors
		if !errors.As(err, &all) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%q: got %v\nwant %s", x.add, err, x.want)
		}
	}
	if _, err := Parse("x.cfg", []byte(" listen\n")); err == nil || !strings.Contains(err.Error(), "belongs to no block") {
		t.Error(err)
	}
	if _, err := Parse("x.cfg", nil); err == nil || !strings.Contains(err.Error(), "there is no ime-trunk") {
		t.Error(err)
	}
}

func TestServersOfTheService(t *testing.T) {
	server := func(name string) string {
		return "ime-server " + name + "\n address 192.0.2.1\n application-user u\n password 12345678\n"
	}
	c, err := Parse("x.cfg", []byte(minimal+" primary-server one\n secondary-server two\n"+server("one")+server("two")))
	if err != nil {
		t.Fatal(err)
	}
	all := c.ServersOf()
	if len(all) != 2 || all[0].Name != "one" || all[1].Name != "two" || all[0].Addr.String() != "192.0.2.1:5620" || all[0].Reconnect != 120*time.Second || all[0].Encrypted {
		t.Errorf("%+v", all)
	}
	for lines, want := range map[string]string{
		" primary-server one\n secondary-server one\n": "are the same", " secondary-server one\n": "no primary-server", " primary-server three\n": "there is no ime-server \"three\"",
	} {
		if _, err := Parse("x.cfg", []byte(minimal+lines+server("one"))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", lines, err)
		}
	}
}

// Messages go to logs, and a line that is wrong is told with its text.
func TestMistakesTellNoPassword(t *testing.T) {
	for _, line := range []string{"password short", "password hunter2hunter2 more", "Password hunter2hunter2", " password hunter2hunter2\n password hunter2hunter2", "\tpasword hunter2hunter2"} {
		_, err := Parse("x.cfg", []byte(minimal+"ime-server n\n "+line+"\n"))
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "short\n") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestEveryMistakeIsTold(t *testing.T) {
	_, err := Parse("x.cfg", []byte(minimal+"feature\n connection-timer 9\n quality-interval 1\nfoo\n"))
	var all Errors
	if !errors.As(err, &all) || len(all) != 3 {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(minimal + "feature\n connection-timer 9\n"))
	f.Add([]byte("media 1.2.3.4 ports 1024 2048\nmetrics 127.0.0.1 port 9100\ntransformation t\n match +! strip 1 prefix 00\n"))
	f.Add([]byte(minimal + " primary-server n\nime-server n\n address 192.0.2.1 port 5620\n application-user u\n password 12345678\n security-mode encrypted\n certificate /x\n"))
	f.Add([]byte("trust-group g untrusted\n prefix +1!\n description a b  c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text)
		if (c == nil) == (err == nil) {
			t.Fatal("a configuration and an error, or neither")
		}
		var all Errors
		if err != nil && errors.As(err, &all) {
			for _, e := range all {
				if e.Line < 1 || e.Column < 1 || e.Message == "" {
					t.Errorf("%+v", e)
				}
			}
		}
	})
}
