package dtmf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Remote is what a description says of the far end's audio.
type Remote struct {
	Addr  netip.AddrPort
	Audio uint8 // 0 PCMU or 8 PCMA, the first that is offered
	Event uint8 // payload type of telephone-event/8000
}

// noEvents is no payload type.
const noEvents = 255

// ErrNoEvents says that the far end takes no RFC 4733 events; the rest of the Remote is good.
var ErrNoEvents = errors.New("the description has no telephone-event")

// ParseRemote reads the first audio line of a description.
func ParseRemote(sdp []byte) (Remote, error) {
	var r Remote
	var conn netip.Addr
	port, audio, event, in := 0, -1, -1, false
	for raw := range bytes.Lines(sdp) {
		line := strings.TrimRight(string(raw), "\r\n")
		switch {
		case strings.HasPrefix(line, "m="):
			if in {
				goto end // the audio line's part is over
			}
			f := strings.Fields(line[2:])
			if len(f) < 4 || f[0] != "audio" || f[2] != "RTP/AVP" {
				continue
			}
			in = true
			port, _ = strconv.Atoi(f[1])
			for _, pt := range f[3:] {
				if audio < 0 && (pt == "0" || pt == "8") {
					audio, _ = strconv.Atoi(pt)
				}
			}
		case strings.HasPrefix(line, "c=IN IP4 ") && (in || !conn.IsValid()):
			conn, _ = netip.ParseAddr(strings.TrimSpace(line[9:])) // an address with a TTL is multicast: no address for us
		case in && strings.HasPrefix(line, "a=rtpmap:"):
			pt, name, _ := strings.Cut(line[9:], " ")
			if n, err := strconv.Atoi(pt); err == nil && n >= 0 && n < 128 && strings.EqualFold(name, "telephone-event/8000") && event < 0 {
				event = n
			}
		}
	}
end:
	switch {
	case port < 1 || port > 65535 || !conn.Is4() || conn.IsUnspecified() || conn.IsMulticast():
		return r, errors.New("the description has no audio address")
	case audio < 0:
		return r, errors.New("the description has neither PCMU nor PCMA")
	case event < 0:
		return Remote{netip.AddrPortFrom(conn, uint16(port)), uint8(audio), noEvents}, ErrNoEvents
	}
	return Remote{netip.AddrPortFrom(conn, uint16(port)), uint8(audio), uint8(event)}, nil
}

// describe is the description of an address; to is the offer that it answers, nil for an offer.
func describe(at netip.AddrPort, to *Remote) []byte {
	formats, event := "0 8 101", uint8(101)
	names := "a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
	if to != nil {
		event = to.Event
		formats = fmt.Sprintf("%d %d", to.Audio, event)
		names = map[uint8]string{0: "a=rtpmap:0 PCMU/8000\r\n", 8: "a=rtpmap:8 PCMA/8000\r\n"}[to.Audio]
	}
	return fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP %[3]s\r\n%[4]sa=rtpmap:%[5]d telephone-event/8000\r\na=fmtp:%[5]d 0-15\r\na=ptime:20\r\na=sendrecv\r\n",
		at.Addr(), at.Port(), formats, names, event)
}
