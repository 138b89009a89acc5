package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOneSlipIsOneMessage spoils each line of the in-line example in turn, by a word too many: what the line defines or sets is lost, yet
// nothing else is reported than the slip.
func TestOneSlipIsOneMessage(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(inline(t)), "\n")
	spoiled := 0
	for i, line := range lines {
		if line[0] == '!' {
			continue
		}
		changed := append([]string{}, lines...)
		changed[i] = line + " toomany"
		_, found := Load("f", []byte(strings.Join(changed, "\n")))
		if strings.Contains(line, "description") || strings.Contains(line, "banner") {
			continue // the text goes to the end of the line
		}
		spoiled++
		if len(found) != 1 || found[0].Line != i+1 {
			t.Errorf("%q: %d messages:\n%s", changed[i], len(found), found.Error())
		}
	}
	if spoiled < 60 {
		t.Errorf("only %d lines were spoiled", spoiled)
	}
}

// TestAllMistakesAreReported mixes mistakes of single lines with those between lines.
func TestAllMistakesAreReported(t *testing.T) {
	text := edit(t,
		"ticket epoch 1 password", "ticket epoch 256 password",
		"access-group incoming", "access-group incomming",
		" match access-list ime-inbound-sip", " match access-list ime-inbond-sip",
		"address 192.168.10.3 interface", "address 192.168.11.3 interface",
		"fallback hold-down timer 30", "fallback hold-down timer 9",
		"service-policy ime-policy", "service-policy ime-polcy",
		"client trust-point local-ent", "client trust-point remote-ent",
	)
	_, found := Load("f", []byte(text))
	var got []string
	for _, d := range found {
		got = append(got, fmt.Sprintf("%d %s", d.Line, d.Message))
	}
	want := []string{
		`24 access-list "incomming" does not exist`,
		`29 media-termination "ime-media-term" has no address on interface inside`,
		`31 192.168.11.3 is not in the subnet of interface inside`,
		`36 invalid epoch "256"`,
		`38 invalid seconds "9"`,
		`47 crypto ca trustpoint "remote-ent" does not exist`,
		`56 access-list "ime-inbond-sip" does not exist`,
		`69 policy-map "ime-polcy" does not exist`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
