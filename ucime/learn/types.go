package learn

import (
	"encoding/hex"
	"fmt"
	"time"
)

// Number is a called or calling number in +E.164 form: a plus sign and 1 to 15 digits. The empty Number means "not known",
// which only a caller may be.
type Number string

// Valid reports whether n has the form +E.164.
func (n Number) Valid() bool {
	if len(n) < 2 || len(n) > 16 || n[0] != '+' {
		return false
	}
	for i := 1; i < len(n); i++ {
		if n[i] < '0' || n[i] > '9' {
			return false
		}
	}
	return true
}

// PeerID names a member of the ring: 128 bits, printed as 32 hexadecimal digits (reference/ring.md).
type PeerID [16]byte

// String returns the 32 lower-case hexadecimal digits of p.
func (p PeerID) String() string { return hex.EncodeToString(p[:]) }

// MarshalText gives the form of String.
func (p PeerID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads it.
func (p *PeerID) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePeerID(string(text))
	return err
}

// ParsePeerID reads 32 hexadecimal digits of either case.
func ParsePeerID(s string) (PeerID, error) {
	var p PeerID
	if len(s) != 2*len(p) {
		return PeerID{}, fmt.Errorf("peer ID %q has %d characters, want %d hexadecimal digits", s, len(s), 2*len(p))
	}
	if _, err := hex.Decode(p[:], []byte(s)); err != nil {
		return PeerID{}, fmt.Errorf("peer ID %q: %w", s, err)
	}
	return p, nil
}

// Role says on which side of a call its VCR was written.
type Role uint8

// The two sides of a call.
const (
	Originating Role = 1 // our user called
	Terminating Role = 2 // our user was called
)

// VCR is the record of a finished PSTN call as a call agent uploads it (guide lines 200-212). Times are the call agent's:
// Start when the call was answered, Stop when it ended, both to the millisecond where the call agent has it.
type VCR struct {
	Role           Role
	Called, Caller Number // Caller is empty where the PSTN did not tell it
	Start, Stop    time.Time
}

// Route is what a call agent learns: where calls to Number go over the Internet, and the ticket that lets them in. It is
// valid for a year from Learned (guide line 219).
type Route struct {
	Number  Number
	Domain  string   // of the enterprise that is called
	URIs    []string // SIP URIs of its edge, in order of preference
	Ticket  string   // as the X-Cisco-ViPR-Ticket header carries it
	Peer    PeerID   // the peer server that proved to own the number
	Learned time.Time
	Expires time.Time
}
