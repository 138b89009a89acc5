package pvp

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"imeproxy/ucime/learn"
)

const document = "../../docs/protocol/pvp.md"

// The figures of the document's example are what the code computes.
func TestExampleOfTheDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	o := callOf()
	called := learn.VCR{Role: learn.Terminating, Called: o.Called, Caller: o.Caller, Start: began.Add(500 * time.Millisecond), Stop: began.Add(201900 * time.Millisecond)}
	p := originatorPassword(WithCaller, o, 0)
	if !searchLocally(o, called, WithCaller) {
		t.Error("the example's records do not match")
	}
	for _, want := range []string{
		fmt.Sprintf("selector          %04x", Selector(o.Called)),
		fmt.Sprintf("start index       originator %d           terminator %d, %d", nearest(o.Start), floor(called.Start), floor(called.Start)+1),
		fmt.Sprintf("stop index        originator %d           terminator %d, %d", nearest(o.Stop), floor(called.Stop), floor(called.Stop)+1),
		fmt.Sprintf("%x %x | %x %x | %x %x | %x %x | %x %x", p[0:1], p[1:2], p[2:3], p[3:15], p[15:16], p[16:23], p[23:24], p[24:32], p[32:33], p[33:]),
		fmt.Sprintf("START             01 %04x | 01 01 %04x |", startSize, Selector(o.Called)),
		fmt.Sprintf("OFFER             02 %04x", offerSize),
		fmt.Sprintf("FINISH            03 %04x", finishSize),
		fmt.Sprintf("ANSWER            04 %04x", answerSize),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no line %q", document, want)
		}
	}
}

// The document's table of limits names the defaults.
func TestLimitsOfTheDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("(pending) | %d |", l.Pending),
		fmt.Sprintf("| burst %d, %d a minute |", l.SourceBurst, l.SourcePerMinute),
		fmt.Sprintf("validations, terminating | %d |", l.Terminating),
		fmt.Sprintf("validations of one peer | %d |", l.PerPeer),
		fmt.Sprintf("validations, originating | %d |", l.Originating),
		fmt.Sprintf("| %.0f s; %.0f s; %.0f s |", l.Handshake.Seconds(), l.Frame.Seconds(), l.Connection.Seconds()),
		fmt.Sprintf("runs of a connection | %d |", maxRuns),
		fmt.Sprintf("| burst %d, %d an hour |", l.PeerBurst, l.PeerPerHour),
		fmt.Sprintf("by one peer; by all | %d; %d |", l.GuessesPerPeer, l.Guesses),
		fmt.Sprintf("| %d,%03d; %d,%03d; %d,000 |", l.TableEntries/1000, l.TableEntries%1000, l.TableEntries/1000, l.TableEntries%1000, l.BudgetEntries/1000),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", document, want)
		}
	}
}

func TestCountersOfTheDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for name := range (&Counters{}).Values() {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("%s does not name %s", document, name)
		}
	}
}
