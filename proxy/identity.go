package proxy

import (
	"slices"
	"strings"

	"imeproxy/sipalg"
)

// calledParty says for whom the call was meant; some call agents go by it in the place of the Request-URI.
const calledParty = "P-Called-Party-ID"

// trusted are headers that mean something between hosts that trust each other alone (RFC 3324): who pays, who is served, what the call is.
var trusted = []string{
	"P-Charge-Info", "P-Charging-Vector", "P-Charging-Function-Addresses", "P-Served-User", "P-Asserted-Service", "P-Private-Network-Indication",
}

// claims are these, and those that say who calls or who has forwarded the call: a call agent that trusts them lets somebody in as one of its own users.
var claims = append([]string{"P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID", "Diversion", "History-Info", calledParty}, trusted...)

// disown takes out of a request from the Internet that opens something what nobody there can say of this enterprise: that one of its own users
// calls, or has forwarded the call (RFC 3325 section 5: what comes from a host that is not trusted is removed). What the far enterprise says of its
// users passes, and so does what names the one who is called. The call is locked.
func (s *session) disown(c *call, m *sipalg.Message) {
	var found []string
	for i := range m.Headers {
		h := &m.Headers[i]
		if strings.IndexByte("pPrRdDhH", h.Name[0]) < 0 {
			continue
		}
		for _, name := range claims {
			if h.Is(name) && !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	if found == nil {
		return
	}
	called := s.calledUser(m)
	for _, name := range found {
		s.keep(c, m, name, func(uri string) bool {
			u, err := sipalg.ParseURI(uri)
			switch {
			case err != nil || slices.Contains(trusted, name):
				return false
			case name == calledParty:
				return sameParty(u.User+u.Opaque, called)
			}
			return !u.IsSIP() || sameParty(u.User, called) || !s.oursIs(u.Host)
		})
	}
}
