package peerserver

import (
	"errors"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/ticket"
	"imeproxy/ucime/vap"
)

// issuer grants tickets whose routes are the SIP URIs of the service that publishes the called number. server is set before it is used.
type issuer struct {
	server *Server
	key    ticket.Key
	domain string
}

// Issue refuses numbers that no call agent publishes at this moment: nobody would take the calls.
func (i *issuer) Issue(node learn.PeerID, domain string, called learn.Number, now time.Time) (pvp.Grant, error) {
	p, ok := i.server.publisher(called)
	if !ok {
		return pvp.Grant{}, errors.New("no call agent publishes the called number")
	}
	return (&pvp.TicketIssuer{Key: i.key, Domain: i.domain, Routes: p.Service.URIs}).Issue(node, domain, called, now)
}

// publisher is the service that publishes a number.
func (s *Server) publisher(n learn.Number) (vap.Publication, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.services {
		if p.Numbers.Contains(n) {
			return p, true
		}
	}
	return vap.Publication{}, false
}

// Learned gives the counters of the learning engine.
func (s *Server) Learned() learn.Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine.Counters
}
