package mediaterm

import "time"

// Stats is a snapshot of a stream. Counters never go back while it lives.
type Stats struct {
	CallID  string    `json:"call_id"`
	Media   string    `json:"media"`
	Engine  string    `json:"engine"`
	Opened  time.Time `json:"opened"`
	Inside  LegStats  `json:"inside"`
	Outside LegStats  `json:"outside"`
}

// Leg returns the counters of one side.
func (s *Stats) Leg(side Side) *LegStats {
	if side == Inside {
		return &s.Inside
	}
	return &s.Outside
}

// LegStats describes and counts one leg.
type LegStats struct {
	Local  string `json:"local"`  // our RTP address
	Remote string `json:"remote"` // signalled; "" on hold
	Source string `json:"source"` // locked RTP source; "" before the first packet
	Mux    bool   `json:"mux"`
	Secure bool   `json:"secure"`
	Suite  string `json:"suite"` // "" when plain

	LegCounts

	Lost     uint64    `json:"lost"`            // expected - received by extended sequence number, all SSRCs
	JitterMS float64   `json:"jitter_ms"`       // RFC 3550 section 6.4.1, of SSRC
	Report   FarReport `json:"report,omitzero"` // what the far end told of what it receives
}

// LegCounts are a leg's counters. Rx is what the far end of that leg sent and we accepted, Tx what was handed to the system for it. Bytes are
// whole UDP payloads as on that leg's wire, with SRTP's additions.
type LegCounts struct {
	RxRTPPackets  uint64 `json:"rx_rtp_packets"`
	RxRTPBytes    uint64 `json:"rx_rtp_bytes"`
	RxRTCPPackets uint64 `json:"rx_rtcp_packets"`
	RxRTCPBytes   uint64 `json:"rx_rtcp_bytes"`
	TxRTPPackets  uint64 `json:"tx_rtp_packets"`
	TxRTPBytes    uint64 `json:"tx_rtp_bytes"`
	TxRTCPPackets uint64 `json:"tx_rtcp_packets"`
	TxRTCPBytes   uint64 `json:"tx_rtcp_bytes"`

	SSRC        uint32    `json:"ssrc"` // of the last RTP packet accepted
	PayloadType uint8     `json:"payload_type"`
	LastPacket  time.Time `json:"last_packet,omitzero"` // absent: none yet

	Drops Drops `json:"drops"`
}

// Drops counts packets that went no further, by cause. Causes of arrival are counted on
// the leg where the packet came in, causes of departure (tx_...) on the one it was for.
type Drops struct {
	AuthFailures uint64 `json:"auth_failures"` // tag or MKI wrong
	Replays      uint64 `json:"replays"`       // seen before, or behind the window
	WrongSource  uint64 `json:"wrong_source"`
	NoKey        uint64 `json:"no_key"`      // SRTP leg without remote key yet
	KeyExpired   uint64 `json:"key_expired"` // lifetime of the remote key used up
	SSRCLimit    uint64 `json:"ssrc_limit"`
	STUN         uint64 `json:"stun"`
	DTLS         uint64 `json:"dtls"`
	Unknown      uint64 `json:"unknown"` // neither RTP nor RTCP
	TooShort     uint64 `json:"too_short"`
	TooLong      uint64 `json:"too_long"`
	Malformed    uint64 `json:"malformed"`
	RTCPOff      uint64 `json:"rtcp_off"` // `no rtcp` is configured

	TxHeld       uint64 `json:"tx_held"` // nowhere to send: hold, not signalled yet, or withheld
	TxNoKey      uint64 `json:"tx_no_key"`
	TxKeyExpired uint64 `json:"tx_key_expired"`
	TxSSRCLimit  uint64 `json:"tx_ssrc_limit"`
	TxRepeated   uint64 `json:"tx_repeated"` // index used before, or too old to know
	TxTooLong    uint64 `json:"tx_too_long"` // no room for tag and MKI
	SendErrors   uint64 `json:"send_errors"` // refused by the system
}

// statsSources is the number of SSRCs a leg keeps loss and jitter for (audio has one,
// video with RTX two); the one idle longest makes room.
const statsSources = 8

// RFC 3550 A.1: jumps beyond these begin the sequence anew once two packets agree.
const (
	maxDropout  = 3000
	maxMisorder = 100
)

// reception follows one SSRC as RFC 3550 appendix A.1, A.3 and A.8 have it.
type reception struct {
	ssrc     uint32
	base     uint32 // extended number of the first packet
	highest  uint32 // extended
	received uint64
	badSeq   uint32 // number that would confirm a jump; > 0xffff: none
	carried  uint64 // lost before the last restart

	lastPT   uint8
	lastTS   uint32
	lastSeen time.Duration // see Instant
	jitter   float64       // seconds
}

func (r *reception) start(seq uint16) {
	r.carried += r.lost()
	r.base, r.highest, r.received, r.badSeq = uint32(seq), uint32(seq), 1, 1<<17
}

// lost is never negative: duplicates on a plain leg would make it so.
func (r *reception) lost() uint64 {
	if r.received == 0 {
		return 0
	}
	if expected := uint64(r.highest-r.base) + 1; expected > r.received {
		return expected - r.received
	}
	return 0
}

func (r *reception) packet(h rtpHeader, hz uint32, now time.Duration) {
	first := r.received == 0
	switch delta := h.seq - uint16(r.highest); {
	case first:
		r.start(h.seq)
	case delta < maxDropout:
		r.highest += uint32(delta)
		r.received++
	case delta <= 65535-maxMisorder:
		if uint32(h.seq) == r.badSeq {
			r.start(h.seq)
		} else {
			r.badSeq = uint32(h.seq + 1)
		}
	default: // late or duplicate
		r.received++
	}
	if !first {
		r.interval(h, hz, now)
	}
	r.lastPT, r.lastTS, r.lastSeen = h.payloadType, h.timestamp, now
}

// interval takes pairs of one payload type in the order of arrival, as RFC 3550 has it, but for those with one timestamp, which
// telephone-events keep, and for jumps of the clock, which say nothing of the network.
func (r *reception) interval(h rtpHeader, hz uint32, now time.Duration) {
	step := int32(h.timestamp - r.lastTS)
	if r.lastPT == h.payloadType && step != 0 && hz > 0 {
		d := float64(now-r.lastSeen)*1e-9 - float64(step)/float64(hz) // Seconds divides twice
		if d < 0 {
			d = -d
		}
		if d < 4 {
			r.jitter += (d - r.jitter) / 16
		}
	}
}

// receptions holds the SSRCs of a leg, of which most have one. Not for concurrent use.
type receptions struct {
	first   reception // received is 0 while there is none
	further []reception
	evicted uint64 // lost by SSRCs that made room
}

func (rs *receptions) packet(h rtpHeader, hz uint32, now time.Duration) {
	r := rs.of(h.ssrc)
	if r == nil {
		r = rs.room()
		rs.evicted += r.carried + r.lost()
		*r = reception{ssrc: h.ssrc}
	}
	r.packet(h, hz, now)
}

// of is that of an SSRC, nil when it is not known.
func (rs *receptions) of(ssrc uint32) *reception {
	if rs.first.ssrc == ssrc && rs.first.received > 0 {
		return &rs.first
	}
	for i := range rs.further {
		if rs.further[i].ssrc == ssrc {
			return &rs.further[i]
		}
	}
	return nil
}

// room is for another SSRC: new, or of the one that has been idle longest.
func (rs *receptions) room() *reception {
	if rs.first.received == 0 {
		return &rs.first
	}
	if len(rs.further) < statsSources-1 {
		rs.further = append(rs.further, reception{})
		return &rs.further[len(rs.further)-1]
	}
	oldest := &rs.first
	for i := range rs.further {
		if rs.further[i].lastSeen < oldest.lastSeen {
			oldest = &rs.further[i]
		}
	}
	return oldest
}

func (rs *receptions) lost() uint64 {
	n := rs.evicted + rs.first.carried + rs.first.lost()
	for i := range rs.further {
		n += rs.further[i].carried + rs.further[i].lost()
	}
	return n
}

// jitter in milliseconds of one SSRC.
func (rs *receptions) jitter(ssrc uint32) float64 {
	if r := rs.of(ssrc); r != nil {
		return r.jitter * 1000
	}
	return 0
}

// clockRate of the static payload types (RFC 3551 section 6); dynamic ones that nobody
// told take the usual rate of their medium.
func clockRate(pt uint8, media string) uint32 {
	switch {
	case pt == 6:
		return 16000
	case pt == 10 || pt == 11:
		return 44100
	case pt == 14 || pt >= 25 && pt <= 34:
		return 90000
	case pt == 16:
		return 11025
	case pt == 17:
		return 22050
	case pt <= 24:
		return 8000
	case media == "video":
		return 90000
	}
	return 8000
}
