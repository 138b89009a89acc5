package pvp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
)

// Frames and their only lengths (docs/protocol/pvp.md, Transport).
const (
	protocolVersion = 1
	slots           = 64
	shortTag        = 16 // in a slot
	longTag         = 32 // in FINISH
	sealOverhead    = 16 // AES-GCM's tag

	frameStart  = 1
	frameOffer  = 2
	frameFinish = 3
	frameAnswer = 4
	frameBusy   = 5

	headerSize  = 3
	adaSize     = 1 + 1 + 2 + 16 + 16 // START without its point
	startSize   = adaSize + pointSize
	slotSize    = pointSize + shortTag
	offerSize   = slots * slotSize
	requestSize = 320
	finishSize  = 1 + longTag + requestSize + sealOverhead
	answerPlain = 8192
	answerSize  = answerPlain + sealOverhead
)

var (
	errFrame = errors.New("malformed frame")
	errTLV   = errors.New("malformed contents")
)

// isFrameError tells bytes that break the protocol from a connection that ended.
func isFrameError(err error) bool { return errors.Is(err, errFrame) }

// bodySize is the length of a frame's body, -1 of a type that there is not.
func bodySize(kind byte) int {
	switch kind {
	case frameStart:
		return startSize
	case frameOffer:
		return offerSize
	case frameFinish:
		return finishSize
	case frameAnswer:
		return answerSize
	case frameBusy:
		return 0
	}
	return -1
}

// readFrame reads one of the wanted frames. It allocates only what the type allows, after the header has been found good.
func readFrame(r io.Reader, wanted ...byte) (byte, []byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	kind, size := head[0], int(binary.BigEndian.Uint16(head[1:]))
	if size != bodySize(kind) || !slices.Contains(wanted, kind) {
		return 0, nil, fmt.Errorf("%w: type %d of %d bytes", errFrame, kind, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	return kind, body, nil
}

// writeFrame writes header and body as one record.
func writeFrame(w io.Writer, kind byte, body []byte) error {
	if len(body) != bodySize(kind) {
		panic(fmt.Sprintf("pvp: frame type %d with %d bytes", kind, len(body)))
	}
	b := make([]byte, 0, headerSize+len(body))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	if _, err := w.Write(append(b, body...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// start is what the originator opens a run with.
type start struct {
	method                 Method
	page                   uint8 // which of the called number's calls: 0 for the newest ones
	selector               uint16
	originator, terminator learn.PeerID
	public                 [pointSize]byte
}

// ada is the associated data of the originator's share.
func (s *start) ada() []byte {
	b := make([]byte, 0, startSize)
	b = append(b, protocolVersion, byte(s.method)|s.page<<4)
	b = binary.BigEndian.AppendUint16(b, s.selector)
	b = append(b, s.originator[:]...)
	return append(b, s.terminator[:]...)
}

// ci is the channel identifier: both names, with their roles.
func (s *start) ci() []byte {
	return lv([]byte("imeproxy pvp 1"), s.originator[:], s.terminator[:])
}

func (s *start) encode() []byte { return append(s.ada(), s.public[:]...) }

func decodeStart(b []byte) (*start, error) {
	if len(b) != startSize || b[0] != protocolVersion || Method(b[1]&0x0f).Value() == 0 || b[1]>>4 >= pages {
		return nil, fmt.Errorf("%w: START", errFrame)
	}
	return &start{
		method: Method(b[1] & 0x0f), page: b[1] >> 4, selector: binary.BigEndian.Uint16(b[2:]),
		originator: learn.PeerID(b[4:20]), terminator: learn.PeerID(b[20:36]), public: [pointSize]byte(b[36:]),
	}, nil
}

// slot is one share of the terminator with its proof.
type slot struct {
	public [pointSize]byte
	tag    [shortTag]byte
}

func encodeOffer(s *[slots]slot) []byte {
	b := make([]byte, 0, offerSize)
	for i := range s {
		b = append(b, s[i].public[:]...)
		b = append(b, s[i].tag[:]...)
	}
	return b
}

func decodeOffer(b []byte) (*[slots]slot, error) {
	if len(b) != offerSize {
		return nil, fmt.Errorf("%w: OFFER", errFrame)
	}
	var s [slots]slot
	for i := range s {
		at := b[i*slotSize:]
		s[i] = slot{[pointSize]byte(at[:pointSize]), [shortTag]byte(at[pointSize:slotSize])}
	}
	return &s, nil
}

// finish is the originator's proof with its request under the run's key.
type finish struct {
	slot   uint8
	tag    [longTag]byte
	sealed []byte
}

func (f *finish) encode() []byte {
	b := make([]byte, 0, finishSize)
	b = append(b, f.slot)
	b = append(b, f.tag[:]...)
	return append(b, f.sealed...)
}

func decodeFinish(b []byte) (*finish, error) {
	if len(b) != finishSize || b[0] >= slots {
		return nil, fmt.Errorf("%w: FINISH", errFrame)
	}
	return &finish{slot: b[0], tag: [longTag]byte(b[1 : 1+longTag]), sealed: b[1+longTag:]}, nil
}

// Code is the terminator's answer after a good proof.
type Code uint8

// Codes. The last two never stand on the wire: the originator found them.
const (
	CodeGranted     Code = 0
	CodeRefused     Code = 1   // the domain is not wanted
	CodeUnavailable Code = 2   // no ticket can be given now
	CodeBadAnswer   Code = 254 // the answer does not hold what it must
	CodeLost        Code = 255 // the proof went out and no answer came back
)

// String names the code as logs and show commands do.
func (c Code) String() string {
	switch c {
	case CodeGranted:
		return "granted"
	case CodeRefused:
		return "refused"
	case CodeUnavailable:
		return "unavailable"
	case CodeBadAnswer:
		return "bad answer"
	case CodeLost:
		return "lost"
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Grant is what a terminator gives.
type Grant struct {
	// Numbers are +E.164, 1 to 64; the called one is among them, the others are its aliases.
	Numbers []learn.Number
	// Domain is the terminator's, in lower case.
	Domain string
	// Routes are 1 to 8 SIP or SIPS URIs of the terminator's edge in order of preference.
	Routes []string
	// Ticket is the value of X-Cisco-UC-IME-Ticket.
	Ticket string
}

const (
	tlvPadding   = 0x0000
	tlvDomain    = 0x0001
	tlvCode      = 0x0002
	tlvNumber    = 0x0003
	tlvOwner     = 0x0004 // the terminator's domain
	tlvRoute     = 0x0005
	tlvTicket    = 0x0006
	tlvExtension = 0x0100

	maxRoutes = 8
	maxRoute  = 255
)

func appendTLV(b []byte, kind uint16, value string) []byte {
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// tlvs calls each with every field in turn and checks order and padding.
func tlvs(b []byte, each func(kind uint16, value string) error) error {
	last := uint16(1)
	for len(b) >= 4 {
		kind, size := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if kind == tlvPadding {
			break
		}
		if kind < last || size > len(b)-4 {
			return fmt.Errorf("%w: field 0x%04x", errTLV, kind)
		}
		if kind < tlvExtension {
			if err := each(kind, string(b[4:4+size])); err != nil {
				return err
			}
		}
		last, b = kind, b[4+size:]
	}
	for _, c := range b {
		if c != 0 {
			return fmt.Errorf("%w: padding", errTLV)
		}
	}
	return nil
}

// wireDomain wants the one form of a domain that the wire has.
func wireDomain(s string) error {
	if d, err := ticket.NormalizeDomain(s); err != nil || d != s {
		return fmt.Errorf("%w: domain", errTLV)
	}
	return nil
}

// encodeRequest pads to the fixed size; a domain has at most 253 bytes.
func encodeRequest(domain string) []byte {
	return append(appendTLV(make([]byte, 0, requestSize), tlvDomain, domain), make([]byte, requestSize-4-len(domain))...)
}

func decodeRequest(b []byte) (domain string, err error) {
	err = tlvs(b, func(kind uint16, value string) error {
		if kind != tlvDomain || domain != "" {
			return fmt.Errorf("%w: field 0x%04x", errTLV, kind)
		}
		domain = value
		return wireDomain(value)
	})
	if err != nil {
		return "", err
	}
	if domain == "" {
		return "", fmt.Errorf("%w: no domain", errTLV)
	}
	return domain, nil
}

// check says what of g may not stand on the wire, nil for nothing.
func (g *Grant) check() error {
	if len(g.Numbers) < 1 || len(g.Numbers) > ticket.MaxNumbers {
		return fmt.Errorf("%w: %d numbers", errTLV, len(g.Numbers))
	}
	for _, n := range g.Numbers {
		if !n.Valid() || len(n) < 3 {
			return fmt.Errorf("%w: number %q", errTLV, n)
		}
	}
	if err := wireDomain(g.Domain); err != nil {
		return err
	}
	if len(g.Routes) < 1 || len(g.Routes) > maxRoutes {
		return fmt.Errorf("%w: %d routes", errTLV, len(g.Routes))
	}
	for _, r := range g.Routes {
		if !wireRoute(r) {
			return fmt.Errorf("%w: route %q", errTLV, r)
		}
	}
	if n := len(g.Ticket); n < 1 || n > ticket.MaxEncoded {
		return fmt.Errorf("%w: ticket of %d characters", errTLV, n)
	}
	return nil
}

// encodeAnswer pads to the fixed size; g is nil unless code is CodeGranted.
func encodeAnswer(code Code, g *Grant) []byte {
	b := appendTLV(make([]byte, 0, answerPlain), tlvCode, string([]byte{byte(code)}))
	if g != nil {
		for _, n := range g.Numbers {
			b = appendTLV(b, tlvNumber, string(n))
		}
		b = appendTLV(b, tlvOwner, g.Domain)
		for _, r := range g.Routes {
			b = appendTLV(b, tlvRoute, r)
		}
		b = appendTLV(b, tlvTicket, g.Ticket)
	}
	return append(b, make([]byte, answerPlain-len(b))...)
}

func decodeAnswer(b []byte) (code Code, g *Grant, err error) {
	seen, out := false, &Grant{}
	err = tlvs(b, func(kind uint16, value string) error {
		switch {
		case kind == tlvCode && !seen && len(value) == 1:
			seen, code = true, Code(value[0])
			return nil
		case !seen || code != CodeGranted:
		case kind == tlvNumber && len(out.Numbers) < ticket.MaxNumbers:
			out.Numbers = append(out.Numbers, learn.Number(value))
			return nil
		case kind == tlvOwner && out.Domain == "":
			out.Domain = value
			return nil
		case kind == tlvRoute && len(out.Routes) < maxRoutes:
			out.Routes = append(out.Routes, value)
			return nil
		case kind == tlvTicket && out.Ticket == "":
			out.Ticket = value
			return nil
		}
		return fmt.Errorf("%w: field 0x%04x", errTLV, kind)
	})
	switch {
	case err != nil:
		return 0, nil, err
	case !seen || code > CodeUnavailable:
		return 0, nil, fmt.Errorf("%w: code", errTLV)
	case code != CodeGranted:
		return code, nil, nil
	}
	if err := out.check(); err != nil {
		return 0, nil, err
	}
	return code, out, nil
}
