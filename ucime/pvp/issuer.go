package pvp

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/ticket"
)

// Issuer makes what a proven originator gets. An error is told to it as "unavailable" and no more.
type Issuer interface {
	// Issue grants the originator's domain calls to the called number; node is our peer ID in this validation.
	Issue(node learn.PeerID, domain string, called learn.Number, now time.Time) (Grant, error)
}

// Trust is the trust group (guide lines 371 and 8791): whether a domain that has proven a call may have routes to its called number.
type Trust interface {
	Trusted(domain string, call learn.VCR) bool
}

// TicketIssuer is an Issuer over ucime/ticket. Its fields are not changed once it is used; a new password, epoch or route
// makes a new one.
type TicketIssuer struct {
	// Key is that of the proxy's epoch (ticket.DeriveKey).
	Key ticket.Key
	// Domain is ours; the inbound certificate of the proxy names it.
	Domain string
	// Routes are the SIP URIs of our edge in order of preference.
	Routes []string
	// Aliases returns the other numbers of the called number's line, none where it is nil.
	Aliases func(called learn.Number) []learn.Number
	// Lifetime of tickets, ticket.DefaultLifetime (a year) where it is 0.
	Lifetime time.Duration
}

// Issue makes a ticket for the called number and its aliases.
func (t *TicketIssuer) Issue(node learn.PeerID, domain string, called learn.Number, now time.Time) (Grant, error) {
	own, err := ticket.NormalizeDomain(t.Domain)
	if err != nil {
		return Grant{}, fmt.Errorf("own domain: %w", err)
	}
	g := Grant{Numbers: []learn.Number{called}, Domain: own, Routes: t.Routes}
	if t.Aliases != nil {
		for _, a := range t.Aliases(called) {
			if len(g.Numbers) < ticket.MaxNumbers && !slices.Contains(g.Numbers, a) {
				g.Numbers = append(g.Numbers, a)
			}
		}
	}
	numbers := make([]string, len(g.Numbers))
	for i, n := range g.Numbers {
		numbers[i] = string(n)
	}
	g.Ticket, err = ticket.Issue(t.Key, ticket.IssueParams{
		GrantingDomain: own, GrantedToDomain: domain, Numbers: numbers, GrantingNode: node, NotBefore: now, Lifetime: t.Lifetime,
	})
	if err != nil {
		return Grant{}, err
	}
	return g, nil
}

// checkGrant says what an originator must not take from a grant: what its proxy or the other one would refuse later.
func checkGrant(g *Grant, own string, called learn.Number, peer learn.PeerID, now time.Time) error {
	if !slices.Contains(g.Numbers, called) {
		return errors.New("the answer does not name the called number")
	}
	t, err := ticket.Decode(g.Ticket)
	if err != nil {
		return fmt.Errorf("ticket: %w", err)
	}
	switch {
	case t.GrantedToDomain != own:
		return fmt.Errorf("the ticket is for %s", t.GrantedToDomain)
	case t.GrantingDomain != g.Domain:
		return fmt.Errorf("the ticket is from %s, the answer from %s", t.GrantingDomain, g.Domain)
	case learn.PeerID(t.GrantingNode) != peer:
		return fmt.Errorf("the ticket is from peer ID %s", learn.PeerID(t.GrantingNode))
	case !slices.Contains(t.Numbers, string(called)):
		return errors.New("the ticket does not name the called number")
	case t.NotAfter <= uint64(now.Unix()):
		return fmt.Errorf("the ticket ended at Unix time %d", t.NotAfter)
	}
	for _, n := range g.Numbers { // a number without a ticket would be a route that never works
		if !slices.Contains(t.Numbers, string(n)) {
			return errors.New("the ticket does not name all numbers of the answer")
		}
	}
	return nil
}
