package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SignalEdge is one edge on core 1 with a load that plays both ends of its calls on core 0.
type SignalEdge struct {
	Name string
	Load *SignalLoad
	lab  *Lab
}

// SignalKind is what an edge is made of.
type SignalKind int

// The edges that are compared.
const (
	SignalImeproxy  SignalKind = iota
	SignalKamailio             // TLS to TCP alone: no media, no tickets
	SignalRTPengine            // Kamailio with rtpengine
)

// PinLoad keeps this process, and what it starts from now on, on core 0.
func PinLoad(t T) {
	t.Helper()
	if _, err := run(exec.CommandContext, "taskset", "-a", "-p", "1", strconv.Itoa(os.Getpid())); err != nil {
		t.Fatalf("%v", err)
	}
}

// StartSignalEdge builds a lab with one edge.
func StartSignalEdge(t T, kind SignalKind) *SignalEdge {
	t.Helper()
	e := &SignalEdge{Name: [...]string{"imeproxy", "Kamailio", "Kamailio + rtpengine"}[kind]}
	o := Options{NoCallAgents: true, Direct: true, A: Side{Core: "1"}, B: Side{Edge: EdgeRouter}}
	o.A.Config = func(text string) string {
		return strings.Replace(text, "rtp-min-port 16384 rtp-maxport 32767", fmt.Sprintf("rtp-min-port %d rtp-maxport %d", manyPortsFrom, manyPortsTo), 1)
	}
	if kind != SignalImeproxy {
		o.A.Edge, o.A.NoMedia, o.NoStart = EdgeForeign, kind == SignalKamailio, true
	}
	e.lab = Start(t, o)
	if f := e.lab.A.Edge; f != nil {
		if err := e.lab.A.EdgeHost.ip(fmt.Sprintf("addr add %s/32 dev eout", e.lab.A.Mapped)); err != nil {
			t.Fatalf("%v", err)
		}
		f.Start(t)
	}
	e.Load = NewSignalLoad(t, e.lab)
	return e
}

// pids are the edge's programs.
func (e *SignalEdge) pids(t T) (out []int) {
	t.Helper()
	list, err := run(exec.CommandContext, "ip", "netns", "pids", e.lab.A.EdgeHost.NS)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, line := range nonEmptyLines(list) {
		if pid, err := strconv.Atoi(line); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// CPU is what all threads of the edge's programs have run.
func (e *SignalEdge) CPU(t T) (sum time.Duration) {
	t.Helper()
	for _, pid := range e.pids(t) {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, f := range files {
			if n, err := strconv.ParseInt(strings.Fields(readAll(f) + " 0")[0], 10, 64); err == nil {
				sum += time.Duration(n)
			}
		}
	}
	return sum
}

// Memory is what the edge's programs hold, in bytes; what they share counts once.
func (e *SignalEdge) Memory(t T) (sum int64) {
	t.Helper()
	for _, pid := range e.pids(t) {
		if u, err := usageOf(pid); err == nil {
			sum += u.Memory
		}
	}
	return sum
}

// CallCost is what an edge takes for calls.
type CallCost struct {
	Seconds float64 // of CPU per 1,000 calls, the median of the rounds
	Ratio   float64 // to the reference, the median of the ratios within a round: the machine's speed changes from one to the next
}

// CostOfCalls measures edges in rounds in which they take turns. The reference is one of them.
func CostOfCalls(t T, edges []*SignalEdge, reference *SignalEdge, rounds, rate, calls int) map[*SignalEdge]CallCost {
	t.Helper()
	all := make(map[*SignalEdge][]float64)
	for range rounds {
		for _, e := range edges {
			before := e.CPU(t)
			r := e.Load.Run(t, &SignalRun{Rate: rate, Calls: calls, Hold: time.Second})
			if r.Failed() > 0 {
				t.Errorf("%s: %d of %d calls failed at %d calls/s", e.Name, r.Failed(), calls, rate)
			}
			all[e] = append(all[e], (e.CPU(t)-before).Seconds()*1000/float64(calls))
		}
	}
	middle := func(list []float64) float64 { return slices.Sorted(slices.Values(list))[len(list)/2] }
	out := make(map[*SignalEdge]CallCost)
	for e, list := range all {
		ratios := make([]float64, len(list))
		for i := range list {
			ratios[i] = list[i] / all[reference][i]
		}
		out[e] = CallCost{middle(list), middle(ratios)}
	}
	return out
}

// RateStep is one rate of HighestRate.
type RateStep struct {
	Rate     int
	Failed   int
	P50, P99 time.Duration
	Busy     float64       // share of the core that the edge took
	Late     time.Duration // the load's own delay
}

// slowSetUp is the delay from which an edge counts as overrun though no call fails.
const slowSetUp = 100 * time.Millisecond

func (s RateStep) good() bool { return s.Failed == 0 && s.P99 < slowSetUp }

// HighestRate looks for the highest rate at which no call fails, in steps of 100 calls/s, from one that is known to be good. Each try takes some
// seconds.
func (e *SignalEdge) HighestRate(t T, from, most int) (best RateStep, tried []RateStep) {
	t.Helper()
	try := func(rate int) RateStep {
		before := e.CPU(t)
		r := e.Load.Run(t, &SignalRun{Rate: rate, Calls: 3 * rate, Hold: 500 * time.Millisecond})
		s := RateStep{Rate: rate, Failed: r.Failed(), P50: r.Delay(0.5), P99: r.Delay(0.99), Late: r.Late}
		s.Busy = (e.CPU(t) - before).Seconds() / (r.Elapsed + r.Hold).Seconds()
		tried = append(tried, s)
		return s
	}
	low, high := 0, 0
	for rate := from; high == 0; rate = min(rate*3/2/100*100, most) {
		switch s := try(rate); {
		case !s.good():
			high = rate
		case rate == most:
			return s, tried
		default:
			low, best = rate, s
		}
	}
	for high-low > max(100, low/10) {
		mid := (low + high) / 200 * 100
		if s := try(mid); s.good() {
			low, best = mid, s
		} else {
			high = mid
		}
	}
	return best, tried
}

// Standing is what an edge does while many calls stand.
type Standing struct {
	Calls, Connections int
	Refused            int
	Before, With       *SignalRun // set-ups at the same rate, before and while they stand
	Memory             int64      // bytes more than with the connections alone
	Idle               float64    // share of the core that standing calls take
}

// Stand opens connections, measures the set-up delay of calls at a rate, lets calls stand, and measures it again.
func (e *SignalEdge) Stand(t T, connections, calls, rate int, d time.Duration) Standing {
	t.Helper()
	s := Standing{Calls: calls, Connections: connections}
	setUps := func() *SignalRun {
		return e.Load.Run(t, &SignalRun{Rate: rate, Calls: int(d.Seconds() * float64(rate)), Hold: time.Second})
	}
	// Each gets a call soon, so that the inside has its connection too: one on which nothing comes is closed after ten seconds.
	for n := 0; n < connections; {
		n = min(n+100, connections)
		e.Load.Connect(t, n)
		e.Load.Run(t, &SignalRun{Rate: 500, Calls: n, Hold: 0})
	}
	s.Before = setUps()
	memory := e.Memory(t)
	r := e.Load.Run(t, &SignalRun{Rate: 400, Calls: calls, Hold: -1})
	s.Refused = r.Failed()
	s.With = setUps()
	s.Memory = e.Memory(t) - memory
	cpu, begin := e.CPU(t), time.Now()
	time.Sleep(2 * time.Second)
	s.Idle = (e.CPU(t) - cpu).Seconds() / time.Since(begin).Seconds()
	return s
}
