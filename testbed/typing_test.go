package testbed

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A line that is typed acts at once also where the configuration has 10,000 lines: reading all of them again for each took 0.6 s.
func TestTypingIntoALargeConfiguration(t *testing.T) {
	const typed = 50
	s := StartStubs(t, func(o *Options) {
		o.A.Config = func(text string) string {
			var b strings.Builder
			for i := range 10000 {
				fmt.Fprintf(&b, "access-list incoming extended deny tcp host 198.18.%d.%d any eq %d\n", i/250, i%250+1, 1024+i%5000)
			}
			return replaceOnce(text, "access-list incoming ", b.String()+"access-list incoming ")
		}
	})
	var lines strings.Builder
	lines.WriteString("conf t\n")
	for i := range typed {
		fmt.Fprintf(&lines, "banner motd line %d\n", i)
	}
	lines.WriteString("end\nshow running-config banner\n")
	cmd := exec.Command(Binary(), "shell", "--control", s.Proxy.Control)
	cmd.Stdin = strings.NewReader(lines.String())
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil || strings.Count(string(out), "banner motd line ") < typed {
		t.Fatalf("%v: %s", err, tail(string(out), 1000))
	}
	t.Logf("a line takes %s", took/typed)
	if took > typed*150*time.Millisecond { // 30 ms on an idle machine of two cores
		t.Errorf("%d lines took %s", typed, took)
	}
}
