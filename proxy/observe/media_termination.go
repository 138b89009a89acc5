package observe

import (
	"encoding/json"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MediaTermination is the snapshot behind `show media-termination`. Counters count from the start of the daemon. Its JSON form is one flat
// object but for the addresses.
type MediaTermination struct {
	Name           string       // "" = none is in use
	Addresses      List[string] // "209.165.200.228 outside"
	MinPort        int
	MaxPort        int
	Engine         string // "xdp", "tproxy" or "sockets"
	EngineFallback string // why engine sockets is used although the configuration leaves the choice; "" is not printed

	Streams        int // in use
	MostStreams    int
	MaximumStreams int
	PortPairs      int // of all addresses; a stream takes two
	PortPairsUsed  int
	PortPairsRest  int // freed, not to be used again yet

	RefusedForPorts   uint64 // streams refused because no pair of ports was free
	RefusedForStreams uint64 // because of the maximum
	PortConflicts     uint64 // pairs passed over because another program holds one of them
	Withheld          int    // streams whose far end is to be heard first, as many go to ends of its network that never were
	WithheldEver      uint64

	Fast *MediaEngine // nil with engine sockets
}

// MediaEngine holds the figures of engines tproxy and xdp.
type MediaEngine struct {
	Workers           int
	WorkerNice        int // place among the programs of their cores, nice(2)
	Taps              int // interfaces whose media is read before the network layer
	BatchWaitUS       int64
	PacketsReceived   uint64
	Batches           uint64 // system calls that brought them
	DroppedByOverload uint64 // by the kernel, the newest ones, because a worker did not keep up
	DroppedNoStream   uint64 // for ports that no stream has
	DroppedFlood      uint64 // for ports that get more than a stream sends
	DroppedMalformed  uint64 // with wrong lengths or checksums
	SentDirect        uint64 // as frames to a known neighbour
	SentXDP           uint64 // of these through AF_XDP, past packet sockets and queueing disciplines
	SentRouted        uint64 // through the kernel's routing
	PacketsFragmented uint64 // longer than the link takes
	SendErrors        uint64
	Stalls            uint64        // for over 5 ms a worker did not look for packets while they came
	StallsForCore     uint64        // of these those in which it waited for its core
	LongestStall      time.Duration // of all
}

type anyRow struct {
	label string
	value any
}

func (m MediaTermination) rows() []anyRow {
	rows := []anyRow{{"Engine", m.Engine}}
	if m.EngineFallback != "" {
		rows = append(rows, anyRow{"Engine tproxy cannot be used", m.EngineFallback})
	}
	if f := m.Fast; f != nil {
		rows = append(rows, anyRow{"Workers", f.Workers}, anyRow{"Worker nice", f.WorkerNice}, anyRow{"Interfaces tapped", f.Taps}, anyRow{"Batch wait us", f.BatchWaitUS})
	}
	rows = append(rows,
		anyRow{"RTP min port", m.MinPort}, anyRow{"RTP max port", m.MaxPort},
		anyRow{"Streams in use", m.Streams}, anyRow{"Streams most used", m.MostStreams}, anyRow{"Streams maximum", m.MaximumStreams},
		anyRow{"Port pairs", m.PortPairs}, anyRow{"Port pairs in use", m.PortPairsUsed}, anyRow{"Port pairs resting", m.PortPairsRest},
		anyRow{"Refused no port", m.RefusedForPorts}, anyRow{"Refused maximum streams", m.RefusedForStreams}, anyRow{"Port conflicts", m.PortConflicts},
		anyRow{"Withheld from silent ends", m.Withheld}, anyRow{"Withheld since the start", m.WithheldEver},
	)
	if f := m.Fast; f != nil {
		rows = append(rows,
			anyRow{"Packets received", f.PacketsReceived}, anyRow{"Batches received", f.Batches},
			anyRow{"Dropped overload", f.DroppedByOverload}, anyRow{"Dropped no stream", f.DroppedNoStream},
			anyRow{"Dropped flood", f.DroppedFlood}, anyRow{"Dropped malformed", f.DroppedMalformed},
			anyRow{"Packets sent direct", f.SentDirect}, anyRow{"Packets sent XDP", f.SentXDP}, anyRow{"Packets sent routed", f.SentRouted},
			anyRow{"Packets fragmented", f.PacketsFragmented}, anyRow{"Send errors", f.SendErrors},
			anyRow{"Stalls", f.Stalls}, anyRow{"Stalls for the core", f.StallsForCore}, anyRow{"Longest stall us", f.LongestStall.Microseconds()},
		)
	}
	return rows
}

// mediaMetrics gives Prometheus the figures of the engine.
func mediaMetrics(out chan<- prometheus.Metric, f *MediaEngine) {
	if f == nil {
		return
	}
	counter := func(name, help string, n uint64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, float64(n))
	}
	counter("imeproxy_media_packets_received_total", "Packets that the media engine took in.", f.PacketsReceived)
	counter("imeproxy_media_stalls_total", "Times for which a media worker did not look for packets for over 5 ms while they came.", f.Stalls)
	counter("imeproxy_media_stalls_for_core_total", "Those of them in which it waited for its core.", f.StallsForCore)
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("imeproxy_media_longest_stall_seconds", "The longest of them.", nil, nil), prometheus.GaugeValue, f.LongestStall.Seconds())
	dropped := prometheus.NewDesc("imeproxy_media_packets_dropped_total", "Packets that no stream got, by cause.", []string{"reason"}, nil)
	for reason, n := range map[string]uint64{"overload": f.DroppedByOverload, "no_stream": f.DroppedNoStream, "flood": f.DroppedFlood, "malformed": f.DroppedMalformed} {
		out <- prometheus.MustNewConstMetric(dropped, prometheus.CounterValue, float64(n), reason)
	}
}

// Text gives the layout of `show media-termination`.
func (m MediaTermination) Text() string {
	p := new(page)
	if m.Name == "" {
		p.line(0, "No media-termination is in use")
		return p.String()
	}
	p.line(0, "media-termination %s", Clean(m.Name))
	for _, a := range m.Addresses {
		p.field(4, "Address", a)
	}
	for _, r := range m.rows() {
		if s, ok := r.value.(string); ok {
			p.field(4, r.label, s)
			continue
		}
		p.line(4, "%s: %d", r.label, r.value)
	}
	return p.String()
}

// MarshalJSON gives the printed labels in lower snake case as keys, in printed order.
func (m MediaTermination) MarshalJSON() ([]byte, error) {
	o := object{{"name", m.Name}, {"addresses", m.Addresses}}
	if m.Name != "" {
		for _, r := range m.rows() {
			o = append(o, member{Snake(r.label), r.value})
		}
	}
	return json.Marshal(o)
}
