package mediaterm

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtcp"
)

// FarReport is what the far end of a leg last told of what it receives from us (RFC 3550 section 6.4.1), about the stream that we send it
// now. Reports are the far end's word: they are shown, and nothing is decided by them.
type FarReport struct {
	At           time.Time `json:"at"`           // it came
	SSRC         uint32    `json:"ssrc"`         // of what is reported on
	LossPercent  float64   `json:"loss_percent"` // since the far end's report before
	Lost         int32     `json:"lost"`         // since the beginning; negative with duplicates
	JitterMS     float64   `json:"jitter_ms"`
	RoundTrip    bool      `json:"round_trip"` // RoundTripMS was measured
	RoundTripMS  float64   `json:"round_trip_ms"`
	VoIP         FarVoIP   `json:"voip"`
	Reports      uint64    `json:"reports"`       // since the beginning
	OtherReports uint64    `json:"other_reports"` // about streams that we do not send
}

// FarVoIP is the VoIP metrics block of RTCP XR (RFC 3611 section 4.7). Figures of -1 the far end does not know.
type FarVoIP struct {
	At             time.Time `json:"at"` // zero: none came
	LossPercent    float64   `json:"loss_percent"`
	DiscardPercent float64   `json:"discard_percent"`
	BurstMS        int       `json:"burst_ms"` // mean length of bursts
	GapMS          int       `json:"gap_ms"`
	RoundTripMS    int       `json:"round_trip_ms"`
	EndSystemMS    int       `json:"end_system_ms"`
	R              int       `json:"r"`
	MOSLQ          float64   `json:"mos_lq"`
	MOSCQ          float64   `json:"mos_cq"`
	JitterBufferMS int       `json:"jitter_buffer_ms"`
}

// sentReports is how many sender reports of a leg are remembered: more than are on their way at one time at an interval of seconds.
const sentReports = 4

// senderTime is when a sender report passed here, by the middle of its NTP time, which the far end repeats.
type senderTime struct {
	ntp uint32
	at  time.Time
}

// reporting is what the RTCP of one leg's far end told.
type reporting struct {
	last FarReport
	sent [sentReports]senderTime // sender reports that came from here, and went to the other leg
	next uint8
}

// reports is the memory of what the leg's far end tells: half of a leg's, and many ends tell nothing.
func (l *leg) reports() *reporting {
	if l.reporting == nil {
		l.reporting = new(reporting)
	}
	return l.reporting
}

// report reads a compound packet from side that validCompound has passed. It allocates nothing but memory for the first one. The caller holds
// the mutex.
func (r *relay) report(side Side, p []byte, now time.Time) {
	in := r.legs[side].reports()
	for len(p) >= 8 {
		var h rtcp.Header
		if h.Unmarshal(p) != nil {
			return
		}
		n := min(4*(int(h.Length)+1), len(p))
		body := p[8:max(n, 8)]
		switch h.Type {
		case rtcp.TypeSenderReport:
			if len(body) < 20 {
				break
			}
			in.sent[in.next] = senderTime{binary.BigEndian.Uint32(body[2:]), now}
			in.next = (in.next + 1) % sentReports
			r.blocks(side, body[20:], int(h.Count), now)
		case rtcp.TypeReceiverReport:
			r.blocks(side, body, int(h.Count), now)
		case rtcp.TypeExtendedReport:
			r.extended(side, body, now)
		}
		p = p[n:]
	}
}

const reportBlockLen = 24

func (r *relay) blocks(side Side, p []byte, count int, now time.Time) {
	in, out := r.legs[side].reports(), &r.legs[side.other()]
	for ; count > 0 && len(p) >= reportBlockLen; count, p = count-1, p[reportBlockLen:] {
		var b rtcp.ReceptionReport
		if b.Unmarshal(p) != nil {
			return
		}
		if out.heard.packets == 0 || b.SSRC != out.lastSSRC {
			in.last.OtherReports++
			continue
		}
		f := &in.last
		f.At, f.SSRC, f.LossPercent = now, b.SSRC, float64(b.FractionLost)*100/256
		f.Lost = int32(b.TotalLost<<8) >> 8 // 24 bits, signed
		f.JitterMS = float64(b.Jitter) * 1000 / float64(r.clock(out, out.lastPT))
		f.RoundTrip, f.RoundTripMS = r.legs[side.other()].reporting.roundTrip(b.LastSenderReport, b.Delay, now)
		f.Reports++
	}
}

// roundTrip is the time from here to the far end and back, of the sender report that it repeats: RFC 3550 section 6.4.1, with our clock
// in the place of the sender's, as the report passed here.
func (g *reporting) roundTrip(ntp, delay uint32, now time.Time) (bool, float64) {
	if g == nil {
		return false, 0
	}
	for _, s := range g.sent {
		if ntp == 0 || s.ntp != ntp || s.at.IsZero() {
			continue
		}
		if d := now.Sub(s.at) - time.Duration(float64(delay)/65536*float64(time.Second)); d >= 0 {
			return true, float64(d.Microseconds()) / 1000
		}
	}
	return false, 0
}

// voipBlock is the type of the VoIP metrics block, which is voipLen bytes long with its header.
const (
	voipBlock = 7
	voipLen   = 36
)

func (r *relay) extended(side Side, p []byte, now time.Time) {
	in, out := r.legs[side].reports(), &r.legs[side.other()]
	for len(p) >= 4 {
		n := 4 * (int(binary.BigEndian.Uint16(p[2:])) + 1)
		if n > len(p) {
			return
		}
		if p[0] == voipBlock && n == voipLen {
			if out.heard.packets > 0 && binary.BigEndian.Uint32(p[4:]) == out.lastSSRC {
				in.last.VoIP = voipMetrics(p, now)
			} else {
				in.last.OtherReports++
			}
		}
		p = p[n:]
	}
}

func voipMetrics(p []byte, now time.Time) FarVoIP {
	percent := func(b byte) float64 { return float64(b) * 100 / 256 }
	ms := func(at int) int { return int(binary.BigEndian.Uint16(p[at:])) }
	known := func(b byte) int {
		if b == 127 {
			return -1
		}
		return int(b)
	}
	mos := func(b byte) float64 {
		if b < 10 || b > 50 {
			return -1
		}
		return float64(b) / 10
	}
	return FarVoIP{
		At: now, LossPercent: percent(p[8]), DiscardPercent: percent(p[9]), BurstMS: ms(12), GapMS: ms(14), RoundTripMS: ms(16), EndSystemMS: ms(18),
		R: known(p[24]), MOSLQ: mos(p[26]), MOSCQ: mos(p[27]), JitterBufferMS: ms(30),
	}
}
