package vap

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// ClientStatus is a connection (show ime vapstatus summary; guide lines 3880-3900).
type ClientStatus struct {
	Registered          bool           `json:"registered"`
	Client              netip.AddrPort `json:"client"`
	Handle              uint32         `json:"handle"`
	Sent                uint64         `json:"packets_sent"`
	Received            uint64         `json:"packets_received"`
	Server              string         `json:"server"` // the instance's name
	MissedKeepAlives    int            `json:"missed_keep_alives"`
	UpTime              time.Duration  `json:"up_time_ns"` // since it was opened
	User                string         `json:"user"`
	Name                string         `json:"name"`
	Encrypted           bool           `json:"encrypted"`
	Subscriptions       int            `json:"subscriptions"`
	PublishedServices   int            `json:"published_services"`
	RegisteredSinceTime time.Time      `json:"registered_since"`
}

// Clients are the connections, registered ones first, in the order of their handles.
func (s *Server) Clients() []ClientStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []ClientStatus
	for c := range s.conns {
		st := ClientStatus{
			Registered: c.registered, Client: c.remote, Handle: c.handle, Sent: c.sent.Load(), Received: c.rcvd.Load(), Server: c.inst.Name,
			MissedKeepAlives: c.missed, UpTime: s.clock.Now().Sub(c.opened), User: c.user, Name: c.name, Encrypted: c.inst.TLS != nil,
			Subscriptions: len(c.subs), RegisteredSinceTime: c.since,
		}
		for _, p := range s.pubs {
			if _, ok := p.publishers[c]; ok {
				st.PublishedServices++
			}
		}
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b ClientStatus) int {
		if a.Registered != b.Registered {
			if a.Registered {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Handle, b.Handle), a.Client.Compare(b.Client))
	})
	return list
}

// ServiceStatus is a published service (show ime vservice details; guide lines 3915-3930).
type ServiceStatus struct {
	Key     Key      `json:"key"`
	Service Service  `json:"service"`
	Numbers uint64   `json:"numbers"`
	Version uint32   `json:"version"`
	Clients []uint32 `json:"clients"` // handles of the registrations that publish it; none: held for a client that is away
}

// Services are the published services, in the order of users and VServiceIds.
func (s *Server) Services() []ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]ServiceStatus, 0, len(s.pubs))
	for _, p := range s.pubs {
		st := ServiceStatus{Key: p.key, Service: p.service, Numbers: p.numbers.Count(), Version: p.version}
		for c := range p.publishers {
			st.Clients = append(st.Clients, c.handle)
		}
		slices.Sort(st.Clients)
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b ServiceStatus) int {
		return cmp.Or(cmp.Compare(a.Key.User, b.Key.User), slices.Compare(a.Key.Service[:], b.Key.Service[:]))
	})
	return list
}

// Publications are the services with their numbers, for who starts to look after the server did.
func (s *Server) Publications() []Publication {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Publication, 0, len(s.pubs))
	for _, p := range s.pubs {
		list = append(list, Publication{p.key, p.service, p.numbers})
	}
	return list
}

// Stats are the server's counters since it was made, and three gauges.
type Stats struct {
	Registered  int   `json:"registered"` // now
	Connections int   `json:"connections"`
	Quota       Quota `json:"quota"` // unique numbers now, and allowed

	Accepted             uint64 `json:"accepted"`              // connections
	RefusedSources       uint64 `json:"refused_sources"`       // closed at once: their address guessed passwords
	Evicted              uint64 `json:"evicted"`               // the oldest of too many that were not registered
	NotRegistered        uint64 `json:"not_registered"`        // closed: no registration within 10 s
	FailedHandshakes     uint64 `json:"failed_handshakes"`     // TLS
	BrokenFraming        uint64 `json:"broken_framing"`        //
	FailedAuthentication uint64 `json:"failed_authentication"` // wrong password or user
	FailedIntegrity      uint64 `json:"failed_integrity"`      // of a registered client's message: somebody meddles
	Registrations        uint64 `json:"registrations"`
	Replaced             uint64 `json:"replaced"`             // by a newer registration of the same client
	TooManyConnections   uint64 `json:"too_many_connections"` // registrations refused
	MissedKeepAlives     uint64 `json:"missed_keep_alives"`
	Silent               uint64 `json:"silent"`           // closed after 3 missed in a row
	RefusedRequests      uint64 `json:"refused_requests"` // of registered clients, answered with an error
	Published            uint64 `json:"published"`        // Publish requests
	RefusedPublications  uint64 `json:"refused_publications"`
	OverQuota            uint64 `json:"over_quota"`
	Expired              uint64 `json:"expired"` // services withdrawn after the hold time
	Revoked              uint64 `json:"revoked"` // services
	VCRs                 uint64 `json:"vcrs"`    // stored
	FailedUploads        uint64 `json:"failed_uploads"`
	Notified             uint64 `json:"notified"`     // notifications sent, each time
	Acknowledged         uint64 `json:"acknowledged"` //
	Rejected             uint64 `json:"rejected"`     // by the call agent's trust rules
	FailedNotifications  uint64 `json:"failed_notifications"`
}

type counters struct {
	accepted, refusedSources, evicted, unregistered, handshakes, framing, authentication, integrity, registrations, replaced, tooMany, missed,
	silent, refused, published, publishRefused, overQuota, expired, revoked, vcrs, uploadsFailed, notified, acknowledged, rejected,
	notifyFailed atomic.Uint64
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	n := &s.count
	st := Stats{
		Accepted: n.accepted.Load(), RefusedSources: n.refusedSources.Load(), Evicted: n.evicted.Load(), NotRegistered: n.unregistered.Load(),
		FailedHandshakes: n.handshakes.Load(), BrokenFraming: n.framing.Load(), FailedAuthentication: n.authentication.Load(),
		FailedIntegrity: n.integrity.Load(), Registrations: n.registrations.Load(), Replaced: n.replaced.Load(), TooManyConnections: n.tooMany.Load(),
		MissedKeepAlives: n.missed.Load(), Silent: n.silent.Load(), RefusedRequests: n.refused.Load(), Published: n.published.Load(),
		RefusedPublications: n.publishRefused.Load(), OverQuota: n.overQuota.Load(), Expired: n.expired.Load(), Revoked: n.revoked.Load(),
		VCRs: n.vcrs.Load(), FailedUploads: n.uploadsFailed.Load(), Notified: n.notified.Load(), Acknowledged: n.acknowledged.Load(),
		Rejected: n.rejected.Load(), FailedNotifications: n.notifyFailed.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Connections, st.Quota = len(s.conns), Quota{clamp(s.total), s.quota}
	for c := range s.conns {
		if c.registered {
			st.Registered++
		}
	}
	return st
}
