package vap

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"imeproxy/ucime/learn"
)

// ServiceID is a VServiceId: 8 bytes that a client chose for a service, not 0. It prints as 16 hexadecimal digits.
type ServiceID [8]byte

func (id ServiceID) String() string { return hex.EncodeToString(id[:]) }

// ParseServiceID reads 16 hexadecimal digits of either case.
func ParseServiceID(s string) (ServiceID, error) {
	var id ServiceID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || [8]byte(b) == (ServiceID{}) {
		return id, bad("VServiceId %.32q: want 16 hexadecimal digits, not all 0", s)
	}
	return ServiceID(b), nil
}

// Services and limits of the protocol.
const (
	serviceNumbers uint16 = 100
	serviceItself  uint16 = 101

	DefaultOverlay = "intercompanymedianetwork"
	MaxServices    = 16  // a user
	MaxPages       = 128 // a service
	PageSize       = 500 // patterns and exclusions a page
	MaxURIs        = 8
	MaxTrust       = 256 // domains, and prefixes
	maxNameLen     = 50
	maxURILen      = 512
)

// identity is a Service-Identity.
type identity struct {
	service, sub uint16
	id           ServiceID
}

func (i identity) bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, i.service)
	b = binary.BigEndian.AppendUint16(b, i.sub)
	return append(append(b, i.id[:]...), make([]byte, 8)...)
}

// identity reads and checks the message's Service-Identity; subs is how many subservices service 100 has here.
func (m *message) identity(subs uint16) (identity, error) {
	v := m.get(attrIdentity)
	i := identity{binary.BigEndian.Uint16(v), binary.BigEndian.Uint16(v[2:]), ServiceID(v[4:12])}
	switch {
	case i.service != serviceItself && i.service != serviceNumbers:
		return i, fail(CodeUnknownService, "service %d", i.service)
	case i.id == (ServiceID{}) || [8]byte(v[12:]) != [8]byte{}:
		return i, fail(CodeInvalidIdentity, "instance: want 8 bytes that are not 0, then 8 bytes 0")
	case i.service == serviceItself && i.sub != 0 || i.sub >= subs:
		return i, fail(CodeInvalidIdentity, "subservice %d", i.sub)
	}
	return i, nil
}

// Trust is a trust group: which domains and numbers a service may have to do with (guide lines 2967-3050). Prefixes are + and digits.
type Trust struct {
	Trusted  bool // true: these only; false: all but these
	Domains  []string
	Prefixes []string
}

// Allows reports whether calls between the service and a number of a domain are allowed. The zero Trust allows all. A trusted group that has
// domains and prefixes allows what matches one of either.
func (t Trust) Allows(domain string, number learn.Number) bool {
	match := slices.ContainsFunc(t.Domains, func(d string) bool { return strings.EqualFold(d, domain) }) ||
		slices.ContainsFunc(t.Prefixes, func(p string) bool { return strings.HasPrefix(string(number), p) })
	return match == t.Trusted
}

// Service is what a call agent publishes (docs/protocol/vap.md, section 7, vservice).
type Service struct {
	ID      ServiceID
	Name    string
	Overlay string // empty: DefaultOverlay
	Domain  string
	MaxDIDs uint32   // didcount
	URIs    []string // in order of preference
	Trust   Trust
}

// Check reports the first field that is against the protocol, and puts overlay, domains and prefixes into canonical form.
func (s *Service) Check() error {
	if s.Overlay == "" {
		s.Overlay = DefaultOverlay
	}
	s.Overlay, s.Domain = strings.ToLower(s.Overlay), strings.ToLower(s.Domain)
	switch n := len([]rune(s.Name)); {
	case s.ID == ServiceID{}:
		return bad("VServiceId is 0")
	case n < 1 || n > maxNameLen || !printable(s.Name):
		return bad("name: want 1 to %d characters without control characters", maxNameLen)
	case !goodDomain(s.Overlay):
		return bad("overlay %.64q is no domain name", s.Overlay)
	case !goodDomain(s.Domain):
		return bad("domain %.64q is no domain name", s.Domain)
	case len(s.URIs) < 1 || len(s.URIs) > MaxURIs:
		return bad("%d SIP URIs, want 1 to %d", len(s.URIs), MaxURIs)
	case len(s.Trust.Domains) > MaxTrust || len(s.Trust.Prefixes) > MaxTrust:
		return fail(CodeTooLarge, "trust: at most %d domains and %d prefixes", MaxTrust, MaxTrust)
	}
	for _, u := range s.URIs {
		if !goodURI(u) || param(u, "maddr") == "" || param(u, "transport") == "" {
			return bad("SIP URI %.64q: want sip: or sips:, maddr and transport, at most %d printable characters", u, maxURILen)
		}
	}
	s.Trust.Domains, s.Trust.Prefixes = slices.Clone(s.Trust.Domains), slices.Clone(s.Trust.Prefixes)
	for i, d := range s.Trust.Domains {
		if s.Trust.Domains[i] = strings.ToLower(d); !goodDomain(s.Trust.Domains[i]) {
			return bad("trust: %.64q is no domain name", d)
		}
	}
	for i, p := range s.Trust.Prefixes {
		plain, wild := strings.CutSuffix(p, "!")
		if s.Trust.Prefixes[i] = plain; !goodPrefix(plain) || wild && len(plain) > 15 {
			return bad("trust: prefix %.32q: want + and up to 15 digits, or up to 14 and !", p)
		}
	}
	return nil
}

func (s *Service) document() []byte {
	var w writer
	w.open("vservice")
	w.leaf("name", s.Name)
	w.leaf("overlay", s.Overlay)
	w.leaf("domain", s.Domain)
	w.leaf("didcount", strconv.FormatUint(uint64(s.MaxDIDs), 10))
	for _, u := range s.URIs {
		w.leaf("sipuri", u)
	}
	if t := s.Trust; t.Trusted || len(t.Domains)+len(t.Prefixes) > 0 {
		w.open("trust")
		w.leaf("mode", map[bool]string{true: "trusted", false: "untrusted"}[t.Trusted])
		for _, d := range t.Domains {
			w.leaf("domain", d)
		}
		for _, p := range t.Prefixes {
			w.leaf("prefix", p)
		}
		w.close("trust")
	}
	w.close("vservice")
	return w.b.Bytes()
}

func readService(id ServiceID, data []byte) (Service, error) {
	s := Service{ID: id}
	n, err := readDocument(data, "vservice")
	if err != nil {
		return s, err
	}
	for _, f := range []struct {
		name     string
		into     *string
		optional bool
	}{{"name", &s.Name, false}, {"overlay", &s.Overlay, true}, {"domain", &s.Domain, false}} {
		if *f.into, err = n.one(f.name, f.optional); err != nil {
			return s, err
		}
	}
	count, err := n.one("didcount", false)
	if err != nil {
		return s, err
	}
	dids, err := strconv.ParseUint(count, 10, 32)
	if err != nil {
		return s, bad("didcount %.32q: want 0 to 4294967295", count)
	}
	s.MaxDIDs = uint32(dids)
	if s.URIs, err = n.texts("sipuri", MaxURIs); err != nil {
		return s, err
	}
	if s.Trust, err = readTrust(n); err != nil {
		return s, err
	}
	return s, s.Check()
}

func readTrust(n *node) (t Trust, err error) {
	groups := n.all("trust")
	if len(groups) == 0 {
		return t, nil
	}
	if len(groups) > 1 {
		return t, bad("<trust> stands twice in <vservice>")
	}
	mode, err := groups[0].one("mode", false)
	if err != nil {
		return t, err
	}
	if t.Trusted = mode == "trusted"; !t.Trusted && mode != "untrusted" {
		return t, bad("trust: mode %.32q: want trusted or untrusted", mode)
	}
	if t.Domains, err = groups[0].texts("domain", MaxTrust); err != nil {
		return t, err
	}
	t.Prefixes, err = groups[0].texts("prefix", MaxTrust)
	return t, err
}

// page is a numbers document.
type page struct{ patterns, exclude []Pattern }

func (p page) document() []byte {
	var w writer
	w.open("numbers")
	for _, n := range p.patterns {
		w.leaf("pattern", string(n))
	}
	for _, n := range p.exclude {
		w.leaf("exclude", string(n))
	}
	w.close("numbers")
	return w.b.Bytes()
}

func readPage(data []byte) (p page, err error) {
	n, err := readDocument(data, "numbers")
	if err != nil {
		return p, err
	}
	if len(n.all("pattern"))+len(n.all("exclude")) > PageSize {
		return p, fail(CodeTooLarge, "at most %d patterns and exclusions", PageSize)
	}
	for name, into := range map[string]*[]Pattern{"pattern": &p.patterns, "exclude": &p.exclude} {
		list, err := n.texts(name, PageSize)
		if err != nil {
			return p, err
		}
		for _, text := range list {
			pattern, err := ParsePattern(text)
			if err != nil {
				return p, err
			}
			*into = append(*into, pattern)
		}
	}
	return p, nil
}

// goodDomain reports whether d is a domain name in lower case without a final dot.
func goodDomain(d string) bool {
	if len(d) < 1 || len(d) > 253 {
		return false
	}
	for label := range strings.SplitSeq(d, ".") {
		if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}

// goodPrefix reports whether p is + and up to 15 digits.
func goodPrefix(p string) bool { return p == "+" || learn.Number(p).Valid() }

func goodURI(u string) bool {
	scheme, rest, _ := strings.Cut(u, ":")
	return len(u) <= maxURILen && graphic(u) && rest != "" && (strings.EqualFold(scheme, "sip") || strings.EqualFold(scheme, "sips"))
}

// param is the value of a URI parameter.
func param(uri, name string) string {
	uri, _, _ = strings.Cut(uri, "?")
	for p := range strings.SplitSeq(uri[strings.LastIndexByte(uri, '@')+1:], ";") {
		if k, v, ok := strings.Cut(p, "="); ok && strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}
