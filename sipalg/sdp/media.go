package sdp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Directions of a stream (RFC 3264 section 5.1), as their author sees them.
const (
	SendRecv = "sendrecv"
	SendOnly = "sendonly"
	RecvOnly = "recvonly"
	Inactive = "inactive"
)

// maxCryptos caps the a=crypto lines kept for one medium.
const maxCryptos = 32

// Media is one m= line and what belongs to it. Effective values have the
// session's value where the medium has none of its own.
type Media struct {
	// Kind is the media type, such as "audio", "video" or "application".
	Kind string
	// Port is 0 where the line is refused or taken back, else 1 to 65535.
	Port int
	// PortCount is the number of port pairs, 1 by default.
	PortCount int
	// Proto is the transport as written, such as "RTP/SAVP".
	Proto string
	// Formats are the payload types or format names in order of preference.
	Formats []string
	// Connection is the effective address; invalid where it is a name or
	// where no c= line applies.
	Connection netip.Addr
	// ConnectionHost is the effective address as written; "" means none.
	ConnectionHost string
	// Hold reports c=0.0.0.0 (or ::), the hold of RFC 2543.
	Hold bool
	// RTCP is where RTCP goes when it is not multiplexed: a=rtcp, else the
	// effective address and Port+1. Its address is invalid where Connection is.
	RTCP netip.AddrPort
	// Mux reports a=rtcp-mux. In an offer it is a wish only.
	Mux bool
	// Direction is the effective direction.
	Direction string
	// Cryptos are the readable a=crypto lines in their order.
	Cryptos []Crypto
	// BadCryptos counts the a=crypto lines that could not be read, that
	// repeat a tag, or that are over the cap.
	BadCryptos int
	// Ptime is a=ptime in milliseconds, 0 where there is none.
	Ptime int
	// Rtpmap has the encoding ("PCMU/8000") by format.
	Rtpmap map[string]string
	// DTLS reports keys by DTLS: a fingerprint or a TLS transport.
	DTLS bool
	// ICE reports candidates or ICE credentials.
	ICE bool

	// start and end are the lines of the section: [start, end).
	start, end int
	// ownConnection reports a c= line in the section.
	ownConnection bool
}

// IsRTP reports a transport that carries RTP.
func (m *Media) IsRTP() bool {
	_, ok := SecureProto(m.Proto)
	return ok
}

// IsSecure reports RTP/SAVP or RTP/SAVPF, the transports with a=crypto keys.
func (m *Media) IsSecure() bool {
	p := strings.ToUpper(m.Proto)
	return p == "RTP/SAVP" || p == "RTP/SAVPF"
}

// IsPlain reports RTP/AVP or RTP/AVPF, the transports without encryption.
func (m *Media) IsPlain() bool {
	p := strings.ToUpper(m.Proto)
	return p == "RTP/AVP" || p == "RTP/AVPF"
}

// SecureProto is the SRTP transport for proto (RTP/AVP gives RTP/SAVP, RTP/AVPF
// gives RTP/SAVPF); ok is false where proto does not carry RTP.
func SecureProto(proto string) (secure string, ok bool) {
	switch strings.ToUpper(proto) {
	case "RTP/AVP", "RTP/SAVP", "UDP/TLS/RTP/SAVP":
		return "RTP/SAVP", true
	case "RTP/AVPF", "RTP/SAVPF", "UDP/TLS/RTP/SAVPF":
		return "RTP/SAVPF", true
	}
	return "", false
}

// PlainProto is the RTP transport for proto, the other way round.
func PlainProto(proto string) (plain string, ok bool) {
	s, ok := SecureProto(proto)
	return strings.Replace(s, "SAVP", "AVP", 1), ok
}

func isDirection(name string) bool {
	return name == SendRecv || name == SendOnly || name == RecvOnly || name == Inactive
}

// parseMediaLine reads m=KIND PORT[/COUNT] PROTO FORMAT... . A line without
// formats passes: some devices refuse a line that way.
func parseMediaLine(line string) (*Media, error) {
	f := fields(line)
	if len(f) < 3 {
		return nil, fmt.Errorf("%w: %q", ErrMalformed, line)
	}
	m := &Media{Kind: f[0].of(line), Proto: f[2].of(line), PortCount: 1, Rtpmap: map[string]string{}}
	port, count, counted := strings.Cut(f[1].of(line), "/")
	n, err := number(port, 0, 65535)
	if err != nil {
		return nil, fmt.Errorf("%w: port in %q", ErrMalformed, line)
	}
	m.Port = n
	if counted {
		if m.PortCount, err = number(count, 1, 65535); err != nil {
			return nil, fmt.Errorf("%w: port count in %q", ErrMalformed, line)
		}
	}
	m.Formats = make([]string, 0, len(f)-3)
	for _, p := range f[3:] {
		m.Formats = append(m.Formats, p.of(line))
	}
	return m, nil
}

// number reads digits only: strconv alone would take a sign.
func number(s string, lo, hi int) (int, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < lo || n > hi {
		return 0, strconv.ErrRange
	}
	return n, nil
}

func (m *Media) parseSection(s *Session) error {
	m.Connection, m.ConnectionHost = s.Connection, s.ConnectionHost
	m.Direction, m.DTLS, m.ICE = s.Direction, s.dtls, s.ice
	if strings.Contains(strings.ToUpper(m.Proto), "TLS/") {
		m.DTLS = true
	}
	rtcp := ""
	for _, l := range s.Lines[m.start+1 : m.end] {
		switch l.kind() {
		case 'v', 'o':
			// They open a session; here a reader could see a second one.
			return fmt.Errorf("%w: %q after an m= line", ErrMalformed, l.Text)
		case 'c':
			host, err := connectionHost(l.Text)
			if err != nil {
				return err
			}
			if !m.ownConnection {
				m.ownConnection, m.ConnectionHost, m.Connection = true, host, literal(host)
			}
		case 'a':
			name, value := attribute(l.Text)
			if name == "rtcp" && rtcp == "" {
				rtcp = l.Text
			} else {
				m.parseAttribute(name, value)
			}
		}
	}
	m.Hold = m.Connection.IsValid() && m.Connection.IsUnspecified()
	if m.Port > 0 && m.Port < 65535 {
		m.RTCP = netip.AddrPortFrom(m.Connection, uint16(m.Port+1))
	}
	if r, ok := parseRTCP(rtcp); ok {
		m.RTCP = netip.AddrPortFrom(m.Connection, uint16(r.port))
		if r.host != "" {
			m.RTCP = netip.AddrPortFrom(literal(r.host), uint16(r.port))
		}
	}
	return nil
}

func (m *Media) parseAttribute(name, value string) {
	switch name {
	case SendRecv, SendOnly, RecvOnly, Inactive:
		m.Direction = name
	case "rtcp-mux":
		m.Mux = true
	case "crypto":
		m.addCrypto(value)
	case "ptime":
		if n, err := number(value, 1, 1000); err == nil {
			m.Ptime = n
		}
	case "rtpmap":
		if format, encoding, ok := strings.Cut(value, " "); ok {
			m.Rtpmap[format] = strings.TrimSpace(encoding)
		}
	case "fingerprint":
		m.DTLS = true
	case "candidate", "ice-ufrag":
		m.ICE = true
	}
}

func (m *Media) addCrypto(value string) {
	c, err := ParseCrypto(value)
	if err != nil || len(m.Cryptos) == maxCryptos {
		m.BadCryptos++
		return
	}
	for _, have := range m.Cryptos {
		if have.Tag == c.Tag {
			m.BadCryptos++
			return
		}
	}
	m.Cryptos = append(m.Cryptos, c)
}

// rtcpAttribute is a=rtcp:PORT [IN IP4 ADDRESS] (RFC 3605).
type rtcpAttribute struct {
	port int
	host string
	at   [2]span // address type and address, where host is set
}

func parseRTCP(line string) (rtcpAttribute, bool) {
	if line == "" {
		return rtcpAttribute{}, false
	}
	_, value := attribute(line)
	port, _, more := strings.Cut(value, " ")
	n, err := number(port, 1, 65535)
	if err != nil {
		return rtcpAttribute{}, false
	}
	r := rtcpAttribute{port: n}
	if more {
		f, err := addressFields(line)
		if err != nil {
			return rtcpAttribute{}, false
		}
		r.host, r.at = f[1].of(line), f
	}
	return r, true
}
