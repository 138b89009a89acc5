package testbed

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// srtpProfiles are the suites of SDES by name (RFC 4568, 7714), with key and salt length.
var srtpProfiles = map[string]struct {
	profile   srtp.ProtectionProfile
	key, salt int
}{
	"AES_CM_128_HMAC_SHA1_80": {srtp.ProtectionProfileAes128CmHmacSha1_80, 16, 14},
	"AES_CM_128_HMAC_SHA1_32": {srtp.ProtectionProfileAes128CmHmacSha1_32, 16, 14},
	"AEAD_AES_128_GCM":        {srtp.ProtectionProfileAeadAes128Gcm, 16, 12},
	"AEAD_AES_256_GCM":        {srtp.ProtectionProfileAeadAes256Gcm, 32, 12},
}

// StubCrypto is one a=crypto line.
type StubCrypto struct {
	Tag   int
	Suite string
	Key   []byte // master key and salt
	// Params follow the key in the line, as "|2^31|9:4"; MKI is what they then mean.
	Params string
	MKI    []byte
	// Bare leaves the padding of the base64 out.
	Bare bool
}

// NewStubCrypto makes a line with a fresh key.
func NewStubCrypto(tag int, suite string) StubCrypto {
	p := srtpProfiles[suite]
	k := make([]byte, p.key+p.salt)
	rand.Read(k)
	return StubCrypto{Tag: tag, Suite: suite, Key: k}
}

// Line is the attribute with "a=".
func (c StubCrypto) Line() string {
	key := base64.StdEncoding.EncodeToString(c.Key)
	if c.Bare {
		key = strings.TrimRight(key, "=")
	}
	return fmt.Sprintf("a=crypto:%d %s inline:%s%s", c.Tag, c.Suite, key, c.Params)
}

var cryptoLine = regexp.MustCompile(`(?m)^a=crypto:(\d+) (\S+) inline:([^|\s]+)`)

// CryptosOf reads the a=crypto lines of a session description.
func CryptosOf(t T, body string) []StubCrypto {
	t.Helper()
	var out []StubCrypto
	for _, m := range cryptoLine.FindAllStringSubmatch(body, -1) {
		key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(m[3], "=")) // rtpengine leaves the padding out
		if err != nil {
			t.Fatalf("key in %q: %v", m[0], err)
		}
		tag, _ := strconv.Atoi(m[1])
		out = append(out, StubCrypto{Tag: tag, Suite: m[2], Key: key})
	}
	return out
}

// CryptoOf picks the line of a suite.
func CryptoOf(t T, body, suite string) StubCrypto {
	t.Helper()
	for _, c := range CryptosOf(t, body) {
		if c.Suite == suite {
			return c
		}
	}
	t.Fatalf("no a=crypto of %s in\n%s", suite, body)
	return StubCrypto{}
}

// MediaLines gives address and port of each m= line of a description.
func MediaLines(t T, body string) []netip.AddrPort {
	t.Helper()
	var out []netip.AddrPort
	var session, addr netip.Addr
	media := false
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "c=") && len(f) == 3:
			addr = netip.MustParseAddr(f[2])
			if !media {
				session = addr
			} else {
				out[len(out)-1] = netip.AddrPortFrom(addr, out[len(out)-1].Port())
			}
		case strings.HasPrefix(line, "m=") && len(f) > 3:
			media = true
			port, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			out = append(out, netip.AddrPortFrom(session, uint16(port)))
		}
	}
	return out
}

// srtpEnd transforms the packets of one direction.
type srtpEnd interface {
	EncryptRTP(dst, plain []byte, h *rtp.Header) ([]byte, error)
	DecryptRTP(dst, sealed []byte, h *rtp.Header) ([]byte, error)
	EncryptRTCP(dst, plain []byte, h *rtcp.Header) ([]byte, error)
	DecryptRTCP(dst, sealed []byte, h *rtcp.Header) ([]byte, error)
}

// MediaStub is one end of an RTP or SRTP stream: a pair of sockets, with
// pion/srtp as the reference where keys are set.
type MediaStub struct {
	Addr netip.AddrPort // of RTP; RTCP is one higher
	SSRC uint32
	PT   uint8
	Seq  uint16
	Time uint32

	rtp, rtcp *net.UDPConn
	came      chan struct{} // holds something when something has come

	mu         sync.Mutex
	send, recv srtpEnd
	got        []*rtp.Packet
	reports    [][]byte // RTCP in the clear
	muxed      int      // RTCP that came on the RTP port
	bad        []error  // what could not be decrypted or parsed
}

// NewMediaStub opens the pair of ports.
func NewMediaStub(t T, h *Host, addr netip.AddrPort) *MediaStub {
	t.Helper()
	m := &MediaStub{Addr: addr, SSRC: 0x1111 + uint32(addr.Port()), Seq: 1, came: make(chan struct{}, 1)}
	var err error
	if m.rtp, err = h.ListenUDP(addr.String()); err == nil {
		m.rtcp, err = h.ListenUDP(netip.AddrPortFrom(addr.Addr(), addr.Port()+1).String())
	}
	if err != nil {
		t.Fatalf("media stub: %v", err)
	}
	t.Cleanup(func() { m.rtp.Close(); m.rtcp.Close() })
	go m.read(m.rtp, true)
	go m.read(m.rtcp, false)
	return m
}

// SetKeys makes the stub speak SRTP: local protects what it sends.
func (m *MediaStub) SetKeys(t T, local, remote StubCrypto) {
	t.Helper()
	mk := func(c StubCrypto) *srtp.Context {
		p, ok := srtpProfiles[c.Suite]
		if !ok || len(c.Key) != p.key+p.salt {
			t.Fatalf("key of %s has %d bytes", c.Suite, len(c.Key))
		}
		opts := []srtp.ContextOption{srtp.SRTPReplayProtection(1024), srtp.SRTCPReplayProtection(1024)}
		if len(c.MKI) > 0 {
			opts = append(opts, srtp.MasterKeyIndicator(c.MKI))
		}
		ctx, err := srtp.CreateContext(c.Key[:p.key], c.Key[p.key:], p.profile, opts...)
		if err != nil {
			t.Fatalf("%v", err)
		}
		return ctx
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send, m.recv = mk(local), mk(remote)
}

// Packet makes the stub's next packet, with its number as payload; change may alter it.
func (m *MediaStub) Packet(change ...func(*rtp.Packet)) *rtp.Packet {
	p := &rtp.Packet{
		Header:  rtp.Header{Version: 2, PayloadType: m.PT, SequenceNumber: m.Seq, Timestamp: m.Time, SSRC: m.SSRC},
		Payload: fmt.Appendf(nil, "payload of packet %05d of %08x", m.Seq, m.SSRC),
	}
	m.Seq++
	m.Time += 160
	for _, f := range change {
		f(p)
	}
	return p
}

// Send sends n packets of RTP to an address and returns them.
func (m *MediaStub) Send(t T, to netip.AddrPort, n int, change ...func(*rtp.Packet)) []*rtp.Packet {
	t.Helper()
	var sent []*rtp.Packet
	for range n {
		p := m.Packet(change...)
		m.SendRaw(t, to, m.Seal(t, p))
		sent = append(sent, p)
	}
	return sent
}

// Seal gives a packet as the stub puts it on the wire.
func (m *MediaStub) Seal(t T, p *rtp.Packet) []byte {
	t.Helper()
	b, err := p.Marshal()
	if err != nil {
		t.Fatalf("%v", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.send != nil {
		if b, err = m.send.EncryptRTP(nil, b, nil); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return b
}

// SendRaw sends a datagram from the RTP port.
func (m *MediaStub) SendRaw(t T, to netip.AddrPort, b []byte) {
	t.Helper()
	if _, err := m.rtp.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatalf("%v", err)
	}
}

// SendReport sends a sender report; from the RTP port with mux. to is where it goes.
func (m *MediaStub) SendReport(t T, to netip.AddrPort, mux bool, packets uint32) {
	t.Helper()
	m.SendRTCP(t, to, mux, &rtcp.SenderReport{SSRC: m.SSRC, PacketCount: packets, RTPTime: m.Time})
}

// SendRTCP sends a compound packet and returns it in the clear.
func (m *MediaStub) SendRTCP(t T, to netip.AddrPort, mux bool, packets ...rtcp.Packet) []byte {
	t.Helper()
	plain, err := rtcp.Marshal(packets)
	if err != nil {
		t.Fatalf("%v", err)
	}
	b := plain
	m.mu.Lock()
	if m.send != nil {
		b, err = m.send.EncryptRTCP(nil, b, nil)
	}
	m.mu.Unlock()
	if err != nil {
		t.Fatalf("%v", err)
	}
	c := m.rtcp
	if mux {
		c = m.rtp
	}
	if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatalf("%v", err)
	}
	return plain
}

func (m *MediaStub) read(c *net.UDPConn, onRTP bool) {
	buf := make([]byte, 2048)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		m.take(slices.Clone(buf[:n]), onRTP)
	}
}

func (m *MediaStub) take(b []byte, onRTP bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() {
		select {
		case m.came <- struct{}{}:
		default: // somebody will look anyway
		}
	}()
	var err error
	if isRTCP(b) {
		if m.recv != nil {
			if b, err = m.recv.DecryptRTCP(nil, b, nil); err != nil {
				m.bad = append(m.bad, err)
				return
			}
		}
		m.reports = append(m.reports, b)
		if onRTP {
			m.muxed++
		}
		return
	}
	if m.recv != nil {
		if b, err = m.recv.DecryptRTP(nil, b, nil); err != nil {
			m.bad = append(m.bad, err)
			return
		}
	}
	p := &rtp.Packet{}
	if err := p.Unmarshal(b); err != nil {
		m.bad = append(m.bad, err)
		return
	}
	m.got = append(m.got, p)
}

// Got gives the packets that have come, decrypted.
func (m *MediaStub) Got() []*rtp.Packet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got)
}

// Bad gives what could not be read.
func (m *MediaStub) Bad() []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.bad)
}

// Reports gives the RTCP that has come, in the clear, and how much of it on the RTP port.
func (m *MediaStub) Reports() (all [][]byte, muxed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.reports), m.muxed
}

// Forget empties what has come.
func (m *MediaStub) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got, m.reports, m.bad, m.muxed = nil, nil, nil, 0
}
