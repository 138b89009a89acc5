package mediaterm

import (
	"fmt"
	"net/netip"
)

// Side names a leg of a stream.
type Side uint8

// The two legs: Inside is the network of higher security, Outside the Internet.
const (
	Inside Side = iota
	Outside
)

// String is "inside" or "outside".
func (s Side) String() string {
	if s == Inside {
		return "inside"
	}
	return "outside"
}

func (s Side) other() Side { return 1 - s }

// Remote is where the far end of a leg wants its media, as signalled.
type Remote struct {
	// RTP: zero, port 0 or an unspecified address (c=0.0.0.0): nothing is sent there.
	RTP netip.AddrPort
	// RTCP: zero: the port after RTP's (RFC 3550 section 11). Not used with Mux.
	RTCP netip.AddrPort
	// Mux: RTCP goes to, and comes from, the RTP port (RFC 5761).
	Mux bool
}

// normal unmaps addresses, turns every way to say "nowhere" into the zero value, fills
// in the RTCP address, and refuses what cannot be a unicast peer of a local address.
func (r Remote) normal(local netip.Addr) (Remote, error) {
	r.RTP = netip.AddrPortFrom(r.RTP.Addr().Unmap(), r.RTP.Port())
	r.RTCP = netip.AddrPortFrom(r.RTCP.Addr().Unmap(), r.RTCP.Port())
	if !sendable(r.RTP) {
		return Remote{Mux: r.Mux}, nil
	}
	if !sendable(r.RTCP) {
		r.RTCP = netip.AddrPort{}
	}
	if r.Mux {
		r.RTCP = r.RTP
	} else if !r.RTCP.IsValid() && r.RTP.Port() != 65535 {
		r.RTCP = netip.AddrPortFrom(r.RTP.Addr(), r.RTP.Port()+1)
	}
	for _, a := range []netip.AddrPort{r.RTP, r.RTCP} {
		if !a.IsValid() {
			continue
		}
		if a.Addr().IsMulticast() || a.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return Remote{}, fmt.Errorf("%w: %s is not a unicast address", ErrBadRemote, a)
		}
		if a.Addr().Is4() != local.Is4() {
			return Remote{}, fmt.Errorf("%w: %s is of another address family than %s", ErrBadRemote, a, local)
		}
	}
	return r, nil
}

func sendable(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified()
}

// Engine moves the packets of streams between their legs. An implementation is safe for
// concurrent use.
type Engine interface {
	// Name is the word that configuration and show commands use.
	Name() string
	// Open binds the four ports of a stream and starts to relay: with no remote and,
	// outside, no key, that is nothing yet. A port that cannot be bound is a *BindError.
	Open(spec EngineSpec) (EngineStream, error)
	// Close frees what the engine shares between streams; all of them are closed.
	Close() error
}

// EngineSpec is what an engine needs to know of a stream at its start.
type EngineSpec struct {
	Local [2]netip.AddrPort // by Side; RTP ports, RTCP is the next
	Media string            // "audio", "video", ...: sizes buffers, default clock rates and the traffic class
	Emit  func(Event)       // never blocks; Stream is filled in by the callee
	// Watcher, when not nil, is told of each authentic RTP packet from the outside; see Instant.
	Watcher Watcher

	NoRTCP  bool // drop RTCP in both directions
	Marking Marking
}

// EngineStream is one stream in an engine. Safe for concurrent use.
type EngineStream interface {
	SetRemote(side Side, r Remote) error
	SetCrypto(side Side, local, remote *Key) error
	// Withhold and Heard are those of Stream; open is false after Close.
	Withhold(side Side, on bool)
	Heard(side Side) (from netip.AddrPort, sent uint64, open bool)
	SetClockRate(payloadType uint8, hz uint32)
	// Report sends a compound RTCP packet of our own to the far end outside, from an SSRC; write makes it.
	Report(write func(*reportView) []byte, ssrc uint32) error
	// Stats is valid after Close too, and then final.
	Stats() Stats
	// Close stops relaying and frees the ports before it returns.
	Close()
}
