package main

import (
	"fmt"
	"time"

	"imeproxy/testbed"
)

// edgeOptions of the measurements of one edge on a core of its own.
type edgeOptions struct {
	rounds, rate, busy, calls   int
	connections, standing, pace int
	most                        int
}

// loadConnections is how many TLS connections the calls share: imeproxy bounds what one of them may open and leave in half a minute.
const loadConnections = 10

// oneEdge measures imeproxy beside Kamailio, each the only edge between a load that plays both ends. It tells whether calls failed.
func oneEdge(t *testbed.Console, o edgeOptions) {
	testbed.PinLoad(t)
	ime, kam := testbed.StartSignalEdge(t, testbed.SignalImeproxy), testbed.StartSignalEdge(t, testbed.SignalKamailio)
	both := testbed.StartSignalEdge(t, testbed.SignalRTPengine)
	edges := []*testbed.SignalEdge{ime, kam, both}
	for _, e := range edges {
		e.Load.Connect(t, loadConnections)
	}
	fmt.Printf("\nOne edge on core 1, from mutual TLS outside to TCP inside; the load, which plays both ends, on core 0. Calls of 1 s over %d connections.\n\n", loadConnections)
	costs := testbed.CostOfCalls(t, edges, kam, o.rounds, o.rate, o.calls)
	busy := testbed.CostOfCalls(t, edges[:2], kam, o.rounds, o.busy, 4*o.busy) // more than the third can do
	fmt.Printf("CPU-s per 1,000 calls, medians of %d rounds in turn, and medians of the ratios within a round:\n\n", o.rounds)
	fmt.Printf("| edge | at %d calls/s | of Kamailio's | at %d calls/s | of Kamailio's |\n| --- | --- | --- | --- | --- |\n", o.rate, o.busy)
	for _, e := range edges {
		fmt.Printf("| %s | %.3f | %.2f |", e.Name, costs[e].Seconds, costs[e].Ratio)
		if b, ok := busy[e]; ok {
			fmt.Printf(" %.3f | %.2f |\n", b.Seconds, b.Ratio)
		} else {
			fmt.Println(" | |")
		}
	}
	fmt.Printf("\n| edge | highest calls/s without failure | set-up p50 | p99 | core busy | tried (failed) |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, e := range edges[:2] { // rtpengine has the same core: what is found with it is its own rate
		best, tried := e.HighestRate(t, 400, o.most)
		fmt.Printf("| %s | %d | %s | %s | %.0f %% |", e.Name, best.Rate, ms(best.P50), ms(best.P99), 100*best.Busy)
		for _, s := range tried {
			fmt.Printf(" %d (%d)", s.Rate, s.Failed)
		}
		fmt.Println(" |")
	}
	fmt.Printf("\n%d calls that stand over %d TLS connections, and set-ups at %d/s before and meanwhile:\n\n", o.standing, o.connections, o.pace)
	fmt.Println("| edge | calls refused | set-up p50/p99 before | meanwhile | memory per call | core that standing calls take |\n| --- | --- | --- | --- | --- | --- |")
	// Each in a lab of its own: what the rates above have left would hide what calls hold, and where the other one's programs do not survive this, as
	// Kamailio's TLS did not once, the rest is measured all the same.
	if !standing(o, testbed.SignalImeproxy) {
		t.Errorf("the calls did not stand")
	}
	if !standing(o, testbed.SignalKamailio) {
		fmt.Println("| Kamailio | it did not take them all: see above | | | | |")
	}
}

// standing measures one edge while calls stand, and tells whether it could.
func standing(o edgeOptions, kind testbed.SignalKind) bool {
	t := testbed.NewConsole("bench")
	t.Do(func() {
		e := testbed.StartSignalEdge(t, kind)
		s := e.Stand(t, o.connections, o.standing, o.pace, 6*time.Second)
		fmt.Printf("| %s | %d | %s / %s | %s / %s | %.1f kB | %.1f %% |\n", e.Name, s.Refused, ms(s.Before.Delay(0.5)), ms(s.Before.Delay(0.99)),
			ms(s.With.Delay(0.5)), ms(s.With.Delay(0.99)), float64(s.Memory)/1e3/float64(s.Calls), 100*s.Idle)
	})
	return !t.Failed()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
