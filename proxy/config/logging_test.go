package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestLogging(t *testing.T) {
	text := edit(t, "hostname proxy-a\n", "hostname proxy-a\nlogging enable\nlogging trap errors\nlogging host inside 192.168.10.9\nlogging host inside 192.168.10.8 udp/5514\n")
	c, found := Load("f", []byte(text))
	if len(found) > 0 {
		t.Fatal(found.Error())
	}
	fixedPoint(t, c)
	if l := c.Logging; !l.Enable || l.Level() != 3 || len(l.Hosts) != 2 || l.Hosts[0].Port != 514 || l.Hosts[1].Port != 5514 {
		t.Errorf("%+v", l)
	}
	for lines, want := range map[string]string{
		"logging host insid 192.168.10.9\nlogging enable\n":                                `interface "insid" does not exist`,
		"logging host outside 192.168.10.9\nlogging enable\n":                              "192.168.10.9 is reached over interface inside, not outside",
		"logging host inside 192.168.10.9\n":                                               "nothing is sent to syslog servers",
		"logging enable\n":                                                                 "there is no syslog server",
		"logging host inside 192.168.10.9\nno logging host inside 192.168.10.9 udp/5514\n": "there is no such logging host",
	} {
		_, found := Load("f", []byte(edit(t, "hostname proxy-a\n", "hostname proxy-a\n"+lines)))
		if !strings.Contains(found.Error(), want) {
			t.Errorf("%q: %s, want %s", lines, found.Error(), want)
		}
	}
	var many strings.Builder
	for i := range 17 {
		fmt.Fprintf(&many, "logging host inside 10.0.0.%d\n", i+1)
	}
	if c, found := Parse("f", []byte(many.String())); len(found) != 1 || len(c.Logging.Hosts) != 16 {
		t.Errorf("%d hosts: %s", len(c.Logging.Hosts), found.Error())
	}
}
