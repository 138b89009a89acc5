package dtmf

import (
	"encoding/binary"
	"errors"
)

// event is a payload of RFC 4733 section 2.3.
type event struct {
	Code     uint8
	End      bool
	Volume   uint8
	Duration uint16 // in timestamp units
}

func (e event) append(b []byte) []byte {
	flags := e.Volume & 0x3f
	if e.End {
		flags |= 0x80
	}
	return binary.BigEndian.AppendUint16(append(b, e.Code, flags), e.Duration)
}

var errShort = errors.New("an event has four bytes")

// parseEvent reads the first event of a payload.
func parseEvent(b []byte) (event, error) {
	if len(b) < 4 {
		return event{}, errShort
	}
	return event{b[0], b[1]&0x80 != 0, b[1] & 0x3f, binary.BigEndian.Uint16(b[2:])}, nil
}

// collector takes the digits out of packets.
type collector struct {
	payload uint8
	last    uint32 // timestamp of the last event
	ssrc    uint32
	any     bool
	digits  []byte
}

const maximumDigits = 32

// take looks at an event packet; it tells whether there is a new digit. Every packet of a digit has the timestamp of its
// beginning, so a digit counts once however many of its packets come.
func (c *collector) take(ssrc, timestamp uint32, payload []byte) bool {
	e, err := parseEvent(payload)
	if err != nil || e.Code > 9 || c.any && c.ssrc == ssrc && c.last == timestamp || len(c.digits) >= maximumDigits {
		return false
	}
	if c.any && c.ssrc == ssrc && int32(timestamp-c.last) < 0 { // a late copy of an earlier digit
		return false
	}
	c.any, c.ssrc, c.last = true, ssrc, timestamp
	c.digits = append(c.digits, '0'+e.Code)
	return true
}
