package sipalg

import (
	"bytes"
	"errors"
	"strings"
)

// Check says what is wrong with a parsed message, nil when nothing is. An absent
// Max-Forwards is accepted (RFC 2543 clients), and so are Via elements without
// branch or magic cookie; methods that are unknown but well-formed pass, as do
// option tags in Require: what to do with them is the proxy's decision.
func Check(m *Message) *Violation {
	for _, check := range []func(*Message) *Violation{checkPresence, checkKeys, checkRouting, checkAddresses, checkBody} {
		if v := check(m); v != nil {
			return v
		}
	}
	m.readKeys()
	return nil
}

// Caps, in bytes, on what is kept of a message while a call stands: one ticket and an answering machine would do to fill the memory with long
// ones. RFC 3261 sets no limit; the longest of RFC 4475 have some 200.
const (
	// MaxIdentifier bounds a Call-ID, a tag and a branch.
	MaxIdentifier = 1 << 10
	// MaxEvent bounds the name of an event package; a dialog may hold many subscriptions.
	MaxEvent = 1 << 8
)

// headerCheck is how a header is checked.
type headerCheck struct {
	name    string
	single  uint64       // a bit of its own: it may stand once
	address *addressRule // nil: it holds no addresses
}

// headerChecks is by lower-case full name: one look-up a header, whatever it is checked for.
var headerChecks = func() map[string]headerCheck {
	t := make(map[string]headerCheck)
	for i, name := range singleHeaders {
		t[strings.ToLower(name)] = headerCheck{name: name, single: 1 << i}
	}
	for i := range addressRules {
		r := &addressRules[i]
		c := t[strings.ToLower(r.name)]
		c.name, c.address = r.name, r
		t[strings.ToLower(r.name)] = c
	}
	return t
}()

func checkOf(name string) headerCheck {
	var buf [64]byte
	return headerChecks[string(lowerName(name, &buf))]
}

// checkPresence looks for headers that are missing or stand too often.
func checkPresence(m *Message) *Violation {
	var seen uint64
	for i := range m.Headers {
		c := checkOf(m.Headers[i].Name)
		if seen&c.single != 0 {
			return refuse(m, CauseDuplicateHeader, 400, "Duplicate "+c.name)
		}
		seen |= c.single
	}
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		if !m.Has(name) {
			return refuse(m, CauseMissingHeader, 400, "Missing "+name)
		}
	}
	return nil
}

// checkKeys checks what identifies dialog and transaction.
func checkKeys(m *Message) *Violation {
	_, method, ok := parseCSeq(m.Get("CSeq"))
	if !ok {
		return refuse(m, CauseCSeq, 400, "Bad CSeq")
	}
	if m.IsRequest() && method != m.Method {
		return refuse(m, CauseCSeqMethod, 400, "CSeq Method Differs")
	}
	if id := m.CallID(); id == "" || notInCallID.index(id) >= 0 || hasControl(id) {
		return refuse(m, CauseCallID, 400, "Bad Call-ID")
	} else if len(id) > MaxIdentifier {
		return refuse(m, CauseIdentifier, 400, "Call-ID Too Long")
	}
	if name, _, _ := strings.Cut(m.Get("Event"), ";"); len(name) > MaxEvent {
		return refuse(m, CauseIdentifier, 400, "Event Too Long")
	}
	from, ok := splitAddress(m.Get("From"))
	if !ok {
		return refuse(m, CauseFrom, 400, "Bad From")
	}
	if v := checkURI(m, from.uri, CauseFrom, "From"); v != nil {
		return v
	}
	if tag, has := findParam(from.params(), "tag"); !has || tag == "" {
		return refuse(m, CauseNoFromTag, 400, "Missing From Tag")
	}
	if !tagsOK(from.params()) {
		return refuse(m, CauseFrom, 400, "Bad From")
	}
	to, ok := splitAddress(m.Get("To"))
	if !ok || !tagsOK(to.params()) {
		return refuse(m, CauseTo, 400, "Bad To")
	}
	if v := checkTagSize(m, from, "From"); v != nil {
		return v
	}
	if v := checkTagSize(m, to, "To"); v != nil {
		return v
	}
	return checkURI(m, to.uri, CauseTo, "To")
}

func checkTagSize(m *Message, a address, name string) *Violation {
	if tag, _ := findParam(a.params(), "tag"); len(tag) > MaxIdentifier {
		return refuse(m, CauseIdentifier, 400, name+" Tag Too Long")
	}
	return nil
}

// tagsOK wants at most one tag, and that a token: two readers must not see two
// dialogs.
func tagsOK(params string) bool {
	n := 0
	for {
		p, rest, ok := cutParam(params)
		if !ok {
			return n <= 1
		}
		if strings.EqualFold(p.name, "tag") {
			n++
			if !isToken(p.value) {
				return false
			}
		}
		params = rest
	}
}

// checkRouting checks Request-URI, Max-Forwards and every Via.
func checkRouting(m *Message) *Violation {
	if len(m.Branch()) > MaxIdentifier {
		return refuse(m, CauseIdentifier, 400, "Via Branch Too Long")
	}
	for i := range m.Headers {
		if !m.Headers[i].Is("Via") {
			continue
		}
		for rest, more := m.Headers[i].Value, true; more; {
			var element string
			element, rest, more = cutList(rest)
			via, err := ParseVia(trim(element))
			if err != nil || !branchOK(&via) {
				return refuse(m, CauseVia, 400, "Bad Via")
			}
		}
	}
	if !m.IsRequest() {
		return nil
	}
	uri, err := ParseURI(m.URI)
	switch {
	case errors.Is(err, ErrControlCharacter):
		return refuse(m, CauseURIControl, 400, "Control Character In Request-URI")
	case err != nil || uri.HasHeaders:
		// Headers have no place in a Request-URI (RFC 3261 19.1.1).
		return refuse(m, CauseRequestURI, 400, "Bad Request-URI")
	}
	if !m.Has("Max-Forwards") {
		return nil
	}
	hops, ok := m.MaxForwards()
	if !ok {
		return refuse(m, CauseMaxForwards, 400, "Bad Max-Forwards")
	}
	if hops == 0 {
		return refuse(m, CauseTooManyHops, 483, "Too Many Hops")
	}
	return nil
}

// branchOK refuses a branch that is the magic cookie and nothing else: it
// identifies no transaction (RFC 4475 3.3.16).
func branchOK(v *Via) bool {
	n := 0
	for _, p := range v.Params {
		if strings.EqualFold(p.Name, "branch") {
			n++
		}
	}
	return n <= 1 && !strings.EqualFold(v.Branch, "z9hG4bK")
}

// addressRule says how a header with addresses is checked.
type addressRule struct {
	name     string
	cause    Cause
	brackets bool // the grammar demands name-addr
}

var addressRules = []addressRule{
	{"Contact", CauseContact, false},
	{"Route", CauseRoute, true},
	{"Record-Route", CauseRoute, true},
	{"Path", CauseRoute, true},
	{"Service-Route", CauseRoute, true},
	{"Refer-To", CauseReferTo, false},
	{"Referred-By", CauseReferTo, false},
	{"Reply-To", CauseIdentity, false},
	{"P-Asserted-Identity", CauseIdentity, false},
	{"P-Preferred-Identity", CauseIdentity, false},
	{"Remote-Party-ID", CauseIdentity, false},
	{"Diversion", CauseIdentity, true},
}

// needContact are the methods whose requests are useless without a target.
var needContact = newNameSet("INVITE", "SUBSCRIBE", "REFER")

func checkAddresses(m *Message) *Violation {
	contacts := 0
	for i := range m.Headers {
		h := &m.Headers[i]
		rule := checkOf(h.Name).address
		if rule == nil {
			continue
		}
		n, v := checkAddressHeader(m, h.Value, rule)
		if v != nil {
			return v
		}
		if rule.cause == CauseContact {
			contacts += n
		}
	}
	if !m.IsRequest() || !needContact.has(m.Method) {
		return nil
	}
	if contacts == 0 {
		return refuse(m, CauseNoContact, 400, "Missing Contact")
	}
	if contacts > 1 {
		return refuse(m, CauseContact, 400, "More Than One Contact")
	}
	return nil
}

// checkAddressHeader returns the number of elements.
func checkAddressHeader(m *Message, value string, rule *addressRule) (int, *Violation) {
	if rule.cause == CauseContact && value == "*" && m.Method == "REGISTER" { // RFC 3261 20.10
		return 1, nil
	}
	n := 0
	for rest, more := value, true; more; n++ {
		element := rest
		if more = false; rule.cause != CauseReferTo {
			element, rest, more = cutList(rest)
		}
		a, ok := splitAddress(element)
		if !ok || rule.brackets && !a.bracketed() {
			return n, refuse(m, rule.cause, 400, "Bad "+rule.name)
		}
		if v := checkURI(m, a.uri, rule.cause, rule.name); v != nil {
			return n, v
		}
	}
	return n, nil
}

func checkURI(m *Message, uri string, cause Cause, name string) *Violation {
	_, err := ParseURI(uri)
	if errors.Is(err, ErrControlCharacter) {
		return refuse(m, CauseURIControl, 400, "Control Character In "+name)
	}
	if err != nil {
		return refuse(m, cause, 400, "Bad "+name)
	}
	return nil
}

func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// checkBody compares the body with what Content-Type and Content-Encoding say.
func checkBody(m *Message) *Violation {
	if len(m.Body) == 0 {
		return nil
	}
	for _, encoding := range m.Values("Content-Encoding") {
		if !strings.EqualFold(encoding, "identity") {
			return refuse(m, CauseContentEncoding, 415, "Unsupported Content-Encoding")
		}
	}
	value := m.Get("Content-Type")
	if value == "" {
		return refuse(m, CauseNoContentType, 400, "Missing Content-Type")
	}
	kind, params, ok := mediaType(value)
	if !ok {
		return refuse(m, CauseContentType, 400, "Bad Content-Type")
	}
	switch {
	case kind == "application/sdp":
		rest, ok := bytes.CutPrefix(m.Body, []byte("v=0"))
		if !ok || len(rest) == 0 || rest[0] != '\r' && rest[0] != '\n' {
			return refuse(m, CauseBody, 400, "Body Is Not SDP")
		}
	case strings.HasPrefix(kind, "multipart/"):
		boundary, ok := boundaryOf(params)
		if !ok {
			return refuse(m, CauseContentType, 400, "Multipart Without Boundary")
		}
		if !bytes.HasPrefix(m.Body, []byte("--"+boundary)) && !bytes.Contains(m.Body, []byte("\n--"+boundary)) {
			return refuse(m, CauseBody, 400, "Boundary Not In Body")
		}
	}
	return nil
}

// mediaType reads "type/subtype;params"; the type comes back in lower case.
func mediaType(v string) (kind, params string, ok bool) {
	kind = v
	if i := strings.IndexByte(v, ';'); i >= 0 {
		kind, params = v[:i], v[i:]
	}
	main, sub, found := strings.Cut(kind, "/")
	main, sub = trim(main), trim(sub)
	if !found || !isToken(main) || !isToken(sub) || !paramsOK(params) {
		return "", "", false
	}
	if kind = trim(kind); len(kind) != len(main)+1+len(sub) {
		kind = main + "/" + sub
	}
	return strings.ToLower(kind), params, true
}

// boundaryOf returns the boundary of a multipart type, of 1 to 70 bytes (RFC 2046
// 5.1.1).
func boundaryOf(params string) (string, bool) {
	b, ok := findParam(params, "boundary")
	if strings.HasPrefix(b, `"`) {
		b = strings.ReplaceAll(strings.Trim(b, `"`), `\`, "")
	}
	return b, ok && b != "" && len(b) <= 70
}
