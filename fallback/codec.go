package fallback

import (
	"strconv"
	"strings"
	"time"
)

// codec is what the figures need to know of an encoding.
type codec uint8

const (
	codecOther codec = iota
	codecG711
	codecG722
	codecG729
	codecOpus
	codecNoise // comfort noise: announces silence
	codecEvent // telephone-event: no part of pdv
)

func (c codec) audio() bool { return c < codecNoise }

// impairment has Ie and Bpl of the E-model, as the protocol file gives them.
func (c codec) impairment() (ie, bpl float64) {
	switch c {
	case codecG711, codecG722:
		return 0, 25.1
	case codecG729:
		return 11, 19
	case codecOpus:
		return 0, 30
	}
	return 5, 20
}

func codecOf(encoding string) codec {
	switch strings.ToUpper(encoding) {
	case "PCMU", "PCMA":
		return codecG711
	case "G722":
		return codecG722
	case "G729":
		return codecG729
	case "OPUS":
		return codecOpus
	case "CN":
		return codecNoise
	case "TELEPHONE-EVENT":
		return codecEvent
	}
	return codecOther
}

// MOS gives R and MOS of an encoding (the name of its rtpmap) at a loss in percent.
func MOS(encoding string, loss float64) (r, mos float64) {
	c := codecOf(encoding)
	return c.rating(loss), c.mos(loss)
}

// Conversational is what a delay (one way, ms) leaves of R, and its MOS: Id is that of G.107 in the usual approximation (R. Cole and J. Rosenbluth,
// Voice over IP performance monitoring, 2001).
func Conversational(r, delay float64) (rc, mos float64) {
	rc = max(0, r-0.024*delay-0.11*max(0, delay-177.3))
	return rc, mosOfRating(rc)
}

// rating is R = 93.2 - Ie,eff.
func (c codec) rating(loss float64) float64 {
	ie, bpl := c.impairment()
	return max(0, 93.2-(ie+(95-ie)*loss/(loss+bpl)))
}

// intact has the mos of each codec without loss.
var intact = func() (mos [codecEvent + 1]float64) {
	for c := range codecEvent + 1 {
		mos[c] = c.mos(0)
	}
	return mos
}()

// mos of a loss in percent.
func (c codec) mos(loss float64) float64 { return mosOfRating(c.rating(loss)) }

// mosOfRating is G.107 annex B, whose cubic falls below 1 between R = 0 and 6.5 and is cut there.
func mosOfRating(r float64) float64 {
	if r <= 0 {
		return 1
	}
	return max(1, 1+0.035*r+r*(r-60)*(100-r)*7e-6)
}

// Format is one payload type as the description in force gives it.
type Format struct {
	PayloadType uint8
	Encoding    string // "PCMU", "opus", "telephone-event"; any case
	ClockRate   uint32 // Hz; 0: that of the static type, else 8000
}

// ParseFormat reads a payload type and its rtpmap value ("opus/48000/2"); "" is a static
// type that needs none. ok is false for what is no payload type or no rtpmap.
func ParseFormat(payloadType, rtpmap string) (f Format, ok bool) {
	pt, err := strconv.ParseUint(payloadType, 10, 7)
	if err != nil {
		return Format{}, false
	}
	f.PayloadType = uint8(pt)
	if rtpmap == "" {
		return f, true
	}
	name, rest, _ := strings.Cut(rtpmap, "/")
	clock, _, _ := strings.Cut(rest, "/")
	hz, err := strconv.ParseUint(clock, 10, 32)
	if err != nil || hz == 0 || hz > maxClock || name == "" {
		return Format{}, false
	}
	f.Encoding, f.ClockRate = name, uint32(hz)
	return f, true
}

const (
	defaultClock = 8000
	maxClock     = 1_000_000 // no RTP clock is faster, and arithmetic in microseconds holds
	maxFormats   = 32
)

// format is a Format ready for the packet path.
type format struct {
	hz    uint32
	pt    uint8
	codec codec
}

// staticFormat has the types of RFC 3551 section 6 that a=rtpmap need not name.
func staticFormat(pt uint8) format {
	f := format{pt: pt, hz: defaultClock}
	switch pt {
	case 0, 8:
		f.codec = codecG711
	case 9:
		f.codec = codecG722
	case 13:
		f.codec = codecNoise
	case 18:
		f.codec = codecG729
	case 6:
		f.hz = 16000
	case 10, 11:
		f.hz = 44100
	case 14:
		f.hz = 90000
	case 16:
		f.hz = 11025
	case 17:
		f.hz = 22050
	}
	return f
}

// newFormats takes the first maxFormats of a description. Payload type 13 is comfort
// noise whatever it is mapped to.
func newFormats(list []Format) []format {
	formats := make([]format, 0, min(len(list), maxFormats))
	for _, f := range list[:min(len(list), maxFormats)] {
		n := staticFormat(f.PayloadType & 0x7f)
		if f.ClockRate > 0 && f.ClockRate <= maxClock {
			n.hz = f.ClockRate
		}
		if f.Encoding != "" && n.pt != 13 {
			n.codec = codecOf(f.Encoding)
		}
		formats = append(formats, n)
	}
	return formats
}

// silent tells whether a packet announces silence: comfort noise, a G.729 packet whose
// last frame is a 2-byte SID (the others have 10), an Opus packet of at most 2 bytes.
func (f *format) silent(length int) bool {
	switch f.codec {
	case codecNoise:
		return true
	case codecG729:
		return length%10 == 2
	case codecOpus:
		return length <= 2
	}
	return false
}

// defaultPtime is the packet time where neither packets nor a=ptime tell it.
const defaultPtime = 20 * time.Millisecond
