package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"imeproxy/testbed"
)

func main() {
	rate := flag.Int("rate", 100, "calls per second")
	calls := flag.Int("calls", 3000, "calls in all")
	hold := flag.Duration("hold", 10*time.Second, "how long a call stands")
	part := flag.String("part", "", "`two`: through two edges alone; `one`: through one edge, on a core of its own, alone; empty: both")
	var o edgeOptions
	flag.IntVar(&o.rounds, "edge-rounds", 5, "rounds of the calls through one edge")
	flag.IntVar(&o.rate, "edge-rate", 150, "their calls per second")
	flag.IntVar(&o.calls, "edge-calls", 600, "calls of a round")
	flag.IntVar(&o.busy, "edge-busy", 1000, "calls per second of the same in a busier time, 4 s a round")
	flag.IntVar(&o.most, "edge-most", 4000, "highest rate that is tried")
	flag.IntVar(&o.connections, "connections", 1000, "TLS connections while calls stand")
	flag.IntVar(&o.standing, "standing", 10000, "calls that stand")
	flag.IntVar(&o.pace, "pace", 100, "set-ups per second beside them")
	flag.Parse()
	if err := testbed.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	status := 0
	if *part != "one" {
		status = run(testbed.LoadOptions{Rate: *rate, Calls: *calls, Hold: *hold})
	}
	if *part != "two" {
		t := testbed.NewConsole("bench")
		t.Do(func() { oneEdge(t, o) })
		if t.Failed() {
			status = 1
		}
	}
	os.Exit(status)
}

// run returns the exit status.
func run(o testbed.LoadOptions) int {
	fmt.Printf("%d calls of %v each at %d a second, TCP inside, mutual TLS 1.3 between the edges, no sound.\n\n", o.Calls, o.Hold, o.Rate)
	fmt.Println("| edge | program | calls/s | failed | most calls | CPU per call | calls/s per core | memory idle | memory per call |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	status := 0
	for _, edge := range []struct {
		name string
		kind testbed.EdgeKind
	}{{"imeproxy", testbed.EdgeImeproxy}, {"Kamailio + rtpengine", testbed.EdgeForeign}} {
		t := testbed.NewConsole("bench")
		t.Do(func() {
			lab := testbed.Start(t, testbed.Options{
				NoCallAgents: true, A: testbed.Side{Edge: edge.kind}, B: testbed.Side{Edge: edge.kind},
			})
			print(edge.name, lab.Load(t, o))
		})
		if t.Failed() {
			status = 1
		}
	}
	fmt.Println("\nSide a places the calls, side b takes them. CPU and memory are those of the program named, all its processes; memory")
	fmt.Println("per call is the growth from idle to the peak over the most calls that stood at one time. Kamailio checks no tickets.")
	return status
}

// print writes the rows of one run.
func print(edge string, r testbed.LoadResult) {
	var names []string
	for name := range r.Edges {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		u := r.Edges[name]
		perCall := u.CPU / time.Duration(max(r.Succeeded, 1))
		perCore := "-"
		if perCall > 0 {
			perCore = fmt.Sprintf("%.0f", float64(time.Second)/float64(perCall))
		}
		fmt.Printf("| %s | %s | %.1f | %d | %d | %.2f ms | %s | %.1f MB | %.1f kB |\n", edge, name, r.Rate, r.Failed, r.MostCalls,
			float64(perCall.Microseconds())/1000, perCore, float64(u.Before)/1e6, float64(u.Peak-u.Before)/1e3/float64(max(r.MostCalls, 1)))
	}
}
