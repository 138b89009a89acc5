package dialplan

import (
	"testing"

	"imeproxy/ucime/callagent/config"
	"imeproxy/ucime/learn"
)

const text = `pbx p
 listen udp 127.0.0.1
 peer udp 127.0.0.2
pstn-trunk t
 listen udp 127.0.0.1 port 5061
 peer udp 127.0.0.3
 e164-transformation us
ime-trunk i
 listen tcp 127.0.0.1 port 5070
service s
 domain a.example
 activated
 trust-group g
 exclusion-group fax
 enrolled-group campus
enrolled-group campus
 pattern +14085551xxx
 pattern +4930123456
 fallback-profile f
enrolled-group elsewhere
 pattern +19999999999
exclusion-group fax
 number +14085551999
trust-group g untrusted
 domain Evil.example
 prefix +1900!
fallback-profile f
 advertised-number +14085550000
 sensitivity utility
transformation from-pbx
 match 9011! strip 4 prefix +
 match 91XXXXXXXXXX strip 1 prefix +
 match 1XXX prefix +1408555
e164-transformation us
 outgoing-called from-pbx
 outgoing-calling from-pbx
`

func TestDecisions(t *testing.T) {
	cfg, err := config.Parse("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p := New(cfg)
	for n, want := range map[learn.Number]bool{
		"+14085551000": true, "+14085551999": false, "+14085552000": false, "+140855510000": false, "+1408555100": false,
		"+4930123456": true, "+19999999999": false, "": false, "+1": false, "14085551000": false,
	} {
		if _, ok := p.Enrolled(n); ok != want {
			t.Errorf("%s enrolled: %v", n, ok)
		}
	}
	for _, x := range []struct {
		domain string
		number learn.Number
		want   bool
	}{
		{"b.example", "+14085551212", true},
		{"evil.example", "+14085551212", false},
		{"b.example", "+19005551212", false},
		{"b.example", "+1900", true},
		{"A.example", "+14085551212", false},
	} {
		if p.Trusted(x.domain, x.number) != x.want {
			t.Errorf("%s %s: %v", x.domain, x.number, !x.want)
		}
	}
	if p.Sensitivity("+14085551000") != config.Utility || p.Sensitivity("+14085552000") != config.Disabled {
		t.Error("sensitivity")
	}
	for _, x := range []struct{ caller, called, from, to string }{
		{"1000", "914085551212", "+14085551000", "+14085551212"},
		{"1000", "901149301234", "+14085551000", "+49301234"},
	} {
		if from, to, ok := p.Outgoing(cfg.PSTN[0], x.caller, x.called); !ok || string(from) != x.from || string(to) != x.to {
			t.Errorf("%+v: %s %s %v", x, from, to, ok)
		}
	}
	if _, _, ok := p.Outgoing(cfg.PSTN[0], "1000", "0"); ok {
		t.Error("0 is no +E.164 number")
	}
}

func TestATrustedGroupTrustsNobodyElse(t *testing.T) {
	cfg, err := config.Parse("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cfg.TrustGroups["g"].Trusted = true
	if p := New(cfg); p.Trusted("b.example", "+14085551212") || !p.Trusted("evil.example", "+14085551212") || !p.Trusted("b.example", "+19001") {
		t.Error("trust")
	}
}
