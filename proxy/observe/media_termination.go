package observe

import "encoding/json"

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
		rows = append(rows, anyRow{"Workers", f.Workers}, anyRow{"Interfaces tapped", f.Taps}, anyRow{"Batch wait us", f.BatchWaitUS})
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
		)
	}
	return rows
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
