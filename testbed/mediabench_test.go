package testbed

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	benchCalls  = flag.Int("media-calls", 1000, "calls of BenchmarkMedia at an even pace, 50 packets a second each")
	benchMany   = flag.Int("media-streams", 2000, "calls of BenchmarkMedia for the highest rate")
	benchRounds = flag.Int("media-rounds", 5, "interleaved rounds of BenchmarkMedia")
	benchTime   = flag.Duration("media-time", 3*time.Second, "length of one run of BenchmarkMedia")
	benchCost   = flag.Bool("media-cost", false, "BenchmarkMedia measures the CPU time a packet of imeproxy alone, to look into it")
	benchLong   = flag.Int("media-long", 5000, "calls of the long run of BenchmarkMedia, in both directions")
	benchSoak   = flag.Duration("media-soak", 60*time.Second, "length of the run of BenchmarkMedia in which no packet may be lost")
)

// mediaFigures are one relay's, in the form of build/bench/media.json. Times are CPU microseconds a packet, medians over the rounds.
type mediaFigures struct {
	Protect        float64 `json:"protect_us"`
	Unprotect      float64 `json:"unprotect_us"`
	ProtectBurst   float64 `json:"protect_burst_us"`
	UnprotectBurst float64 `json:"unprotect_burst_us"`
	MaxPPS         int     `json:"max_pps"`     // through one core without a loss, measured
	CostPPS        int     `json:"pps_by_cost"` // what the CPU time a packet at that rate would let through a whole core
	P50            float64 `json:"p50_us"`
	P99            float64 `json:"p99_us"`
	BytesPerCall   int64   `json:"bytes_per_call"`

	Busy *mediaBusy `json:"busy,omitempty"`

	AllocsPerPacket *float64 `json:"allocs_per_packet,omitempty"`
	CallsOneCore    *int     `json:"calls_one_core,omitempty"` // both directions of G.711 in 20 ms packets, of which Soak lost none

	P50NoWait float64    `json:"p50_no_wait_us,omitempty"` // with batch-wait 0
	P99NoWait float64    `json:"p99_no_wait_us,omitempty"`
	Soak      *mediaSoak `json:"soak,omitempty"`

	MediaBytesPerCall int64       `json:"media_bytes_per_call,omitempty"` // of BytesPerCall, what the media side holds
	Churn             *mediaChurn `json:"churn,omitempty"`
}

// mediaSoak is a run of both directions at once.
type mediaSoak struct {
	Seconds float64 `json:"seconds"`
	Calls   int     `json:"calls"`
	Packets int     `json:"packets"`
	Lost    int     `json:"lost"`
	Core    float64 `json:"core"` // CPU time of the relay to the time that passed
}

type mediaTable struct {
	RTPEngine mediaFigures       `json:"rtpengine"`
	Imeproxy  mediaFigures       `json:"imeproxy"`
	Ratio     map[string]float64 `json:"ratio"`
}

// BenchmarkMedia measures the daemon beside rtpengine: calls that SIP, or rtpengine's control protocol, has set up; packets of the same
// generator; runs in turn. It is run once: `make bench-media`.
func BenchmarkMedia(b *testing.B) {
	// All of the load works on core 0, threads included that the runtime starts later; the relays on core 1.
	runtime.GOMAXPROCS(4) // two of the load's goroutines sleep with theirs
	if _, err := run(exec.CommandContext, "taskset", "-a", "-p", "1", strconv.Itoa(os.Getpid())); err != nil {
		b.Fatal(err)
	}
	samples := map[string][]float64{}
	if *benchCost {
		costAlone(b, samples)
		return
	}
	relays := []*mediaRelay{rtpengineRelay(b, *benchCalls), imeproxyRelay(b, *benchCalls)}
	for round := range *benchRounds {
		for _, r := range relays {
			alone(b, relays, r)
			r.measure(b, samples)
			b.Logf("round %d, %s: protect %.2f us, unprotect %.2f us", round+1, r.name, last(samples[r.name+" protect even"]), last(samples[r.name+" unprotect even"]))
		}
	}
	figures := map[string]mediaFigures{}
	for _, r := range relays {
		alone(b, relays, r)
		m := func(what string) float64 { return median(samples[r.name+" "+what]) }
		f := mediaFigures{
			Protect: m("protect even"), Unprotect: m("unprotect even"), ProtectBurst: m("protect burst"), UnprotectBurst: m("unprotect burst"),
			P50: m("p50"), P99: m("p99"),
		}
		if r.state != nil {
			b.Logf("%s:\n%s", r.name, r.state())
		}
		if r.command != nil {
			f.P50NoWait, f.P99NoWait = r.withoutWait(b)
		}
		r.fill(b, *benchMany)
		f.BytesPerCall = (memoryOf(b, r.process.Pid()) - r.idle) / int64(*benchMany)
		f.MaxPPS, f.CostPPS = r.highest(b)
		f.Busy = r.beside(b)
		if r.comeAndGo != nil {
			f.Churn = r.churning(b, min(f.MaxPPS, churnMost))
			r.fill(b, *benchLong)
			f.Soak = r.soak(b)
		}
		figures[r.name] = f
	}
	ours, theirs := figures["imeproxy"], figures["rtpengine"]
	allocs := packetAllocations(b)
	ours.AllocsPerPacket, ours.MediaBytesPerCall = &allocs, mediaMemory(b)
	if ours.Soak.Lost == 0 {
		ours.CallsOneCore = &ours.Soak.Calls
	}
	table := mediaTable{RTPEngine: theirs, Imeproxy: ours, Ratio: map[string]float64{
		"protect": ours.Protect / theirs.Protect, "unprotect": ours.Unprotect / theirs.Unprotect, "max_pps": float64(ours.MaxPPS) / float64(theirs.MaxPPS),
	}}
	data, err := json.MarshalIndent(table, "", "  ")
	if err != nil {
		b.Fatal(err)
	}
	writeBench(b, "media.json", append(data, '\n'))
	fmt.Print(table.markdown())
}

// costAlone prints what imeproxy costs, as medians and with the figure of each round.
func costAlone(t T, samples map[string][]float64) {
	t.Helper()
	r := imeproxyRelay(t, *benchCalls)
	for range *benchRounds {
		r.measure(t, samples)
	}
	for _, what := range []string{"protect even", "unprotect even", "protect burst", "unprotect burst", "p50", "p99"} {
		figures := samples[r.name+" "+what]
		fmt.Printf("%s: %.2f us of %.2f\n", what, median(figures), figures)
	}
}

// measure runs every load once.
func (r *mediaRelay) measure(t T, samples map[string][]float64) {
	t.Helper()
	for _, x := range []struct {
		name  string
		load  *mediaLoad
		burst bool
	}{
		{"protect even", r.protect, false}, {"unprotect even", r.unprotect, false}, {"protect burst", r.protect, true}, {"unprotect burst", r.unprotect, true},
	} {
		load := x.load.some(*benchCalls)
		us := r.cost(t, load, mediaRun{rate: 50 * *benchCalls, burst: x.burst, time: *benchTime})
		if lost := load.sent - int(load.received); load.wrong.Load() > 0 || load.sampled.Load() == 0 || lost > load.sent/1000 {
			t.Errorf("%s, %s: %s", r.name, x.name, load)
		}
		samples[r.name+" "+x.name] = append(samples[r.name+" "+x.name], us)
	}
	r.sample(t, sampleDelay)
	defer r.sample(t, sampleCost)
	load := r.protect.some(*benchCalls)
	load.run(t, mediaRun{rate: 50 * *benchCalls, time: *benchTime})
	samples[r.name+" p50"] = append(samples[r.name+" p50"], load.percentile(0.50))
	samples[r.name+" p99"] = append(samples[r.name+" p99"], load.percentile(0.99))
}

// withoutWait measures the delay with batch-wait 0.
func (r *mediaRelay) withoutWait(t T) (p50, p99 float64) {
	t.Helper()
	r.command(t, "batch-wait 0")
	defer r.command(t, "no batch-wait")
	r.sample(t, sampleDelay)
	defer r.sample(t, sampleCost)
	var low, high []float64
	for range 3 {
		load := r.protect.some(*benchCalls)
		load.run(t, mediaRun{rate: 50 * *benchCalls, time: *benchTime})
		low, high = append(low, load.percentile(0.50)), append(high, load.percentile(0.99))
	}
	return median(low), median(high)
}

// some is the load with the first streams alone.
func (l *mediaLoad) some(n int) *mediaLoad {
	return &mediaLoad{out: l.out, in: l.in, end: l.end, streams: l.streams[:min(n, len(l.streams))], bySSRC: l.bySSRC}
}

// cost is the CPU time of the relay for a packet that came out of it, in microseconds.
func (r *mediaRelay) cost(t T, l *mediaLoad, run mediaRun) float64 {
	t.Helper()
	pinProcess(t, r.process.Pid())
	before := cpuOf(t, r.process.Pid())
	l.run(t, run)
	return float64(cpuOf(t, r.process.Pid())-before) / 1000 / float64(max(1, l.received))
}

// packetAllocations counts them where the packets go through the engine, in the daemon's own code.
func packetAllocations(t T) float64 {
	t.Helper()
	out, err := run(exec.CommandContext, "go", "test", "-C", Root(), "-run", "^$", "-bench", "^(BenchmarkSeal|BenchmarkOpen)$", "-benchmem", "-benchtime", "20000x", "./mediaterm")
	if err != nil {
		t.Fatalf("%v", err)
	}
	most := 0.0
	for _, m := range regexp.MustCompile(`(\d+) allocs/op`).FindAllStringSubmatch(out, -1) {
		n, _ := strconv.ParseFloat(m[1], 64)
		most = max(most, n)
	}
	return most
}

func last(s []float64) float64 { return s[len(s)-1] }

func median(s []float64) float64 {
	s = slices.Clone(s)
	slices.Sort(s)
	return s[len(s)/2]
}

func (m mediaTable) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d calls, 50 packets/s each and direction (172 bytes, 20 ms), AES_CM_128_HMAC_SHA1_80; medians of %d rounds in turn, %v each.\n\n", *benchCalls, *benchRounds, *benchTime)
	b.WriteString("| figure | rtpengine | imeproxy | ratio |\n| --- | --- | --- | --- |\n")
	row := func(what string, x, y float64, format string) {
		fmt.Fprintf(&b, "| %s | "+format+" | "+format+" | %.2f |\n", what, x, y, y/x)
	}
	r, i := m.RTPEngine, m.Imeproxy
	row("CPU a packet, RTP to SRTP, evenly paced, us", r.Protect, i.Protect, "%.2f")
	row("CPU a packet, SRTP to RTP, evenly paced, us", r.Unprotect, i.Unprotect, "%.2f")
	row("CPU a packet, RTP to SRTP, all calls at once each 20 ms, us", r.ProtectBurst, i.ProtectBurst, "%.2f")
	row("CPU a packet, SRTP to RTP, all calls at once each 20 ms, us", r.UnprotectBurst, i.UnprotectBurst, "%.2f")
	row("added delay p50, us", r.P50, i.P50, "%.0f")
	row("added delay p99, us", r.P99, i.P99, "%.0f")
	row(fmt.Sprintf("packets/s without loss, %d streams, generator on the other core", *benchMany), float64(r.MaxPPS), float64(i.MaxPPS), "%.0f")
	row("packets/s that one core could move at that cost", float64(r.CostPPS), float64(i.CostPPS), "%.0f")
	row(fmt.Sprintf("packets lost of %d/s, %d busy programs beside it on its core, %%", busyRate, busyPrograms), r.Busy.percent(), i.Busy.percent(), "%.1f")
	row("added delay p99 beside them, us", r.Busy.P99, i.Busy.P99, "%.0f")
	row("memory a call, bytes", float64(r.BytesPerCall), float64(i.BytesPerCall), "%.0f")
	fmt.Fprintf(&b, "\nimeproxy: with batch-wait 0 the added delay is %.0f us (p50) and %.0f us (p99); in %.0f s with both directions of %d calls %d of %d packets were lost, at %.2f of a core.\n",
		i.P50NoWait, i.P99NoWait, i.Soak.Seconds, i.Soak.Calls, i.Soak.Lost, i.Soak.Packets, i.Soak.Core)
	fmt.Fprintf(&b, "imeproxy: while %d packets/s flowed, %.0f streams/s were set up or torn down, and %d of %d packets were lost; a monitored call holds %d bytes on the media side.\n",
		i.Churn.PPS, i.Churn.Streams, i.Churn.Lost, i.Churn.Packets, i.MediaBytesPerCall)
	fmt.Fprintf(&b, "imeproxy: %.0f allocations a packet; one core could carry %.0f calls in both directions at the cost of the long run.\n",
		*i.AllocsPerPacket, float64(i.Soak.Packets)/(100*i.Soak.Seconds*i.Soak.Core))
	return b.String()
}
