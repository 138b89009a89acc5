package testbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// WireReport says what was on the Internet that must not be there.
type WireReport struct {
	// SRTP and SRTCP count protected packets, TLS segments with data.
	SRTP, SRTCP, TLS int
	// PlainRTP counts packets that carry sound or pictures in the clear.
	PlainRTP int
	// Unexpected describes packets that are neither TLS nor SRTP (ICMP, plain
	// SIP, unknown datagrams), ten at most.
	Unexpected []string
	// InsideAddresses describes each place where an address of an inside
	// network stood: in an IP header or in decrypted SIP.
	InsideAddresses []string
}

// CheckWire judges a capture of the Internet side. inside are captures behind
// the edges: their payloads must not appear outside. messages is the decrypted
// SIP of the capture, hidden the networks whose addresses must stay inside.
func CheckWire(internet []Packet, inside [][]Packet, messages []SIPMessage, hidden ...netip.Prefix) WireReport {
	known := newPayloads(inside)
	var r WireReport
	begun := make(map[[2]netip.AddrPort]bool)
	for _, p := range internet {
		for _, a := range []netip.Addr{p.Src.Addr(), p.Dst.Addr()} {
			if isIn(a, hidden) {
				r.InsideAddresses = append(r.InsideAddresses, fmt.Sprintf("IP header %v > %v", p.Src, p.Dst))
			}
		}
		switch {
		case p.Proto == protoTCP && len(p.Payload) == 0:
		case p.Proto == protoTCP:
			// A direction begins with a TLS record: handshake, alert.
			dir := [2]netip.AddrPort{p.Src, p.Dst}
			if first := !begun[dir]; first && !isTLSRecord(p.Payload) || bytes.Contains(p.Payload, []byte("SIP/2.0")) {
				r.unexpected("TCP in the clear %v > %v: %q", p.Src, p.Dst, p.Payload[:min(len(p.Payload), 40)])
				continue
			}
			begun[dir] = true
			r.TLS++
		case isRTCP(p.Payload) && p.Proto == protoUDP:
			r.rtcp(p, known)
		default:
			r.rtp(p, known)
		}
	}
	for _, m := range messages {
		for _, a := range HiddenIn(m.Raw, hidden...) {
			r.InsideAddresses = append(r.InsideAddresses, fmt.Sprintf("%s in %q %v > %v", a, m.Start, m.Src, m.Dst))
		}
	}
	return r
}

// rtp judges a datagram that is not RTCP.
func (r *WireReport) rtp(p Packet, known payloads) {
	m, ok := parseRTP(p)
	switch {
	case !ok:
		r.unexpected("protocol %d %v > %v, %d bytes", p.Proto, p.Src, p.Dst, len(p.Payload))
	case known.has(m.Body):
		r.PlainRTP++
	default:
		r.SRTP++
	}
}

// rtcp judges an RTCP packet: SRTCP ends with the E flag, an index and a tag
// (RFC 3711 section 3.4), plain RTCP is exactly as long as its parts say.
func (r *WireReport) rtcp(p Packet, known payloads) {
	b := p.Payload
	for len(b) >= 4 && b[0]>>6 == 2 {
		n := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
		if n > len(b) {
			break
		}
		b = b[n:]
	}
	if len(b) == 0 || known.has(p.Payload[8:]) {
		r.unexpected("RTCP in the clear %v > %v", p.Src, p.Dst)
		return
	}
	r.SRTCP++
}

// unexpected notes a packet that does not belong there.
func (r *WireReport) unexpected(format string, args ...any) {
	if len(r.Unexpected) < 10 {
		r.Unexpected = append(r.Unexpected, fmt.Sprintf(format, args...))
	}
}

// OK reports whether the wire shows TLS and SRTP alone and hides the inside.
func (r WireReport) OK() bool {
	return r.PlainRTP == 0 && len(r.Unexpected) == 0 && len(r.InsideAddresses) == 0
}

// isTLSRecord reports whether bytes begin with a TLS record header.
func isTLSRecord(b []byte) bool {
	return len(b) >= 3 && b[0] >= 20 && b[0] <= 23 && b[1] == 3
}

// payloads is a set of media bodies, with their lengths: outside, a tag may
// follow.
type payloads struct {
	bodies  map[string]bool
	lengths []int
}

// newPayloads collects what the inside captures carried. Bodies under 8 bytes
// could meet by chance.
func newPayloads(captures [][]Packet) payloads {
	set := payloads{bodies: make(map[string]bool)}
	for _, packets := range captures {
		for _, p := range packets {
			var body []byte
			if r, ok := parseRTP(p); ok {
				body = r.Body
			} else if p.Proto == protoUDP && isRTCP(p.Payload) {
				body = p.Payload[8:]
			} else {
				continue
			}
			if len(body) < 8 {
				continue
			}
			set.bodies[string(body)] = true
			if !slices.Contains(set.lengths, len(body)) {
				set.lengths = append(set.lengths, len(body))
			}
		}
	}
	return set
}

// has reports whether a body is one of the set, with or without a tag.
func (s payloads) has(body []byte) bool {
	for _, n := range s.lengths {
		if len(body) >= n && s.bodies[string(body[:n])] {
			return true
		}
	}
	return false
}

// isIn reports whether an address lies in one of the networks.
func isIn(a netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

var (
	dotted  = regexp.MustCompile(`\d{1,3}([.-]\d{1,3}){3}`)
	integer = regexp.MustCompile(`\d{8,10}`)
	hexWord = regexp.MustCompile(`(?i)[0-9a-f]{8}`)
)

// HiddenIn lists the addresses of the networks that stand in a text: dotted
// or with dashes, as one decimal number, or as eight hexadecimal digits that
// stand by themselves.
func HiddenIn(text string, nets ...netip.Prefix) []string {
	var out []string
	add := func(written string, a netip.Addr) {
		if isIn(a, nets) && !slices.Contains(out, written) {
			out = append(out, written)
		}
	}
	for _, s := range dotted.FindAllString(text, -1) {
		if a, err := netip.ParseAddr(strings.ReplaceAll(s, "-", ".")); err == nil {
			add(s, a)
		}
	}
	number := func(s string, base int) {
		var v uint64
		if _, err := fmt.Sscanf(s, map[int]string{10: "%d", 16: "%x"}[base], &v); err == nil && v <= 0xffffffff {
			add(s, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(v)))))
		}
	}
	for _, s := range words(integer, text) {
		number(s, 10)
	}
	for _, s := range words(hexWord, text) {
		number(s, 16)
	}
	return out
}

// words finds matches that no letter or digit touches: within longer tokens
// such digits mean nothing.
func words(re *regexp.Regexp, text string) []string {
	var out []string
	alnum := func(i int) bool {
		if i < 0 || i >= len(text) {
			return false
		}
		c := text[i]
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for _, at := range re.FindAllStringIndex(text, -1) {
		if !alnum(at[0]-1) && !alnum(at[1]) {
			out = append(out, text[at[0]:at[1]])
		}
	}
	return out
}
