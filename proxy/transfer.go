package proxy

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/ucime/ticket"
)

// What makes a call agent dial a number, or takes a call over: Refer-To (RFC 3515), the Contact of a redirection (RFC 3261 8.1.3.4), Error-Info
// (20.18), Replaces (RFC 3891) and Join (RFC 3911). From the Internet it leads to whom the sender talks with or may call, or to what `transfer
// permit` names; else a ticket for one number would be one for every premium number (docs/tickets.md, "Transfers and redirections").

// The causes of what is refused here.
const (
	causeTransfer = "transfer_elsewhere"
	causeReplaces = "replaces_unknown"
)

// referral is where a REFER from the Internet leads.
type referral struct {
	uri      string // in the inside's form; "": the request is no REFER with a Refer-To
	replaces string // what its Replaces has, "" without
	refused  string // why it may not go on in any case
	parties  []string
	stands   bool // Replaces names a call with the sender's enterprise
}

// referral reads a REFER and looks up the call that it is to replace. No call may be locked.
func (s *session) referral(m *sipalg.Message) (r referral) {
	if m.Method != "REFER" || !m.Has("Refer-To") {
		return r
	}
	uri, _, ok := sipalg.AddressURI(s.rw.InboundValue("Refer-To", m.Get("Refer-To")))
	if r.uri = uri; !ok || uri == "" {
		r.refused = "its Refer-To cannot be read"
		return r
	}
	var headers string
	r.uri, headers, _ = cutHeaders(uri)
	for h := range strings.SplitSeq(headers, "&") {
		name, value, _ := strings.Cut(h, "=")
		name, err1 := url.PathUnescape(name)
		value, err2 := url.PathUnescape(value)
		x := sipalg.Header{Name: name, Value: value}
		switch {
		case h == "":
		case err1 != nil || err2 != nil:
			r.refused = "a header in its Refer-To cannot be read"
		case x.Is("Replaces") && r.replaces == "":
			r.replaces = value
		case x.Is("Require") && strings.EqualFold(strings.TrimSpace(value), "replaces"), x.Is("Referred-By"):
		default: // a Route leads elsewhere, a From or an identity says that somebody else calls (RFC 3261 19.1.5)
			r.refused = "its Refer-To asks for the header " + word(name, maxWord)
		}
	}
	if r.replaces != "" {
		if c := s.standing(r.replaces); c != nil {
			r.stands = true
			c.locked(func() { r.parties = c.targets() })
		}
	}
	return r
}

// cutHeaders cuts a URI before the headers that it asks for. A user part may hold a question mark of its own.
func cutHeaders(uri string) (bare, headers string, found bool) {
	at := strings.IndexByte(uri, '@') + 1
	bare, headers, found = strings.Cut(uri[at:], "?")
	return uri[:at] + bare, headers, found
}

// transferred tells why a REFER from the Internet within a call must not go on, "" when it may. The call is locked.
func (s *session) transferred(c *call, r referral) string {
	switch {
	case r.uri == "" && r.refused == "":
		return ""
	case r.refused != "":
		return r.refused
	}
	if why := s.dialled(c, r.uri, r.parties); why != "" {
		return why
	}
	if u, err := sipalg.ParseURI(r.uri); r.replaces != "" && !r.stands && (err != nil || !s.farIs(c, u.Host)) {
		return "its Replaces names no call between the two enterprises"
	}
	return ""
}

// dialled tells why a call agent must not dial a URI that the far end of a call has named, "" when it may. others are parties of another call with the
// same enterprise. The call is locked.
func (s *session) dialled(c *call, text string, others []string) string {
	u, err := sipalg.ParseURI(text)
	if err != nil || u.HasHeaders {
		return "it is no URI that may be dialled"
	}
	named := append(c.targets(), others...)
	if slices.Contains(named, text) {
		return ""
	}
	user := u.User
	switch {
	case strings.EqualFold(u.Scheme, "tel"):
		user = u.Opaque
	case !u.IsSIP():
		return "it is no URI that may be dialled"
	default:
		if why := s.strangePlace(c, u, named); why != "" {
			return why
		}
	}
	if c.d.From == dialog.Inside {
		named = append(named, "tel:"+c.rec.To) // our own call agent has dialled it
	}
	for _, n := range named {
		x, err := sipalg.ParseURI(n)
		if err == nil && sameParty(user, x.User+x.Opaque) {
			return ""
		}
	}
	number := ticket.CalledNumber(user)
	if number == "" || strings.ContainsAny(user, ";:") {
		return "nobody of that name is in the call"
	}
	if slices.Contains(c.granted, number) || slices.ContainsFunc(c.proven(), func(n string) bool { return sameBlock(number, n) }) {
		return ""
	}
	if p := s.a.plan.Load(); p.UCIME != nil && isNumber(number) && slices.ContainsFunc(p.UCIME.Transfers, func(t string) bool { return strings.HasPrefix(number, t) }) {
		return ""
	}
	return "the number is neither of the call nor of transfer permit"
}

// proven are the numbers of a call that are nobody's mere word: the one that is called, which a ticket or our own call agent names, and of a call of
// the inside its caller's. The call is locked.
func (c *call) proven() []string {
	numbers := append([]string{ticket.CalledNumber(c.rec.To)}, c.granted...)
	if c.d.From == dialog.Inside {
		numbers = append(numbers, ticket.CalledNumber(c.rec.From))
	}
	return numbers
}

// blockDigits is how many digits at their end the numbers of one block differ in; blockLeast is how many a number has at least that is taken for one
// of a block: shorter ones are services.
const (
	blockDigits = 4
	blockLeast  = 9
)

// sameBlock tells whether two numbers differ in their last four digits at most: those of a colleague, to whom most transfers lead, and no premium one.
func sameBlock(a, b string) bool {
	return isNumber(a) && isNumber(b) && len(a) == len(b) && len(a) > blockLeast && a[:len(a)-blockDigits] == b[:len(b)-blockDigits]
}

// strangePlace tells why host and parameters of a URI are none to be called at, "" when they may be.
func (s *session) strangePlace(c *call, u sipalg.URI, named []string) string {
	maddr, readable := maddrOf(u)
	host, place := s.oursIs(u.Host) || s.farIs(c, u.Host), readable && (maddr == "" || s.oursIs(maddr) || s.farIs(c, maddr))
	for _, n := range named {
		if x, err := sipalg.ParseURI(n); err == nil && x.IsSIP() {
			host = host || sameHost(u.Host, x.Host)
		}
	}
	if !host || !place {
		return "its host is of neither enterprise"
	}
	for _, p := range u.Params {
		name, err1 := url.PathUnescape(p.Name)
		value, err2 := url.PathUnescape(p.Value)
		switch strings.ToLower(name) {
		case "transport", "user", "lr", "maddr", "ob", "gr":
		case "method":
			if value != "INVITE" {
				return "it asks for another method than INVITE"
			}
		default: // such as a routing number, a carrier, a trunk group
			return "it has the parameter " + word(name, maxWord)
		}
		if err1 != nil || err2 != nil {
			return "a parameter cannot be read"
		}
	}
	return ""
}

// farIs tells whether a host is the far enterprise's of a call: a name at or below its domain, or the address of the connection.
func (s *session) farIs(c *call, host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	domain := strings.ToLower(c.domain)
	return domain != "" && (host == domain || strings.HasSuffix(host, "."+domain)) || s.remote.IsValid() && sameHost(host, s.remote.Addr().String())
}

// sameParty tells whether two user parts mean the same and nothing beside: parameters of a number may send it elsewhere, or dial on.
func sameParty(a, b string) bool {
	return a != "" && (a == b || !strings.ContainsAny(a, ";:") && sameUser(a, b))
}

// isNumber tells whether a text is + and 2 to 15 digits.
func isNumber(s string) bool {
	digits, ok := strings.CutPrefix(s, "+")
	return ok && len(digits) >= 2 && len(digits) <= 15 && strings.Trim(digits, "0123456789") == ""
}

// standing finds the call with the far end's enterprise whose dialog a Replaces or Join names, nil without. No call may be locked.
func (s *session) standing(value string) *call {
	id, params, _ := strings.Cut(value, ";")
	var tags []string
	for p := range strings.SplitSeq(params, ";") {
		name, tag, _ := strings.Cut(p, "=")
		if name = strings.ToLower(strings.TrimSpace(name)); name == "to-tag" || name == "from-tag" {
			tags = append(tags, strings.TrimSpace(tag))
		}
	}
	if len(tags) != 2 {
		return nil
	}
	for _, c := range s.a.calls.withID(strings.TrimSpace(id)) {
		found := false
		c.locked(func() { found = c.agent.real == s.agent.real && c.d.Between(tags[0], tags[1]) })
		if found && s.holds(c.domain) {
			return c
		}
	}
	return nil
}

// takesOver tells whether an INVITE from the Internet is to take over, or to join, a call with another enterprise, or one with its own under tags that
// are wrong, unless the inside has told it of that call. One that the appliance does not know is the call agent's to judge: its identifiers are
// secrets of the inside, such as those that an attended transfer hands on. No call may be locked.
func (s *session) takesOver(m *sipalg.Message) bool {
	if m.Method != "INVITE" {
		return false
	}
	for _, name := range []string{"Replaces", "Join"} {
		if !m.Has(name) {
			continue
		}
		value := s.rw.InboundValue(name, m.Get(name))
		id, _, _ := strings.Cut(value, ";")
		if len(s.a.calls.withID(strings.TrimSpace(id))) > 0 && s.standing(value) == nil && !s.a.lent.has(strings.TrimSpace(id), s.a.now(), s.holds) {
			return true
		}
	}
	return false
}

// lent are the calls of the inside that it has told other enterprises of, for them to take over: an attended transfer to somebody of the inside.
type lent struct {
	mu   sync.Mutex
	list []lentCall // the oldest first; guarded by mu
}

type lentCall struct {
	id, domain string
	until      time.Time
}

const (
	maxLent  = 1024            // calls that are told of at a time
	lentTime = 3 * time.Minute // from the REFER to the INVITE that it asks for
)

// note remembers the call that a REFER of the inside names in a Replaces.
func (l *lent) note(m *sipalg.Message, domain string, now time.Time) {
	uri, _, _ := sipalg.AddressURI(m.Get("Refer-To"))
	_, headers, _ := cutHeaders(uri)
	for h := range strings.SplitSeq(headers, "&") {
		name, value, _ := strings.Cut(h, "=")
		value, err := url.PathUnescape(value)
		if id, _, _ := strings.Cut(value, ";"); err == nil && strings.EqualFold(name, "Replaces") && len(id) <= maxTarget {
			l.mu.Lock()
			l.list = slices.DeleteFunc(l.list, func(c lentCall) bool { return !now.Before(c.until) })
			if len(l.list) >= maxLent {
				l.list = slices.Delete(l.list, 0, 1)
			}
			l.list = append(l.list, lentCall{strings.Clone(strings.TrimSpace(id)), domain, now.Add(lentTime)})
			l.mu.Unlock()
		}
	}
}

// has tells whether an enterprise, one of whose domains holds says, was told of a call.
func (l *lent) has(id string, now time.Time, holds func(domain string) bool) bool {
	l.mu.Lock()
	list := slices.Clone(l.list)
	l.mu.Unlock()
	return slices.ContainsFunc(list, func(c lentCall) bool { return c.id == id && now.Before(c.until) && holds(c.domain) })
}

// redirected takes out of a response from the Internet what would make the call agent dial somebody else. It is in the inside's form, the call is
// locked.
func (s *session) redirected(c *call, m *sipalg.Message) {
	if m.Status/100 == 3 || m.Status == 485 {
		s.keep(c, m, "Contact", func(uri string) bool { return s.dialled(c, uri, nil) == "" })
	}
	if m.Has("Error-Info") { // a SIP URI there may be called (RFC 3261 20.18)
		s.keep(c, m, "Error-Info", func(uri string) bool {
			u, err := sipalg.ParseURI(uri)
			return err == nil && (strings.EqualFold(u.Scheme, "http") || strings.EqualFold(u.Scheme, "https"))
		})
	}
}

// keep removes the elements of a header whose URI is not good. The call is locked.
func (s *session) keep(c *call, m *sipalg.Message, name string, good func(uri string) bool) {
	all := m.Values(name)
	kept := slices.DeleteFunc(slices.Clone(all), func(v string) bool {
		uri, _, ok := sipalg.AddressURI(v)
		return !ok || !good(uri)
	})
	if len(kept) == len(all) {
		return
	}
	m.Del(name)
	for _, v := range kept {
		m.Add(name, v)
	}
	s.a.trace.Event(trace.Signaling, m.CallID(), c.domain, "session %d: %d of %d elements of %s removed", s.id, len(all)-len(kept), len(all), name)
	c.log().Warn("what a stranger says was removed", "header", name, "removed", len(all)-len(kept), "of", len(all), "method", m.Method, "status", m.Status)
}
