package observe

import (
	"fmt"
	"strings"
)

// FarReport is what the far end of a connection says of what it receives from us (RTCP). It is its word, not our measurement.
type FarReport struct {
	LossPercent float64  `json:"loss_percent"` // since its report before
	Lost        int      `json:"lost"`         // since the beginning; below zero with duplicates
	JitterMS    float64  `json:"jitter_ms"`
	RoundTripMS *float64 `json:"round_trip_ms,omitempty"` // between us and it
	Reports     uint64   `json:"reports"`
	Age         Seconds  `json:"age"`
	VoIP        *FarVoIP `json:"voip_metrics,omitempty"` // RFC 3611 section 4.7; nil: it sends none
}

// FarVoIP is the VoIP metrics block of RTCP XR; what the far end does not know is left out.
type FarVoIP struct {
	LossPercent    float64  `json:"loss_percent"`
	DiscardPercent float64  `json:"discard_percent"`
	RoundTripMS    int      `json:"round_trip_ms"` // between it and its far end
	EndSystemMS    int      `json:"end_system_ms"`
	JitterBufferMS int      `json:"jitter_buffer_ms"`
	R              *float64 `json:"r,omitempty"`
	MOSLQ          *float64 `json:"mos_lq,omitempty"`
	MOSCQ          *float64 `json:"mos_cq,omitempty"`
	Age            Seconds  `json:"age"`
}

func (r *FarReport) print(p *page) {
	if r == nil {
		return
	}
	if r.Reports > 0 {
		p.line(8, "far report: loss %.2f %% lost %d jitter %.1f ms round trip %s age %s", r.LossPercent, r.Lost, r.JitterMS, figure("%.1f ms", r.RoundTripMS), r.Age)
	}
	if v := r.VoIP; v != nil {
		p.line(8, "far voip metrics: loss %.2f %% discard %.2f %% round trip %d ms end system %d ms jitter buffer %d ms r %s mos_lq %s mos_cq %s age %s",
			v.LossPercent, v.DiscardPercent, v.RoundTripMS, v.EndSystemMS, v.JitterBufferMS, figure("%.0f", v.R), figure("%.1f", v.MOSLQ), figure("%.1f", v.MOSCQ), v.Age)
	}
}

// figure prints what was measured, "-" otherwise.
func figure(format string, v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

// Quality is the snapshot behind `show uc-ime quality`: the worst calls of this moment.
type Quality struct {
	Monitored int               `json:"monitored"`
	Omitted   int               `json:"omitted"` // better calls that are not listed
	Calls     List[QualityCall] `json:"calls"`   // worst first
}

// QualityCall is a call by the latest sample of its worst stream. What was not measured is left out.
type QualityCall struct {
	CallID     string   `json:"call_id"`
	SessionID  string   `json:"session_id"`
	Direction  string   `json:"direction"`
	From       string   `json:"from"`
	To         string   `json:"to"`
	PeerDomain string   `json:"peer_domain"`
	State      string   `json:"state"` // "good", "suspect", "notified"; "silent": nothing has come from the Internet
	Level      string   `json:"level"`
	Bad        bool     `json:"bad"`
	Loss       *float64 `json:"loss_percent,omitempty"`
	BurstMS    *float64 `json:"burst_ms,omitempty"`
	PDVMS      *float64 `json:"pdv_ms,omitempty"`
	Events     *float64 `json:"events,omitempty"`
	MOS        *float64 `json:"mos,omitempty"`
	FarLoss    *float64 `json:"far_loss_percent,omitempty"` // what the far end says of its audio
}

const qualityRow = "%-8s %-13s %6s %6s %6s %6s %4s %8s  %s"

// Text gives the layout of `show uc-ime quality`: a line a call.
func (q Quality) Text() string {
	p := new(page)
	p.line(0, "%d monitored, %d listed, worst first", q.Monitored, len(q.Calls))
	if len(q.Calls) == 0 {
		return p.String()
	}
	p.line(0, qualityRow, "State", "Level", "Loss %", "Burst", "PDV ms", "Events", "MOS", "Far loss", "Call")
	for _, c := range q.Calls {
		state := c.State
		if c.Bad {
			state += "*"
		}
		call := strings.TrimSpace(fmt.Sprintf("%s %s to %s %s", c.Direction, c.From, c.To, c.PeerDomain))
		p.line(0, qualityRow, Clean(state), Clean(c.Level), figure("%.2f", c.Loss), figure("%.0f", c.BurstMS), figure("%.1f", c.PDVMS), figure("%.0f", c.Events),
			figure("%.1f", c.MOS), figure("%.2f", c.FarLoss), Clean(call))
		p.field(9, "Call-ID", c.CallID)
	}
	p.line(0, "* the latest sample is bad at the call's level; - was not measured")
	return p.String()
}
