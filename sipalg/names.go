package sipalg

import "strings"

// compactNames maps the one-letter forms to the full names (RFC 3261 7.3.3, RFC
// 3515, 3892, 4028, 6665, 3841, 8224).
var compactNames = [256]string{
	'a': "Accept-Contact", 'b': "Referred-By", 'c': "Content-Type", 'd': "Request-Disposition",
	'e': "Content-Encoding", 'f': "From", 'i': "Call-ID", 'j': "Reject-Contact", 'k': "Supported",
	'l': "Content-Length", 'm': "Contact", 'n': "Identity-Info", 'o': "Event", 'r': "Refer-To",
	's': "Subject", 't': "To", 'u': "Allow-Events", 'v': "Via", 'x': "Session-Expires", 'y': "Identity",
}

// fullName resolves a compact header name; other names come back as they are.
func fullName(name string) string {
	if len(name) == 1 {
		if full := compactNames[name[0]|0x20]; full != "" {
			return full
		}
	}
	return name
}

// nameSet is a set of header names for look-ups without regard to case.
type nameSet map[string]struct{}

func newNameSet(names ...string) nameSet {
	s := make(nameSet, len(names))
	for _, n := range names {
		s[strings.ToLower(n)] = struct{}{}
	}
	return s
}

// has finds a name in any case and in its compact form.
func (s nameSet) has(name string) bool {
	var buf [64]byte
	_, ok := s[string(lowerName(name, &buf))]
	return ok
}

// lowerName resolves compact forms and folds the case without allocating; names
// over 64 bytes, which no table holds, give nothing.
func lowerName(name string, buf *[64]byte) []byte {
	name = fullName(name)
	if len(name) > len(buf) {
		return nil
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		buf[i] = c
	}
	return buf[:len(name)]
}

// header is all that is known of a header by its name.
type header struct {
	name    string
	class   headerClass
	list    bool         // its elements are separated by commas
	single  uint64       // a bit of its own: it may stand once
	address *addressRule // nil: it holds no addresses
	next    uint8        // the next one in the same cell, 0: none
}

// headerTable finds headers by length, first and last letter of the name. A map would have to fold and hash all of each name.
type headerTable struct {
	cells [256]uint8
	all   []header // the first one stands for names that are not here
}

func (t *headerTable) cell(name string) *uint8 {
	return &t.cells[uint8(len(name))*8+(name[0]|0x20)*5+(name[len(name)-1]|0x20)]
}

// find gives the header of a name in any case and in its compact form; nothing of what it gives may be changed.
func (t *headerTable) find(name string) *header {
	if name = fullName(name); name == "" {
		return &t.all[0]
	}
	for i := *t.cell(name); i != 0; i = t.all[i].next {
		if h := &t.all[i]; h.name == name || len(h.name) == len(name) && strings.EqualFold(h.name, name) {
			return h
		}
	}
	return &t.all[0]
}

// entry is find for who fills the table; it adds a name that is not there.
func (t *headerTable) entry(name string) *header {
	if h := t.find(name); h != &t.all[0] {
		return h
	}
	c := t.cell(name)
	t.all = append(t.all, header{name: name, next: *c})
	*c = uint8(len(t.all) - 1)
	return &t.all[*c]
}

var headers = func() *headerTable {
	t := &headerTable{all: make([]header, 1)}
	for i, name := range singleHeaders {
		t.entry(name).single = 1 << i
	}
	for i := range addressRules {
		t.entry(addressRules[i].name).address = &addressRules[i]
	}
	for class, names := range headerClasses {
		for name := range strings.FieldsSeq(names) {
			t.entry(name).class = headerClass(class)
		}
	}
	for name := range strings.FieldsSeq(listHeaders) {
		t.entry(name).list = true
	}
	return t
}()

func headerOf(name string) *header { return headers.find(name) }

// listHeaders hold elements separated by commas.
const listHeaders = "Via Contact Route Record-Route Path Service-Route Accept Accept-Encoding Accept-Language Allow Allow-Events Supported Require " +
	"Proxy-Require Unsupported Diversion History-Info P-Asserted-Identity P-Preferred-Identity P-Associated-URI Call-Info Alert-Info Error-Info " +
	"Warning In-Reply-To Content-Encoding Content-Language Reason Remote-Party-ID Accept-Contact Reject-Contact"

// singleHeaders may stand once in a message.
var singleHeaders = []string{
	"From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length", "Content-Type",
	"Content-Disposition", "Date", "Event", "Expires", "Join", "MIME-Version", "Min-Expires", "Min-SE",
	"Organization", "Priority", "RAck", "RSeq", "Refer-Sub", "Refer-To", "Referred-By", "Replaces",
	"Reply-To", "Retry-After", "Server", "Session-Expires", "Subject", "Subscription-State",
	"Target-Dialog", "Timestamp", "User-Agent",
}

const (
	// HeaderTicket carries the ticket; it passes through unchanged.
	HeaderTicket = "X-Cisco-UC-IME-Ticket"
	// HeaderFallback carries the sensitivity level from a call agent to its own
	// proxy; it crosses the border in neither direction.
	HeaderFallback = "X-Cisco-UC-IME-Fallback"
	// HeaderQuality is in the proxy's own notifications to its call agent; one from outside is removed.
	HeaderQuality = "X-Cisco-UC-IME-Quality"
	// HeaderFallbackTarget carries the number to dial for PSTN fallback.
	HeaderFallbackTarget = "X-Cisco-UC-IME-Fallback-Target"
)

// character classes of RFC 3261 25.1, one bit each.
const (
	classToken = 1 << iota
	classHex
	classURI
	classHost
)

var charClass = func() (t [256]uint8) {
	for c := 0; c < 256; c++ {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if alnum || strings.IndexByte("-.!%*_+`'~", byte(c)) >= 0 {
			t[c] |= classToken
		}
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' {
			t[c] |= classHex
		}
		// Wider than the grammar by "#", "^", "`", "{", "|" and "}", which
		// phones put in user parts and which harm nobody.
		if c > 0x20 && c < 0x7f && strings.IndexByte("<>\"\\", byte(c)) < 0 {
			t[c] |= classURI
		}
		if alnum || c == '-' || c == '.' || c == '_' {
			t[c] |= classHost
		}
	}
	return t
}()

func isToken(s string) bool { return s != "" && allOf(s, classToken) }

func allOf(s string, class uint8) bool {
	for i := 0; i < len(s); i++ {
		if charClass[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func trim(s string) string {
	for s != "" && isBlank(s[0]) {
		s = s[1:]
	}
	for s != "" && isBlank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// number reads 1*DIGIT up to limit; leading zeros are legal ("0068", RFC 4475
// 3.1.1.1).
func number(s string, limit uint64) (uint64, bool) {
	if !isDigits(s) {
		return 0, false
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		n = n*10 + uint64(s[i]-'0')
		if n > limit {
			return 0, false
		}
	}
	return n, true
}
