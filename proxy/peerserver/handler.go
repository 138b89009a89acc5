package peerserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"imeproxy/ucime/learn"
	"imeproxy/ucime/pvp"
	"imeproxy/ucime/store"
	"imeproxy/ucime/vap"
)

// handler is what stands behind the call agents' side.
type handler struct{ s *Server }

// serviceName is a service's name in the store: its user may have any characters but NUL.
func serviceName(k vap.Key) string { return k.Service.String() + " " + k.User }

func (s *Server) keyOf(name string) (vap.Key, bool) {
	id, user, ok := strings.Cut(name, " ")
	if !ok {
		return vap.Key{}, false
	}
	service, err := vap.ParseServiceID(id)
	return vap.Key{User: user, Service: service}, err == nil
}

// group is the trust group of a service; false: the service is not published now, and what it trusts is not known. The caller holds mu.
func (s *Server) group(service string) (*learn.TrustGroup, bool) {
	key, ok := s.keyOf(service)
	if !ok {
		return nil, false
	}
	p, ok := s.services[key]
	if !ok {
		return nil, false
	}
	t := p.Service.Trust
	return &learn.TrustGroup{Trusted: t.Trusted, Domains: t.Domains, Prefixes: t.Prefixes}, true
}

func (h handler) Published(_ context.Context, p vap.Publication) error {
	h.s.change(func(all map[vap.Key]vap.Publication) { all[p.Key] = p })
	if p.Numbers.Count() > 0 { // a service comes before its numbers
		h.s.publish.Do(func() { close(h.s.published) })
	}
	return nil
}

func (h handler) Unpublished(_ context.Context, key vap.Key) {
	h.s.change(func(all map[vap.Key]vap.Publication) { delete(all, key) })
}

func (s *Server) change(f func(map[vap.Key]vap.Publication)) {
	s.mu.Lock()
	f(s.services)
	all := slices.Collect(maps.Values(s.services))
	s.mu.Unlock()
	if s.cfg.Publish != nil {
		s.cfg.Publish(all)
	}
	s.wake() // calls may have waited for their service
}

// StoreVCRs takes uploaded records.
func (h handler) StoreVCRs(_ context.Context, key vap.Key, vcrs []learn.VCR) error {
	s := h.s
	var in, out []store.Upload
	for _, v := range vcrs {
		u := store.Upload{Service: serviceName(key), VCR: v}
		if v.Role == learn.Terminating {
			if err := s.keeps(v); err != nil {
				s.cfg.Log.Info("the record of a call that came in is not kept", "why", err)
				continue
			}
			in = append(in, u)
		} else {
			out = append(out, u)
		}
	}
	if len(in) > 0 {
		added, evicted, err := s.cfg.Store.AddIncoming(s.cfg.Now(), in)
		if err != nil {
			return err
		}
		for _, id := range evicted {
			s.index.Remove(id)
		}
		for _, x := range added {
			s.provable(x)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return s.outgoing(out)
}

// keeps says why a record of a call that came in is of no use to anybody, nil where it is. One of the far future would never be old.
func (s *Server) keeps(v learn.VCR) error {
	now := s.cfg.Now()
	switch {
	case v.Stop.After(now.Add(time.Hour)):
		return errors.New("the call has not ended yet: the clock of the call agent is wrong")
	case v.Stop.Before(now.Add(-s.cfg.KeepVCRs)):
		return errors.New("the call is too old")
	}
	return pvp.Usable(v, pvp.WithoutCaller)
}

// outgoing gives records of calls that went out to the engine, those that are new.
func (s *Server) outgoing(all []store.Upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, err := s.cfg.Store.Uploaded(all)
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	var fresh []store.Upload
	var full error
	for i, u := range all {
		if seen[i] {
			continue
		}
		group, _ := s.group(u.Service)
		if _, err := s.engine.Add(now, u.Service, group, u.VCR); errors.Is(err, learn.ErrPending) {
			full = fmt.Errorf("%w; the call agent keeps its record", err)
			break
		} else if err != nil {
			s.cfg.Log.Info("a call is not validated", "why", err)
		}
		fresh = append(fresh, u)
	}
	if err := s.save(now, nil, fresh...); err != nil {
		return err
	}
	s.wake()
	return full
}

// Pending gives the notifications that wait for a service.
func (h handler) Pending(_ context.Context, key vap.Key, after uint64, limit int) ([]vap.Notification, error) {
	notices, err := h.s.cfg.Store.Pending(serviceName(key), after, limit)
	if err != nil {
		return nil, err
	}
	var out []vap.Notification
	for _, n := range notices {
		x := vap.Notification{Service: key.Service, ID: n.ID, Reason: n.Reason}
		if n.Withdrawn {
			x.Withdrawn = []learn.Number{n.Route.Number}
		} else {
			x.Routes = []learn.Route{n.Route}
		}
		out = append(out, x)
	}
	return out, nil
}

// Settle ends a notification.
func (h handler) Settle(_ context.Context, key vap.Key, id uint64, accepted bool) error {
	return h.s.cfg.Store.Settle(serviceName(key), id, accepted)
}

// trust is the called side's trust: of the services that publish the number.
type trust struct{ s *Server }

// Trusted says whether a domain may have routes to the number of a call that it has proven; nobody may to one that no call agent publishes. Where several
// services publish it, each may refuse. Prefixes are those of the other side's number, here the caller's as the PSTN has shown it, and not of our own.
func (t trust) Trusted(domain string, call learn.VCR) bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	published := false
	for _, p := range t.s.services {
		if p.Numbers.Contains(call.Called) {
			if !p.Service.Trust.Allows(domain, call.Caller) {
				return false
			}
			published = true
		}
	}
	return published
}
