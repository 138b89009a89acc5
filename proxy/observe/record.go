package observe

import "time"

// Who ended a call.
const (
	SideInside  = "inside"
	SideOutside = "outside"
	SideProxy   = "proxy"
)

// CallRecord tells the story of one call in one JSON line, written when the call ends. Zero times are left out.
type CallRecord struct {
	CallID       string        `json:"call_id"`
	SessionID    string        `json:"session_id,omitempty"`
	Direction    string        `json:"direction"` // "inbound", "outbound"
	From         string        `json:"from"`      // user part
	To           string        `json:"to"`        // user part of the Request-URI
	LocalDomain  string        `json:"local_domain,omitempty"`
	PeerDomain   string        `json:"peer_domain,omitempty"`
	Peer         string        `json:"peer,omitempty"`        // "ip:port" of the outside connection
	TicketID     string        `json:"ticket_id,omitempty"`   // hexadecimal; never the ticket itself
	Ticket       string        `json:"ticket,omitempty"`      // "ok" or the counter name; "" where none is due
	Setup        time.Time     `json:"setup_time,omitzero"`   // the INVITE came
	Connect      time.Time     `json:"connect_time,omitzero"` // the 200 passed; zero = never answered
	End          time.Time     `json:"end_time,omitzero"`
	DurationMS   int64         `json:"duration_ms"`          // Connect to End; 0 = never answered
	SetupMS      int64         `json:"setup_ms"`             // Setup to Connect; 0 = never answered
	EndReason    string        `json:"end_reason"`           // closed set, snake case: "bye", "cancel", "refused", "timeout", "shutdown", ...
	EndStatus    int           `json:"end_status,omitempty"` // final SIP status where the call was refused
	EndSide      string        `json:"end_side"`             // "inside", "outside", "proxy"
	TLSVersion   string        `json:"tls_version,omitempty"`
	CipherSuite  string        `json:"cipher_suite,omitempty"`
	SRTPSuite    string        `json:"srtp_suite,omitempty"` // of the first stream outside
	Media        []MediaRecord `json:"media,omitempty"`
	PacketsSent  uint64        `json:"packets_sent"`     // RTP towards the Internet, all streams
	PacketsRecvd uint64        `json:"packets_received"` // RTP from the Internet, all streams
}

// MediaRecord is one stream of a call record. Figures that were not measured are left out, never given a default.
type MediaRecord struct {
	Kind            string   `json:"kind"`
	Codec           string   `json:"codec,omitempty"`
	OutsideSuite    string   `json:"outside_suite,omitempty"`
	InsideSuite     string   `json:"inside_suite,omitempty"` // "" = plain RTP
	Outside         string   `json:"outside,omitempty"`      // the peer's "ip:port"
	Inside          string   `json:"inside,omitempty"`       // the phone's "ip:port"
	OutsideSent     uint64   `json:"outside_packets_sent"`
	OutsideReceived uint64   `json:"outside_packets_received"`
	InsideSent      uint64   `json:"inside_packets_sent"`
	InsideReceived  uint64   `json:"inside_packets_received"`
	LostOutside     *uint64  `json:"outside_packets_lost,omitempty"` // from the Internet, by sequence number
	LostInside      *uint64  `json:"inside_packets_lost,omitempty"`
	JitterOutsideMS *float64 `json:"outside_jitter_ms,omitempty"` // RFC 3550 section 6.4.1
	JitterInsideMS  *float64 `json:"inside_jitter_ms,omitempty"`
	AuthFailures    uint64   `json:"auth_failures,omitempty"`

	FarOutside *FarReport `json:"outside_far_report,omitempty"` // the last that the peer told of what it got
	FarInside  *FarReport `json:"inside_far_report,omitempty"`  // the phone's

	Quality *QualityRecord `json:"quality,omitempty"` // absent: not measured
}

// QualityRecord is the worst that the samples of a call's audio from the Internet showed (docs/fallback.md).
type QualityRecord struct {
	Samples    uint64  `json:"samples"`
	BadSamples uint64  `json:"bad_samples"` // at the level that held
	MaxLoss    float64 `json:"max_loss_percent"`
	MaxEvents  int     `json:"max_events"`
	MaxBurstMS float64 `json:"max_burst_ms"`
	MaxPDVMS   float64 `json:"max_pdv_ms"`
	MinMOS     float64 `json:"min_mos"`
	Notified   bool    `json:"fallback_notified,omitempty"` // the call agent was told
}

// Finish works out DurationMS and SetupMS from the times, which may be zero, and packet totals and suite from Media where they are unset.
func (r *CallRecord) Finish() {
	if !r.Connect.IsZero() {
		if !r.Setup.IsZero() {
			r.SetupMS = max(r.Connect.Sub(r.Setup).Milliseconds(), 0)
		}
		if !r.End.IsZero() {
			r.DurationMS = max(r.End.Sub(r.Connect).Milliseconds(), 0)
		}
	}
	if r.PacketsSent == 0 && r.PacketsRecvd == 0 {
		for _, m := range r.Media {
			r.PacketsSent += m.OutsideSent
			r.PacketsRecvd += m.OutsideReceived
		}
	}
	for _, m := range r.Media {
		if r.SRTPSuite == "" {
			r.SRTPSuite = m.OutsideSuite
		}
	}
}
