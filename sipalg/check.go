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
	k := messageKeys{known: true}
	v := checkPresence(m)
	if v == nil {
		v = checkKeys(m, &k)
	}
	if v == nil {
		v = checkRouting(m, &k)
	}
	if v == nil {
		v = checkAddresses(m)
	}
	if v == nil {
		v = checkBody(m)
	}
	if v == nil {
		m.keys = k
	}
	return v
}

// Caps, in bytes, on what is kept of a message while a call stands: one ticket and an answering machine would do to fill the memory with long
// ones. RFC 3261 sets no limit; the longest of RFC 4475 have some 200.
const (
	// MaxIdentifier bounds a Call-ID, a tag and a branch.
	MaxIdentifier = 1 << 10
	// MaxEvent bounds the name of an event package; a dialog may hold many subscriptions.
	MaxEvent = 1 << 8
)

// checkPresence looks for headers that are missing or stand too often.
func checkPresence(m *Message) *Violation {
	var seen uint64
	for i := range m.Headers {
		c := headerOf(m.Headers[i].Name)
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

// checkKeys checks what identifies dialog and transaction, and keeps it.
func checkKeys(m *Message, k *messageKeys) *Violation {
	n, method, ok := parseCSeq(m.Get("CSeq"))
	if !ok {
		return refuse(m, CauseCSeq, 400, "Bad CSeq")
	}
	if m.IsRequest() && method != m.Method {
		return refuse(m, CauseCSeqMethod, 400, "CSeq Method Differs")
	}
	k.cseq, k.method = n, method
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
	tag, tagged, ok := tagIn(from.params())
	if !tagged || tag == "" {
		return refuse(m, CauseNoFromTag, 400, "Missing From Tag")
	}
	if !ok {
		return refuse(m, CauseFrom, 400, "Bad From")
	}
	k.fromTag = tag
	to, ok := splitAddress(m.Get("To"))
	if ok {
		k.toTag, _, ok = tagIn(to.params())
	}
	if !ok {
		return refuse(m, CauseTo, 400, "Bad To")
	}
	switch {
	case len(k.fromTag) > MaxIdentifier:
		return refuse(m, CauseIdentifier, 400, "From Tag Too Long")
	case len(k.toTag) > MaxIdentifier:
		return refuse(m, CauseIdentifier, 400, "To Tag Too Long")
	}
	return checkURI(m, to.uri, CauseTo, "To")
}

// tagIn gives the first tag among parameters. ok wants at most one, and that a token: two readers must not see two
// dialogs.
func tagIn(params string) (tag string, tagged, ok bool) {
	ok = true
	for {
		p, rest, more := cutParam(params)
		if !more {
			return tag, tagged, ok
		}
		if strings.EqualFold(p.name, "tag") {
			ok = ok && !tagged && isToken(p.value)
			if !tagged {
				tag, tagged = p.value, true
			}
		}
		params = rest
	}
}

// checkRouting checks Request-URI, Max-Forwards and every Via, and keeps the branch of the first.
func checkRouting(m *Message, k *messageKeys) *Violation {
	if k.branch = m.Branch(); len(k.branch) > MaxIdentifier {
		return refuse(m, CauseIdentifier, 400, "Via Branch Too Long")
	}
	var room [roomForParams]Param
	for i := range m.Headers {
		if !m.Headers[i].Is("Via") {
			continue
		}
		for rest, more := m.Headers[i].Value, true; more; {
			var element string
			element, rest, more = cutList(rest)
			via, err := parseVia(trim(element), room[:0])
			if err != nil || !branchOK(&via) {
				return refuse(m, CauseVia, 400, "Bad Via")
			}
		}
	}
	if !m.IsRequest() {
		return nil
	}
	uri, err := parseURI(m.URI, room[:0])
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

// needContact tells of which methods requests are useless without a target.
func needContact(method string) bool {
	return strings.EqualFold(method, "INVITE") || strings.EqualFold(method, "SUBSCRIBE") || strings.EqualFold(method, "REFER")
}

func checkAddresses(m *Message) *Violation {
	contacts := 0
	for i := range m.Headers {
		h := &m.Headers[i]
		rule := headerOf(h.Name).address
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
	if !m.IsRequest() || !needContact(m.Method) {
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
	var room [roomForParams]Param
	_, err := parseURI(uri, room[:0])
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrControlCharacter) {
		return refuse(m, CauseURIControl, 400, "Control Character In "+name)
	}
	return refuse(m, cause, 400, "Bad "+name)
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
