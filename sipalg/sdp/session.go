package sdp

import (
	"fmt"
	"net/netip"
	"strings"
)

// Caps on what comes from outside.
const (
	// MaxBody is the largest description accepted, in bytes.
	MaxBody = 64 << 10
	// MaxLine is the longest line accepted, in bytes without its line end.
	MaxLine = 8 << 10
	// MaxMedia is the largest number of m= lines accepted.
	MaxMedia = 32
)

// Line is one line as it came.
type Line struct {
	// Text is the line without its line end, such as "c=IN IP4 192.0.2.1".
	Text string
	// EOL is "\r\n", "\n" or, on a last line only, "".
	EOL string
}

// kind is the type letter, 0 for an empty line.
func (l Line) kind() byte {
	if l.Text == "" {
		return 0
	}
	return l.Text[0]
}

// Origin is the o= line (RFC 8866 section 5.2). SessionID and Version are text
// because real devices send numbers beyond 64 bits.
type Origin struct {
	Username, SessionID, Version string
	// Host is the address as written, Addr the same where it is literal.
	Host string
	Addr netip.Addr
}

// Session is a parsed description. It is not changed after Parse, so several
// goroutines may use it at the same time.
type Session struct {
	// Lines are all lines in the order in which they came.
	Lines []Line
	// Media has one element for each m= line, refused ones included.
	Media []*Media
	// Origin is zero where there is no o= line.
	Origin Origin
	// Connection is the address of the session-level c= line; invalid where
	// there is none or it holds a name.
	Connection netip.Addr
	// ConnectionHost is the same as written, without TTL; "" means no line.
	ConnectionHost string
	// Direction is the session-level direction, "sendrecv" by default.
	Direction string

	// head is the number of lines before the first m= line.
	head int
	// dtls and ice note session-level attributes that all media inherit.
	dtls, ice bool
}

// Parse reads a description. The result keeps no reference to body. The error
// wraps ErrMalformed, ErrTooLarge or ErrTooManyMedia.
//
// What phones leave out (o=, s=, t=, a last line end) may be missing; only the
// leading v= line must stand. Text that two readers could understand in two
// ways (bare CR, lines after an empty one, TYPE that is no letter) is refused.
func Parse(body []byte) (*Session, error) {
	if len(body) > MaxBody {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(body))
	}
	lines, err := split(string(body))
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 || strings.TrimSpace(lines[0].Text) != "v=0" {
		return nil, fmt.Errorf("%w: the first line is not v=0", ErrMalformed)
	}
	s := &Session{Lines: lines, Direction: SendRecv, head: len(lines)}
	for i, l := range lines {
		if l.kind() != 'm' {
			continue
		}
		if len(s.Media) == 0 {
			s.head = i
		} else {
			s.Media[len(s.Media)-1].end = i
		}
		if len(s.Media) == MaxMedia {
			return nil, ErrTooManyMedia
		}
		m, err := parseMediaLine(l.Text)
		if err != nil {
			return nil, err
		}
		m.start, m.end = i, len(lines)
		s.Media = append(s.Media, m)
	}
	if err := s.parseHead(); err != nil {
		return nil, err
	}
	for _, m := range s.Media {
		if err := m.parseSection(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Size is about as many bytes as the description keeps in memory: many short lines take more than their text.
func (s *Session) Size() int {
	const line, media = 64, 1 << 10
	n := line*len(s.Lines) + media*len(s.Media)
	for _, l := range s.Lines {
		n += len(l.Text)
	}
	return n
}

// Bytes returns the description as it came.
func (s *Session) Bytes() []byte { return join(s.Lines) }

func join(lines []Line) []byte {
	n := 0
	for _, l := range lines {
		n += len(l.Text) + len(l.EOL)
	}
	out := make([]byte, 0, n)
	for _, l := range lines {
		out = append(out, l.Text...)
		out = append(out, l.EOL...)
	}
	return out
}

// split cuts text into lines and refuses what a second reader could cut
// elsewhere.
func split(text string) ([]Line, error) {
	lines := make([]Line, 0, strings.Count(text, "\n")+1)
	blank := false
	for n := 1; text != ""; n++ {
		var l Line
		if i := strings.IndexByte(text, '\n'); i < 0 {
			l.Text, text = text, ""
		} else {
			l.Text, l.EOL, text = text[:i], "\n", text[i+1:]
		}
		if t, ok := strings.CutSuffix(l.Text, "\r"); ok && l.EOL != "" {
			l.Text, l.EOL = t, "\r\n"
		}
		if len(l.Text) > MaxLine {
			return nil, fmt.Errorf("%w: line %d has %d bytes", ErrTooLarge, n, len(l.Text))
		}
		if strings.ContainsAny(l.Text, "\r\x00") {
			return nil, fmt.Errorf("%w: line %d holds a bare CR or a NUL", ErrMalformed, n)
		}
		switch {
		case l.Text == "":
			blank = true
		case blank:
			return nil, fmt.Errorf("%w: line %d follows an empty line", ErrMalformed, n)
		case len(l.Text) < 2 || l.Text[0] < 'a' || l.Text[0] > 'z' || l.Text[1] != '=':
			return nil, fmt.Errorf("%w: line %d is not TYPE=VALUE", ErrMalformed, n)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func (s *Session) parseHead() error {
	for _, l := range s.Lines[:s.head] {
		switch l.kind() {
		case 'o':
			if err := s.parseOrigin(l.Text); err != nil {
				return err
			}
		case 'c':
			host, err := connectionHost(l.Text)
			if err != nil {
				return err
			}
			if s.ConnectionHost == "" {
				s.ConnectionHost, s.Connection = host, literal(host)
			}
		case 'a':
			name, _ := attribute(l.Text)
			switch {
			case isDirection(name):
				s.Direction = name
			case name == "fingerprint":
				s.dtls = true
			case name == "ice-ufrag" || name == "candidate":
				s.ice = true
			}
		}
	}
	return nil
}

// parseOrigin counts fields from the end, because phones send blanks in the
// user name.
func (s *Session) parseOrigin(line string) error {
	if s.Origin.Host != "" {
		return fmt.Errorf("%w: a second o= line", ErrMalformed)
	}
	f := fields(line)
	if _, err := addressFields(line); err != nil || len(f) < 5 {
		return fmt.Errorf("%w: %q", ErrMalformed, line)
	}
	n := len(f)
	s.Origin.Host = f[n-1].of(line)
	s.Origin.Addr = literal(s.Origin.Host)
	s.Origin.Version = f[n-4].of(line)
	s.Origin.SessionID = f[n-5].of(line)
	s.Origin.Username = strings.TrimSpace(line[2:f[n-5].start])
	return nil
}

// span is one field of a line, so that a field can change in its place.
type span struct{ start, end int }

func (p span) of(line string) string { return line[p.start:p.end] }

// fields finds the fields of a line's value, blanks and tabs apart.
func fields(line string) []span {
	out := make([]span, 0, 8) // more are rare
	start := -1
	for i := 2; i <= len(line); i++ {
		space := i == len(line) || line[i] == ' ' || line[i] == '\t'
		switch {
		case space && start >= 0:
			out = append(out, span{start, i})
			start = -1
		case !space && start < 0:
			start = i
		}
	}
	return out
}

// addressFields checks that a line ends in "IN IP4|IP6 ADDRESS" and returns the
// last two fields.
func addressFields(line string) ([2]span, error) {
	f := fields(line)
	n := len(f)
	if n < 3 || !strings.EqualFold(f[n-3].of(line), "IN") {
		return [2]span{}, fmt.Errorf("%w: %q", ErrMalformed, line)
	}
	if t := f[n-2].of(line); !strings.EqualFold(t, "IP4") && !strings.EqualFold(t, "IP6") {
		return [2]span{}, fmt.Errorf("%w: %q", ErrMalformed, line)
	}
	return [2]span{f[n-2], f[n-1]}, nil
}

// connectionHost is the address of a c= line without TTL and count. A line with more than its three fields is refused: who reads it from
// its beginning would send media to another address than the one that is checked and replaced here.
func connectionHost(line string) (string, error) {
	f, err := addressFields(line)
	if err == nil && len(fields(line)) != 3 {
		err = fmt.Errorf("%w: %q", ErrMalformed, line)
	}
	if err != nil {
		return "", err
	}
	host, _, _ := strings.Cut(f[1].of(line), "/")
	if host == "" {
		return "", fmt.Errorf("%w: %q", ErrMalformed, line)
	}
	return host, nil
}

// literal is the address that host spells, invalid where it is a name. A zone
// has no meaning on another machine and counts as a name.
func literal(host string) netip.Addr {
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}
	}
	return a
}

// attribute splits "a=NAME:VALUE". Names compare without case: a lenient reader
// behind us would take a=Candidate for a candidate.
func attribute(line string) (name, value string) {
	name, value, _ = strings.Cut(line[2:], ":")
	return strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
}
