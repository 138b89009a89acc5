package proxy

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"imeproxy/proxy/trace"
	"imeproxy/sipalg"
	"imeproxy/sipalg/dialog"
	"imeproxy/ucime/ticket"
)

// A request from the Internet reaches nobody but whom it may: outside a dialog the number of the ticket at a host of this enterprise, within one
// what its inside end has named as its place (RFC 3261 12.2.1.1: the Request-URI is the remote target, or a strict router of the route set). A call
// agent that is a proxy would send anything else to wherever it is told.

// causeTarget counts the requests that lead elsewhere.
const causeTarget = "target_elsewhere"

// maxNamed bounds the targets that are remembered of a call: a request may be on its way to one that has just been replaced, not to one long gone.
const maxNamed = 8

// maxTarget bounds the Request-URI, in bytes, with which a request from the Internet opens something: it is kept for as long as that stands, and one
// ticket and an answering machine would do to fill the memory with long ones.
const maxTarget = 2 << 10

// name remembers what the inside end of a call says its place is, as it says it. The call is locked.
func (c *call) name(m *sipalg.Message) {
	if !m.IsRequest() && (m.Status <= 100 || m.Status >= 300) {
		return // where a redirection leads is another call's business
	}
	uri := dialog.AddressURI(m.Get("Contact"))
	if uri == "" || len(uri) > maxTarget || slices.Contains(c.named, uri) {
		return
	}
	if len(c.named) >= maxNamed {
		c.named = slices.Delete(c.named, 1, 2) // the first is the one that was called, or that called
	}
	c.named = append(c.named, strings.Clone(uri))
}

// nameFirst remembers the place that a call is opened with: the URI that was called, which CANCEL and the ACK of a failure name again, or
// the inside caller. The call is nobody else's yet.
func (s *session) nameFirst(c *call, m *sipalg.Message, from dialog.Side) {
	if from == dialog.Outside {
		c.named = append(c.named, strings.Clone(s.rw.RequestURIOf(m)))
		return
	}
	if uri := dialog.AddressURI(m.Get("From")); len(uri) <= maxTarget {
		c.named = append(c.named, strings.Clone(uri))
	}
	c.name(m)
}

// misled tells why a request from the Internet within a call must not go on, "" when it may. The call is locked.
func (s *session) misled(c *call, m *sipalg.Message) string {
	uri := s.rw.RequestURIOf(m)
	if !slices.Contains(c.named, uri) {
		if why := s.unnamed(c, uri); why != "" {
			return why
		}
	}
	for _, r := range m.Values("Route") { // a strict router puts it into the Request-URI
		uri, _, _ := sipalg.AddressURI(r)
		if uri = s.rw.RequestURI(uri); userOfURI(uri) != "" && !slices.Contains(c.named, uri) {
			if why := s.unnamed(c, uri); why != "" {
				return "Route: " + why
			}
		}
	}
	return ""
}

// unnamed looks at a URI that is not to the letter what the inside end has named.
func (s *session) unnamed(c *call, text string) string {
	u, err := sipalg.ParseURI(text)
	if err != nil || !u.IsSIP() {
		return "it is no SIP URI that was named"
	}
	user, host := u.User == "", s.oursIs(u.Host)
	maddr, readable := maddrOf(u)
	place := readable && (maddr == "" || s.oursIs(maddr))
	for _, named := range c.targets() {
		n, err := sipalg.ParseURI(named)
		if err != nil {
			continue
		}
		user = user || sameUser(u.User, n.User)
		host = host || sameHost(u.Host, n.Host)
		if other, ok := maddrOf(n); ok && readable {
			place = place || sameHost(maddr, other)
		}
	}
	switch {
	case !user:
		return "nobody of that name is in the dialog"
	case !host, !place:
		return "its host is neither of the dialog nor of this enterprise"
	}
	return ""
}

// targets are the places that the inside end has named, those of its strict routers too.
func (c *call) targets() []string {
	list := slices.Clone(c.named)
	for _, d := range c.d.Dialogs() {
		for _, r := range d.Ends[dialog.Inside].Routes {
			list = append(list, dialog.AddressURI(r))
		}
	}
	return list
}

func sameUser(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := url.PathUnescape(a)
	y, err2 := url.PathUnescape(b)
	if err1 == nil && err2 == nil && x == y {
		return true
	}
	n := ticket.CalledNumber(a)
	return n != "" && n == ticket.CalledNumber(b)
}

func sameHost(a, b string) bool {
	x, err1 := netip.ParseAddr(strings.Trim(a, "[]"))
	y, err2 := netip.ParseAddr(strings.Trim(b, "[]"))
	if err1 == nil && err2 == nil {
		return x.Unmap() == y.Unmap()
	}
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// maddrOf gives the "maddr" that counts in the host's place (RFC 3261 19.1.1), "" where there is none; false when that cannot be told.
func maddrOf(u sipalg.URI) (maddr string, ok bool) {
	for _, p := range u.Params {
		name, err1 := url.PathUnescape(p.Name)
		value, err2 := url.PathUnescape(p.Value)
		if err1 != nil || err2 != nil {
			return "", false
		}
		if strings.EqualFold(name, "maddr") {
			if maddr != "" {
				return "", false
			}
			maddr = value
		}
	}
	return maddr, true
}

// foreign tells whether the Request-URI of a request that opens something, or a Route of it, leads away from this enterprise. The first Route may
// name the call agent, which takes it off (RFC 3261 16.4): it would send the request to the next one whoever is in the Request-URI.
func (s *session) foreign(m *sipalg.Message) bool {
	for _, r := range m.Values("Route") {
		uri, _, _ := sipalg.AddressURI(r)
		if s.away(uri) || s.away(s.rw.RequestURI(uri)) { // a token may bring back any host of the inside
			return true
		}
	}
	return s.away(m.URI)
}

func (s *session) away(uri string) bool {
	u, err := sipalg.ParseURI(uri)
	if err != nil || !u.IsSIP() {
		return true // a ticket is for a number in a SIP URI
	}
	maddr, ok := maddrOf(u)
	return !ok || !s.oursIs(u.Host) || maddr != "" && !s.oursIs(maddr)
}

// oursIs tells whether a host is this enterprise's: an address of a call agent or of the appliance, or a name at or below one of its domains.
func (s *session) oursIs(host string) bool {
	p := s.a.plan.Load()
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err == nil {
		addr = addr.Unmap()
		if addr == s.agent.real || addr == s.mapped.Addr() || addr == s.agent.hide || slices.Contains(p.own, addr) || p.agents[addr] != nil {
			return true
		}
		for _, n := range p.statics {
			if n.Mapped == addr {
				return true
			}
		}
		return false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, d := range append(s.a.ownDomains(s.class), p.domain) {
		if d = strings.ToLower(d); d != "" && (host == d || strings.HasSuffix(host, "."+d)) {
			return true
		}
	}
	return false
}

// turnAway refuses a request within a call whose Request-URI or Route leads elsewhere. The call is locked.
func (s *session) turnAway(c *call, m *sipalg.Message, why string) {
	s.a.trace.Event(trace.Signaling, m.CallID(), c.domain, "session %d: %s to %s: %s", s.id, m.Method, m.URI, why)
	s.refuse(m, dialog.Outside, 404, "Not Found", causeTarget)
}
