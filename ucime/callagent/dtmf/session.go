package dtmf

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/rtp"
)

const (
	packetTime = 20 * time.Millisecond
	step       = 160 // timestamp units of a packet
	lead       = 10  // packets of silence before the first digit
	tone       = 5   // packets of a digit before its end
	pause      = 3   // packets between digits
)

// Session is a socket for one call.
type Session struct {
	conn  *net.UDPConn
	local netip.AddrPort
	audio chan struct{} // closed by the first audio packet
	wg    sync.WaitGroup

	mu     sync.Mutex
	remote Remote
	got    collector
	more   chan struct{} // something came
	heard  bool
}

// Open takes an even port of a range, beginning at a random one.
func Open(addr netip.Addr, low, high int) (*Session, error) {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	low += low & 1
	n := (high-low)/2 + 1
	begin := int(binary.BigEndian.Uint16(b[:]))
	var last error
	for i := range n {
		port := low + 2*((begin+i)%n)
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
		if err != nil {
			last = err
			continue
		}
		s := &Session{conn: conn, local: netip.AddrPortFrom(addr, uint16(port)), audio: make(chan struct{}), more: make(chan struct{}, 1)}
		s.wg.Go(s.receive)
		return s, nil
	}
	return nil, fmt.Errorf("no port for correlation digits between %d and %d: %w", low, high, last)
}

// Offer is a description of the socket.
func (s *Session) Offer() []byte { return describe(s.local, nil) }

// Answer is a description of the socket that answers an offer.
func (s *Session) Answer(to Remote) []byte { return describe(s.local, &to) }

// SetRemote says who the far end is: packets of its host are looked at from now on.
func (s *Session) SetRemote(r Remote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remote, s.got.payload = r, r.Event
}

// Audio is closed when a packet of audio has come.
func (s *Session) Audio() <-chan struct{} { return s.audio }

func (s *Session) receive() {
	b := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		s.packet(b[:n], from)
	}
}

// packet looks at one packet.
func (s *Session) packet(b []byte, from netip.AddrPort) {
	var p rtp.Packet
	if p.Unmarshal(b) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if from.Addr().Unmap() != s.remote.Addr.Addr() {
		return
	}
	switch {
	case p.PayloadType == s.got.payload:
		if !s.got.take(p.SSRC, p.Timestamp, p.Payload) {
			return
		}
		select {
		case s.more <- struct{}{}:
		default:
		}
	case p.PayloadType == s.remote.Audio && len(p.Payload) > 0 && !s.heard:
		s.heard = true
		close(s.audio)
	}
}

// Collect waits for n digits; it returns what came when ctx ends.
func (s *Session) Collect(ctx context.Context, n int) string {
	for {
		s.mu.Lock()
		digits := string(s.got.digits)
		s.mu.Unlock()
		if len(digits) >= n {
			return digits[:n]
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return digits
		}
	}
}

// Send sends digits to the far end: about 180 ms for each.
func (s *Session) Send(ctx context.Context, digits string) error {
	s.mu.Lock()
	r := s.remote
	s.mu.Unlock()
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	p := rtp.Packet{Header: rtp.Header{Version: 2, SSRC: binary.BigEndian.Uint32(seed[:]), SequenceNumber: binary.BigEndian.Uint16(seed[4:]), Timestamp: uint32(seed[6]) << 16, Marker: true}}
	tick := time.NewTicker(packetTime)
	defer tick.Stop()
	send := func(pt uint8, payload []byte) error {
		p.PayloadType, p.Payload = pt, payload
		b, err := p.Marshal()
		if err == nil {
			_, err = s.conn.WriteToUDPAddrPort(b, r.Addr)
		}
		p.SequenceNumber++
		p.Marker = false
		return err
	}
	wait := func() error {
		select {
		case <-tick.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	silence := make([]byte, step)
	quiet := byte(0xff) // PCMU
	if r.Audio == 8 {
		quiet = 0xd5
	}
	for i := range silence {
		silence[i] = quiet
	}
	still := func(n int) error {
		for range n {
			if err := send(r.Audio, silence); err != nil {
				return err
			}
			p.Timestamp += step
			if err := wait(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := still(lead); err != nil {
		return err
	}
	for i := range len(digits) {
		p.Marker = true // RFC 4733 section 2.5.1.1
		for k := 1; k <= tone+2; k++ {
			e := event{Code: digits[i] - '0', End: k >= tone, Volume: 10, Duration: uint16(min(k, tone) * step)}
			if err := send(r.Event, e.append(nil)); err != nil {
				return err
			}
			if k >= tone && k < tone+2 {
				continue // the end is sent three times at once
			}
			if err := wait(); err != nil {
				return err
			}
		}
		p.Timestamp += tone * step
		if err := still(pause); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the session.
func (s *Session) Close() {
	s.conn.Close()
	s.wg.Wait()
}
