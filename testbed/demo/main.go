// Command demo shows imeproxy's main job on one machine: two enterprises with
// real phones call each other; a route is learned from calls over the telephone
// network, and its call, whose way over the Internet turns bad, moves back there. It prints a timeline, writes a report and ends
// with status 1 when something was not as it must be.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"imeproxy/testbed"
)

// labName marks the demo's namespaces: ime-demo-phone-a and so on.
const labName = "demo"

func main() {
	out := flag.String("out", "build/demo", "folder for the report and the lab's files")
	keep := flag.Bool("keep", false, "leave the lab standing")
	clean := flag.Bool("clean", false, "remove a lab that was left standing, and nothing else")
	edgeA := flag.String("edge-a", "imeproxy", "edge of enterprise A: imeproxy, foreign or router")
	edgeB := flag.String("edge-b", "imeproxy", "edge of enterprise B")
	flag.Parse()
	os.Exit(run(*out, *keep, *clean, *edgeA, *edgeB))
}

// run returns the exit status.
func run(out string, keep, clean bool, edgeA, edgeB string) int {
	if err := testbed.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	if clean {
		if err := testbed.Remove(labName); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			return 1
		}
		return 0
	}
	if keep && testbed.Entered() {
		fmt.Fprintln(os.Stderr, "demo: only root can leave the lab standing")
		return 1
	}
	edges := map[string]testbed.EdgeKind{"imeproxy": testbed.EdgeImeproxy, "foreign": testbed.EdgeForeign, "router": testbed.EdgeRouter}
	a, okA := edges[edgeA]
	b, okB := edges[edgeB]
	if !okA || !okB {
		fmt.Fprintln(os.Stderr, "demo: an edge is imeproxy, foreign or router")
		return 2
	}
	if err := os.RemoveAll(out); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	t := testbed.NewConsole("demo")
	report := testbed.Report{Problems: []string{"the lab did not come up; see above"}}
	var stands *testbed.Lab
	t.Do(func() {
		telephony := a == testbed.EdgeImeproxy && b == testbed.EdgeImeproxy
		lab := testbed.Start(t, testbed.Options{
			Name: labName, Keep: keep, Dir: filepath.Join(out, "lab"), PSTN: telephony,
			A: testbed.Side{Edge: a, Config: testbed.FastFallback, AgentConfig: testbed.WithPeerServer("192.168.10.1")},
			B: testbed.Side{Edge: b, Config: testbed.FastFallback, AgentConfig: testbed.WithPeerServer("192.168.20.1")},
		})
		introduce(t, lab)
		report = testbed.MainJob(t, lab, testbed.MainJobOptions{Say: t.Logf})
		if telephony {
			lastAct(t, lab, &report)
		}
		stands = lab
	})
	status := finish(t, out, report)
	if keep && stands != nil {
		explainKept(stands)
	}
	return status
}

// introduce says what stands there.
func introduce(t *testbed.Console, l *testbed.Lab) {
	t.Logf("Two enterprises stand, each a phone, a call agent and a proxy; an Internet between them")
	for _, e := range l.Enterprises() {
		t.Logf("  %s: phone %s (%s, plays %d Hz), call agent %s = %s outside, proxy %s / %s, media %s / %s",
			e.Domain, e.Number, e.PhoneIP, e.Phone.Tone, e.UCMIP, e.Mapped, e.InsideIP, e.OutsideIP, e.MediaIn, e.MediaOut)
	}
}

// lastAct adds a telephone network and peer servers: a route is learned from calls over the PSTN, and its call falls back.
func lastAct(t *testbed.Console, l *testbed.Lab, report *testbed.Report) {
	t.Logf("Last act, from nothing: each enterprise has a PBX without IME client (Kamailio), imeproxy callagent, and a trunk to a telephone network (Kamailio, rtpengine). No route, no ticket")
	story, fallback, problems := testbed.StoryJob(t, l, t.Logf)
	report.Story, report.Fallback, report.Problems = &story, &fallback, append(report.Problems, problems...)
	report.OK = len(report.Problems) == 0
}

// explainKept says how to look around.
func explainKept(l *testbed.Lab) {
	fmt.Println("\nThe lab stands. Look around, for example:")
	for _, e := range l.Enterprises() {
		if e.Proxy != nil {
			fmt.Printf("  bin/imeproxy shell --control %s -c \"show uc-ime signaling-sessions\"\n", e.Proxy.Control)
		}
		if e.Agent != nil {
			fmt.Printf("  bin/imeproxy callagent show counters --control %s\n", e.Agent.Control)
		}
	}
	fmt.Printf("  ip netns exec %s ip address\n", l.A.EdgeHost.NS)
	fmt.Println("Remove it with: make demo-clean")
}

// finish writes the report and returns the exit status.
func finish(t *testbed.Console, out string, report testbed.Report) int {
	if t.Failed() && report.OK {
		report.OK = false
		report.Problems = append(report.Problems, "the lab reported an error; see above")
	}
	if report.Calls == nil {
		report.Calls = []testbed.CallReport{} // [] rather than null
	}
	file := filepath.Join(out, "report.json")
	if err := writeReport(file, report); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	for _, p := range report.Problems {
		t.Logf("NOT AS IT MUST BE: %s", p)
	}
	if !report.OK {
		t.Logf("Failed. Report: %s", file)
		return 1
	}
	t.Logf("All verified. Report: %s", file)
	return 0
}

// writeReport writes the report as indented JSON.
func writeReport(file string, report testbed.Report) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // "a->b" as it is
	enc.SetIndent("", "  ")
	if err := enc.Encode(report); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
