package mediaterm

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Stream is one m= line of a call: two legs and what passes between them. Safe for
// concurrent use; packets that are on their way see either the old or the new setting.
type Stream struct {
	term   *Terminator
	params StreamParams
	local  [2]netip.AddrPort
	eng    EngineStream
	opened time.Time
	once   sync.Once
}

// Params returns what NewStream was given.
func (s *Stream) Params() StreamParams { return s.params }

// Local returns our RTP address on that side, for the SDP. The port is even, RTCP has
// the next.
func (s *Stream) Local(side Side) netip.AddrPort { return s.local[side] }

// SetRemote says where the far end of a leg wants its media, at each offer and answer.
// It opens the leg's source lock again. A zero RTP address, or a way SDP has to say so
// (port 0, 0.0.0.0), is hold: nothing is sent there, but packets from the address known
// before are still relayed and all state is kept. Errors: ErrBadRemote, ErrClosed.
func (s *Stream) SetRemote(side Side, r Remote) error {
	if err := s.eng.SetRemote(side, r); err != nil {
		return fmt.Errorf("%s leg: %w", side, err)
	}
	return nil
}

// Withhold sends nothing to the far end of a leg until a packet of it is accepted (authentic where the leg has keys), or on is false, or
// SetRemote is called. It does nothing where one has been since SetRemote told the present address.
func (s *Stream) Withhold(side Side, on bool) { s.eng.Withhold(side, on) }

// Heard tells where the far end of a leg sends from, invalid while no packet has been accepted since SetRemote told the present address; how
// many packets of RTP have been sent to it, whatever its address was; and whether the stream is open.
func (s *Stream) Heard(side Side) (from netip.AddrPort, sent uint64, open bool) {
	return s.eng.Heard(side)
}

// SetCrypto sets the keys of a leg: local is what we seal with, remote what the far end
// seals with. Both nil: plain RTP. One nil: SRTP whose other key is not known yet, and
// nothing passes in that direction. Contexts belong to the master key: the same one
// again goes on with its rollover counter, whatever else changes. After a new remote
// key the one before stays accepted until a packet authenticates under the new one. The
// key is copied. Errors: ErrBadKey (nothing was changed), ErrClosed.
func (s *Stream) SetCrypto(side Side, local, remote *Key) error {
	if err := s.eng.SetCrypto(side, local, remote); err != nil {
		return fmt.Errorf("%s leg: %w", side, err)
	}
	return nil
}

// SetClockRate tells the RTP clock of a dynamic payload type (a=rtpmap), for the jitter
// figures alone. Types not told count as 8000 Hz in audio and 90000 Hz in video.
func (s *Stream) SetClockRate(payloadType uint8, hz uint32) { s.eng.SetClockRate(payloadType, hz) }

// Stats returns a snapshot; after Close, the final counters.
func (s *Stream) Stats() Stats {
	st := s.eng.Stats()
	st.CallID, st.Media, st.Opened = s.params.CallID, s.params.Media, s.opened
	return st
}

// Close stops relaying, closes the sockets, waits for the stream's goroutines and lets
// the ports rest. Calling it again does nothing.
func (s *Stream) Close() {
	s.once.Do(func() {
		s.eng.Close()
		s.term.forget(s)
	})
}
