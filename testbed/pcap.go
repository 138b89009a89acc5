package testbed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// Packet is an IPv4 packet of a capture.
type Packet struct {
	Time     time.Time
	Src, Dst netip.AddrPort // port 0 for other than UDP and TCP
	Proto    byte           // 6 TCP, 17 UDP
	Payload  []byte         // of UDP or TCP; else of IP
	Flags    byte           // of TCP
}

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

// errNotPcap is returned for other files.
var errNotPcap = errors.New("no capture in the classic format")

// ReadPackets reads the IPv4 packets of a capture of Ethernet frames. A last
// packet that is cut short, because the capture still runs, is left out.
func ReadPackets(path string) ([]Packet, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// Magic number, version, zones, snap length, link type 1 (Ethernet).
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 || binary.LittleEndian.Uint32(b[20:]) != 1 {
		return nil, fmt.Errorf("%s: %w", path, errNotPcap)
	}
	var out []Packet
	for b = b[24:]; len(b) >= 16; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if n > len(b)-16 {
			break
		}
		at := time.Unix(int64(binary.LittleEndian.Uint32(b)), int64(binary.LittleEndian.Uint32(b[4:]))*1000)
		if p, ok := parseFrame(b[16 : 16+n]); ok {
			p.Time = at
			out = append(out, p)
		}
		b = b[16+n:]
	}
	return out, nil
}

// parseFrame reads an Ethernet frame; only whole IPv4 packets count.
func parseFrame(f []byte) (Packet, bool) {
	if len(f) < 34 || f[12] != 0x08 || f[13] != 0x00 {
		return Packet{}, false
	}
	ip := f[14:]
	hl, total := int(ip[0]&0x0f)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if hl < 20 || total < hl || total > len(ip) {
		return Packet{}, false
	}
	src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	p := Packet{Proto: ip[9], Payload: ip[hl:total]}
	var sp, dp uint16
	body := p.Payload
	switch {
	case p.Proto == protoUDP && len(body) >= 8:
		sp, dp = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
		p.Payload = body[8:]
	case p.Proto == protoTCP && len(body) >= 20 && len(body) >= int(body[12]>>4)*4:
		sp, dp = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
		p.Flags = body[13]
		p.Payload = body[int(body[12]>>4)*4:]
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sp), netip.AddrPortFrom(dst, dp)
	return p, true
}

// RTP is a packet that looks like RTP (RFC 3550 section 5.1), SRTP alike: the
// header is in the clear.
type RTP struct {
	Packet
	Type      byte
	Marker    bool
	Seq       uint16
	Timestamp uint32
	SSRC      uint32
	Body      []byte // after header and extension; with SRTP: cipher text and tag
}

// parseRTP reads a UDP payload; RTCP (types 192 to 223, RFC 5761) is none.
func parseRTP(p Packet) (RTP, bool) {
	b := p.Payload
	if p.Proto != protoUDP || len(b) < 12 || b[0]>>6 != 2 || b[1] >= 192 && b[1] <= 223 {
		return RTP{}, false
	}
	at := 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < at+4 {
			return RTP{}, false
		}
		at += 4 + 4*int(binary.BigEndian.Uint16(b[at+2:]))
	}
	if len(b) < at {
		return RTP{}, false
	}
	return RTP{
		Packet: p, Type: b[1] & 0x7f, Marker: b[1]&0x80 != 0, Seq: binary.BigEndian.Uint16(b[2:]),
		Timestamp: binary.BigEndian.Uint32(b[4:]), SSRC: binary.BigEndian.Uint32(b[8:]), Body: b[at:],
	}, true
}

// isRTCP reports whether a UDP payload looks like (S)RTCP.
func isRTCP(b []byte) bool {
	return len(b) >= 8 && b[0]>>6 == 2 && b[1] >= 192 && b[1] <= 223
}

// RTPStream is the packets of one source between two addresses, in order of
// arrival.
type RTPStream struct {
	Src, Dst netip.AddrPort
	SSRC     uint32
	Packets  []RTP
}

// Lost counts the sequence numbers that are missing between the lowest and
// the highest, over wraps.
func (s RTPStream) Lost() int {
	if len(s.Packets) == 0 {
		return 0
	}
	seen := make(map[int64]bool, len(s.Packets))
	last := int64(s.Packets[0].Seq)
	lo, hi := last, last
	for _, p := range s.Packets {
		// The number nearest to the last one: late packets stay late.
		n := last + int64(int16(p.Seq-uint16(last)))
		seen[n] = true
		lo, hi, last = min(lo, n), max(hi, n), max(last, n)
	}
	return int(hi-lo+1) - len(seen)
}

// Audio decodes G.711 mu-law (payload type 0) at its RTP timestamps: what was
// lost is silence.
func (s RTPStream) Audio() Audio {
	a := Audio{Rate: 8000}
	var first uint32
	for _, p := range s.Packets {
		if p.Type != 0 {
			continue
		}
		if a.Samples == nil {
			first = p.Timestamp
		}
		at := int(int32(p.Timestamp - first))
		// A jump of over a minute is a new clock, not a silence.
		if at < 0 || at > len(a.Samples)+60*a.Rate {
			continue
		}
		pcm := DecodeULaw(p.Body)
		if need := at + len(pcm) - len(a.Samples); need > 0 {
			a.Samples = append(a.Samples, make([]int16, need)...)
		}
		copy(a.Samples[at:], pcm)
	}
	return a
}

// Heard is what a phone with a short buffer plays of the G.711 mu-law that reaches its address, of whatever streams: each packet
// at its arrival, or behind the one before where that is at most 60 ms more. What does not come is silence.
func Heard(packets []Packet, phone netip.Addr) Audio {
	a := Audio{Rate: 8000}
	const buffer = 60 * 8 // samples
	var begin time.Time
	for _, p := range packets {
		m, ok := parseRTP(p)
		if !ok || m.Type != 0 || m.Dst.Addr() != phone {
			continue
		}
		if begin.IsZero() {
			begin = p.Time
		}
		at, pcm := int(p.Time.Sub(begin).Milliseconds())*8, DecodeULaw(m.Body)
		switch late := at - len(a.Samples); {
		case late < -buffer:
			continue // the buffer is full
		case late > len(pcm):
			a.Samples = append(a.Samples, make([]int16, late)...)
		}
		a.Samples = append(a.Samples, pcm...)
	}
	return a
}

// Streams sorts the RTP packets of a capture into streams, in the order of
// their first packets.
func Streams(packets []Packet) []*RTPStream {
	type key struct {
		src, dst netip.AddrPort
		ssrc     uint32
	}
	by := make(map[key]*RTPStream)
	var out []*RTPStream
	for _, p := range packets {
		r, ok := parseRTP(p)
		if !ok {
			continue
		}
		k := key{p.Src, p.Dst, r.SSRC}
		s := by[k]
		if s == nil {
			s = &RTPStream{Src: p.Src, Dst: p.Dst, SSRC: r.SSRC}
			by[k] = s
			out = append(out, s)
		}
		s.Packets = append(s.Packets, r)
	}
	return out
}
